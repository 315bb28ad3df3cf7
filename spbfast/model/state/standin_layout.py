"""Stand-in caches of the slab-shrink traces as arrays: what they are, and their first, empty state.

Owns the named tuple `Standins` and the rules by which a stand-in counts and scans (golden files: count rules
0..2, scan rules 0..6). The kernels that apply the rules are in holders/standins.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spbfast.jit.decorators import by_reference
from spbfast.model.primitives.fifo import Fifo, make_fifo

# Columns of `rule`, and what a scan rule may be.
NUM, DEN, PERCENT, COUNT_RULE, SCAN_RULE = range(5)
SCAN_ALL, SCAN_SHARE, SCAN_NONE, SCAN_STOP, SCAN_STOP_SOMETIMES, SCAN_HALF, SCAN_SECOND_CHANCE = range(7)


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
