"""Anonymous memory in 2 MiB regions, and the slow churn of daemons.

Owns the kind REGIONS (actor daemons) and what guests share with it: how a region is touched. Slot = page of
the entry's memory; a huge page takes its region's first slot. Whether a region is asked for as a huge page is
a draw of the entry's life and the region, so that what is freed and touched again asks for the same. Never
knows whether a huge page was obtained.

Model: memory is given back and touched again by whole regions, since a part of a huge page cannot go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import MOVABLE, PAGE_SIZE, PB_ORDER, PB_PAGES
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder, most_in_tick, per_tick
from spbfast.model.demand.demand_rows import first_counter, nr_due, put_own_row, put_row
from spbfast.model.primitives.draws import below, chance, draw, threshold_32
from spbfast.model.state.demand_layout import (
    ACC_REWRITE,
    CLS_USER,
    DRAW_REGION,
    OP_ALLOC,
    OP_FREE,
    OP_THP,
    Ap,
    As,
)

if TYPE_CHECKING:
    from spbfast.config.actors import Daemons

LIFE_SHIFT = 32
REGION_BYTES = PB_PAGES * PAGE_SIZE


def lower_daemons(plan: DemandBuilder, actor: Daemons) -> None:
    """One entry with a slot for every page."""
    regions = actor.memory // REGION_BYTES
    rewrite = per_tick(actor, actor.churn_per_second * regions)
    chunk = max(plan.chunk // REGION_BYTES, 1)
    plan.entry(
        max(2 * most_in_tick(rewrite), chunk),
        owner=plan.memory_owner(actor.label, regions * PB_PAGES, actor.pinned),
        units=regions,
        mt=MOVABLE,
        cls=CLS_USER,
        thp_32=threshold_32(actor.thp_share),
        rewrite=rewrite,
        boot_units=regions,
        boot_chunk=chunk,
    )


@kernel
def is_thp(p, stream, life, region):
    """Whether a region of that life is asked for as a huge page."""
    return chance(draw(stream, DRAW_REGION + (life << LIFE_SHIFT) + region), p[Ap.THP_32])


@kernel
def put_touch(rows, n, p, stream, life, region):
    """Touch a whole region that is empty. A THP row's class is that of its base pages."""
    slot = p[Ap.BASE] + region * PB_PAGES
    if is_thp(p, stream, life, region):
        owner, mt = p[Ap.OWNER], p[Ap.MT]
        return put_row(rows, n, p[Ap.CPU], OP_THP, owner, slot, 1, PB_ORDER, 0, mt, p[Ap.CLS])
    return put_own_row(rows, n, p, OP_ALLOC, slot, PB_PAGES)


@kernel
def put_again(rows, n, p, stream, life, region):
    """Free a whole region and touch it again."""
    n = put_own_row(rows, n, p, OP_FREE, p[Ap.BASE] + region * PB_PAGES, PB_PAGES)
    return put_touch(rows, n, p, stream, life, region)


@kernel
def boot_regions(p, s, stream, rows, n):
    """The next regions of a daemon's memory."""
    last = min(s[As.FRONT] + p[Ap.BOOT_CHUNK], p[Ap.BOOT_UNITS])
    for region in range(s[As.FRONT], last):
        n = put_touch(rows, n, p, stream, 0, region)
    s[As.FRONT] = last
    return n


@kernel
def tick_regions(p, s, stream, tick, rows, n):
    """A daemon's churn."""
    if p[Ap.REWRITE] == 0:
        return n
    c = first_counter(tick)
    for i in range(nr_due(s, ACC_REWRITE, p[Ap.REWRITE], draw(stream, c))):
        n = put_again(rows, n, p, stream, 0, below(draw(stream, c + i + 1), p[Ap.UNITS]))
    return n
