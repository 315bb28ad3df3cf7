"""Demand without a history of its own: populations, btrfs nodes, page cache, file metadata, statics.

Owns the kinds POPULATION, BUFFERS, NODES, CACHE, SLAB, STATICS and SLAB_STATICS. A population is a fixed
number of slots of which one at random is freed and allocated again, so that lifetimes are exponential with
mean slots / rate. Inodes are named by their shrinker instance alone. Never knows what was obtained.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import kernel
from spbfast.model.demand.rows import first_counter, is_idle, nr_due, nr_share, put, put_row
from spbfast.model.primitives.draws import below, draw, high_32
from spbfast.model.state.demand_layout import (
    ACC,
    ACC_ORDER0,
    ACC_REWRITE,
    DRAW_BOOT,
    DRAW_WALK,
    NR_FOLIO_ORDERS,
    OP_ALLOC,
    OP_CACHE_ADD,
    OP_CACHE_DROP,
    OP_FREE,
    OP_REPLACE,
    OP_SLAB_DROP,
    OP_SLAB_GROW,
    Ap,
    As,
)

WALKER_SHIFT = 12


@kernel
def tick_population(p, s, stream, tick, rows, n):
    """Replace slots at random; the tasks behind a population take turns, a tick each."""
    c = first_counter(tick)
    base, units, owner = p[Ap.BASE], p[Ap.UNITS], p[Ap.OWNER]
    order, alt, mt, cls = p[Ap.ORDER], p[Ap.ALT_ORDER], p[Ap.MT], p[Ap.CLS]
    cpu = (p[Ap.CPU] + tick % p[Ap.TASKS]) % p[Ap.CPUS]
    for i in range(nr_due(s, ACC, p[Ap.RATE], draw(stream, c))):
        slot = base + below(draw(stream, c + 1 + i), units)
        n = put_row(rows, n, cpu, OP_REPLACE, owner, slot, 1, order, alt, mt, cls)
    return n


@kernel
def tick_buffers(p, s, stream, tick, rows, n):
    """Replace kvmalloc buffers at random: all slots of one are freed, one request fills them."""
    c = first_counter(tick)
    stride = p[Ap.GROUP]
    for i in range(nr_due(s, ACC, p[Ap.RATE], draw(stream, c))):
        slot = p[Ap.BASE] + below(draw(stream, c + 1 + i), p[Ap.UNITS]) * stride
        n = put(rows, n, p, OP_FREE, slot, stride)
        n = put(rows, n, p, OP_ALLOC, slot, 1)
    return n


# --- btrfs nodes ----------------------------------------------------------------------------------


@kernel
def put_nodes(p, s, count, rows, n):
    """New nodes, as far as there is room."""
    count = min(count, p[Ap.UNITS] - s[As.FRONT])
    if count > 0:
        group = p[Ap.GROUP]
        n = put(rows, n, p, OP_ALLOC, p[Ap.BASE] + s[As.FRONT] * group, count * group)
        s[As.FRONT] += count
    return n


@kernel
def boot_nodes(p, s, rows, n):
    """The next nodes that exist at boot."""
    return put_nodes(p, s, min(p[Ap.BOOT_CHUNK], p[Ap.BOOT_UNITS] - s[As.FRONT]), rows, n)


@kernel
def tick_nodes(p, s, stream, tick, rows, n):
    """Growth up to the total; of the nodes that exist, some are replaced."""
    c = first_counter(tick)
    n = put_nodes(p, s, nr_due(s, ACC, p[Ap.RATE], draw(stream, c)), rows, n)
    group = p[Ap.GROUP]
    for i in range(nr_due(s, ACC_REWRITE, p[Ap.REWRITE] * s[As.FRONT], draw(stream, c + 1))):
        slot = p[Ap.BASE] + below(draw(stream, c + 2 + i), s[As.FRONT]) * group
        n = put(rows, n, p, OP_FREE, slot, group)
        n = put(rows, n, p, OP_ALLOC, slot, group)
    return n


# --- page cache -----------------------------------------------------------------------------------


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
def tick_cache(p, s, table, stream, tick, rows, n):
    """Pages of this tick by folio order: an accumulator each, so that shares of bytes are exact."""
    if is_idle(p, stream, tick):
        return n
    c = first_counter(tick)
    pages = nr_due(s, ACC, p[Ap.RATE], draw(stream, c))
    dropped = np.int64(0)
    for order in range(p[Ap.NR_TABLE]):
        acc = s[ACC_ORDER0 + order] + pages * table[p[Ap.TABLE] + order]
        count = acc >> (30 + order)
        s[ACC_ORDER0 + order] = acc - (count << (30 + order))
        x = draw(stream, c + 1 + order)
        n = put_folios(p, order, count, nr_share(count, p[Ap.ONCE_32], x), rows, n)
        dropped += nr_share(count, p[Ap.DROP_32], draw(x, order))
    if dropped > 0:
        n = put_row(rows, n, p[Ap.CPU], OP_CACHE_DROP, p[Ap.OWNER], 0, dropped, 0, -1, p[Ap.MT], p[Ap.CLS])
    return n


# --- file metadata --------------------------------------------------------------------------------


@kernel
def pick_instance(p, table, x):
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
def boot_slab(p, s, table, stream, step, rows, n):
    """The next inodes of the boot-time caches, in one instance a step."""
    count = min(p[Ap.BOOT_CHUNK], p[Ap.BOOT_UNITS] - s[As.FRONT])
    if count > 0:
        n = put(rows, n, p, OP_SLAB_GROW, pick_instance(p, table, draw(stream, DRAW_BOOT + step)), count)
        s[As.FRONT] += count
    return n


@kernel
def tick_slab(p, s, table, stream, tick, rows, n):
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
        instance = pick_instance(p, table, draw(stream, DRAW_WALK + (walk << WALKER_SHIFT) + w))
        n = put(rows, n, p, OP_SLAB_GROW, instance, count)
        gone = nr_share(count, p[Ap.DROP_32], draw(stream, c + 1 + w))
        if gone > 0:
            n = put(rows, n, p, OP_SLAB_DROP, instance, gone)
    return n


# --- boot statics ---------------------------------------------------------------------------------


@kernel
def boot_statics(p, s, table, stream, step, rows, n):
    """A run of blocks of one order, drawn by the pages that each order has still to give."""
    left = np.int64(0)
    for order in range(p[Ap.NR_TABLE]):
        left += (table[p[Ap.TABLE] + order] - s[ACC_ORDER0 + order]) << order
    if left == 0:
        return n
    at = below(draw(stream, DRAW_BOOT + step), left)
    order = np.int64(0)
    while order < NR_FOLIO_ORDERS:
        blocks = table[p[Ap.TABLE] + order] - s[ACC_ORDER0 + order]
        if at < blocks << order:
            break
        at -= blocks << order
        order += 1
    count = min(blocks, max(p[Ap.BOOT_CHUNK] >> order, 1))
    n = put_row(
        rows,
        n,
        p[Ap.CPU],
        OP_ALLOC,
        p[Ap.OWNER],
        p[Ap.BASE] + s[As.FRONT],
        count,
        order,
        -1,
        p[Ap.MT],
        p[Ap.CLS],
    )
    s[ACC_ORDER0 + order] += count
    s[As.FRONT] += count
    return n
