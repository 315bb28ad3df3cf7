"""What the first half of a recording says of memory in use when it began, and of page cache that goes.

Owns what a fit of lifetimes leaves out: at which rate memory of the start is freed, by what it holds, and
page cache that reclaim takes when memory is needed, which is no lifetime. Both become actors; nothing is
simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.measured_counts import ZONE, Span
from spbfast.config.units import format_duration
from spbfast.constants import PAGE_SIZE, PB_ORDER, PB_PAGES
from spbfast.errors import TraceError
from spbfast.fitting.fitted_actors import FittedActor, FittedRecording
from spbfast.fitting.page_requests import PageRequests
from spbfast.observed.page_classes import PageClass
from spbfast.recordings.start_state import captured_zones

# Of memory in use at the start: what it holds, and in blocks of which order it goes.
OLD_KINDS = {
    "anon": (PageClass.ANON, 0),
    "huge": (PageClass.HUGE, PB_ORDER),
    "page_cache": (PageClass.PAGE_CACHE, 0),
}
LEAST_FREES = 20
RECLAIMED = 0.1  # of the page cache that comes in: where reclaim takes less, lives end by themselves
RUN = 16  # pagecache.reclaim_run, its default
WINDOW = 20 * PB_PAGES
MOST_ORDERS = 10  # of folio_weights


@dataclass(frozen=True)
class OldBlocks:
    """Blocks in use at the start, those that the half freed, and the mean time that is left to them, s."""

    holder: str
    order: int
    blocks: int
    freed: int
    lifetime: float


@dataclass(frozen=True)
class CacheFit:
    """Page cache under reclaim.

    Attributes
    ----------
    rate : float
        Bytes a second that enter it.
    weights : tuple of float
        Shares of them by order of folio.
    read_once : float
        Share that was not used again: no page of the active list came of it.
    dropped : float
        Pages that went without reclaim, by pages that came.
    lru_mix : float or None
        As `pagecache.lru_mix`, for page cache that lies pageblock by pageblock; None where too little went.
    """

    rate: float
    weights: tuple[float, ...]
    read_once: float
    dropped: float
    lru_mix: float | None


def in_zone(events: PageRequests, span: Span) -> PageRequests:
    """The events of the zone that is simulated."""
    keep = (events.pfn >= span.start_pfn) & (events.pfn < span.start_pfn + span.pages)
    names = ("time_ns", "pfn", "order", "mt", "flags", "moved")
    return replace(events, **{name: getattr(events, name)[keep] for name in names})


def classes_at_start(path: Path) -> np.ndarray:
    """`PageClass` of each page of the zone when the recording began: uint8 [pages]."""
    zone = next((z for z in captured_zones(path) if z.name == ZONE), None)
    if zone is None:
        raise TraceError(f"has no page flags of zone {ZONE}", path)
    return zone.pages_of & 0x0F


def old_frees(
    half: PageRequests, span: Span, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frees of what had been handed out before: page within the zone, order, and `PageClass`, by time.

    What compaction moved is not among them.
    """
    by_page = np.lexsort((half.time_ns, half.pfn))
    pfn = half.pfn[by_page]
    first = np.append(True, pfn[1:] != pfn[:-1])[: len(pfn)]
    rows = np.sort(by_page[first & (half.mt[by_page] < 0) & ~half.moved[by_page]])
    page = half.pfn[rows] - span.start_pfn
    return page, half.order[rows].astype(np.int64), classes[page]


def old_blocks(half: PageRequests, span: Span, classes: np.ndarray, with_cache: bool) -> list[OldBlocks]:
    """Memory of the start that the half saw go, by holder; page cache only where reclaim does not take it."""
    _, order, seen = old_frees(half, span, classes)
    out = []
    for holder, (kind, size) in OLD_KINDS.items():
        freed = int(((seen == kind) & (order == size)).sum())
        whole = (classes == kind)[: len(classes) >> size << size].reshape(-1, 1 << size).all(axis=1)
        blocks = int(whole.sum())
        if not LEAST_FREES <= freed < blocks or (holder == "page_cache" and not with_cache):
            continue
        out.append(OldBlocks(holder, size, blocks, freed, -half.seconds / math.log1p(-freed / blocks)))
    return out


