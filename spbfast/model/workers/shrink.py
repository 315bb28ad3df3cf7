"""The slab-shrink worker: its queue, its passes over memcgs, and the arithmetic of one shrinker.

Owns backlogs (deferred scan counts), present bits and the queue state of every node, and the counters of
runs. What a cache holds and frees is the holders' business: stand-ins of the traces (standins.py) or
superblocks (inodes.py), by the shrinker's kind. When a request queues a run is decided in defer.py.

A cache is one (shrinker, memcg, node), number (memcg * nr_shrinkers + shr) * nr_nodes + node; with one
node that is the number of the superblock instance.
Source: spb_slab_shrink_work_fn and queue_spb_slab_shrink of v1 30; do_shrink_slab and shrink_slab of
mm/shrinker.c.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import NS_PER_TICK
from spbfast.jit.decorators import by_reference, kernel
from spbfast.model.holders.inodes import count_objects, scan_objects
from spbfast.model.holders.standins import EMPTY, STOP, count_standin, scan_standin

KIND_SUPERBLOCK, KIND_STANDIN = 0, 1
DEFAULT_BATCH = 128  # SHRINK_BATCH
THROTTLED, QUEUED, PENDING, NO_WORKQUEUE = 0, 1, 2, 3


class T(enum.IntEnum):
    """Columns of `Shrink.table`, one row a shrinker in order of registration."""

    AWARE = 0  # of memcgs
    NUMA = 1
    BATCH = 2  # 0: DEFAULT_BATCH
    SEEKS = 3
    KIND = 4


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
    present: np.ndarray | None = None,
    nr_runs: int = 0,
    nr_calls: int = 0,
) -> Shrink:
    """Shrinkers with empty backlogs.

    Parameters
    ----------
    table : int64 (shrinkers, 5)
        Columns as `T`.
    online : int (memcgs,)
        Whether each memcg is online; memcg 0 is the root.
    has_workqueue : int (nodes,)
    present : int8 (caches,), optional
        Present bits shared with the holder that sets them; new ones otherwise.
    nr_runs, nr_calls : int
        Rows kept of runs and of calls; further ones are counted as dropped.
    """
    caches = len(table) * len(online) * len(has_workqueue)
    work = np.zeros((len(has_workqueue), NR_WORK), np.int64)
    work[:, W.HAS_WORKQUEUE] = has_workqueue
    return Shrink(
        table=np.ascontiguousarray(table, np.int64),
        online=np.ascontiguousarray(online, np.int8),
        work=work,
        backlog=np.zeros(caches, np.int64),
        present=np.zeros(caches, np.int8) if present is None else present,
        run=np.zeros(NR_RUN, np.int64),
        runs=np.zeros((nr_runs, len(RUN_COLUMNS)), np.int64),
        calls=np.zeros((nr_calls, len(CALL_COLUMNS)), np.int64),
    )


def no_shrink() -> Shrink:
    """Shrinkers of a zone whose node's slab lies elsewhere: none, and no work queue."""
    return make_shrink(np.zeros((0, NR_TABLE)), np.ones(1), np.zeros(1))


