"""Names and numbers that every layer shares: kernel words with their kernel meaning.

Owns the enums (migratetypes, alloc flags, superpageblock categories, outcomes, request bits, error
codes, policy and counter indices), the page-state encoding and the geometry of x86-64. Nothing here
computes; a value that a user can change is never a constant but a policy or scenario key.
Numbers of `AllocFlag`, `Outcome`, `SpbCategory` and `Req` are those of the golden trace files.
"""

from __future__ import annotations

import enum

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
MAX_ORDER = 10  # MAX_PAGE_ORDER: the biggest buddy, 4 MiB
NR_ORDERS = MAX_ORDER + 1
PB_ORDER = 9  # pageblock_order
PB_PAGES = 1 << PB_ORDER
NR_MT = 5  # migratetypes that own free lists
NR_REQUEST_MT = 3  # migratetypes that can be asked for
NS_PER_TICK = 1_000_000  # HZ 1000
DEF_PRIORITY = 12
PCP_BATCH_SCALE_MAX = 5
COSTLY_ORDER = 3  # PAGE_ALLOC_COSTLY_ORDER
NR_LOWORDER_PCP_LISTS = (COSTLY_ORDER + 1) * NR_REQUEST_MT  # orders 0..3 by type
NR_PCP_LISTS = NR_LOWORDER_PCP_LISTS + 2  # then order 9: unmovable and reclaimable, movable
MAX_ZONE_PAGES = 240 << 20  # 960 GiB: with its list heads within the links of page_state.py
NR_STRANDS = 8  # of a per-CPU list, a power of two: how far ahead it is known (pcplist.py)
NR_RESTING_ORDERS = PB_ORDER + 1  # with owned pageblocks a CPU's lists are a buddy system of orders 0..9
NR_RESTING_LISTS = NR_REQUEST_MT * NR_RESTING_ORDERS


