"""The slab-shrink worker: its queue, its passes over memcgs, and the arithmetic of one shrinker.

Owns backlogs (deferred scan counts), present bits and the queue state of every node, and the counters of
runs. What a cache holds and frees is the holders' business: stand-ins of the traces (standins.py) or
superblocks (inodes.py), by the shrinker's kind. When a request queues a run is decided in defer.py.

A cache is one (shrinker, memcg, node); with one node a superblock's cache has the number of its instance.
Source: spb_slab_shrink_work_fn and queue_spb_slab_shrink of v1 30; do_shrink_slab and shrink_slab of
mm/shrinker.c.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import NS_PER_TICK
from spbfast.jit.decorators import kernel
from spbfast.model.holders.inode_scan import count_objects, scan_objects
from spbfast.model.holders.standins import SHRINK_EMPTY, SHRINK_STOP, count_standin, scan_standin
from spbfast.model.state.shrink_layout import KIND_STANDIN, R, T, W

DEFAULT_BATCH = 128  # SHRINK_BATCH
THROTTLED, QUEUED, PENDING, NO_WORKQUEUE = 0, 1, 2, 3


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
def _number_of(s, shr, memcg, node):
    """A shrinker's cache, and its present bit, of a memcg and node."""
    return (s.table[shr, T.FIRST] + memcg * s.table[shr, T.STRIDE]) * s.work.shape[0] + node


@kernel
def _cache_of(s, shr, memcg, node):
    """The one cache that serves (memcg, node): a shrinker blind to either has a single one there."""
    if s.table[shr, T.AWARE] == 0:
        memcg = 0
    if s.table[shr, T.NUMA] == 0:
        node = 0
    return _number_of(s, shr, memcg, node)


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
        if got == SHRINK_STOP:
            break
        freed += got
        scanned += seen
        left -= seen
    return freed, scanned, left


@kernel
def _shrink_one(s, slab, st, shr, memcg, node, prio):
    """do_shrink_slab: SHRINK_EMPTY, or the objects freed in this cache."""
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
def shrink_memcg(s, slab, st, memcg, node, prio):
    """shrink_slab of one memcg: objects freed. SHRINK_EMPTY clears the present bit after a second look."""
    total = np.int64(0)
    if memcg > 0 and s.online[memcg] == 0:
        return total
    for shr in range(s.table.shape[0]):
        bit = _number_of(s, shr, memcg, node)
        if memcg > 0 and s.present[bit] == 0:
            continue
        freed = _shrink_one(s, slab, st, shr, memcg, node, prio)
        if freed == SHRINK_EMPTY and memcg > 0:
            s.present[bit] = 0
            freed = _shrink_one(s, slab, st, shr, memcg, node, prio)
            if freed != SHRINK_EMPTY:
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
            got += shrink_memcg(s, slab, st, memcg, node, prio)
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
