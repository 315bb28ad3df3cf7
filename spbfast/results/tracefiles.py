"""Page events of a run as the traces that other programs read: text of ftrace, and LLFree's binary form.

Owns the order and the CPU of events, and what an event of the model is in the kernel's words. Records come
from a file of `spbfast run --records page_events`; see docs/records.md. Never runs a simulation.

The kernel tells a claim after the page that it gave (`mm_page_alloc_zone_locked`, then
`mm_page_alloc_extfrag`), and no event has a free of a small block straight to the lists: it is written as a
free and a drain. A moved block's new place is taken off the lists like any other. Events of the lists have
the CPU of the caller's event that follows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.constants import COSTLY_ORDER, PB_ORDER, Mt
from spbfast.errors import QuestionError, ResultsError
from spbfast.observed.llfree import (
    FLAG_MOVABLE,
    FLAG_RECLAIMABLE,
    MAX_PFN,
    MAX_TIME_US,
    LlfreeRecord,
    write_llfree,
)
from spbfast.observed.zone_comment import zone_comment
from spbfast.outputs.tracepoints import PAGE_EVENTS
from spbfast.results.records import STRUCT_PAGE, TASK, VMEMMAP, read_records, read_shapes
from spbfast.sweep.store.atomic import atomic_file

EXTFRAG, LOCKED, DRAIN, ALLOC, FREE = range(5)  # in the order of PAGE_EVENTS
_GFP = {Mt.MOVABLE: "__GFP_MOVABLE", Mt.RECLAIMABLE: "__GFP_RECLAIMABLE"}
_GFP_BITS = {Mt.MOVABLE: FLAG_MOVABLE, Mt.RECLAIMABLE: FLAG_RECLAIMABLE}
_BLOCK = 1 << 14
_COLUMNS = {
    EXTFRAG: ("alloc_order", "alloc_migratetype"),
    LOCKED: ("order", "migratetype"),
    DRAIN: ("order", "migratetype"),
    ALLOC: ("order", "migratetype"),
    FREE: ("order", ""),
}
_EXTRA = ("fallback_order", "fallback_migratetype", "fragmenting", "change_ownership")


@dataclass
class PageEvents:
    """Page events of one zone of one replicate, in the order in which they happened.

    Attributes
    ----------
    zone : str
    shape : dict of str to int
        The zone, as `records.SHAPE` names it.
    kind, time_ns, cpu, pfn, order, mt : ndarray
        int64 [n]; kind by `PAGE_EVENTS`, migratetype -1 where the event has none.
    extra : ndarray
        int64 [n, 4], the other fields of a fallback; `change_ownership` of others is 0.
    dropped : int
        Later events that the run's buffers had no room for, or that the cut left out.
    """

    zone: str
    shape: dict[str, int]
    kind: np.ndarray
    time_ns: np.ndarray
    cpu: np.ndarray
    pfn: np.ndarray
    order: np.ndarray
    mt: np.ndarray
    extra: np.ndarray
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.kind)


def page_events(path: Path, zone: str | None = None, replicate: int = 0) -> PageEvents:
    """The page events of a run's file.

    Parameters
    ----------
    path : Path
    zone : str, optional
        The first zone of the machine by default.
    replicate : int

    Raises
    ------
    ResultsError
        When the file has no page events.
    QuestionError
        When it has no such zone or replicate.
    """
    found = read_records(path)
    missing = [name for name in ("mm_page_alloc", "mm_page_free") if name not in found]
    if missing:
        hint = "record them with: spbfast run CFG -o FILE --records page_events"
        raise ResultsError(f"holds no records of {' and '.join(missing)}; {hint}", path)
    kinds = {i: found[name] for i, name in enumerate(PAGE_EVENTS) if name in found}
    zones = [str(name) for name in kinds[ALLOC]["zones"]]
    name = zones[0] if zone is None else zone
    if name not in zones:
        raise QuestionError(f"has no zone {name}; its zones are {', '.join(zones)}", path)
    number = zones.index(name)
    nr = 1 + max(int(c["replicate"].max(initial=0)) for c in kinds.values())
    if replicate >= nr:
        raise QuestionError(f"holds records of {nr} replicates, numbered from 0; got {replicate}", path)
    cut, dropped = _cut(kinds, replicate)
    parts = [_columns_of(kind, columns, number, replicate, cut) for kind, columns in kinds.items()]
    rows = np.concatenate(parts)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    rows = rows[_claims_after_pages(rows[:, 1], rows[:, 4])]
    kind, time_ns, cpu, pfn, order, mt, extra = _split(rows)
    shape = read_shapes(path)[number]
    return PageEvents(name, shape, kind, time_ns, cpu, pfn, order, mt, extra, dropped)


def _split(rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Kind, time, CPU, page, order, type, rest; with what stands for frees and moves past the lists."""
    cpu = _following_cpu(rows[:, 1], rows[:, 3])
    small = (rows[:, 5] <= COSTLY_ORDER) | (rows[:, 5] == PB_ORDER)
    past = (rows[:, 1] == FREE) & (rows[:, 7] == 0) & small
    moved = (rows[:, 1] == ALLOC) & (rows[:, 7] == 0)
    at = np.repeat(np.arange(len(rows)), 1 + past + moved)
    is_second = np.zeros(len(at), bool)
    is_second[1:] = at[1:] == at[:-1]
    is_first = np.zeros(len(at), bool)
    is_first[:-1] = is_second[1:]
    kind = rows[at, 1]
    kind = np.where(is_second & past[at], DRAIN, np.where(is_first & moved[at], LOCKED, kind))
    return kind, rows[at, 2], cpu[at], rows[at, 4], rows[at, 5], rows[at, 6], rows[at, 8:]


