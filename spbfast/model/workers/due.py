"""Running what is due: evacuation, slab shrink, defragmentation, compaction, kswapd, per-CPU decay.

Owns the order of work (by time, then by queue number) and the simulated cost of each item: an item that
took time does not start again before that time is over. Different items run side by side.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MOVABLE, Ev, P
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.pcp import decay
from spbfast.model.allocator.record import trace_shrink_run
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.holders.slab import free_emptied
from spbfast.model.state.node import NEVER, Df, Eq, N, Now, V, Wk
from spbfast.model.state.shrink_layout import R
from spbfast.model.state.slab_layout import St
from spbfast.model.workers.background import run_within
from spbfast.model.workers.claimed import run_claimed
from spbfast.model.workers.compact import run_kcompactd
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.defrag import defrag_spb
from spbfast.model.workers.evacuate import evacuate_for_order
from spbfast.model.workers.gigantic import run_contig
from spbfast.model.workers.kswapd import reclaim_direct, run_kswapd
from spbfast.model.workers.shrink import begin_shrink, end_shrink


@kernel
def evacuate_accounted(z, policy, node, slab, order, mt):
    """One evacuation with its cost in ns; where targets were missing, reclaim for them and once more.

    Model: the rounds of `migration_target_reclaim` follow the first attempt; the kernel's migration
    would reclaim inside each target's allocation.
    """
    begin_event(z, 0)
    evacuate_for_order(z, policy, order, mt)
    pages = z.ev[Ev.MOVED_PAGES]
    cost = account_moves(z, node)
    if z.ev[Ev.FAILED_MOVES] > 0 and policy[P.migration_target_reclaim] > 0:
        for _ in range(policy[P.migration_target_reclaim]):
            reclaim_direct(z, policy, node, slab)
        requests = z.ev[Ev.REQUESTS]
        begin_event(z, 0)
        evacuate_for_order(z, policy, order, mt)
        z.ev[Ev.REQUESTS] |= requests
        pages += z.ev[Ev.MOVED_PAGES]
        cost += account_moves(z, node)
    return pages, cost


@kernel
def run_evacuate(z, policy, node, slab, shrink):
    """Serve the oldest queued evacuation; the next one starts when this one's time is over."""
    head = node.now[Now.EVAC_HEAD]
    node.due[Wk.EVACUATE] = NEVER
    if head == node.now[Now.EVAC_TAIL]:
        return
    row = node.evac[head % node.evac.shape[0]]
    node.now[Now.EVAC_HEAD] = head + 1
    mt = row[Eq.MT]
    pages, cost = evacuate_accounted(z, policy, node, slab, row[Eq.ORDER], mt)
    node.vm[V.SPB_EVAC_RAN] += 1
    node.vm[V.SPB_EVAC_PAGES] += pages
    if head + 1 < node.now[Now.EVAC_TAIL]:
        node.due[Wk.EVACUATE] = node.now[Now.NS] + max(cost, 1)
    defer_requests(z, policy, node, shrink, mt)


@kernel
def nr_free_pageblocks(z):
    """Wholly free pageblocks of the zone."""
    nr = np.int64(0)
    for spb in range(z.geo.nr_spb):
        nr += z.spb.nr_free_pb[spb]
    return nr


@kernel
def account_shrink(z, node, run, pages, pageblocks, cost):
    """Count what a run of the shrink worker did, and record it."""
    node.vm[V.SPB_SLAB_SHRINK_RAN] += 1
    node.vm[V.SPB_SLAB_SHRINK_SCANNED] += run[R.SCANNED]
    node.vm[V.SPB_SLAB_SHRINK_FREED] += run[R.FREED]
    node.vm[V.SPB_SLAB_SHRINK_PASSES] += run[R.PASSES]
    node.vm[V.SPB_SLAB_SHRINK_PAGES] += pages
    node.vm[V.SPB_SLAB_SHRINK_PAGEBLOCKS] += pageblocks
    node.vm[V.SPB_SLAB_SHRINK_NS] += cost
    node.vm[V.SLABS_SCANNED] += run[R.SCANNED]
    if run[R.FREED] == 0:
        node.vm[V.SPB_SLAB_SHRINK_NO_PROGRESS] += 1
    prio, scanned, freed = run[R.LAST_PRIO], run[R.SCANNED], run[R.FREED]
    trace_shrink_run(z, run[R.PASSES], prio, scanned, freed, pages, pageblocks, cost)


