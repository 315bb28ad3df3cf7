"""The demand of all actors, tick by tick: rows that the loop executes.

Owns the order (file order within a tick) and the two entries `generate_boot` and `generate_tick`. Demand is
a function of (seed, replicate, actor, tick) and of the actors' own history, never of what the allocator
answered, so that two policies meet the same world. Each entry draws from a stream of its own, keyed by its
name: an actor that is added or left out does not change what the others ask for.
Rows: constants.py (Op, Row). What an entry does: the file that actor_kinds.py names for it.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import Err
from spbfast.jit.decorators import entry_kernel
from spbfast.model.demand.actor_kinds import boot_entry, tick_entry

ROWS_FULL = -int(Err.ROWS_FULL)


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
        n = tick_entry(actors, a, key, tick, rows, n)
    return n if n <= rows.shape[0] else np.int64(ROWS_FULL)


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
        n = boot_entry(actors, a, key, step, rows, n)
    return n if n <= rows.shape[0] else np.int64(ROWS_FULL)
