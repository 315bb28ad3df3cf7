"""Contiguous allocation of one whole superpageblock (1 GiB), and its return (docs/spec/exact.md B.9).

An empty superpageblock is taken as it is; otherwise clean ones, emptiest first, are emptied by migration.
While held, a superpageblock is isolated: no walk visits it, and no content count includes its pages.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import (
    LIST_CLEAN,
    LIST_EMPTY,
    LIST_ISOLATED,
    MAX_EVACUATE_SPBS,
    MAX_ORDER,
    NR_BUCKETS,
    PB_ORDER,
    PB_PAGES,
    Ev,
    Outcome,
    P,
)
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.buddy import free_piece
from spbfast.model.allocator.choose import count_visits
from spbfast.model.allocator.free import hand_out
from spbfast.model.allocator.freelist import del_from_free_list
from spbfast.model.allocator.migrate import migrate_pageblock
from spbfast.model.allocator.pcp import drain_all
from spbfast.model.allocator.pfn import first_page
from spbfast.model.allocator.pick import is_live
from spbfast.model.allocator.settle import place_spb
from spbfast.model.allocator.spb import account_pages, move_spb, rate_list
from spbfast.model.state.page_state import CODE_CONTIG, order_of, set_tail, state_at
from spbfast.model.state.trace import Cause


@kernel
def find_empty_full_length(z):
    """First empty superpageblock of full length, or -1."""
    for slot in range(z.index.tail[LIST_EMPTY]):
        if is_live(z.index, LIST_EMPTY, slot):
            spb = np.int64(z.index.spb[LIST_EMPTY, slot])
            if z.spb.full_length[spb]:
                return spb
    return np.int64(-1)


@kernel
def find_emptiest_clean(z, policy):
    """Full-length clean superpageblocks, emptiest first, into `scratch`; their number."""
    most = min(policy[P.contig_max_candidates], MAX_EVACUATE_SPBS)
    nr = 0
    for lst in range(LIST_CLEAN + NR_BUCKETS - 1, LIST_CLEAN - 1, -1):
        for slot in range(z.index.tail[lst]):
            if nr == most:
                return nr
            if is_live(z.index, lst, slot):
                spb = np.int64(z.index.spb[lst, slot])
                if z.spb.full_length[spb]:
                    z.scratch[nr] = spb
                    nr += 1
    return nr


@kernel
def first_to_empty(z, policy):
    """The superpageblock that a request would empty first; -1 if one is empty or none can be."""
    if find_empty_full_length(z) >= 0 or find_emptiest_clean(z, policy) == 0:
        return np.int64(-1)
    return np.int64(z.scratch[0])


@kernel
def migrate_spb(z, policy, spb):
    """Migrate everything out of a clean superpageblock and drain per-CPU lists; 1 if it all went."""
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    z.ev[Ev.CAUSE] = Cause.CONTIG
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        if not migrate_pageblock(z, policy, pb, True):
            z.ev[Ev.CAUSE] = 0
            return 0
    # What was freed may rest on per-CPU lists, whose pages nobody can move.
    for cpu in range(z.geo.nr_cpus):
        drain_all(z, policy, cpu)
    z.ev[Ev.CAUSE] = 0
    return 1 if z.spb.nr_free_pb[spb] == z.spb.total[spb] else 0


@kernel
def grab_spb(z, spb, owner, slot):
    """Take all blocks of an empty superpageblock off the lists and isolate it; its first page."""
    start = first_page(z.geo, spb)
    for pfn in range(start, start + (1 << z.geo.spb_shift), 1 << MAX_ORDER):
        order = order_of(state_at(z.page, pfn))
        del_from_free_list(z, pfn, order, np.int64(z.pb.label[pfn >> PB_ORDER]))
        account_pages(z, pfn, -(1 << order))
        hand_out(z, pfn, order, CODE_CONTIG, owner, slot)
    hand_out(z, start, MAX_ORDER, CODE_CONTIG, owner, slot)
    move_spb(z, spb, LIST_ISOLATED)
    z.ev[Ev.DIRTY] = 0
    return start


@kernel
def alloc_contig(z, policy, owner, slot):
    """Allocate one whole superpageblock to an owner's slot; its first page, or -1."""
    if not policy[P.contig]:
        return np.int64(-1)
    spb = find_empty_full_length(z)
    if spb >= 0:
        z.ev[Ev.OUTCOME] = Outcome.CONTIG_EMPTY
        return grab_spb(z, spb, owner, slot)
    nr = find_emptiest_clean(z, policy)
    for i in range(nr):
        count_visits(z, Outcome.CONTIG_EMPTIED, 1, Ev.VISITED)
        if migrate_spb(z, policy, z.scratch[i]):
            z.ev[Ev.OUTCOME] = Outcome.CONTIG_EMPTIED
            return grab_spb(z, z.scratch[i], owner, slot)
    return np.int64(-1)


@kernel
def free_contig(z, policy, pfn):
    """Return a held superpageblock: pageblock by pageblock, ascending, then one settling."""
    for head in range(pfn, pfn + (1 << z.geo.spb_shift), 1 << MAX_ORDER):
        set_tail(z.page, head)
    for head in range(pfn, pfn + (1 << z.geo.spb_shift), PB_PAGES):
        free_piece(z, head, PB_ORDER, False)
    z.ev[Ev.DIRTY] = 0
    spb = pfn >> z.geo.spb_shift
    place_spb(z, policy, spb, rate_list(z, spb))