def _columns_of(
    kind: int, columns: Mapping[str, np.ndarray], zone: int, replicate: int, cut: int
) -> np.ndarray:
    """Rows of one kind: number, kind, time, CPU (-1: a later event's), page, order, type, lists, rest.

    `lists` is 0 where a block went past the lists without an event of theirs.
    """
    mine = (columns["zone"] == zone) & (columns["replicate"] == replicate) & (columns["seq"] < cut)
    order, mt = _COLUMNS[kind]
    out = np.zeros((int(mine.sum()), 8 + len(_EXTRA)), np.int64)
    out[:, 0], out[:, 1] = columns["seq"][mine], kind
    out[:, 2] = np.round(columns["time"][mine] * 1e9)
    out[:, 3] = columns["cpu"][mine] if "cpu" in columns else -1
    out[:, 4], out[:, 5] = columns["pfn"][mine], columns[order][mine]
    out[:, 6] = columns[mt][mine] if mt else -1
    out[:, 7] = columns["percpu"][mine] if "percpu" in columns else 1
    if "moved" in columns:
        out[:, 7] = columns["moved"][mine] == 0
    for i, name in enumerate(_EXTRA):
        if name in columns:
            out[:, 8 + i] = columns[name][mine]
    return out


def _cut(kinds: Mapping[int, Mapping[str, np.ndarray]], replicate: int) -> tuple[int, int]:
    """Number of the record from which on a kind is incomplete, and the records from there on."""
    full = [c for c in kinds.values() if int(c["dropped"]) > 0]
    if not full:
        return 1 << 62, 0
    cut = min(int(c["seq"][c["replicate"] == replicate].max(initial=-1)) + 1 for c in full)
    kept = sum(int(((c["replicate"] == replicate) & (c["seq"] >= cut)).sum()) for c in kinds.values())
    return cut, kept + sum(int(c["dropped"]) for c in full)


def _claims_after_pages(kind: np.ndarray, pfn: np.ndarray) -> np.ndarray:
    """Order of rows in which a claim stands behind the page that it gave, as in the kernel."""
    at = np.arange(len(kind))
    first = np.flatnonzero((kind[:-1] == EXTFRAG) & (kind[1:] == LOCKED) & (pfn[:-1] == pfn[1:]))
    at[first], at[first + 1] = first + 1, first
    return at


def _following_cpu(kind: np.ndarray, cpu: np.ndarray) -> np.ndarray:
    """CPU of each event: its own, or that of the caller's event that follows."""
    own = np.flatnonzero((kind == ALLOC) | (kind == FREE))
    if not len(own):
        return np.zeros(len(kind), np.int64)
    following = np.searchsorted(own, np.arange(len(kind)))
    return np.asarray(cpu[own[np.minimum(following, len(own) - 1)]])


# -- ftrace -------------------------------------------------------------------------------------------------


