"""One attempt at a request: alloc flags by class, watermarks, and the page lists that are asked.

Owns what a caller's class is worth (access to reserves, a cheap fallback), the watermark checks and the
counters of how the zone's lists answered (docs/spec/machine.md, section 1). In what order attempts follow
each other is the business of atomic.py, slowpath.py and request.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    ALLOC_HIGHATOMIC,
    ALLOC_HIGHORDER_OPTIONAL,
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    CLS_BLOCKING,
    CLS_HIGH,
    CLS_NOFAIL,
    CLS_NOMEMALLOC,
    CLS_NORETRY,
    CLS_RETRY_MAYFAIL,
    MODE_NORMAL,
    C,
    Ev,
    Outcome,
    P,
    Tune,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.barred import rate_barred
from spbfast.model.allocator.highatomic import reserve_highatomic, take_highatomic
from spbfast.model.allocator.pcp import pcp_alloc
from spbfast.model.allocator.pcplist import is_pcp_order
from spbfast.model.allocator.rmqueue import begin_event, rmqueue_in_mode
from spbfast.model.state.node import N, Now
from spbfast.model.state.vmstat import VM_OUTCOME, VM_TAINT, V
from spbfast.model.workers.defer import defer_requests


@inline_kernel
def is_optional(policy, node, cls):
    """Whether a caller has a cheap fallback, so that it may be refused (ALLOC_HIGHORDER_OPTIONAL)."""
    if not policy[P.optional_refusal] or not node.now[Now.BOOT_DONE]:
        return False
    if cls & CLS_NORETRY and not cls & CLS_RETRY_MAYFAIL:
        return True
    return not cls & (CLS_BLOCKING | CLS_NOMEMALLOC | CLS_NOFAIL)


@inline_kernel
def fast_path_flags(policy, node, cls):
    """Alloc flags of a request's fast path."""
    flags = ALLOC_NOFRAGMENT
    if cls & CLS_BLOCKING or not node.now[Now.BOOT_DONE]:
        flags |= ALLOC_NOFRAG_TAINTED_OK
    if is_optional(policy, node, cls):
        flags |= ALLOC_HIGHORDER_OPTIONAL
    return flags


@inline_kernel
def add_reserves(policy, flags, order, cls):
    """Alloc flags of a slow path: who cannot block may use the HIGHATOMIC reserve (gfp_to_alloc_flags)."""
    if cls & (CLS_BLOCKING | CLS_NOMEMALLOC) or not policy[P.highatomic_reserve]:
        return flags
    return flags | ALLOC_NON_BLOCK | (ALLOC_HIGHATOMIC if order > 0 else 0)


@inline_kernel
def count_outcome(w, cls):
    """Count how the zone's lists answered, and who tainted what."""
    z, node = w.zone, w.node
    outcome = z.ev[Ev.OUTCOME]
    node.vm[VM_OUTCOME + outcome] += 1
    if outcome == Outcome.REFUSED_OPTIONAL:
        node.vm[V.SPB_HIGHORDER_REFUSED] += 1
    elif outcome == Outcome.TAKE_HIGHATOMIC:
        node.vm[V.HIGHATOMIC_SERVED] += 1
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
    defer_requests(w, policy, mt)
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
    defer_requests(w, policy, mt)
    return pfn


@kernel
def take_beside_pcp(w, policy, order, mt, flags, cls, pfn):
    """What a caller with access to the HIGHATOMIC reserve does with the answer of the per-CPU lists.

    Where they had nothing (`pfn` -1) it takes from the reserve; what they gave it may reserve.
    """
    z = w.zone
    if pfn < 0:
        begin_event(z, 0)
        pfn = take_highatomic(z, policy, order, mt)
        if pfn >= 0:
            count_outcome(w, cls)
    elif flags & ALLOC_HIGHATOMIC:
        reserve_highatomic(z, policy, pfn, order)
    defer_requests(w, policy, mt)
    return pfn


@inline_kernel
def take_page(w, policy, order, mt, flags, cls, cpu):
    """One attempt at a request, through the per-CPU lists where they serve its order, or -1."""
    if w.zone.geo.nr_cpus > 0 and is_pcp_order(order):
        pfn = take_from_pcp_lists(w, policy, order, mt, flags, cls, cpu)
        if flags & (ALLOC_NON_BLOCK | ALLOC_HIGHATOMIC):
            pfn = take_beside_pcp(w, policy, order, mt, flags, cls, pfn)
        return pfn
    return take_from_lists(w, policy, order, mt, flags, cls)


@inline_kernel
def is_above(w, policy, order, mt, mark):
    """Whether free pages stay above a boosted watermark with the request served.

    Pages of the HIGHATOMIC reserve count for nobody here (zone_watermark_fast), barred ones not for movable
    requests where that is the reading. Model: the kernel also asks for one block that is large enough; here
    the lists say so.
    """
    count = w.zone.count
    above = count[C.FREE_PAGES] - count[C.FREE_HIGHATOMIC] - (1 << order) - mark - count[C.WATERMARK_BOOST]
    return above >= 0 and above >= rate_barred(w, policy, mt)


@inline_kernel
def note_below_high(w, policy, order, mt):
    """Keep CPUs' lists short from now on if a request finds too little (get_page_from_freelist)."""
    mark = w.zone.pcp.conf[Tune.MARK_HIGH]
    if mark > 0 and w.zone.count[C.BELOW_HIGH] == 0 and not is_above(w, policy, order, mt, mark):
        w.zone.count[C.BELOW_HIGH] = 1


@inline_kernel
def rate_min_mark(node, cls):
    """The min watermark, lowered by what a caller's class may take of it (__zone_watermark_ok)."""
    mark = node.conf[N.WMARK_MIN]
    if cls & CLS_HIGH:
        mark -= mark // 2
        if not cls & (CLS_BLOCKING | CLS_NOMEMALLOC):
            mark -= mark // 4
    return mark


@inline_kernel
def is_above_min(w, policy, order, mt, cls, extra):
    """Whether 2**order pages leave a caller above its min watermark, if `extra` pages more were free.

    The HIGHATOMIC reserve counts for callers with access to reserves only; a boost holds up all but single
    pages in a hurry.
    """
    count = w.zone.count
    mark = rate_min_mark(w.node, cls)
    if order > 0 or not cls & CLS_HIGH:
        mark += count[C.WATERMARK_BOOST]
    free = count[C.FREE_PAGES] + extra
    if not cls & CLS_HIGH and cls & (CLS_BLOCKING | CLS_NOMEMALLOC):
        free -= count[C.FREE_HIGHATOMIC]
    above = free - (1 << order) - mark
    return above >= 0 and above >= rate_barred(w, policy, mt)


@inline_kernel
def try_page(w, policy, order, mt, flags, cls, cpu):
    """An attempt in the slow path, above the caller's min watermark, or -1."""
    if not is_above_min(w, policy, order, mt, cls, 0):
        return np.int64(-1)
    return take_page(w, policy, order, mt, flags, cls, cpu)
