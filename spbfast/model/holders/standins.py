"""Stand-in caches of the slab-shrink traces: counts of objects with scripted yields.

Owns the objects, carries and second-chance queues that the traces' count and scan rules need, so that
the shrinker arithmetic can be judged without a slab allocator. The arrays and rules are in
state/standin_layout.py. Never touches pages; the machine's caches are in inodes.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import kernel
from spbfast.model.primitives.fifo import fifo_len, pop_head, push_tail
from spbfast.model.state.standin_layout import (
    COUNT_RULE,
    DEN,
    NUM,
    PERCENT,
    SCAN_HALF,
    SCAN_NONE,
    SCAN_RULE,
    SCAN_SECOND_CHANCE,
    SCAN_SHARE,
    SCAN_STOP,
    SCAN_STOP_SOMETIMES,
)

SHRINK_EMPTY = -1  # a count: no objects, and the memcg's present bit may be cleared
SHRINK_STOP = -1  # a scan: nothing can be freed now


@kernel
def count_standin(st, shr, cache):
    """Objects that the shrinker reports: SHRINK_EMPTY, 0 or more."""
    n = st.objects[cache]
    rule = st.rule[shr, COUNT_RULE]
    if rule == 1 and n == 0:
        return np.int64(SHRINK_EMPTY)
    if rule == 2:
        return n * st.rule[shr, PERCENT] // 100
    return n


@kernel
def _scan_second_chance(st, cache, k):
    """Walk k entries from the old end: referenced ones go back unreferenced, others are freed."""
    q = st.queue[cache]
    freed = 0
    for _ in range(min(k, fifo_len(st.fifo, q))):
        if pop_head(st.fifo, q) != 0:
            push_tail(st.fifo, q, 0)
        else:
            freed += 1
    return freed


@kernel
def scan_standin(st, shr, cache, k):
    """Scan k objects. Returns (freed or SHRINK_STOP, scanned)."""
    rule = st.rule[shr, SCAN_RULE]
    n = st.objects[cache]
    st.calls[cache] += 1
    scanned = k
    freed = min(k, n)
    if rule == SCAN_STOP:
        freed = SHRINK_STOP
    elif rule == SCAN_STOP_SOMETIMES and st.calls[cache] % st.rule[shr, DEN] == 0:
        freed = SHRINK_STOP
    elif rule == SCAN_NONE:
        freed = 0
    elif rule == SCAN_SHARE:
        carry = st.carry[cache] + k * st.rule[shr, NUM]
        freed = min(carry // st.rule[shr, DEN], n)
        st.carry[cache] = carry % st.rule[shr, DEN]
    elif rule == SCAN_HALF:
        scanned = (k + 1) // 2
        freed = min(scanned, n)
    elif rule == SCAN_SECOND_CHANCE:
        freed = _scan_second_chance(st, cache, k)
    if freed > 0:
        st.objects[cache] = n - freed
    return freed, scanned


@kernel
def change_standin(st, shr, cache, count, ref_num, ref_den):
    """Add objects (the i-th is referenced if i mod ref_den < ref_num), or remove -count old ones.

    Returns whether an empty cache got objects: then the caller sets the present bit.
    """
    was = st.objects[cache]
    st.objects[cache] = max(was + count, 0)
    if st.rule[shr, SCAN_RULE] == SCAN_SECOND_CHANCE:
        q = st.queue[cache]
        for i in range(count):
            push_tail(st.fifo, q, 1 if ref_den > 0 and i % ref_den < ref_num else 0)
        for _ in range(min(-count, was)):
            pop_head(st.fifo, q)
    return was == 0 and count > 0
