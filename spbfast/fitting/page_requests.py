"""Requests of a recording as columns: when which block was handed out or freed, and what its flags say.

Owns the reading of request-level events, from captures and from traces as text. Nothing is paired here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spbfast.constants import MAX_ORDER
from spbfast.errors import DumpError
from spbfast.fitting.compaction_runs import BEGIN, END, CompactionRuns
from spbfast.fitting.holder_flags import flag_names
from spbfast.observed import read_dump
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches
from spbfast.observed.loading import read_events
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file

MOST_EVENTS = 10_000_000  # each takes some 120 bytes of memory
HIGHEST_TYPE = 2  # what actors ask for; HIGHATOMIC, CMA and ISOLATE are none of theirs
MOST_FLAGS = 4096  # different values; later ones count as unknown
_MOST_PFN = 1 << 36
_LATEST = 1 << 61
_AT_ONCE = 1 << 15


@dataclass
class PageRequests:
    """Request-level events in the order of their time.

    Attributes
    ----------
    time_ns, pfn : ndarray
        int64 [n]
    order, mt : ndarray
        int8 [n]; type of allocations, -1 for frees.
    flags : ndarray
        int16 [n]; index into `flag_sets`, -1 where nothing is known.
    moved : ndarray
        bool [n]; frees of old places by compaction, where its runs were recorded.
    flag_sets : list
        Names of flags; None for numbers that cannot be read.
    start_ns, end_ns : int
        The time that the recording covers.
    lost_at : ndarray
        int64; times of gaps. Empty where the recorder tells none, or not when.
    lost, failed, strange, other_types, left_out : int
        Events that were dropped by the recorder, that handed out nothing, that no machine has, of types that
        actors have not, and those behind the first `MOST_EVENTS`.
    cpus : int
    said : list of str
        What the reading has to say of losses.
    """

    time_ns: np.ndarray
    pfn: np.ndarray
    order: np.ndarray
    mt: np.ndarray
    flags: np.ndarray
    moved: np.ndarray
    flag_sets: list[frozenset[str] | None]
    start_ns: int = 0
    end_ns: int = 0
    lost_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    lost: int = 0
    failed: int = 0
    strange: int = 0
    other_types: int = 0
    left_out: int = 0
    cpus: int = 1
    said: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pfn)

    @property
    def seconds(self) -> float:
        """Time that the recording covers."""
        return (self.end_ns - self.start_ns) / 1e9

    def between(self, start_ns: int, end_ns: int) -> PageRequests:
        """The events of a span of time, as if nothing else had been recorded."""
        keep = (self.time_ns >= start_ns) & (self.time_ns < end_ns)
        lost_at = self.lost_at[(self.lost_at >= start_ns) & (self.lost_at < end_ns)]
        return PageRequests(
            self.time_ns[keep],
            self.pfn[keep],
            self.order[keep],
            self.mt[keep],
            self.flags[keep],
            self.moved[keep],
            self.flag_sets,
            start_ns,
            end_ns,
            lost_at,
            len(lost_at),
            cpus=self.cpus,
        )


class _Columns:
    """Columns as they grow, in the types that they are kept in."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.flag_sets: list[frozenset[str] | None] = []
        self.index_of: dict[int | str, int] = {}
        self.lost_at: list[int] = []
        self.first, self.last = 1 << 62, -1
        self.n = self.lost = self.failed = self.strange = self.other_types = self.left_out = 0
        self.cpus = 1
        self.runs = CompactionRuns()

    def flag_index(self, flags: int | str) -> int:
        if flags not in self.index_of and len(self.flag_sets) < MOST_FLAGS:
            self.index_of[flags] = len(self.flag_sets)
            self.flag_sets.append(flag_names(flags, self.kernel))
        return self.index_of.get(flags, -1)

    def span(self, times: np.ndarray) -> None:
        times = times[(times >= 0) & (times <= _LATEST)]
        if len(times):
            self.first, self.last = min(self.first, int(times.min())), max(self.last, int(times.max()))

    def add(
        self,
        time_ns: np.ndarray,
        pfn: np.ndarray,
        order: np.ndarray,
        mt: np.ndarray,
        flags: np.ndarray,
        moved: np.ndarray,
    ) -> None:
        """Events of one batch; `mt` is -1 for frees. Those that cannot be used are counted."""
        is_alloc = mt != -1
        got = ~is_alloc | (pfn > 0)
        sane = (order >= 0) & (order <= MAX_ORDER) & (pfn >= 0) & (pfn < _MOST_PFN) & (mt >= -1)
        sane &= (time_ns >= 0) & (time_ns <= _LATEST)
        sane &= (pfn & ((np.int64(1) << np.clip(order, 0, MAX_ORDER)) - 1)) == 0
        usual = mt <= HIGHEST_TYPE
        self.failed += int((~got).sum())
        self.strange += int((got & ~sane).sum())
        self.other_types += int((got & sane & ~usual).sum())
        keep = np.flatnonzero(got & sane & usual)
        room = max(MOST_EVENTS - self.n, 0)
        self.left_out += max(len(keep) - room, 0)
        if not room:
            return
        keep = keep[:room]
        self.span(time_ns[keep])
        self.n += len(keep)
        self.parts.append(
            (
                time_ns[keep],
                pfn[keep],
                order[keep].astype(np.int8),
                mt[keep].astype(np.int8),
                flags[keep].astype(np.int16),
                moved[keep].astype(bool),
            )
        )

    def finish(self) -> PageRequests:
        kinds = (np.int64, np.int64, np.int8, np.int8, np.int16, np.bool_)
        time_ns, pfn, order, mt, flags, moved = (
            np.concatenate([np.zeros(0, kind), *(part[i] for part in self.parts)])
            for i, kind in enumerate(kinds)
        )
        return PageRequests(
            time_ns,
            pfn,
            order,
            mt,
            flags,
            moved,
            self.flag_sets,
            max(min(self.first, self.last), 0),
            max(self.last, 0),
            np.sort(np.array(self.lost_at, np.int64)),
            self.lost,
            self.failed,
            self.strange,
            self.other_types,
            self.left_out,
            self.cpus,
        )


