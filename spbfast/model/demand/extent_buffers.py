"""Metadata nodes of btrfs: groups of single pages, a growing number of which some are replaced.

Owns the kind NODES (actor extent_buffers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import CLS_EXTENT_BUFFER, MOVABLE, PAGE_SIZE, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder, most_in_tick, per_tick
from spbfast.model.demand.demand_rows import first_counter, nr_due, put_own_row
from spbfast.model.primitives.draws import below, draw
from spbfast.model.state.demand_layout import ACC, ACC_REWRITE, CLS_USER, OP_ALLOC, OP_FREE, Ap, As

if TYPE_CHECKING:
    from spbfast.config.actors import ExtentBuffers


def lower_extent_buffers(plan: DemandBuilder, actor: ExtentBuffers) -> None:
    """One entry with a group of slots for each node."""
    node = actor.pages_per_node * PAGE_SIZE
    nodes = actor.total // node
    mt = MOVABLE if actor.movable else UNMOVABLE
    churn = per_tick(actor, actor.churn_per_second)
    plan.entry(
        1 + 2 * most_in_tick(churn * nodes),
        owner=plan.owner(actor.label, nodes * actor.pages_per_node, mt),
        units=nodes,
        mt=mt,
        cls=CLS_USER | CLS_EXTENT_BUFFER,
        rate=per_tick(actor, actor.growth / node),
        rewrite=churn,
        group=actor.pages_per_node,
        boot_units=actor.at_boot // node,
        boot_chunk=max(plan.chunk // node, 1),
    )


@kernel
def put_nodes(p, s, count, rows, n):
    """New nodes, as far as there is room."""
    count = min(count, p[Ap.UNITS] - s[As.FRONT])
    if count > 0:
        group = p[Ap.GROUP]
        n = put_own_row(rows, n, p, OP_ALLOC, p[Ap.BASE] + s[As.FRONT] * group, count * group)
        s[As.FRONT] += count
    return n


@kernel
def boot_extent_buffers(p, s, rows, n):
    """The next nodes that exist at boot."""
    return put_nodes(p, s, min(p[Ap.BOOT_CHUNK], p[Ap.BOOT_UNITS] - s[As.FRONT]), rows, n)


@kernel
def tick_extent_buffers(p, s, stream, tick, rows, n):
    """Growth up to the total; of the nodes that exist, some are replaced."""
    c = first_counter(tick)
    n = put_nodes(p, s, nr_due(s, ACC, p[Ap.RATE], draw(stream, c)), rows, n)
    group = p[Ap.GROUP]
    for i in range(nr_due(s, ACC_REWRITE, p[Ap.REWRITE] * s[As.FRONT], draw(stream, c + 1))):
        slot = p[Ap.BASE] + below(draw(stream, c + 2 + i), s[As.FRONT]) * group
        n = put_own_row(rows, n, p, OP_FREE, slot, group)
        n = put_own_row(rows, n, p, OP_ALLOC, slot, group)
    return n
