"""What all text readers share: the interface, the collector of snapshots, numbers as kernels print them.

Owns TextFamily (a reader that is offered one line after the other and takes those that are its own) and
Collector (where snapshots go, within limits). A reader never looks ahead, so files of any size stream by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from spbfast.observed.cleanup import TextLine
from spbfast.observed.receipt import Receipt, shown
from spbfast.observed.values import Snapshot, TraceSummary, ZoneRecord

MAX_SNAPSHOTS = 2000
MAX_ZONES = 20000
MAX_COUNTERS = 60000
MAX_ROWS = 100000  # slab caches, per-CPU limits
MAX_KEYS = 64  # of one zone or CPU
HALF = 1 << 63
WHOLE = 1 << 64


@dataclass
class Collector:
    """Everything that the readers of one file found.

    Attributes
    ----------
    path : Path
    receipt : Receipt
    snapshots : list of Snapshot
    traces : list of TraceSummary
    heading : str
        The last short line that no reader took: often a title.
    """

    path: Path
    receipt: Receipt = field(default_factory=Receipt)
    snapshots: list[Snapshot] = field(default_factory=list)
    traces: list[TraceSummary] = field(default_factory=list)
    heading: str = ""
    nr_zones: int = 0
    nr_counters: int = 0
    nr_rows: int = 0
    dropped: int = 0

    def new_snapshot(self, kind: str, line: int) -> Snapshot:
        """A snapshot to fill; beyond the limit it is filled and forgotten, and the receipt says so."""
        snapshot = Snapshot(kind, line, file=str(self.path), heading=self.heading)
        self.heading = ""
        if len(self.snapshots) < MAX_SNAPSHOTS:
            self.snapshots.append(snapshot)
        else:
            self.dropped += 1
        return snapshot

    def new_zone(self, snapshot: Snapshot, node: int | None, zone: str, line: int) -> ZoneRecord:
        """A zone to fill, within the limit on zones."""
        record = ZoneRecord(node, zone, line)
        self.nr_zones += 1
        if self.nr_zones <= MAX_ZONES:
            snapshot.add_zone(record)
        else:
            self.dropped += 1
        return record

    def put_counter(self, counters: dict[str, int], name: str, value: int) -> None:
        """Set a counter, within the limit on counters."""
        self.nr_counters += 1
        if self.nr_counters <= MAX_COUNTERS:
            counters[name] = value
        else:
            self.dropped += 1

    def has_room(self) -> bool:
        """Whether one more row is kept; beyond the limit it is counted as left out."""
        self.nr_rows += 1
        self.dropped += self.nr_rows > MAX_ROWS
        return self.nr_rows <= MAX_ROWS

    def finish(self) -> None:
        """Put the tables in the order of the file, and say what the limits left out."""
        self.snapshots.sort(key=lambda s: s.line)
        if self.dropped:
            text = f"{self.dropped} further tables, zones or counters beyond the limits of one reading"
            self.receipt.say("left_out", text + "; split the file to read them")


class TextFamily:
    """A reader of one family of text: offered every line, it takes those that are its own."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.receipt = collector.receipt

    def take(self, line: TextLine, follows: bool) -> bool:
        """Whether the line belongs to this family, which then has used it.

        Parameters
        ----------
        line : TextLine
        follows : bool
            Whether this family took the line before, so that a bare continuation may be its own.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """The file has ended."""


def signed(value: int) -> int:
    """A 64-bit counter that ran below zero and was printed as unsigned, back below zero."""
    return value - WHOLE if HALF <= value < WHOLE else value


def block_counts(text: str) -> tuple[tuple[int, ...], frozenset[int], str]:
    """Counts of blocks at the start of a text: numbers, orders that are capped, and what follows."""
    counts: list[int] = []
    capped: set[int] = set()
    words = text.split()
    for i, word in enumerate(words):
        digits = word.removeprefix(">")
        if not digits.isascii() or not digits.isdigit() or len(digits) > 20:
            return tuple(counts), frozenset(capped), " ".join(words[i:])
        if digits is not word:
            capped.add(len(counts))
        counts.append(int(digits))
    return tuple(counts), frozenset(capped), ""


def say_cap(receipt: Receipt, where: str, value: int, orders: frozenset[int]) -> None:
    """Tell the receipt about counts that the kernel stopped counting."""
    listed = ", ".join(str(o) for o in sorted(orders))
    receipt.say(
        "lower_bounds", f"{where}: more than {value} free blocks at order {listed}; counted as {value}"
    )


def say_puzzle(receipt: Receipt, where: str, rest: str) -> None:
    """Tell the receipt about text behind a row of numbers."""
    receipt.say("left_out", f"{where}: text behind the numbers: {shown(rest, 40)}")
