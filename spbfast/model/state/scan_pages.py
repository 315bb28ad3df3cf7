"""Compiled walkers of check.py over pages and slots: every page by what it says of itself (finding.py)."""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    CMA,
    HIGHATOMIC,
    MAX_ORDER,
    MOVABLE,
    NR_MT,
    NR_ORDERS,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
)
from spbfast.jit.decorators import entry_kernel, inline_kernel, kernel
from spbfast.model.state.finding import NEXT, PB_LABEL, PREV, SLOTS, STATE, UNKNOWN, Rule, find
from spbfast.model.state.page_state import (
    CODE_CONTIG,
    CODE_OWNED,
    CODE_PCP,
    CODE_PINNED,
    STATE_HOLE,
    STATE_TAIL,
    block_order,
    code_of,
    free_mt,
    is_free_head,
    is_free_of_order,
    next_of,
    owner_at,
    pcp_mt,
    prev_of,
    state_at,
    used_state,
)
from spbfast.model.state.slots import SWAPPED, block_in


@kernel
def check_extent(page, geo, pfn, order, finding):
    """A block lies aligned in the zone and its other pages head nothing."""
    end = pfn + (1 << order)
    if pfn & ((1 << order) - 1) or end > geo.hi:
        return find(finding, Rule.BLOCK_FITS, STATE, pfn, UNKNOWN, state_at(page, pfn))
    for i in range(pfn + 1, end):
        if state_at(page, i) != STATE_TAIL:
            return find(finding, Rule.IN_A_BLOCK, STATE, i, STATE_TAIL, state_at(page, i))
    return 0


@inline_kernel
def is_linked(page, pfn):
    """Whether both neighbours of a block on some list link back to it."""
    after = next_of(page, pfn)
    before = prev_of(page, pfn)
    nr = page.word.shape[0]
    if after < 0 or after >= nr or before < 0 or before >= nr:
        return False
    return prev_of(page, after) == pfn and next_of(page, before) == pfn


@inline_kernel
def is_apart(mt):
    """Whether free blocks of this type never join those of another."""
    return mt == HIGHATOMIC or mt == CMA


@kernel
def check_free_block(page, label, geo, pfn, order, mt, finding):
    """A free block is on a list, of its pageblocks' type, and has no buddy that it should have joined."""
    if mt >= geo.nr_mt:
        return find(finding, Rule.TYPE_EXISTS, STATE, pfn, UNKNOWN, state_at(page, pfn))
    if not is_linked(page, pfn):
        return find(finding, Rule.ON_ITS_LIST, STATE, pfn, UNKNOWN, state_at(page, pfn))
    pb = pfn >> PB_ORDER
    for i in range(pb, ((pfn + (1 << order) - 1) >> PB_ORDER) + 1):
        if label[i] != mt:
            return find(finding, Rule.LABEL, PB_LABEL, i, mt, label[i])
    if order == MAX_ORDER:
        return 0
    buddy = pfn ^ (1 << order)
    if not is_free_of_order(state_at(page, buddy), order):
        return 0
    other = np.int64(label[buddy >> PB_ORDER])
    if mt == other or not (is_apart(mt) or is_apart(other)):
        return find(finding, Rule.MERGED, STATE, pfn, UNKNOWN, state_at(page, pfn))
    return 0


@inline_kernel
def slot_of(page, slots, pfn):
    """Index into the slot pool that an in-use head names; -1 if it names none."""
    owner = owner_at(page, pfn)
    slot = prev_of(page, pfn)
    if owner < 0 or owner >= slots.base.shape[0] or slot < 0 or slot >= slots.size[owner]:
        return np.int64(-1)
    return slots.base[owner] + slot


