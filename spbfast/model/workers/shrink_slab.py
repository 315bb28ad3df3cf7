"""Slab shrinking by kswapd and direct reclaim: which memcgs are visited, and at which priority.

Owns the state of kswapd's pass. What a shrinker scans and frees is decided in shrink.py, by the arithmetic
that the slab-shrink worker has, and with the same backlogs. `reclaim.shrink_slab` says whose walk it is.
Source: balance_pgdat, kswapd_shrink_node, shrink_node_memcgs and do_try_to_free_pages for the classic LRU;
set_initial_priority, shrink_many and shrink_one for MGLRU (mm/vmscan.c).

Model: page cache is charged to no memcg, so each is taken to have an equal part of it, and what is scanned is
reclaimed. A classic pass shrinks slab when it begins, where the kernel takes turns with page cache, memcg by
memcg. Callers that may not enter the file system (GFP_NOFS) shrink like others.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import DEF_PRIORITY
from spbfast.jit.decorators import bit_length, inline_kernel, kernel
from spbfast.model.holders.slab import enter_cpu, free_emptied
from spbfast.model.state.node import SHRINK_CLASSIC, SHRINK_MGLRU, SHRINK_NONE, Ca, N, Now
from spbfast.model.state.shrink_layout import R
from spbfast.model.state.slab_layout import St
from spbfast.model.state.vmstat import V, Vo
from spbfast.model.workers.scan_balance import nr_anon, nr_cached, nr_scanned
from spbfast.model.workers.shrink import shrink_memcg

LEAST_INITIAL = DEF_PRIORITY // 2  # of MGLRU
MIN_LRU_BATCH = 64  # smaller goals begin at DEF_PRIORITY


@kernel
def shrink_memcgs(w, policy, nr, prio):
    """shrink_slab of the next nr memcgs, in a circle: (pages that came back, cost in ns)."""
    node, slab, shrink = w.node, w.slab, w.shrink
    run = shrink.run
    run[: R.NR_RUNS] = 0
    pages = slab.stat[St.PAGES_FREED]
    enter_cpu(slab, 0)
    for _ in range(nr):
        memcg = node.now[Now.SHRINK_MEMCG] % shrink.online.shape[0]
        node.now[Now.SHRINK_MEMCG] = memcg + 1
        shrink_memcg(shrink, slab, w.standins, memcg, 0, prio)
    node.vm[V.PAGE_EVENTS] += free_emptied(w.zone, policy, slab)
    pages = slab.stat[St.PAGES_FREED] - pages
    node.vm[V.PGFREE] += pages
    node.vm[V.SLABS_SCANNED] += run[R.SCANNED]
    node.vm[Vo.RECLAIM_SLAB_MEMCGS] += nr
    node.vm[Vo.RECLAIM_SLAB_FREED] += run[R.FREED]
    node.vm[Vo.RECLAIM_SLAB_PAGES] += pages
    cost = run[R.COUNTS] * node.conf[N.SHRINK_COUNT_COST] + run[R.SCANNED] * node.conf[N.SHRINK_OBJECT_COST]
    return pages, cost


@inline_kernel
def nr_memcgs(w):
    """Memcgs whose slab a whole pass shrinks."""
    return np.int64(w.shrink.online.shape[0])


@inline_kernel
def nr_evictable(w):
    """Pages that a pass of MGLRU scans at priority 0 (lruvec_evictable_size)."""
    return nr_cached(w.node) + nr_anon(w)


@kernel
def rate_initial_priority(w):
    """Priority at which MGLRU begins: a pass then scans about what is wanted (set_initial_priority)."""
    want = w.node.conf[N.WMARK_HIGH]
    if want < MIN_LRU_BATCH:
        return np.int64(DEF_PRIORITY)
    prio = bit_length(w.node.cache[Ca.COLD_PAGES] + nr_anon(w)) - 1 - bit_length(want - 1)
    return np.int64(min(max(prio, LEAST_INITIAL), DEF_PRIORITY))


@kernel
def begin_passes(w, policy):
    """kswapd starts to balance: its first priority, and a classic pass's slab; the cost in ns."""
    node = w.node
    mode = node.conf[N.SHRINK_SLAB]
    node.now[Now.PASS_PAGES] = 0
    node.now[Now.PASS_MEMCGS] = 0
    node.now[Now.KSWAPD_PRIO] = rate_initial_priority(w) if mode == SHRINK_MGLRU else DEF_PRIORITY
    if mode != SHRINK_CLASSIC:
        return np.int64(0)
    return shrink_memcgs(w, policy, nr_memcgs(w), np.int64(DEF_PRIORITY))[1]


