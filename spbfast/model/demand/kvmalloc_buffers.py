"""kvmalloc buffers: a fixed number, each replaced at random.

Owns the kind BUFFERS (actor kvmalloc). A buffer has slots for its large block or for all single pages that
may stand for it; which of the two it got is not known here (loop/kvmalloc.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import CLS_KSWAPD, CLS_KVMALLOC, CLS_NOWARN, PB_PAGES, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import SECOND, DemandBuilder, most_in_tick, per_tick
from spbfast.model.demand.demand_rows import first_counter, nr_due, put_own_row
from spbfast.model.primitives.draws import below, draw
from spbfast.model.state.demand_layout import ACC, OP_ALLOC, OP_FREE, Ap

if TYPE_CHECKING:
    from spbfast.config.actors import Kvmalloc

# kmalloc_gfp_adjust: the large attempt of kvmalloc neither reclaims nor warns.
CLS_LARGE = CLS_KVMALLOC | CLS_KSWAPD | CLS_NOWARN


def lower_kvmalloc(plan: DemandBuilder, actor: Kvmalloc) -> None:
    """An entry for each order of buffers; all have one owner and one CPU."""
    scale, parts, slots = sum(actor.order_weights), [], 0
    for order, weight in enumerate(actor.order_weights, start=1):
        if weight:
            per_second = actor.rate * weight / scale
            units = max(round(per_second * actor.lifetime / SECOND), 1)
            # The pages of the fallback, and a page table for each 2 MiB of them.
            stride = (1 << order) + -(-(1 << order) // PB_PAGES)
            parts.append((order, per_tick(actor, per_second), slots, units, stride))
            slots += units * stride
    owner, cpu = plan.owner(actor.label, slots, UNMOVABLE), plan.take_cpus()
    for order, rate, base, units, stride in parts:
        plan.entry(
            2 * most_in_tick(rate),
            cpu=cpu,
            owner=owner,
            base=base,
            units=units,
            order=order,
            mt=UNMOVABLE,
            cls=CLS_LARGE,
            rate=rate,
            group=stride,
        )


@kernel
def tick_kvmalloc(p, s, stream, tick, rows, n):
    """Replace buffers at random: all slots of one are freed, one request fills them."""
    c = first_counter(tick)
    stride = p[Ap.GROUP]
    for i in range(nr_due(s, ACC, p[Ap.RATE], draw(stream, c))):
        slot = p[Ap.BASE] + below(draw(stream, c + 1 + i), p[Ap.UNITS]) * stride
        n = put_own_row(rows, n, p, OP_FREE, slot, stride)
        n = put_own_row(rows, n, p, OP_ALLOC, slot, 1)
    return n
