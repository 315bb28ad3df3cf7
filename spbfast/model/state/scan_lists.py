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
    PB_ORDER,
)
from spbfast.jit.decorators import entry_kernel, inline_kernel, kernel
from spbfast.model.state.finding import NEXT, PREV, STATE, UNKNOWN, Rule, find
from spbfast.model.state.page_state import (
    CODE_OWNED,
    CODE_PCP,
    code_of,
    free_state,
    order_of,
    pcp_order,
    state_at,
)

FREE_LISTS, PCP_LISTS, RESTING_LISTS = range(3)


@inline_kernel
def is_state_of_list(state, i, kind):
    """Whether a block with this state belongs on the i-th list of a kind."""
    if kind == FREE_LISTS:
        order = (i // NR_MT) % NR_ORDERS
        return state == free_state(order, i % NR_MT)
    if kind == RESTING_LISTS:
        order = i % NR_RESTING_ORDERS
        if code_of(state) == CODE_OWNED:
            return order_of(state) == order
        return order <= COSTLY_ORDER and code_of(state) == CODE_PCP and pcp_order(state) == order
    place = i % NR_PCP_LISTS
    of_list = PB_ORDER if place >= NR_LOWORDER_PCP_LISTS else place // NR_REQUEST_MT
    return code_of(state) == CODE_PCP and pcp_order(state) == of_list


@kernel
def check_link(page, geo, at, i, head, kind, finding):
    """The link from `at` to the next block of the i-th list, and that block's place on it."""
    after = np.int64(page.next[at])
    nr_links = page.next.shape[0]
    if after < 0 or after >= nr_links:
        return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
    on_list = after == head
    if after < geo.nr_pages:
        on_list = is_state_of_list(state_at(page, after), i, kind)
        if kind == FREE_LISTS and ((after >> geo.spb_shift) & geo.set_mask) != i // (NR_ORDERS * NR_MT):
            on_list = False
    before = np.int64(page.prev[after])
    if before == at:
        if on_list:
            return 0
        if after >= geo.nr_pages:
            return find(finding, Rule.LINK, NEXT, at, UNKNOWN, after)
        return find(finding, Rule.ON_ITS_LIST, STATE, after, UNKNOWN, page.state[after])
    # Two links disagree: a third tells which of them is wrong.
    back = 0 <= before < nr_links and page.next[before] == after
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
            at = np.int64(page.next[at])
            if at == head:
                break
            nr += 1
        lengths[i] = nr
    return 0
