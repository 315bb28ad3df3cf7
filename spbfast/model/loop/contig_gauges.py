"""Gauges of 1 GiB pages: how many could be had now, and how many after moving what can be moved.

Reads superpageblock counters only; never changes the machine.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
)
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.state.sample_layout import Ga


@kernel
def count_contig_possible(z, heeds_pins):
    """Clean superpageblocks that migration could empty one after the other, emptiest first; (number, pages
    to move). What each holds must fit into the free pages of clean ones not yet emptied. With `heeds_pins`
    one that has a pinned page cannot be emptied, but may take in what others hold."""
    room = np.int64(0)
    for spb in range(z.geo.nr_spb):
        if z.spb.list[spb] >= 0 and category_of_list(z.spb.list[spb]) == CLEAN:
            room += z.spb.nr_free_pages[spb]
    nr = 0
    moved = np.int64(0)
    floor = np.int64(-1)  # free pages of the one taken last, and its number: the next is below in order
    last = np.int64(-1)
    while True:
        spb, free = find_next_emptiest(z, floor, last, heeds_pins)
        if spb < 0:
            return nr, moved
        used = (np.int64(z.spb.total[spb]) << 9) - free
        if used > room - free:
            return nr, moved
        room -= free + used
        moved += used
        nr += 1
        floor = free
        last = spb


@kernel
def find_next_emptiest(z, free_before, spb_before, heeds_pins):
    """The clean superpageblock that can be emptied and follows in order of falling free pages, then number;
    (it, its free pages)."""
    best = np.int64(-1)
    best_free = np.int64(-1)
    for spb in range(z.geo.nr_spb):
        if z.spb.list[spb] < 0 or category_of_list(z.spb.list[spb]) != CLEAN or not z.spb.full_length[spb]:
            continue
        if heeds_pins and z.spb.pinned[spb]:
            continue
        free = np.int64(z.spb.nr_free_pages[spb])
        is_after = free_before < 0 or free < free_before or (free == free_before and spb > spb_before)
        if is_after and free > best_free:
            best = np.int64(spb)
            best_free = free
    return best, best_free


@kernel
def nr_contig_now(z):
    """Empty superpageblocks of full length."""
    nr = 0
    for spb in range(z.geo.nr_spb):
        if z.spb.list[spb] >= 0 and category_of_list(z.spb.list[spb]) == EMPTY and z.spb.full_length[spb]:
            nr += 1
    return nr


@kernel
def record_contig(z, gauges):
    """Gauges of 1 GiB pages: at once, after moving what can be moved, and were nothing pinned."""
    now = nr_contig_now(z)
    unpinned, _ = count_contig_possible(z, False)
    possible, moved = count_contig_possible(z, True)
    gauges[Ga.CONTIG_1G_NOW] = now
    gauges[Ga.CONTIG_1G_WITHOUT_RECLAIM] = now + possible
    gauges[Ga.CONTIG_1G_WITHOUT_RECLAIM_UNPINNED] = now + unpinned
    gauges[Ga.CONTIG_1G_PAGES_TO_MOVE] = moved
