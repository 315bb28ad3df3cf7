"""Moving what is left movable out of claimed pageblocks: the queue and one request's work.

The first evacuation of the series: each pageblock that was claimed for unmovable or reclaimable use while
movable pages were left in it is queued by itself; a full queue loses the request. The allocator names the
pageblocks in `z.scratch` (allocator/claim.py); defer.py hands them over, due.py says when they run.
"""

from __future__ import annotations

from spbfast.constants import CLAIMED_AT, CLAIMED_MOST, Ev
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.migrate import evacuate_pageblock
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.trace import Cause
from spbfast.model.state.vmstat import V
from spbfast.model.workers.cost import account_moves


@kernel
def queue_claimed(w):
    """Queue the pageblocks that the event claimed; those beyond the room for them are lost."""
    z, node = w.zone, w.node
    nr = z.ev[Ev.NR_CLAIMED]
    z.ev[Ev.NR_CLAIMED] = 0
    for i in range(nr):
        tail = node.now[Now.CLAIMED_TAIL]
        if i >= CLAIMED_MOST or tail - node.now[Now.CLAIMED_HEAD] >= node.claimed.shape[0]:
            node.vm[V.CLAIM_EVAC_LOST] += 1
            continue
        node.claimed[tail % node.claimed.shape[0]] = z.scratch[CLAIMED_AT + i]
        node.now[Now.CLAIMED_TAIL] = tail + 1
        node.vm[V.CLAIM_EVAC_QUEUED] += 1
    if node.due[Wk.CLAIMED] == NEVER and node.now[Now.CLAIMED_HEAD] < node.now[Now.CLAIMED_TAIL]:
        node.due[Wk.CLAIMED] = node.now[Now.NS] + node.conf[N.IRQ_DELAY] + node.conf[N.WQ_DELAY]


@kernel
def run_claimed(w, policy):
    """Evacuate the oldest queued pageblock; the next one starts when this one's time is over."""
    z, node = w.zone, w.node
    head = node.now[Now.CLAIMED_HEAD]
    node.due[Wk.CLAIMED] = NEVER
    if head == node.now[Now.CLAIMED_TAIL]:
        return
    node.now[Now.CLAIMED_HEAD] = head + 1
    begin_event(z, 0)
    z.ev[Ev.CAUSE] = Cause.EVACUATION
    evacuate_pageblock(z, policy, node.claimed[head % node.claimed.shape[0]])
    z.ev[Ev.CAUSE] = 0
    node.vm[V.CLAIM_EVAC_RAN] += 1
    node.vm[V.CLAIM_EVAC_PAGES] += z.ev[Ev.MOVED_PAGES]
    cost = account_moves(w)
    if head + 1 < node.now[Now.CLAIMED_TAIL]:
        node.due[Wk.CLAIMED] = node.now[Now.NS] + max(cost, 1)
