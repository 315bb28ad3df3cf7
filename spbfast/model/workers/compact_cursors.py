"""Where the two scanners of compaction stand: cursors kept between runs, skip bits, and when both start anew.

Owns `Node.skip` and the kept columns of `Node.compact`. Source: mm/compaction.c as of Linux 6.6,
update_cached_migrate, update_pageblock_skip, reset_cached_positions, __reset_isolation_suitable. Model:
whether a pageblock holds pages on the LRU is read off its count of movable pages, not off a sample of its
pages; proactive compaction does not exist.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import COSTLY_ORDER, MOVABLE, NR_REQUEST_MT, PB_ORDER, PB_PAGES
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.state.compact_layout import Cc
from spbfast.model.state.page_state import block_order, is_free_head, state_at


@inline_kernel
def first_in_pageblock(pfn):
    """First page of a page's pageblock."""
    return pfn >> PB_ORDER << PB_ORDER


@inline_kernel
def is_pageblock_start(pfn):
    """Whether a page is the first of its pageblock."""
    return pfn & (PB_PAGES - 1) == 0


@inline_kernel
def first_source(z):
    """Where the migrate scanner begins: the zone's first pageblock."""
    return first_in_pageblock(z.geo.lo)


@inline_kernel
def last_target(z):
    """Where the free scanner begins: the zone's last pageblock."""
    return first_in_pageblock(z.geo.hi - 1)


@inline_kernel
def has_met(cc):
    """Whether the free scanner is in the migrate scanner's pageblock or below (compact_scanners_met)."""
    return cc[Cc.FREE] >> PB_ORDER <= cc[Cc.MIGRATE] >> PB_ORDER


@inline_kernel
def is_unsplit_huge(z, pb):
    """Whether a pageblock begins with a block in use of its own size or more (pageblock_skip_persistent)."""
    state = state_at(z.page, pb << PB_ORDER)
    return not is_free_head(state) and block_order(state) >= PB_ORDER


@kernel
def set_cached_migrate(cc, pfn):
    """The migrate scanner is done up to `pfn`: later runs begin behind the pageblock of that page.

    Source: update_cached_migrate, which rounds up even from the start of a pageblock.
    """
    end = first_in_pageblock(pfn) + PB_PAGES
    cc[Cc.CACHED_MIGRATE_ASYNC] = max(cc[Cc.CACHED_MIGRATE_ASYNC], end)
    if cc[Cc.SYNC]:
        cc[Cc.CACHED_MIGRATE_SYNC] = max(cc[Cc.CACHED_MIGRATE_SYNC], end)


@kernel
def set_scanned_target(node, pb):
    """The free scanner has seen all of a pageblock: skip it, go on below it next time."""
    cc = node.compact
    node.skip[pb] = 1
    cc[Cc.CACHED_FREE] = min(cc[Cc.CACHED_FREE], (pb - 1) << PB_ORDER)


@kernel
def set_cursors_to_ends(z, cc):
    """The next run begins at the zone's ends (reset_cached_positions)."""
    cc[Cc.CACHED_MIGRATE_ASYNC] = first_source(z)
    cc[Cc.CACHED_MIGRATE_SYNC] = first_source(z)
    cc[Cc.CACHED_FREE] = last_target(z)


@kernel
def set_scanners(z, cc):
    """Place the scanners at the beginning of a run: at the ends, or where the last runs stopped."""
    lo, hi = first_source(z), z.geo.hi
    if cc[Cc.FORCED]:
        cc[Cc.MIGRATE] = lo
        cc[Cc.FREE] = last_target(z)
        return
    if cc[Cc.CACHED_FREE] < lo or cc[Cc.CACHED_FREE] >= hi:
        cc[Cc.CACHED_FREE] = last_target(z)
    migrate = cc[Cc.CACHED_MIGRATE_SYNC if cc[Cc.SYNC] else Cc.CACHED_MIGRATE_ASYNC]
    if migrate < lo or migrate >= hi:
        migrate = lo
        cc[Cc.CACHED_MIGRATE_ASYNC] = lo
        cc[Cc.CACHED_MIGRATE_SYNC] = lo
    cc[Cc.MIGRATE] = migrate
    cc[Cc.FREE] = cc[Cc.CACHED_FREE]


# --- forgetting skip bits -----------------------------------------------------------------------


@kernel
def has_sampled_free(z, pb):
    """Whether one page in eight of a pageblock heads a free block, as far as they are looked at."""
    used = np.int64(0)
    for mt in range(NR_REQUEST_MT):
        used += z.pb.used[pb, mt]
    if used >= PB_PAGES:
        return False
    first = pb << PB_ORDER
    for pfn in range(first, first + PB_PAGES, 1 << COSTLY_ORDER):
        if is_free_head(state_at(z.page, pfn)):
            return True
    return False


@kernel
def clear_skip(z, skip, pb, as_source, as_target):
    """Forget a pageblock's skip bit if it is of use now; whether it may be a starting point."""
    if is_unsplit_huge(z, pb):
        return False
    if as_source and as_target and skip[pb] == 0:
        return True
    if not as_source and z.pb.label[pb] != MOVABLE:
        return False
    if (as_source and z.pb.used[pb, MOVABLE] > 0) or (as_target and has_sampled_free(z, pb)):
        skip[pb] = 0
        return True
    return False


@kernel
def forget_skips(z, node):
    """Forget the skip bits of pageblocks that are of use again, if a full run ended since, and start there.

    Source: __reset_isolation_suitable; both ends come inwards in step.
    """
    cc, skip = node.compact, node.skip
    if cc[Cc.BLOCKSKIP_FLUSH] == 0:
        return
    cc[Cc.BLOCKSKIP_FLUSH] = 0
    source = first_source(z) >> PB_ORDER
    target = last_target(z) >> PB_ORDER
    first, last = target, source
    has_source, has_target = False, False
    while source < target:
        if clear_skip(z, skip, source, True, has_source) and source < first:
            has_source = True
            first = source
            cc[Cc.CACHED_MIGRATE_ASYNC] = source << PB_ORDER
            cc[Cc.CACHED_MIGRATE_SYNC] = source << PB_ORDER
        if clear_skip(z, skip, target, has_target, True) and target > last:
            has_target = True
            last = target
            cc[Cc.CACHED_FREE] = target << PB_ORDER
            cc[Cc.INIT_FREE] = target << PB_ORDER
        source += 1
        target -= 1
    if first >= last:
        cc[Cc.CACHED_MIGRATE_ASYNC] = source << PB_ORDER
        cc[Cc.CACHED_MIGRATE_SYNC] = source << PB_ORDER
        cc[Cc.CACHED_FREE] = target << PB_ORDER
