"""A request from beginning to end: the fast path, then the slow path of its class.

Owns the low watermark of the fast path, what the slow path's entry does for all classes, and huge faults.
Only loop/execute.py calls it. One attempt: attempt.py; callers that cannot block: atomic.py; those that can:
slowpath.py. Every path ends, and each failure is counted.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import ALLOC_NOFRAGMENT, CLS_BLOCKING, CLS_KSWAPD, MOVABLE, PB_ORDER, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.record import trace_alloc
from spbfast.model.requests.attempt import fast_path_flags, is_above, note_below_high, take_page
from spbfast.model.requests.direct_compaction import (
    ASYNC,
    compact_direct,
    count_attempt,
    is_worth_an_attempt,
)
from spbfast.model.requests.nonblocking import request_atomic
from spbfast.model.requests.slowpath import request_blocking
from spbfast.model.state.node import N
from spbfast.model.state.trace import Th
from spbfast.model.state.vmstat import V
from spbfast.model.workers.compact import compact_for_thp, wake_compaction
from spbfast.model.workers.kswapd import wake_kswapd


@kernel
def request_slow(w, policy, order, mt, flags, cls, cpu):
    """What a request does when its first attempt failed."""
    vm = w.node.vm
    if not policy[P.superpageblocks] and is_above(w, policy, order, mt, w.node.conf[N.WMARK_LOW]):
        # Mainline drops NOFRAGMENT before it enters the slow path (get_page_from_freelist).
        vm[V.DROPPED_NOFRAGMENT] += 1
        pfn = take_page(w, policy, order, mt, flags & ~ALLOC_NOFRAGMENT, cls, cpu)
        if pfn >= 0:
            return pfn
    is_huge_fault = order == PB_ORDER and mt == MOVABLE
    if cls & CLS_KSWAPD and (w.node.conf[N.HUGE_WAKES] or not is_huge_fault):
        wake_kswapd(w, policy)
        wake_compaction(w.node, order)
    if cls & CLS_BLOCKING:
        vm[V.ALLOCSLOW_BLOCKING] += 1
        pfn = request_blocking(w, policy, order, mt, flags, cls, cpu)
        vm[V.ALLOCSLOW_SERVED_BLOCKING] += 1 if pfn >= 0 else 0
    else:
        vm[V.ALLOCSLOW_ATOMIC] += 1
        pfn = request_atomic(w, policy, order, mt, flags, cls, cpu)
        vm[V.ALLOCSLOW_SERVED_ATOMIC] += 1 if pfn >= 0 else 0
    return pfn


@inline_kernel
def request(w, policy, order, mt, cls, cpu):
    """A block of 2**order pages for a caller of class `cls` on a CPU, or -1 (__alloc_pages)."""
    flags = fast_path_flags(policy, w.node, cls)
    pfn = np.int64(-1)
    note_below_high(w, policy, order, mt)
    if is_above(w, policy, order, mt, w.node.conf[N.WMARK_LOW]):
        pfn = take_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        pfn = request_slow(w, policy, order, mt, flags, cls, cpu)
    if pfn >= 0:
        w.node.vm[V.PGALLOC_NORMAL] += 1 << order
        w.node.vm[V.PAGE_EVENTS] += 1
        if w.zone.trace.head[Th.ON]:
            trace_alloc(w.zone, pfn, order, mt, cpu)
    return pfn


@kernel
def compact_for_fault(w, policy):
    """Compaction for a huge fault, asynchronously; whether an attempt follows."""
    if not w.node.conf[N.COMPACT_SCANNERS]:
        return compact_for_thp(w, policy) != 0
    result = compact_direct(w, policy, np.int64(PB_ORDER), np.int64(MOVABLE), ASYNC)
    return is_worth_an_attempt(w.node, result)


@kernel
def request_thp(w, policy, cls, cpu):
    """A THP fault: order 9 without reclaim, then a little compaction and once more, or -1."""
    node = w.node
    flags = fast_path_flags(policy, node, CLS_BLOCKING)
    mark = N.WMARK_LOW
    note_below_high(w, policy, PB_ORDER, np.int64(MOVABLE))
    for attempt in range(2):
        pfn = np.int64(-1)
        if is_above(w, policy, PB_ORDER, np.int64(MOVABLE), node.conf[mark]):
            pfn = take_page(w, policy, PB_ORDER, MOVABLE, flags, cls, cpu)
        if attempt > 0 and node.conf[N.COMPACT_SCANNERS]:
            count_attempt(node, np.int64(PB_ORDER), np.int64(MOVABLE), policy, pfn)
        if pfn >= 0:
            node.vm[V.THP_FAULT_ALLOC] += 1
            node.vm[V.PGALLOC_NORMAL] += 1 << PB_ORDER
            node.vm[V.PAGE_EVENTS] += 1
            trace_alloc(w.zone, pfn, PB_ORDER, MOVABLE, cpu)
            return pfn
        if attempt == 0 and not compact_for_fault(w, policy):
            break
        # A run of the scanners belongs to the slow path.
        mark = N.WMARK_MIN if node.conf[N.COMPACT_SCANNERS] else N.WMARK_LOW
    if node.conf[N.HUGE_WAKES]:
        wake_kswapd(w, policy)
    node.vm[V.THP_FAULT_FALLBACK] += 1
    return np.int64(-1)
