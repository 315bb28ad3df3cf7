"""What a capture with page flags and tables says of a load: rates by half, and the tables around them.

Owns the counting. Nothing is fitted or simulated here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.constants import COSTLY_ORDER, NR_ORDERS, PB_PAGES
from spbfast.errors import TraceError
from spbfast.fitting.page_requests import PageRequests
from spbfast.observed import capture_file as container
from spbfast.observed import read_dump
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.event_columns import EventBatch, EventKinds
from spbfast.recordings.start_state import captured_zones
from spbfast.recordings.start_types import managed_pageblocks

ZONE = "Normal"
TYPES = ("Unmovable", "Movable", "Reclaimable")
TABLES = ("/proc/pagetypeinfo", "/proc/buddyinfo", "/proc/zoneinfo")
BUSY_S = 0.01  # some ticks of the simulation
# Counters of vmstat that tell whether memory was short; those of the whole recording.
COUNTERS = (
    *("compact_stall", "compact_daemon_wake", "compact_isolated", "allocstall_normal"),
    *("pageoutrun", "pgsteal_kswapd", "pgsteal_direct", "thp_split_page", "thp_deferred_split_page"),
)
# Events that are counted as they are, by the name of their rate.
COUNTED = {
    "fallbacks": "mm_page_alloc_extfrag",
    "compaction runs": "mm_compaction_begin",
    "kswapd woken": "mm_vmscan_kswapd_wake",
    "direct reclaim": "mm_vmscan_direct_reclaim_begin",
}
# enum compact_result (include/linux/compaction.h, Linux 6.18), as far as a run that began ends in it.
ENDS = {
    5: "went over all memory in vain",
    6: "went over a part of it in vain",
    7: "gave way to others",
    8: "made a block free",
}
PLACES = ("pfn", "zone_start")  # fields that tell the zone of such an event; one without concerns the node
# Of these every block has its page frame: those of other zones are left out.
PAGED = {"handed out": "mm_page_alloc", "freed": "mm_page_free"}
RATES = ("blocks handed out", "pages handed out", "blocks freed", "pages freed", *COUNTED)


@dataclass(frozen=True)
class Span:
    """The zone's page frames, and begin, middle and end of what is compared, ns by the recorder's clock."""

    start_pfn: int
    pages: int
    begin_ns: int
    end_ns: int
    counted: np.ndarray  # bool [pageblocks], whether one has memory that the kernel counts

    @property
    def middle_ns(self) -> int:
        """Where the half that is fitted ends."""
        return (self.begin_ns + self.end_ns) // 2

    def edges(self, parts: int) -> np.ndarray:
        """Begin, ends of all but the last of so many equal parts, and end, ns: int64 [parts + 1]."""
        length = self.end_ns - self.begin_ns
        return self.begin_ns + np.arange(parts + 1, dtype=np.int64) * length // parts

    @property
    def half_s(self) -> float:
        """Length of a half, s."""
        return (self.end_ns - self.begin_ns) / 2e9


def span_of(path: Path) -> Span:
    """From the moment at which a capture's page flags are read to that of its last table of free blocks.

    Raises
    ------
    TraceError
        When the capture has no page flags of zone Normal, or no tables after the recording.
    """
    zone = next((z for z in captured_zones(path) if z.name == ZONE), None)
    if zone is None:
        raise TraceError(f"has no page flags of zone {ZONE}", path)
    end_ns = int(_tables(path, "after")["read_ns"][TABLES[0]])
    whole = zone.pages_of[: len(zone.pages_of) // PB_PAGES * PB_PAGES]
    return Span(zone.start_pfn, zone.pages, zone.start_ns, end_ns, managed_pageblocks(whole))


def _tables(path: Path, moment: str) -> dict[str, Any]:
    for tag, data in read_chunks(path):
        if tag == container.SNAPSHOT:
            about = json_mapping(path, data)
            if about.get("moment") == moment:
                return about
    raise TraceError(f"has no tables {moment} the recording", path)


def rates_of(
    batches: Iterable[tuple[EventKinds, EventBatch]], span: Span, parts: int = 2
) -> list[dict[str, float]]:
    """By equal part, `RATES` per second: blocks and pages of the zone, and events of the other kinds.

    Parameters
    ----------
    batches : iterable of (EventKinds, EventBatch)
    span : Span
        Events outside of it are left out.
    parts : int
    """
    counts = [dict.fromkeys(RATES, 0) for _ in range(parts)]
    edges = span.edges(parts)
    for kinds, batch in batches:
        part = np.searchsorted(edges, batch.time_ns, side="right") - 1
        for number in np.unique(part[(part >= 0) & (part < parts)]).tolist():
            _count(counts[number], kinds, batch, part == number, span)
    return [{name: n * parts / (2 * span.half_s) for name, n in one.items()} for one in counts]


def _count(
    counts: dict[str, int], kinds: EventKinds, batch: EventBatch, chosen: np.ndarray, span: Span
) -> None:
    for name, event in COUNTED.items():
        number = kinds.number(event)
        rows = batch.fields[chosen & (batch.kind == number)]
        field = next((f for f in PLACES if number > 0 and f in kinds.fields[number]), None)
        inside = np.ones(len(rows), bool)
        if field is not None:
            place = rows[:, kinds.fields[number].index(field)]
            inside = (place >= span.start_pfn) & (place < span.start_pfn + span.pages)
        counts[name] += int(inside.sum())
    for name, event in PAGED.items():
        number = kinds.number(event)
        if number > 0:
            rows = batch.fields[chosen & (batch.kind == number)]
            pfn, order = (rows[:, kinds.fields[number].index(field)] for field in ("pfn", "order"))
            inside = (pfn >= span.start_pfn) & (pfn < span.start_pfn + span.pages)
            counts[f"blocks {name}"] += int(inside.sum())
            counts[f"pages {name}"] += int((1 << order[inside]).sum())


def compaction_ends(batches: Iterable[tuple[EventKinds, EventBatch]], span: Span) -> list[dict[str, int]]:
    """By half, how the zone's runs of compaction ended: those of `ENDS`."""
    counts = [dict.fromkeys(ENDS.values(), 0) for _ in range(2)]
    for kinds, batch in batches:
        number = kinds.number("mm_compaction_end")
        fields = kinds.fields[number] if number > 0 else ()
        if "status" not in fields:
            continue
        chosen = (batch.kind == number) & (batch.time_ns >= span.begin_ns) & (batch.time_ns < span.end_ns)
        place, status = (batch.fields[chosen, fields.index(name)] for name in ("zone_start", "status"))
        late = batch.time_ns[chosen] >= span.middle_ns
        inside = (place >= span.start_pfn) & (place < span.start_pfn + span.pages)
        for half in range(2):
            for value, name in ENDS.items():
                counts[half][name] += int((inside & (late == half) & (status == value)).sum())
    return counts


