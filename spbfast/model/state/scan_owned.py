"""Compiled walkers of check.py over pageblocks that CPUs own: what rests where, and what is to be taken back.

They run after the lists of pages were found sound (finding.py says what the walkers share).
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import NR_REQUEST_MT, NR_RESTING_LISTS, NR_RESTING_ORDERS, PB_ORDER
from spbfast.jit.decorators import entry_kernel, kernel
from spbfast.model.state.finding import STATE, UNKNOWN, Rule, find
from spbfast.model.state.layout import FIELDS
from spbfast.model.state.page_state import CODE_OWNED, code_of, next_of, state_at

PB_NEXT, PB_PREV, PB_OWNER = (
    [field.path for field in FIELDS].index(path) for path in ("pb.next", "pb.prev", "pb.owner")
)


@kernel
def check_block_of_owner(page, pb, pfn, cpu, order, mt, finding):
    """A block on a list of an owner: of a pageblock that is the CPU's, labelled so, and merged."""
    at = pfn >> PB_ORDER
    if pb.label[at] != mt:
        return find(finding, Rule.OWNED, STATE, pfn, UNKNOWN, state_at(page, pfn))
    if pb.owner[at] != cpu + 1:
        return find(finding, Rule.OWNED, PB_OWNER, at, cpu + 1, pb.owner[at])
    if order < PB_ORDER and state_at(page, pfn ^ (1 << order)) == state_at(page, pfn):
        return find(finding, Rule.OWNED, STATE, pfn, UNKNOWN, state_at(page, pfn))
    return 0


@kernel
def check_resting(page, pb, geo, nr_pages, finding):
    """Every block at rest: counted, and if it rests with its owner, rightly so."""
    for i in range(geo.nr_cpus * NR_RESTING_LISTS):
        cpu = i // NR_RESTING_LISTS
        mt = (i // NR_RESTING_ORDERS) % NR_REQUEST_MT
        head = geo.resting0 + i
        pfn = next_of(page, head)
        while pfn != head:
            nr_pages[pfn >> geo.spb_shift] += 1 << (i % NR_RESTING_ORDERS)
            if code_of(state_at(page, pfn)) == CODE_OWNED:
                if check_block_of_owner(page, pb, pfn, cpu, i % NR_RESTING_ORDERS, mt, finding):
                    return 1
            pfn = next_of(page, pfn)
    return 0


@kernel
def check_fragment_link(pb, geo, at, i, finding):
    """The link from `at` to the next member of the i-th list, and whether it belongs there."""
    after = np.int64(pb.next[at])
    if after < 0 or after >= pb.next.shape[0] or (after >= geo.nr_pb and after != geo.nr_pb + i):
        return find(finding, Rule.LINK, PB_NEXT, at, UNKNOWN, after)
    if pb.prev[after] != at:
        before = np.int64(pb.prev[after])
        # Two links disagree: a third tells which of them is wrong.
        back = 0 <= before < pb.next.shape[0] and pb.next[before] == after
        if back or before < 0:
            return find(finding, Rule.LINK, PB_NEXT, at, UNKNOWN, after)
        return find(finding, Rule.LINK, PB_PREV, after, at, before)
    if after >= geo.nr_pb:
        return 0
    if pb.owner[after] != i // NR_REQUEST_MT + 1:
        return find(finding, Rule.OWNED, PB_OWNER, after, i // NR_REQUEST_MT + 1, pb.owner[after])
    if pb.label[after] != i % NR_REQUEST_MT:
        return find(finding, Rule.OWNED, PB_NEXT, at, UNKNOWN, after)
    return 0


@kernel
def check_fragment_lists(pb, geo, finding):
    """Every list of pageblocks with fragments to take back is circular; pageblocks on none of them say so."""
    nr = 0
    for i in range(geo.nr_cpus * NR_REQUEST_MT):
        at = np.int64(geo.nr_pb + i)
        while True:
            if check_fragment_link(pb, geo, at, i, finding):
                return 1
            at = np.int64(pb.next[at])
            if at >= geo.nr_pb:
                break
            nr += 1
    for at in range(geo.nr_pb):
        if pb.next[at] == -1 and pb.prev[at] == -1:
            continue
        nr -= 1
        linked = 0 <= pb.next[at] < pb.next.shape[0] and 0 <= pb.prev[at] < pb.next.shape[0]
        if not linked or pb.prev[pb.next[at]] != at or pb.next[pb.prev[at]] != at:
            field = PB_NEXT if pb.next[at] != -1 else PB_PREV
            return find(finding, Rule.LINK, field, at, UNKNOWN, pb.next[at])
    return 0 if nr == 0 else find(finding, Rule.LINK, PB_NEXT, 0, UNKNOWN, nr)


@entry_kernel
def check_owned(z, nr_pages, finding):
    """Owned pageblocks: what rests, and the lists of those with fragments to take back.

    Pages at rest are added to `nr_pages` by superpageblock. 1 if something is wrong.
    """
    if check_resting(z.page, z.pb, z.geo, nr_pages, finding):
        return 1
    return check_fragment_lists(z.pb, z.geo, finding)
