"""Compiled walkers of check.py over lists: every list link by link (finding.py says what they share)."""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    COSTLY_ORDER,
    NR_LOWORDER_PCP_LISTS,
    NR_MT,
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    NR_RESTING_ORDERS,
    NR_STRANDS,
    PB_ORDER,
)
from spbfast.jit.decorators import entry_kernel, inline_kernel, kernel
from spbfast.model.state.finding import NEXT, PREV, STATE, UNKNOWN, Rule, find
from spbfast.model.state.page_state import (
    CODE_OWNED,
    CODE_PCP,
    code_of,
    free_state,
    next_of,
    order_of,
    pcp_order,
    prev_of,
    state_at,
)

FREE_LISTS, RESTING_LISTS = range(2)


@inline_kernel
def is_state_of_list(state, i, kind):
    """Whether a block with this state belongs on the i-th list of a kind."""
    if kind == FREE_LISTS:
        order = (i // NR_MT) % NR_ORDERS
        return state == free_state(order, i % NR_MT)
    order = i % NR_RESTING_ORDERS
    if code_of(state) == CODE_OWNED:
        return order_of(state) == order
    return order <= COSTLY_ORDER and code_of(state) == CODE_PCP and pcp_order(state) == order


@kernel
def check_link(page, geo, at, i, head, kind, finding):
    """The link from `at` to the next block of the i-th list, and that block's place on it."""
    after = next_of(page, at)
    nr_links = page.word.shape[0]
    if after < 0 or after >= nr_links:
        return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
    on_list = after == head
    if after < geo.nr_pages:
        on_list = is_state_of_list(state_at(page, after), i, kind)
        if kind == FREE_LISTS and ((after >> geo.spb_shift) & geo.set_mask) != i // (NR_ORDERS * NR_MT):
            on_list = False
    before = prev_of(page, after)
    if before == at:
        if on_list:
            return 0
        if after >= geo.nr_pages:
            return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
        return find(finding, Rule.ON_ITS_LIST, STATE, after, UNKNOWN, state_at(page, after))
    # Two links disagree: a third tells which of them is wrong.
    back = 0 <= before < nr_links and next_of(page, before) == after
    if back or not on_list:
        return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
    return find(finding, Rule.LINK, PREV, after, at, before)


@entry_kernel
def check_lists(page, geo, head0, kind, lengths, finding):
    """Every list whose head follows link `head0`: circular, both ways, each block of the right state."""
    for i in range(lengths.shape[0]):
        head = head0 + i
        at = np.int64(head)
        nr = 0
        while True:
            # Links that agree both ways can't run into a circle that leaves the head out.
            if check_link(page, geo, at, i, head, kind, finding):
                return 1
            at = next_of(page, at)
            if at == head:
                break
            nr += 1
        lengths[i] = nr
    return 0


@inline_kernel
def is_state_of_pcp_list(state, i):
    """Whether a block with this state belongs on the i-th per-CPU list."""
    place = i % NR_PCP_LISTS
    order = PB_ORDER if place >= NR_LOWORDER_PCP_LISTS else place // NR_REQUEST_MT
    return code_of(state) == CODE_PCP and pcp_order(state) == order


@kernel
def check_strand(page, geo, head, i, nr, finding):
    """The `nr` blocks of a strand of the i-th per-CPU list: of its state, linked both ways in between."""
    at = np.int64(head)
    for k in range(nr):
        after = next_of(page, at)
        if after >= geo.nr_pages:
            return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
        if not is_state_of_pcp_list(state_at(page, after), i):
            return find(finding, Rule.ON_ITS_LIST, STATE, after, UNKNOWN, state_at(page, after))
        if k > 0 and prev_of(page, after) != at:
            return find(finding, Rule.LINK, PREV, after, at, prev_of(page, after))
        at = after
    if nr > 0 and prev_of(page, head) != at:
        return find(finding, Rule.LINK, PREV, head, at, prev_of(page, head))
    return 0


@entry_kernel
def check_pcp_lists(page, pcp, geo, finding):
    """Every per-CPU list: dealt out from the strand that it begins on, as many blocks as it says."""
    for i in range(pcp.nr.shape[0]):
        for turn in range(NR_STRANDS):
            strand = (np.int64(pcp.first[i]) + turn) % NR_STRANDS
            nr = (np.int64(pcp.nr[i]) - turn + NR_STRANDS - 1) // NR_STRANDS
            if check_strand(page, geo, geo.pcp0 + i * NR_STRANDS + strand, i, nr, finding):
                return 1
    return 0
