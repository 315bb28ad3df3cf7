"""Request classes and the failure path: from what a caller may do to a page or a counted failure.

Owns alloc flags by class, watermark checks, the slow path's order of steps for blocking and non-blocking
callers, and the counters of how requests ended (machine.md section 1). Every path ends: rounds are bounded
and each failure is counted. Only loop/execute.py calls it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spbfast._jit import by_reference, inline_kernel, kernel
from spbfast.allocator.buddy import take_first
from spbfast.allocator.pcp import is_pcp_order, pcp_alloc
from spbfast.allocator.pick import FRAGMENTS, find_fit, find_own_order, mask_of
from spbfast.allocator.record import trace_relax
from spbfast.allocator.request import begin_event, rmqueue_in_mode
from spbfast.allocator.settle import settle
from spbfast.allocator.spb import add_used
from spbfast.constants import (
    ALLOC_HIGHORDER_OPTIONAL,
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_NOFRAGMENT,
    CLS_BLOCKING,
    CLS_HIGH,
    CLS_NOFAIL,
    CLS_NOMEMALLOC,
    CLS_NORETRY,
    CLS_RETRY_MAYFAIL,
    LIST_TAINTED,
    MODE_NORMAL,
    MOVABLE,
    NR_BUCKETS,
    PB_ORDER,
    C,
    Ev,
    Outcome,
    P,
)
from spbfast.holders.slab_layout import Slab
from spbfast.holders.standins import Standins
from spbfast.state.layout import Zone
from spbfast.state.node import VM_OUTCOME, VM_TAINT, N, Node, Now, V
from spbfast.state.trace import Relax
from spbfast.workers.compact import compact_for_thp, wake_compaction
from spbfast.workers.defer import defer_requests
from spbfast.workers.due import evacuate_accounted
from spbfast.workers.kswapd import reclaim_direct, wake_kswapd
from spbfast.workers.shrink import Shrink

NORETRY_SKIP = int(Relax.NORETRY_SKIP)
ADD_TAINTED_OK = int(Relax.ADD_TAINTED_OK)
DROP_NOFRAGMENT = int(Relax.DROP_NOFRAGMENT)
REFUSED = int(Outcome.REFUSED_OPTIONAL)
COSTLY_ORDER = 3


@by_reference
class World(NamedTuple):
    """Everything that a simulated machine is: what kernels above the allocator are handed as one."""

    zone: Zone
    node: Node
    slab: Slab
    standins: Standins
    shrink: Shrink


@inline_kernel
def is_optional(policy, node, cls):
    """Whether a caller has a cheap fallback, so that it may be refused (ALLOC_HIGHORDER_OPTIONAL)."""
    if not policy[P.optional_refusal] or not node.now[Now.BOOT_DONE]:
        return False
    if cls & CLS_NORETRY and not cls & CLS_RETRY_MAYFAIL:
        return True
    return not cls & (CLS_BLOCKING | CLS_NOMEMALLOC | CLS_NOFAIL)


@inline_kernel
def flags_of(policy, node, cls):
    """Alloc flags of a request's fast path."""
    flags = ALLOC_NOFRAGMENT
    if cls & CLS_BLOCKING or not node.now[Now.BOOT_DONE]:
        flags |= ALLOC_NOFRAG_TAINTED_OK
    if is_optional(policy, node, cls):
        flags |= ALLOC_HIGHORDER_OPTIONAL
    return flags


@inline_kernel
def count_outcome(w, cls):
    """Count how the zone's lists answered, and who tainted what."""
    z, node = w.zone, w.node
    outcome = z.ev[Ev.OUTCOME]
    node.vm[VM_OUTCOME + outcome] += 1
    if outcome == REFUSED:
        node.vm[V.SPB_HIGHORDER_REFUSED] += 1
    if z.ev[Ev.NR_TAINTS]:
        taints = z.ev[Ev.NR_TAINTS]
        z.ev[Ev.NR_TAINTS] = 0
        node.vm[VM_TAINT + z.ev[Ev.TAINT_OUTCOME]] += taints
        if cls & CLS_BLOCKING:
            node.vm[V.TAINTS_BY_BLOCKING] += taints
        elif cls & CLS_NORETRY:
            node.vm[V.TAINTS_BY_OPTIONAL] += taints
        else:
            node.vm[V.TAINTS_BY_ATOMIC] += taints


