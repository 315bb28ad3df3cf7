"""What every counter of `vmstat` counts, and what every rung of the ladder does: words for people.

Owns meaning, unit, direction and whose name it is, for `spbfast explain` and wherever a direction is needed.
The counters themselves are in model/state/vmstat.py; a test holds the two together. Never touches simulation
state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from spbfast.constants import Outcome, Trigger
from spbfast.outputs.tracepoints import OUTCOMES
from spbfast.outputs.variable_rows import HIGHER, LOWER, NEITHER

KERNEL = "the kernel's own, in /proc/vmstat"
SERIES = "the series', as far as its text is known (docs/spec/exact.md)"
OURS = "this program's own"
_DIRECTIONS = {"-": NEITHER, "<": LOWER, ">": HIGHER}
_WHOSE = {"k": KERNEL, "s": SERIES, "o": OURS}
SPBS = "superpageblocks"


@dataclass(frozen=True, slots=True)
class CounterDoc:
    """One counter since the end of boot: its unit and meaning, what is better, and whose name it is."""

    name: str
    units: str
    meaning: str
    direction: str
    whose: str


@dataclass(frozen=True, slots=True)
class RungDoc:
    """One way to serve a request, or not to; `symbol` is what the kernel calls it, "" without a name."""

    name: str
    meaning: str
    symbol: str


# name; whose: kernel, series, ours; what is better: < lower, > higher, - neither; unit; meaning
_TABLE = """\
page_events o - events blocks taken and given back, moves of migration included
pgalloc_normal k - pages pages handed out
pgfree k - pages pages given back
allocstall_normal k < requests requests that had to reclaim memory themselves
pgsteal_kswapd k < pages pages that kswapd reclaimed
pgsteal_direct k < pages pages that requests reclaimed themselves
pageoutrun k < runs times that kswapd was woken and worked
compact_stall k < requests requests that had to compact memory themselves
compact_success k > requests of compact_stall, those that got a block
compact_fail k < requests of compact_stall, those that got none
pgmigrate_success k < pages pages migrated, whoever asked for it
pgmigrate_fail k < moves migrations that failed: no place, a pinned or a busy page
thp_fault_alloc k > faults faults that got a huge page
thp_fault_fallback k < faults faults that got single pages instead of a huge page
oom_kill k < requests requests at which the kernel would kill a process; nobody is killed
alloc_failed_blocking o < requests failed requests of callers that may block
alloc_failed_atomic o < requests failed requests of callers that may not block
alloc_failed_optional o < requests failed requests of callers that may not block and have a fallback
spb_highorder_refused s - requests optional requests of high order that were refused rather than taint
reclaim_failed o < runs runs of kswapd that found nothing left to reclaim
direct_reclaim_rounds o < rounds rounds of direct reclaim
dropped_nofragment o < requests requests that went on without ALLOC_NOFRAGMENT
page_cache_added o - pages pages added to the page cache
page_cache_dropped o - pages pages of the page cache that their files gave up
page_cache_not_added o < folios folios that found no memory
slab_order_fallback o < requests slabs of lower order because the first attempt failed
slab_alloc_failed o < requests slabs that could not be had at all
slab_objects_full o < objects objects for which the simulator's tables had no room (slab.objects_max)
spb_evac_queued o - requests evacuations queued
spb_evac_ran o - runs evacuations that ran
spb_evac_throttled o - requests evacuations not queued because one was queued shortly before
spb_evac_no_candidate o - requests evacuations not queued because no superpageblock is worth it
spb_evac_lost o < requests evacuations lost because the queue was full
spb_evac_direct o < runs evacuations that a request did itself
spb_evac_pages o < pages pages that evacuations moved
spb_defrag_queued o - requests defragmentations of a superpageblock queued
spb_defrag_ran o - runs defragmentations that ran
spb_defrag_cooling o - requests defragmentations refused because the superpageblock had one recently
spb_defrag_pages o < pages pages that defragmentations moved
spb_slab_shrink_queued s - requests slab shrinks queued
spb_slab_shrink_ran s - runs runs of the slab shrink worker
spb_slab_shrink_throttled o - requests slab shrinks not queued because of policy.slab_shrink_throttle
spb_slab_shrink_pending o - requests slab shrinks not queued because one was queued already
spb_slab_shrink_scanned o - objects objects that slab shrinks scanned
spb_slab_shrink_freed o - objects objects that slab shrinks freed
spb_slab_shrink_passes o - passes passes over all caches that slab shrinks made
spb_slab_shrink_no_progress o < runs runs of the slab shrink worker that freed nothing
spb_slab_shrink_pages o > pages slab pages that slab shrinks gave back
spb_slab_shrink_ns o < ns simulated time that slab shrinks took
migrate_ns o < ns simulated time that migrations took
taints o < spbs superpageblocks that became tainted, each time counted
untaints o > spbs superpageblocks that ceased to be tainted, each time counted
taints_by_atomic o < spbs of taints, those by callers that may not block
taints_by_optional o < spbs of taints, those by callers that have a fallback
taints_by_blocking o < spbs of taints, those by callers that may block
spb_hint_used o - searches searches that the remembered superpageblock ended at once
pcp_pageblocks_claimed o - pageblocks pageblocks that a CPU made its own
pcp_pageblocks_adopted o - pageblocks pageblocks without an owner that a CPU took over
pcp_fragments_taken_back o - pages free pages of its own pageblocks that a CPU took back
claim_evac_queued o - pageblocks claimed pageblocks queued to be emptied of movable pages
claim_evac_lost o < pageblocks the same, lost because the queue was full
claim_evac_ran o - pageblocks claimed pageblocks that were emptied
claim_evac_pages o < pages pages that were moved out of claimed pageblocks
compact_migrate_scanned k < pages pages that compaction looked at for something to move
compact_free_scanned k < pages pages that compaction looked at for a place
compact_skipped_spbs o - spbs tainted superpageblocks without movable pages that compaction skipped
compact_daemon_wake k - runs times that kcompactd was woken
compact_daemon_freed o > pageblocks pageblocks that kcompactd freed
spb_compact_ran o - runs compactions inside a superpageblock
spb_compact_pages o < pages pages that they moved
spb_compact_freed o > pageblocks pageblocks that they freed
contig_alloc_success o > requests requests for gigantic pages that were served
contig_alloc_fail o < requests requests for gigantic pages that failed
contig_pages_migrated o < pages pages migrated for gigantic pages
contig_ranges_tried o < ranges aligned ranges of a superpageblock's size that requests tried
contig_alloc_ns o < ns simulated time that requests for gigantic pages took
contig_freed o - blocks gigantic pages given back
contig_withdrawn o - requests requests for gigantic pages withdrawn before their turn
slabs_scanned k - objects objects scanned by shrinking, whoever asked for it
spb_slab_shrink_pageblocks o > pageblocks pageblocks that slab shrinks made wholly free
workingset_refault_slab o < objects inodes that shrinking freed and that were looked up again
workingset_refault_file k < pages reclaimed pages of files that were read again
allocslow_blocking o < requests requests of callers that may block that entered the slow path
allocslow_atomic o < requests requests of callers that may not block that entered the slow path
allocslow_served_blocking o - requests of allocslow_blocking, those that were served
allocslow_served_atomic o - requests of allocslow_atomic, those that were served
alloc_no_progress_loops o < loops loops of the slow path after reclaim that freed nothing
alloc_compact_retries o < loops loops of the slow path that compact once more
alloc_noretry_exits o < requests requests that gave up because their caller does not want a retry
alloc_costly_exits o < requests requests of costly order that gave up after one loop
alloc_failed_nofail o < requests attempts of __GFP_NOFAIL requests that found nothing even so
pcp_drained_all o - drains times that the per-CPU lists of all CPUs were drained for a request
compact_deferred o - requests compactions not tried because the last ones failed
spb_alloc_atomic_relax_noretry_skip s - requests callers that cannot block: gave up at once
spb_alloc_atomic_relax_nowarn_lower_order s - requests callers that cannot block: sent to a lower order
spb_alloc_atomic_relax_add_tainted_ok s - requests callers that cannot block: let into the reserve
spb_alloc_atomic_relax_drop_nofragment s - requests callers that cannot block: without ALLOC_NOFRAGMENT
alloc_failed_nonblock_order0 o < requests failed requests of callers that cannot block, order 0
alloc_failed_nonblock_order1_3 o < requests the same, orders 1 to 3
alloc_failed_nonblock_costly o < requests the same, orders above 3
highatomic_reserved o - pages pages that were put into the HIGHATOMIC reserve
highatomic_unreserved o - pages pages that were taken out of the HIGHATOMIC reserve
highatomic_served o - requests requests that the HIGHATOMIC reserve served
watermark_boosted o - boosts times that a claim which fragments raised the watermarks
watermark_boost_cleared o - runs times that kswapd took the boost back
kvmalloc_fallback o < requests kvmalloc requests that got single pages
kvmalloc_fallback_pages o < pages single pages that they got
kvmalloc_failed o < requests kvmalloc requests that got not even single pages
taints_pcp_recycle o < spbs of taints_no_page, pages of per-CPU lists that went to another type
taints_boot o - spbs taints before time 0, which no other counter has
spb_alloc_fell_through o < requests requests that no tainted superpageblock could serve
thp_migration_split k < pages huge pages split because they had to move and found no place
reclaim_slab_memcgs o - visits memory control groups whose slab kswapd or direct reclaim shrank
reclaim_slab_freed o - objects objects freed by that
reclaim_slab_pages o > pages slab pages that came back by that
compact_isolated k - pages pages that compaction by scanners isolated, to be moved or as places
compact_daemon_migrate_scanned k < pages of compact_migrate_scanned, kcompactd's, with scanners
compact_daemon_free_scanned k < pages of compact_free_scanned, kcompactd's, with scanners
pswpin k < pages pages that came back from swap
pswpout k < pages pages that went to swap
thp_swpout k - blocks huge pages that went to swap whole
thp_swpout_fallback k - blocks huge pages split because swap had no room for the whole
thp_collapse_alloc k > blocks huge pages that khugepaged rebuilt
thp_collapse_alloc_failed k < requests huge pages that khugepaged wanted and could not have
pagecache_migration_split o - folios folios of page cache split because they had to move and found no place
"""

# In the order of Outcome.
_RUNGS = (
    "no page: nothing served the request, or a per-CPU list did without asking the ladder",
    "a free block of the own type in a superpageblock of the preferred category, the fullest first",
    "a wholly free pageblock of a tainted superpageblock becomes the request's type",
    "a partly used pageblock of a tainted superpageblock becomes the request's type",
    "a fragment of the other non-movable type, whose pageblock keeps its label",
    "an empty superpageblock, which a non-movable request taints",
    "a movable request goes to a tainted superpageblock above its reserve",
    "superpageblocks cannot serve it: the fallback of the whole zone",
    "a fragment of a movable pageblock, which keeps its label",
    "fallback by claiming a pageblock, in the preferred superpageblocks",
    "fallback by claiming a pageblock, in an empty superpageblock",
    "fallback by claiming a pageblock, in any other superpageblock",
    "fallback by stealing: a block of another type, whose pageblock keeps its label",
    "refused: the caller has a fallback, and serving it would taint",
    "a whole superpageblock that was empty, for a gigantic page",
    "a whole superpageblock that was emptied, for a gigantic page",
    "a block of the HIGHATOMIC reserve",
)
_SYMBOLS = {
    **{i: f"outcome {name} of the tracepoint spb_alloc_walk" for i, name in enumerate(OUTCOMES)},
    **{i: "__rmqueue_claim()" for i in (9, 10, 11)},
    **{12: "__rmqueue_steal()", 13: "the counter spb_highorder_refused", 16: "MIGRATE_HIGHATOMIC"},
}
_TRIGGERS = {
    Trigger.BELOW_RESERVE: "no tainted superpageblock could serve, one being below its reserve",
    Trigger.WOULD_TAINT: "a claim was about to taint",
    Trigger.BELOW_HIGH_WATER: "a tainted superpageblock got below its reserve",
    Trigger.AFTER_EVACUATION: "an evacuation has ended",
}
_CAUSES = {
    "free": "a free",
    "pcp_drain": "a drain of a per-CPU list",
    "pcp_recycle": "a page of a per-CPU list that went to another type",
    "slab_free": "slab pages given back",
    "reclaim": "reclaim",
    "evacuation": "an evacuation",
    "defrag": "a defragmentation",
    "compaction": "compaction",
    "contig": "a contiguous allocation",
}
_REFUSALS = {
    "isolate": "it is isolated",
    "cma": "it belongs to CMA",
    "zone_boundary": "it reaches over the end of the zone",
    "cross_type_not_free": "it would turn between non-movable types and is not wholly free",
    "insufficient_compat": "too few of its pages are free or of a compatible type",
}
_CONTIG_FAILS = {
    "no_candidate": "every superpageblock left has unmovable or reclaimable pages",
    "no_room": "what had to move found no place, reclaim included",
    "pinned": "a page was pinned",
    "busy": "a page stayed busy",
}
_REQUESTED = ("unmovable", "movable", "reclaimable")


@cache
def rung_docs() -> dict[str, RungDoc]:
    """Every rung by its name in lower case."""
    names = [outcome.name.lower() for outcome in Outcome]
    return {
        name: RungDoc(name, text, _SYMBOLS.get(i, ""))
        for i, (name, text) in enumerate(zip(names, _RUNGS, strict=True))
    }


@cache
def counter_docs() -> dict[str, CounterDoc]:
    """Every counter by its name."""
    rows = (line.split(maxsplit=4) for line in _TABLE.splitlines())
    single = (
        CounterDoc(n, SPBS if unit == "spbs" else unit, text, _DIRECTIONS[better], _WHOSE[w])
        for n, w, better, unit, text in rows
    )
    return {doc.name: doc for doc in (*single, *_families())}


def _families() -> Iterator[CounterDoc]:
    """Counters that come once for each rung, trigger, cause, reason or pair of types."""
    for rung in rung_docs().values():
        yield CounterDoc(f"spb_alloc_{rung.name}", "requests", f"requests: {rung.meaning}", NEITHER, OURS)
        yield CounterDoc(f"taints_{rung.name}", SPBS, f"taints: {rung.meaning}", LOWER, OURS)
        searched = f"searches for a superpageblock: {rung.meaning}"
        yield CounterDoc(f"spb_searched_{rung.name}", "searches", searched, LOWER, OURS)
        visited = f"superpageblocks that such searches stepped on: {rung.meaning}"
        yield CounterDoc(f"spb_visited_{rung.name}", SPBS, visited, LOWER, OURS)
    for trigger, text in _TRIGGERS.items():
        for what in ("asked", "queued"):
            name = f"spb_slab_shrink_{what}_{trigger.name.lower()}"
            yield CounterDoc(name, "requests", f"slab shrinks {what} for because {text}", NEITHER, OURS)
    for cause, text in _CAUSES.items():
        yield CounterDoc(f"untaints_{cause}", SPBS, f"un-tainted by {text}", HIGHER, OURS)
    for reason, text in _REFUSALS.items():
        meaning = f"claims of a partly used pageblock refused because {text}"
        yield CounterDoc(f"spb_claim_refused_{reason}", "claims", meaning, NEITHER, OURS)
    for reason, text in _CONTIG_FAILS.items():
        meaning = f"requests for gigantic pages that failed because {text}"
        yield CounterDoc(f"contig_fail_{reason}", "requests", meaning, LOWER, OURS)
    for to in _REQUESTED:
        for of in _REQUESTED:
            steal = f"{to} requests served by turning a pageblock of type {of}"
            yield CounterDoc(f"pageblock_steal_{to}_from_{of}", "requests", steal, NEITHER, OURS)
            pollute = f"{to} requests served from {of} lists while the pageblock keeps its type"
            yield CounterDoc(f"pageblock_pollute_{to}_from_{of}", "requests", pollute, NEITHER, OURS)
