"""The lists of CPUs that own pageblocks: a buddy system per CPU and type, orders 0 to 9.

Owns what rests there: splits on the way out, merges up to a whole pageblock on the way in, drains. A block of
an owned pageblock (CODE_OWNED) rests with its owner, on the list of the pageblock's label, and is accounted
under it; only such blocks merge. A block of a pageblock without an owner (CODE_PCP, orders 0..3) rests with
whoever freed it, accounted as before. pcp.py owns limits and batches, owned.py the refills.

Source: patch v1 02 (pcp-buddy), as far as the mails tell; what is assumed is marked in docs/model.md.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MOVABLE, NR_REQUEST_MT, NR_RESTING_ORDERS, PB_ORDER, PB_PAGES, C, Ev, Pc, Tp
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.buddy import free_piece
from spbfast.model.allocator.owner import drop_owner, note_fragments, set_owner
from spbfast.model.allocator.record import is_traced, trace_drained
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import add_used, del_used
from spbfast.model.state.page_state import (
    CODE_OWNED,
    CODE_PCP,
    ORDER_NIBBLE,
    code_of,
    next_of,
    order_of,
    pcp_mt,
    pcp_state,
    prev_of,
    set_next,
    set_prev,
    set_record,
    set_tail,
    state_at,
    used_state,
)
from spbfast.model.state.trace import Cause


@inline_kernel
def resting_list(cpu, order, mt):
    """Index of a CPU's list of (order, type)."""
    return (cpu * NR_REQUEST_MT + mt) * NR_RESTING_ORDERS + order


@inline_kernel
def owned_state(order):
    """State of the head of a block at rest with its pageblock's owner."""
    return used_state(CODE_OWNED, order)


@inline_kernel
def unowned_state(order, mt):
    """State of the head of a block at rest, of order 0..3, that is accounted as type mt by itself."""
    return pcp_state(order, mt)


@inline_kernel
def count_pages(z, cpu, pfn, pages):
    """`pages` more (or fewer) at rest with a CPU, at `pfn`."""
    z.spb.nr_resting_pages[pfn >> z.geo.spb_shift] += pages
    z.pcp.cpu[cpu, Pc.COUNT] += pages
    z.count[C.PCP_PAGES] += pages


@inline_kernel
def link_mixed(page, pfn, at, state):
    """Insert `pfn`, in this state, behind link `at` of a list whose blocks are in different states."""
    after = next_of(page, at)
    set_record(page, pfn, state, after, at)
    set_prev(page, after, pfn)
    set_next(page, at, pfn)


@inline_kernel
def unlink_mixed(page, pfn):
    """Take `pfn` out of a list whose blocks are in different states; it heads nothing any more."""
    after = next_of(page, pfn)
    before = prev_of(page, pfn)
    set_next(page, before, after)
    set_prev(page, after, before)
    set_tail(page, pfn)


@inline_kernel
def add_resting(z, cpu, pfn, order, mt, state, to_tail):
    """Put a block on the list (order, mt) of a CPU."""
    i = resting_list(cpu, order, mt)
    head = z.geo.resting0 + i
    link_mixed(z.page, pfn, prev_of(z.page, head) if to_tail else head, state)
    z.pcp.resting[i] += 1


@inline_kernel
def del_resting(z, cpu, pfn, order, mt):
    """Take a block off the list (order, mt) of a CPU; its head is no longer one."""
    unlink_mixed(z.page, pfn)
    z.pcp.resting[resting_list(cpu, order, mt)] -= 1


@kernel
def rest_owned(z, pfn, order):
    """Put a block accounted as its pageblock's label to rest with the owner, merged as far as that goes."""
    pb = pfn >> PB_ORDER
    cpu = np.int64(z.pb.owner[pb]) - 1
    mt = np.int64(z.pb.label[pb])
    count_pages(z, cpu, pfn, 1 << order)
    set_tail(z.page, pfn)
    while order < PB_ORDER:
        buddy = pfn ^ (1 << order)
        if state_at(z.page, buddy) != owned_state(order):
            break
        del_resting(z, cpu, buddy, order, mt)
        pfn = min(pfn, buddy)
        order += 1
    add_resting(z, cpu, pfn, order, mt, owned_state(order), False)


