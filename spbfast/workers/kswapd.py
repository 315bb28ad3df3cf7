"""kswapd: reclaims page cache to the high watermark, at a bounded rate.

Owns its waking and pacing. What is reclaimed is the page cache's business; slab is only shrunk by the
superpageblock triggers (docs/model.md says why that is left so).
"""

from __future__ import annotations

from spbfast._jit import inline_kernel, kernel
from spbfast.constants import NS_PER_TICK, C
from spbfast.holders.inodes import page_cache_reclaimed
from spbfast.holders.pagecache import reclaim_pages
from spbfast.state.node import NEVER, N, Now, V, Wk


@inline_kernel
def wake_kswapd(z, node):
    """Start kswapd if free pages are below the low watermark and it sleeps."""
    if node.due[Wk.KSWAPD] == NEVER and z.count[C.FREE_PAGES] < node.conf[N.WMARK_LOW]:
        node.due[Wk.KSWAPD] = node.now[Now.NS] + node.conf[N.KSWAPD_DELAY]
        node.vm[V.PAGEOUTRUN] += 1


@kernel
def run_kswapd(z, policy, node, slab):
    """Reclaim what one tick allows; go on later until the high watermark is reached."""
    node.due[Wk.KSWAPD] = NEVER
    want = node.conf[N.WMARK_HIGH] - z.count[C.FREE_PAGES]
    if want <= 0:
        return
    cost = node.conf[N.KSWAPD_PAGE_COST]
    freed = reclaim_pages(z, policy, node, min(want, max(NS_PER_TICK // cost, 1)))
    page_cache_reclaimed(slab, freed)
    node.vm[V.PGSTEAL_KSWAPD] += freed
    if freed == 0:
        node.vm[V.RECLAIM_FAILED] += 1
    elif z.count[C.FREE_PAGES] < node.conf[N.WMARK_HIGH]:
        node.due[Wk.KSWAPD] = node.now[Now.NS] + freed * cost


@kernel
def reclaim_direct(z, policy, node, slab):
    """One round of direct reclaim; pages freed."""
    freed = reclaim_pages(z, policy, node, node.conf[N.RECLAIM_BATCH])
    page_cache_reclaimed(slab, freed)
    node.vm[V.PGSTEAL_DIRECT] += freed
    node.vm[V.DIRECT_RECLAIM_ROUNDS] += 1
    return freed