@kernel
def take_from_lists(w, policy, order, mt, flags, cls):
    """One request straight to the zone's lists, with what it triggers, or -1."""
    z = w.zone
    begin_event(z, 0)
    pfn = rmqueue_in_mode(z, policy, order, mt, flags, MODE_NORMAL)
    count_outcome(w, cls)
    defer_requests(z, policy, w.node, w.shrink, mt)
    return pfn


@kernel
def take_from_pcp_lists(w, policy, order, mt, flags, cls, cpu):
    """One request of a per-CPU order, with what a refill triggers, or -1."""
    z = w.zone
    z.ev[Ev.OUTCOME] = 0
    z.ev[Ev.NR_TAINTS] = 0
    pfn = pcp_alloc(z, policy, cpu, order, mt, flags)
    # A hit asked the zone's lists nothing; a refill may taint and still end on a failure.
    if z.ev[Ev.OUTCOME] or z.ev[Ev.NR_TAINTS]:
        count_outcome(w, cls)
    defer_requests(z, policy, w.node, w.shrink, mt)
    return pfn


@inline_kernel
def take_page(w, policy, order, mt, flags, cls, cpu):
    """One attempt at a request, through the per-CPU lists where they serve its order, or -1."""
    if w.zone.geo.nr_cpus > 0 and is_pcp_order(order):
        return take_from_pcp_lists(w, policy, order, mt, flags, cls, cpu)
    return take_from_lists(w, policy, order, mt, flags, cls)


@inline_kernel
def is_above(w, order, mark):
    """Whether free pages stay above a watermark with the request served."""
    return w.zone.count[C.FREE_PAGES] - (1 << order) >= mark


@inline_kernel
def rate_min_mark(node, cls):
    """Watermark of the slow path: a caller's access to reserves lowers min."""
    mark = node.conf[N.WMARK_MIN]
    if cls & CLS_HIGH:
        mark -= mark // 2
    if not cls & (CLS_BLOCKING | CLS_NOMEMALLOC):
        mark -= mark // 4
    return mark


@inline_kernel
def try_page(w, policy, order, mt, flags, cls, cpu):
    """An attempt in the slow path, above the caller's min watermark, or -1."""
    if not is_above(w, order, rate_min_mark(w.node, cls)):
        return np.int64(-1)
    return take_page(w, policy, order, mt, flags, cls, cpu)


@kernel
def request_atomic(w, policy, order, mt, flags, cls, cpu):
    """Slow path of a caller that cannot block: relax step by step, or a counted failure."""
    node = w.node
    if cls & CLS_NORETRY and policy[P.atomic_noretry_fails]:
        trace_relax(w.zone, order, mt, cls, NORETRY_SKIP)
        node.vm[V.ALLOC_FAILED_OPTIONAL] += 1
        return np.int64(-1)
    pfn = np.int64(-1)
    if policy[P.superpageblocks]:
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
        if pfn < 0:
            trace_relax(w.zone, order, mt, cls, ADD_TAINTED_OK)
            pfn = try_page(w, policy, order, mt, flags | ALLOC_NOFRAG_TAINTED_OK, cls, cpu)
    if pfn < 0:
        node.vm[V.DROPPED_NOFRAGMENT] += 1
        trace_relax(w.zone, order, mt, cls, DROP_NOFRAGMENT)
        pfn = try_page(w, policy, order, mt, flags & ~ALLOC_NOFRAGMENT, cls, cpu)
    if pfn < 0:
        node.vm[V.ALLOC_FAILED_OPTIONAL if cls & CLS_NORETRY else V.ALLOC_FAILED_ATOMIC] += 1
    return pfn


@kernel
def evacuate_now(w, policy, mt):
    """A synchronous evacuation on behalf of a request."""
    z, node = w.zone, w.node
    pages, _ = evacuate_accounted(z, policy, node, w.slab, mt)
    node.vm[V.SPB_EVAC_DIRECT] += 1
    node.vm[V.COMPACT_STALL] += 1
    node.vm[V.COMPACT_SUCCESS if pages > 0 else V.COMPACT_FAIL] += 1
    defer_requests(z, policy, node, w.shrink, mt)


