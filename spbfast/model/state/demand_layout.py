"""Actors as arrays: parameters, demand-only state, and the columns of both.

Owns the named tuple `Actors` and its column names. One entry is one source of demand (a guest, a task's share
of the churn); demand/actor_kinds.py knows what each kind of entry does. State is what an actor remembers of
its own demand; nothing here ever depends on what the allocator answered.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import CLS_BLOCKING, CLS_KSWAPD, Op
from spbfast.jit.decorators import by_reference

ONE_SHIFT = 30
ONE = 1 << ONE_SHIFT  # fixed point of amounts per tick
MAX_PER_TICK = 1 << 16  # amounts per tick stay below this, so that the fixed point cannot overflow
NR_FOLIO_ORDERS = 11
CLS_USER = CLS_BLOCKING | CLS_KSWAPD  # GFP_USER: an ordinary request that may wait


class Ap(enum.IntEnum):
    """Columns of `Actors.param`; rates per tick in units of 1 / ONE."""

    OWNER = 0
    BASE = 1  # first slot
    UNITS = 2  # slots of a population, regions, nodes
    ORDER = 3
    ALT_ORDER = 4
    MT = 5
    CLS = 6
    CPU = 7
    STREAM = 8  # number of the entry's random stream
    RATE = 9  # replaced slots, pages touched, pages cached, inodes, new nodes
    BURST_ON = 10  # ticks; 0: steady
    BURST_PERIOD = 11
    BOOT_UNITS = 12  # blocks, regions, inodes or nodes at boot
    BOOT_CHUNK = 13  # of them per step (STATICS: pages)
    THP_32 = 14  # chance that a region is asked for as a huge page
    REWRITE = 15  # regions freed and touched again; NODES: per existing node
    BALLOON = 16  # regions given back
    BALLOON_LAG = 17  # how many of them stay away
    SIDE_OWNER = 18  # the guest's unmovable pages
    SIDE_PER_REGION = 19
    BUFFERS = 20  # pages, in the slots after those of the regions
    START = 21  # ticks
    SPACING = 22  # least ticks between two starts, and the width of the range
    SPACING_SPAN = 23
    RESTART = 24  # least ticks until a restart (0: never), and the width of the range
    RESTART_SPAN = 25
    PAUSE = 26
    NUMBER = 27  # of the guest
    GROUP_STREAM = 28  # stream of the start times
    TABLE = 29  # first entry of `Actors.table`, and how many
    NR_TABLE = 30
    WALKERS = 31
    WALK_TICKS = 32
    DROP_32 = 33  # share dropped or unlinked
    ONCE_32 = 34  # share read once
    GROUP = 35  # pages of a node; BUFFERS: slots of a buffer
    TASKS = 36  # of a population: CPUs from CPU on, of CPUS
    CPUS = 37
    HITS = 38  # MIXTURE: slots hit per tick


class As(enum.IntEnum):
    """Columns of `Actors.state`."""

    ACC = 0
    ACC_REWRITE = 1
    ACC_BALLOON = 2
    FRONT = 3  # units done at boot; pages touched; nodes that exist
    PHASE = 4
    NEXT_AT = 5
    LIFE = 6
    RESTART_AT = 7
    BUFFERED = 8
    BALLOONED = 9  # regions given back in this life
    BALLOON_NUMBER = 10  # regions given back ever
    ACC_ORDER0 = 11  # by order: pages of the page cache, blocks left of statics


# Plain ints for kernel arguments (see constants.py).
ACC, ACC_REWRITE, ACC_BALLOON, ACC_ORDER0 = (
    int(column) for column in (As.ACC, As.ACC_REWRITE, As.ACC_BALLOON, As.ACC_ORDER0)
)
(
    OP_ALLOC,
    OP_FREE,
    OP_THP,
    OP_REPLACE,
    OP_CACHE_ADD,
    OP_CACHE_DROP,
    OP_SLAB_GROW,
    OP_SLAB_DROP,
    OP_CONTIG_ALLOC,
    OP_CONTIG_FREE,
) = (int(op) for op in Op if op != Op.NONE)
NR_AP = len(Ap)
NR_AS = ACC_ORDER0 + NR_FOLIO_ORDERS

# Kinds of draws: the top bits of a counter. Draws of a tick count from tick << 20.
TICK_SHIFT = 20
DRAW_BURST, DRAW_REGION, DRAW_BALLOON, DRAW_LIFE, DRAW_BOOT, DRAW_WALK = (k << 56 for k in range(1, 7))

WAITING, TOUCHING, STEADY = range(3)


@by_reference(inner={"param": (NR_AP,), "state": (NR_AS,)})
class StartSlots(NamedTuple):
    """Slots of an owner that a captured machine fills: `blocks` of them from slot `base` on."""

    owner: int
    base: int
    blocks: int
    order: int
    mt: int
    holder: str | None


class Actors(NamedTuple):
    """Entries in file order.

    Attributes
    ----------
    kind : ndarray
        int64 (entries).
    param : ndarray
        int64 (entries, NR_AP); never changes.
    state : ndarray
        int64 (entries, NR_AS).
    table : ndarray
        int64: weights of folio orders, cumulative weights of instances, blocks per order.
    """

    kind: np.ndarray
    param: np.ndarray
    state: np.ndarray
    table: np.ndarray


def make_actors(kinds: list[int], params: list[dict[int, int]], table: list[int]) -> Actors:
    """Actors at rest before boot; parameters not given are 0."""
    nr = len(kinds)
    param = np.zeros((nr, NR_AP), np.int64)
    for row, given in zip(param, params, strict=True):
        for column, value in given.items():
            row[column] = value
    return Actors(
        kind=np.array(kinds, np.int64),
        param=param,
        state=np.zeros((nr, NR_AS), np.int64),
        table=np.array(table or [0], np.int64),
    )
