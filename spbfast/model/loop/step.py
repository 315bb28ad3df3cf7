"""The loop over simulated time: due work, then the demand of a tick, then a sample.

Owns the clock's advance and the boot phase that comes before it. Each entry returns an error code;
engine.py alone turns codes into exceptions.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import CLS_BLOCKING, MOVABLE, NS_PER_TICK, C, Err
from spbfast.jit.decorators import entry_kernel, kernel, pick, read_cycles
from spbfast.model.allocator.barred import rate_barred
from spbfast.model.demand.demand_rows import fold_rows
from spbfast.model.demand.generate import generate_boot, generate_tick
from spbfast.model.loop.cache_rows import add_to_cache
from spbfast.model.loop.collapse import run_khugepaged
from spbfast.model.loop.refault import run_refaults
from spbfast.model.loop.sample import record_if_due, record_sample
from spbfast.model.loop.zonelist import run_rows_in_zones
from spbfast.model.primitives.draws import below, draw
from spbfast.model.state.node import NEVER, Df, Kh, N, Now, Ph, Wk
from spbfast.model.state.shrink_layout import W
from spbfast.model.state.trace import TALLY_TAINT_BOOT
from spbfast.model.state.vmstat import V
from spbfast.model.state.world import nr_worlds
from spbfast.model.workers.due import run_due_work


@kernel
def nr_slab_cycles(worlds):
    """Cycles that slab rows took so far, in all worlds."""
    cycles = np.int64(0)
    for i in range(nr_worlds(worlds)):
        cycles += pick(worlds, i).node.cycles[Ph.SLAB]
    return cycles


@kernel
def run_refaults_in_zones(worlds, policy):
    """What was freed too early and is used again in this tick, world by world."""
    tick = pick(worlds, 0).node.now[Now.TICK]
    for i in range(nr_worlds(worlds)):
        node = pick(worlds, i).node
        if node.refault.shape[0] > 0 or node.touch.shape[0] > 0:
            run_refaults(pick(worlds, i), policy, tick)


@kernel
def run_tick(worlds, policy, actors, rows, key):
    """The demand of the current tick."""
    node = pick(worlds, 0).node
    start = read_cycles()
    n = generate_tick(actors, key, node.now[Now.TICK], rows)
    if n < 0:
        return Err.ROWS_FULL
    node.now[Now.DIGEST] = fold_rows(node.now[Now.DIGEST], rows, n)
    generated = read_cycles()
    slab = nr_slab_cycles(worlds)
    run_refaults_in_zones(worlds, policy)
    err = run_rows_in_zones(worlds, policy, rows, n)
    node.cycles[Ph.GENERATION] += generated - start
    node.cycles[Ph.ALLOCATOR] += read_cycles() - generated - (nr_slab_cycles(worlds) - slab)
    return err


@kernel
def run_work(w, policy, now_ns):
    """What is due in one world."""
    start = read_cycles()
    run_due_work(w, policy, now_ns)
    if w.node.collapse.shape[0] > 0:
        run_khugepaged(w, policy)
    w.node.cycles[Ph.WORKERS] += read_cycles() - start


@kernel
def run_steps(worlds, policy, actors, rows, key, samples, until_tick):
    """Simulate ticks up to `until_tick`; an error code. `samples` has one item a world."""
    node = pick(worlds, 0).node
    while node.now[Now.TICK] < until_tick:
        now_ns = node.now[Now.TICK] * NS_PER_TICK
        for i in range(nr_worlds(worlds)):
            run_work(pick(worlds, i), policy, now_ns)
            record_if_due(pick(worlds, i), pick(samples, i))
        err = run_tick(worlds, policy, actors, rows, key)
        if err != Err.OK:
            return err
        node.now[Now.TICK] += 1
    return Err.OK


@kernel
def finish_run(worlds, policy, samples):
    """Run what is due at the end and take the last sample."""
    end_ns = pick(worlds, 0).node.now[Now.TICK] * NS_PER_TICK
    for i in range(nr_worlds(worlds)):
        run_work(pick(worlds, i), policy, end_ns)
        record_sample(pick(worlds, i), pick(samples, i))


@kernel
def boot_steps(worlds, policy, actors, rows, key, first, last):
    """Boot-time demand of steps first..last-1. Returns (error code, whether demand is complete)."""
    for step in range(first, last):
        n = generate_boot(actors, key, step, rows)
        if n < 0:
            return Err.ROWS_FULL, True
        if n == 0:
            return Err.OK, True
        err = run_rows_in_zones(worlds, policy, rows, n)
        if err != Err.OK:
            return err, True
    return Err.OK, False


@kernel
def boot_page_cache(w, policy, key, cumulative, nr, keep):
    """Up to `nr` folios of page cache, until `keep` free pages are left.

    It also ends when a folio had to be reclaimed for: what is still free then lies where the policy
    lets no movable page in. `cumulative` holds the chances of folio orders, summed up, out of 2^31.
    Returns whether it is done.
    """
    cpu = np.int64(0)
    for _ in range(nr):
        if w.zone.count[C.FREE_PAGES] - rate_barred(w, policy, np.int64(MOVABLE)) <= keep:
            return True
        x = below(draw(key, w.node.now[Now.BOOT_FOLIOS]), (1 << 31) - 1)
        w.node.now[Now.BOOT_FOLIOS] += 1
        order = 0
        while order < cumulative.shape[0] - 1 and x >= cumulative[order]:
            order += 1
        is_added = add_to_cache(w, policy, order, 0, CLS_BLOCKING, cpu, True)
        if not is_added or w.node.vm[V.DIRECT_RECLAIM_ROUNDS] > 0:
            return True
        cpu = cpu + 1 if cpu + 1 < w.zone.geo.nr_cpus else np.int64(0)
    return False


@kernel
def forget_queued(w):
    """Forget work that boot queued and the times of queueing: both belong to no simulated time."""
    node, shrink = w.node, w.shrink
    for item in (Wk.EVACUATE, Wk.SHRINK, Wk.DEFRAG, Wk.CLAIMED, Wk.WITHIN, Wk.KCOMPACTD):
        node.due[item] = NEVER
    node.now[Now.EVAC_HEAD] = node.now[Now.EVAC_TAIL]
    node.now[Now.EVAC_STAMP] = -1
    node.now[Now.CLAIMED_HEAD] = node.now[Now.CLAIMED_TAIL]
    node.now[Now.KCOMPACTD_ORDER] = 0
    node.now[Now.KCOMPACTD_READY] = 0
    for spb in range(node.defrag.shape[0]):
        node.defrag[spb, Df.DUE] = NEVER
        node.within[spb] = 0
    for column in range(W.HAS_STAMP, shrink.work.shape[1]):
        shrink.work[0, column] = 0


@entry_kernel
def end_boot(w):
    """Time begins: nothing is due but the per-CPU decay and a kswapd that was woken; counters start at 0."""
    node = w.node
    forget_queued(w)
    node.now[Now.BOOT_DONE] = 1
    node.vm[:] = 0
    node.cycles[:] = 0
    taints = w.zone.count[C.TAINTS]
    w.zone.tally[:] = 0
    w.zone.tally[TALLY_TAINT_BOOT] = taints
    w.zone.count[C.TAINTS] = 0
    w.zone.count[C.UNTAINTS] = 0
    w.zone.count[C.HINTS_USED] = 0
    w.zone.walks[:] = 0
    w.zone.count[C.PCP_PAGEBLOCKS_CLAIMED] = 0
    w.zone.count[C.PCP_PAGEBLOCKS_ADOPTED] = 0
    w.zone.count[C.PCP_FRAGMENTS_TAKEN_BACK] = 0
    if w.zone.geo.nr_cpus > 0:
        node.due[Wk.PCP_DECAY] = node.conf[N.PCP_DECAY]
    if node.due[Wk.KSWAPD] != NEVER:
        node.due[Wk.KSWAPD] = np.int64(0)
    if node.collapse.shape[0] > 0:
        node.collapse[Kh.DUE] = node.conf[N.COLLAPSE_SLEEP]
    if node.conf[N.WITHIN_ON] and node.conf[N.WITHIN_INTERVAL] > 0:
        node.due[Wk.WITHIN] = node.conf[N.WITHIN_INTERVAL]