@kernel
def take_below_reserve(w, policy, order):
    """With a soft reserve: a movable fragment of any tainted superpageblock, or -1."""
    z = w.zone
    begin_event(z, 0)
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        slot = find_fit(z.index, lst, MOVABLE, order, 0)
        while slot >= 0:
            spb = np.int64(z.index.spb[lst, slot])
            high = find_own_order(mask_of(z, spb, MOVABLE), order, FRAGMENTS, True)
            if high >= 0:
                pfn = take_first(z, spb, high, order, MOVABLE)
                add_used(z, pfn, order, MOVABLE)
                settle(z, policy, pfn)
                return pfn
            slot = find_fit(z.index, lst, MOVABLE, order, slot + 1)
    return np.int64(-1)


@kernel
def reclaim_and_retry(w, policy, order, mt, flags, cls, cpu):
    """Direct reclaim in rounds, with an attempt after each, until served, out of rounds or no progress."""
    node = w.node
    node.vm[V.ALLOCSTALL_NORMAL] += 1
    for _ in range(node.conf[N.ROUNDS_MAX]):
        freed = reclaim_direct(w.zone, policy, node, w.slab)
        defer_requests(w.zone, policy, node, w.shrink, MOVABLE)
        if freed == 0:
            break
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
        if pfn >= 0:
            return pfn
    return np.int64(-1)


@kernel
def request_blocking(w, policy, order, mt, flags, cls, cpu):
    """Slow path of a caller that can block, in the kernel's order of steps, or a counted failure."""
    node = w.node
    relaxed = flags & ~ALLOC_NOFRAGMENT
    spb = policy[P.superpageblocks] != 0
    pfn = try_page(w, policy, order, mt, flags if spb else relaxed, cls, cpu)
    if pfn < 0 and policy[P.movable_reserve_soft] and mt == MOVABLE and order < PB_ORDER:
        pfn = take_below_reserve(w, policy, order)
    evacuates = mt != MOVABLE and policy[P.evacuate] != 0
    if pfn < 0 and evacuates and order > 0:
        evacuate_now(w, policy, mt)
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        pfn = reclaim_and_retry(w, policy, order, mt, flags if spb else relaxed, cls, cpu)
    if pfn < 0 and evacuates:
        evacuate_now(w, policy, mt)
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        node.vm[V.DROPPED_NOFRAGMENT] += 1
        pfn = try_page(w, policy, order, mt, relaxed, cls, cpu)
    if pfn < 0:
        node.vm[V.ALLOC_FAILED_BLOCKING] += 1
        if order <= COSTLY_ORDER:
            node.vm[V.OOM_KILL] += 1
    return pfn


@kernel
def request_slow(w, policy, order, mt, flags, cls, cpu):
    """What a request does when its first attempt failed."""
    wake_kswapd(w.zone, w.node)
    wake_compaction(w.node, order)
    if cls & CLS_BLOCKING:
        return request_blocking(w, policy, order, mt, flags, cls, cpu)
    return request_atomic(w, policy, order, mt, flags, cls, cpu)


@inline_kernel
def request(w, policy, order, mt, cls, cpu):
    """A block of 2**order pages for a caller of class `cls` on a CPU, or -1 (__alloc_pages)."""
    flags = flags_of(policy, w.node, cls)
    pfn = np.int64(-1)
    if is_above(w, order, w.node.conf[N.WMARK_LOW]):
        pfn = take_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        pfn = request_slow(w, policy, order, mt, flags, cls, cpu)
    if pfn >= 0:
        w.node.vm[V.PGALLOC_NORMAL] += 1 << order
        w.node.vm[V.PAGE_EVENTS] += 1
    return pfn


@kernel
def request_thp(w, policy, cls, cpu):
    """A THP fault: order 9 without reclaim, then a little compaction and once more, or -1."""
    node = w.node
    flags = flags_of(policy, node, CLS_BLOCKING)
    for attempt in range(2):
        pfn = np.int64(-1)
        if is_above(w, PB_ORDER, node.conf[N.WMARK_LOW]):
            pfn = take_page(w, policy, PB_ORDER, MOVABLE, flags, cls, cpu)
        if pfn >= 0:
            node.vm[V.THP_FAULT_ALLOC] += 1
            node.vm[V.PGALLOC_NORMAL] += 1 << PB_ORDER
            node.vm[V.PAGE_EVENTS] += 1
            return pfn
        if attempt == 0 and not compact_for_thp(w.zone, policy, node, w.shrink):
            break
    wake_kswapd(w.zone, node)
    node.vm[V.THP_FAULT_FALLBACK] += 1
    return np.int64(-1)
