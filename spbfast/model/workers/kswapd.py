"""kswapd: reclaims to the boosted high watermark, at a bounded rate; direct reclaim; watermark boosts.

Owns its waking and pacing, how much a fragmenting claim boosts the watermarks, and the boost's end. What
is reclaimed is decided in scan_balance.py, what becomes of slab meanwhile in shrink_slab.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import NS_PER_TICK, PB_PAGES, C, Ev
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.barred import nr_free_for_kswapd
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.state.vmstat import V
from spbfast.model.workers.scan_balance import reclaim_both
from spbfast.model.workers.shrink_slab import (
    begin_passes,
    shrink_beside_cache,
    shrink_direct,
    shrink_without_cache,
)

BOOST_PERCENT = 150  # watermark_boost_factor: of the high watermark


@inline_kernel
def wake_kswapd(w, policy):
    """Start kswapd if it sleeps and usable free pages are below its boosted mark (wakeup_kswapd).

    The kernel's mark is high: it asks pgdat_balanced. Model: nobody asks if a block of the order is free.
    """
    z, node = w.zone, w.node
    if node.due[Wk.KSWAPD] != NEVER:
        return
    mark = node.conf[N.WMARK_HIGH if node.conf[N.WAKES_AT_HIGH] else N.WMARK_LOW]
    if nr_free_for_kswapd(w, policy) < mark + z.count[C.WATERMARK_BOOST]:
        node.due[Wk.KSWAPD] = node.now[Now.NS] + node.conf[N.KSWAPD_DELAY]
        node.vm[V.PAGEOUTRUN] += 1


@kernel
def boost_watermarks(w):
    """Raise all watermarks for the fragmenting claims of an event, and wake kswapd (boost_watermark).

    Model: boot raises none. kswapd would have lowered them again by its end, and it does not run then.
    """
    z, node = w.zone, w.node
    nr = z.ev[Ev.NR_BOOSTS]
    z.ev[Ev.NR_BOOSTS] = 0
    if not node.now[Now.BOOT_DONE] or z.geo.nr_managed < 4 * PB_PAGES:
        return
    most = max(node.conf[N.WMARK_HIGH] * BOOST_PERCENT // 100, PB_PAGES)
    z.count[C.WATERMARK_BOOST] = min(z.count[C.WATERMARK_BOOST] + nr * PB_PAGES, most)
    node.vm[V.WATERMARK_BOOSTED] += nr
    if node.due[Wk.KSWAPD] == NEVER:
        node.due[Wk.KSWAPD] = node.now[Now.NS] + node.conf[N.KSWAPD_DELAY]
        node.vm[V.PAGEOUTRUN] += 1


@kernel
def end_reclaim(w):
    """kswapd is done: what was boosted before has had its effect, per-CPU lists may grow again."""
    z = w.zone
    z.count[C.RECLAIM_ACTIVE] = 0
    if z.count[C.WATERMARK_BOOST] > 0:
        z.count[C.WATERMARK_BOOST] = 0
        w.node.vm[V.WATERMARK_BOOST_CLEARED] += 1


@inline_kernel
def nr_wanted(w, policy):
    """Pages that kswapd must free until the boosted high watermark is reached."""
    mark = w.node.conf[N.WMARK_HIGH] + w.zone.count[C.WATERMARK_BOOST]
    return mark - nr_free_for_kswapd(w, policy)


@kernel
def balance_for_a_tick(w, policy, want):
    """Reclaim what one tick allows of the pages wanted; the time it took in ns, -1: nothing is left."""
    node = w.node
    page_cost = node.conf[N.KSWAPD_PAGE_COST]
    freed = reclaim_both(w, policy, min(want, max(NS_PER_TICK // page_cost, 1)))
    node.vm[V.PGSTEAL_KSWAPD] += freed
    if freed == 0:
        return shrink_without_cache(w, policy)
    return freed * page_cost + shrink_beside_cache(w, policy, freed, nr_wanted(w, policy))


@kernel
def run_kswapd(w, policy):
    """Reclaim what one tick allows; go on later until the boosted high watermark is reached."""
    z, node = w.zone, w.node
    node.due[Wk.KSWAPD] = NEVER
    want = nr_wanted(w, policy)
    if want <= 0:
        end_reclaim(w)
        return
    cost = np.int64(0) if z.count[C.RECLAIM_ACTIVE] else begin_passes(w, policy)
    z.count[C.RECLAIM_ACTIVE] = 1
    spent = balance_for_a_tick(w, policy, want)
    if spent < 0:
        node.vm[V.RECLAIM_FAILED] += 1
    elif nr_wanted(w, policy) > 0:
        node.due[Wk.KSWAPD] = node.now[Now.NS] + max(cost + spent, 1)
        return
    end_reclaim(w)


@inline_kernel
def rate_round(node, order):
    """Pages that a round of direct reclaim frees for a request, room to compact included (compact_gap)."""
    if not node.conf[N.COMPACT_GAP]:
        return node.conf[N.RECLAIM_BATCH]
    return max(node.conf[N.RECLAIM_BATCH], 2 << order)


@kernel
def reclaim_direct(w, policy, order):
    """One round of direct reclaim for a request of 2**order pages; pages freed."""
    node = w.node
    freed = reclaim_both(w, policy, rate_round(node, order))
    node.vm[V.PGSTEAL_DIRECT] += freed
    node.vm[V.DIRECT_RECLAIM_ROUNDS] += 1
    return freed + shrink_direct(w, policy, freed)