def read_page_events(path: Path) -> PageRequests:
    """Allocations and frees of a capture or of a trace as text.

    Raises
    ------
    DumpError
        When the file is neither, is damaged, or has no events of request level.
    """
    kind, _ = kind_of_file(path)
    if kind not in ("capture", "text"):
        raise DumpError(path, 0, f"is no capture and no trace as text but {kind}")
    if kind == "capture":
        facts = read_dump(path).receipt.facts
        columns = _Columns(facts.get("capture: kernel", ""))
        for kinds, batch in read_batches(path):
            _take_batch(columns, kinds, batch)
        events = columns.finish()
    else:
        events = _text_events(path)
    if not (events.mt >= 0).any():
        raise DumpError(path, 0, _nothing_to_fit(events))
    return events


def _nothing_to_fit(events: PageRequests) -> str:
    if events.lost:
        return f"has no allocation left to fit: {events.lost:,} events were lost"
    if events.failed or events.strange or events.other_types:
        return (
            f"has no allocation to fit: {events.failed:,} got no page, {events.strange:,} are of no machine, "
            f"{events.other_types:,} are of types that no actor asks for"
        )
    return "has no mm_page_alloc; record with --events request, or all"


def _take_batch(columns: _Columns, kinds: EventKinds, batch: EventBatch) -> None:
    if columns.n + len(batch) <= MOST_EVENTS:  # a batch that is cut covers the time of what is kept
        columns.span(batch.time_ns)
    if columns.n < MOST_EVENTS:
        is_lost = batch.kind == 0
        columns.lost += int(np.maximum(batch.fields[is_lost, 0], 1).sum())
        columns.lost_at += np.clip(batch.time_ns[is_lost], 0, _LATEST).tolist()
        columns.cpus = max(columns.cpus, int(batch.cpu.max(initial=0)) + 1)
    at, fields = {}, {}
    for name in ("mm_page_alloc", "mm_page_free"):
        number = kinds.number(name)
        at[name] = batch.kind == number if number > 0 else np.zeros(len(batch), bool)
        fields[name] = kinds.fields[number] if number > 0 else ()
    chosen = at["mm_page_alloc"] | at["mm_page_free"]
    whole = {}
    for field_name, without in (("pfn", 0), ("order", 0), ("migratetype", -1), ("gfp_flags", -1)):
        values = np.full(len(batch), without, np.int64)
        for name, rows in at.items():
            if field_name in fields[name]:
                values[rows] = batch.fields[rows, fields[name].index(field_name)]
        whole[field_name] = values[chosen]
    is_alloc = at["mm_page_alloc"][chosen]
    mt = np.where(is_alloc, np.maximum(whole["migratetype"], 0), -1)
    columns.strange += int((is_alloc & (whole["migratetype"] < 0)).sum())
    mt[is_alloc & (whole["migratetype"] < 0)] = HIGHEST_TYPE + 1
    flags = _flag_indices(columns, np.where(is_alloc, whole["gfp_flags"], -1))
    begins, ends = (batch.kind == kinds.number(name) for name in (BEGIN, END))
    moved = columns.runs.during(batch.cpu, begins, ends)[chosen] & ~is_alloc
    columns.add(batch.time_ns[chosen], whole["pfn"], whole["order"], mt, flags, moved)


