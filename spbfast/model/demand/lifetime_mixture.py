"""Blocks of one order and type whose lifetimes are a mixture of exponentials.

Owns the kind MIXTURE (actor allocations). Each part of the mixture has slots of its own. In a tick a fixed
number of them are hit at random, by new blocks, which replace what is there, or by mere frees: the life of a
block is exponential with the part's mean, however the arrivals vary and pause. Slots are twice as many as
blocks live at once, so that arrivals, of up to twice the mean, never hit more often than lifetimes allow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import CLS_NORETRY, MOVABLE, RECLAIMABLE, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import SECOND, DemandBuilder, burst_columns, most_in_tick, per_tick
from spbfast.model.demand.demand_rows import first_counter, is_idle, put_own_row
from spbfast.model.primitives.draws import below, draw, high_32, low_32
from spbfast.model.state.demand_layout import CLS_USER, ONE, ONE_SHIFT, OP_FREE, OP_REPLACE, Ap

if TYPE_CHECKING:
    from spbfast.config.actors import Allocations

TYPES = {"unmovable": UNMOVABLE, "movable": MOVABLE, "reclaimable": RECLAIMABLE}


def lower_allocations(plan: DemandBuilder, actor: Allocations) -> None:
    """An entry for each part of the mixture, and for what lives at the start; all have one owner and CPUs."""
    factor, burst = burst_columns(actor.burst)
    scale, parts, slots = sum(actor.shares), [], 0
    for share, life in zip(actor.shares, actor.lifetimes, strict=True):
        if not share:
            continue
        per_second = factor * actor.rate * share / scale
        units = max(math.ceil(2 * per_second * life / SECOND), 1)
        parts.append((per_tick(actor, per_second), per_tick(actor, units * SECOND / life), slots, units))
        slots += units
    old = actor.from_start
    if old is not None:
        # Its slots are full at the start and are only emptied.
        parts.append((0, per_tick(actor, old.blocks * SECOND / old.lifetime), slots, old.blocks))
    owner = plan.owner(actor.label, slots + (old.blocks if old else 0), TYPES[actor.type])
    if old is not None:
        plan.starts_with(owner, slots, old, actor.order, TYPES[actor.type])
    cpu = plan.take_cpus(actor.tasks)
    for rate, hits, base, units in parts:
        plan.entry(
            max(most_in_tick(rate), hits // ONE + 2),
            tasks=actor.tasks,
            cpu=cpu,
            owner=owner,
            base=base,
            units=units,
            order=actor.order,
            alt_order=0 if actor.order else -1,
            mt=TYPES[actor.type],
            cls=CLS_USER | CLS_NORETRY if actor.order else CLS_USER,
            rate=rate,
            hits=hits,
            **burst,
        )


@kernel
def rounded_by_chance(amount, x):
    """Whole units of a fixed-point amount, rounded up or down by the draw's upper half."""
    return (amount + (high_32(x) >> 2)) >> ONE_SHIFT


@kernel
def tick_mixture(p, stream, tick, rows, n):
    """Hit slots at random; arrivals lie evenly among the hits, which no pause stops.

    Both numbers are rounded by one draw, so that there are never more arrivals than hits.
    """
    c = first_counter(tick)
    x = draw(stream, c)
    arrivals = np.int64(0)
    if not is_idle(p, stream, tick):
        arrivals = rounded_by_chance((p[Ap.RATE] * (low_32(x) >> 16)) >> 15, x)
    hits = max(rounded_by_chance(p[Ap.HITS], x), arrivals)
    for i in range(hits):
        slot = p[Ap.BASE] + below(draw(stream, c + 1 + i), p[Ap.UNITS])
        is_arrival = (i + 1) * arrivals // hits > i * arrivals // hits
        n = put_own_row(rows, n, p, OP_REPLACE if is_arrival else OP_FREE, slot, 1)
    return n
