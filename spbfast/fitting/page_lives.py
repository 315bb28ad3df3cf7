"""Lives of blocks in a recording: when each was handed out, for how long it was held, and what is not known.

Owns the pairing of what was handed out with what was freed. A block that is still held at the end, or moved
by compaction, is right-censored. A free of what was handed out before the recording began tells nothing of
lifetimes and is dropped and counted. Nothing is simulated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.constants import MAX_ORDER
from spbfast.fitting.holder_flags import OF_PAGE_CLASS, Holder, holder_of
from spbfast.fitting.page_requests import PageRequests
from spbfast.observed.recognise import kind_of_file
from spbfast.recordings.start_state import captured_zones

_SHIFT = 25  # events of a recording are numbered below 2^25
_SURVIVORS = 5  # of a kind of request, before what they hold goes before the rule


@dataclass
class PageLives:
    """Blocks that were handed out while the recording ran.

    Attributes
    ----------
    start_ns, pfn : ndarray
        int64 [n]
    seconds : ndarray
        float64 [n]; until the free, or as long as it was seen held.
    ended, moved : ndarray
        bool [n]; freed by its owner; last seen when compaction moved it. Others were held at the end.
    order, mt, holder : ndarray
        int8 [n]
    request : ndarray
        int64 [n]; flags, order and type as one number.
    nr_ended, nr_alive, nr_moved, nr_gap, nr_overwritten : int
        Freed; held at the end; moved; last seen before events were lost; handed out again without a free.
    unknown_frees, part_frees, moved_frees : int
        Frees of what was handed out before; of parts of blocks whose head had gone before; by compaction.
    """

    start_ns: np.ndarray
    pfn: np.ndarray
    seconds: np.ndarray
    ended: np.ndarray
    moved: np.ndarray
    order: np.ndarray
    mt: np.ndarray
    holder: np.ndarray
    request: np.ndarray
    nr_ended: int = 0
    nr_alive: int = 0
    nr_moved: int = 0
    nr_gap: int = 0
    nr_overwritten: int = 0
    unknown_frees: int = 0
    part_frees: int = 0
    moved_frees: int = 0

    def __len__(self) -> int:
        return len(self.pfn)


def lives_of(events: PageRequests, told: dict[int, int] | None = None) -> PageLives:
    """Pair allocations with the frees that end them.

    Parameters
    ----------
    events : PageRequests
    told : dict of int to int, optional
        Holders that go before the rules (`holders_told`).

    Notes
    -----
    A block ends at the first free of its head, whatever that free's order: what its owner split off lives
    on unseen. One that compaction moves lives on unseen, too. Where events were lost, a block that has no
    free is censored at the first gap behind its allocation, not at the end.
    """
    by_page = np.lexsort((events.time_ns, events.pfn))
    pfn, is_alloc = events.pfn[by_page], events.mt[by_page] >= 0
    same = np.append(pfn[1:] == pfn[:-1], False)
    next_alloc = np.append(is_alloc[1:], False)
    allocs = np.flatnonzero(is_alloc)
    freed = same[allocs] & ~next_alloc[allocs]
    overwritten = same[allocs] & next_alloc[allocs]
    row = by_page[allocs]
    start = events.time_ns[row]
    stop, moved, gap = _last_seen(events, start, freed, by_page[allocs[freed] + 1])
    keep = ~overwritten | gap
    unknown, parts = _strangers(events, by_page, pfn, is_alloc)
    request = (events.flags[row].astype(np.int64) + 1) << 16 | events.order[row].astype(np.int64) << 8
    request |= events.mt[row]
    return PageLives(
        start,
        events.pfn[row],
        np.where(keep, (stop - start) / 1e9, np.nan),
        freed & ~moved,
        moved,
        events.order[row],
        events.mt[row],
        _holders(events, request, told or {}),
        request,
        int((freed & ~moved).sum()),
        int((keep & ~freed & ~gap).sum()),
        int(moved.sum()),
        int(gap.sum()),
        int((~keep).sum()),
        unknown,
        parts,
        int(events.moved.sum()),
    )


def _last_seen(
    events: PageRequests, start: np.ndarray, freed: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each block was last known to live, and whether because it was moved, or because of a gap.

    Parameters
    ----------
    events : PageRequests
    start : ndarray
        int64 [n], ns
    freed : ndarray
        bool [n]
    last : ndarray
        int64 [freed.sum()]; the frees, as rows of the events.
    """
    stop = np.full(len(start), events.end_ns, np.int64)
    stop[freed] = events.time_ns[last]
    moved, gap = np.zeros((2, len(start)), bool)
    moved[freed] = events.moved[last]
    if len(events.lost_at):
        behind = np.searchsorted(events.lost_at, start, side="right")
        gap = (behind < len(events.lost_at)) & ~freed
        stop[gap] = events.lost_at[behind[gap]]
    return stop, moved, gap