def is_cache(actor: FittedActor) -> bool:
    """Whether an actor's blocks are page cache that reclaim may take."""
    return actor.holder == "page_cache" and actor.type == "movable" and actor.order < MOST_ORDERS


def cache_fit(
    fit: FittedRecording, half: PageRequests, span: Span, classes: np.ndarray, counted: Mapping[str, float]
) -> CacheFit | None:
    """Page cache of the half as reclaim takes it; None where reclaim takes little of what comes.

    Parameters
    ----------
    fit : FittedRecording
        Of the half.
    half : PageRequests
        Its events of the zone.
    counted : mapping
        How far counters of vmstat moved in it, as far as they concern the zone.
    """
    pages = {a.order: a.blocks << a.order for a in fit.actors if is_cache(a)}
    came, taken = sum(pages.values()), counted["pgsteal_kswapd"] + counted["pgsteal_direct"]
    if not came or taken < RECLAIMED * came:
        return None
    page, order, seen = old_frees(half, span, classes)
    old = seen == PageClass.PAGE_CACHE
    went = int((1 << order[old]).sum()) + sum(a.ended << a.order for a in fit.actors if is_cache(a))
    return CacheFit(
        came / half.seconds * PAGE_SIZE,
        tuple(pages.get(k, 0) / came for k in range(max(pages) + 1)),
        1.0 - min(counted["pgactivate"] / came, 1.0),
        min(max(went - taken, 0.0) / came, 1.0),
        lru_mix(page[old & (order == 0)]),
    )


def lru_mix(page: np.ndarray) -> float | None:
    """Share of the runs that reclaim takes from anywhere, by the number of pageblocks that it comes to.

    Reclaim in order comes to one pageblock after the other; each run from anywhere comes to one more.
    """
    nr = len(page) // WINDOW
    if not nr:
        return None
    blocks = page[: nr * WINDOW].reshape(nr, WINDOW) // PB_PAGES
    found = float(np.median([len(np.unique(window)) for window in blocks]))
    return min(max((found - WINDOW // PB_PAGES) / (WINDOW // RUN), 0.0), 1.0)


def actor_lines(old: list[OldBlocks], cache: CacheFit | None, cpus: int) -> list[str]:
    """The actors, and how the cache is reclaimed, as lines of a job."""
    lines = []
    for one in old:
        lines += [
            "  - kind: allocations",
            f"    name: start-{one.holder}-{one.order}",
            "    rate: 0.0 # it only frees",
            f"    order: {one.order}",
            "    type: movable",
            "    lifetimes: [1s]",
            "    shares: [1.0]",
            f"    from_start: {{blocks: {one.blocks}, lifetime: {_ms(one.lifetime)}, holder: {one.holder}}} "
            f"# fitted: {one.freed:,} were freed",
            f"    tasks: {min(cpus, 4)}",
        ]
    if cache is None:
        return lines
    weights = ", ".join(f"{w:.4f}" for w in cache.weights)
    lines += [
        "  - kind: page_cache",
        f"    rate: {cache.rate:.0f}B/s # fitted",
        f"    read_once: {cache.read_once:.4f} # fitted: pgactivate",
        f"    dropped: {cache.dropped:.4f} # fitted: what went without reclaim",
        f"    folio_weights: [{weights}] # recorded",
    ]
    if cache.lru_mix is not None:
        mix = f"lru_mix: {cache.lru_mix:.4f}"
        lines += [
            f"pagecache: {{{mix}, start_order: pageblocks}} # fitted: by pageblocks that reclaim came to"
        ]
    return lines


def _ms(seconds: float) -> str:
    return format_duration(max(round(seconds * 1000), 1) * 10**6)
