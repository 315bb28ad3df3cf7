"""The pace of compaction inside clean superpageblocks; within.py does it."""

from __future__ import annotations

from spbfast.constants import MOVABLE, Ev
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.state.node import NEVER, N, Now, V, Wk
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.within import compact_spb, needs_compaction


@kernel
def run_within(z, policy, node, shrink):
    """Compact inside the clean superpageblocks that need it, ascending; no pageblock freed means a pause."""
    now = node.now[Now.NS]
    interval = node.conf[N.WITHIN_INTERVAL]
    node.due[Wk.WITHIN] = now + interval if interval > 0 else NEVER
    few, least = node.conf[N.WITHIN_FREE_PB], node.conf[N.WITHIN_FRAGMENTS]
    for spb in range(z.geo.nr_spb):
        if now < node.within[spb] or not needs_compaction(z, spb, few, least):
            continue
        begin_event(z, 0)
        freed = compact_spb(z, policy, spb, node.conf[N.WITHIN_PAGEBLOCKS], few, least)
        node.vm[V.SPB_COMPACT_RAN] += 1
        node.vm[V.SPB_COMPACT_PAGES] += z.ev[Ev.MOVED_PAGES]
        node.vm[V.SPB_COMPACT_FREED] += freed
        node.vm[V.COMPACT_MIGRATE_SCANNED] += z.ev[Ev.MIGRATE_SCANNED]
        node.vm[V.COMPACT_FREE_SCANNED] += z.ev[Ev.FREE_SCANNED]
        cost = account_moves(z, node)
        node.within[spb] = now + (cost if freed else node.conf[N.WITHIN_COOLDOWN])
        defer_requests(z, policy, node, shrink, MOVABLE)
