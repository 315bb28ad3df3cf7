"""Slab caches: objects in slabs, partial lists, and slabs that come from and go back to the allocator.

Owns `Slab.cache` and the slab table. Never asks for pages: `take_object` says NEED_SLAB, the caller
requests pages, puts them into slot `next_slab_slot` of the cache's owner and calls `add_slab`. Slabs that
`put_object` empties are chained; whoever frees objects must call `free_emptied` afterwards. Of all this only
`free_emptied` needs the zone, so scans compile and run without its arrays.

One slab of a cache is being filled, by all CPUs together or by each its own, then the partial list is used
from its head; a full slab that loses an object joins the tail. An empty slab goes at once unless the list is
shorter than min_partial. Where CPUs have lists of their own (`Sc.CPU_SLABS`), a full slab that loses an
object joins the list of the CPU that frees it; a list that is full goes to the partial list as a whole.
Source: __slab_free, get_partial_node, put_cpu_partial, __put_partials (mm/slub.c, Linux 6.18).
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import Ev
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.free import free_slot
from spbfast.model.state.slab_layout import (
    END,
    IN_USE,
    LINK0,
    LIVE_MASK,
    OF_CPU,
    OFF_LIST,
    PREFERRED,
    Sc,
    Sp,
    St,
)
from spbfast.model.state.trace import Cause

NEED_SLAB = -1
NO_SLOT = -1


@inline_kernel
def nr_slab_objects(slab, c, state):
    """Objects that fit a slab of cache c in that state."""
    if state & PREFERRED:
        return slab.cache[c, Sc.OBJECTS]
    return slab.cache[c, Sc.MIN_OBJECTS]


@kernel
def _add_partial(slab, cache, slot):
    """Append a slab to the partial list of its cache, whose row is given."""
    tail = cache[Sc.TAIL]
    slab.next[slot] = END
    slab.prev[slot] = tail
    if tail == END:
        cache[Sc.HEAD] = slot + LINK0
    else:
        slab.next[tail - LINK0] = slot + LINK0
    cache[Sc.TAIL] = slot + LINK0
    cache[Sc.NR_PARTIAL] += 1


@kernel
def _del_partial(slab, cache, slot):
    after, before = np.int64(slab.next[slot]), np.int64(slab.prev[slot])
    if before == END:
        cache[Sc.HEAD] = after
    else:
        slab.next[before - LINK0] = after
    if after == END:
        cache[Sc.TAIL] = before
    else:
        slab.prev[after - LINK0] = before
    slab.next[slot] = OFF_LIST
    slab.prev[slot] = OFF_LIST
    cache[Sc.NR_PARTIAL] -= 1


@kernel
def enter_cpu(slab, cpu):
    """What is allocated and freed from now on is so on that CPU."""
    slab.stat[St.CPU_ROW] = cpu * slab.cache.shape[0] if slab.stat[St.NR_CPUS] > 1 else 0


@inline_kernel
def _cpu_row(slab, c):
    """Row of `Slab.cpu` of cache c on the CPU that was entered."""
    return slab.stat[St.CPU_ROW] + c


@kernel
def _take_head(slab, cache):
    """Take the head of the partial list off it: its slot; NEED_SLAB if the list is empty."""
    head = cache[Sc.HEAD]
    if head == END:
        return np.int64(NEED_SLAB)
    slot = head - LINK0
    _del_partial(slab, cache, slot)
    if np.int64(slab.state[slot]) & LIVE_MASK == 0:
        cache[Sc.KEPT] -= 1
    return slot


@kernel
def _push_cpu(slab, own, slot):
    """A slab on no list joins the list of a CPU, whose row is given."""
    slab.next[slot] = own[Sp.HEAD]
    slab.prev[slot] = OF_CPU
    own[Sp.HEAD] = slot + LINK0
    own[Sp.NR] += 1


@kernel
def _pop_cpu(slab, own):
    """Take the slab that joined a CPU's list last; there is one."""
    slot = own[Sp.HEAD] - LINK0
    own[Sp.HEAD] = np.int64(slab.next[slot])
    own[Sp.NR] -= 1
    slab.next[slot] = OFF_LIST
    slab.prev[slot] = OFF_LIST
    return slot


