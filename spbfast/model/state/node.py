"""The node around a zone: time, watermarks, deferred work, page-cache rings and /proc/vmstat.

Owns the arrays of everything that is neither a zone's lists nor a slab cache, and the names of their
columns. Kernels of workers/, demand/ and loop/ change them; nothing here computes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spbfast.jit.decorators import by_reference
from spbfast.model.state.compact_layout import MAX_PLACES, RING, new_compaction
from spbfast.model.state.vmstat import NR_VM

NEVER = 1 << 62
SHRINK_NONE, SHRINK_CLASSIC, SHRINK_MGLRU = range(3)  # N.SHRINK_SLAB: whose walk over memcgs


class N(enum.IntEnum):
    """Index into `Node.conf`: what a scenario fixes. Times are ns, shares 16.16 or 32-bit thresholds."""

    WMARK_MIN = 0
    WMARK_LOW = 1
    WMARK_HIGH = 2
    ROUNDS_MAX = 3
    RECLAIM_BATCH = 4
    KSWAPD_DELAY = 5
    KSWAPD_PAGE_COST = 6
    IRQ_DELAY = 7
    WQ_DELAY = 8
    SHRINK_COUNT_COST = 9
    SHRINK_OBJECT_COST = 10
    MIGRATE_PAGE_COST = 11
    MIGRATE_THP_COST = 12
    EVAC_POOL = 13
    DEFRAG_COOLDOWN = 14
    PCP_DECAY = 15
    HOT_SHARE = 16  # 16.16
    LRU_MIX_32 = 17
    RECLAIM_RUN = 18
    RECLAIM_KEY = 19
    COMPACT_CANDIDATES = 20
    COMPACT_INTERVAL = 21  # ns between two compacted pageblocks; 0: none may be
    PINNED_32 = 22
    PIN_KEY = 23
    SAMPLE_EVERY = 24
    NR_CPUS = 25
    NR_NODES = 26
    WITHIN_ON = 27
    WITHIN_INTERVAL = 28
    WITHIN_FREE_PB = 29
    WITHIN_FRAGMENTS = 30
    WITHIN_PAGEBLOCKS = 31
    WITHIN_COOLDOWN = 32
    KCOMPACTD_ON = 33
    KCOMPACTD_PAGEBLOCKS = 34
    KCOMPACTD_PAUSE = 35
    CONTIG_RECLAIM_ROUNDS = 36
    REFAULT_SLAB_SHARE = 37  # 16.16; ticks are those of a bucket
    REFAULT_SLAB_TICKS = 38
    REFAULT_FILE_SHARE = 39
    REFAULT_FILE_TICKS = 40
    WAKES_AT_HIGH = 41
    SUBTRACTS_BARRED = 42
    SHRINK_SLAB = 43
    SLUB_WAKES = 44
    COMPACT_ANY_LABEL = 45
    COMPACT_SCANNERS = 46
    SWAP_PAGES = 47  # of the zone; 0: none
    SWAPPINESS = 48
    REFAULT_SWAP_SHARE = 49  # 16.16
    REFAULT_SWAP_DELAY = 50
    HUGE_WAKES = 51
    COLLAPSE_REGIONS = 52  # that khugepaged looks at before it sleeps
    COLLAPSE_SLEEP = 53
    COLLAPSE_PAUSE = 54  # after a huge page could not be had
    COLLAPSE_SWAPPED = 55  # pages of a region that may be in swap
    COMPACT_GAP = 56


class Pi(enum.IntEnum):
    """Columns of `Node.pins`, one row an owner: the long-term pins of its actor."""

    SHARE_32 = 0  # chance that a cluster is pinned; -1: each block draws alone, by N.PINNED_32
    SHIFT = 1  # slots of a cluster, as a shift


class Zl(enum.IntEnum):
    """Columns of `Node.zonelist`: zones that serve this node's requests, in order of preference."""

    WORLD = 0
    RESERVE = 1  # pages that this node's requests leave there above the low watermark (lowmem_reserve)


