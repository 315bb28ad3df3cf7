"""Demand for whole superpageblocks (hugetlb's gigantic pages): a clockwork without draws.

Owns the kind GIGANTIC (actor gigantic_pages). Number i is asked for at start + i * interval, given back after
the hold time, asked for again after the pause, and so on. Whether it was ever obtained is not known here: the
row that gives it back withdraws a request that still waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import MOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder, ticks
from spbfast.model.demand.demand_rows import put_own_row
from spbfast.model.state.demand_layout import CLS_USER, OP_CONTIG_ALLOC, OP_CONTIG_FREE, Ap

if TYPE_CHECKING:
    from spbfast.config.actors import GiganticPages


def lower_gigantic_pages(plan: DemandBuilder, actor: GiganticPages) -> None:
    """One entry with a slot for each page that is asked for."""
    plan.entry(
        2 * actor.count,
        owner=plan.owner(actor.label, actor.count, MOVABLE),
        units=actor.count,
        mt=MOVABLE,
        cls=CLS_USER,
        start=ticks(actor.start),
        spacing=ticks(actor.interval),
        restart=ticks(actor.hold),
        pause=ticks(actor.pause),
    )


@kernel
def tick_gigantic_pages(p, tick, rows, n):
    """Those given back in this tick, then those asked for."""
    hold = p[Ap.RESTART]
    cycle = hold + p[Ap.PAUSE]
    for wants in range(2):
        for i in range(p[Ap.UNITS]):
            age = tick - p[Ap.START] - i * p[Ap.SPACING]
            if age < 0:
                continue
            if wants and (age == 0 or (hold > 0 and age % cycle == 0)):
                n = put_own_row(rows, n, p, OP_CONTIG_ALLOC, p[Ap.BASE] + i, 1)
            elif not wants and hold > 0 and age % cycle == hold:
                n = put_own_row(rows, n, p, OP_CONTIG_FREE, p[Ap.BASE] + i, 1)
    return n
