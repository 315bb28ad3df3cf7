"""Types of pageblocks when a capture began.

Owns the guess for pageblocks whose type no event shows. It starts from what a pageblock holds, and is then
bent until the kernel's own table comes out: so many Reclaimable pageblocks, so many Reclaimable free blocks
of each order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spbfast.constants import PB_ORDER, PB_PAGES, Mt
from spbfast.model.loop.recorded_pages import X_FALLBACK, X_MT, X_PFN
from spbfast.observed.page_classes import PageClass
from spbfast.observed.values import Snapshot

_MAX_SWAPS = 10_000


@dataclass(frozen=True)
class ReclaimableTable:
    """What pagetypeinfo says of the Reclaimable type in one zone.

    Attributes
    ----------
    pageblocks : int
    free_blocks : ndarray
        int64 [PB_ORDER], free blocks of the orders below a pageblock's.
    """

    pageblocks: int
    free_blocks: np.ndarray


def reclaimable_table(
    snapshots: Sequence[Snapshot], zone: str, moment: str = "before"
) -> ReclaimableTable | None:
    """The zone's Reclaimable row by pagetypeinfo, None where it does not tell."""
    for snapshot in snapshots:
        if snapshot.kind == "pagetypeinfo" and snapshot.heading.startswith(moment):
            for record in snapshot.zones:
                if record.zone == zone and "Reclaimable" in record.pageblocks:
                    free = np.zeros(PB_ORDER, np.int64)
                    row = record.free_by_type.get("Reclaimable", ())[:PB_ORDER]
                    free[: len(row)] = row
                    return ReclaimableTable(record.pageblocks["Reclaimable"], free)
    return None


def shown_types(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pageblocks and types that zone-level rows show."""
    shown = np.where(rows[:, X_FALLBACK] >= 0, rows[:, X_FALLBACK], rows[:, X_MT])
    known = shown >= 0
    return rows[known, X_PFN] >> PB_ORDER, shown[known].astype(np.int8)


def pageblock_types(
    of_page: np.ndarray,
    is_free: np.ndarray,
    shown: Iterator[tuple[np.ndarray, np.ndarray]],
    table: ReclaimableTable | None,
) -> tuple[np.ndarray, int]:
    """Types of all pageblocks: what the first event shows, else a guess.

    Parameters
    ----------
    of_page : ndarray
        uint8 [pages], classes as `page_bytes` makes them.
    is_free : ndarray
        bool [pages].
    shown : iterator of (pageblock, type)
        Types that events show, in the order of time.
    table : ReclaimableTable, optional

    Returns
    -------
    labels : ndarray
        int8 [pageblocks].
    nr_shown : int
        Pageblocks whose type an event shows.
    """
    labels = _guessed_types(of_page)
    never = np.iinfo(np.int64).max
    when = np.full(len(labels), never)
    for i, (pageblock, mt) in enumerate(shown):
        pageblock, where = np.unique(pageblock, return_index=True)
        new = when[pageblock] == never
        labels[pageblock[new]] = mt[where][new]
        when[pageblock[new]] = (i << 32) + where[new]
    if table is not None:
        _guess_reclaimable(labels, when == never, of_page, table.pageblocks)
        _match_free_blocks(labels, when == never, small_free_blocks(is_free), table.free_blocks)
    _agree_in_pairs(labels, when, is_free)
    return labels, int((when < never).sum())


def _guessed_types(of_page: np.ndarray) -> np.ndarray:
    """Types by what most pages of a pageblock hold: int8 [pageblocks]; nothing is Reclaimable."""
    kinds = (of_page & 0x0F).reshape(-1, PB_PAGES)
    fixed = np.isin(kinds, (PageClass.SLAB, PageClass.PAGE_TABLE, PageClass.OTHER)).sum(axis=1)
    lru = np.isin(kinds, (PageClass.ANON, PageClass.HUGE, PageClass.PAGE_CACHE)).sum(axis=1)
    is_fixed = (fixed > lru) & managed_pageblocks(of_page)
    return np.where(is_fixed, int(Mt.UNMOVABLE), int(Mt.MOVABLE)).astype(np.int8)


def managed_pageblocks(of_page: np.ndarray) -> np.ndarray:
    """Whether a pageblock holds a page of a known class: bool. Other memory was never released."""
    known = ~np.isin(of_page & 0x0F, (PageClass.OTHER, PageClass.RESERVED))
    return np.asarray(known.reshape(-1, PB_PAGES).any(axis=1))


def _guess_reclaimable(labels: np.ndarray, is_guess: np.ndarray, of_page: np.ndarray, nr: int) -> None:
    """Let those pageblocks that hold the most slab be Reclaimable, as many as there are."""
    slab = ((of_page & 0x0F) == PageClass.SLAB).reshape(-1, PB_PAGES).sum(axis=1)
    left = nr - int((labels[~is_guess] == Mt.RECLAIMABLE).sum())
    open_to = np.flatnonzero(is_guess & (labels == Mt.UNMOVABLE) & (slab > 0))
    most = open_to[np.argsort(-slab[open_to], kind="stable")]
    labels[most[: max(left, 0)]] = Mt.RECLAIMABLE


def small_free_blocks(is_free: np.ndarray) -> np.ndarray:
    """Free blocks below a pageblock's order in each pageblock: int64 [pageblocks, PB_ORDER]."""
    level = is_free.reshape(-1, PB_PAGES)
    rows = []
    for _ in range(PB_ORDER):
        pairs = level[:, 0::2] & level[:, 1::2]
        rows.append(level.sum(axis=1) - 2 * pairs.sum(axis=1))
        level = pairs
    return np.stack(rows, axis=1).astype(np.int64)


def _match_free_blocks(
    labels: np.ndarray, is_guess: np.ndarray, free: np.ndarray, wanted: np.ndarray
) -> None:
    """Swap Reclaimable and Unmovable guesses while that brings their free blocks nearer to the table's.

    The distance is the number of blocks too many or too few, summed over orders. The number of pageblocks of
    a type stays.
    """
    reclaimable, unmovable = (
        np.flatnonzero(is_guess & (labels == mt)) for mt in (Mt.RECLAIMABLE, Mt.UNMOVABLE)
    )
    if not len(reclaimable) or not len(unmovable):
        return
    off = free[labels == Mt.RECLAIMABLE].sum(axis=0) - wanted
    for _ in range(_MAX_SWAPS):
        change = free[unmovable][None, :, :] - free[reclaimable][:, None, :]
        distance = np.abs(off + change).sum(axis=2)
        i, j = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[i, j] >= np.abs(off).sum():
            break
        off = off + change[i, j]
        reclaimable[i], unmovable[j] = unmovable[j], reclaimable[i]
    labels[reclaimable] = Mt.RECLAIMABLE
    labels[unmovable] = Mt.UNMOVABLE


def _agree_in_pairs(labels: np.ndarray, when: np.ndarray, is_free: np.ndarray) -> None:
    """Two free pageblocks that make one block have one type: the one that was shown first."""
    two = labels.reshape(-1, 2)
    whole = is_free.reshape(len(two), -1).all(axis=1) & (two < Mt.HIGHATOMIC).all(axis=1)
    first = when.reshape(-1, 2).argmin(axis=1)
    two[whole] = np.take_along_axis(two, first[:, None], axis=1)[whole]
