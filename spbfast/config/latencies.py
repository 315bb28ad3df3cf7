"""Section `workers`: deferred work, and what makes a migration fail.

Owns the latencies, costs and shares that workers have; who runs when is decided in model/workers.
"""

from __future__ import annotations

from spbfast.config.base import Model, Pageblocks, Share, key
from spbfast.config.machine import HOUR, SECOND
from spbfast.config.units import Duration


class WorkersSpec(Model):
    """Latencies and costs of deferred work, and what makes a migration fail."""

    irq_work_delay: Duration = key(
        10_000, "from the request to the irq_work handler", "assumed, 1us..50us", le=HOUR
    )
    workqueue_delay: Duration = key(
        100_000, "from the handler to the start of the work", "assumed, 50us..500us", le=HOUR
    )
    shrink_count_cost: Duration = key(
        1_000, "time of one count of a cache", "assumed, 0.2us..10us", le=SECOND
    )
    shrink_object_cost: Duration = key(500, "time per scanned object", "assumed, 100ns..2us", le=SECOND)
    migrate_page_cost: Duration = key(3_000, "time to migrate a page", "assumed, 1us..10us", le=SECOND)
    migrate_thp_cost: Duration = key(500_000, "time to migrate a huge page", "assumed, 100us..1ms", le=SECOND)
    evacuation_descriptors: Pageblocks = key(
        64, "pool of evacuation requests; a request that finds it empty is lost", "assumed, 8..1024"
    )
    pinned_share: Share = key(
        0.0,
        "share of anonymous memory, drawn page by page, that can never be migrated",
        "assumed, 0..0.1; long-term pins lie in regions of single actors: `pinned` of daemons and guests",
    )
    busy_share: Share = key(
        0.02,
        "share of migrations that fail this time; page cache: pagecache.busy_factor times as many",
        "assumed, 0..0.2",
    )
    split_folios: bool = key(
        True,
        "split a huge page of guests or daemons that has to move and finds no place, and move its pages",
        "mainline splits on ENOMEM (migrate_pages_batch); false is what models up to version 3 had",
    )
    defrag_cooldown: Duration = key(
        5 * 10**9, "least time between two defragmentations of a superpageblock", "v1 16"
    )
    compact_within_interval: Duration = key(
        10**9,
        "time between two scans of clean superpageblocks by policy.compact_within_superpageblock; "
        "0s: only after a failed request of pageblock order",
        "assumed, 0s or 100ms..60s",
    )
    compact_within_free_pageblocks: int = key(
        1,
        "a clean superpageblock is compacted inside when it has at most this many free pageblocks",
        "assumed, 0..16; the first threshold of v1 16 for tainted ones",
        ge=0,
        le=65_536,
    )
    compact_within_fragments: Pageblocks = key(
        4, "and at least this many pageblocks' worth of free pages outside free pageblocks", "assumed, 1..64"
    )
    compact_within_pageblocks: Pageblocks = key(
        16, "pageblocks that one run tries to empty in a superpageblock", "assumed, 1..512"
    )
    compact_within_cooldown: Duration = key(
        5 * 10**9,
        "pause of a superpageblock after a run that freed no pageblock",
        "assumed, 0s..60s; that of v1 43",
    )
    contig_reclaim_rounds: int = key(
        32,
        "rounds of a 16th of a superpageblock of page cache that a request for a whole one may reclaim to "
        "make room for what has to move",
        "mainline reclaims inside each target's allocation; the bound is assumed, 0..64",
        ge=0,
        le=1024,
    )
