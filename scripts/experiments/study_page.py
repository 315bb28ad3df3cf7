"""The pages of the studies and their overview, written from the kept numbers alone.

Owns layout, and what is said of varied inputs: whether the answer's sign holds. What a study asks and answers
is in studies.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from experiments.study_numbers import Metric, Numbers, sign, told
from spbfast.results.effects import FEW_PAIRS, Effect

WORDS_MAX = 300
SIGNS = {-1: "a clear fall", 0: "not told from 0", 1: "a clear rise"}
BEGIN = "# Answers to the thread's questions"


Contrast = tuple[str, Mapping[str, Any], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the numbers say: a line, the paragraphs behind it."""

    line: str
    details: Sequence[str]


@dataclass(frozen=True)
class Study:
    """A question, how it is asked of the model, and how the answer is read.

    Attributes
    ----------
    name, title, question, asked, method, limits : str
        Words of the page; `name` is also that of the job and of the files.
    own : tuple of str
        Coordinates of the sweep that the question is about.
    metrics : mapping
        What is read of each run.
    headline : Contrast
        Metric, settings of a point, and settings of its control: the effect whose sign is the answer. Without
        a control it is the metric itself.
    answer : callable
        ``answer(numbers) -> Answer``.
    rows : callable
        ``rows(numbers) -> list of (label, Effect)``: the figure.
    axis, scale : str
        What the figure's axis shows, and its scale: "linear" or "log".
    small : tuple of str
        Overrides of a rerun at reduced scale.
    extra : callable
        ``extra(ds)``: what else is kept of the results, as plain data.
    others : callable
        ``others(numbers)``: further effects on which the answer rests, such as that of the change found best.
    """

    name: str
    title: str
    question: str
    asked: str
    method: str
    limits: str
    own: tuple[str, ...]
    metrics: Mapping[str, Metric]
    headline: Contrast
    answer: Callable[[Numbers], Answer]
    rows: Callable[[Numbers], list[tuple[str, Effect]]]
    axis: str
    scale: str = "linear"
    small: tuple[str, ...] = ("replicates=4",)
    extra: Callable[[xr.Dataset], Any] = lambda ds: None
    others: Callable[[Numbers], list[Contrast]] = lambda numbers: []

    @property
    def unit(self) -> str:
        """Unit of the headline."""
        return self.metrics[self.headline[0]].unit

    def effect(self, numbers: Numbers) -> Effect:
        """The headline effect."""
        return numbers.effect(*self.headline)

    def contrasts(self, numbers: Numbers) -> list[Contrast]:
        """The effects on which the answer rests, the headline first."""
        return [self.headline, *self.others(numbers)]


def flips(numbers: Numbers, contrast: Contrast) -> dict[str, tuple[Effect, bool]]:
    """By varied input an effect, and whether its sign is another than with the file's inputs."""
    own = sign(numbers.effect(*contrast))
    found = {}
    for varied in numbers.varied:
        if numbers.has(varied, *contrast[1:]):
            effect = numbers.effect(*contrast, varied)
            found[varied] = (effect, sign(effect) != own)
    return found


def page(study: Study, kept: Mapping[str, Any]) -> str:
    """The Markdown page."""
    numbers = Numbers(kept)
    answer = study.answer(numbers)
    lines = [
        f"# {study.title}",
        "",
        _first(study, numbers),
        "",
        f"**Question.** {study.question}",
        "",
        f"**Who asked.** {study.asked}",
        "",
        f"**Method.** {study.method} {_conditions(study, numbers)}",
        "",
        f"**Answer.** {answer.line} {' '.join(answer.details)}",
        "",
        f"**What it hangs on.** {_hangs(study, numbers)}",
        "",
        f"**Limits.** {study.limits}",
        "",
        f"![{study.axis}]({study.name}.svg)",
    ]
    return "\n".join(lines) + "\n"


def _first(study: Study, numbers: Numbers) -> str:
    """What does not come out, or that the sign holds."""
    turned = []
    for contrast in study.contrasts(numbers):
        found = flips(numbers, contrast)
        others: dict[str, list[str]] = {}
        for varied, (effect, flip) in found.items():
            if flip:
                others.setdefault(SIGNS[sign(effect)], []).append(varied)
        if others:
            own = SIGNS[sign(numbers.effect(*contrast))]
            but = ", ".join(f"{what} with {' or '.join(varied)}" for what, varied in others.items())
            turned.append(f"{_value_of(contrast)} is {own}, but {but}")
    if turned:
        return f"**The answer flips: {'; '.join(turned)}.**"
    return f"**The sign holds under all {len(numbers.varied)} varied inputs.**"