def older_frees(
    events: PageRequests,
    span: Span,
    classes: np.ndarray | None = None,
    freed: Collection[tuple[int, int | None]] = (),
) -> list[list[int]]:
    """By half, blocks and pages of the zone that were freed and had been handed out before it began.

    Parameters
    ----------
    events : PageRequests
    span : Span
    classes : ndarray, optional
        `PageClass` of each page of the zone at the start.
    freed : collection of (int, int or None)
        Classes and orders (None: all) that actors free: left out.
    """
    events = events.between(span.begin_ns, span.end_ns)
    order = np.lexsort((events.time_ns, events.pfn))
    pfn = events.pfn[order]
    first = np.append(True, pfn[1:] != pfn[:-1])[: len(pfn)]
    older = order[first & (events.mt[order] < 0) & ~events.moved[order]]
    inside = (events.pfn[older] >= span.start_pfn) & (events.pfn[older] < span.start_pfn + span.pages)
    older = older[inside]
    late = events.time_ns[older] >= span.middle_ns
    if classes is not None:
        seen, order = classes[events.pfn[older] - span.start_pfn], events.order[older]
        left = np.ones(len(older), bool)
        for kind, number in freed:
            left &= (seen != kind) | (order != number if number is not None else False)
        older, late = older[left], late[left]
    size = np.int64(1) << events.order[older].astype(np.int64)
    return [[int(rows.sum()), int(size[rows].sum())] for rows in (~late, late)]