def _flag_indices(columns: _Columns, flags: np.ndarray) -> np.ndarray:
    values, inverse = np.unique(flags, return_inverse=True)
    known = [columns.flag_index(value) if value >= 0 else -1 for value in values.tolist()]
    return np.array(known, np.int64)[inverse] if len(values) else np.zeros(0, np.int64)


def _text_events(path: Path) -> PageRequests:
    receipt = Receipt()
    columns = _Columns("")
    batch: list[tuple[int, int, int, int, int, int]] = []
    for row in _text_rows(path, receipt, columns):
        batch.append(row)
        if len(batch) == _AT_ONCE:
            columns.add(*np.array(batch, np.int64).T)
            batch.clear()
    if batch:
        columns.add(*np.array(batch, np.int64).T)
    events = columns.finish()
    events.said = read_dump(path).receipt.lost
    if events.said:
        events.lost = sum(_first_number(line) for line in events.said)
    order = np.argsort(events.time_ns, kind="stable")
    for name in ("time_ns", "pfn", "order", "mt", "flags", "moved"):
        setattr(events, name, getattr(events, name)[order])
    return events


def _first_number(line: str) -> int:
    digits = line.replace(",", "").split(" ", 1)[0]
    return int(digits) if digits.isdecimal() and len(digits) < 18 else 1


def _text_rows(
    path: Path, receipt: Receipt, columns: _Columns
) -> Iterator[tuple[int, int, int, int, int, int]]:
    compacting: set[int | None] = set()
    for event in read_events(path, receipt):
        if event.name in (BEGIN, END):
            (compacting.add if event.name == BEGIN else compacting.discard)(event.cpu)
        if event.name not in ("mm_page_alloc", "mm_page_free"):
            continue
        if event.time_ns is None:
            columns.strange += 1
            continue
        columns.cpus = max(columns.cpus, min(event.cpu or 0, 1 << 12) + 1)
        is_alloc = event.name == "mm_page_alloc"
        mt = _whole(event.fields.get("migratetype"), HIGHEST_TYPE + 1) if is_alloc else -1
        flags = columns.flag_index(event.fields.get("gfp_flags", -1)) if is_alloc else -1
        pfn = 0 if event.is_failed_allocation else _whole(event.fields.get("pfn"), -1)
        order, moved = _whole(event.fields.get("order"), -1), not is_alloc and event.cpu in compacting
        yield min(event.time_ns, 1 << 62), pfn, order, max(mt, -1), flags, int(moved)


def _whole(value: int | str | None, without: int) -> int:
    return max(min(value, 1 << 60), -(1 << 60)) if isinstance(value, int) else without