def ftrace_lines(events: PageEvents) -> Iterator[str]:
    """The text of a trace, line by line, without line ends."""
    yield zone_comment(events.zone, events.shape)
    yield "# tracer: nop"
    for first in range(0, len(events), _BLOCK):
        part = slice(first, first + _BLOCK)
        columns = (events.kind, events.time_ns, events.cpu, events.pfn, events.order, events.mt)
        rows = zip(*(column[part].tolist() for column in columns), events.extra[part].tolist(), strict=True)
        yield from (_line(*row) for row in rows)
    if events.dropped:
        yield f"CPU:0 [LOST {events.dropped} EVENTS]"


def _line(kind: int, time_ns: int, cpu: int, pfn: int, order: int, mt: int, extra: list[int]) -> str:
    seconds, micros = divmod((time_ns + 500) // 1000, 1_000_000)
    head = f"{TASK:>16}     [{cpu:03d}] ..... {seconds:5d}.{micros:06d}: {PAGE_EVENTS[kind]}: "
    page = f"page=0x{VMEMMAP + STRUCT_PAGE * pfn:x} pfn=0x{pfn:x} "
    return head + page + _fields(kind, order, mt, extra)


def _fields(kind: int, order: int, mt: int, extra: list[int]) -> str:
    if kind == EXTFRAG:
        rest = f"fallback_migratetype={extra[1]} fragmenting={extra[2]} change_ownership={extra[3]}"
        return f"alloc_order={order} fallback_order={extra[0]} alloc_migratetype={mt} {rest}"
    if kind == FREE:
        return f"order={order}"
    if kind == ALLOC:
        return f"order={order} migratetype={mt} gfp_flags={_GFP.get(Mt(mt), '0')}"
    if kind == LOCKED:
        refill = 1 if order <= COSTLY_ORDER or order == PB_ORDER else 0
        return f"order={order} migratetype={mt} percpu_refill={refill}"
    return f"order={order} migratetype={max(mt, 0)}"


# -- LLFree -------------------------------------------------------------------------------------------------


def llfree_records(events: PageEvents) -> Iterator[LlfreeRecord]:
    """Allocations and frees as LLFree's records.

    Its pages of records are merged by time, which counts microseconds: where the CPU changes, time goes on by
    at least one, so that the order stays what it was.
    """
    mine = np.flatnonzero((events.kind == ALLOC) | (events.kind == FREE))
    cpu, time_us = events.cpu[mine], events.time_ns[mine] // 1000
    changes = np.cumsum(np.diff(cpu, prepend=cpu[:1]) != 0)
    time_us = np.maximum.accumulate(time_us - changes) + changes
    flags = np.zeros(len(mine), np.int64)
    for mt, bit in _GFP_BITS.items():
        flags[events.mt[mine] == mt] = bit
    columns = (cpu, time_us, events.pfn[mine], events.kind[mine] == ALLOC, events.order[mine], flags)
    for on, time, page, is_alloc, order, flag in zip(*(c.tolist() for c in columns), strict=True):
        yield LlfreeRecord(on, time, page, is_alloc, order, flag, 0)


def export_events(
    path: Path, form: str, output: Path | None, zone: str | None = None, replicate: int = 0
) -> tuple[Path, PageEvents]:
    """Write a run's page events; the file, and what went into it.

    Parameters
    ----------
    path : Path
        A file of `spbfast run -o FILE --records page_events`.
    form : str
        ``ftrace`` or ``llfree``.
    output : Path or None
        None: beside `path`, with another ending.
    zone : str, optional
    replicate : int

    Raises
    ------
    ResultsError
        When the file has no page events, or they do not fit LLFree's form.
    """
    events = page_events(path, zone, replicate)
    output = output or path.with_suffix(".trace.txt" if form == "ftrace" else ".llfree")
    if form == "llfree":
        _check_fits(path, events)
    with atomic_file(output) as tmp:
        if form == "llfree":
            write_llfree(tmp, llfree_records(events))
        else:
            with open(tmp, "w", encoding="ascii") as file:
                file.writelines(f"{line}\n" for line in ftrace_lines(events))
    return output, events


def _check_fits(path: Path, events: PageEvents) -> None:
    highest, last = int(events.pfn.max(initial=0)), int(events.time_ns.max(initial=0)) // 1000
    if highest > MAX_PFN:
        raise ResultsError(
            f"has page frame {highest}; a trace of LLFree holds those below {MAX_PFN + 1}, the first 64 GiB: "
            "give a smaller machine, or write --ftrace",
            path,
        )
    if last + len(events) > MAX_TIME_US:
        raise ResultsError(f"lasts {last} us; a trace of LLFree holds {MAX_TIME_US} us", path)