def most_given_back(seconds: np.ndarray, order: np.ndarray, is_free: np.ndarray) -> int:
    """Pages that came back beyond those handed out in the busiest `BUSY_S`, of orders with per-CPU lists.

    Parameters
    ----------
    seconds : ndarray
        float64 [n], when blocks were handed out or freed, from the begin of what is looked at.
    order : ndarray
        int [n]
    is_free : ndarray
        bool [n]; others are handed out.
    """
    rests = order <= COSTLY_ORDER
    pages = np.where(is_free, 1, -1)[rests] << order[rests].astype(np.int64)
    came = np.bincount((seconds[rests] / BUSY_S).astype(np.int64), weights=pages, minlength=1)
    return max(int(came.max()), 0)


def recorded_given_back(events: PageRequests, span: Span) -> int:
    """`most_given_back` of the zone in the second half."""
    inside = (events.time_ns >= span.middle_ns) & (events.time_ns < span.end_ns)
    inside &= (events.pfn >= span.start_pfn) & (events.pfn < span.start_pfn + span.pages)
    seconds = (events.time_ns[inside] - span.middle_ns) / 1e9
    return most_given_back(seconds, events.order[inside], events.mt[inside] < 0)


def drained_from_before(batches: Iterable[tuple[EventKinds, EventBatch]], span: Span) -> list[int]:
    """By order, blocks of the zone that left per-CPU lists and had been there before recording began.

    Their pages cannot be told from pages in use, so that a simulation begins with them in use.
    """
    seen = np.zeros(span.pages, bool)
    out = np.zeros(NR_ORDERS, np.int64)
    names = ("mm_page_alloc", "mm_page_free", "mm_page_pcpu_drain")
    for kinds, batch in batches:
        numbers = [kinds.number(name) for name in names]
        rows = np.flatnonzero(
            np.isin(batch.kind, numbers) & (batch.time_ns >= span.begin_ns) & (batch.time_ns < span.end_ns)
        )
        kind = batch.kind[rows]
        pfn, order = (_column(kinds, batch, rows, field) for field in ("pfn", "order"))
        inside = (pfn >= span.start_pfn) & (pfn < span.start_pfn + span.pages)
        page = pfn[inside] - span.start_pfn
        _, where = np.unique(page, return_index=True)
        is_new = np.zeros(len(page), bool)
        is_new[where] = ~seen[page[where]]
        is_drain = kind[inside] == numbers[2]
        np.add.at(out, order[inside][is_new & is_drain], 1)
        seen[page] = True
    return out.tolist()


def _column(kinds: EventKinds, batch: EventBatch, rows: np.ndarray, name: str) -> np.ndarray:
    """A field of events of several kinds: int64 [rows]."""
    out = np.zeros(len(rows), np.int64)
    for number in np.unique(batch.kind[rows]).tolist():
        mine = batch.kind[rows] == number
        out[mine] = batch.fields[rows[mine], kinds.fields[number].index(name)]
    return out


def tables_of(path: Path) -> dict[str, dict[str, Any]]:
    """Free blocks and pageblocks by type, pages on per-CPU lists, and marks, ``before`` and ``after``."""
    out: dict[str, dict[str, Any]] = {}
    for kind in ("pagetypeinfo", "zoneinfo"):
        for snapshot in read_dump(path).of_kind(kind):
            zone = next(z for z in snapshot.zones if z.zone == ZONE)
            told = out.setdefault(snapshot.heading.partition(":")[0], {})
            if kind == "zoneinfo":
                told["per_cpu_pages"] = sum(cpu.values["count"] for cpu in zone.pcp)
                told["marks"] = {name: zone.pages[name] for name in ("low", "high")}
            else:
                told["free"] = {name: list(zone.free_by_type[name]) for name in TYPES}
                told["pageblocks"] = {name: zone.pageblocks[name] for name in TYPES}
    return out


def counters_of(path: Path) -> dict[str, int]:
    """How far counters of vmstat moved between the tables."""
    found = [snapshot.counters for snapshot in read_dump(path).of_kind("vmstat")]
    before, after = found[0], found[-1]
    return {name: after[name] - before[name] for name in COUNTERS if name in before and name in after}


def tables_text(path: Path) -> str:
    """The tables of free lists before a recording as one text, which `machine.from` reads."""
    about = _tables(path, "before")
    return "\n".join(f"==> {name}\n{about['texts'][name]}" for name in TABLES)
