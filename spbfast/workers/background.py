"""Work inside clean superpageblocks and whole ones, as it becomes due: compaction within, gigantic pages.

Owns the pace of compaction inside clean superpageblocks (within.py does it), and the queue of requests for
whole superpageblocks: each is served when the one before it is done, and waits no longer once it was given
back. Demand only adds to that queue and takes away from it, so that it is the same under every policy.
"""

from __future__ import annotations

import numpy as np

from spbfast._jit import kernel
from spbfast.allocator.free import slot_pfn, take_slot
from spbfast.allocator.pcp import drain_all
from spbfast.allocator.request import begin_event
from spbfast.constants import MOVABLE, Ev, P
from spbfast.holders.inodes import page_cache_reclaimed
from spbfast.holders.pagecache import reclaim_pages
from spbfast.state.node import NEVER, Gi, N, Now, V, Wk
from spbfast.workers.contig import alloc_contig, free_contig
from spbfast.workers.contig_scan import alloc_contig_by_scan
from spbfast.workers.cost import account_moves
from spbfast.workers.defer import defer_requests
from spbfast.workers.within import compact_spb, needs_compaction


@kernel
def run_within(z, policy, node, shrink):
    """Compact inside the clean superpageblocks that need it, ascending; no pageblock freed means a pause."""
    now = node.now[Now.NS]
    interval = node.conf[N.WITHIN_INTERVAL]
    node.due[Wk.WITHIN] = now + interval if interval > 0 else NEVER
    few, least = node.conf[N.WITHIN_FREE_PB], node.conf[N.WITHIN_FRAGMENTS]
    for spb in range(z.geo.nr_spb):
        if now < node.within[spb] or not needs_compaction(z, spb, few, least):
            continue
        begin_event(z, 0)
        freed = compact_spb(z, policy, spb, node.conf[N.WITHIN_PAGEBLOCKS], few, least)
        node.vm[V.SPB_COMPACT_RAN] += 1
        node.vm[V.SPB_COMPACT_PAGES] += z.ev[Ev.MOVED_PAGES]
        node.vm[V.SPB_COMPACT_FREED] += freed
        node.vm[V.COMPACT_MIGRATE_SCANNED] += z.ev[Ev.MIGRATE_SCANNED]
        node.vm[V.COMPACT_FREE_SCANNED] += z.ev[Ev.FREE_SCANNED]
        cost = account_moves(z, node)
        node.within[spb] = now + (cost if freed else node.conf[N.WITHIN_COOLDOWN])
        defer_requests(z, policy, node, shrink, MOVABLE)


# --- gigantic pages -------------------------------------------------------------------------------


@kernel
def queue_contig(node, owner, slot):
    """Ask for a whole superpageblock into an owner's slot. The ring has a place for every slot there is."""
    tail = node.now[Now.CONTIG_TAIL]
    row = node.contig[tail % node.contig.shape[0]]
    row[Gi.OWNER] = owner
    row[Gi.SLOT] = slot
    row[Gi.ASKED] = node.now[Now.NS]
    node.now[Now.CONTIG_TAIL] = tail + 1
    if node.due[Wk.CONTIG] == NEVER:
        node.due[Wk.CONTIG] = max(node.now[Now.NS] + node.conf[N.WQ_DELAY], node.now[Now.CONTIG_READY])


@kernel
def withdraw_contig(node, owner, slot):
    """Take the waiting request for a slot off the queue; those behind it move up."""
    nr = node.contig.shape[0]
    is_found = False
    for i in range(node.now[Now.CONTIG_HEAD], node.now[Now.CONTIG_TAIL]):
        row = node.contig[i % nr]
        if row[Gi.OWNER] == owner and row[Gi.SLOT] == slot:
            is_found = True
        if is_found:
            for column in range(row.shape[0]):
                row[column] = node.contig[(i + 1) % nr, column]
    if is_found:
        node.now[Now.CONTIG_TAIL] -= 1
        node.vm[V.CONTIG_WITHDRAWN] += 1


