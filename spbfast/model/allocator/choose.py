"""Which superpageblock a rung looks at next, by one of two strategies, and how many it looked at.

As posted a rung walks the category's lists, fullest first (pick.py). With `choose_by_bitmap`, the replacement
proposed on the list, it takes the lowest-addressed superpageblock whose bit is set both in the bitmap of its
category and in that of (order, type). A place is an opaque number: a search starts at 0 and resumes behind a
place with `place + 1`. Owns the counting of what was looked at, by event and by rung (`z.walks`); changes
nothing else.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import WALK_SEARCHED, WALK_VISITED, Ev, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.pick import first_list, nr_lists, order_mask, rank_of, walk_first_fit
from spbfast.model.primitives.bits import bit_of, bits_from, first_in, nr_words, word_of

LIST_SHIFT = 32
SLOT_MASK = (1 << LIST_SHIFT) - 1


@kernel
def find_by_address(z, category, mt_a, mt_b, order, spb):
    """Lowest superpageblock >= `spb` of a category that has at least `order` of either type free, or -1.

    The bitmaps of (order, type) exist as each superpageblock's mask of orders: to keep them turned round too
    would cost every policy what only this choice reads.
    """
    above = bits_from(spb)
    for word in range(word_of(spb), z.index.in_category.shape[1]):
        bits = z.index.in_category[category, word] & above
        while bits:
            found = first_in(word, bits)
            if (order_mask(z, found, mt_a) | order_mask(z, found, mt_b)) >> order:
                return found
            bits ^= bit_of(found)
        above = np.int64(-1)
    return np.int64(-1)


@kernel
def find_either_fit(index, lst, mt_a, mt_b, order, slot):
    """First slot >= `slot` of a list with a free block of at least `order` of either type, or -1."""
    above = bits_from(slot)
    for word in range(word_of(slot), nr_words(np.int64(index.tail[lst]))):
        bits = (index.fit[lst, mt_a, order, word] | index.fit[lst, mt_b, order, word]) & above
        if bits:
            return first_in(word, bits)
        above = np.int64(-1)
    return -1


@inline_kernel
def choose_first(z, policy, category, mt, order):
    """First superpageblock of a category that can serve: (it or -1, number looked at)."""
    if policy[P.choose_by_bitmap]:
        spb = find_by_address(z, category, mt, mt, order, 0)
        return spb, 1 if spb >= 0 else 0
    return walk_first_fit(z.index, category, mt, order)


@kernel
def find_next(z, policy, category, mt_a, mt_b, order, place):
    """The next superpageblock at or behind a place that has a block of at least `order` of either type.

    Returns (its place, superpageblock), both -1 when there is none.
    """
    if policy[P.choose_by_bitmap]:
        spb = find_by_address(z, category, mt_a, mt_b, order, place)
        return spb, spb
    slot = place & SLOT_MASK
    first = first_list(category)
    for lst in range(first + (place >> LIST_SHIFT), first + nr_lists(category)):
        slot = find_either_fit(z.index, lst, mt_a, mt_b, order, slot)
        if slot >= 0:
            return ((lst - first) << LIST_SHIFT) | slot, np.int64(z.index.spb[lst, slot])
        slot = 0
    return np.int64(-1), np.int64(-1)


@kernel
def nr_stepped(z, policy, category, place, looked):
    """Superpageblocks that a search stepped on until it ended at `place` (-1: found none).

    `looked` is how many `find_next` named: all that bitmaps ever touch. A walk steps on the others too.
    """
    if policy[P.choose_by_bitmap]:
        return looked
    first = first_list(category)
    nr = np.int64(0)
    for lst in range(first, first + nr_lists(category)):
        if place >= 0 and lst - first == place >> LIST_SHIFT:
            return nr + rank_of(z.index, lst, place & SLOT_MASK) + 1
        nr += z.index.len[lst]
    return nr


@inline_kernel
def count_visits(z, rung, visited, counter):
    """A search of a rung ended: count it, and what it visited in the event's counter too."""
    z.ev[counter] += visited
    z.walks[WALK_SEARCHED, rung] += 1
    z.walks[WALK_VISITED, rung] += visited


@kernel
def count_search(z, policy, category, place, looked, rung):
    """`count_visits` for a search by `find_next` in one of the ladder's rungs."""
    count_visits(z, rung, nr_stepped(z, policy, category, place, looked), Ev.VISITED)
