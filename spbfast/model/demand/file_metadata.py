"""File metadata: the inodes and dentries that boot leaves in the slab caches, and trees being walked.

Owns the kinds SLAB_STATICS (actor reclaimable_statics) and SLAB (slab_growth). Inodes are named by their
shrinker instance alone: which of them exist is the slab's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import RECLAIMABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder, burst_columns, per_tick, ticks
from spbfast.model.demand.demand_rows import first_counter, is_idle, nr_due, nr_share, put_own_row
from spbfast.model.primitives.draws import draw, high_32, threshold_32
from spbfast.model.state.demand_layout import (
    ACC,
    CLS_USER,
    DRAW_BOOT,
    DRAW_WALK,
    OP_SLAB_DROP,
    OP_SLAB_GROW,
    Ap,
    As,
)

if TYPE_CHECKING:
    from spbfast.config.actors import ReclaimableStatics, SlabGrowth

WALKER_SHIFT = 12


def _instance_table(plan: DemandBuilder, actor: ReclaimableStatics | SlabGrowth) -> dict[str, int]:
    """Cumulative weights of the shrinker instances, in 2^-32."""
    slab = plan.scenario.slab
    weights = [
        (memcg + 1) ** -actor.memcg_skew * (superblock + 1) ** -actor.superblock_skew
        for memcg in range(slab.memcgs)
        for superblock in range(slab.superblocks)
    ]
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return plan.add_table([threshold_32(s / sums[-1]) for s in sums])


def lower_reclaimable_statics(plan: DemandBuilder, actor: ReclaimableStatics) -> None:
    """One entry; its table is that of the shrinker instances."""
    per_inode = plan.scenario.slab.bytes_per_inode
    plan.entry(
        1,
        mt=RECLAIMABLE,
        cls=CLS_USER,
        boot_units=int(actor.total / per_inode),
        boot_chunk=max(int(plan.chunk / per_inode), 1),
        **_instance_table(plan, actor),
    )


def lower_slab_growth(plan: DemandBuilder, actor: SlabGrowth) -> None:
    """One entry for all walkers; its table is that of the shrinker instances."""
    factor, burst = burst_columns(actor.burst)
    plan.entry(
        2 * actor.walkers,
        mt=RECLAIMABLE,
        cls=CLS_USER,
        rate=per_tick(actor, factor * actor.rate / plan.scenario.slab.bytes_per_inode),
        drop_32=threshold_32(actor.unlinked),
        walkers=actor.walkers,
        walk_ticks=ticks(actor.walk_time),
        **burst,
        **_instance_table(plan, actor),
    )


@kernel
def draw_instance(p, table, x):
    """A shrinker instance by the cumulative weights (of 2^32) in the table."""
    lo, hi = np.int64(0), p[Ap.NR_TABLE] - 1
    u = high_32(x)
    while lo < hi:
        mid = (lo + hi) >> 1
        if u < table[p[Ap.TABLE] + mid]:
            hi = mid
        else:
            lo = mid + 1
    return lo


@kernel
def boot_inodes(p, s, table, stream, step, rows, n):
    """The next inodes of the boot-time caches, in one instance a step."""
    count = min(p[Ap.BOOT_CHUNK], p[Ap.BOOT_UNITS] - s[As.FRONT])
    if count > 0:
        instance = draw_instance(p, table, draw(stream, DRAW_BOOT + step))
        n = put_own_row(rows, n, p, OP_SLAB_GROW, instance, count)
        s[As.FRONT] += count
    return n


@kernel
def tick_walkers(p, s, table, stream, tick, rows, n):
    """Walkers share this tick's new inodes; each stays in one instance for a while."""
    if is_idle(p, stream, tick):
        return n
    c = first_counter(tick)
    inodes = nr_due(s, ACC, p[Ap.RATE], draw(stream, c))
    walkers, stay = p[Ap.WALKERS], p[Ap.WALK_TICKS]
    for w in range(walkers):
        count = inodes * (w + 1) // walkers - inodes * w // walkers
        if count == 0:
            continue
        walk = (tick + w * stay // walkers) // stay
        instance = draw_instance(p, table, draw(stream, DRAW_WALK + (walk << WALKER_SHIFT) + w))
        n = put_own_row(rows, n, p, OP_SLAB_GROW, instance, count)
        gone = nr_share(count, p[Ap.DROP_32], draw(stream, c + 1 + w))
        if gone > 0:
            n = put_own_row(rows, n, p, OP_SLAB_DROP, instance, gone)
    return n