@kernel
def rest_freed(z, policy, cpu, pfn, order, mt):
    """Put a block accounted as mt, which a CPU frees, to rest; the CPU whose lists took it, or -1.

    Model: a whole pageblock of its own type that a CPU frees becomes its own; one of another type, or of
    one without lists (CMA), goes to the free lists.
    """
    pb = pfn >> PB_ORDER
    label = np.int64(z.pb.label[pb])
    if order == PB_ORDER and z.pb.owner[pb] == 0 and label == mt:
        set_owner(z, pb, cpu, mt)
    owner = np.int64(z.pb.owner[pb]) - 1
    if owner >= 0:
        if mt != label:
            del_used(z, policy, pfn, order, mt)
            add_used(z, pfn, order, label)
            settle(z, policy, pfn)
        rest_owned(z, pfn, order)
        return owner
    if order == PB_ORDER:
        set_tail(z.page, pfn)
        del_used(z, policy, pfn, order, mt)
        free_piece(z, pfn, order, False)
        settle(z, policy, pfn)
        return np.int64(-1)
    of = label if label < NR_REQUEST_MT else MOVABLE
    count_pages(z, cpu, pfn, 1 << order)
    add_resting(z, cpu, pfn, order, of, unowned_state(order, mt), False)
    return cpu


@inline_kernel
def find_resting(z, cpu, order, mt):
    """Smallest order from `order` up of which a CPU has a block of type mt, or -1."""
    first = resting_list(cpu, 0, mt)
    for high in range(order, NR_RESTING_ORDERS):
        if z.pcp.resting[first + high]:
            return high
    return -1


@inline_kernel
def mt_at_rest(state, mt):
    """Type that a block on a list of type mt is accounted as."""
    return mt if code_of(state) == CODE_OWNED else pcp_mt(state)


@kernel
def take_resting(z, policy, cpu, order, mt):
    """Take a block of 2**order pages at rest with a CPU for a request of type mt, or -1."""
    high = find_resting(z, cpu, order, mt)
    if high < 0:
        return np.int64(-1)
    pfn = next_of(z.page, z.geo.resting0 + resting_list(cpu, high, mt))
    state = state_at(z.page, pfn)
    is_owned = code_of(state) == CODE_OWNED
    old = mt_at_rest(state, mt)
    del_resting(z, cpu, pfn, high, mt)
    count_pages(z, cpu, pfn, -(1 << order))
    while high > order:
        high -= 1
        half = owned_state(high) if is_owned else unowned_state(high, old)
        add_resting(z, cpu, pfn + (1 << high), high, mt, half, False)
    if old != mt:
        del_used(z, policy, pfn, order, old)
        add_used(z, pfn, order, mt)
        settle(z, policy, pfn)
    return pfn


@kernel
def give_back(z, policy, cpu, pfn, order, mt):
    """Return a block from the list (order, mt) of a CPU to the free lists; the caller settles."""
    old = mt_at_rest(state_at(z.page, pfn), mt)
    del_resting(z, cpu, pfn, order, mt)
    count_pages(z, cpu, pfn, -(1 << order))
    if is_traced(z, Tp.MM_PAGE_PCPU_DRAIN):
        trace_drained(z, pfn, order, old)
    del_used(z, policy, pfn, order, old)
    free_piece(z, pfn, order, False)
    pb = pfn >> PB_ORDER
    if z.pb.owner[pb]:
        note_fragments(z, pb)


@kernel
def drain_resting(z, policy, cpu, nr, first_mt):
    """Give about `nr` pages of a CPU back, the largest blocks first, of each order from the lists' tails.

    Model: whole pageblocks go first, so that they find other owners; small pieces stay near their use.
    """
    cause = z.ev[Ev.CAUSE]
    z.ev[Ev.CAUSE] = Cause.PCP_DRAIN
    for order in range(PB_ORDER, -1, -1):
        for k in range(NR_REQUEST_MT):
            mt = (first_mt + k) % NR_REQUEST_MT
            i = resting_list(cpu, order, mt)
            while nr > 0 and z.pcp.resting[i] > 0:
                pfn = prev_of(z.page, z.geo.resting0 + i)
                give_back(z, policy, cpu, pfn, order, mt)
                settle(z, policy, pfn)
                nr -= 1 << order
    z.ev[Ev.CAUSE] = cause


@kernel
def release_pageblock(z, policy, pb):
    """Give back what rests of an owned pageblock with its owner, and drop the owner; the caller settles."""
    cpu = np.int64(z.pb.owner[pb]) - 1
    mt = np.int64(z.pb.label[pb])
    pfn = pb << PB_ORDER
    end = pfn + PB_PAGES
    while pfn < end:
        state = state_at(z.page, pfn)
        order = order_of(state)
        code = code_of(state)
        if order == ORDER_NIBBLE or code == CODE_PCP:
            pfn += 1
            continue
        if code == CODE_OWNED:
            give_back(z, policy, cpu, pfn, order, mt)
        pfn += 1 << order
    if z.pb.owner[pb]:
        drop_owner(z, pb)