@kernel
def _refill_cpu(slab, cache, own):
    """Slabs of the partial list for a CPU's list, beside the one that it fills next."""
    nr = np.int64(0)
    while nr <= cache[Sc.CPU_SLABS] >> 1:
        slot = _take_head(slab, cache)
        if slot < 0:
            return
        _push_cpu(slab, own, slot)
        nr += 1


@kernel
def _next_current(slab, c):
    """The current slab is full: the slab that is filled next, or NEED_SLAB if there is none."""
    cache, own = slab.cache[c], slab.cpu[_cpu_row(slab, c)]
    if own[Sp.CURRENT] >= 0:
        slab.prev[own[Sp.CURRENT]] = OFF_LIST
    if own[Sp.NR] > 0:
        slot = _pop_cpu(slab, own)
    else:
        slot = _take_head(slab, cache)
        if slot >= 0 and cache[Sc.CPU_SLABS] > 0:
            _refill_cpu(slab, cache, own)
    own[Sp.CURRENT] = slot
    if slot >= 0:
        slab.prev[slot] = OF_CPU
    return slot


@inline_kernel
def take_object(slab, c):
    """Allocate an object of cache c. Returns its slab's slot, or NEED_SLAB."""
    slot = slab.cpu[_cpu_row(slab, c), Sp.CURRENT]
    if slot >= 0:
        state = np.int64(slab.state[slot])
        if state & LIVE_MASK >= nr_slab_objects(slab, c, state):
            slot = _next_current(slab, c)
    else:
        slot = _next_current(slab, c)
    if slot >= 0:
        slab.state[slot] += 1
        slab.cache[c, Sc.NR_OBJECTS] += 1
        slab.cache[c, Sc.ALLOCATED] += 1
    return slot


@kernel
def next_slab_slot(slab):
    """Slot that the next slab goes to, or NO_SLOT. Only looks: `add_slab` takes it."""
    if slab.stat[St.FREE_SLOTS] != END:
        return slab.stat[St.FREE_SLOTS] - LINK0
    if slab.stat[St.USED_SLOTS] < slab.state.shape[0]:
        return slab.stat[St.USED_SLOTS]
    return np.int64(NO_SLOT)


@kernel
def add_slab(slab, c, slot, order):
    """Pages of that order are in slot `next_slab_slot`: a slab of cache c, which is filled next."""
    cache = slab.cache[c]
    if slab.stat[St.FREE_SLOTS] == slot + LINK0:
        slab.stat[St.FREE_SLOTS] = np.int64(slab.next[slot])
        slab.next[slot] = OFF_LIST
    else:
        slab.stat[St.USED_SLOTS] += 1
    state = IN_USE | PREFERRED if order == cache[Sc.ORDER] else IN_USE
    slab.state[slot] = state
    own = slab.cpu[_cpu_row(slab, c)]
    current = own[Sp.CURRENT]
    if current >= 0:
        slab.prev[current] = OFF_LIST
        was = np.int64(slab.state[current])
        if was & LIVE_MASK < nr_slab_objects(slab, c, was):
            _add_partial(slab, cache, current)
            if was & LIVE_MASK == 0:
                cache[Sc.KEPT] += 1
    own[Sp.CURRENT] = slot
    slab.prev[slot] = OF_CPU
    cache[Sc.NR_SLABS] += 1
    cache[Sc.NR_PAGES] += np.int64(1) << order