def _strangers(
    events: PageRequests, by_page: np.ndarray, pfn: np.ndarray, is_alloc: np.ndarray
) -> tuple[int, int]:
    """Frees that end no life: of blocks handed out before, and of parts of blocks."""
    first = np.append(True, pfn[1:] != pfn[:-1])
    before_free = np.append(False, ~is_alloc[:-1])
    rows = by_page[~is_alloc & (first | before_free) & ~events.moved[by_page]]
    is_part = np.zeros(len(rows), bool)
    number = rows.astype(np.int64)
    for order in range(1, MAX_ORDER + 1):
        heads = np.flatnonzero((events.mt >= 0) & (events.order == order))
        keys = np.sort((events.pfn[heads] << _SHIFT) | heads)
        base = events.pfn[rows] & -(1 << order)
        wanted = (base << _SHIFT) | number
        place = np.searchsorted(keys, wanted) - 1
        found = place >= 0
        found[found] = (keys[place[found]] >> _SHIFT) == base[found]
        is_part |= found & (events.order[rows] < order)
    return int((~is_part).sum()), int(is_part.sum())


def holders_told(events: PageRequests, pages: dict[int, np.ndarray]) -> dict[int, int]:
    """Holder of each kind of request, as the pages still held at the end tell it, in place of the rule.

    Parameters
    ----------
    events : PageRequests
    pages : dict of int to ndarray
        By the first page frame of a zone, what its pages held at the end (`pages_at_end`).
    """
    lives = lives_of(events)
    alive = ~lives.ended & ~lives.moved & np.isfinite(lives.seconds)
    seen = _seen_holders(lives.pfn[alive], pages)
    kinds, inverse = np.unique(lives.request[alive][seen >= 0], return_inverse=True)
    votes = np.zeros((len(kinds), len(Holder)), np.int64)
    np.add.at(votes, (inverse, seen[seen >= 0]), 1)
    total, most = votes.sum(axis=1), votes.max(axis=1, initial=0)
    sure = (total >= _SURVIVORS) & (2 * most > total)
    return dict(zip(kinds[sure].tolist(), votes[sure].argmax(axis=1).tolist(), strict=True))


def _holders(events: PageRequests, request: np.ndarray, told: dict[int, int]) -> np.ndarray:
    """Holder of each block: one for all requests of equal flags, order and type."""
    kinds, inverse = np.unique(request, return_inverse=True)
    by_kind = np.zeros(len(kinds), np.int8)
    for i, value in enumerate(kinds.tolist()):
        flag = (value >> 16) - 1
        names = events.flag_sets[flag] if flag >= 0 else None
        by_kind[i] = told.get(value, holder_of(names, value >> 8 & 0xFF, value & 0xFF))
    return by_kind[inverse]


def _seen_holders(pfn: np.ndarray, pages: dict[int, np.ndarray]) -> np.ndarray:
    """What pages held at the end: `Holder`, -1 where that is not known. int64 [n]."""
    names = np.full(16, -1, np.int64)
    for of_page, holder in OF_PAGE_CLASS.items():
        names[of_page] = holder
    out = np.full(len(pfn), -1, np.int64)
    for first, classes in pages.items():
        here = (pfn >= first) & (pfn < first + len(classes))
        out[here] = names[classes[pfn[here] - first] & 0x0F]
    return out


def pages_at_end(path: Path) -> dict[int, np.ndarray]:
    """By the first page frame of a zone, class of each page when the recording ended; empty without --pages.

    Raises
    ------
    DumpError
        When the capture is damaged.
    """
    if kind_of_file(path)[0] != "capture":
        return {}
    return {zone.start_pfn: zone.pages_of for zone in captured_zones(path, "after")}