@kernel
def queue_shrink(s, node, now_ns, throttle_ns):
    """Ask for a run on a node: THROTTLED, QUEUED, PENDING (already) or NO_WORKQUEUE.

    The stamp moves even if the work was pending, so a refused request still closes the gate.
    """
    work = s.work[node]
    if work[W.HAS_WORKQUEUE] == 0:
        return NO_WORKQUEUE
    tick = now_ns // NS_PER_TICK
    gate = -(-throttle_ns // NS_PER_TICK)
    if work[W.HAS_STAMP] != 0 and tick < work[W.STAMP_TICK] + gate:
        work[W.THROTTLED] += 1
        return THROTTLED
    work[W.HAS_STAMP] = 1
    work[W.STAMP_TICK] = tick
    if work[W.PENDING] != 0:
        work[W.ALREADY_PENDING] += 1
        return PENDING
    work[W.PENDING] = 1
    work[W.QUEUED] += 1
    return QUEUED


@kernel
def _record_run(s, node, event):
    row = s.run[R.NR_RUNS]
    if row >= s.runs.shape[0]:
        s.run[R.DROPPED] += 1
        return
    s.runs[row, 0] = event
    s.runs[row, 1] = node
    for column in range(R.NR_RUNS):
        s.runs[row, 2 + column] = s.run[column]
    s.run[R.NR_RUNS] = row + 1


@kernel
def _record_call(s, prio, memcg, shr, freeable, backlog, delta, target, scanned, freed, after, left):
    s.run[R.CALLS] += 1
    row = s.run[R.NR_CALLS]
    if row >= s.calls.shape[0]:
        s.run[R.DROPPED] += 1
        return
    call = s.calls[row]
    call[0], call[1], call[2], call[3], call[4] = s.run[R.NR_RUNS], prio, memcg, shr, freeable
    call[5], call[6], call[7], call[8] = backlog, delta, target, scanned
    call[9], call[10], call[11] = freed, after, left
    s.run[R.NR_CALLS] = row + 1


@kernel
def _cache_of(s, shr, memcg, node):
    """The one cache that serves (memcg, node): a shrinker blind to either has a single one there."""
    if s.table[shr, T.AWARE] == 0:
        memcg = 0
    if s.table[shr, T.NUMA] == 0:
        node = 0
    return (memcg * s.table.shape[0] + shr) * s.work.shape[0] + node


@kernel
def _count(s, slab, st, shr, cache):
    s.run[R.COUNTS] += 1
    if s.table[shr, T.KIND] == KIND_STANDIN:
        return count_standin(st, shr, cache)
    return count_objects(slab, cache)


@kernel
def _scan_down(s, slab, st, shr, cache, freeable, target):
    """Scan in batches until less than a batch of target is left. Returns (freed, scanned, left)."""
    batch = s.table[shr, T.BATCH] if s.table[shr, T.BATCH] > 0 else DEFAULT_BATCH
    is_standin = s.table[shr, T.KIND] == KIND_STANDIN
    freed, scanned, left = np.int64(0), np.int64(0), np.int64(target)
    while left >= batch or left >= freeable:
        step = min(batch, left)
        if is_standin:
            got, seen = scan_standin(st, shr, cache, step)
        else:
            got, seen = scan_objects(slab, cache, step), step
        if got == STOP:
            break
        freed += got
        scanned += seen
        left -= seen
    return freed, scanned, left


@kernel
def _shrink_one(s, slab, st, shr, memcg, node, prio):
    """do_shrink_slab: EMPTY, or the objects freed in this cache."""
    cache = _cache_of(s, shr, memcg, node)
    freeable = _count(s, slab, st, shr, cache)
    if freeable <= 0:
        return np.int64(freeable)
    backlog = s.backlog[cache]
    s.backlog[cache] = 0
    seeks = s.table[shr, T.SEEKS]
    delta = (freeable >> prio) * 4 // seeks if seeks > 0 else freeable // 2
    target = min((backlog >> prio) + delta, 2 * freeable)
    freed, scanned, left = _scan_down(s, slab, st, shr, cache, freeable, target)
    # The whole old backlog is added, not only the part that the priority let through.
    after = min(max(backlog + delta - scanned, 0), 2 * freeable)
    s.backlog[cache] = after
    s.run[R.FREED] += freed
    s.run[R.SCANNED] += scanned
    _record_call(s, prio, memcg, shr, freeable, backlog, delta, target, scanned, freed, after, left)
    return freed


@kernel
def _shrink_memcg(s, slab, st, memcg, node, prio):
    """shrink_slab of one memcg: objects freed. EMPTY clears the present bit after a second look."""
    total = np.int64(0)
    if memcg > 0 and s.online[memcg] == 0:
        return total
    for shr in range(s.table.shape[0]):
        bit = (memcg * s.table.shape[0] + shr) * s.work.shape[0] + node
        if memcg > 0 and s.present[bit] == 0:
            continue
        freed = _shrink_one(s, slab, st, shr, memcg, node, prio)
        if freed == EMPTY and memcg > 0:
            s.present[bit] = 0
            freed = _shrink_one(s, slab, st, shr, memcg, node, prio)
            if freed != EMPTY:
                s.present[bit] = 1
        total += max(freed, 0)
    return total


@kernel
def begin_shrink(s, slab, st, node, target_objs, start_prio, event):
    """Run the pending work of a node. Returns whether there was any; `s.run` tells what it did.

    Passes go from start_prio down to 0 until target_objs are freed or a pass frees nothing: no
    progress ends the run, it does not make it more aggressive. The caller must come to `free_emptied`
    at once, and to `end_shrink` when the run's time is over.
    """
    work = s.work[node]
    if work[W.PENDING] == 0 or work[W.RUNNING] != 0:
        return False
    work[W.PENDING] = 0
    work[W.RUNNING] = 1
    work[W.RAN] += 1
    s.run[: R.NR_RUNS] = 0
    freed = np.int64(0)
    prio = np.int64(start_prio)
    while freed < target_objs and prio >= 0:
        s.run[R.PASSES] += 1
        s.run[R.LAST_PRIO] = prio
        got = np.int64(0)
        for memcg in range(s.online.size):
            got += _shrink_memcg(s, slab, st, memcg, node, prio)
        if got == 0:
            break
        freed += got
        prio -= 1
    _record_run(s, node, event)
    return True


@kernel
def end_shrink(s, node):
    """The run of a node is over. Returns whether one was in progress."""
    was = s.work[node, W.RUNNING]
    s.work[node, W.RUNNING] = 0
    return was != 0