@kernel
def _drop_slab(slab, c, slot):
    """An empty slab, on no list, is to be freed: note it for `free_emptied`."""
    cache = slab.cache[c]
    order = cache[Sc.ORDER] if np.int64(slab.state[slot]) & PREFERRED else cache[Sc.MIN_ORDER]
    pages = np.int64(1) << order
    slab.state[slot] = 0
    cache[Sc.NR_SLABS] -= 1
    cache[Sc.NR_PAGES] -= pages
    cache[Sc.SLABS_FREED] += 1
    cache[Sc.PAGES_FREED] += pages
    slab.stat[St.SLABS_FREED] += 1
    slab.stat[St.PAGES_FREED] += pages
    slab.next[slot] = END
    slab.prev[slot] = c
    tail = slab.stat[St.EMPTIED_TAIL]
    if tail == END:
        slab.stat[St.EMPTIED_HEAD] = slot + LINK0
    else:
        slab.next[tail - LINK0] = slot + LINK0
    slab.stat[St.EMPTIED_TAIL] = slot + LINK0


@kernel
def _settle(slab, c, slot):
    """A slab with room, on no list, goes to the partial list; an empty one away if enough are there."""
    cache = slab.cache[c]
    is_empty = np.int64(slab.state[slot]) & LIVE_MASK == 0
    if is_empty and cache[Sc.NR_PARTIAL] >= cache[Sc.MIN_PARTIAL]:
        _drop_slab(slab, c, slot)
        return
    _add_partial(slab, cache, slot)
    if is_empty:
        cache[Sc.KEPT] += 1
        cache[Sc.KEPT_TIMES] += 1


@kernel
def _put_cpu(slab, c, slot):
    """A slab that was full joins the list of the CPU; what is on it goes first if it is long enough."""
    own = slab.cpu[_cpu_row(slab, c)]
    if own[Sp.NR] >= slab.cache[c, Sc.CPU_SLABS]:
        while own[Sp.NR] > 0:
            _settle(slab, c, _pop_cpu(slab, own))
        slab.cache[c, Sc.CPU_DRAINS] += 1
    _push_cpu(slab, own, slot)


@kernel
def _cross_edge(slab, c, slot, was_full):
    """A slab stopped being full, or became empty on its list, or both: to its list, kept, or away."""
    cache = slab.cache[c]
    if slab.prev[slot] == OF_CPU:
        return
    if was_full and cache[Sc.CPU_SLABS] > 0:
        _put_cpu(slab, c, slot)
    elif was_full:
        _settle(slab, c, slot)
    elif cache[Sc.NR_PARTIAL] >= cache[Sc.MIN_PARTIAL]:
        _del_partial(slab, cache, slot)
        _drop_slab(slab, c, slot)
    else:
        cache[Sc.KEPT] += 1
        cache[Sc.KEPT_TIMES] += 1


@inline_kernel
def put_object(slab, c, slot):
    """Free one object of the slab in that slot. The caller must come to `free_emptied` afterwards."""
    state = np.int64(slab.state[slot])
    slab.state[slot] = state - 1
    slab.cache[c, Sc.NR_OBJECTS] -= 1
    slab.cache[c, Sc.FREED] += 1
    live = state & LIVE_MASK
    was_full = live == nr_slab_objects(slab, c, state)
    if was_full or live == 1:
        _cross_edge(slab, c, slot, was_full)


@kernel
def free_emptied(z, policy, slab):
    """Give the pages of all emptied slabs back to the allocator, in the order they emptied; their number."""
    nr = 0
    z.ev[Ev.CAUSE] = Cause.SLAB_FREE
    link = slab.stat[St.EMPTIED_HEAD]
    while link != END:
        slot = link - LINK0
        link = np.int64(slab.next[slot])
        c = np.int64(slab.prev[slot])
        slab.prev[slot] = OFF_LIST
        slab.next[slot] = slab.stat[St.FREE_SLOTS]
        slab.stat[St.FREE_SLOTS] = slot + LINK0
        nr += free_slot(z, policy, slab.cache[c, Sc.OWNER], slot)
    slab.stat[St.EMPTIED_HEAD] = END
    slab.stat[St.EMPTIED_TAIL] = END
    z.ev[Ev.CAUSE] = 0
    return nr


@kernel
def nr_slab_pages(slab, mt):
    """Pages that the caches of a migratetype hold."""
    total = np.int64(0)
    for c in range(slab.cache.shape[0]):
        if slab.cache[c, Sc.MT] == mt:
            total += slab.cache[c, Sc.NR_PAGES]
    return total
