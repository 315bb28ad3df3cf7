"""Evacuation of movable pages from tainted superpageblocks: as one synchronous call, and as queued work.

Owns the choice of candidates and pageblocks and their budget (spb_evacuate_for_order, docs/spec/exact.md
B.8). When a request queues one is decided in defer.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    LIST_TAINTED,
    MAX_EVACUATE_SPBS,
    MOVABLE,
    NR_BUCKETS,
    PB_ORDER,
    REQ_SHRINK_AFTER_EVACUATION,
    Ev,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.migrate import evacuate_pageblock, event_mark
from spbfast.model.allocator.pick import is_live
from spbfast.model.allocator.record import trace_evacuated
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.state.node import NEVER, Eq, Now, Wk
from spbfast.model.state.trace import Cause
from spbfast.model.state.vmstat import V
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.kswapd import reclaim_direct


@kernel
def find_candidates(z, policy):
    """The fullest tainted superpageblocks with movable content, into `scratch`; their number."""
    most = min(policy[P.evacuate_max_superpageblocks], MAX_EVACUATE_SPBS)
    nr = 0
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if nr == most:
                return nr
            if not is_live(z.index, lst, slot):
                continue
            spb = np.int64(z.index.spb[lst, slot])
            if z.spb.content[spb, MOVABLE] > 0:
                z.scratch[nr] = spb
                z.scratch[MAX_EVACUATE_SPBS + nr] = policy[P.evacuate_max_pageblocks]
                nr += 1
    return nr


@inline_kernel
def should_evacuate(z, policy, pb, mt, same_type):
    """Whether a pageblock is one that this phase attempts."""
    if not (z.pb.bits[pb] >> MOVABLE) & 1:
        return False
    label = np.int64(z.pb.label[pb])
    if same_type:
        return label == mt
    if z.pb.mark[pb] == event_mark(z):
        return False
    return label == MOVABLE or policy[P.evacuate_any_label] != 0


@kernel
def evacuate_candidate(z, policy, i, mt, same_type):
    """Spend what is left of the i-th candidate's budget on pageblocks of one phase."""
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    first = z.scratch[i] * nr_pb
    for pb in range(first, first + nr_pb):
        if z.scratch[MAX_EVACUATE_SPBS + i] == 0:
            return
        if not should_evacuate(z, policy, pb, mt, same_type):
            continue
        z.scratch[MAX_EVACUATE_SPBS + i] -= 1
        z.pb.mark[pb] = event_mark(z)
        z.ev[Ev.NR_SAME_TYPE if same_type else Ev.NR_PAGEBLOCKS] += 1
        evacuate_pageblock(z, policy, pb)


@kernel
def evacuate_for_order(z, policy, order, mt):
    """Run one evacuation for requests of type mt; 1 if at least one block moved. The order is for records."""
    if not policy[P.evacuate]:
        return 0
    z.ev[Ev.CAUSE] = Cause.EVACUATION
    nr = find_candidates(z, policy)
    if policy[P.evacuate_same_type_first]:
        for i in range(nr):
            evacuate_candidate(z, policy, i, mt, True)
    for i in range(nr):
        evacuate_candidate(z, policy, i, mt, False)
    if policy[P.shrink_requests]:
        z.ev[Ev.REQUESTS] |= REQ_SHRINK_AFTER_EVACUATION
    z.ev[Ev.CAUSE] = 0
    did = 1 if z.ev[Ev.MOVED_BLOCKS] > 0 else 0
    trace_evacuated(z, order, mt, z.ev[Ev.NR_SAME_TYPE], z.ev[Ev.NR_PAGEBLOCKS], did)
    return did


# --- as work -----------------------------------------------------------------------------------


@kernel
def evacuate_accounted(w, policy, order, mt):
    """One evacuation with its cost in ns; where targets were missing, reclaim for them and once more.

    Model: the rounds of `migration_target_reclaim` follow the first attempt; the kernel's migration
    would reclaim inside each target's allocation.
    """
    z = w.zone
    begin_event(z, 0)
    evacuate_for_order(z, policy, order, mt)
    pages = z.ev[Ev.MOVED_PAGES]
    cost = account_moves(w)
    if z.ev[Ev.FAILED_MOVES] > 0 and policy[P.migration_target_reclaim] > 0:
        for _ in range(policy[P.migration_target_reclaim]):
            reclaim_direct(w, policy, np.int64(0))
        requests = z.ev[Ev.REQUESTS]
        begin_event(z, 0)
        evacuate_for_order(z, policy, order, mt)
        z.ev[Ev.REQUESTS] |= requests
        pages += z.ev[Ev.MOVED_PAGES]
        cost += account_moves(w)
    return pages, cost


@kernel
def run_evacuate(w, policy):
    """Serve the oldest queued evacuation; the next one starts when this one's time is over."""
    node = w.node
    head = node.now[Now.EVAC_HEAD]
    node.due[Wk.EVACUATE] = NEVER
    if head == node.now[Now.EVAC_TAIL]:
        return
    row = node.evac[head % node.evac.shape[0]]
    node.now[Now.EVAC_HEAD] = head + 1
    mt = row[Eq.MT]
    pages, cost = evacuate_accounted(w, policy, row[Eq.ORDER], mt)
    node.vm[V.SPB_EVAC_RAN] += 1
    node.vm[V.SPB_EVAC_PAGES] += pages
    if head + 1 < node.now[Now.EVAC_TAIL]:
        node.due[Wk.EVACUATE] = node.now[Now.NS] + max(cost, 1)
    defer_requests(w, policy, mt)
