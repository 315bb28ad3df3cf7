"""The migrate scanner: from the zone's start up, a cluster of movable blocks at a time.

Owns which pageblocks and blocks it takes. Source: mm/compaction.c as of Linux 6.6, isolate_migratepages,
isolate_migratepages_block, suitable_migration_source, skip_isolation_on_order. Model: nobody else runs
meanwhile, so an isolated block stays where it is and is only noted; fast_find_migrateblock, which looks for
a pageblock on the free lists first, does not exist; superpageblocks that are held whole are passed over.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CMA, ISOLATED, MOVABLE, PB_ORDER, PB_PAGES, TAINTED, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.resting import release_pageblock
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import category_of_list
from spbfast.model.state.compact_layout import Cc
from spbfast.model.state.page_state import CODE_MOVABLE, block_order, code_of, is_free_head, state_at
from spbfast.model.state.vmstat import V
from spbfast.model.workers.compact_cursors import (
    first_in_pageblock,
    is_pageblock_start,
    is_unsplit_huge,
    set_cached_migrate,
)

CLUSTER = 32  # COMPACT_CLUSTER_MAX


@kernel
def is_source(z, cc, pb):
    """Whether pages of a pageblock may be moved out (suitable_migration_source)."""
    if is_unsplit_huge(z, pb):
        return False
    if cc[Cc.SYNC] or not cc[Cc.DIRECT]:
        return True
    label = np.int64(z.pb.label[pb])
    if cc[Cc.MT] == MOVABLE:
        return label == MOVABLE or label == CMA
    return label == cc[Cc.MT]


@inline_kernel
def is_passed_over(z, policy, spb):
    """Whether the migrate scanner has no business in a superpageblock; outcome for all its pageblocks."""
    lst = np.int64(z.spb.list[spb])
    if lst < 0 or category_of_list(lst) == ISOLATED:
        return True
    if not policy[P.compaction_skips_immovable] or category_of_list(lst) != TAINTED:
        return False
    return z.spb.content[spb, MOVABLE] == 0


@inline_kernel
def is_isolatable(cc, state, order):
    """Whether a block in use can be moved for a block of the wanted order; pinned ones cannot."""
    return code_of(state) == CODE_MOVABLE and order < cc[Cc.ORDER] and order < PB_ORDER


@inline_kernel
def end_of_block(pfn, order):
    """First page behind the aligned block of 2**order pages that a page is in (block_end_pfn)."""
    return ((pfn >> order) + 1) << order


@inline_kernel
def add_picked(node, pfn, size):
    """Note a block to be migrated."""
    cc = node.compact
    node.picked[cc[Cc.NR_PICKED]] = pfn
    cc[Cc.NR_PICKED] += 1
    cc[Cc.NR_MIGRATE] += size


@inline_kernel
def drop_picked(cc):
    """Give back what this call isolated: the block of the wanted order cannot come about."""
    cc[Cc.NR_PICKED] = 0
    cc[Cc.NR_MIGRATE] = 0


@kernel
def release_owned(z, policy, pb):
    """A pageblock that a CPU owns is drained first and loses its owner, else its pages never merge."""
    if policy[P.pcp_owned_pageblocks] and z.pb.owner[pb]:
        release_pageblock(z, policy, pb)
        settle(z, policy, pb << PB_ORDER)


@kernel
def isolate_blocks(z, node, pfn, end):
    """Note movable blocks from `pfn` on, up to a cluster; (page to go on at, pages noted, pages looked at).

    Asynchronously on behalf of a request the aligned block of the wanted order is given up with the first
    page in it that cannot move (skip_on_failure), and a cluster ends with it.
    """
    cc = node.compact
    gives_up = cc[Cc.DIRECT] != 0 and cc[Cc.SYNC] == 0
    border = end_of_block(pfn, cc[Cc.ORDER])
    nr, scanned = np.int64(0), np.int64(0)
    while pfn < end:
        if gives_up and pfn >= border:
            if nr:
                break
            border = end_of_block(pfn, cc[Cc.ORDER])
        state = state_at(z.page, pfn)
        order = block_order(state)
        size = 1 if order < 0 else 1 << order
        scanned += size
        if order >= 0 and is_free_head(state):
            pfn += size
            continue
        if order >= 0 and is_isolatable(cc, state, order):
            add_picked(node, pfn, size)
            nr += size
            pfn += size
            if cc[Cc.NR_MIGRATE] >= CLUSTER and not cc[Cc.FINISH]:
                break
            continue
        pfn += size
        if gives_up:
            drop_picked(cc)
            nr = np.int64(0)
            pfn = max(pfn, border)
    return min(pfn, end), nr, scanned


@kernel
def isolate_sources_in(w, policy, pfn, end):
    """Isolate a cluster in one pageblock, and keep skip bit and cursors (isolate_migratepages_block)."""
    z, node = w.zone, w.node
    cc = node.compact
    pb = pfn >> PB_ORDER
    begins = is_pageblock_start(pfn)
    release_owned(z, policy, pb)
    pfn, nr, scanned = isolate_blocks(z, node, pfn, end)
    is_done = pfn == end and (nr == 0 or cc[Cc.FINISH] != 0)
    # The first page isolated of a pageblock sets its bit, unless bits are ignored; so does a vain scan.
    if begins and (not cc[Cc.FORCED] if nr > 0 else is_done):
        node.skip[pb] = 1
    if is_done:
        set_cached_migrate(cc, pfn)
    cc[Cc.SOURCES] += 1 if nr > 0 else 0
    cc[Cc.MIGRATE_SCANNED] += scanned
    cc[Cc.ISOLATED] += nr
    cc[Cc.MIGRATE] = pfn


@kernel
def isolate_sources(w, policy):
    """Isolate a cluster from the first suitable pageblock below the free scanner; whether there was any."""
    z, node = w.zone, w.node
    cc = node.compact
    shift = z.geo.spb_shift
    pfn = cc[Cc.MIGRATE]
    end = first_in_pageblock(pfn) + PB_PAGES
    while end <= cc[Cc.FREE]:
        pb = pfn >> PB_ORDER
        spb = pfn >> shift
        if is_passed_over(z, policy, spb):
            if policy[P.compaction_skips_immovable] and z.spb.list[spb] >= 0:
                node.vm[V.COMPACT_SKIPPED_SPBS] += 1
            end = min((spb + 1) << shift, first_in_pageblock(cc[Cc.FREE]))
        elif is_pageblock_start(pfn) and node.skip[pb] and not cc[Cc.FORCED]:
            pass
        elif not is_source(z, cc, pb):
            set_cached_migrate(cc, end)
        else:
            isolate_sources_in(w, policy, pfn, end)
            break
        pfn = end
        cc[Cc.MIGRATE] = pfn
        end += PB_PAGES
    return cc[Cc.NR_PICKED] > 0
