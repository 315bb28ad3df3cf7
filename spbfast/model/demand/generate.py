"""The demand of all actors, tick by tick: rows that the loop executes.

Owns the order (file order within a tick) and the two entries `generate_boot` and `generate_tick`. Demand is
a function of (seed, replicate, actor, tick) and of the actors' own history, never of what the allocator
answered, so that two policies meet the same world. Each entry draws from a stream of its own, keyed by its
name: an actor that is added or left out does not change what the others ask for.
Rows: constants.py (Op, Row). What an entry does: regions.py, steady.py.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import Err
from spbfast.jit.decorators import entry_kernel, kernel
from spbfast.model.demand.gigantic_demand import tick_gigantic
from spbfast.model.demand.regions import boot_regions, tick_guest, tick_regions
from spbfast.model.demand.steady import (
    boot_nodes,
    boot_slab,
    boot_statics,
    tick_buffers,
    tick_cache,
    tick_nodes,
    tick_population,
    tick_slab,
)
from spbfast.model.primitives.draws import derive_key
from spbfast.model.state.demand_layout import Ap, Kind

ROWS_FULL = -int(Err.ROWS_FULL)


@kernel
def _tick_entry(actors, a, key, tick, rows, n):
    kind, p, s = actors.kind[a], actors.param[a], actors.state[a]
    stream = derive_key(key, p[Ap.STREAM])
    if kind == Kind.POPULATION:
        return tick_population(p, s, stream, tick, rows, n)
    if kind == Kind.GUEST:
        return tick_guest(p, s, key, stream, tick, rows, n)
    if kind == Kind.CACHE:
        return tick_cache(p, s, actors.table, stream, tick, rows, n)
    if kind == Kind.SLAB:
        return tick_slab(p, s, actors.table, stream, tick, rows, n)
    if kind == Kind.NODES:
        return tick_nodes(p, s, stream, tick, rows, n)
    if kind == Kind.REGIONS:
        return tick_regions(p, s, stream, tick, rows, n)
    if kind == Kind.GIGANTIC:
        return tick_gigantic(p, tick, rows, n)
    if kind == Kind.BUFFERS:
        return tick_buffers(p, s, stream, tick, rows, n)
    return n


@entry_kernel
def generate_tick(actors, key, tick, rows):
    """Rows of one tick; ticks must come in order, each once.

    Parameters
    ----------
    actors : Actors
        Their state moves on.
    key : int
        Key of the replicate (draws.key_of(seed, replicate)).
    tick : int
        Milliseconds since t = 0.
    rows : ndarray
        int32 (capacity, NR_ROW), overwritten.

    Returns
    -------
    int
        Number of rows, or -Err.ROWS_FULL.
    """
    n = np.int64(0)
    for a in range(actors.kind.shape[0]):
        n = _tick_entry(actors, a, key, tick, rows, n)
    return n if n <= rows.shape[0] else np.int64(ROWS_FULL)


@kernel
def _boot_entry(actors, a, key, step, rows, n):
    kind, p, s = actors.kind[a], actors.param[a], actors.state[a]
    stream = derive_key(key, p[Ap.STREAM])
    if kind == Kind.STATICS:
        return boot_statics(p, s, actors.table, stream, step, rows, n)
    if kind == Kind.SLAB_STATICS:
        return boot_slab(p, s, actors.table, stream, step, rows, n)
    if kind == Kind.REGIONS:
        return boot_regions(p, s, stream, rows, n)
    if kind == Kind.NODES:
        return boot_nodes(p, s, rows, n)
    return n


@entry_kernel
def generate_boot(actors, key, step, rows):
    """Rows of boot step 0, 1, ..: one chunk of every actor that still has something to allocate.

    Returns
    -------
    int
        Number of rows, 0 when boot's demand is complete, or -Err.ROWS_FULL.
    """
    n = np.int64(0)
    for a in range(actors.kind.shape[0]):
        n = _boot_entry(actors, a, key, step, rows, n)
    return n if n <= rows.shape[0] else np.int64(ROWS_FULL)
