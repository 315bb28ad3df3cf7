"""Stand-in caches of the slab-shrink traces: counts of objects with scripted yields.

Owns the objects, carries and second-chance queues that the traces' count and scan rules need, so that
the shrinker arithmetic can be judged without a slab allocator. Rules and numbers are those of the trace
description (count rules 0..2, scan rules 0..6). Never touches pages; the machine's caches are in inodes.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spbfast.jit.decorators import by_reference, kernel
from spbfast.model.primitives.fifo import Fifo, fifo_len, make_fifo, pop_head, push_tail

EMPTY = -1  # a count: no objects, and the memcg's present bit may go (SHRINK_EMPTY)
STOP = -1  # a scan: nothing can be done now (SHRINK_STOP)
SCAN_ALL, SCAN_SHARE, SCAN_NONE, SCAN_STOP, SCAN_STOP_SOMETIMES, SCAN_HALF, SCAN_SECOND_CHANCE = range(7)
NUM, DEN, PERCENT, COUNT_RULE, SCAN_RULE = range(5)  # columns of `rule`


@by_reference()
class Standins(NamedTuple):
    """Per cache: objects, carry of the share rule, scan calls, queue number; per shrinker its rule."""

    objects: np.ndarray
    carry: np.ndarray
    calls: np.ndarray
    queue: np.ndarray
    rule: np.ndarray
    fifo: Fifo


def make_standins(rule: np.ndarray, nr_caches: int, second_chance: np.ndarray, entries: int) -> Standins:
    """Empty stand-ins.

    Parameters
    ----------
    rule : int64 (shrinkers, 5)
        num, den, percent, count rule, scan rule.
    nr_caches : int
        Number of (shrinker, memcg, node).
    second_chance : bool (nr_caches,)
        Which caches need a queue of referenced bits.
    entries : int
        Objects that these queues may hold together.
    """
    queue = np.where(second_chance, np.cumsum(second_chance) - 1, -1).astype(np.int64)
    fifo = make_fifo(entries, max(1, int(second_chance.sum())), 1)
    return Standins(
        objects=np.zeros(nr_caches, np.int64),
        carry=np.zeros(nr_caches, np.int64),
        calls=np.zeros(nr_caches, np.int64),
        queue=queue,
        rule=np.ascontiguousarray(rule, np.int64),
        fifo=fifo,
    )


def no_standins() -> Standins:
    """Stand-ins of a machine, which has none."""
    return make_standins(np.zeros((1, 5), np.int64), 1, np.zeros(1, bool), 0)


@kernel
def count_standin(st, shr, cache):
    """Objects that the shrinker reports: EMPTY, 0 or more."""
    n = st.objects[cache]
    rule = st.rule[shr, COUNT_RULE]
    if rule == 1 and n == 0:
        return np.int64(EMPTY)
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
    """Scan k objects. Returns (freed or STOP, scanned)."""
    rule = st.rule[shr, SCAN_RULE]
    n = st.objects[cache]
    st.calls[cache] += 1
    scanned = k
    freed = min(k, n)
    if rule == SCAN_STOP:
        freed = STOP
    elif rule == SCAN_STOP_SOMETIMES and st.calls[cache] % st.rule[shr, DEN] == 0:
        freed = STOP
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
