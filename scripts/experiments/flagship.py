"""The flagship study: the patch's own experiment under several policies, and with uncertain inputs varied.

Owns the cases and what is kept of each run in results/studies/flagship.json; flagship_page.py makes the page.
"""

from __future__ import annotations

from experiments.machines import configs
from spbfast.config import load_config
from spbfast.model import engine

CONFIG = configs() / "devvm-corrected.yaml"
COUNTERS = (
    "page_events",
    "taints",
    "untaints",
    "spb_slab_shrink_asked_below_reserve",
    "spb_slab_shrink_asked_would_taint",
    "spb_slab_shrink_asked_after_evacuation",
    "spb_slab_shrink_queued",
    "spb_slab_shrink_ran",
    "spb_slab_shrink_no_progress",
    "spb_slab_shrink_freed",
    "spb_slab_shrink_pages",
    "spb_evac_ran",
    "spb_evac_pages",
    "taints_by_optional",
    "taints_by_blocking",
    "taints_by_atomic",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_migration_split",
    "pgmigrate_success",
    "pageoutrun",
    "allocstall_normal",
    "reclaim_slab_freed",
    "reclaim_slab_pages",
    "contig_alloc_success",
    "contig_alloc_fail",
    "contig_pages_migrated",
    "contig_alloc_ns",
    "contig_fail_no_candidate",
    "contig_fail_no_room",
    "contig_fail_pinned",
    "contig_fail_busy",
    "oom_kill",
)
OFF = "policy.slab_shrink=false"
SUBTRACTED = "reclaim.barred_free=subtracted"
POLICIES = {
    "shrink off": [OFF],
    "v1@30": [],
    "barred pages subtracted, shrink off": [OFF, SUBTRACTED],
    "barred pages subtracted, v1@30": [SUBTRACTED],
    "reserve soft, shrink off": [OFF, "policy.movable_reserve=soft"],
    "reserve soft, v1@30": ["policy.movable_reserve=soft"],
    "one memcg, one superblock, shrink off": [OFF, "slab.memcgs=1", "slab.superblocks=1"],
    "one memcg, one superblock, v1@30": ["slab.memcgs=1", "slab.superblocks=1"],
    "one memcg, one superblock, barred pages subtracted, shrink off": [
        OFF,
        "slab.memcgs=1",
        "slab.superblocks=1",
        SUBTRACTED,
    ],
    "one memcg, one superblock, barred pages subtracted, v1@30": [
        "slab.memcgs=1",
        "slab.superblocks=1",
        SUBTRACTED,
    ],
    "targets reclaim, v1@30": ["policy.migration_target_reclaim=4"],
    "mainline": ["policy.preset=mainline"],
    "v1": ["policy.preset=v1"],
    "v1-half": ["policy.preset=v1-half"],
    "barred pages subtracted, v1-half": [SUBTRACTED, "policy.preset=v1-half"],
    "v2": ["policy.preset=v2"],
}
# Fifty gigantic pages are asked for from 240 s on: under these policies, and with these pins.
ASKED = ["actors.gigantic_pages.enabled=true"]
GIGANTIC = {
    "mainline": ["policy.preset=mainline"],
    "v1@21": ["policy.preset=v1@21"],
    "v1@30": [],
    "v1": ["policy.preset=v1"],
    "v2": ["policy.preset=v2"],
    "v1@30, barred pages subtracted": [SUBTRACTED],
    "v1@30, 0.01 % pinned one by one": ["workers.pinned_share=0.0001"],
    "v1@30, 1 % pinned one by one": ["workers.pinned_share=0.01"],
    "v2, 1 % pinned one by one": ["policy.preset=v2", "workers.pinned_share=0.01"],
}
# Low and high end of each input's range; empty where that is what the file says.
TORNADO = {
    "unlinked inodes": (["actors.slab_growth.unlinked=0.0"], ["actors.slab_growth.unlinked=0.5"]),
    "huge pages of daemons": (["actors.daemons.thp_share=0.0"], ["actors.daemons.thp_share=1.0"]),
    "pageblocks that compaction tries": (["reclaim.compact_candidates=0"], ["reclaim.compact_candidates=16"]),
    "page cache": (["actors.page_cache.rate=100MB/s"], ["actors.page_cache.rate=500MB/s"]),
    "reclaim order mix": (["pagecache.lru_mix=0.0"], ["pagecache.lru_mix=1.0"]),
    "guest memory": (["actors.guests.memory=2GiB"], ["actors.guests.memory=8GiB"]),
    "slab growth": (["actors.slab_growth.rate=52MB/s"], ["actors.slab_growth.rate=73MB/s"]),
    "pins of daemons, in regions": (
        ["actors.daemons.pinned.share=0.0"],
        ["actors.daemons.pinned.share=0.1"],
    ),
    "pins one by one": ([], ["workers.pinned_share=0.01"]),
    "memory control groups": (["slab.memcgs=1"], ["slab.memcgs=64"]),
    "slab shrunk by reclaim": (["reclaim.shrink_slab=none"], ["reclaim.shrink_slab=classic"]),
    "kswapd woken at low": ([], ["reclaim.kswapd_wake=low"]),
    "huge pages that stay whole": ([], ["workers.split_folios=false"]),
    "compaction of movable labels alone": ([], ["reclaim.compact_any_label=false"]),
    "huge faults that let kswapd sleep": (["reclaim.huge_faults_wake_kswapd=false"], []),
    "SLUB's first attempt wakes kswapd": ([], ["slab.first_attempt_wakes_kswapd=true"]),
}
BLOCK = 5  # replicates of everything before the next of anything


def cases(replicates: int, only: str) -> dict[str, tuple[list[str], int]]:
    """Every run by key: overrides and replicate; the first replicates of all cases come first."""
    varied = {
        f"{name}:{side}": given
        for name, sides in TORNADO.items()
        for side, given in zip(("low", "high"), sides, strict=True)
        if given
    }
    asked = {f"50 asked for: {name}": [*ASKED, *given] for name, given in GIGANTIC.items()}
    groups = {"policies": POLICIES, "gigantic": asked, "tornado": varied}
    return {
        f"{name}|{replicate}": (overrides, replicate)
        for first in range(0, replicates, BLOCK)
        for group, of_group in groups.items()
        if only in (group, "all")
        for replicate in range(first, min(first + BLOCK, replicates))
        for name, overrides in of_group.items()
    }


def run(overrides: list[str], replicate: int) -> dict[str, object]:
    """One flagship run and what the page needs of it."""
    job = load_config(CONFIG, overrides, one_point=True)
    result = engine.run_replicate(job.scenario, job.seed, replicate, check=True)
    vm = dict(zip(result.coords["counter"].tolist(), result.data["vmstat"][:, -1].tolist(), strict=True))
    return {
        "tainted": result.data["spb_tainted"][::10].tolist(),
        "slab_mb": int(result.data["slab_pages"][-1]) * 4096 // 10**6,
        "cached_mb": int(result.data["slab_cached_bytes"][-1]) // 10**6,
        "stranded_mb": int(result.data["free_pages_stranded_in_tainted"][-1]) * 4096 // 10**6,
        "contig_held": int(result.data["contig_1g_held"][-1]),
        "contig_obtainable": int(result.data["contig_1g_obtainable"]),
        "wall_s": round(result.wall_s, 1),
        "boot_s": round(result.boot_s, 1),
        "demand_digest": result.demand_digest,
        "digest": result.digest,
        "overrides": overrides,
        "model_version": engine.MODEL_VERSION,
        "vm": {name: int(vm[name]) for name in (*COUNTERS, *(n for n in vm if n.startswith("taints_")))},
    }
