"""Refaults: what was reclaimed or shrunk too early is asked for again.

Owns the delay lines that lead from freed to asked for again, and the requests that follow. All of it is
endogenous: it depends on what the policy freed, is no part of the demand digest, and is counted under names
of its own. Off, there are no lines.

Model: a share of the inodes that shrink scans free, and of the page-cache pages that are reclaimed, is used
again after a fixed delay: the inode with its dentries and all that is attached to it is allocated anew, the
page as a folio of order 0. Of what was swapped out a share is touched again after a delay of its own, page by
page. Nobody knows beforehand which objects those are; that a referenced one is passed once
(`slab.referenced_again`) has been taken into account by the scan. A delay is resolved to a 64th of it, that
of swap to a tick.
"""

from __future__ import annotations

from spbfast.constants import CLS_BLOCKING, CLS_KSWAPD, MOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.free import hand_out, slot_pfn, take_slot
from spbfast.model.holders.swap import count_anon
from spbfast.model.loop.cache_rows import add_to_cache
from spbfast.model.loop.slab_rows import grow_instance
from spbfast.model.requests.alloc_pages import request
from spbfast.model.state.node import REFAULT_BUCKETS, N, Now, Rf, Sw, To
from spbfast.model.state.slab_layout import Si
from spbfast.model.state.slots import SWAPPED
from spbfast.model.state.vmstat import V, Vo

CLS_READER = CLS_BLOCKING | CLS_KSWAPD


@kernel
def pass_on(line, nr_freed, share, slot):
    """Put a share of what was freed since the last time on a delay line; what comes off it now."""
    fresh = line[Rf.ACC] + (nr_freed - line[Rf.SEEN]) * share
    line[Rf.SEEN] = nr_freed
    line[Rf.ACC] = fresh & 0xFFFF
    due = line[Rf.FIRST + slot]
    line[Rf.FIRST + slot] = fresh >> 16
    return due


@kernel
def refault_pages(w, policy, tick, cpu):
    """Page-cache pages that are read again now."""
    node = w.node
    ticks = node.conf[N.REFAULT_FILE_TICKS]
    if node.conf[N.REFAULT_FILE_SHARE] == 0 or tick % ticks:
        return
    slot = tick // ticks % REFAULT_BUCKETS
    # Of the pages reclaimed, those that were swapped out are no file's.
    freed = node.vm[V.PGSTEAL_KSWAPD] + node.vm[V.PGSTEAL_DIRECT] - node.vm[Vo.PSWPOUT]
    due = pass_on(node.refault[0], freed, node.conf[N.REFAULT_FILE_SHARE], slot)
    node.vm[V.WORKINGSET_REFAULT_FILE] += due
    for _ in range(due):
        add_to_cache(w, policy, 0, -1, CLS_READER, cpu, True)


@kernel
def refault_inodes(w, policy, tick, cpu):
    """Inodes that are looked up again now."""
    node, slab = w.node, w.slab
    ticks = node.conf[N.REFAULT_SLAB_TICKS]
    if node.conf[N.REFAULT_SLAB_SHARE] == 0 or tick % ticks:
        return
    slot = tick // ticks % REFAULT_BUCKETS
    for inst in range(slab.inst.shape[0]):
        freed = slab.inst[inst, Si.SCANNED_OUT]
        due = pass_on(node.refault[1 + inst], freed, node.conf[N.REFAULT_SLAB_SHARE], slot)
        if due > 0:
            node.vm[V.WORKINGSET_REFAULT_SLAB] += due
            grow_instance(w, policy, inst, due, CLS_READER, cpu)


@kernel
def swap_in(w, policy, owner, slot, cpu):
    """A page of an owner is touched that was swapped out (do_swap_page); not if it was freed meanwhile.

    The kernel may map a page of another zone, or a folio around it. Model: the zone is that which swapped
    out, the order 0, and the swap slot is free at once. Without a page it stays in swap.
    """
    z = w.zone
    if slot_pfn(z, owner, slot) != SWAPPED:
        return
    pfn = request(w, policy, 0, MOVABLE, CLS_READER, cpu)
    if pfn < 0:
        return
    take_slot(z, owner, slot)
    hand_out(z, pfn, 0, MOVABLE, owner, slot)
    count_anon(z, owner, MOVABLE, 1)
    w.node.vm[Vo.PSWPIN] += 1


@kernel
def touch_swapped(w, policy, cpu):
    """Pages in swap that are touched again now."""
    node = w.node
    most = node.touch.shape[0]
    while node.swap[Sw.HEAD] < node.swap[Sw.TAIL]:
        row = node.touch[node.swap[Sw.HEAD] % most]
        if row[To.DUE] > node.now[Now.NS]:
            break
        node.swap[Sw.HEAD] += 1
        swap_in(w, policy, row[To.OWNER], row[To.SLOT], cpu)


@kernel
def run_refaults(w, policy, tick):
    """What is used again in this tick, ahead of the tick's demand."""
    cpu = tick % max(w.zone.geo.nr_cpus, 1)
    if w.node.refault.shape[0] > 0:
        refault_pages(w, policy, tick, cpu)
        refault_inodes(w, policy, tick, cpu)
    if w.node.touch.shape[0] > 0:
        touch_swapped(w, policy, cpu)
