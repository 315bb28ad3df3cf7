"""What compaction by two scanners keeps: cursors and skip bits between runs, and the control of a run.

Owns the names of the columns of `Node.compact` and the sizes of the arrays beside it. Kernels of workers/
change them. Source: struct zone (compact_cached_migrate_pfn, compact_cached_free_pfn,
compact_blockskip_flush, the skip bit of a pageblock) and struct compact_control.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import NR_ORDERS, PB_PAGES
from spbfast.errors import InvariantError

if TYPE_CHECKING:
    from spbfast.model.state.layout import Geo

MAX_PLACES = 4096  # pages that a run holds isolated at most; a power of two, far more than it needs
NR_PICKED = 2 * PB_PAGES  # blocks that wait to be migrated: a pageblock's, and what a cluster was short of
RING_HEAD, RING_TAIL, RING = 0, 1, 2  # columns of a row of `Node.places`: ends, then the ring itself


class Cc(enum.IntEnum):
    """Index into `Node.compact`. Positions are page indices; -1: not set yet."""

    # Between runs.
    CACHED_MIGRATE_ASYNC = 0
    CACHED_MIGRATE_SYNC = 1
    CACHED_FREE = 2
    BLOCKSKIP_FLUSH = 3  # the scanners met on behalf of a request: kswapd forgets skip bits when it sleeps
    INIT_FREE = 4  # where the free scanner began after skip bits were forgotten
    # Of a run, 0 between runs.
    ORDER = 5
    MT = 6
    SYNC = 7
    DIRECT = 8
    FORCED = 9  # whole zone, no heed to skip bits or labels of targets
    MIGRATE = 10  # the scanners
    FREE = 11
    NR_MIGRATE = 12  # pages isolated for migration that have no place yet
    NR_PICKED = 13  # blocks that they are
    NR_FREE = 14  # pages isolated as places
    FINISH = 15  # isolate the whole pageblock
    LAST = 16  # pageblock-aligned page of the last migration, -1 none
    SYNCS_CACHED = 17  # both migrate cursors were equal and nothing was isolated yet
    MIGRATE_SCANNED = 18
    FREE_SCANNED = 19
    ISOLATED = 20
    SOURCES = 21  # pageblocks that pages were isolated from
    SEARCH_ORDER = 22  # of free lists: where to begin, searches in vain, blocks to look at, highest pageblock
    SEARCH_FAILED = 23
    LOOK = 24
    HIGHEST = 25


FIRST_OF_RUN = int(Cc.ORDER)


def new_compaction(nr_pb: int) -> dict[str, np.ndarray]:
    """The arrays of a node that nothing was compacted on yet, by field of `Node`."""
    compact = np.zeros(len(Cc), np.int64)
    compact[: Cc.BLOCKSKIP_FLUSH] = -1
    compact[Cc.INIT_FREE] = -1
    return {
        "compact": compact,
        "skip": np.zeros(nr_pb, np.int8),
        "picked": np.zeros(NR_PICKED, np.int64),
        "places": np.zeros((NR_ORDERS, RING + MAX_PLACES), np.int64),
    }


def check_compaction(compact: np.ndarray, skip: np.ndarray, geo: Geo) -> None:
    """Raise if cursors, skip bits or control contradict themselves between two runs.

    Parameters
    ----------
    compact : int64 array (Cc,)
    skip : int8 array (pageblock,)

    Raises
    ------
    InvariantError
        The first difference: field, expected and found value.
    """
    # A cursor may stand behind the zone's end or before its start: the next run then begins anew.
    low, high = -PB_PAGES, int(geo.nr_pages) + 2 * PB_PAGES
    for column in (Cc.CACHED_MIGRATE_ASYNC, Cc.CACHED_MIGRATE_SYNC, Cc.CACHED_FREE, Cc.INIT_FREE):
        at = int(compact[column])
        if at != -1 and (at % PB_PAGES or not low <= at <= high):
            raise InvariantError(f"compact.{column.name.lower()} must be the start of a pageblock, is {at}")
    if int(compact[Cc.BLOCKSKIP_FLUSH]) not in (0, 1):
        raise InvariantError(f"compact.blockskip_flush must be 0 or 1, is {int(compact[Cc.BLOCKSKIP_FLUSH])}")
    if compact[FIRST_OF_RUN:].any():
        column = Cc(FIRST_OF_RUN + int(np.flatnonzero(compact[FIRST_OF_RUN:])[0]))
        raise InvariantError(
            f"compact.{column.name.lower()} must be 0 between runs, is {int(compact[column])}"
        )
    wrong = np.flatnonzero((skip != 0) & (skip != 1))
    if wrong.size:
        raise InvariantError(f"skip[{wrong[0]}] must be 0 or 1, is {skip[wrong[0]]}")
