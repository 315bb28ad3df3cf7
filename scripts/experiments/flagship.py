"""The flagship study: the patch's own experiment under several policies, and with uncertain inputs varied.

Owns the cases and what is kept of each run in results/studies/flagship.json; flagship_page.py makes the page.
"""

from __future__ import annotations

from experiments.machines import configs
from spbfast.config import load_config
from spbfast.model import engine

CONFIG = configs() / "devvm-burst.yaml"
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
    "allocstall_normal",
    "oom_kill",
)
POLICIES = {
    "shrink off": ["policy.slab_shrink=false"],
    "v1@30": [],
    "v1@30, reserve soft": ["policy.movable_reserve=soft"],
    "shrink off, reserve soft": ["policy.slab_shrink=false", "policy.movable_reserve=soft"],
    "v1@30, targets reclaim": ["policy.migration_target_reclaim=4"],
    "mainline": ["policy.preset=mainline"],
    "v1@45": ["policy.preset=v1@45"],
    "one memcg, one superblock": ["slab.memcgs=1", "slab.superblocks=1"],
    "one memcg, one superblock, shrink off": [
        "slab.memcgs=1",
        "slab.superblocks=1",
        "policy.slab_shrink=false",
    ],
}
REPEATED = ("shrink off", "v1@30")
TORNADO = {
    "guest restarts": (["actors.guests.restart=false"], []),
    "ballooning per second": (
        ["actors.guests.balloon_per_second=0.0"],
        ["actors.guests.balloon_per_second=0.03"],
    ),
    "movable reserve": ([], ["policy.movable_reserve=soft"]),
    "hot share of page cache": (["pagecache.hot_share=0.0"], ["pagecache.hot_share=0.7"]),
    "reclaim order mix": (["pagecache.lru_mix=0.0"], ["pagecache.lru_mix=1.0"]),
    "folios reclaimed together": (["pagecache.reclaim_run=1"], ["pagecache.reclaim_run=256"]),
    "guest memory": (["actors.guests.memory=2GiB"], ["actors.guests.memory=8GiB"]),
    "slab growth": (["actors.slab_growth.rate=52MB/s"], ["actors.slab_growth.rate=73MB/s"]),
    "pinned share": (["workers.pinned_share=0.0"], ["workers.pinned_share=0.05"]),
    "reclaim rounds": (["reclaim.rounds_max=1"], ["reclaim.rounds_max=unlimited"]),
    "memory control groups": (["slab.memcgs=1"], ["slab.memcgs=64"]),
}


def cases(replicates: int, only: str) -> dict[str, tuple[list[str], int]]:
    """Every run by key: overrides and replicate."""
    out = {}
    if only in ("policies", "all"):
        for name, overrides in POLICIES.items():
            for replicate in range(replicates if name in REPEATED else 1):
                out[f"{name}|{replicate}"] = (overrides, replicate)
    if only in ("tornado", "all"):
        for name, (low, high) in TORNADO.items():
            for side, overrides in (("low", low), ("high", high)):
                if overrides:
                    out[f"{name}:{side}|0"] = (overrides, 0)
    return out


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
        "contig_now": int(result.data["contig_1g_now"][-1]),
        "contig_possible": int(result.data["contig_1g_possible"][-1]),
        "wall_s": round(result.wall_s, 1),
        "boot_s": round(result.boot_s, 1),
        "demand_digest": result.demand_digest,
        "digest": result.digest,
        "overrides": overrides,
        "vm": {name: int(vm[name]) for name in (*COUNTERS, *(n for n in vm if n.startswith("taints_")))},
    }