@inline_kernel
def rate_pass(w):
    """Pages that a classic pass at the current priority scans, at most what kswapd wants in all."""
    return max(min(nr_scanned(w) >> w.node.now[Now.KSWAPD_PRIO], w.node.conf[N.WMARK_HIGH]), 1)


@inline_kernel
def raise_priority(node, scanned):
    """The next pass is at a lower number if this one scanned less than kswapd wants (kswapd_shrink_node)."""
    if scanned < node.conf[N.WMARK_HIGH] and node.now[Now.KSWAPD_PRIO] > 1:
        node.now[Now.KSWAPD_PRIO] -= 1


@kernel
def shrink_classic(w, policy, freed, want):
    """Passes that end with the pages just reclaimed, and the slab of those that begin; the cost in ns.

    `want` pages are wanted still: without any no further pass begins.
    """
    node = w.node
    cost = np.int64(0)
    node.now[Now.PASS_PAGES] += freed
    scans = rate_pass(w)
    while node.now[Now.PASS_PAGES] >= scans and want > 0:
        node.now[Now.PASS_PAGES] -= scans
        raise_priority(node, scans)
        pages, spent = shrink_memcgs(w, policy, nr_memcgs(w), node.now[Now.KSWAPD_PRIO])
        want -= pages
        cost += spent
        scans = rate_pass(w)
    return cost


@kernel
def shrink_mglru(w, policy, freed):
    """The slab of the memcgs whose part of the page cache was just reclaimed, one by one; the cost in ns."""
    node = w.node
    cost = np.int64(0)
    node.now[Now.PASS_PAGES] += freed * nr_memcgs(w)
    scans = max(nr_evictable(w) >> node.now[Now.KSWAPD_PRIO], 1)
    while node.now[Now.PASS_PAGES] >= scans:
        node.now[Now.PASS_PAGES] -= scans
        cost += shrink_memcgs(w, policy, 1, node.now[Now.KSWAPD_PRIO])[1]
        node.now[Now.PASS_MEMCGS] += 1
        if node.now[Now.PASS_MEMCGS] >= nr_memcgs(w):
            node.now[Now.PASS_MEMCGS] = 0
            raise_priority(node, scans)
            scans = max(nr_evictable(w) >> node.now[Now.KSWAPD_PRIO], 1)
    return cost


@kernel
def shrink_beside_cache(w, policy, freed, want):
    """What kswapd shrinks as it reclaims `freed` pages of page cache, `want` more wanted; the cost in ns."""
    mode = w.node.conf[N.SHRINK_SLAB]
    if mode == SHRINK_CLASSIC:
        return shrink_classic(w, policy, freed, want)
    return shrink_mglru(w, policy, freed) if mode == SHRINK_MGLRU else np.int64(0)


@kernel
def shrink_without_cache(w, policy):
    """A pass of kswapd that found no page cache; its cost in ns, or -1 if there was none left to make."""
    node = w.node
    node.now[Now.KSWAPD_PRIO] -= 1
    if node.conf[N.SHRINK_SLAB] == SHRINK_NONE or node.now[Now.KSWAPD_PRIO] < 1:
        return np.int64(-1)
    return shrink_memcgs(w, policy, nr_memcgs(w), node.now[Now.KSWAPD_PRIO])[1]


@kernel
def shrink_direct(w, policy, freed):
    """What a round of direct reclaim shrinks after `freed` pages of page cache; pages that came back.

    Its walk ends with the first memcg if the page cache gave all that was wanted. If not, all are visited,
    and again at lower numbers (do_try_to_free_pages).
    """
    node = w.node
    if node.conf[N.SHRINK_SLAB] == SHRINK_NONE:
        return np.int64(0)
    want = node.conf[N.RECLAIM_BATCH] - freed
    if want <= 0:
        return shrink_memcgs(w, policy, 1, np.int64(DEF_PRIORITY))[0]
    pages = np.int64(0)
    for prio in range(DEF_PRIORITY, -1, -1):
        pages += shrink_memcgs(w, policy, nr_memcgs(w), prio)[0]
        if pages >= want:
            break
    return pages
