"""How reclaim divides what it takes between anonymous memory and page cache.

Owns the division. The page cache decides what of it goes (holders/reclaim.py), and so does anonymous memory
(holders/swap.py). Without swap all is page cache.
Source: get_scan_count and calculate_pressure_balance (mm/vmscan.c).

Model: both cost the same to bring back, and what is scanned is reclaimed. SCAN_FRACT then takes of each list
in proportion to its length, times swappiness for anonymous memory and 200 - swappiness for page cache: ap and
fp. Without room in swap it is SCAN_FILE, and without page cache SCAN_ANON. MGLRU is taken to divide alike;
the kernel's weighs refaults (get_type_to_scan). Not modelled: cache_trim_mode, SCAN_EQUAL at priority 0.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import C
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.holders.inode_scan import page_cache_reclaimed
from spbfast.model.holders.reclaim import reclaim_pages
from spbfast.model.holders.swap import can_reclaim_anon, swap_out
from spbfast.model.state.node import Ca, N, Sw

MAX_SWAPPINESS = 200


@inline_kernel
def nr_cached(node):
    """Pages of page cache."""
    return node.cache[Ca.COLD_PAGES] + node.cache[Ca.HOT_PAGES]


@inline_kernel
def nr_anon(w):
    """Anonymous pages that reclaim may take."""
    return w.zone.count[C.ANON_PAGES] if can_reclaim_anon(w.zone, w.node) else np.int64(0)


@kernel
def nr_scanned(w):
    """Pages that a pass of the classic LRU scans at priority 0: of each list what ap and fp leave of it."""
    anon, cached = nr_anon(w), nr_cached(w.node)
    if anon == 0:
        return cached
    swappiness = w.node.conf[N.SWAPPINESS]
    return (anon * swappiness + cached * (MAX_SWAPPINESS - swappiness)) // MAX_SWAPPINESS


@kernel
def nr_owed(w, want):
    """The part of `want` pages that anonymous memory gives, its overdraft made up first; it is owed then."""
    anon = nr_anon(w) * w.node.conf[N.SWAPPINESS]
    if anon == 0:
        return np.int64(0)
    cached = nr_cached(w.node) * (MAX_SWAPPINESS - w.node.conf[N.SWAPPINESS])
    w.node.swap[Sw.OWED] += want * ((anon << 16) // (anon + cached))
    return max(w.node.swap[Sw.OWED] >> 16, 0)


@kernel
def reclaim_cache(w, policy, want):
    """Reclaim page cache until `want` pages are free or none is left; pages freed."""
    freed = reclaim_pages(w.zone, policy, w.node, want)
    page_cache_reclaimed(w.slab, freed)
    return freed


@kernel
def reclaim_with_swap(w, policy, want):
    """Reclaim of both kinds; pages freed. A huge page is more than its part: so many fewer go next time."""
    z, node = w.zone, w.node
    owed = nr_owed(w, want)
    freed = swap_out(z, policy, node, owed) if owed > 0 else np.int64(0)
    # What could not be had now is not owed later.
    node.swap[Sw.OWED] = min(node.swap[Sw.OWED] - (freed << 16), 0xFFFF)
    if freed < want:
        freed += reclaim_cache(w, policy, want - freed)
    if freed < want:
        freed += swap_out(z, policy, node, want - freed)
    return freed


@inline_kernel
def reclaim_both(w, policy, want):
    """Reclaim anonymous memory and page cache until `want` pages are free or nothing is left; pages freed."""
    if w.node.conf[N.SWAP_PAGES] == 0:
        return reclaim_cache(w, policy, want)
    return reclaim_with_swap(w, policy, want)
