"""Direct compaction on behalf of a request, and its deferral after failures.

Owns what direct compaction means under a policy: the synchronous evacuation of tainted superpageblocks for
unmovable and reclaimable requests where the policy has it (v1 18), else one pageblock emptied by
workers/compact.py. Deferral is the kernel's (defer_compaction): each failure doubles the number of
requests that pass before the next try, up to 64.
"""

from __future__ import annotations

from spbfast.constants import MOVABLE, P
from spbfast.jit.decorators import kernel
from spbfast.model.state.node import Now
from spbfast.model.state.vmstat import V
from spbfast.model.workers.compact import compact_for_thp, compact_synchronously
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.evacuate import evacuate_accounted

SKIPPED, FAILED, SUCCEEDED = 0, 1, 2
# enum compact_priority; numbers fall as effort rises.
FULL, LIGHT, ASYNC = 0, 1, 2
MAX_DEFER_SHIFT = 6  # COMPACT_MAX_DEFER_SHIFT


@kernel
def evacuate_now(w, policy, order, mt):
    """A synchronous evacuation on behalf of a request; pages moved."""
    node = w.node
    pages, _ = evacuate_accounted(w, policy, order, mt)
    node.vm[V.SPB_EVAC_DIRECT] += 1
    node.vm[V.COMPACT_STALL] += 1
    node.vm[V.COMPACT_SUCCESS if pages > 0 else V.COMPACT_FAIL] += 1
    defer_requests(w, policy, mt)
    return pages


@kernel
def is_deferred(node, order):
    """Whether compaction failed lately for this order or a lower one; counts the request."""
    now = node.now
    if order < now[Now.COMPACT_ORDER_FAILED]:
        return False
    limit = 1 << now[Now.COMPACT_DEFER_SHIFT]
    now[Now.COMPACT_CONSIDERED] = min(now[Now.COMPACT_CONSIDERED] + 1, limit)
    return now[Now.COMPACT_CONSIDERED] < limit


@kernel
def defer_compaction(node, order):
    """Compaction failed: let twice as many requests pass before the next try."""
    now = node.now
    now[Now.COMPACT_CONSIDERED] = 0
    now[Now.COMPACT_DEFER_SHIFT] = min(now[Now.COMPACT_DEFER_SHIFT] + 1, MAX_DEFER_SHIFT)
    now[Now.COMPACT_ORDER_FAILED] = min(now[Now.COMPACT_ORDER_FAILED], order)


@kernel
def reset_deferral(node, order):
    """Compaction served a request: it works again for this order (compaction_defer_reset)."""
    now = node.now
    now[Now.COMPACT_CONSIDERED] = 0
    now[Now.COMPACT_DEFER_SHIFT] = 0
    now[Now.COMPACT_ORDER_FAILED] = max(now[Now.COMPACT_ORDER_FAILED], order + 1)


@kernel
def compact_now(w, policy, order, mt, priority):
    """One direct compaction for a request of type mt: SKIPPED, FAILED or SUCCEEDED."""
    if mt != MOVABLE and policy[P.evacuate]:
        return SUCCEEDED if evacuate_now(w, policy, order, mt) > 0 else FAILED
    stalls = w.node.vm[V.COMPACT_STALL]
    if compact_for_thp(w, policy) if priority == ASYNC else compact_synchronously(w, policy):
        return SUCCEEDED
    # Without a stall its rate did not allow a try.
    return SKIPPED if w.node.vm[V.COMPACT_STALL] == stalls else FAILED


@kernel
def compact_direct(w, policy, order, mt, priority):
    """Direct compaction unless it is deferred: SKIPPED, FAILED or SUCCEEDED (something moved)."""
    if order == 0:
        return SKIPPED
    if priority > FULL and is_deferred(w.node, order):
        w.node.vm[V.COMPACT_DEFERRED] += 1
        return SKIPPED
    result = compact_now(w, policy, order, mt, priority)
    if result == FAILED and priority != ASYNC:
        defer_compaction(w.node, order)
    return result
