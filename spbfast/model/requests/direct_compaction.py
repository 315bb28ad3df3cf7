"""Direct compaction on behalf of a request.

Owns what direct compaction means under a policy: the synchronous evacuation of tainted superpageblocks for
unmovable and reclaimable requests where the policy has it (v1 18), else one pageblock emptied by
workers/compact.py, or a run of the two scanners (workers/compact_zone.py). Whoever asks must say what
became of the attempt that follows (`count_attempt`). When it is deferred, workers/compact_deferral.py
knows.
"""

from __future__ import annotations

from spbfast.constants import MOVABLE, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.state.node import N, Now
from spbfast.model.state.vmstat import V
from spbfast.model.workers.compact import (
    compact_for_thp,
    compact_synchronously,
    take_allowance,
    wake_compaction,
)
from spbfast.model.workers.compact_deferral import (
    defer_compaction,
    is_deferred,
    raise_order_failed,
    reset_deferral,
)
from spbfast.model.workers.compact_zone import RUN_MET, RUN_SKIPPED, RUN_SUCCEEDED, compact_zone
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.evacuate import evacuate_accounted

SKIPPED, FAILED, SUCCEEDED = 0, 1, 2
# enum compact_priority; numbers fall as effort rises.
FULL, LIGHT, ASYNC = 0, 1, 2


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
def run_scanners_for(w, policy, order, mt, priority):
    """A run of the two scanners for a request: SKIPPED, FAILED or SUCCEEDED (try_to_compact_pages).

    Model: a run takes a request no time, so all of them share `compact_rate` pageblocks a second that pages
    leave.
    """
    node = w.node
    if not take_allowance(node):
        return SKIPPED
    result, sources, _ = compact_zone(w, policy, order, mt, priority != ASYNC, True, priority == FULL)
    if result == RUN_SKIPPED:
        return SKIPPED
    node.now[Now.COMPACT_READY] += node.conf[N.COMPACT_INTERVAL] * max(sources, 1)
    node.vm[V.COMPACT_STALL] += 1
    if result == RUN_SUCCEEDED:
        raise_order_failed(node, order)
        return SUCCEEDED
    if result == RUN_MET and priority != ASYNC:
        defer_compaction(node, order)
    return FAILED


@inline_kernel
def is_worth_an_attempt(node, result):
    """Whether an attempt follows a compaction: after one that moved something, or with scanners any run."""
    return result == SUCCEEDED or (result == FAILED and node.conf[N.COMPACT_SCANNERS] != 0)


@kernel
def count_attempt(node, order, mt, policy, pfn):
    """The attempt after a compaction gave `pfn` or -1: reset deferral, count a success or a failure."""
    if pfn >= 0:
        reset_deferral(node, order)
    if node.conf[N.COMPACT_SCANNERS] and not (mt != MOVABLE and policy[P.evacuate]):
        node.vm[V.COMPACT_SUCCESS if pfn >= 0 else V.COMPACT_FAIL] += 1


@kernel
def compact_now(w, policy, order, mt, priority):
    """One direct compaction for a request of type mt: SKIPPED, FAILED or SUCCEEDED."""
    if mt != MOVABLE and policy[P.evacuate]:
        return SUCCEEDED if evacuate_now(w, policy, order, mt) > 0 else FAILED
    if w.node.conf[N.COMPACT_SCANNERS]:
        wake_compaction(w.node, order)
        return run_scanners_for(w, policy, order, mt, priority)
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
    is_scanned = w.node.conf[N.COMPACT_SCANNERS] and not (mt != MOVABLE and policy[P.evacuate])
    if result == FAILED and priority != ASYNC and not is_scanned:
        defer_compaction(w.node, order)
    return result
