"""The counters of /proc/vmstat, and of what it has no counter for: their places in `Node.vm` and their names.

Owns the order of `Node.vm`: first the counters that kernels keep there themselves, then those that are made
of a zone's tallies when a sample is taken.
"""

from __future__ import annotations

import enum

from spbfast.constants import Outcome, Trigger
from spbfast.model.state.trace import TALLY_NAMES


class V(enum.IntEnum):
    """Index into `Node.vm`: cumulative counters, kernel names in lower case where the kernel has one."""

    PAGE_EVENTS = 0
    PGALLOC_NORMAL = 1
    PGFREE = 2
    ALLOCSTALL_NORMAL = 3
    PGSTEAL_KSWAPD = 4
    PGSTEAL_DIRECT = 5
    PAGEOUTRUN = 6
    COMPACT_STALL = 7
    COMPACT_SUCCESS = 8
    COMPACT_FAIL = 9
    PGMIGRATE_SUCCESS = 10
    PGMIGRATE_FAIL = 11
    THP_FAULT_ALLOC = 12
    THP_FAULT_FALLBACK = 13
    OOM_KILL = 14
    ALLOC_FAILED_BLOCKING = 15
    ALLOC_FAILED_ATOMIC = 16
    ALLOC_FAILED_OPTIONAL = 17
    SPB_HIGHORDER_REFUSED = 18
    RECLAIM_FAILED = 19
    DIRECT_RECLAIM_ROUNDS = 20
    DROPPED_NOFRAGMENT = 21
    PAGE_CACHE_ADDED = 22
    PAGE_CACHE_DROPPED = 23
    PAGE_CACHE_NOT_ADDED = 24
    SLAB_ORDER_FALLBACK = 25
    SLAB_ALLOC_FAILED = 26
    SLAB_OBJECTS_FULL = 27
    SPB_EVAC_QUEUED = 28
    SPB_EVAC_RAN = 29
    SPB_EVAC_THROTTLED = 30
    SPB_EVAC_NO_CANDIDATE = 31
    SPB_EVAC_LOST = 32
    SPB_EVAC_DIRECT = 33
    SPB_EVAC_PAGES = 34
    SPB_DEFRAG_QUEUED = 35
    SPB_DEFRAG_RAN = 36
    SPB_DEFRAG_COOLING = 37
    SPB_DEFRAG_PAGES = 38
    SPB_SLAB_SHRINK_QUEUED = 39
    SPB_SLAB_SHRINK_RAN = 40
    SPB_SLAB_SHRINK_THROTTLED = 41
    SPB_SLAB_SHRINK_PENDING = 42
    SPB_SLAB_SHRINK_SCANNED = 43
    SPB_SLAB_SHRINK_FREED = 44
    SPB_SLAB_SHRINK_PASSES = 45
    SPB_SLAB_SHRINK_NO_PROGRESS = 46
    SPB_SLAB_SHRINK_PAGES = 47
    SPB_SLAB_SHRINK_NS = 48
    MIGRATE_NS = 49
    TAINTS = 50
    UNTAINTS = 51
    TAINTS_BY_ATOMIC = 52
    TAINTS_BY_OPTIONAL = 53
    TAINTS_BY_BLOCKING = 54
    SPB_HINT_USED = 55
    PCP_PAGEBLOCKS_CLAIMED = 56
    PCP_PAGEBLOCKS_ADOPTED = 57
    PCP_FRAGMENTS_TAKEN_BACK = 58  # pages
    CLAIM_EVAC_QUEUED = 59
    CLAIM_EVAC_LOST = 60
    CLAIM_EVAC_RAN = 61
    CLAIM_EVAC_PAGES = 62
    COMPACT_MIGRATE_SCANNED = 63
    COMPACT_FREE_SCANNED = 64
    COMPACT_SKIPPED_SPBS = 65
    COMPACT_DAEMON_WAKE = 66
    COMPACT_DAEMON_FREED = 67
    SPB_COMPACT_RAN = 68
    SPB_COMPACT_PAGES = 69
    SPB_COMPACT_FREED = 70
    CONTIG_ALLOC_SUCCESS = 71
    CONTIG_ALLOC_FAIL = 72
    CONTIG_PAGES_MIGRATED = 73
    CONTIG_RANGES_TRIED = 74
    CONTIG_ALLOC_NS = 75
    CONTIG_FREED = 76
    CONTIG_WITHDRAWN = 77
    SLABS_SCANNED = 78
    SPB_SLAB_SHRINK_PAGEBLOCKS = 79
    WORKINGSET_REFAULT_SLAB = 80
    WORKINGSET_REFAULT_FILE = 81
    ALLOCSLOW_BLOCKING = 82
    ALLOCSLOW_ATOMIC = 83
    ALLOCSLOW_SERVED_BLOCKING = 84
    ALLOCSLOW_SERVED_ATOMIC = 85
    ALLOC_NO_PROGRESS_LOOPS = 86
    ALLOC_COMPACT_RETRIES = 87
    ALLOC_NORETRY_EXITS = 88
    ALLOC_COSTLY_EXITS = 89
    ALLOC_FAILED_NOFAIL = 90
    PCP_DRAINED_ALL = 91
    COMPACT_DEFERRED = 92
    SPB_ALLOC_ATOMIC_RELAX_NORETRY_SKIP = 93
    SPB_ALLOC_ATOMIC_RELAX_NOWARN_LOWER_ORDER = 94
    SPB_ALLOC_ATOMIC_RELAX_ADD_TAINTED_OK = 95
    SPB_ALLOC_ATOMIC_RELAX_DROP_NOFRAGMENT = 96
    ALLOC_FAILED_NONBLOCK_ORDER0 = 97
    ALLOC_FAILED_NONBLOCK_ORDER1_3 = 98
    ALLOC_FAILED_NONBLOCK_COSTLY = 99
    HIGHATOMIC_RESERVED = 100
    HIGHATOMIC_UNRESERVED = 101
    HIGHATOMIC_SERVED = 102
    WATERMARK_BOOSTED = 103
    WATERMARK_BOOST_CLEARED = 104
    KVMALLOC_FALLBACK = 105
    KVMALLOC_FALLBACK_PAGES = 106
    KVMALLOC_FAILED = 107


