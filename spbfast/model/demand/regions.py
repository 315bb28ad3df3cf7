"""Anonymous memory in 2 MiB regions: guests with their whole life, and the slow churn of daemons.

Owns the kinds GUEST and REGIONS. Slot = page of the entry's memory; a huge page takes its region's first
slot. Whether a region is asked for as a huge page is a draw of the entry's life and the region, so that
what is freed and touched again asks for the same. Never knows whether a huge page was obtained.

Model: memory is given back and touched again by whole regions, since a part of a huge page cannot go.
"""

from __future__ import annotations

from spbfast.constants import (
    CLS_BLOCKING,
    CLS_KSWAPD,
    PB_ORDER,
    PB_PAGES,
    UNMOVABLE,
)
from spbfast.jit.decorators import kernel
from spbfast.model.demand.rows import first_counter, nr_due, put, put_row
from spbfast.model.primitives.draws import below, chance, derive_key, draw
from spbfast.model.state.demand_layout import (
    ACC,
    ACC_BALLOON,
    ACC_REWRITE,
    DRAW_BALLOON,
    DRAW_LIFE,
    DRAW_REGION,
    OP_ALLOC,
    OP_FREE,
    OP_THP,
    STEADY,
    TOUCHING,
    WAITING,
    Ap,
    As,
)

CLS_USER = CLS_BLOCKING | CLS_KSWAPD
LIFE_SHIFT = 32
NEVER = 1 << 60


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
    return put(rows, n, p, OP_ALLOC, slot, PB_PAGES)


@kernel
def put_again(rows, n, p, stream, life, region):
    """Free a whole region and touch it again."""
    n = put(rows, n, p, OP_FREE, p[Ap.BASE] + region * PB_PAGES, PB_PAGES)
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


# --- guests ---------------------------------------------------------------------------------------


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
    s[As.RESTART_AT] = tick + p[Ap.RESTART] + below(x, p[Ap.RESTART_SPAN] + 1) if p[Ap.RESTART] else NEVER


@kernel
def put_end(p, s, tick, rows, n):
    """A guest ends: all of its memory goes at once."""
    n = put(rows, n, p, OP_FREE, p[Ap.BASE], p[Ap.UNITS] * PB_PAGES)
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
            n = put(rows, n, p, OP_ALLOC, p[Ap.BASE] + s[As.FRONT], count)
        s[As.FRONT] += count
        budget -= count
    if budget < 0:  # a huge page came whole: its pages count for the next ticks
        s[As.ACC] += budget << 30
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
        n = put(rows, n, p, OP_FREE, p[Ap.BASE] + region * PB_PAGES, PB_PAGES)
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