@kernel
def check_owner(page, slots, geo, pfn, finding):
    """An in-use block names an owner's slot, and the slot names the block."""
    owner = owner_at(page, pfn)
    if owner < 0 or owner >= slots.base.shape[0]:
        return find(finding, Rule.OWNER, NEXT, pfn, UNKNOWN, next_of(page, pfn))
    i = slot_of(page, slots, pfn)
    if i < 0:
        return find(finding, Rule.SLOT, PREV, pfn, UNKNOWN, prev_of(page, pfn))
    there = block_in(slots, i)
    if there == pfn:
        return 0
    # An empty slot, or one whose block agrees with it, is right: then this page's link is wrong.
    agrees = 0 <= there < geo.nr_pages and slot_of(page, slots, there) == i
    if there < 0 or agrees:
        return find(finding, Rule.SLOT_BACK, PREV, pfn, UNKNOWN, prev_of(page, pfn))
    return find(finding, Rule.SLOT_BACK, SLOTS, i, pfn + 1, there + 1)


@kernel
def check_contig(page, slots, geo, pfn, order, finding):
    """A page of a contiguous allocation: a whole superpageblock that names one owner's slot."""
    first = pfn >> geo.spb_shift << geo.spb_shift
    if order != MAX_ORDER or state_at(page, first) != used_state(CODE_CONTIG, MAX_ORDER):
        return find(finding, Rule.CONTIG, STATE, pfn, used_state(CODE_CONTIG, MAX_ORDER), state_at(page, pfn))
    if next_of(page, pfn) != next_of(page, first):
        return find(finding, Rule.OWNER, NEXT, pfn, next_of(page, first), next_of(page, pfn))
    if prev_of(page, pfn) != prev_of(page, first):
        return find(finding, Rule.SLOT, PREV, pfn, prev_of(page, first), prev_of(page, pfn))
    return check_owner(page, slots, geo, pfn, finding) if pfn == first else 0


@inline_kernel
def tally_used(used, pfn, order, mt):
    """Count an in-use block's pages in its pageblocks."""
    pb = pfn >> PB_ORDER
    if order <= PB_ORDER:
        used[pb, mt] += 1 << order
    else:
        used[pb, mt] += PB_PAGES
        used[pb + 1, mt] += PB_PAGES


@kernel
def check_used_block(page, label, slots, geo, pfn, order, tally, finding):
    """A block that is not free: held by an owner, resting on a per-CPU list, or part of a grab."""
    state = state_at(page, pfn)
    code = code_of(state)
    if code == CODE_PCP:
        tally.on_cpu[0] += 1
        tally_used(tally.used, pfn, order, pcp_mt(state))
        return 0
    if code == CODE_OWNED:
        if order > PB_ORDER or label[pfn >> PB_ORDER] >= NR_REQUEST_MT:
            return find(finding, Rule.OWNED, STATE, pfn, UNKNOWN, state)
        tally.on_cpu[0] += 1
        tally_used(tally.used, pfn, order, label[pfn >> PB_ORDER])
        return 0 if is_linked(page, pfn) else find(finding, Rule.ON_ITS_LIST, STATE, pfn, UNKNOWN, state)
    if code == CODE_CONTIG:
        spb = pfn >> geo.spb_shift
        tally.contig[spb] += 1 << order
        tally.held[0] += 1 if pfn == spb << geo.spb_shift else 0
        return check_contig(page, slots, geo, pfn, order, finding)
    if code > CODE_PINNED:
        return find(finding, Rule.IN_A_BLOCK, STATE, pfn, UNKNOWN, state)
    tally_used(tally.used, pfn, order, MOVABLE if code == CODE_PINNED else code)
    if code == CODE_PINNED:
        tally.pinned[pfn >> geo.spb_shift] += 1 << order
    tally.held[0] += 1
    if check_owner(page, slots, geo, pfn, finding):
        return 1
    if code == MOVABLE and slots.anon[owner_at(page, pfn)]:
        tally.anon[owner_at(page, pfn)] += 1 << order
    return 0


