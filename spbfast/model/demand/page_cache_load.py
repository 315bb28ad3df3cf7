"""Files read and written through the page cache.

Owns the kind CACHE (actor page_cache): folios that enter, by order, and how many of the oldest are dropped
by truncation. Folios have no slots; which of them exist is the page cache's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import CLS_NORETRY, CLS_NOWARN, MOVABLE, PAGE_SIZE
from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder, burst_columns, per_tick
from spbfast.model.demand.demand_rows import first_counter, is_idle, nr_due, nr_share, put_row
from spbfast.model.primitives.draws import draw, threshold_32
from spbfast.model.state.demand_layout import (
    ACC,
    ACC_ORDER0,
    CLS_USER,
    ONE,
    ONE_SHIFT,
    OP_CACHE_ADD,
    OP_CACHE_DROP,
    Ap,
)

if TYPE_CHECKING:
    from spbfast.config.actors import PageCacheLoad

CLS_READAHEAD = CLS_USER | CLS_NORETRY | CLS_NOWARN
PAGE_CACHE_OWNER = 0


def lower_page_cache(plan: DemandBuilder, actor: PageCacheLoad) -> None:
    """One entry; its table has the share of each folio order, in units of 1 / ONE."""
    factor, burst = burst_columns(actor.burst)
    weights = actor.folio_weights or plan.scenario.pagecache.folio_weights
    shares = [round(ONE * w / sum(weights)) for w in weights]
    plan.entry(
        2 * len(shares) + 1,
        owner=PAGE_CACHE_OWNER,
        mt=MOVABLE,
        cls=CLS_READAHEAD,
        rate=per_tick(actor, factor * actor.rate / PAGE_SIZE),
        once_32=threshold_32(actor.read_once),
        drop_32=threshold_32(actor.dropped),
        **burst,
        **plan.add_table(shares),
    )


@kernel
def put_folios(p, order, count, once, rows, n):
    """Folios for the young end: SLOT 0 those read once, SLOT 1 those that are used again."""
    owner, mt, cls = p[Ap.OWNER], p[Ap.MT], p[Ap.CLS]
    if once > 0:
        n = put_row(rows, n, p[Ap.CPU], OP_CACHE_ADD, owner, 0, once, order, 0, mt, cls)
    if count > once:
        n = put_row(rows, n, p[Ap.CPU], OP_CACHE_ADD, owner, 1, count - once, order, 0, mt, cls)
    return n


@kernel
def tick_page_cache(p, s, table, stream, tick, rows, n):
    """Pages of this tick by folio order: an accumulator each, so that shares of bytes are exact."""
    if is_idle(p, stream, tick):
        return n
    c = first_counter(tick)
    pages = nr_due(s, ACC, p[Ap.RATE], draw(stream, c))
    dropped = np.int64(0)
    for order in range(p[Ap.NR_TABLE]):
        acc = s[ACC_ORDER0 + order] + pages * table[p[Ap.TABLE] + order]
        count = acc >> (ONE_SHIFT + order)
        s[ACC_ORDER0 + order] = acc - (count << (ONE_SHIFT + order))
        x = draw(stream, c + 1 + order)
        n = put_folios(p, order, count, nr_share(count, p[Ap.ONCE_32], x), rows, n)
        dropped += nr_share(count, p[Ap.DROP_32], draw(x, order))
    if dropped > 0:
        n = put_row(rows, n, p[Ap.CPU], OP_CACHE_DROP, p[Ap.OWNER], 0, dropped, 0, -1, p[Ap.MT], p[Ap.CLS])
    return n
