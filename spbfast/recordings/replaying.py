"""A recording's demand on a simulated machine, under any policy.

Owns the run: what machine, from which start, which rows, and what is reported at the end. A capture made with
``--pages`` starts from the machine as it was; any other recording starts from an empty zone that spans its
pages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.config.machine import PcpSpec
from spbfast.constants import NR_MT, NR_ORDERS, PAGE_SIZE, PB_PAGES, C, P
from spbfast.errors import TraceError
from spbfast.model.loop.recorded_pages import (
    GIVEN_BACK,
    N_ALLOCS,
    N_FAILED,
    N_FREES,
    N_LIVE_PAGES,
    N_MISSED,
    N_PAIRS,
    N_SPLIT,
    N_UNKNOWN_PAGES,
    NOT_SEEN,
    NR_REPLAY_COUNTS,
    X_CPU,
    X_ORDER,
    X_PFN,
    hold_start,
    list_start,
    replay_page_events,
)
from spbfast.model.loop.replay import boot_zone
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone, first_usable
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.trace import TALLY_NAMES
from spbfast.observed.event_columns import EventBatch, EventKinds
from spbfast.observed.loading import read_dump
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.zone_comment import NamedZone, commented_zone
from spbfast.recordings.captured_start import captured_start
from spbfast.recordings.event_source import recorded_batches
from spbfast.recordings.page_rows import REQUEST_LEVEL, RowCounts, RowMaker
from spbfast.recordings.start_state import CapturedZone, captured_zones

if TYPE_CHECKING:
    from spbfast.model.lowering.lower_policy import PolicyLike

SPB_PAGEBLOCKS = 512
MAX_CPUS = 4096
TYPE_NAMES = ("unmovable", "movable", "reclaimable")


@dataclass
class ReplayRequest:
    """What to replay.

    Attributes
    ----------
    path : Path
    policy : str, mapping or Policy
    level : str
        ``request``: what callers asked; ``zone``: what the buddy lists did.
    zone : str
        Zone of a capture to start from.
    pages : int or None
        Size of the machine; None: the recording's own.
    pcp : PcpConf or None
        Per-CPU lists of request level; None: what `lists` says.
    lists : PcpSpec
        The same as a job has it; `auto` stands for the recording's own, else the kernel's for a zone of this
        size.
    spb_size : int or None
        Bytes of a superpageblock; None: 1 GiB, or what the trace names.
    """

    path: Path
    policy: PolicyLike = "mainline"
    level: str = REQUEST_LEVEL
    zone: str = "Normal"
    pages: int | None = None
    pcp: PcpConf | None = None
    lists: PcpSpec = field(default_factory=PcpSpec)
    spb_size: int | None = None


@dataclass
class Replayed:
    """What a replay ended with.

    Attributes
    ----------
    start : str
        Where it began, in words.
    rows : RowCounts
    counts : dict of str to int
        Allocations, frees, and what the recording did not know.
    free_blocks : dict of str to list of int
        By type, free blocks by order.
    pageblocks : dict of str to int
        By type.
    superpageblocks : dict of str to int
        By category; empty without superpageblocks.
    fallbacks : dict of str to int
        Pageblocks turned and blocks taken from other types.
    per_cpu_pages : int
        Pages at rest on per-CPU lists.
    missing : dict of str to float
        Events that the recording lacks, as its own contradictions tell: `pairs`, `missed`, and where there
        are any pairs `share` with its standard error `share_error` (`missing_share`).
    seconds : float
        Time of the replay, reading included.
    lost_lines : list of str
        What the receipt of a text says of lost events.
    """

    start: str
    rows: RowCounts
    counts: dict[str, int] = field(default_factory=dict)
    free_blocks: dict[str, list[int]] = field(default_factory=dict)
    pageblocks: dict[str, int] = field(default_factory=dict)
    superpageblocks: dict[str, int] = field(default_factory=dict)
    fallbacks: dict[str, int] = field(default_factory=dict)
    per_cpu_pages: int = 0
    missing: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    lost_lines: list[str] = field(default_factory=list)


@dataclass
class BegunReplay:
    """A replay between its start and its end.

    Attributes
    ----------
    path : Path
    z : ZoneState
    policy : ndarray
    maker : RowMaker
    place : ndarray
        int32 [pages], where each recorded page is (recorded_pages.py).
    counts : ndarray
        int64 [NR_REPLAY_COUNTS].
    start : str
        Where it begins, in words.
    begin_ns : int or None
        Recorded time of the start; None: that of the first event.
    """

    path: Path
    z: ZoneState
    policy: np.ndarray
    maker: RowMaker
    place: np.ndarray
    counts: np.ndarray
    start: str
    begin_ns: int | None


@dataclass(frozen=True)
class _Span:
    """Page frames and CPUs of a recording, and the captured zone that they belong to, if there is one."""

    start_pfn: int
    pages: int
    cpus: int
    zone: CapturedZone | None
    shape: NamedZone | None = None  # of a trace that a run was written as


def replay_file(request: ReplayRequest) -> Replayed:
    """Replay a recording.

    Raises
    ------
    DumpError
        When the file cannot be read.
    TraceError
        When it has no events of this level, or no such zone.
    ConfigError
        For an unknown policy.
    """
    started = time.perf_counter()
    receipt = Receipt()
    begun = begin_replay(request)
    for kinds, batch in batches_of(begun, receipt):
        rows, _ = begun.maker.rows_of(kinds, batch)
        replay_page_events(begun.z, begun.policy, rows, begun.place, begun.counts)
    out = Replayed(begun.start, begun.maker.counts, lost_lines=receipt.lost)
    _report(out, begun.z, begun.policy, begun.counts)
    out.seconds = time.perf_counter() - started
    return out


def begin_replay(request: ReplayRequest) -> BegunReplay:
    """The machine of a replay at its start; nothing is replayed yet.

    Raises
    ------
    DumpError
        When the file cannot be read.
    TraceError
        When it has no events of this level, or no such zone.
    ConfigError
        For an unknown policy.
    """
    policy = policy_array(request.policy)
    span = _span_of(request)
    z, base = _zone_of(request, span, policy)
    maker = RowMaker(request.level, span.start_pfn, span.pages, base, span.cpus)
    place = np.full(z.geo.nr_pages, NOT_SEEN, np.int32)
    start = _start(request, span, z, base, policy, place)
    begin_ns = span.zone.start_ns if span.zone is not None else None
    counts = np.zeros(NR_REPLAY_COUNTS, np.int64)
    return BegunReplay(request.path, z, policy, maker, place, counts, start, begin_ns)


def replay_pages(request: ReplayRequest) -> int:
    """Pages of the machine that a replay needs; a trace that does not tell is read for it.

    Raises
    ------
    DumpError, TraceError
        As `begin_replay`.
    """
    return max(request.pages or 0, _span_of(request).pages)


def batches_of(begun: BegunReplay, receipt: Receipt) -> Iterator[tuple[EventKinds, EventBatch]]:
    """The recording's events from the start on."""
    for kinds, batch in recorded_batches(begun.path, receipt):
        if begun.begin_ns is not None:
            late = batch.time_ns >= begun.begin_ns
            batch = EventBatch(batch.time_ns[late], batch.cpu[late], batch.kind[late], batch.fields[late])
        if len(batch):
            yield kinds, batch


