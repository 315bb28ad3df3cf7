"""The slow path of callers that cannot block: relax step by step, or a counted failure.

Owns the relax steps under the names of the tracepoint spb_alloc_atomic_relax, and who fails rather than
taints (v1 19, v1 33, v2 35). Mainline has no such steps: its one attempt carries no NOFRAGMENT.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_NOFRAGMENT,
    CLS_NOFAIL,
    CLS_NORETRY,
    CLS_NOWARN,
    COSTLY_ORDER,
    LIST_TAINTED,
    MOVABLE,
    NR_BUCKETS,
    NR_REQUEST_MT,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.pick import is_live, order_mask
from spbfast.model.allocator.record import trace_relax
from spbfast.model.requests.attempt import add_reserves, try_page
from spbfast.model.state.trace import Relax
from spbfast.model.state.vmstat import V


@kernel
def has_lower_order(z, order):
    """Whether a tainted superpageblock holds movable pages or a free block of a lower order."""
    below = (1 << order) - 1
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        for slot in range(z.index.tail[lst]):
            if not is_live(z.index, lst, slot):
                continue
            spb = np.int64(z.index.spb[lst, slot])
            if z.spb.content[spb, MOVABLE] > 0:
                return True
            for mt in range(NR_REQUEST_MT):
                if order_mask(z, spb, mt) & below:
                    return True
    return False


@inline_kernel
def is_best_effort(z, policy, order, cls):
    """Whether a request must fail rather than taint: it has a lower order to fall back to (v2 35)."""
    if not policy[P.nowarn_lower_order_fails] or order == 0:
        return False
    return cls & CLS_NOWARN and not cls & CLS_NOFAIL and has_lower_order(z, order)


@kernel
def relax_page(w, policy, order, mt, flags, cls, cpu):
    """The relax steps after a first attempt that avoided fragmentation, or -1.

    Model: NOWARN_LOWER_ORDER comes just before the step that would taint; the text says no more than that.
    """
    node = w.node
    if cls & CLS_NORETRY and policy[P.atomic_noretry_fails]:
        node.vm[V.SPB_ALLOC_ATOMIC_RELAX_NORETRY_SKIP] += 1
        trace_relax(w.zone, order, mt, cls, Relax.NORETRY_SKIP)
        return np.int64(-1)
    node.vm[V.SPB_ALLOC_ATOMIC_RELAX_ADD_TAINTED_OK] += 1
    trace_relax(w.zone, order, mt, cls, Relax.ADD_TAINTED_OK)
    pfn = try_page(w, policy, order, mt, flags | ALLOC_NOFRAG_TAINTED_OK, cls, cpu)
    if pfn >= 0:
        return pfn
    if is_best_effort(w.zone, policy, order, cls):
        node.vm[V.SPB_ALLOC_ATOMIC_RELAX_NOWARN_LOWER_ORDER] += 1
        trace_relax(w.zone, order, mt, cls, Relax.NOWARN_LOWER_ORDER)
        return np.int64(-1)
    node.vm[V.SPB_ALLOC_ATOMIC_RELAX_DROP_NOFRAGMENT] += 1
    trace_relax(w.zone, order, mt, cls, Relax.DROP_NOFRAGMENT)
    node.vm[V.DROPPED_NOFRAGMENT] += 1
    return try_page(w, policy, order, mt, flags & ~ALLOC_NOFRAGMENT, cls, cpu)


@kernel
def count_failure(node, order, cls):
    """Count a request that could not wait and got nothing: by class, and by class of order."""
    node.vm[V.ALLOC_FAILED_OPTIONAL if cls & CLS_NORETRY else V.ALLOC_FAILED_ATOMIC] += 1
    if order == 0:
        node.vm[V.ALLOC_FAILED_NONBLOCK_ORDER0] += 1
    elif order <= COSTLY_ORDER:
        node.vm[V.ALLOC_FAILED_NONBLOCK_ORDER1_3] += 1
    else:
        node.vm[V.ALLOC_FAILED_NONBLOCK_COSTLY] += 1


@kernel
def request_atomic(w, policy, order, mt, flags, cls, cpu):
    """Slow path of a caller that cannot block: the reserves its class may use, then the relax steps."""
    flags = add_reserves(policy, flags, order, cls)
    if not policy[P.superpageblocks]:
        flags &= ~ALLOC_NOFRAGMENT
    pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0 and policy[P.superpageblocks]:
        pfn = relax_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        count_failure(w.node, order, cls)
    return pfn
