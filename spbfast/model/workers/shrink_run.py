"""A run of the slab-shrink worker as queued work: when it begins and ends, what it frees, what it costs.

Owns the simulated time of a run and its counters. What a run scans is decided in shrink.py, when a request
queues one in defer.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import RECLAIMABLE, P
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.record import trace_shrink_run
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.holders.slab import enter_cpu, free_emptied
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.shrink_layout import R
from spbfast.model.state.slab_layout import St
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.shrink import begin_shrink, end_shrink


@kernel
def nr_free_pageblocks(z):
    """Wholly free pageblocks of the zone."""
    nr = np.int64(0)
    for spb in range(z.geo.nr_spb):
        nr += z.spb.nr_free_pb[spb]
    return nr


@kernel
def account_shrink(w, run, pages, pageblocks, cost):
    """Count what a run of the shrink worker did, and record it."""
    node = w.node
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
    trace_shrink_run(w.zone, run[R.PASSES], prio, scanned, freed, pages, pageblocks, cost)


@kernel
def run_shrink(w, policy):
    """BEGIN of a slab shrink: all of its work at this instant; END when its time is over."""
    z, node, slab, shrink = w.zone, w.node, w.slab, w.shrink
    node.due[Wk.SHRINK] = NEVER
    pages = slab.stat[St.PAGES_FREED]
    enter_cpu(slab, 0)
    target, prio = policy[P.slab_shrink_target_objs], policy[P.slab_shrink_start_priority]
    if not begin_shrink(shrink, slab, w.standins, 0, target, prio, 0):
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
    account_shrink(w, run, pages, pageblocks, cost)
    defer_requests(w, policy, RECLAIMABLE)


@kernel
def run_shrink_end(w):
    """END of a slab shrink; what was queued meanwhile begins at once."""
    node = w.node
    node.due[Wk.SHRINK_END] = NEVER
    end_shrink(w.shrink, 0)
    node.due[Wk.SHRINK] = node.now[Now.NS]