@inline_kernel
def tally_free(geo, pfn, order, mt, tally):
    """Count a free block in its list, superpageblock and pageblocks."""
    spb = pfn >> geo.spb_shift
    tally.nr[((spb & geo.set_mask) * NR_ORDERS + order) * NR_MT + mt] += 1
    tally.nr_free_pages[spb] += 1 << order
    if order >= PB_ORDER:
        for pb in range(pfn >> PB_ORDER, (pfn + (1 << order)) >> PB_ORDER):
            tally.whole[pb] = 1


@kernel
def check_block(page, label, slots, geo, pfn, tally, finding):
    """The block headed by a page of the zone; 1 if something is wrong with it."""
    state = state_at(page, pfn)
    order = block_order(state)
    if order < 0 or order > MAX_ORDER:
        return find(finding, Rule.IN_A_BLOCK, STATE, pfn, UNKNOWN, state)
    if check_extent(page, geo, pfn, order, finding):
        return 1
    if is_free_head(state):
        mt = free_mt(state)
        if check_free_block(page, label, geo, pfn, order, mt, finding):
            return 1
        tally_free(geo, pfn, order, mt, tally)
        return 0
    return check_used_block(page, label, slots, geo, pfn, order, tally, finding)


@entry_kernel
def check_pages(page, label, slots, geo, tally, finding):
    """Every page, ascending: holes only outside or at the start, each other page in one sound block."""
    pfn = np.int64(0)
    while pfn < geo.nr_pages:
        state = state_at(page, pfn)
        if state == STATE_HOLE:
            if geo.lo < pfn < geo.hi and state_at(page, pfn - 1) != STATE_HOLE:
                return find(finding, Rule.OUTSIDE, STATE, pfn, UNKNOWN, state)
            tally.holes[pfn >> PB_ORDER] += 1
            pfn += 1
            continue
        if pfn < geo.lo or pfn >= geo.hi:
            return find(finding, Rule.OUTSIDE, STATE, pfn, STATE_HOLE, state)
        if check_block(page, label, slots, geo, pfn, tally, finding):
            return 1
        pfn += 1 << block_order(state)
    return 0


@inline_kernel
def is_held(state):
    """Whether a page with this state heads a block that an owner holds."""
    return 0 <= code_of(state) <= CODE_CONTIG and 0 <= block_order(state) <= MAX_ORDER


@kernel
def check_swapped(slots, nr_swapped, finding):
    """All slots in swap, `nr_swapped` of them, are of owners whose memory may be swapped out."""
    if nr_swapped == 0:
        return 0
    for owner in range(slots.base.shape[0]):
        if slots.anon[owner]:
            for i in range(slots.base[owner], slots.base[owner] + slots.size[owner]):
                nr_swapped -= 1 if block_in(slots, i) == SWAPPED else 0
    return find(finding, Rule.SWAPPED, SLOTS, 0, UNKNOWN, nr_swapped) if nr_swapped else 0


@entry_kernel
def check_slots(page, slots, geo, tally, finding):
    """Every slot is empty, in swap or names a page; those that do are as many as the blocks held."""
    nr, nr_held = np.int64(0), tally.held[0]
    for i in range(slots.link.shape[0]):
        pfn = block_in(slots, i)
        if pfn < SWAPPED or pfn >= geo.nr_pages:
            return find(finding, Rule.SLOT_BACK, SLOTS, i, UNKNOWN, pfn + 1)
        if pfn >= 0:
            nr += 1
        elif pfn == SWAPPED:
            tally.swapped[0] += 1
    if nr == nr_held:
        return check_swapped(slots, tally.swapped[0], finding)
    for i in range(slots.link.shape[0]):
        pfn = block_in(slots, i)
        held = pfn >= 0 and is_held(state_at(page, pfn))
        if pfn >= 0 and (not held or slot_of(page, slots, pfn) != i):
            return find(finding, Rule.SLOT_BACK, SLOTS, i, 0, pfn + 1)
    return find(finding, Rule.SLOT_BACK, SLOTS, 0, nr_held, nr)