class Mt(enum.IntEnum):
    """Migratetype (enum migratetype)."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    HIGHATOMIC = 3
    CMA = 4


# The names that nearly every kernel needs.
UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, CMA = (int(m) for m in Mt)


class AllocFlag(enum.IntFlag):
    """Alloc flags by the numbers of the golden files (not the kernel's)."""

    CMA = 0x80
    NOFRAGMENT = 0x100
    NOFRAG_TAINTED_OK = 0x1000
    HIGHORDER_OPTIONAL = 0x2000
    NON_BLOCK = 0x4000  # may take from the HIGHATOMIC reserve when all else failed
    HIGHATOMIC = 0x8000  # takes from it first, and reserves what it got elsewhere


# Numba knows no & and | of flag enums: kernels take them as plain ints.
(
    ALLOC_CMA,
    ALLOC_NOFRAGMENT,
    ALLOC_NOFRAG_TAINTED_OK,
    ALLOC_HIGHORDER_OPTIONAL,
    ALLOC_NON_BLOCK,
    ALLOC_HIGHATOMIC,
) = (int(flag) for flag in AllocFlag)


class SpbCategory(enum.IntEnum):
    """Category of a superpageblock (spb_get_category)."""

    EMPTY = 0
    CLEAN = 1
    TAINTED = 2
    ISOLATED = 3


EMPTY, CLEAN, TAINTED, ISOLATED = (int(c) for c in SpbCategory)

NR_BUCKETS = 5  # fullness buckets of CLEAN and TAINTED, 0 = full
# Superpageblock lists, in walking order within a category.
LIST_CLEAN = 0
LIST_TAINTED = 5
LIST_EMPTY = 10
LIST_ISOLATED = 11
NR_SPB_LISTS = 12
LIST_NONE = -1  # a superpageblock without a single usable pageblock


class Outcome(enum.IntEnum):
    """Rung of the ladder that served a request (or did not)."""

    NO_PAGE = 0
    TAKE_PREFERRED = 1
    CLAIM_WHOLE_PAGEBLOCK = 2
    CLAIM_PARTIAL_PAGEBLOCK = 3
    BORROW_NONMOVABLE = 4
    TAKE_EMPTY_SUPERPAGEBLOCK = 5
    MOVABLE_INTO_TAINTED = 6
    ZONE_FALLBACK = 7
    BORROW_MOVABLE = 8
    CLAIM_FALLBACK_PREFERRED = 9
    CLAIM_FALLBACK_EMPTY = 10
    CLAIM_FALLBACK_OTHER = 11
    STEAL_FALLBACK = 12
    REFUSED_OPTIONAL = 13
    CONTIG_EMPTY = 14
    CONTIG_EMPTIED = 15
    TAKE_HIGHATOMIC = 16


NR_OUTCOMES = len(Outcome)
WALK_SEARCHED, WALK_VISITED = 0, 1  # rows of `z.walks`, one column a rung


class Req(enum.IntFlag):
    """Work that an event asks for; recorded by the allocator, executed by workers/defer.py."""

    EVACUATE_FALLTHROUGH = 1
    EVACUATE_CLAIM = 2
    SHRINK_FALLTHROUGH = 4
    SHRINK_CLAIM = 8
    SHRINK_HIGH_WATER = 16
    SHRINK_AFTER_EVACUATION = 32
    DEFRAG_LIST_CHANGE = 64
    DEFRAG_HIGH_WATER = 128
    DEFRAG_BEFORE_EMPTY = 256
    EVACUATE_CLAIMED = 512  # in no golden file
    BOOST = 1024  # claims that fragment asked for higher watermarks; how many is in Ev.NR_BOOSTS


(
    REQ_EVACUATE_FALLTHROUGH,
    REQ_EVACUATE_CLAIM,
    REQ_SHRINK_FALLTHROUGH,
    REQ_SHRINK_CLAIM,
    REQ_SHRINK_HIGH_WATER,
    REQ_SHRINK_AFTER_EVACUATION,
    REQ_DEFRAG_LIST_CHANGE,
    REQ_DEFRAG_HIGH_WATER,
    REQ_DEFRAG_BEFORE_EMPTY,
    REQ_EVACUATE_CLAIMED,
    REQ_BOOST,
) = (int(request) for request in Req)


class Trigger(enum.IntEnum):
    """Why a slab shrink was asked for; the request bit is 4 << value."""

    BELOW_RESERVE = 0
    WOULD_TAINT = 1
    BELOW_HIGH_WATER = 2
    AFTER_EVACUATION = 3


class Mode(enum.IntEnum):
    """Fallback mode carried through one bulk call (enum rmqueue_mode)."""

    NORMAL = 0
    CMA = 1
    CLAIM = 2
    STEAL = 3


MODE_NORMAL, MODE_CMA, MODE_CLAIM, MODE_STEAL = (int(m) for m in Mode)


class Err(enum.IntEnum):
    """Error codes of kernels; `engine.py` turns them into exceptions. Their words are in errors.py."""

    OK = 0
    CORRUPT = 5
    OBJECTS_FULL = 6
    ROWS_FULL = 7


class P(enum.IntEnum):
    """Index of a policy switch or parameter in the int64 policy array; names of docs/spec/exact.md B.10."""

    superpageblocks = 0
    per_superpageblock_take = 1
    whole_pageblock_first = 2
    claim_whole_pageblock = 3
    claim_partial_pageblock = 4
    tainted_claim_needs_half = 5
    separate_nonmovable = 6
    separate_by_content = 7
    borrow_nonmovable = 8
    borrow_movable = 9
    movable_into_tainted = 10
    reserve_floor = 11
    reserve_shift = 12
    aggressive_threshold = 13
    tainted_ok_flag = 14
    nofragment_blocks_tainted_claim = 15
    nofragment_blocks_empty = 16
    optional_refusal = 17
    optional_skips_empty = 18
    preferred_hint = 19
    evacuate_requests = 20
    shrink_requests = 21
    shrink_high_water = 22
    defrag = 23
    defrag_start_at_reserve = 24
    defrag_high_water = 25
    defrag_before_empty = 26
    evacuate = 27
    evacuate_same_type_first = 28
    evacuate_any_label = 29
    evacuate_max_superpageblocks = 30
    evacuate_max_pageblocks = 31
    contig = 32
    contig_max_candidates = 33
    relabel_on_empty = 34
    sticky_content = 35
    # What docs/spec/exact.md adds under "Names", and docs/spec/machine.md.
    trigger_below_reserve = 36
    trigger_would_taint = 37
    trigger_below_high_water = 38
    trigger_after_evacuation = 39
    slab_shrink_throttle_ns = 40
    slab_shrink_target_objs = 41
    slab_shrink_start_priority = 42
    evacuate_throttle_ns = 43
    movable_reserve_soft = 44
    migration_target_reclaim = 45
    atomic_noretry_fails = 46
    pcp_owned_pageblocks = 47
    pcp_adopts_partial = 48
    pcp_stays_in_tainted = 49
    bulk_nofragment = 50
    watermark_boost = 51
    claim_evacuation = 52
    compact_within_superpageblock = 53
    highatomic_reserve = 54
    nowarn_lower_order_fails = 55
    compaction_skips_immovable = 56
    kvmalloc_noretry = 57
    extent_buffers_movable = 58
    claim_prefers_tainted = 59
    choose_by_bitmap = 60


NR_POLICY = len(P)
MAX_EVACUATE_SPBS = 64  # bound on evacuate_max_superpageblocks: the scratch array's length
CLAIMED_AT = 3 * MAX_EVACUATE_SPBS  # where `z.scratch` names the pageblocks that an event claimed
CLAIMED_MOST = MAX_EVACUATE_SPBS
CLAIM_SCAN_LIMIT = 8  # SPB_SCAN_LIMIT: list entries that a claim looks at for a tainted one


class Ev(enum.IntEnum):
    """Index into `z.ev`: what the running event did. Reset by `begin_event`, read by its caller."""

    REQUESTS = 0
    NR_DEFRAG = 1
    VISITED = 2
    VISITED_FALLBACK = 3
    OUTCOME = 4
    MOVED_PAGES = 5
    NR_SAME_TYPE = 6
    NR_PAGEBLOCKS = 7
    NR_TAINTS = 8
    SAW_FREE_PB = 9
    SAW_BELOW = 10
    DIRTY = 11  # a counter behind some category or bucket changed
    SEQ = 12  # number of the event; marks superpageblocks and pageblocks
    ROW = 13  # row of the trace or demand block, for the records
    MOVED_BLOCKS = 14
    FAILED_MOVES = 15
    PINNED_MOVES = 16
    MODE = 17  # rmqueue mode of a bulk call
    MOVED_HUGE = 18  # blocks of order 9 and more
    BUSY_MOVES = 19
    TAINT_OUTCOME = 20  # rung that tainted last
    OFF_LRU = 21  # pages that a bulk call has handed out before it returned
    NR_CLAIMED = 22  # pageblocks claimed with movable pages left; named in `z.scratch`
    MIGRATE_SCANNED = 23  # pages looked at for something to move, and for a place
    FREE_SCANNED = 24
    CAUSE = 25  # what is at work (Cause in state/trace.py)
    NR_BOOSTS = 26  # partial claims that were tried: each raises the watermarks
    EVACUATE_ORDER = 27  # order of the request that asked for an evacuation
    SPLIT_HUGE = 28  # huge pages that were split because they had to move and found no place
    SPLIT_CACHE = 29  # and folios of the page cache


NR_EV = len(Ev)


class C(enum.IntEnum):
    """Index into `z.count`: gauges of the zone, then cumulative counters under their kernel names."""

    FREE_PAGES = 0
    FREE_CMA = 1
    NR_RECORDS = 2
    TAINTED_SPBS = 3
    CLEAN_SPBS = 4
    EMPTY_SPBS = 5
    ISOLATED_SPBS = 6
    TAINTS = 7
    UNTAINTS = 8
    EXTFRAG = 9
    PCP_PAGES = 10
    HINTS_USED = 11
    PCP_OWNED_PAGEBLOCKS = 12
    PCP_PAGEBLOCKS_CLAIMED = 13
    PCP_PAGEBLOCKS_ADOPTED = 14
    PCP_FRAGMENTS_TAKEN_BACK = 15
    FREE_HIGHATOMIC = 16  # of FREE_PAGES, those in the HIGHATOMIC reserve
    RESERVED_HIGHATOMIC = 17  # pages of pageblocks in it, in use or not
    WATERMARK_BOOST = 18  # pages that are added to every watermark
    RECLAIM_ACTIVE = 19  # 1 while kswapd works on the zone (ZONE_RECLAIM_ACTIVE)
    ANON_PAGES = 20  # anonymous pages in use that reclaim may swap out; 0 without swap
    SWAP_PAGES = 21  # pages in swap
    BELOW_HIGH = 22  # 1 while requests find the zone below its high watermark (ZONE_BELOW_HIGH)


NR_ZONE_COUNTS = len(C)


class Pc(enum.IntEnum):
    """Columns of `z.pcp.cpu`: the per-CPU page lists' scalars (struct per_cpu_pages)."""

    COUNT = 0
    HIGH = 1
    ALLOC_FACTOR = 2
    FREE_COUNT = 3
    FLAGS = 4


NR_PCP_SCALARS = len(Pc)
PCPF_PREV_FREE_HIGH_ORDER = 1
PCPF_FREE_HIGH_BATCH = 2


class Tune(enum.IntEnum):
    """Index into `z.pcp.conf`: the zone's tunables of per-CPU lists, in pages."""

    BATCH = 0
    HIGH_MIN = 1
    HIGH_MAX = 2
    FLAGS = 3
    MARK_HIGH = 4  # high watermark below which CPUs keep few pages, 0: there is none


class Noise(enum.IntEnum):
    """Index into `z.noise`: migrations that fail for reasons outside the model, as a share in 16.16."""

    BUSY_SHARE = 0
    BUSY_ACC = 1
    CACHE_SHARE = 2  # the page cache's own, and whether it has one
    CACHE_ACC = 3
    CACHE_APART = 4


RECORD_MOVE = 1
RECORD_EXTFRAG = 2
RECORD_FIELDS = 9  # kind, row, then the fields of that kind


class Tp(enum.IntEnum):
    """Kinds of records, by their kernel names in lower case; bit numbers of the set of kinds kept."""

    SPB_PB_TAINT = 0
    SPB_CLAIM_BLOCK_REFUSED = 1
    SPB_EVACUATE_FOR_ORDER_DONE = 2
    SPB_ALLOC_ATOMIC_RELAX = 3
    SPB_ALLOC_WALK = 4
    SPB_ALLOC_FALL_THROUGH = 5
    MM_PAGE_ALLOC_EXTFRAG = 6
    MM_PAGE_ALLOC_ZONE_LOCKED = 7
    MM_PAGE_PCPU_DRAIN = 8
    SPB_SLAB_SHRINK_RUN = 9  # ours: one a run of the shrink worker
    MM_PAGE_ALLOC = 10
    MM_PAGE_FREE = 11


class Op(enum.IntEnum):
    """What a demand row asks for; executed by loop/execute.py."""

    NONE = 0
    ALLOC = 1  # N blocks of ORDER into slots SLOT, SLOT+1, ..: each one request; ALT_ORDER if that fails
    FREE = 2  # whatever is in slots SLOT .. SLOT+N-1
    THP = 3  # N faults of order 9, slot stride 512; 512 base pages each where there is no THP
    REPLACE = 4  # free slot SLOT, then allocate into it (one lifetime ends, one begins)
    CACHE_ADD = 5  # N folios of ORDER to the page cache's young end
    CACHE_DROP = 6  # N oldest folios go (truncation, unlink)
    SLAB_GROW = 7  # N new inodes with their dentries in shrinker instance SLOT
    SLAB_DROP = 8  # N oldest inodes of instance SLOT go (unlink)
    CONTIG_ALLOC = 9  # ask for a whole superpageblock into SLOT
    CONTIG_FREE = 10  # give back what is in SLOT, or no longer wait for it


class Row(enum.IntEnum):
    """Columns of the int32 demand rows."""

    OP = 0
    OWNER = 1
    SLOT = 2
    N = 3
    ORDER = 4
    ALT_ORDER = 5  # -1: none
    MT = 6
    CLS = 7
    CPU = 8


NR_ROW = len(Row)


class Cls(enum.IntFlag):
    """Request class: what a caller may do and wants (the gfp bits that the model keeps)."""

    BLOCKING = 1  # __GFP_DIRECT_RECLAIM
    NORETRY = 2
    NOWARN = 4
    NOFAIL = 8
    HIGH = 16
    NOMEMALLOC = 32
    RETRY_MAYFAIL = 64
    KSWAPD = 128  # may wake kswapd
    KVMALLOC = 256  # the large attempt of kvmalloc, which single pages can replace
    EXTENT_BUFFER = 512  # a btrfs tree page; a policy may make it movable


(
    CLS_BLOCKING,
    CLS_NORETRY,
    CLS_NOWARN,
    CLS_NOFAIL,
    CLS_HIGH,
    CLS_NOMEMALLOC,
    CLS_RETRY_MAYFAIL,
    CLS_KSWAPD,
    CLS_KVMALLOC,
    CLS_EXTENT_BUFFER,
) = (int(bit) for bit in Cls)

assert len(Mt) == NR_MT
