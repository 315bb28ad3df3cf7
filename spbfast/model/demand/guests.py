"""Virtual machines: a guest's whole life, and the host's memory for it.

Owns the kind GUEST (actor guests): it starts, touches its memory in order, rewrites and balloons, and ends
all at once. How a region is touched: regions.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spbfast.constants import MOVABLE, PAGE_SIZE, PB_ORDER, PB_PAGES, UNMOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import SECOND, DemandBuilder, most_in_tick, per_tick, ticks
from spbfast.model.demand.demand_rows import first_counter, nr_due, put_own_row, put_row
from spbfast.model.demand.regions import REGION_BYTES, is_thp, put_again, put_touch
from spbfast.model.primitives.draws import below, derive_key, draw, threshold_32
from spbfast.model.state.demand_layout import (
    ACC,
    ACC_BALLOON,
    ACC_REWRITE,
    CLS_USER,
    DRAW_BALLOON,
    DRAW_LIFE,
    ONE_SHIFT,
    OP_ALLOC,
    OP_FREE,
    STEADY,
    TOUCHING,
    WAITING,
    Ap,
    As,
)

if TYPE_CHECKING:
    from spbfast.config.actors import Guests

NEVER_TICK = 1 << 60


def lower_guests(plan: DemandBuilder, actor: Guests) -> None:
    """An entry for each guest, with an owner for its memory and one for the host's."""
    regions = actor.memory // REGION_BYTES
    touch = per_tick(actor, actor.touch_rate / PAGE_SIZE)
    rewrite = per_tick(actor, actor.rewrite_per_second * regions)
    balloon = per_tick(actor, actor.balloon_per_second * regions)
    buffers = -(-actor.buffers // PAGE_SIZE)
    common = {
        "units": regions,
        "mt": MOVABLE,
        "cls": CLS_USER,
        "rate": touch,
        "thp_32": threshold_32(actor.thp_share),
        "rewrite": rewrite,
        "balloon": balloon,
        "balloon_lag": round(actor.balloon_per_second * regions * actor.balloon_time / SECOND),
        "side_per_region": actor.page_tables_per_region,
        "buffers": buffers,
        "start": ticks(actor.start),
        "spacing": ticks(actor.spacing_min),
        "spacing_span": ticks(actor.spacing_max) - ticks(actor.spacing_min),
        "restart": ticks(actor.restart_min) if actor.restart else 0,
        "restart_span": ticks(actor.restart_max) - ticks(actor.restart_min),
        "pause": ticks(actor.restart_pause),
        "group_stream": plan.group_stream,
    }
    rows = (
        4 * (most_in_tick(touch) // PB_PAGES + 2) + 2 * most_in_tick(rewrite) + 3 * most_in_tick(balloon) + 2
    )
    side = regions * actor.page_tables_per_region + buffers
    for number in range(actor.count):
        name = f"{actor.label}[{number}]"
        owner = plan.memory_owner(name, regions * PB_PAGES, actor.pinned)
        side_owner = plan.owner(f"{name}.host", side, UNMOVABLE)
        plan.entry(rows, owner=owner, side_owner=side_owner, number=number, **common)


@kernel
def start_tick(p, key):
    """When a guest starts: the first start and the spacings before it, alike for all of its group."""
    group = derive_key(key, p[Ap.GROUP_STREAM])
    tick = p[Ap.START]
    for k in range(p[Ap.NUMBER]):
        tick += p[Ap.SPACING] + below(draw(group, k), p[Ap.SPACING_SPAN] + 1)
    return tick


@kernel
def begin_life(p, s, stream, tick):
    """A guest starts; when it will be restarted is a draw of its life."""
    s[As.LIFE] += 1
    s[As.PHASE] = TOUCHING
    s[As.ACC] = 0
    s[As.FRONT] = 0
    s[As.BUFFERED] = 0
    s[As.BALLOONED] = 0
    x = draw(stream, DRAW_LIFE + s[As.LIFE])
    s[As.RESTART_AT] = NEVER_TICK
    if p[Ap.RESTART]:
        s[As.RESTART_AT] = tick + p[Ap.RESTART] + below(x, p[Ap.RESTART_SPAN] + 1)


@kernel
def put_end(p, s, tick, rows, n):
    """A guest ends: all of its memory goes at once."""
    n = put_own_row(rows, n, p, OP_FREE, p[Ap.BASE], p[Ap.UNITS] * PB_PAGES)
    side = p[Ap.UNITS] * p[Ap.SIDE_PER_REGION] + p[Ap.BUFFERS]
    if side > 0:
        n = put_row(rows, n, p[Ap.CPU], OP_FREE, p[Ap.SIDE_OWNER], 0, side, 0, -1, UNMOVABLE, CLS_USER)
    s[As.PHASE] = WAITING
    s[As.NEXT_AT] = tick + 1 + p[Ap.PAUSE]
    return n


@kernel
def put_side(rows, n, p, slot, count):
    """Unmovable pages of the host for a guest."""
    if count == 0:
        return n
    return put_row(rows, n, p[Ap.CPU], OP_ALLOC, p[Ap.SIDE_OWNER], slot, count, 0, -1, UNMOVABLE, CLS_USER)


@kernel
def tick_touching(p, s, stream, tick, rows, n):
    """A guest touches its memory in order; its buffers come with the first regions."""
    budget = nr_due(s, ACC, p[Ap.RATE], draw(stream, first_counter(tick)))
    total = p[Ap.UNITS] * PB_PAGES
    tables, per_region = p[Ap.UNITS] * p[Ap.SIDE_PER_REGION], p[Ap.SIDE_PER_REGION]
    while budget > 0 and s[As.FRONT] < total:
        region = s[As.FRONT] >> PB_ORDER
        left = PB_PAGES - (s[As.FRONT] & (PB_PAGES - 1))
        if left == PB_PAGES:
            n = put_side(rows, n, p, region * per_region, per_region)
            count = min(PB_PAGES, p[Ap.BUFFERS] - s[As.BUFFERED])
            n = put_side(rows, n, p, tables + s[As.BUFFERED], count)
            s[As.BUFFERED] += count
        if is_thp(p, stream, s[As.LIFE], region):
            n = put_touch(rows, n, p, stream, s[As.LIFE], region)
            count = PB_PAGES
        else:
            count = min(budget, left)
            n = put_own_row(rows, n, p, OP_ALLOC, p[Ap.BASE] + s[As.FRONT], count)
        s[As.FRONT] += count
        budget -= count
    if budget < 0:  # a huge page came whole: its pages count for the next ticks
        s[As.ACC] += budget << ONE_SHIFT
    if s[As.FRONT] >= total:
        s[As.PHASE] = STEADY
    return n


@kernel
def tick_steady(p, s, stream, tick, rows, n):
    """A guest rewrites regions, gives some back and takes the oldest of these again."""
    c = first_counter(tick)
    for i in range(nr_due(s, ACC_REWRITE, p[Ap.REWRITE], draw(stream, c))):
        n = put_again(rows, n, p, stream, s[As.LIFE], below(draw(stream, c + 2 + i), p[Ap.UNITS]))
    for _ in range(nr_due(s, ACC_BALLOON, p[Ap.BALLOON], draw(stream, c + 1))):
        number = s[As.BALLOON_NUMBER]
        region = below(draw(stream, DRAW_BALLOON + number), p[Ap.UNITS])
        n = put_own_row(rows, n, p, OP_FREE, p[Ap.BASE] + region * PB_PAGES, PB_PAGES)
        s[As.BALLOON_NUMBER] = number + 1
        s[As.BALLOONED] += 1
        if s[As.BALLOONED] > p[Ap.BALLOON_LAG]:
            back = below(draw(stream, DRAW_BALLOON + number - p[Ap.BALLOON_LAG]), p[Ap.UNITS])
            n = put_again(rows, n, p, stream, s[As.LIFE], back)
    return n


@kernel
def tick_guest(p, s, key, stream, tick, rows, n):
    """One tick of a guest's life."""
    if s[As.NEXT_AT] == 0:  # ticks are kept plus one: 0 is the state at rest
        s[As.NEXT_AT] = start_tick(p, key) + 1
    if s[As.PHASE] == WAITING:
        if tick + 1 < s[As.NEXT_AT]:
            return n
        begin_life(p, s, stream, tick)
    elif tick >= s[As.RESTART_AT]:
        return put_end(p, s, tick, rows, n)
    if s[As.PHASE] == TOUCHING:
        return tick_touching(p, s, stream, tick, rows, n)
    return tick_steady(p, s, stream, tick, rows, n)
