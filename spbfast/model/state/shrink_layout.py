"""Shrinkers of a node as arrays: what they are, their columns, and their first state.

Owns the named tuple `Shrink`, and the numbering of caches. The worker that changes it is workers/shrink.py. A
cache is one (shrinker, memcg, node): a shrinker's caches begin at T.FIRST, and those of the next memcg are
T.STRIDE further on; each number stands for one cache a node.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.jit.decorators import by_reference

KIND_SUPERBLOCK, KIND_STANDIN = 0, 1  # who holds a shrinker's objects


class T(enum.IntEnum):
    """Columns of `Shrink.table`, one row a shrinker in order of registration."""

    AWARE = 0  # of memcgs
    NUMA = 1
    BATCH = 2  # 0: DEFAULT_BATCH
    SEEKS = 3
    KIND = 4
    FIRST = 5  # number of its cache in the root memcg
    STRIDE = 6  # from a memcg's cache to the next one's


class W(enum.IntEnum):
    """Columns of `Shrink.work`, one row a node."""

    HAS_WORKQUEUE = 0
    HAS_STAMP = 1
    STAMP_TICK = 2
    PENDING = 3
    RUNNING = 4
    QUEUED = 5  # spb_slab_shrink_queued
    RAN = 6  # spb_slab_shrink_ran
    THROTTLED = 7
    ALREADY_PENDING = 8


class R(enum.IntEnum):
    """`Shrink.run`: what the last run did; and the columns of `runs` behind the event and the node."""

    PASSES = 0
    LAST_PRIO = 1
    FREED = 2
    SCANNED = 3
    COUNTS = 4
    CALLS = 5
    # No columns of `runs`: rows written and rows that found the buffers full.
    NR_RUNS = 6
    NR_CALLS = 7
    DROPPED = 8


NR_TABLE, NR_WORK, NR_RUN = len(T), len(W), len(R)
RUN_COLUMNS = ("event", "node", "passes", "last_prio", "freed", "scanned", "counts", "calls")
CALL_COLUMNS = (
    "run",
    "prio",
    "memcg",
    "shr",
    "freeable",
    "backlog",
    "delta",
    "target",
    "scanned",
    "freed",
    "backlog_after",
    "left",
)


@by_reference()
class Shrink(NamedTuple):
    """State of all shrinkers; `runs` and `calls` are bounded records and may have no rows."""

    table: np.ndarray
    online: np.ndarray
    work: np.ndarray
    backlog: np.ndarray
    present: np.ndarray
    run: np.ndarray
    runs: np.ndarray
    calls: np.ndarray


def make_shrink(
    table: np.ndarray,
    online: np.ndarray,
    has_workqueue: np.ndarray,
    nr_runs: int = 0,
    nr_calls: int = 0,
) -> Shrink:
    """Shrinkers with empty backlogs.

    Parameters
    ----------
    table : int64 (shrinkers, 7)
        Columns as `T`; without the last two a memcg's caches lie side by side, in order of registration.
    online : int (memcgs,)
        Whether each memcg is online; memcg 0 is the root.
    has_workqueue : int (nodes,)
    nr_runs, nr_calls : int
        Rows kept of runs and of calls; further ones are counted as dropped.
    """
    table = np.ascontiguousarray(table, np.int64)
    nr = len(table)
    if table.shape[1] <= T.FIRST:
        table = np.column_stack([table, np.arange(nr), np.full(nr, nr)])
    last = table[:, T.FIRST] + (len(online) - 1) * table[:, T.STRIDE]
    caches = (int(last.max()) + 1 if nr else 0) * len(has_workqueue)
    work = np.zeros((len(has_workqueue), NR_WORK), np.int64)
    work[:, W.HAS_WORKQUEUE] = has_workqueue
    return Shrink(
        table=table,
        online=np.ascontiguousarray(online, np.int8),
        work=work,
        backlog=np.zeros(caches, np.int64),
        present=np.zeros(caches, np.int8),
        run=np.zeros(NR_RUN, np.int64),
        runs=np.zeros((nr_runs, len(RUN_COLUMNS)), np.int64),
        calls=np.zeros((nr_calls, len(CALL_COLUMNS)), np.int64),
    )


def no_shrink() -> Shrink:
    """Shrinkers of a zone whose node's slab lies elsewhere: none, and no work queue."""
    return make_shrink(np.zeros((0, NR_TABLE)), np.ones(1), np.zeros(1))