@kernel
def return_contig(z, policy, node, shrink, owner, slot):
    """Give back the superpageblock in an owner's slot, or withdraw the request that still waits for it."""
    if slot_pfn(z, owner, slot) >= 0:
        begin_event(z, 0)
        free_contig(z, policy, take_slot(z, owner, slot))
        node.vm[V.CONTIG_FREED] += 1
        node.vm[V.PGFREE] += 1 << z.geo.spb_shift
        node.vm[V.PAGE_EVENTS] += 1
        defer_requests(z, policy, node, shrink, MOVABLE)
        return
    withdraw_contig(node, owner, slot)


@kernel
def try_contig(z, policy, node, shrink, owner, slot):
    """One attempt at a whole superpageblock: (its first page or -1, whether targets were missing, cost)."""
    begin_event(z, 0)
    # Pages on per-CPU lists cannot be isolated (drain_all_pages).
    for cpu in range(z.geo.nr_cpus):
        drain_all(z, policy, cpu)
    if policy[P.contig]:
        pfn = alloc_contig(z, policy, owner, slot)
    else:
        pfn = alloc_contig_by_scan(z, policy, owner, slot)
    node.vm[V.CONTIG_PAGES_MIGRATED] += z.ev[Ev.MOVED_PAGES]
    node.vm[V.CONTIG_RANGES_TRIED] += z.ev[Ev.VISITED]
    is_short = z.ev[Ev.FAILED_MOVES] > 0
    cost = account_moves(z, node)
    defer_requests(z, policy, node, shrink, MOVABLE)
    return pfn, is_short, cost


@kernel
def alloc_gigantic(z, policy, node, slab, shrink, owner, slot):
    """A whole superpageblock, reclaiming page cache for migration targets in between; (page or -1, cost).

    Model: the kernel reclaims inside each target's allocation; here in rounds of a 16th of the size.
    """
    pfn, is_short, cost = try_contig(z, policy, node, shrink, owner, slot)
    for _ in range(node.conf[N.CONTIG_RECLAIM_ROUNDS]):
        if pfn >= 0 or not is_short:
            break
        freed = reclaim_pages(z, policy, node, np.int64(1) << (z.geo.spb_shift - 4))
        page_cache_reclaimed(slab, freed)
        node.vm[V.PGSTEAL_DIRECT] += freed
        if freed == 0:
            break
        pfn, is_short, spent = try_contig(z, policy, node, shrink, owner, slot)
        cost += spent
    return pfn, cost


@kernel
def run_contig(z, policy, node, slab, shrink):
    """Serve the oldest request; the next one starts when its time is over."""
    node.due[Wk.CONTIG] = NEVER
    if node.now[Now.CONTIG_HEAD] == node.now[Now.CONTIG_TAIL]:
        return
    row = node.contig[node.now[Now.CONTIG_HEAD] % node.contig.shape[0]]
    node.now[Now.CONTIG_HEAD] += 1
    pfn, cost = alloc_gigantic(z, policy, node, slab, shrink, row[Gi.OWNER], row[Gi.SLOT])
    done = node.now[Now.NS] + max(cost, 1)
    node.now[Now.CONTIG_READY] = done
    node.vm[V.CONTIG_ALLOC_NS] += done - row[Gi.ASKED]
    if pfn >= 0:
        node.vm[V.CONTIG_ALLOC_SUCCESS] += 1
        node.vm[V.PGALLOC_NORMAL] += 1 << z.geo.spb_shift
        node.vm[V.PAGE_EVENTS] += 1
    else:
        node.vm[V.CONTIG_ALLOC_FAIL] += 1
    if node.now[Now.CONTIG_HEAD] < node.now[Now.CONTIG_TAIL]:
        node.due[Wk.CONTIG] = done
