"""Samples of the simulated machine as arrays: their columns, and room for them.

Owns the named tuple `Samples`. loop/sample.py fills it; collect.py names its columns for the dataset.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import (
    NR_MT,
    NR_ORDERS,
)
from spbfast.jit.decorators import by_reference
from spbfast.model.state.vmstat import NR_VM


class Ga(enum.IntEnum):
    """Columns of `Samples.gauges`; the names are those of the output variables."""

    SPB_TAINTED = 0
    SPB_CLEAN = 1
    SPB_EMPTY = 2
    SPB_ISOLATED = 3
    SLAB_PAGES = 4
    SLAB_CACHED_BYTES = 5
    SLAB_OBJECTS = 6
    PAGECACHE_PAGES = 7
    PCP_PAGES = 8
    FREE_PAGES_STRANDED_IN_TAINTED = 9
    CONTIG_1G_NOW = 10
    CONTIG_1G_WITHOUT_RECLAIM = 11
    PCP_OWNED_PAGEBLOCKS = 12
    PCP_STRANDED_PAGES = 13
    CONTIG_1G_HELD = 14
    CONTIG_1G_PAGES_TO_MOVE = 15
    NR_FREE_PAGES = 16
    NR_FREE_PAGES_BLOCKS = 17
    NR_SLAB_RECLAIMABLE = 18
    NR_SLAB_UNRECLAIMABLE = 19
    PINNED_PAGES = 20
    SPB_TAINTED_BY_STALE_BITS = 21
    CONTIG_1G_WITHOUT_RECLAIM_UNPINNED = 22
    SWAP_USED_PAGES = 23


# Gauges of superpageblocks count zones Normal only, as all published figures do; the rest sums up all zones.
NORMAL_GAUGES = (
    Ga.SPB_TAINTED,
    Ga.SPB_CLEAN,
    Ga.SPB_EMPTY,
    Ga.SPB_ISOLATED,
    Ga.FREE_PAGES_STRANDED_IN_TAINTED,
    Ga.CONTIG_1G_NOW,
    Ga.CONTIG_1G_WITHOUT_RECLAIM,
    Ga.CONTIG_1G_PAGES_TO_MOVE,
    Ga.SPB_TAINTED_BY_STALE_BITS,
    Ga.CONTIG_1G_WITHOUT_RECLAIM_UNPINNED,
)


# What is off by default: as long as it is 0 throughout, a run's digest is what it was without it.
OPTIONAL_GAUGES = (Ga.SWAP_USED_PAGES,)


# What is also given zone by zone.
ZONE_GAUGES = (Ga.SPB_TAINTED, Ga.SPB_CLEAN, Ga.SPB_EMPTY, Ga.PAGECACHE_PAGES)


class Sb(enum.IntEnum):
    """Second axis of `Samples.spb`: what a snapshot says of a superpageblock."""

    CATEGORY = 0  # -1: a superpageblock without memory
    FREE_PB = 1
    FREE_PAGES = 2
    UNMOVABLE = 3  # pageblocks with the content bit
    MOVABLE = 4
    RECLAIMABLE = 5
    PINNED_PAGES = 6


class Got1g(enum.IntEnum):
    """Columns of `Samples.asked`: what a copy of the machine gave, NaN where none was asked."""

    OBTAINED = 0
    MOVED = 1  # pages migrated for it


@by_reference()
class Samples(NamedTuple):
    """Rows of samples: gauges, free pages by migratetype, free blocks by order, counters; times in ns.

    Pageblocks with the content bit and with pages in use are by requested type; `spb` has a snapshot of
    every superpageblock, in columns as `Sb`, or no rows. `asked` is written between quanta, not by kernels.
    """

    time: np.ndarray
    gauges: np.ndarray
    free_pages: np.ndarray
    free_blocks: np.ndarray
    vm: np.ndarray
    content: np.ndarray
    in_use: np.ndarray
    spb: np.ndarray
    asked: np.ndarray


def make_samples(nr: int, nr_spb: int = 0) -> Samples:
    """Room for `nr` samples, with snapshots of `nr_spb` superpageblocks in each."""
    return Samples(
        content=np.zeros((nr, NR_MT), np.int64),
        in_use=np.zeros((nr, NR_MT), np.int64),
        spb=np.zeros((nr if nr_spb else 0, len(Sb), nr_spb), np.int32),
        time=np.zeros(nr, np.int64),
        gauges=np.zeros((nr, len(Ga)), np.int64),
        free_pages=np.zeros((nr, NR_MT), np.int64),
        free_blocks=np.zeros((nr, NR_ORDERS), np.int64),
        vm=np.zeros((nr, NR_VM), np.int64),
        asked=np.full((nr, len(Got1g)), np.nan),
    )
