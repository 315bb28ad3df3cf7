"""What happens once after each complete elementary step: a superpageblock takes its new place.

Owns the moment of category and bucket moves (docs/spec/exact.md B.3 "Update"), the relabelling of an emptied
superpageblock and the defrag request that a move raises. Called after an allocation, a free, a
cleared content bit, a contiguous grab or return; never in between.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    EMPTY,
    LIST_ISOLATED,
    LIST_NONE,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    REQ_DEFRAG_LIST_CHANGE,
    TAINTED,
    Ev,
    P,
)
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list
from spbfast.model.allocator.pfn import first_page, spb_of
from spbfast.model.allocator.spb import (
    category_of_list,
    move_spb,
    needs_defrag,
    queue_defrag,
    rate_list,
)
from spbfast.model.state.page_state import is_free_head, order_of, state_at


@kernel
def relabel_emptied(z, spb):
    """Make every free block of an emptied superpageblock movable; those not so yet go to the tail."""
    start = first_page(z.geo, spb)
    for pfn in range(start, start + (1 << z.geo.spb_shift), 1 << MAX_ORDER):
        for head in range(pfn, pfn + (1 << MAX_ORDER), PB_PAGES):
            relabel_block(z, head)


@kernel
def relabel_block(z, pfn):
    """Relabel the free block of whole pageblocks headed by `pfn`, if one is and it is not movable."""
    state = state_at(z.page, pfn)
    if not is_free_head(state):
        return
    pb = pfn >> PB_ORDER
    label = np.int64(z.pb.label[pb])
    if label == MOVABLE:
        return
    order = order_of(state)
    del_from_free_list(z, pfn, order, label)
    for i in range(pb, pb + (1 << (order - PB_ORDER))):
        z.pb.label[i] = MOVABLE
    add_to_free_list(z, pfn, order, MOVABLE, True)


@kernel
def place_spb(z, policy, spb, lst):
    """Put a superpageblock on a list: relabel it if it became empty, queue a defrag if it needs one."""
    if policy[P.superpageblocks] and policy[P.relabel_on_empty] and category_of_list(lst) == EMPTY:
        relabel_emptied(z, spb)
    move_spb(z, spb, lst)
    if category_of_list(lst) == TAINTED and policy[P.defrag] and needs_defrag(z, policy, spb):
        queue_defrag(z, spb, REQ_DEFRAG_LIST_CHANGE)


@kernel
def settle_spb(z, policy, spb):
    """Move a superpageblock to the list that its counters call for."""
    old = np.int64(z.spb.list[spb])
    if old == LIST_ISOLATED or old == LIST_NONE:
        return
    new = rate_list(z, spb)
    if new != old:
        place_spb(z, policy, spb, new)


@inline_kernel
def settle(z, policy, pfn):
    """`settle_spb` for the superpageblock of a page, if anything behind its place changed."""
    if z.ev[Ev.DIRTY]:
        z.ev[Ev.DIRTY] = 0
        settle_spb(z, policy, spb_of(z.geo, pfn))
