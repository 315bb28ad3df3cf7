"""What boot leaves behind for good: unmovable blocks of several orders.

Owns the kind STATICS (actor kernel_statics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import PAGE_SIZE, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder
from spbfast.model.demand.demand_rows import put_row
from spbfast.model.primitives.draws import below, draw
from spbfast.model.state.demand_layout import (
    ACC_ORDER0,
    CLS_USER,
    DRAW_BOOT,
    NR_FOLIO_ORDERS,
    OP_ALLOC,
    Ap,
    As,
)

if TYPE_CHECKING:
    from spbfast.config.actors import KernelStatics


def lower_kernel_statics(plan: DemandBuilder, actor: KernelStatics) -> None:
    """One entry; its table says how many blocks of each order there are."""
    pages, scale = actor.total // PAGE_SIZE, sum(actor.order_weights)
    blocks = [int(pages * w / scale) >> order for order, w in enumerate(actor.order_weights)]
    plan.entry(
        1,
        owner=plan.owner(actor.label, sum(blocks), UNMOVABLE),
        mt=UNMOVABLE,
        cls=CLS_USER,
        boot_units=sum(blocks),
        boot_chunk=max(plan.chunk // PAGE_SIZE, 1),
        **plan.add_table(blocks),
    )


@kernel
def nr_left(p, s, table, order):
    """Blocks of an order that boot has still to give."""
    return table[p[Ap.TABLE] + order] - s[ACC_ORDER0 + order]


@kernel
def boot_kernel_statics(p, s, table, stream, step, rows, n):
    """A run of blocks of one order, drawn by the pages that each order has still to give."""
    left = np.int64(0)
    for order in range(p[Ap.NR_TABLE]):
        left += nr_left(p, s, table, order) << order
    if left == 0:
        return n
    at = below(draw(stream, DRAW_BOOT + step), left)
    order = np.int64(0)
    while order < NR_FOLIO_ORDERS:
        blocks = nr_left(p, s, table, order)
        if at < blocks << order:
            break
        at -= blocks << order
        order += 1
    count = min(blocks, max(p[Ap.BOOT_CHUNK] >> order, 1))
    slot, mt, cls = p[Ap.BASE] + s[As.FRONT], p[Ap.MT], p[Ap.CLS]
    n = put_row(rows, n, p[Ap.CPU], OP_ALLOC, p[Ap.OWNER], slot, count, order, -1, mt, cls)
    s[ACC_ORDER0 + order] += count
    s[As.FRONT] += count
    return n
