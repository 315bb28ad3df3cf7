"""Reclaim of the page cache: cold folios first, in runs, with their misses under way ahead of time.

Owns where a run begins and what is asked of memory before it does. Draws are counter-based, so the places of
coming runs are known: while a run goes, the folios of the next one and the slots of the one after are asked
for. Hints decide nothing; tests/test_pagecache.py holds what a run takes.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import PB_ORDER, Ev
from spbfast.jit.decorators import inline_kernel, kernel, prefetch
from spbfast.model.allocator.free import slot_pfn
from spbfast.model.allocator.prefetch import prefetch_page
from spbfast.model.holders.pagecache import nr_folios, take_folio
from spbfast.model.primitives.draws import below, chance, draw
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca, N
from spbfast.model.state.slots import ring_slot
from spbfast.model.state.trace import Cause

SLOTS_OF_LINE = 16


@inline_kernel
def slot_behind(z, node, owner, place):
    """Slot of the folio `place` behind the oldest of a ring."""
    return ring_slot(z.slots, owner, node.cache[2 * owner + Ca.COLD_HEAD] + place)


@inline_kernel
def find_run(node, owner, runs, gone):
    """Place of the run of folios after `runs` others, from the head as it is when `gone` folios have gone."""
    left = nr_folios(node, owner) - gone
    nr = min(node.conf[N.RECLAIM_RUN], left)
    key, counter = node.conf[N.RECLAIM_KEY], node.cache[Ca.COUNTER] + runs
    if nr <= 0 or not chance(draw(key, counter), node.conf[N.LRU_MIX_32]):
        return np.int64(0)
    return below(draw(key + 1, counter + 1), left - nr + 1)


@inline_kernel
def prefetch_folio(z, node, owner, place):
    """Hint that the folio `place` behind the oldest of a ring, if there is one, is needed soon."""
    if place >= nr_folios(node, owner):
        return
    pfn = slot_pfn(z, owner, slot_behind(z, node, owner, place))
    prefetch_page(z.page, pfn)
    prefetch(z.pb.used, (pfn >> PB_ORDER) * z.pb.used.shape[1])


@inline_kernel
def prefetch_slots(z, node, owner, place, nr):
    """Hint that the slots of `nr` folios from `place` behind the oldest of a ring on are needed soon."""
    if place + nr > nr_folios(node, owner):
        return
    at = z.slots.base[owner] + slot_behind(z, node, owner, place)
    for line in range(0, nr, SLOTS_OF_LINE):
        prefetch(z.slots.link, at + line)


@kernel
def prefetch_first_run(z, node, owner, place, nr):
    """Hint that a run of folios goes, and that the oldest fill its gaps: all their misses at once."""
    for i in range(nr):
        prefetch_folio(z, node, owner, place + i)
    if place:
        for i in range(nr):
            prefetch_folio(z, node, owner, np.int64(i))


@kernel
def reclaim_run(z, policy, node, owner, want, is_first):
    """Reclaim one run of folios of a ring, at most until `want` pages are free; pages freed.

    The gap that a folio leaves is filled from the head, which moves on: the run stays at its place, and the
    next one, `nr` folios later, comes nearer with each.
    """
    nr = min(node.conf[N.RECLAIM_RUN], nr_folios(node, owner))
    place = find_run(node, owner, 0, 0)
    later = nr + find_run(node, owner, 1, nr)
    prefetch_slots(z, node, owner, 2 * nr + find_run(node, owner, 2, 2 * nr), nr)
    if is_first:
        prefetch_first_run(z, node, owner, place, nr)
    node.cache[Ca.COUNTER] += 1
    freed = np.int64(0)
    for _ in range(nr):
        if freed >= want:
            break
        prefetch_folio(z, node, owner, later)
        if later > nr:
            prefetch_folio(z, node, owner, nr)
        freed += take_folio(z, policy, node, owner, place)
        place = min(place, nr_folios(node, owner) - 1)
    return freed


@kernel
def reclaim_pages(z, policy, node, want):
    """Reclaim page cache, cold first, until `want` pages are free or none is left; pages freed."""
    freed = np.int64(0)
    cause = z.ev[Ev.CAUSE]
    z.ev[Ev.CAUSE] = Cause.RECLAIM
    while freed < want:
        owner = OWNER_COLD if nr_folios(node, OWNER_COLD) > 0 else OWNER_HOT
        if nr_folios(node, owner) == 0:
            break
        freed += reclaim_run(z, policy, node, owner, want - freed, freed == 0)
    z.ev[Ev.CAUSE] = cause
    return freed