_TRIGGER_NAMES = tuple(
    f"spb_slab_shrink_{what}_{trigger.name.lower()}" for what in ("asked", "queued") for trigger in Trigger
)
_OUTCOME_NAMES = tuple(f"spb_alloc_{outcome.name.lower()}" for outcome in Outcome)
_TAINT_NAMES = tuple(f"taints_{outcome.name.lower()}" for outcome in Outcome)

# Searches for a superpageblock by rung, and superpageblocks stepped on by them.
_WALK_NAMES = tuple(
    f"spb_{what}_{outcome.name.lower()}" for what in ("searched", "visited") for outcome in Outcome
)


class ContigFail(enum.IntEnum):
    """Why a request for a whole superpageblock was not served: what ended its last attempt."""

    NO_CANDIDATE = 0  # none without unmovable or reclaimable pages is left
    NO_ROOM = 1  # what had to move found no place, reclaim included
    PINNED = 2  # a pinned page
    BUSY = 3  # a page that stayed busy


_FIRST_NAMES = (
    *(v.name.lower() for v in V),
    *(_TRIGGER_NAMES + _OUTCOME_NAMES + _TAINT_NAMES + _WALK_NAMES),
    *TALLY_NAMES,
    *(f"contig_fail_{reason.name.lower()}" for reason in ContigFail),
)
VM_OPTIONAL = len(_FIRST_NAMES)


class Vo(enum.IntEnum):
    """Index into `Node.vm`, behind all others: counters of what is off by default.

    As long as none of them moves, a run's digest is what it was before they were there.
    """

    THP_MIGRATION_SPLIT = VM_OPTIONAL
    RECLAIM_SLAB_MEMCGS = VM_OPTIONAL + 1  # visits; then the objects freed and the pages that came back
    RECLAIM_SLAB_FREED = VM_OPTIONAL + 2
    RECLAIM_SLAB_PAGES = VM_OPTIONAL + 3
    COMPACT_ISOLATED = VM_OPTIONAL + 4
    COMPACT_DAEMON_MIGRATE_SCANNED = VM_OPTIONAL + 5
    COMPACT_DAEMON_FREE_SCANNED = VM_OPTIONAL + 6
    PSWPIN = VM_OPTIONAL + 7
    PSWPOUT = VM_OPTIONAL + 8
    THP_SWPOUT = VM_OPTIONAL + 9
    THP_SWPOUT_FALLBACK = VM_OPTIONAL + 10
    THP_COLLAPSE_ALLOC = VM_OPTIONAL + 11
    THP_COLLAPSE_ALLOC_FAILED = VM_OPTIONAL + 12
    PAGECACHE_MIGRATION_SPLIT = VM_OPTIONAL + 13


VM_NAMES = (*_FIRST_NAMES, *(v.name.lower() for v in Vo))
NR_VM = len(VM_NAMES)
VM_ASKED = VM_NAMES.index(_TRIGGER_NAMES[0])
VM_QUEUED = VM_ASKED + len(Trigger)
VM_OUTCOME = VM_NAMES.index(_OUTCOME_NAMES[0])
VM_TAINT = VM_NAMES.index(_TAINT_NAMES[0])
VM_WALKS = VM_NAMES.index(_WALK_NAMES[0])
VM_TALLY = VM_NAMES.index(TALLY_NAMES[0])
VM_CONTIG_FAIL = VM_TALLY + len(TALLY_NAMES)
# The digest of a run covers the counters before these, so that what is only reported leaves it as it was.
NR_DIGESTED = VM_CONTIG_FAIL
# Counters that came later count one by one, so that none changes the digest of runs in which it stands still.
VM_LATER = int(Vo.COMPACT_ISOLATED)