class Now(enum.IntEnum):
    """Index into `Node.now`: the clock and what hangs on it."""

    NS = 0
    BOOT_DONE = 1
    NEXT_SAMPLE = 2
    NR_SAMPLES = 3
    COMPACT_READY = 4  # when the next pageblock may be compacted
    COMPACT_CURSOR = 5
    EVAC_STAMP = 6  # -1: never queued
    EVAC_HEAD = 7
    EVAC_TAIL = 8
    EVAC_RUNNING = 9
    PIN_COUNTER = 10
    DIGEST = 11  # of the demand rows
    TICK = 12
    BOOT_FOLIOS = 13
    CLAIMED_HEAD = 14
    CLAIMED_TAIL = 15
    KCOMPACTD_ORDER = 16  # greatest order that is waited for
    KCOMPACTD_READY = 17  # not to be woken before
    KCOMPACTD_LEFT = 18  # pageblocks left of the pass; -1: not begun
    CONTIG_HEAD = 19
    CONTIG_TAIL = 20
    CONTIG_READY = 21  # when the request being served is done
    COMPACT_CONSIDERED = 22  # requests since compaction last failed (defer_compaction)
    COMPACT_DEFER_SHIFT = 23
    COMPACT_ORDER_FAILED = 24
    KSWAPD_PRIO = 25  # of its current pass, and what that has reclaimed and visited so far
    PASS_PAGES = 26
    PASS_MEMCGS = 27
    SHRINK_MEMCG = 28  # whose slab reclaim shrinks next


class Wk(enum.IntEnum):
    """Work items, in queue order: ties in time run in this order. Row of `Node.due`."""

    SHRINK_END = 0
    EVACUATE = 1
    SHRINK = 2
    DEFRAG = 3
    KSWAPD = 4
    PCP_DECAY = 5
    CLAIMED = 6
    WITHIN = 7
    KCOMPACTD = 8
    CONTIG = 9


class Eq(enum.IntEnum):
    """Columns of `Node.evac`: evacuations that wait, each with what it was asked for."""

    ORDER = 0
    MT = 1


class Gi(enum.IntEnum):
    """Columns of `Node.contig`: requests for whole superpageblocks that wait."""

    OWNER = 0
    SLOT = 1
    ASKED = 2  # ns


class Ca(enum.IntEnum):
    """Index into `Node.cache`: two rings of folios, oldest at the head."""

    COLD_HEAD = 0
    COLD_TAIL = 1
    HOT_HEAD = 2
    HOT_TAIL = 3
    COLD_PAGES = 4
    HOT_PAGES = 5
    COUNTER = 6  # of reclaim's draws


class Rf(enum.IntEnum):
    """Columns of `Node.refault`, one row a delay line: the page cache's, then one a shrinker instance."""

    SEEN = 0  # freed so far, as of the last look
    ACC = 1  # 16.16
    FIRST = 2  # of the buckets, a ring


class Sw(enum.IntEnum):
    """Index into `Node.swap`."""

    OWNER = 0  # whose memory is looked at, and for how many pages still
    LEFT = 1
    OWED = 2  # pages that anonymous memory owes to reclaim, 16.16; below 0 it gave more than its part
    ACC = 3  # 16.16, of pages that are touched again
    HEAD = 4  # of `Node.touch`, a ring
    TAIL = 5


class To(enum.IntEnum):
    """Columns of `Node.touch`: pages in swap that are touched again, in the order of their times."""

    OWNER = 0
    SLOT = 1
    DUE = 2  # ns


class Kh(enum.IntEnum):
    """Index into `Node.collapse`: where khugepaged is, then the owners whose memory it goes through."""

    DUE = 0  # ns
    AT = 1  # which of the owners
    SLOT = 2  # first slot of the region that is next
    FIRST_OWNER = 3


REFAULT_BUCKETS = 64
OWNER_COLD = 0
OWNER_HOT = 1
FIRST_SLAB_OWNER = 2


class Ph(enum.IntEnum):
    """Index into `Node.cycles`: where the time went. A profile; no result depends on it."""

    GENERATION = 0
    WORKERS = 1
    SLAB = 2
    ALLOCATOR = 3


