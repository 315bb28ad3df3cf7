"""What an event's migrations cost, and their counters: shared by every worker that moves pages."""

from __future__ import annotations

from spbfast.constants import PB_PAGES, Ev
from spbfast.jit.decorators import kernel
from spbfast.model.state.node import N
from spbfast.model.state.vmstat import V, Vo


@kernel
def account_moves(w):
    """Count the moves of an event; their cost in ns."""
    z, node = w.zone, w.node
    huge = z.ev[Ev.MOVED_HUGE]
    cost = huge * node.conf[N.MIGRATE_THP_COST]
    cost += (z.ev[Ev.MOVED_PAGES] - PB_PAGES * huge) * node.conf[N.MIGRATE_PAGE_COST]
    node.vm[V.PGMIGRATE_SUCCESS] += z.ev[Ev.MOVED_PAGES]
    node.vm[V.PGMIGRATE_FAIL] += z.ev[Ev.FAILED_MOVES] + z.ev[Ev.PINNED_MOVES] + z.ev[Ev.BUSY_MOVES]
    node.vm[V.PAGE_EVENTS] += 2 * z.ev[Ev.MOVED_BLOCKS]
    node.vm[V.MIGRATE_NS] += cost
    node.vm[Vo.THP_MIGRATION_SPLIT] += z.ev[Ev.SPLIT_HUGE]
    node.vm[Vo.PAGECACHE_MIGRATION_SPLIT] += z.ev[Ev.SPLIT_CACHE]
    return cost
