"""The receipt of a reading: what was read, guessed, missing, contradictory, a lower bound, or lost.

Owns Receipt and its limits. Readers add lines to it; describe.py prints it. Every list is bounded: a hostile
file cannot make it grow, and what was said before is not said again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_LINES = 60
MAX_EXAMPLES = 5


@dataclass
class Receipt:
    """What a reading found and how sure it is.

    Attributes
    ----------
    read : list of str
        What was found.
    repaired : list of str
        What the posting had done to the text and was undone (quote marks, wraps, escapes).
    guessed : list of str
        What the file does not say and was assumed.
    missing : list of str
        What would be needed and is not there, or is cut off.
    contradictory : list of str
        Numbers that cannot both be right, with both.
    lower_bounds : list of str
        Counts that the kernel capped.
    lost : list of str
        Events that the recorder dropped.
    left_out : list of str
        Parts that were recognised and not used.
    model_lacks : list of str
        What a simulated machine could not be started from, by name.
    facts : dict of str to str
        Page size, number of orders, pageblock order, types: as the file has them.
    not_understood : int
        Lines that no reader took.
    examples : list of str
        The first of them.
    """

    read: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    contradictory: list[str] = field(default_factory=list)
    lower_bounds: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    model_lacks: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    not_understood: int = 0
    examples: list[str] = field(default_factory=list)

    def say(self, heading: str, text: str) -> None:
        """Add a line under a heading (an attribute's name), once."""
        lines: list[str] = getattr(self, heading)
        if text in lines or len(lines) > MAX_LINES:
            return
        lines.append(text if len(lines) < MAX_LINES else "... and more of the same kind")

    def puzzle(self, line: int, text: str) -> None:
        """Count a line that no reader took, and keep the first few."""
        self.not_understood += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"line {line}: {shown(text)}")

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        """Headings with their lines, those that have any, in the order of reading."""
        for name in HEADINGS:
            lines: list[str] = getattr(self, name)
            if lines:
                yield name.replace("_", " "), lines
        if self.not_understood:
            count = f"{self.not_understood} line{'s' if self.not_understood > 1 else ''}, such as"
            yield "not understood", [count, *self.examples]

    def merge(self, other: Receipt, source: str) -> None:
        """Take over what the receipt of another file says; lines that name no file get its name."""
        for name in HEADINGS:
            for line in getattr(other, name):
                self.say(name, f"{source}: {line}")
        self.facts.update(other.facts)
        self.not_understood += other.not_understood
        examples = [f"{source}: {text}" for text in other.examples]
        self.examples = [*self.examples, *examples][:MAX_EXAMPLES]


HEADINGS = (
    "read",
    "repaired",
    "guessed",
    "missing",
    "contradictory",
    "lower_bounds",
    "lost",
    "left_out",
    "model_lacks",
)


def counted(number: int, what: str) -> str:
    """A number with its noun: 1 zone, 3 zones."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def shown(text: str, width: int = 80) -> str:
    """A piece of a foreign file, safe to print: control characters as dots, cut to a width."""
    plain = "".join(c if c.isprintable() else "." for c in text[: width + 1])
    return plain if len(plain) <= width else plain[: width - 1] + "…"
