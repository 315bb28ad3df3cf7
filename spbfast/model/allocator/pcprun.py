"""Runs of single pages between owners and a CPU's lists, as long as nothing but the lists changes.

While a list does not run empty and its CPU stays below its limit, a page that is freed or taken only moves
between the list's head and its owner's slot. A run does just that and writes the CPU's scalars once; it ends
where pcp.py would do anything else, and leaves exactly what page by page leaves. With owned pageblocks, and
while events are recorded, there are no runs: tests/test_pcprun.py holds both ways equal.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    MOVABLE,
    NR_REQUEST_MT,
    PB_ORDER,
    PCP_BATCH_SCALE_MAX,
    PCPF_PREV_FREE_HIGH_ORDER,
    C,
    P,
    Pc,
    Tune,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import hand_out, note_gone
from spbfast.model.allocator.pcplist import count_pcp_pages, pcp_list, peek_pcp, pop_pcp, push_pcp
from spbfast.model.allocator.prefetch import prefetch_page
from spbfast.model.state.page_state import CODE_PINNED, code_of, mt_of_code, order_of, pcp_state, state_at
from spbfast.model.state.slots import EMPTY_SLOT, block_in, put_block
from spbfast.model.state.trace import Th

FREE_AHEAD = 16
MOST_HALVINGS = 63  # what a shift can take; by then the scalar is 0


@inline_kernel
def has_runs(z, policy):
    """Whether pages may go through a CPU's lists in runs at all."""
    return z.geo.nr_cpus > 0 and not policy[P.pcp_owned_pageblocks] and z.trace.head[Th.ON] == 0


@inline_kernel
def nr_below_limit(z, cpu):
    """Single pages that a CPU may be given before its limit comes into play (pcp.rate_limit)."""
    high = z.pcp.cpu[cpu, Pc.HIGH]
    is_settled = z.pcp.conf[Tune.HIGH_MIN] <= high <= z.pcp.conf[Tune.HIGH_MAX]
    if z.count[C.RECLAIM_ACTIVE] or z.count[C.BELOW_HIGH] or not is_settled:
        return np.int64(0)
    return high - 1 - z.pcp.cpu[cpu, Pc.COUNT]


@inline_kernel
def is_single_in_use(state):
    """Whether a page in use is a block of its own that was asked for by type."""
    return order_of(state) == 0 and code_of(state) <= CODE_PINNED


@inline_kernel
def count_frees(z, cpu, nr):
    """What `nr` single pages freed below the limit leave in a CPU's scalars."""
    pcp = z.pcp.cpu[cpu]
    most = z.pcp.conf[Tune.BATCH] << PCP_BATCH_SCALE_MAX
    if pcp[Pc.FREE_COUNT] < most:
        pcp[Pc.FREE_COUNT] = min(pcp[Pc.FREE_COUNT] + nr, most)
    pcp[Pc.FLAGS] &= ~PCPF_PREV_FREE_HIGH_ORDER
    pcp[Pc.ALLOC_FACTOR] >>= min(nr, MOST_HALVINGS)


@inline_kernel
def free_single(z, cpu, pfn, code):
    """Put a single page that was in use with this code on the head of a CPU's list, uncounted."""
    note_gone(z, pfn, 0, code)
    label = np.int64(z.pb.label[pfn >> PB_ORDER])
    i = pcp_list(0, label if label < NR_REQUEST_MT else MOVABLE)
    push_pcp(z, cpu, i, pfn, pcp_state(0, mt_of_code(code)))


@kernel
def free_run_to_pcp(z, policy, cpu, at, nr):
    """Free the single pages in up to `nr` slots from number `at` on to a CPU's lists.

    Returns (slots done with, pages freed): an empty slot is done with, too.
    """
    if not has_runs(z, policy):
        return np.int64(0), np.int64(0)
    room = nr_below_limit(z, cpu)
    done = np.int64(0)
    freed = np.int64(0)
    while done < nr and freed < room:
        if done + FREE_AHEAD < nr:
            prefetch_page(z.page, max(block_in(z.slots, at + done + FREE_AHEAD), 0))
        pfn = block_in(z.slots, at + done)
        if pfn >= 0:
            state = state_at(z.page, pfn)
            if not is_single_in_use(state):
                break
            free_single(z, cpu, pfn, code_of(state))
            put_block(z.slots, at + done, -1)
            freed += 1
        done += 1
    if freed:
        count_pcp_pages(z, cpu, freed)
        count_frees(z, cpu, freed)
    return done, freed


@kernel
def take_run_from_pcp(z, cpu, mt, code, owner, slot, nr):
    """Hand out pages of a CPU's list of single pages into up to `nr` slots of an owner; how many.

    Ends at a slot in use, and at a page that was last used as another type: that is accounted anew.
    """
    i = pcp_list(0, mt)
    at = z.slots.base[owner] + slot
    wanted = pcp_state(0, mt)
    done = np.int64(0)
    while done < nr and block_in(z.slots, at + done) == EMPTY_SLOT:
        pfn = peek_pcp(z, cpu, i)
        if pfn < 0 or state_at(z.page, pfn) != wanted:
            break
        pop_pcp(z, cpu, i, pfn)
        hand_out(z, pfn, 0, code, owner, slot + done)
        done += 1
    if done:
        count_pcp_pages(z, cpu, -done)
        z.pcp.cpu[cpu, Pc.FREE_COUNT] >>= min(done, MOST_HALVINGS)
    return done


@inline_kernel
def is_given_back(z, policy, cpu, pfn, mt):
    """Whether a request for a single page of type mt gets page `pfn`, if a CPU frees that just before.

    The page went to the head of the very list that the request asks, and nowhere else.
    """
    if not has_runs(z, policy) or nr_below_limit(z, cpu) <= 0:
        return False
    state = state_at(z.page, pfn)
    return is_single_in_use(state) and mt_of_code(code_of(state)) == mt and z.pb.label[pfn >> PB_ORDER] == mt


@inline_kernel
def free_and_retake(z, cpu, pfn, code, owner, slot):
    """Free a page that comes back and hand it out anew."""
    note_gone(z, pfn, 0, code_of(state_at(z.page, pfn)))
    hand_out(z, pfn, 0, code, owner, slot)
    count_frees(z, cpu, 1)
    z.pcp.cpu[cpu, Pc.FREE_COUNT] >>= 1
