"""Taking samples of the simulated machine.

Owns what is sampled and when. A run's samples hold one row a sample (state/sample_layout.py). Never changes
the machine.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
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
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.holders.inode_scan import freeable_bytes
from spbfast.model.holders.slab import nr_slab_pages
from spbfast.model.loop.contig_gauges import record_contig
from spbfast.model.state.node import Ca, N, Now
from spbfast.model.state.sample_layout import Ga, Sb
from spbfast.model.state.slab_layout import St
from spbfast.model.state.trace import NR_TALLY
from spbfast.model.state.vmstat import NR_VM, VM_TALLY, VM_WALKS, V


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
    gauges[Ga.SWAP_USED_PAGES] = z.count[C.SWAP_PAGES]
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
