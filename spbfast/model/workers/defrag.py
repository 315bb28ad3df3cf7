"""Background defragmentation of one tainted superpageblock, in one call (docs/spec/exact.md B.8)."""

from __future__ import annotations

import numpy as np

from spbfast.constants import MOVABLE, PB_ORDER, PB_PAGES, Ev, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.migrate import evacuate_pageblock
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.allocator.spb import needs_defrag, rate_reserve
from spbfast.model.state.node import NEVER, Df, N, Now, Wk
from spbfast.model.state.trace import Cause
from spbfast.model.state.vmstat import V
from spbfast.model.workers.cost import account_moves
from spbfast.model.workers.defer import defer_requests


@inline_kernel
def is_defragmented(z, policy, spb):
    """Whether a superpageblock has enough free pageblocks again."""
    if policy[P.defrag_start_at_reserve]:
        return z.spb.nr_free_pb[spb] > rate_reserve(policy, np.int64(z.spb.total[spb]))
    return z.spb.nr_free_pb[spb] >= 2 or z.spb.nr_free_pages[spb] >= 3 * PB_PAGES


@kernel
def defrag_spb(z, policy, spb):
    """Evacuate pageblocks, ascending, until there is room; 1 if at least one block moved."""
    if not policy[P.defrag] or not needs_defrag(z, policy, spb):
        return 0
    z.ev[Ev.CAUSE] = Cause.DEFRAG
    nr_pb = 1 << (z.geo.spb_shift - PB_ORDER)
    for pb in range(spb * nr_pb, (spb + 1) * nr_pb):
        if is_defragmented(z, policy, spb):
            break
        if (z.pb.bits[pb] >> MOVABLE) & 1:
            z.ev[Ev.NR_PAGEBLOCKS] += 1
            evacuate_pageblock(z, policy, pb)
    z.ev[Ev.CAUSE] = 0
    return 1 if z.ev[Ev.MOVED_BLOCKS] > 0 else 0


@kernel
def run_defrag(w, policy):
    """Defragment the superpageblocks whose time has come, ascending; no progress means a pause."""
    z, node = w.zone, w.node
    now = node.now[Now.NS]
    node.due[Wk.DEFRAG] = NEVER
    for spb in range(z.geo.nr_spb):
        due = node.defrag[spb, Df.DUE]
        if due > now:
            node.due[Wk.DEFRAG] = min(node.due[Wk.DEFRAG], due)
            continue
        node.defrag[spb, Df.DUE] = NEVER
        begin_event(z, 0)
        moved = defrag_spb(z, policy, spb)
        node.vm[V.SPB_DEFRAG_RAN] += 1
        node.vm[V.SPB_DEFRAG_PAGES] += z.ev[Ev.MOVED_PAGES]
        cost = account_moves(w)
        node.defrag[spb, Df.READY] = now + (cost if moved else node.conf[N.DEFRAG_COOLDOWN])
        defer_requests(w, policy, MOVABLE)
