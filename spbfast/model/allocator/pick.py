"""Read-only choice of a superpageblock: walks in list order, counted as the posted code walks.

A walk steps on superpageblocks fullest first. Which ones it can use is answered by the index of
`spb.py`, so a walk costs a few bit scans; what it would have stepped on is counted from list lengths
and ranks, so `visited` is the posted walk's length. Nothing here writes but those counts.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
    LIST_CLEAN,
    LIST_EMPTY,
    LIST_TAINTED,
    MOVABLE,
    NR_BUCKETS,
    NR_MT,
    PB_ORDER,
    RECLAIMABLE,
    UNMOVABLE,
)
from spbfast.jit.decorators import ctz, inline_kernel, kernel, popcount
from spbfast.model.primitives.bits import bit_of, bits_below, bits_from, first_in, nr_words, word_of

WHOLE = 1  # orders 9..10
FRAGMENTS = 2  # orders below 9
BOTH = 3


@inline_kernel
def first_list(category):
    """First list of a category in walking order."""
    if category == EMPTY:
        return LIST_EMPTY
    return LIST_CLEAN if category == CLEAN else LIST_TAINTED


@inline_kernel
def nr_lists(category):
    """Number of lists of a category."""
    return 1 if category == EMPTY else NR_BUCKETS


@inline_kernel
def is_live(index, lst, slot):
    """Whether a slot of a list is in use. Loops over slots test this; jumping by bit scans was slower."""
    return index.live[lst, word_of(slot)] & bit_of(slot) != 0


@kernel
def find_fit(index, lst, mt, order, slot):
    """First slot >= `slot` of a list that has a free block of type mt and at least `order`, or -1."""
    end = nr_words(np.int64(index.tail[lst]))
    word = word_of(slot)
    if word >= end:
        return -1
    bits = index.fit[lst, mt, order, word] & bits_from(slot)
    while bits == 0:
        word += 1
        if word >= end:
            return -1
        bits = index.fit[lst, mt, order, word]
    return first_in(word, bits)


@kernel
def rank_of(index, lst, slot):
    """Number of superpageblocks before `slot` in its list."""
    word = word_of(slot)
    rank = popcount(index.live[lst, word] & bits_below(slot))
    for i in range(word):
        rank += popcount(index.live[lst, i])
    return rank


@inline_kernel
def walk_list(index, lst, mt, order):
    """First slot of a list that can serve, and how many superpageblocks it takes to get there.

    Returns (slot or -1, number stepped on): fit bits and ranks in one pass, for the hot walk.
    """
    visited = 0
    for word in range(nr_words(np.int64(index.tail[lst]))):
        live = index.live[lst, word]
        bits = index.fit[lst, mt, order, word]
        if bits:
            slot = first_in(word, bits)
            return slot, visited + popcount(live & bits_below(slot)) + 1
        visited += popcount(live)
    return -1, visited


@inline_kernel
def walk_first_fit(index, category, mt, order):
    """First superpageblock of a category with a free block of type mt and at least `order`.

    Returns (superpageblock or -1, number stepped on).
    """
    # Where memory is well used, one of the first 64 of the fullest bucket serves: no call, no loop.
    first = first_list(category)
    bits = index.fit[first, mt, order, 0]
    if bits:
        slot = ctz(bits)
        return np.int64(index.spb[first, slot]), popcount(index.live[first, 0] & bits_below(slot)) + 1
    return walk_all(index, category, mt, order)


@kernel
def walk_all(index, category, mt, order):
    """`walk_first_fit` over all lists of a category."""
    visited = 0
    first = first_list(category)
    for lst in range(first, first + nr_lists(category)):
        if index.len[lst] == 0:
            continue
        slot, stepped = walk_list(index, lst, mt, order)
        visited += stepped
        if slot >= 0:
            return np.int64(index.spb[lst, slot]), visited
    return -1, visited


@inline_kernel
def find_own_order(mask, order, part, whole_first):
    """Order of the block that Own takes given the non-empty orders of its type, or -1."""
    whole = mask >> max(order, PB_ORDER) << max(order, PB_ORDER) if part & WHOLE else 0
    fragments = mask & ((1 << PB_ORDER) - 1) & (-1 << order) if part & FRAGMENTS else 0
    first = whole if whole_first else fragments
    second = fragments if whole_first else whole
    if first:
        return ctz(first)
    return ctz(second) if second else -1


@inline_kernel
def order_mask(z, set_, mt):
    """Orders of type mt that have a free block in a set."""
    return np.int64(z.area.mask[set_ * NR_MT + mt])


@inline_kernel
def fallback_of(mt, i):
    """The i-th migratetype to fall back to."""
    if mt == UNMOVABLE:
        return RECLAIMABLE if i == 0 else MOVABLE
    if mt == RECLAIMABLE:
        return UNMOVABLE if i == 0 else MOVABLE
    return RECLAIMABLE if i == 0 else UNMOVABLE


@inline_kernel
def other_nonmovable(mt):
    """The other of unmovable and reclaimable."""
    return RECLAIMABLE if mt == UNMOVABLE else UNMOVABLE
