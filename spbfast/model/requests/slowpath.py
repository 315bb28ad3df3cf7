"""The slow path of callers that can block, in the kernel's order of steps (__alloc_pages_slowpath).

Compaction first for costly orders and for what is not movable; rounds of reclaim, each with an attempt,
a drain of the per-CPU lists and one more; compaction again; the exits of no-retry and costly callers;
retries as should_reclaim_retry and should_compact_retry allow them; the HIGHATOMIC reserve; NOFRAGMENT
dropped last; out of memory, which is an event and kills nobody. Every path ends: the user bounds the rounds
of reclaim, and a loop that changed nothing is not repeated.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_NOFRAGMENT,
    CLS_HIGH,
    CLS_NOFAIL,
    CLS_NORETRY,
    CLS_RETRY_MAYFAIL,
    COSTLY_ORDER,
    LIST_TAINTED,
    MOVABLE,
    NR_BUCKETS,
    NR_MT,
    NR_REQUEST_MT,
    PB_ORDER,
    C,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import take_first
from spbfast.model.allocator.highatomic import unreserve_highatomic
from spbfast.model.allocator.pcp import drain_all
from spbfast.model.allocator.pick import FRAGMENTS, find_fit, find_own_order, order_mask
from spbfast.model.allocator.record import trace_locked
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used
from spbfast.model.requests.attempt import is_above_min, try_page
from spbfast.model.requests.direct_compaction import (
    ASYNC,
    FULL,
    LIGHT,
    SKIPPED,
    SUCCEEDED,
    compact_direct,
    count_attempt,
    evacuate_now,
    is_worth_an_attempt,
)
from spbfast.model.state.node import Ca, N
from spbfast.model.state.vmstat import V
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.kswapd import reclaim_direct

MAX_RECLAIM_RETRIES = 16
MAX_COMPACT_RETRIES = 16


@kernel
def take_below_reserve(w, policy, order):
    """With a soft reserve: a movable fragment of any tainted superpageblock, or -1."""
    z = w.zone
    begin_event(z, 0)
    for lst in range(LIST_TAINTED, LIST_TAINTED + NR_BUCKETS):
        slot = find_fit(z.index, lst, MOVABLE, order, 0)
        while slot >= 0:
            spb = np.int64(z.index.spb[lst, slot])
            high = find_own_order(order_mask(z, spb, MOVABLE), order, FRAGMENTS, True)
            if high >= 0:
                pfn = take_first(z, spb, high, order, MOVABLE)
                add_used(z, pfn, order, MOVABLE)
                settle(z, policy, pfn)
                trace_locked(z, pfn, order, MOVABLE)
                return pfn
            slot = find_fit(z.index, lst, MOVABLE, order, slot + 1)
    return np.int64(-1)


@kernel
def drain_cpus(w, policy):
    """Return all pages of the per-CPU lists to the free lists (drain_all_pages); their number."""
    z = w.zone
    pages = z.count[C.PCP_PAGES]
    if pages == 0:
        return pages
    begin_event(z, 0)
    for cpu in range(z.geo.nr_cpus):
        drain_all(z, policy, cpu)
    w.node.vm[V.PCP_DRAINED_ALL] += 1
    defer_requests(w, policy, MOVABLE)
    return pages


@kernel
def unreserve(w, policy, mt, force):
    """Give back a pageblock of the HIGHATOMIC reserve; its pages, or 0."""
    if not policy[P.highatomic_reserve]:
        return 0
    begin_event(w.zone, 0)
    pages = unreserve_highatomic(w.zone, policy, mt, force)
    if pages > 0:
        w.node.vm[V.HIGHATOMIC_UNRESERVED] += pages
    defer_requests(w, policy, mt)
    return pages


@kernel
def try_after_reclaim(w, policy, order, mt, flags, cls, cpu):
    """An attempt after a round that freed pages; if it fails, set free what is kept aside and once more."""
    pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn >= 0:
        return pfn
    released = unreserve(w, policy, mt, False)
    if released + drain_cpus(w, policy) == 0:
        return pfn
    return try_page(w, policy, order, mt, flags, cls, cpu)


@kernel
def try_after_compaction(w, policy, order, mt, flags, cls, cpu):
    """An attempt after a compaction."""
    pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    count_attempt(w.node, order, mt, policy, pfn)
    return pfn


@kernel
def has_free_block(z, order):
    """Whether any list of a type that can be asked for holds a block of at least `order`."""
    for set_ in range(z.area.mask.shape[0] // NR_MT):
        for mt in range(NR_REQUEST_MT):
            if order_mask(z, set_, mt) >> order:
                return True
    return False


@inline_kernel
def is_last_loop(order, cls):
    """Whether a caller wants no second loop: no-retry, or costly without asking to be retried."""
    return cls & CLS_NORETRY or (order > COSTLY_ORDER and not cls & CLS_RETRY_MAYFAIL)


@kernel
def should_reclaim_again(w, policy, order, mt, cls):
    """Whether the watermark would be met if all page cache were reclaimed (should_reclaim_retry)."""
    cache = w.node.cache
    if not is_above_min(w, policy, order, mt, cls, cache[Ca.COLD_PAGES] + cache[Ca.HOT_PAGES]):
        return False
    return order == 0 or has_free_block(w.zone, order)


@inline_kernel
def should_compact_again(order, result, retries, priority):
    """Whether another loop may help because of compaction (should_compact_retry)."""
    if order == 0 or result == SKIPPED:
        return False
    costly = order > COSTLY_ORDER
    if result == SUCCEEDED and retries < (MAX_COMPACT_RETRIES // 4 if costly else MAX_COMPACT_RETRIES):
        return True
    return priority > (LIGHT if costly else FULL)


@kernel
def reclaim_round(w, policy, order):
    """One round of direct reclaim for a request of 2**order pages; pages freed."""
    freed = reclaim_direct(w, policy, order)
    defer_requests(w, policy, MOVABLE)
    return freed


@kernel
def reclaim_and_compact(w, policy, order, mt, flags, cls, cpu, priority):
    """Loops of reclaim and compaction until served or until no further loop could help, or -1.

    Model: nothing else runs meanwhile, so a loop that neither freed nor moved a page ends them: the kernel
    would make it up to 16 times.
    """
    vm = w.node.vm
    vm[V.ALLOCSTALL_NORMAL] += 1
    rounds = np.int64(0)
    no_progress = 0
    retries = 0
    while True:
        freed = np.int64(0)
        if rounds < w.node.conf[N.ROUNDS_MAX]:
            rounds += 1
            freed = reclaim_round(w, policy, order)
        pfn = np.int64(-1)
        if freed > 0:
            pfn = try_after_reclaim(w, policy, order, mt, flags, cls, cpu)
        result = SKIPPED
        if pfn < 0:
            result = compact_direct(w, policy, order, mt, priority)
            if is_worth_an_attempt(w.node, result):
                pfn = try_after_compaction(w, policy, order, mt, flags, cls, cpu)
        if pfn >= 0 or is_last_loop(order, cls):
            return pfn
        no_progress = 0 if freed > 0 and order <= COSTLY_ORDER else no_progress + 1
        if no_progress > 0:
            vm[V.ALLOC_NO_PROGRESS_LOOPS] += 1
        if freed == 0 and result != SUCCEEDED:
            return pfn
        if rounds < w.node.conf[N.ROUNDS_MAX] and no_progress <= MAX_RECLAIM_RETRIES:
            if should_reclaim_again(w, policy, order, mt, cls):
                continue
        if freed == 0 or not should_compact_again(order, result, retries, priority):
            return pfn
        vm[V.ALLOC_COMPACT_RETRIES] += 1
        retries += 1
        if result != SUCCEEDED:
            priority -= 1
            retries = 0


@kernel
def try_last_things(w, policy, order, mt, flags, cls, cpu):
    """Before out of memory: the whole HIGHATOMIC reserve, an evacuation, and NOFRAGMENT dropped last."""
    pfn = np.int64(-1)
    while pfn < 0 and unreserve(w, policy, mt, True) > 0:
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn >= 0 or not flags & ALLOC_NOFRAGMENT:
        return pfn
    if mt != MOVABLE and policy[P.evacuate]:
        evacuate_now(w, policy, order, mt)
        pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        w.node.vm[V.DROPPED_NOFRAGMENT] += 1
        pfn = try_page(w, policy, order, mt, flags & ~ALLOC_NOFRAGMENT, cls, cpu)
    return pfn


@kernel
def fail_blocking(w, policy, order, mt, flags, cls, cpu):
    """Nothing helped: count how the request ends. One that must not fail may dip into reserves once.

    Model: nothing is killed; the kernel would loop for who must not fail.
    """
    vm = w.node.vm
    if order <= COSTLY_ORDER and not cls & (CLS_NORETRY | CLS_RETRY_MAYFAIL):
        vm[V.OOM_KILL] += 1
    pfn = np.int64(-1)
    if cls & CLS_NOFAIL:
        pfn = try_page(w, policy, order, mt, flags & ~ALLOC_NOFRAGMENT, cls | CLS_HIGH, cpu)
        if pfn < 0:
            vm[V.ALLOC_FAILED_NOFAIL] += 1
    if pfn < 0:
        vm[V.ALLOC_FAILED_BLOCKING] += 1
    return pfn


@kernel
def compact_first(w, policy, order, mt, flags, cls, cpu):
    """Compaction before reclaim, where it is likely to be enough or keeps types apart.

    Returns (page or -1, priority of later compactions; FULL - 1: the caller gives up at once).
    """
    if order == 0 or (order <= COSTLY_ORDER and mt == MOVABLE):
        return np.int64(-1), LIGHT
    result = compact_direct(w, policy, order, mt, ASYNC)
    pfn = np.int64(-1)
    if is_worth_an_attempt(w.node, result):
        pfn = try_after_compaction(w, policy, order, mt, flags, cls, cpu)
    if order > COSTLY_ORDER and cls & CLS_NORETRY:
        return pfn, FULL - 1 if result == SKIPPED else ASYNC
    return pfn, LIGHT


@kernel
def request_blocking(w, policy, order, mt, flags, cls, cpu):
    """Slow path of a caller that can block, in the kernel's order of steps, or a counted failure.

    NOFRAGMENT stays until the last step with superpageblocks (v1 21); mainline is without it from here on.
    """
    if not policy[P.superpageblocks]:
        flags &= ~ALLOC_NOFRAGMENT
    pfn = try_page(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0 and policy[P.movable_reserve_soft] and mt == MOVABLE and order < PB_ORDER:
        pfn = take_below_reserve(w, policy, order)
    if pfn < 0:
        pfn, priority = compact_first(w, policy, order, mt, flags, cls, cpu)
        if pfn < 0 and priority >= FULL:
            pfn = reclaim_and_compact(w, policy, order, mt, flags, cls, cpu, priority)
    if pfn < 0:
        if is_last_loop(order, cls):
            w.node.vm[V.ALLOC_NORETRY_EXITS if cls & CLS_NORETRY else V.ALLOC_COSTLY_EXITS] += 1
        else:
            pfn = try_last_things(w, policy, order, mt, flags, cls, cpu)
    if pfn < 0:
        pfn = fail_blocking(w, policy, order, mt, flags, cls, cpu)
    return pfn
