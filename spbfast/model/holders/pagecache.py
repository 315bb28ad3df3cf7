"""The page cache: two rings of folios, one of them hot.

Owns how folios come and go; reclaim.py takes them in runs. Folios are slots of the owners OWNER_COLD and
OWNER_HOT; a ring is dense, so that reclaim reads it in a row. Its head is a slot and its tail that many
folios further, past the last slot when the ring wraps around: a slot is then found without a division.

Model: a new folio that will be used again is hot while the hot ring holds less than `hot_share` of the
cache, one that is read once never; hot folios are only reclaimed when no cold ones are left. With
probability `lru_mix` reclaim takes a run of folios from a random place instead of the oldest; the oldest
then fill the gap, so age and position drift further apart.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import free_held, hand_out, slot_pfn
from spbfast.model.allocator.record import trace_free
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca, N
from spbfast.model.state.page_state import CODE_MOVABLE, order_of, set_prev, state_at
from spbfast.model.state.slots import block_in, put_block, ring_slot
from spbfast.model.state.trace import Th
from spbfast.model.state.vmstat import V


@inline_kernel
def nr_folios(node, owner):
    """Folios on a ring."""
    return node.cache[2 * owner + Ca.COLD_TAIL] - node.cache[2 * owner + Ca.COLD_HEAD]


@inline_kernel
def is_hot_next(node, is_reused):
    """Whether the next folio joins the hot ring."""
    hot = node.cache[Ca.HOT_PAGES]
    return is_reused and (hot << 16) < node.conf[N.HOT_SHARE] * (hot + node.cache[Ca.COLD_PAGES] + 1)


@inline_kernel
def has_room(z, node, is_reused):
    """Whether the ring that the next folio joins has a free slot."""
    owner = OWNER_HOT if is_hot_next(node, is_reused) else OWNER_COLD
    return nr_folios(node, owner) < z.slots.size[owner]


@inline_kernel
def add_folio(z, node, pfn, order, is_reused):
    """Add a block to a ring's young end; 0 if that ring is full."""
    owner = OWNER_HOT if is_hot_next(node, is_reused) else OWNER_COLD
    if nr_folios(node, owner) >= z.slots.size[owner]:
        return 0
    tail = node.cache[2 * owner + Ca.COLD_TAIL]
    hand_out(z, pfn, order, CODE_MOVABLE, owner, ring_slot(z.slots, owner, tail))
    node.cache[2 * owner + Ca.COLD_TAIL] = tail + 1
    node.cache[Ca.COLD_PAGES + owner] += 1 << order
    return 1


@kernel
def fill_gap(z, owner, gap, head):
    """Move the oldest folio of a ring, at slot `head`, to slot `gap`."""
    base = z.slots.base[owner]
    pfn = block_in(z.slots, base + head)
    put_block(z.slots, base + gap, pfn)
    set_prev(z.page, pfn, gap)


@inline_kernel
def move_head(z, node, owner):
    """The oldest folio's slot is no longer of the ring; both ends come back when the head has gone round."""
    head = node.cache[2 * owner + Ca.COLD_HEAD] + 1
    if head == z.slots.size[owner]:
        head = np.int64(0)
        node.cache[2 * owner + Ca.COLD_TAIL] -= z.slots.size[owner]
    node.cache[2 * owner + Ca.COLD_HEAD] = head


@kernel
def take_folio(z, policy, node, owner, place):
    """Free the folio `place` behind the oldest of a ring; its pages."""
    head = node.cache[2 * owner + Ca.COLD_HEAD]
    slot = ring_slot(z.slots, owner, head + place)
    pfn = slot_pfn(z, owner, slot)
    if place:
        fill_gap(z, owner, slot, head)
    put_block(z.slots, z.slots.base[owner] + head, -1)
    move_head(z, node, owner)
    order = order_of(state_at(z.page, pfn))
    pages = np.int64(1) << order
    if z.trace.head[Th.ON]:
        trace_free(z, pfn, order, 0, 0)
    free_held(z, policy, pfn)
    node.cache[Ca.COLD_PAGES + owner] -= pages
    node.vm[V.PAGE_EVENTS] += 1
    node.vm[V.PGFREE] += pages
    return pages