def _conditions(study: Study, numbers: Numbers) -> str:
    few = (
        f" Of {numbers.replicates} pairs intervals are too narrow." if numbers.replicates < FEW_PAIRS else ""
    )
    return (
        f"`spbfast sweep configs/studies/{study.name}.yaml`: {numbers.kept['seconds_simulated']:g} s of "
        f"`configs/base/devvm-small.yaml`, {numbers.replicates} paired replicates, 95 % bootstrap "
        f"intervals.{few}"
    )


def _hangs(study: Study, numbers: Numbers) -> str:
    first, *rest = study.contrasts(numbers)
    head = _under_each(numbers, first, f"{_value_of(first)}{_control_of(first)}")
    others = [_under_each(numbers, contrast, f"{_value_of(contrast)} likewise") for contrast in rest]
    return f"In {study.unit}: {' '.join([head, *others])}"


def _under_each(numbers: Numbers, contrast: Contrast, name: str) -> str:
    """An effect with the file's inputs and under each varied one."""
    own = told(numbers.effect(*contrast))
    others = {varied: told(effect) for varied, (effect, _) in flips(numbers, contrast).items()}
    if set(others.values()) == {own}:
        return f"{name}: {own}, and the same with {', '.join(others)}."
    listed = [own, *(f"{text} with {varied}" for varied, text in others.items())]
    return f"{name}: {'; '.join(listed)}."


def _value_of(contrast: Contrast) -> str:
    """The settings that a contrast is about: those that its control does not share."""
    _, value, control = contrast
    differ = [key for key, given in value.items() if (control or {}).get(key) != given]
    return " ".join(_said(key, value[key]) for key in differ)


def _control_of(contrast: Contrast) -> str:
    _, value, control = contrast
    differ = [key for key in value if control and value[key] != control.get(key)]
    return " minus " + " ".join(_shown(control[key]) for key in differ) if control else ""


def _said(key: str, value: Any) -> str:
    """A number needs the key's last words, a name speaks for itself."""
    return _shown(value) if isinstance(value, str) else f"`{key.split('_', 1)[1]}` {_shown(value)}"


def _shown(value: Any) -> str:
    return (
        f"{value:,}" if isinstance(value, int) else f"`{value}`" if isinstance(value, str) else f"{value:g}"
    )


def certainty(study: Study, numbers: Numbers) -> str:
    """For the overview: whether the signs hold, and on how many pairs they rest."""
    found = [flip for contrast in study.contrasts(numbers) for _, flip in flips(numbers, contrast).values()]
    turned = sum(found)
    holds = f"flips in {turned} of {len(found)} checks" if turned else f"holds in all {len(found)} checks"
    return f"{holds} with inputs varied; {numbers.replicates} pairs"


def row(study: Study, kept: Mapping[str, Any]) -> str:
    """The study's row of the overview."""
    numbers = Numbers(kept)
    cells = [
        f"[{study.title}]({study.name}.md)",
        study.question,
        study.answer(numbers).line,
        told(study.effect(numbers), study.unit),
        certainty(study, numbers),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def overview(done: Sequence[tuple[Study, Mapping[str, Any]]], missing: Sequence[Study]) -> str:
    """The page that lists all studies."""
    lines = [
        BEGIN,
        "",
        "Written by `scripts/studies` from the runs of configs/studies/, not edited by hand;",
        "`scripts/studies NAME` runs one anew. Effects are differences of means, paired by replicate, with",
        "95 % intervals; the sign was asked again with uncertain inputs of the machine varied. The machine",
        "is the changelog's in small (`configs/base/devvm-small.yaml`): counts do not carry over. Varied:",
        "1 % of movable pages pinned, each alone; 22 memory control groups (memcgs) instead of 2; kswapd",
        "that spares slab instead of shrinking it as MGLRU does; watermarks without pages that a reserve",
        "bars.",
        "",
        "| study | question | answer | effect | certainty |",
        "|---|---|---|---|---|",
        *(row(study, kept) for study, kept in done),
    ]
    if missing:
        lines += ["", f"Not run yet: {', '.join(study.title for study in missing)}."]
    return "\n".join(lines) + "\n"
