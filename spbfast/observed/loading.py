"""From a file to an Observation: recognise, clean, offer to the readers, check, write the receipt.

Owns `read_dump`, `read_dumps` and `read_events`. Files stream by; what is kept is bounded by the limits of
the readers, not by the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spbfast.errors import DumpError
from spbfast.observed.capture_reading import capture_events, summarise_capture
from spbfast.observed.cleanup import (
    TextLine,
    cleaned_lines,
    is_quoted_printable,
    unwrap_quoted_printable,
    without_prefix,
)
from spbfast.observed.columns import ColumnReader
from spbfast.observed.consistency import check_snapshots, say_facts
from spbfast.observed.families import Collector, TextFamily
from spbfast.observed.llfree import summarise_llfree
from spbfast.observed.meminfo_report import MemInfoReader
from spbfast.observed.page_owner import PageOwnerReader
from spbfast.observed.plotfrag import summarise_plotfrag
from spbfast.observed.procfs import CounterLists, SlabInfoReader
from spbfast.observed.receipt import Receipt, shown
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.textlines import ends_with_newline, physical_lines
from spbfast.observed.tracesummary import TraceReader
from spbfast.observed.tracetext import TraceEvent, TraceEvents
from spbfast.observed.values import Snapshot, TraceSummary
from spbfast.observed.zoneinfo import ZoneInfoReader
from spbfast.observed.zonetables import ZoneTables
from spbfast.text import quote_value

_TITLE = re.compile(
    r"buddyinfo|pagetypeinfo|zoneinfo|slabinfo|vmstat|meminfo|_index\b|\bbefore\b|\bafter\b|\bcat /", re.I
)
_RULE = re.compile(r"^[-=_*#~`.\s]*$")
# Whatever can begin something known has one of these; other lines of a long log need not be offered to all.
_MAY_BEGIN = re.compile(
    r"mm_|kmem|kmalloc|kfree|_retry|victim|rss_stat|test_pages|cma_|shrink|nsecs|#|LOST|EVENTS|events"
    r"|\[\d{3,5}\]|cpus=|empty|version|Node|age|Number of|slabinfo|active_objs|tunables|PFN|alloc|last free"
    r"|ainted|oom|[Ss]ys[Rr]q|[Mm]em|[kK]B|[Aa]ctive|COMM|order|=|\d\s*$"
)
SAMPLE_LINES = 2000
EXPECTED = (
    "buddyinfo, pagetypeinfo, zoneinfo, slabinfo, vmstat, meminfo, extfrag or unusable index, a page "
    "allocation failure, OOM or SysRq-m report, page_owner, a trace as text, LLFree's trace, "
    "plot-fragmentation's JSON or a capture of spbfast"
)


@dataclass
class Observation:
    """Everything that was read from one file, or from several of one machine.

    Attributes
    ----------
    files : list of str
    snapshots : list of Snapshot
        Tables and reports, in the order of the file.
    traces : list of TraceSummary
        Counts of events; the events themselves come from `read_events`.
    receipt : Receipt
        What was read and how sure it is.
    """

    files: list[str]
    snapshots: list[Snapshot] = field(default_factory=list)
    traces: list[TraceSummary] = field(default_factory=list)
    receipt: Receipt = field(default_factory=Receipt)

    def of_kind(self, kind: str) -> list[Snapshot]:
        """The snapshots of one kind, such as ``buddyinfo``."""
        return [s for s in self.snapshots if s.kind == kind]


def read_dump(path: str | Path) -> Observation:
    """Read one file that a running kernel, or a tool that watches one, wrote.

    Parameters
    ----------
    path : str or Path
        The file; its kind is recognised by content.

    Returns
    -------
    Observation

    Raises
    ------
    DumpError
        When the file cannot be opened, breaks a limit, or holds nothing that is known.
    """
    return read_dumps([path])


def read_dumps(paths: Sequence[str | Path]) -> Observation:
    """Read files of one machine together, and say where they contradict each other.

    Raises
    ------
    DumpError
        As `read_dump`; also when no file is given.
    """
    if isinstance(paths, str | Path) or not isinstance(paths, Sequence):
        raise DumpError(quote_value(paths), 0, "a list of files is needed; for one file call read_dump")
    if not paths:
        raise DumpError("", 0, "no file given")
    if wrong := [p for p in paths if not isinstance(p, str | Path)]:
        raise DumpError(quote_value(wrong[0]), 0, "must be the path of a file")
    parts = [_read_alone(Path(p)) for p in paths]
    if len(parts) == 1:
        whole = parts[0]
    else:
        whole = Observation([f for p in parts for f in p.files])
        for part in parts:
            whole.snapshots += part.snapshots
            whole.traces += part.traces
            whole.receipt.merge(part.receipt, Path(part.files[0]).name)
    say_facts(whole.snapshots, whole.traces, whole.receipt)
    check_snapshots(whole.snapshots, whole.receipt)
    return whole


def read_events(path: str | Path, receipt: Receipt | None = None) -> Iterator[TraceEvent]:
    """Events of a trace as text, one after the other, in constant memory.

    Parameters
    ----------
    path : str or Path
    receipt : Receipt, optional
        Told what was repaired and lost; complete when the iterator ends.

    Raises
    ------
    DumpError
        When the file cannot be opened, is no text, or breaks a limit.
    """
    if not isinstance(path, str | Path):
        raise DumpError(quote_value(path), 0, "must be the path of a file")
    path = Path(path)
    kind, encoding = kind_of_file(path)
    if kind == "capture":
        yield from capture_events(path)
        return
    if kind != "text":
        raise DumpError(path, 0, f"is no trace as text but {kind}")
    events = TraceEvents(receipt or Receipt())
    follows = False
    for line in _lines_of(path, encoding, events.receipt):
        follows = events.take(line, follows)
        if events.ready:
            yield from events.ready
            events.ready.clear()
    events.finish()
    events.say_lost()
    yield from events.ready


def _read_alone(path: Path) -> Observation:
    kind, encoding = kind_of_file(path)
    collector = Collector(path)
    if kind == "llfree":
        summarise_llfree(collector)
    elif kind == "capture":
        summarise_capture(collector, _read_table)
    elif kind == "plotfrag":
        summarise_plotfrag(collector)
    else:
        is_last_used = _read_text(collector, _lines_of(path, encoding, collector.receipt))
        if is_last_used and not ends_with_newline(path):
            collector.receipt.say("missing", "the file ends without a line end; its last line may be cut")
    collector.finish()
    if not collector.snapshots and not collector.traces:
        raise _nothing_known(path, collector.receipt)
    return Observation([str(path)], collector.snapshots, collector.traces, collector.receipt)


def _nothing_known(path: Path, receipt: Receipt) -> DumpError:
    first = receipt.examples[0] if receipt.examples else "no text"
    return DumpError(path, 0, f"holds nothing that is known ({first}); expected {EXPECTED}")


def _lines_of(path: Path, encoding: str, receipt: Receipt) -> Iterator[TextLine]:
    lines: Iterable[tuple[int, str]] = physical_lines(path, encoding)
    lines = iter(lines)
    sample = list(itertools.islice(lines, SAMPLE_LINES))
    whole: Iterable[tuple[int, str]] = itertools.chain(sample, lines)
    if is_quoted_printable(text for _, text in sample):
        receipt.say("repaired", "quoted-printable decoded")
        whole = unwrap_quoted_printable(whole)
    return cleaned_lines(whole, receipt)


def _read_table(collector: Collector, lines: Iterable[tuple[int, str]]) -> None:
    _read_text(collector, cleaned_lines(lines, collector.receipt))


def _read_text(collector: Collector, lines: Iterable[TextLine]) -> bool:
    """Offer lines to all readers; whether the last one was used."""
    reports = MemInfoReader(collector)
    families: list[TextFamily] = [
        TraceReader(collector),
        ZoneTables(collector),
        ZoneInfoReader(collector),
        SlabInfoReader(collector),
        CounterLists(collector),
        PageOwnerReader(collector),
        reports,
        ColumnReader(collector),
    ]
    last: TextFamily | None = None
    for line in lines:
        taker = None
        if last is not None or reports.is_open or _MAY_BEGIN.search(line.text):
            taker = next((f for f in families if f.take(line, f is last)), None)
            taker = taker or _take_behind_prefix(families, line, last)
        if taker is None and line.text.strip():
            _note_unknown(collector, line)
        last = taker
    for family in families:
        family.finish()
    return last is not None


def _take_behind_prefix(
    families: list[TextFamily], line: TextLine, last: TextFamily | None
) -> TextFamily | None:
    """Offer the line again without what a logger put before it."""
    body = without_prefix(line.text)
    if not body or len(body) == len(line.text.lstrip()):
        return None
    bare = TextLine(line.number, body)
    return next((f for f in families if f.take(bare, f is last)), None)


def _note_unknown(collector: Collector, line: TextLine) -> None:
    text = line.text.strip()
    is_title = len(text) <= 80 and _TITLE.search(text)
    collector.heading = shown(text, 60) if is_title else ""
    if not is_title and not _RULE.match(text):
        collector.receipt.puzzle(line.number, text)