def _span_of(request: ReplayRequest) -> _Span:
    path = request.path
    if kind_of_file(path)[0] == "capture":
        found = {z.name: z for z in captured_zones(path)}
        if request.zone in found:
            zone = found[request.zone]
            return _Span(zone.start_pfn, zone.pages, _cpus_of(path), zone)
        if found:
            raise TraceError(f"has no zone {request.zone}; its zones are {', '.join(found)}", path)
    return _measured(request)


def _cpus_of(path: Path) -> int:
    most = max(
        (int(batch.cpu.max()) for _, batch in recorded_batches(path, Receipt()) if len(batch)), default=0
    )
    return min(most + 1, MAX_CPUS)


def _measured(request: ReplayRequest) -> _Span:
    """The zone that a trace names, else the span of the pages that events of this level name."""
    if kind_of_file(request.path)[0] == "text" and (shape := commented_zone(request.path)) is not None:
        return _Span(shape.start_pfn, shape.pages, max(shape.cpus, 1), None, shape)
    first, end, cpus = 1 << 62, 0, 1
    maker = RowMaker(request.level, 0, 1 << 52, 0)
    for kinds, batch in recorded_batches(request.path, Receipt()):
        rows, _ = maker.rows_of(kinds, batch)
        if len(rows):
            first = min(first, int(rows[:, X_PFN].min()))
            end = max(end, int((rows[:, X_PFN] + (1 << rows[:, X_ORDER])).max()))
            cpus = max(cpus, int(rows[:, X_CPU].max()) + 1)
    if not end:
        raise TraceError(f"has no events of {request.level} level", request.path)
    whole = SPB_PAGEBLOCKS * PB_PAGES
    start = first & -whole
    return _Span(start, (-(-end // whole) * whole) - start, min(cpus, MAX_CPUS), None)


def _zone_of(request: ReplayRequest, span: _Span, policy: np.ndarray) -> tuple[ZoneState, int]:
    pages = request.pages or span.pages
    shape = span.shape
    if pages < span.pages and (span.zone is not None or shape is not None):
        named = f"zone {request.zone}" if shape is None else "the zone of the trace"
        raise TraceError(f"{named} has {span.pages} pages, more than the size given", request.path)
    with_lists = request.level == REQUEST_LEVEL and request.lists.enabled
    with_lists &= shape is None or shape.cpus > 0
    spb_pages = SPB_PAGEBLOCKS * PB_PAGES if shape is None else shape.spb_pages
    if request.spb_size is not None:
        spb_pages = request.spb_size // PAGE_SIZE
    spec = ZoneSpec(
        max(pages, span.pages),
        span.start_pfn,
        spb_pages // PB_PAGES,
        bool(policy[P.superpageblocks]),
        nr_cpus=span.cpus if with_lists else 0,
        pcp=_lists(request, span, pages) if with_lists else None,
        reserved_pages=0 if shape is None else shape.first_pfn - shape.start_pfn,
    )
    try:
        return build_zone(spec)
    except ValueError as error:
        raise TraceError(str(error), request.path) from None


def default_lists(pages: int, cpus: int, spec: PcpSpec | None = None) -> PcpConf:
    """Per-CPU limits of a zone of this size, as the kernel sets them by itself.

    Source: init_per_zone_wmark_min for the low watermark; zone_batchsize, zone_highsize (mm/page_alloc.c).
    """
    least = int((pages * (PAGE_SIZE // 1024) * 16) ** 0.5) * 1024 // PAGE_SIZE
    low = least + max(least // 4, pages // 1000)
    return PcpConf(*(spec or PcpSpec()).sizes(pages, cpus, low))


def _captured_lists(request: ReplayRequest) -> PcpConf | None:
    """Per-CPU limits of the zone as the capture's zoneinfo has them."""
    for snapshot in read_dump(request.path).of_kind("zoneinfo"):
        for zone in snapshot.zones:
            limits = zone.pcp[0].values if zone.zone == request.zone and zone.pcp else {}
            if {"batch", "high_min", "high_max"} <= limits.keys():
                return PcpConf(limits["batch"], limits["high_min"], limits["high_max"])
    return None


def _lists(request: ReplayRequest, span: _Span, pages: int) -> PcpConf:
    captured = _captured_lists(request) if span.zone is not None else None
    if span.shape is not None:
        captured = PcpConf(span.shape.batch, span.shape.high_min, span.shape.high_max)
    spec = request.lists
    if any(isinstance(limit, int) for limit in (spec.batch, spec.high_min, spec.high_max)):
        captured = default_lists(pages, span.cpus, spec)
    return request.pcp or captured or default_lists(pages, span.cpus)


def _start(
    request: ReplayRequest, span: _Span, z: ZoneState, base: int, policy: np.ndarray, place: np.ndarray
) -> str:
    if span.zone is None:
        boot_zone(z, policy, boot_chunks(z, first_usable(z), z.geo.hi))
        return f"an empty zone of {(z.geo.hi - z.geo.lo) >> 8:,} MiB"
    zone = span.zone
    start = captured_start(request.path, zone, base, z.geo.nr_pages, read_dump(request.path).snapshots)
    list_start(z, start.blocks, start.labels)
    for order in range(NR_ORDERS):
        heads = start.blocks[start.blocks[:, 1] == order, 0]
        place[heads[:, None] + np.arange(1 << order)] = GIVEN_BACK
    hold_start(z, place, start.held)
    boot_zone(z, policy, np.zeros((0, 2), np.int64))
    return f"zone {zone.name} as captured, {int((1 << start.blocks[:, 1]).sum()) >> 8:,} MiB of it free"


def missing_share(pairs: int, missed: int) -> dict[str, float]:
    """Share of events that a recording lacks, from how often two of one kind follow each other on a page.

    A page is handed out and given back in turn. Of events lost at random with probability p, the number that
    is missing before one that was kept is geometric, and odd with probability p / (1 + p); only odd numbers
    show. The error is that of the binomial count, with one more so that it is never 0.

    Parameters
    ----------
    pairs : int
        Events on pages of which an earlier event was kept.
    missed : int
        Of those, the ones that follow an event of their own kind.

    Returns
    -------
    dict
        pairs, missed; share and share_error in 0..1 where they can be told (fewer than half missed).
    """
    out: dict[str, float] = {"pairs": pairs, "missed": missed}
    shown = missed / pairs if pairs else 1.0
    if shown < 0.5:
        error = ((missed + 1) / pairs * (1 - shown) / pairs) ** 0.5
        out |= {"share": shown / (1 - shown), "share_error": error / (1 - shown) ** 2}
    return out


def _report(out: Replayed, z: ZoneState, policy: np.ndarray, counts: np.ndarray) -> None:
    names = {
        "allocations": N_ALLOCS,
        "frees": N_FREES,
        "not served": N_FAILED,
        "pages handed out while held": N_LIVE_PAGES,
        "pages freed that were not held": N_UNKNOWN_PAGES,
        "frees of parts": N_SPLIT,
    }
    out.counts = {name: int(counts[i]) for name, i in names.items()}
    out.missing = missing_share(int(counts[N_PAIRS]), int(counts[N_MISSED]))
    nr = z.area.nr.reshape(-1, NR_ORDERS, NR_MT).sum(axis=0, dtype=np.int64)
    labels = z.pb.label[z.geo.lo // PB_PAGES : -(-z.geo.hi // PB_PAGES)]
    for mt, name in enumerate(TYPE_NAMES):
        out.free_blocks[name] = nr[:, mt].tolist()
        out.pageblocks[name] = int((labels == mt).sum())
    if policy[P.superpageblocks]:
        pairs = (("empty", C.EMPTY_SPBS), ("clean", C.CLEAN_SPBS), ("tainted", C.TAINTED_SPBS))
        out.superpageblocks = {name: int(z.count[i]) for name, i in pairs}
    named = zip(TALLY_NAMES, z.tally.tolist(), strict=True)
    out.fallbacks = {name: int(n) for name, n in named if n and ("steal" in name or "pollute" in name)}
    out.per_cpu_pages = int(z.count[C.PCP_PAGES])


def replayed_data(result: Replayed) -> dict[str, Any]:
    """A result as plain data for JSON."""
    return {**vars(result), "rows": vars(result.rows)}
