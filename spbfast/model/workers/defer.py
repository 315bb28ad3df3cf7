"""The one place where recorded requests become queued work, and where queued work becomes due.

Owns gates (throttle, single flight, descriptor pool, cooldown), latencies and the trigger counters. The
allocator only sets bits in `Ev.REQUESTS`; `defer_requests` reads them after the event, at its time.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    LIST_TAINTED,
    MOVABLE,
    NR_BUCKETS,
    NS_PER_TICK,
    REQ_BOOST,
    REQ_DEFRAG_BEFORE_EMPTY,
    REQ_DEFRAG_HIGH_WATER,
    REQ_DEFRAG_LIST_CHANGE,
    REQ_EVACUATE_CLAIM,
    REQ_EVACUATE_CLAIMED,
    REQ_EVACUATE_FALLTHROUGH,
    REQ_SHRINK_FALLTHROUGH,
    Ev,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.pick import is_live
from spbfast.model.state.node import NEVER, Df, Eq, N, Now, Wk
from spbfast.model.state.vmstat import VM_ASKED, VM_QUEUED, V
from spbfast.model.workers.claimed import queue_claimed
from spbfast.model.workers.kswapd import boost_watermarks
from spbfast.model.workers.shrink import PENDING, QUEUED, THROTTLED, queue_shrink

EVACUATE_BITS = REQ_EVACUATE_FALLTHROUGH | REQ_EVACUATE_CLAIM
DEFRAG_BITS = REQ_DEFRAG_LIST_CHANGE | REQ_DEFRAG_HIGH_WATER | REQ_DEFRAG_BEFORE_EMPTY
NR_TRIGGERS = 4


@kernel
def has_evacuation_candidate(z):
    """Whether any tainted superpageblock holds movable content."""
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if is_live(z.index, lst, slot):
                if z.spb.content[np.int64(z.index.spb[lst, slot]), MOVABLE] > 0:
                    return True
    return False


@kernel
def queue_evacuate(w, policy, mt):
    """Ask for an evacuation: throttle, pre-check, descriptor pool, single flight (queue_spb_evacuate)."""
    z, node = w.zone, w.node
    tick = node.now[Now.NS] // NS_PER_TICK
    gate = -(-policy[P.evacuate_throttle_ns] // NS_PER_TICK)
    if node.now[Now.EVAC_STAMP] >= 0 and tick < node.now[Now.EVAC_STAMP] + gate:
        node.vm[V.SPB_EVAC_THROTTLED] += 1
        return
    if not has_evacuation_candidate(z):
        node.vm[V.SPB_EVAC_NO_CANDIDATE] += 1
        return
    node.now[Now.EVAC_STAMP] = tick
    head, tail = node.now[Now.EVAC_HEAD], node.now[Now.EVAC_TAIL]
    if tail - head >= node.evac.shape[0]:
        node.vm[V.SPB_EVAC_LOST] += 1
        return
    node.evac[tail % node.evac.shape[0], Eq.ORDER] = z.ev[Ev.EVACUATE_ORDER]
    node.evac[tail % node.evac.shape[0], Eq.MT] = mt
    node.now[Now.EVAC_TAIL] = tail + 1
    node.vm[V.SPB_EVAC_QUEUED] += 1
    if node.due[Wk.EVACUATE] == NEVER:
        node.due[Wk.EVACUATE] = node.now[Now.NS] + node.conf[N.IRQ_DELAY] + node.conf[N.WQ_DELAY]


@kernel
def queue_slab_shrink(w, policy, trigger):
    """Ask for a slab shrink by one trigger, if its switch is on (queue_spb_slab_shrink)."""
    node = w.node
    if not policy[P.trigger_below_reserve + trigger]:
        return
    node.vm[VM_ASKED + trigger] += 1
    result = queue_shrink(w.shrink, 0, node.now[Now.NS], policy[P.slab_shrink_throttle_ns])
    if result == QUEUED:
        node.vm[VM_QUEUED + trigger] += 1
        node.vm[V.SPB_SLAB_SHRINK_QUEUED] += 1
        # A running item can be queued once more; END then starts it.
        if node.due[Wk.SHRINK_END] == NEVER:
            node.due[Wk.SHRINK] = node.now[Now.NS] + node.conf[N.WQ_DELAY]
    elif result == PENDING:
        node.vm[V.SPB_SLAB_SHRINK_PENDING] += 1
    elif result == THROTTLED:
        node.vm[V.SPB_SLAB_SHRINK_THROTTLED] += 1


@kernel
def queue_defrags(w):
    """Queue the superpageblocks that the event marked, unless they are queued, running or cooling."""
    z, node = w.zone, w.node
    now = node.now[Now.NS]
    for spb in range(z.geo.nr_spb):
        if z.spb.defrag_mark[spb] != z.ev[Ev.SEQ] or node.defrag[spb, Df.DUE] != NEVER:
            continue
        if now < node.defrag[spb, Df.READY]:
            node.vm[V.SPB_DEFRAG_COOLING] += 1
            continue
        due = now + node.conf[N.IRQ_DELAY] + node.conf[N.WQ_DELAY]
        node.defrag[spb, Df.DUE] = due
        node.due[Wk.DEFRAG] = min(node.due[Wk.DEFRAG], due)
        node.vm[V.SPB_DEFRAG_QUEUED] += 1


@kernel
def execute_requests(w, policy, mt):
    """Turn the recorded bits of an event by a request of type mt into queued work; forget them."""
    z = w.zone
    bits = z.ev[Ev.REQUESTS]
    z.ev[Ev.REQUESTS] = 0
    if bits & REQ_BOOST:
        boost_watermarks(w)
    if bits & EVACUATE_BITS:
        queue_evacuate(w, policy, mt)
    for trigger in range(NR_TRIGGERS):
        if bits & (REQ_SHRINK_FALLTHROUGH << trigger):
            queue_slab_shrink(w, policy, trigger)
    if bits & REQ_EVACUATE_CLAIMED:
        queue_claimed(w)
    if bits & DEFRAG_BITS:
        queue_defrags(w)
        z.ev[Ev.NR_DEFRAG] = 0
        z.ev[Ev.SEQ] += 1


@inline_kernel
def defer_requests(w, policy, mt):
    """`execute_requests` if the event recorded any."""
    if w.zone.ev[Ev.REQUESTS]:
        execute_requests(w, policy, mt)