class Df(enum.IntEnum):
    """Columns of `Node.defrag`, one row a superpageblock."""

    DUE = 0
    READY = 1  # not to be started before: running until then, or cooling down


@by_reference(
    inner={
        "defrag": (len(Df),),
        "evac": (len(Eq),),
        "contig": (len(Gi),),
        "zonelist": (len(Zl),),
        "pins": (len(Pi),),
        "places": (RING + MAX_PLACES,),
        "touch": (len(To),),
    }
)
class Node(NamedTuple):
    """State of one node besides its zone and its slab caches."""

    conf: np.ndarray  # int64 (N,)
    now: np.ndarray  # int64 (Now,)
    due: np.ndarray  # int64 (Wk,), ns or NEVER
    cache: np.ndarray  # int64 (Ca,)
    defrag: np.ndarray  # int64 (spb, Df)
    evac: np.ndarray  # int64 (descriptors, Eq): queued evacuations
    claimed: np.ndarray  # int64 (descriptors,): claimed pageblocks to be emptied
    within: np.ndarray  # int64 (spb,): not to be compacted inside before, ns
    contig: np.ndarray  # int64 (gigantic slots, Gi)
    vm: np.ndarray  # int64 (V,)
    cycles: np.ndarray  # int64 (Ph,)
    zonelist: np.ndarray  # int64 (zones, Zl)
    refault: np.ndarray  # int64 (lines, Rf): none if nothing refaults
    pins: np.ndarray  # int64 (owners, Pi): none if no actor has pins of its own
    compact: np.ndarray  # int64 (Cc,): cursors of the compaction scanners
    skip: np.ndarray  # int8 (pageblocks,): not worth the scanners' while (PG_migrate_skip)
    picked: np.ndarray  # int64 (NR_PICKED,): blocks that a run is about to migrate
    places: np.ndarray  # int64 (orders, RING + MAX_PLACES): free blocks that a run holds isolated
    swap: np.ndarray  # int64 (Sw,)
    hands: np.ndarray  # int64 (owners,): slot that is looked at next for swap; none without swap
    touch: np.ndarray  # int64 (pages, To): none if nothing in swap is touched again
    collapse: np.ndarray  # int64 (Kh.FIRST_OWNER + owners,): none without khugepaged


def make_node(
    nr_spb: int,
    evac_pool: int,
    nr_zones: int = 1,
    nr_gigantic: int = 1,
    refault_lines: int = 0,
    pin_owners: int = 0,
    nr_pb: int = 0,
    swap_owners: int = 0,
    touches: int = 0,
    collapsed: Sequence[int] = (),
) -> Node:
    """A node at time 0 with nothing due and no configuration."""
    node = Node(
        conf=np.zeros(len(N), np.int64),
        now=np.zeros(len(Now), np.int64),
        due=np.full(len(Wk), NEVER, np.int64),
        cache=np.zeros(len(Ca), np.int64),
        defrag=np.zeros((nr_spb, len(Df)), np.int64),
        evac=np.zeros((evac_pool, len(Eq)), np.int64),
        claimed=np.zeros(evac_pool, np.int64),
        within=np.zeros(nr_spb, np.int64),
        contig=np.zeros((nr_gigantic, len(Gi)), np.int64),
        vm=np.zeros(NR_VM, np.int64),
        cycles=np.zeros(len(Ph), np.int64),
        zonelist=np.zeros((nr_zones, len(Zl)), np.int64),
        refault=np.zeros((refault_lines, Rf.FIRST + REFAULT_BUCKETS), np.int64),
        pins=np.full((pin_owners, len(Pi)), -1, np.int64),
        **new_compaction(nr_pb),
        swap=np.zeros(len(Sw), np.int64),
        hands=np.zeros(swap_owners, np.int64),
        touch=np.zeros((touches, len(To)), np.int64),
        collapse=np.array([0, 0, 0, *collapsed] if collapsed else [], np.int64),
    )
    node.defrag[:, Df.DUE] = NEVER
    node.now[Now.EVAC_STAMP] = -1
    return node
