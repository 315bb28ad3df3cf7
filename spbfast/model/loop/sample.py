"""Samples of the simulated machine into preallocated arrays.

Owns what is sampled and when. `samples` of a run hold one row a sample; engine.py names their columns for
the dataset. Never changes the machine.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
    MOVABLE,
    NR_MT,
    NR_ORDERS,
    NR_OUTCOMES,
    NR_REQUEST_MT,
    PB_ORDER,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
    WALK_SEARCHED,
    WALK_VISITED,
    C,
)
from spbfast.jit.decorators import by_reference, inline_kernel, kernel
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.holders.inode_scan import freeable_bytes
from spbfast.model.holders.slab import nr_slab_pages
from spbfast.model.state.node import Ca, N, Now
from spbfast.model.state.slab_layout import St
from spbfast.model.state.trace import NR_TALLY
from spbfast.model.state.vmstat import NR_VM, VM_TALLY, VM_WALKS, V


class Ga(enum.IntEnum):
    """Columns of `Samples.gauges`; the names are those of the output variables."""

    SPB_TAINTED = 0
    SPB_CLEAN = 1
    SPB_EMPTY = 2
    SPB_ISOLATED = 3
    SLAB_PAGES = 4
    SLAB_CACHED_BYTES = 5
    SLAB_OBJECTS = 6
    PAGECACHE_PAGES = 7
    PCP_PAGES = 8
    FREE_PAGES_STRANDED_IN_TAINTED = 9
    CONTIG_1G_NOW = 10
    CONTIG_1G_POSSIBLE = 11
    PCP_OWNED_PAGEBLOCKS = 12
    PCP_STRANDED_PAGES = 13
    CONTIG_1G_HELD = 14
    CONTIG_1G_PAGES_TO_MOVE = 15
    NR_FREE_PAGES = 16
    NR_FREE_PAGES_BLOCKS = 17
    NR_SLAB_RECLAIMABLE = 18
    NR_SLAB_UNRECLAIMABLE = 19
    PINNED_PAGES = 20
    SPB_TAINTED_BY_STALE_BITS = 21
    CONTIG_1G_POSSIBLE_UNPINNED = 22


# Gauges of superpageblocks count zones Normal only, as all published figures do; the rest sums up all zones.
NORMAL_GAUGES = (
    Ga.SPB_TAINTED,
    Ga.SPB_CLEAN,
    Ga.SPB_EMPTY,
    Ga.SPB_ISOLATED,
    Ga.FREE_PAGES_STRANDED_IN_TAINTED,
    Ga.CONTIG_1G_NOW,
    Ga.CONTIG_1G_POSSIBLE,
    Ga.CONTIG_1G_PAGES_TO_MOVE,
    Ga.SPB_TAINTED_BY_STALE_BITS,
    Ga.CONTIG_1G_POSSIBLE_UNPINNED,
)
# What is also given zone by zone.
ZONE_GAUGES = (Ga.SPB_TAINTED, Ga.SPB_CLEAN, Ga.SPB_EMPTY, Ga.PAGECACHE_PAGES)


class Sb(enum.IntEnum):
    """Second axis of `Samples.spb`: what a snapshot says of a superpageblock."""

    CATEGORY = 0  # -1: a superpageblock without memory
    FREE_PB = 1
    FREE_PAGES = 2
    UNMOVABLE = 3  # pageblocks with the content bit
    MOVABLE = 4
    RECLAIMABLE = 5
    PINNED_PAGES = 6


@by_reference()
class Samples(NamedTuple):
    """Rows of samples: gauges, free pages by migratetype, free blocks by order, counters; times in ns.

    Pageblocks with the content bit and with pages in use are by requested type; `spb` has a snapshot of
    every superpageblock, in columns as `Sb`, or no rows.
    """

    time: np.ndarray
    gauges: np.ndarray
    free_pages: np.ndarray
    free_blocks: np.ndarray
    vm: np.ndarray
    content: np.ndarray
    in_use: np.ndarray
    spb: np.ndarray


def make_samples(nr: int, nr_spb: int = 0) -> Samples:
    """Room for `nr` samples, with snapshots of `nr_spb` superpageblocks in each."""
    return Samples(
        content=np.zeros((nr, NR_MT), np.int64),
        in_use=np.zeros((nr, NR_MT), np.int64),
        spb=np.zeros((nr if nr_spb else 0, len(Sb), nr_spb), np.int32),
        time=np.zeros(nr, np.int64),
        gauges=np.zeros((nr, len(Ga)), np.int64),
        free_pages=np.zeros((nr, NR_MT), np.int64),
        free_blocks=np.zeros((nr, NR_ORDERS), np.int64),
        vm=np.zeros((nr, NR_VM), np.int64),
    )


@kernel
def sum_free(z, pages, blocks):
    """Free pages by migratetype and free blocks by order, over all list sets."""
    pages[:] = 0
    blocks[:] = 0
    nr_sets = z.area.mask.shape[0] // NR_MT
    for set_ in range(nr_sets):
        for order in range(NR_ORDERS):
            for mt in range(NR_MT):
                nr = np.int64(z.area.nr[(set_ * NR_ORDERS + order) * NR_MT + mt])
                pages[mt] += nr << order
                blocks[order] += nr


@kernel
def nr_stranded(z):
    """Free pages in tainted superpageblocks."""
    nr = np.int64(0)
    for spb in range(z.geo.nr_spb):
        if z.spb.list[spb] >= 0 and category_of_list(z.spb.list[spb]) == TAINTED:
            nr += z.spb.nr_free_pages[spb]
    return nr


@kernel
def nr_resting_in_tainted(z):
    """Pages at rest with owning CPUs inside tainted superpageblocks."""
    nr = np.int64(0)
    for spb in range(z.geo.nr_spb):
        if z.spb.list[spb] >= 0 and category_of_list(z.spb.list[spb]) == TAINTED:
            nr += z.spb.nr_resting_pages[spb]
    return nr


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
    gauges[Ga.CONTIG_1G_POSSIBLE] = now + possible
    gauges[Ga.CONTIG_1G_POSSIBLE_UNPINNED] = now + unpinned
    gauges[Ga.CONTIG_1G_PAGES_TO_MOVE] = moved


@kernel
def is_stale(z, spb):
    """Whether a tainted superpageblock has no unmovable or reclaimable page in use: only bits say so."""
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        if z.pb.used[pb, UNMOVABLE] or z.pb.used[pb, RECLAIMABLE]:
            return False
    return True


@kernel
def count_content(z, content, in_use):
    """Pageblocks with the content bit and with pages in use, by requested type."""
    for spb in range(z.geo.nr_spb):
        for mt in range(NR_REQUEST_MT):
            content[mt] += z.spb.content[spb, mt]
    for pb in range(z.geo.nr_pb):
        for mt in range(NR_REQUEST_MT):
            if z.pb.used[pb, mt] > 0:
                in_use[mt] += 1


@kernel
def record_pageblocks(z, gauges):
    """Gauges of pageblocks: free ones, pins, and superpageblocks whose taint is history."""
    free, pinned, stale = np.int64(0), np.int64(0), np.int64(0)
    for spb in range(z.geo.nr_spb):
        free += z.spb.nr_free_pb[spb]
        pinned += z.spb.pinned[spb]
        lst = z.spb.list[spb]
        if lst >= 0 and category_of_list(lst) == TAINTED and is_stale(z, spb):
            stale += 1
    gauges[Ga.NR_FREE_PAGES_BLOCKS] = free << PB_ORDER
    gauges[Ga.PINNED_PAGES] = pinned
    gauges[Ga.SPB_TAINTED_BY_STALE_BITS] = stale


@kernel
def record_spbs(z, snapshot):
    """A snapshot of every superpageblock."""
    for spb in range(z.geo.nr_spb):
        lst = np.int64(z.spb.list[spb])
        snapshot[Sb.CATEGORY, spb] = -1 if lst < 0 else category_of_list(lst)
        snapshot[Sb.FREE_PB, spb] = z.spb.nr_free_pb[spb]
        snapshot[Sb.FREE_PAGES, spb] = z.spb.nr_free_pages[spb]
        snapshot[Sb.UNMOVABLE, spb] = z.spb.content[spb, UNMOVABLE]
        snapshot[Sb.MOVABLE, spb] = z.spb.content[spb, MOVABLE]
        snapshot[Sb.RECLAIMABLE, spb] = z.spb.content[spb, RECLAIMABLE]
        snapshot[Sb.PINNED_PAGES, spb] = z.spb.pinned[spb]


@kernel
def bring_counters(z, node):
    """Counters that the allocator keeps, which knows no node."""
    node.vm[V.TAINTS] = z.count[C.TAINTS]
    node.vm[V.UNTAINTS] = z.count[C.UNTAINTS]
    for i in range(NR_TALLY):
        node.vm[VM_TALLY + i] = z.tally[i]
    node.vm[V.HIGHATOMIC_RESERVED] = z.count[C.RESERVED_HIGHATOMIC] + node.vm[V.HIGHATOMIC_UNRESERVED]
    node.vm[V.SPB_HINT_USED] = z.count[C.HINTS_USED]
    for rung in range(NR_OUTCOMES):
        node.vm[VM_WALKS + rung] = z.walks[WALK_SEARCHED, rung]
        node.vm[VM_WALKS + NR_OUTCOMES + rung] = z.walks[WALK_VISITED, rung]
    node.vm[V.PCP_PAGEBLOCKS_CLAIMED] = z.count[C.PCP_PAGEBLOCKS_CLAIMED]
    node.vm[V.PCP_PAGEBLOCKS_ADOPTED] = z.count[C.PCP_PAGEBLOCKS_ADOPTED]
    node.vm[V.PCP_FRAGMENTS_TAKEN_BACK] = z.count[C.PCP_FRAGMENTS_TAKEN_BACK]


@kernel
def record_sample(w, samples):
    """Write the next sample, if there is room for one."""
    z, node, slab = w.zone, w.node, w.slab
    bring_counters(z, node)
    i = node.now[Now.NR_SAMPLES]
    if i >= samples.time.shape[0]:
        return
    node.now[Now.NR_SAMPLES] = i + 1
    samples.time[i] = node.now[Now.NS]
    gauges = samples.gauges[i]
    gauges[Ga.SPB_TAINTED] = z.count[C.TAINTED_SPBS]
    gauges[Ga.SPB_CLEAN] = z.count[C.CLEAN_SPBS]
    gauges[Ga.SPB_EMPTY] = z.count[C.EMPTY_SPBS]
    gauges[Ga.SPB_ISOLATED] = z.count[C.ISOLATED_SPBS]
    gauges[Ga.NR_FREE_PAGES] = z.count[C.FREE_PAGES]
    gauges[Ga.NR_SLAB_RECLAIMABLE] = nr_slab_pages(slab, RECLAIMABLE)
    gauges[Ga.NR_SLAB_UNRECLAIMABLE] = nr_slab_pages(slab, UNMOVABLE)
    gauges[Ga.SLAB_PAGES] = gauges[Ga.NR_SLAB_RECLAIMABLE] + gauges[Ga.NR_SLAB_UNRECLAIMABLE]
    gauges[Ga.SLAB_CACHED_BYTES] = freeable_bytes(slab)
    gauges[Ga.SLAB_OBJECTS] = slab.stat[St.NR_OBJECTS]
    gauges[Ga.PAGECACHE_PAGES] = node.cache[Ca.COLD_PAGES] + node.cache[Ca.HOT_PAGES]
    gauges[Ga.PCP_PAGES] = z.count[C.PCP_PAGES]
    gauges[Ga.FREE_PAGES_STRANDED_IN_TAINTED] = nr_stranded(z)
    gauges[Ga.PCP_OWNED_PAGEBLOCKS] = z.count[C.PCP_OWNED_PAGEBLOCKS]
    gauges[Ga.PCP_STRANDED_PAGES] = nr_resting_in_tainted(z)
    gauges[Ga.CONTIG_1G_HELD] = node.vm[V.CONTIG_ALLOC_SUCCESS] - node.vm[V.CONTIG_FREED]
    record_contig(z, gauges)
    record_pageblocks(z, gauges)
    count_content(z, samples.content[i], samples.in_use[i])
    if samples.spb.shape[0] > 0:
        record_spbs(z, samples.spb[i])
    sum_free(z, samples.free_pages[i], samples.free_blocks[i])
    for counter in range(NR_VM):
        samples.vm[i, counter] = node.vm[counter]


@inline_kernel
def record_if_due(w, samples):
    """Write a sample when its time has come."""
    node = w.node
    if node.now[Now.NS] >= node.now[Now.NEXT_SAMPLE]:
        node.now[Now.NEXT_SAMPLE] += node.conf[N.SAMPLE_EVERY]
        record_sample(w, samples)
