"""Whole superpageblocks on request, as hugetlb's gigantic pages: the queue, room for what moves, attempts.

Owns the queue of requests: each is served when the one before it is done, and leaves the queue once it is
given back. Demand only adds to that queue and removes from it, so it is the same under every policy.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLEAN, EMPTY, MOVABLE, C, Ev, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import slot_pfn, take_slot
from spbfast.model.allocator.pcp import drain_all
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.holders.inode_scan import page_cache_reclaimed
from spbfast.model.holders.reclaim import reclaim_pages
from spbfast.model.state.node import NEVER, Gi, N, Now, Wk
from spbfast.model.state.vmstat import VM_CONTIG_FAIL, ContigFail, V
from spbfast.model.workers.contig import alloc_contig, first_to_empty, free_contig
from spbfast.model.workers.contig_scan import alloc_contig_by_scan, first_emptiable
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests


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
def return_contig(w, policy, owner, slot):
    """Give back the superpageblock in an owner's slot, or withdraw the request that still waits for it."""
    z, node = w.zone, w.node
    if slot_pfn(z, owner, slot) >= 0:
        begin_event(z, 0)
        free_contig(z, policy, take_slot(z, owner, slot))
        node.vm[V.CONTIG_FREED] += 1
        node.vm[V.PGFREE] += 1 << z.geo.spb_shift
        node.vm[V.PAGE_EVENTS] += 1
        defer_requests(w, policy, MOVABLE)
        return
    withdraw_contig(node, owner, slot)


@inline_kernel
def find_why_contig_failed(z):
    """What ended the attempt that has just failed."""
    if z.ev[Ev.FAILED_MOVES] > 0:
        return ContigFail.NO_ROOM
    if z.ev[Ev.PINNED_MOVES] > 0:
        return ContigFail.PINNED
    return ContigFail.BUSY if z.ev[Ev.BUSY_MOVES] > 0 else ContigFail.NO_CANDIDATE


@kernel
def try_contig(w, policy, owner, slot):
    """One attempt at a whole superpageblock: (its first page or -1, why it failed if it did, cost)."""
    z, node = w.zone, w.node
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
    why = np.int64(find_why_contig_failed(z))
    cost = account_moves(w)
    defer_requests(w, policy, MOVABLE)
    return pfn, why, cost


@kernel
def room_for_moves(z, spb):
    """Free pages outside a superpageblock that migration may use (allocator/migrate.py, take_target)."""
    if z.geo.set_mask == 0:
        return z.count[C.FREE_PAGES] + z.count[C.PCP_PAGES] - np.int64(z.spb.nr_free_pages[spb])
    room = np.int64(0)
    for other in range(z.geo.nr_spb):
        category = category_of_list(z.spb.list[other])
        if other != spb and (category == CLEAN or category == EMPTY):
            room += np.int64(z.spb.nr_free_pages[other])
    return room


@kernel
def is_room_missing(w, policy):
    """Whether what is in use of the first range to be tried would find no place without reclaim."""
    z = w.zone
    spb = first_to_empty(z, policy) if policy[P.contig] else first_emptiable(z, 0)
    if spb < 0:
        return False
    in_use = (1 << z.geo.spb_shift) - np.int64(z.spb.nr_free_pages[spb])
    return in_use > 0 and room_for_moves(z, spb) < in_use + w.node.conf[N.WMARK_MIN]


@inline_kernel
def reclaim_for_moves(w, policy):
    """Reclaim a 16th of a superpageblock of page cache; pages freed."""
    z, node = w.zone, w.node
    freed = reclaim_pages(z, policy, node, np.int64(1) << (z.geo.spb_shift - 4))
    page_cache_reclaimed(w.slab, freed)
    node.vm[V.PGSTEAL_DIRECT] += freed
    return freed


@kernel
def alloc_gigantic(w, policy, owner, slot):
    """A whole superpageblock, page cache reclaimed for migration targets first; (page or -1, why not, cost).

    Model: the kernel reclaims inside each target's allocation. Here in rounds: before the first attempt, so
    that it does not move half a range for nothing, and again when targets were missing all the same.
    """
    rounds = w.node.conf[N.CONTIG_RECLAIM_ROUNDS]
    begin_event(w.zone, 0)
    while rounds > 0 and is_room_missing(w, policy) and reclaim_for_moves(w, policy) > 0:
        rounds -= 1
    defer_requests(w, policy, MOVABLE)
    pfn, why, cost = try_contig(w, policy, owner, slot)
    while rounds > 0 and pfn < 0 and why == ContigFail.NO_ROOM and reclaim_for_moves(w, policy) > 0:
        rounds -= 1
        pfn, why, spent = try_contig(w, policy, owner, slot)
        cost += spent
    return pfn, why, cost


@kernel
def run_contig(w, policy):
    """Serve the oldest request; the next one starts when its time is over."""
    node = w.node
    node.due[Wk.CONTIG] = NEVER
    if node.now[Now.CONTIG_HEAD] == node.now[Now.CONTIG_TAIL]:
        return
    row = node.contig[node.now[Now.CONTIG_HEAD] % node.contig.shape[0]]
    node.now[Now.CONTIG_HEAD] += 1
    pfn, why, cost = alloc_gigantic(w, policy, row[Gi.OWNER], row[Gi.SLOT])
    done = node.now[Now.NS] + max(cost, 1)
    node.now[Now.CONTIG_READY] = done
    node.vm[V.CONTIG_ALLOC_NS] += done - row[Gi.ASKED]
    if pfn >= 0:
        node.vm[V.CONTIG_ALLOC_SUCCESS] += 1
        node.vm[V.PGALLOC_NORMAL] += 1 << w.zone.geo.spb_shift
        node.vm[V.PAGE_EVENTS] += 1
    else:
        node.vm[V.CONTIG_ALLOC_FAIL] += 1
        node.vm[VM_CONTIG_FAIL + why] += 1
    if node.now[Now.CONTIG_HEAD] < node.now[Now.CONTIG_TAIL]:
        node.due[Wk.CONTIG] = done


@kernel
def ask_for_contig(w, policy, owner, slot, more):
    """Whole superpageblocks that requests get one after the other: those that are empty, and what `more`
    requests get beyond them. For a machine at its end: nothing is given back, the slot is scratch."""
    nr = np.int64(0)
    asked = np.int64(0)
    while asked < more:
        moved = w.node.vm[V.CONTIG_PAGES_MIGRATED]
        pfn, _, _ = alloc_gigantic(w, policy, owner, slot)
        if pfn >= 0:
            nr += 1
        if pfn < 0 or w.node.vm[V.CONTIG_PAGES_MIGRATED] > moved:
            asked += 1
    return nr