@kernel
def run_shrink(z, policy, node, slab, standins, shrink):
    """BEGIN of a slab shrink: all of its work at this instant; END when its time is over."""
    node.due[Wk.SHRINK] = NEVER
    pages = slab.stat[St.PAGES_FREED]
    target, prio = policy[P.slab_shrink_target_objs], policy[P.slab_shrink_start_priority]
    if not begin_shrink(shrink, slab, standins, 0, target, prio, 0):
        return
    begin_event(z, 0)
    pageblocks = nr_free_pageblocks(z)
    node.vm[V.PAGE_EVENTS] += free_emptied(z, policy, slab)
    pageblocks = nr_free_pageblocks(z) - pageblocks
    pages = slab.stat[St.PAGES_FREED] - pages
    node.vm[V.PGFREE] += pages
    run = shrink.run
    cost = run[R.COUNTS] * node.conf[N.SHRINK_COUNT_COST] + run[R.SCANNED] * node.conf[N.SHRINK_OBJECT_COST]
    node.due[Wk.SHRINK_END] = node.now[Now.NS] + max(cost, 1)
    account_shrink(z, node, run, pages, pageblocks, cost)
    defer_requests(z, policy, node, shrink, 2)


@kernel
def run_shrink_end(node, shrink):
    """END of a slab shrink; what was queued meanwhile begins at once."""
    node.due[Wk.SHRINK_END] = NEVER
    end_shrink(shrink, 0)
    node.due[Wk.SHRINK] = node.now[Now.NS]


@kernel
def run_defrag(z, policy, node, shrink):
    """Defragment the superpageblocks whose time has come, ascending; no progress means a pause."""
    now = node.now[Now.NS]
    node.due[Wk.DEFRAG] = NEVER
    for spb in range(z.geo.nr_spb):
        due = node.defrag[spb, Df.DUE]
        if due > now:
            node.due[Wk.DEFRAG] = min(node.due[Wk.DEFRAG], due)
            continue
        node.defrag[spb, Df.DUE] = NEVER
        begin_event(z, 0)
        moved = defrag_spb(z, policy, spb)
        node.vm[V.SPB_DEFRAG_RAN] += 1
        node.vm[V.SPB_DEFRAG_PAGES] += z.ev[Ev.MOVED_PAGES]
        cost = account_moves(z, node)
        node.defrag[spb, Df.READY] = now + (cost if moved else node.conf[N.DEFRAG_COOLDOWN])
        defer_requests(z, policy, node, shrink, 1)


@kernel
def run_pcp_decay(z, policy, node, shrink):
    """Let every CPU's lists decay, as the vmstat tick does."""
    begin_event(z, 0)
    for cpu in range(z.geo.nr_cpus):
        decay(z, policy, cpu)
    node.due[Wk.PCP_DECAY] = node.now[Now.NS] + node.conf[N.PCP_DECAY]
    defer_requests(z, policy, node, shrink, 1)


@kernel
def find_due(node, until_ns):
    """Work item that is due first, not after `until_ns`, or -1; ties by queue number."""
    item = -1
    for i in range(node.due.shape[0]):
        if node.due[i] <= until_ns and (item < 0 or node.due[i] < node.due[item]):
            item = i
    return item


@kernel
def run_later_item(z, policy, node, slab, shrink, item):
    """The items that most runs never have."""
    if item == Wk.CLAIMED:
        run_claimed(z, policy, node)
        defer_requests(z, policy, node, shrink, MOVABLE)
    elif item == Wk.WITHIN:
        run_within(z, policy, node, shrink)
    elif item == Wk.KCOMPACTD:
        run_kcompactd(z, policy, node, shrink)
    else:
        run_contig(z, policy, node, slab, shrink)


@kernel
def run_due_work(z, policy, node, slab, standins, shrink, until_ns):
    """Run all work due up to a time, in order; the clock follows."""
    while True:
        item = find_due(node, until_ns)
        if item < 0:
            break
        node.now[Now.NS] = max(node.now[Now.NS], node.due[item])
        if item == Wk.SHRINK_END:
            run_shrink_end(node, shrink)
        elif item == Wk.EVACUATE:
            run_evacuate(z, policy, node, slab, shrink)
        elif item == Wk.SHRINK:
            run_shrink(z, policy, node, slab, standins, shrink)
        elif item == Wk.DEFRAG:
            run_defrag(z, policy, node, shrink)
        elif item == Wk.KSWAPD:
            begin_event(z, 0)
            run_kswapd(z, policy, node, slab)
            defer_requests(z, policy, node, shrink, 1)
        elif item == Wk.PCP_DECAY:
            run_pcp_decay(z, policy, node, shrink)
        else:
            run_later_item(z, policy, node, slab, shrink, item)
    node.now[Now.NS] = max(node.now[Now.NS], np.int64(until_ns))
