"""A start that tables tell only in numbers: which pageblock has which type, and where free blocks lie, drawn.

Owns the draws. Given counts of free blocks by type and order, and of pageblocks by type, places are drawn
among those that a kernel could have: no two free buddies that it would have merged, and free blocks in
pageblocks of their own type. The same key gives the same places.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MAX_ORDER, NR_ORDERS, PB_ORDER, PB_PAGES, Mt
from spbfast.model.primitives.draws import draw_many
from spbfast.observed.real_zone import KERNEL_TYPES, RealZone
from spbfast.recordings.start_state import UNMANAGED, StartState

_TYPES = len(KERNEL_TYPES)


class Draws:
    """Draws of one stream, one after the other."""

    def __init__(self, key: int) -> None:
        self.key, self.used = key, 0

    def take(self, nr: int) -> np.ndarray:
        """The next draws: uint64 [nr]."""
        self.used += nr
        return draw_many(self.key, self.used - nr, nr)

    def sides(self, nr: int) -> np.ndarray:
        """0 or 1 each: int64 [nr]."""
        return (self.take(nr) >> np.uint64(63)).astype(np.int64)

    def shuffled(self, nr: int) -> np.ndarray:
        """0 .. nr-1 in an order drawn: int64 [nr]."""
        return np.argsort(self.take(nr), kind="stable")

    def chosen(self, nr: int, of: int) -> np.ndarray:
        """`nr` different ones of 0 .. of-1, in an order drawn: int64 [nr]."""
        if 4 * nr > of:
            return self.shuffled(of)[:nr]
        found = np.zeros(0, np.int64)
        while len(found) < nr:
            drawn = (self.take(nr + 8) % np.uint64(of)).astype(np.int64)
            found = np.concatenate([found, drawn])
            _, first = np.unique(found, return_index=True)
            found = found[np.sort(first)]
        return found[:nr]


def drawn_start(zone: RealZone, first: int, nr_pages: int, key: int) -> StartState:
    """A start with the zone's numbers.

    Parameters
    ----------
    zone : RealZone
    first : int
        First pageblock, of the simulated zone's pageblocks, that is there; as many follow as the zone has.
    nr_pages : int
        Pages of the simulated zone's arrays.
    key : int
        Stream of the draws.

    Returns
    -------
    StartState
        Free blocks in the order of their lists, which is drawn, too.

    Raises
    ------
    ValueError
        When the largest blocks have no room.
    """
    draws = Draws(key)
    free = np.array([zone.free.get(name, (0,) * NR_ORDERS) for name in KERNEL_TYPES], np.int64)
    quota = np.array([zone.pageblocks.get(name, 0) for name in KERNEL_TYPES], np.int64)
    there = np.arange(first, first + zone.nr_pageblocks)
    labels = np.full(nr_pages // PB_PAGES, int(Mt.MOVABLE), np.int8)
    large, left = _place_large(draws, free, there, labels)
    quota -= free[:, PB_ORDER] + 2 * free[:, MAX_ORDER]
    left = left[draws.shuffled(len(left))]
    labels[left] = np.repeat(np.arange(_TYPES), quota)
    parts = [large]
    for mt in range(_TYPES):
        parts.append(_place_small(draws, free[mt], left[labels[left] == mt] << PB_ORDER))
    blocks = np.concatenate(parts)
    blocks = blocks[draws.shuffled(len(blocks))]
    held = _held(zone, blocks, labels, there)
    managed = np.zeros(len(labels), bool)
    managed[there] = True
    return StartState(blocks, held, labels, managed, guessed=zone.nr_pageblocks)


def _place_large(
    draws: Draws, free: np.ndarray, there: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of orders 9 and 10, with the labels of their pageblocks; and the pageblocks left."""
    pairs, sizes = np.unique(there >> 1, return_counts=True)
    whole = pairs[sizes == 2]
    nr_ten, nr_nine = int(free[:, MAX_ORDER].sum()), int(free[:, PB_ORDER].sum())
    if nr_ten > len(whole) or nr_nine > len(pairs) - nr_ten:
        raise ValueError(
            f"{nr_ten} free blocks of order {MAX_ORDER} and {nr_nine} of order {PB_ORDER}, which do not "
            f"merge, have no room in {len(there)} pageblocks"
        )
    types = np.arange(len(free))
    ten = whole[draws.chosen(nr_ten, len(whole))]
    for half in (0, 1):
        labels[2 * ten + half] = np.repeat(types, free[:, MAX_ORDER])
    rest = np.setdiff1d(pairs, ten)
    pair = rest[draws.chosen(nr_nine, len(rest))]
    nine = 2 * pair + draws.sides(nr_nine)
    nine = np.where(np.isin(nine, there), nine, nine ^ 1)
    labels[nine] = np.repeat(types, free[:, PB_ORDER])
    blocks = np.concatenate([_rows(ten << MAX_ORDER, MAX_ORDER), _rows(nine << PB_ORDER, PB_ORDER)])
    return blocks, np.setdiff1d(there, np.concatenate([2 * ten, 2 * ten + 1, nine]))


def _place_small(draws: Draws, free: np.ndarray, pageblocks: np.ndarray) -> np.ndarray:
    """Blocks below a pageblock, order by order into one half each of what is left of pageblocks."""
    parts = [np.zeros((0, 2), np.int64)]
    regions = pageblocks  # first pages of regions twice as large as the blocks to place
    for order in range(PB_ORDER - 1, -1, -1):
        nr, half = int(free[order]), 1 << order
        at = draws.chosen(nr, len(regions)) if nr else np.zeros(0, np.int64)
        side = draws.sides(nr) * half
        parts.append(_rows(regions[at] + side, order))
        if not free[:order].any():
            break
        others = np.delete(regions, at)
        regions = np.concatenate([others, others + half, regions[at] + (half - side)])
    return np.concatenate(parts)


def _rows(first: np.ndarray, order: int) -> np.ndarray:
    return np.stack([first, np.full(len(first), order)], axis=1)


def _held(zone: RealZone, blocks: np.ndarray, labels: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Pages in use, as the type of their pageblock; those that nobody manages, the lowest, as Unmovable."""
    of_label = labels.copy()
    of_label[labels >= Mt.HIGHATOMIC] = Mt.UNMOVABLE
    held = np.repeat(of_label, PB_PAGES)
    outside = np.ones(len(labels), bool)
    outside[there] = False
    held[np.repeat(outside, PB_PAGES)] = UNMANAGED
    for order in range(NR_ORDERS):
        heads = blocks[blocks[:, 1] == order, 0]
        for i in range(1 << order):
            held[heads + i] = UNMANAGED
    unmanaged = zone.nr_pageblocks * PB_PAGES - zone.managed
    held[np.flatnonzero(held >= 0)[:unmanaged]] = Mt.UNMOVABLE
    return held
