"""The node around a zone: time, watermarks, deferred work, page-cache rings and /proc/vmstat.

Owns the arrays of everything that is neither a zone's lists nor a slab cache, and the names of their
columns. Kernels of workers/, demand/ and loop/ change them; nothing here computes.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import Outcome, Trigger

NEVER = 1 << 62


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


class Wk(enum.IntEnum):
    """Work items, in queue order: ties in time run in this order. Row of `Node.due`."""

    SHRINK_END = 0
    EVACUATE = 1
    SHRINK = 2
    DEFRAG = 3
    KSWAPD = 4
    PCP_DECAY = 5


class Ca(enum.IntEnum):
    """Index into `Node.cache`: two rings of folios, oldest at the head."""

    COLD_HEAD = 0
    COLD_TAIL = 1
    HOT_HEAD = 2
    HOT_TAIL = 3
    COLD_PAGES = 4
    HOT_PAGES = 5
    COUNTER = 6  # of reclaim's draws


OWNER_COLD = 0
OWNER_HOT = 1
FIRST_SLAB_OWNER = 2


class Df(enum.IntEnum):
    """Columns of `Node.defrag`, one row a superpageblock."""

    DUE = 0
    READY = 1  # not to be started before: running until then, or cooling down


_VM_NAMES = (
    "page_events",
    "pgalloc_normal",
    "pgfree",
    "allocstall_normal",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "pageoutrun",
    "compact_stall",
    "compact_success",
    "compact_fail",
    "pgmigrate_success",
    "pgmigrate_fail",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "oom_kill",
    "alloc_failed_blocking",
    "alloc_failed_atomic",
    "alloc_failed_optional",
    "spb_highorder_refused",
    "reclaim_failed",
    "direct_reclaim_rounds",
    "dropped_nofragment",
    "page_cache_added",
    "page_cache_dropped",
    "page_cache_not_added",
    "slab_order_fallback",
    "slab_alloc_failed",
    "slab_objects_full",
    "spb_evac_queued",
    "spb_evac_ran",
    "spb_evac_throttled",
    "spb_evac_no_candidate",
    "spb_evac_lost",
    "spb_evac_direct",
    "spb_evac_pages",
    "spb_defrag_queued",
    "spb_defrag_ran",
    "spb_defrag_cooling",
    "spb_defrag_pages",
    "spb_slab_shrink_queued",
    "spb_slab_shrink_ran",
    "spb_slab_shrink_throttled",
    "spb_slab_shrink_pending",
    "spb_slab_shrink_scanned",
    "spb_slab_shrink_freed",
    "spb_slab_shrink_passes",
    "spb_slab_shrink_no_progress",
    "spb_slab_shrink_pages",
    "spb_slab_shrink_ns",
    "migrate_ns",
    "taints",
    "untaints",
    "taints_by_atomic",
    "taints_by_optional",
    "taints_by_blocking",
)
_TRIGGER_NAMES = tuple(
    f"spb_slab_shrink_{what}_{trigger.name.lower()}" for what in ("asked", "queued") for trigger in Trigger
)
_OUTCOME_NAMES = tuple(f"spb_alloc_{outcome.name.lower()}" for outcome in Outcome)
_TAINT_NAMES = tuple(f"taints_{outcome.name.lower()}" for outcome in Outcome)

VM_NAMES = _VM_NAMES + _TRIGGER_NAMES + _OUTCOME_NAMES + _TAINT_NAMES
V = enum.IntEnum("V", {name.upper(): i for i, name in enumerate(VM_NAMES)})  # type: ignore[misc]
NR_VM = len(VM_NAMES)
VM_ASKED = VM_NAMES.index(_TRIGGER_NAMES[0])
VM_QUEUED = VM_ASKED + len(Trigger)
VM_OUTCOME = VM_NAMES.index(_OUTCOME_NAMES[0])
VM_TAINT = VM_NAMES.index(_TAINT_NAMES[0])


class Node(NamedTuple):
    """State of one node besides its zone and its slab caches."""

    conf: np.ndarray  # int64 (N,)
    now: np.ndarray  # int64 (Now,)
    due: np.ndarray  # int64 (Wk,), ns or NEVER
    cache: np.ndarray  # int64 (Ca,)
    defrag: np.ndarray  # int64 (spb, Df)
    evac: np.ndarray  # int64 (descriptors,): migratetype of each queued evacuation
    vm: np.ndarray  # int64 (V,)


def make_node(nr_spb: int, evac_pool: int) -> Node:
    """A node at time 0 with nothing due and no configuration."""
    node = Node(
        conf=np.zeros(len(N), np.int64),
        now=np.zeros(len(Now), np.int64),
        due=np.full(len(Wk), NEVER, np.int64),
        cache=np.zeros(len(Ca), np.int64),
        defrag=np.zeros((nr_spb, len(Df)), np.int64),
        evac=np.zeros(evac_pool, np.int64),
        vm=np.zeros(NR_VM, np.int64),
    )
    node.defrag[:, Df.DUE] = NEVER
    node.now[Now.EVAC_STAMP] = -1
    return node
