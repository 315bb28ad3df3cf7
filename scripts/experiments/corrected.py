"""The burst on the machine as it was by default and with what a review against the kernel's sources corrects.

Owns the cases, what is kept of each run in results/studies/corrected.json, which scripts/corrected fills, and
what the validation page says of them. Every case meets the same demand; nothing is tuned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.finding import OBSERVED, Experiment, Finding, unchecked
from experiments.machines import configs
from spbfast.config import load_config
from spbfast.model import engine

RAW = configs().parent / "results" / "studies" / "corrected.json"
OFF = ["policy.slab_shrink=false"]
COUNTERS = (
    "allocstall_normal",
    "pageoutrun",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "thp_fault_fallback",
    "thp_migration_split",
    "reclaim_slab_memcgs",
    "reclaim_slab_freed",
    "reclaim_slab_pages",
    "spb_slab_shrink_ran",
    "spb_slab_shrink_freed",
    "oom_kill",
)
MACHINE = "devvm-corrected.yaml"
# What models up to version 3 had by default, and the burst's machine with them.
FORMER = {
    "reclaim.kswapd_wake": "low",
    "reclaim.shrink_slab": "none",
    "reclaim.compact_any_label": "false",
    "reclaim.huge_faults_wake_kswapd": "true",
    "slab.first_attempt_wakes_kswapd": "true",
    "workers.split_folios": "false",
    "workers.pinned_share": "0.01",
}
FORMER_MACHINE = {**FORMER, "actors.daemons.pinned": "null"}


def _before(**other: str) -> list[str]:
    """Shrink off on the former machine, with some keys set otherwise; `a__b` is the key `a.b`."""
    changed = {key.replace("__", "."): value for key, value in other.items()}
    return [*OFF, *(f"{key}={value}" for key, value in {**FORMER_MACHINE, **changed}.items())]


CASES: dict[str, list[str]] = {
    "before": _before(),
    "before, kswapd woken at high": _before(reclaim__kswapd_wake="high"),
    "before, slab shrunk by kswapd (MGLRU)": _before(reclaim__shrink_slab="mglru"),
    "before, slab shrunk by kswapd (classic)": _before(reclaim__shrink_slab="classic"),
    "before, barred pages subtracted": _before(reclaim__barred_free="subtracted"),
    "before, huge pages split": _before(workers__split_folios="true"),
    "before, compaction of any label": _before(reclaim__compact_any_label="true"),
    "before, SLUB's first attempt lets kswapd sleep": _before(slab__first_attempt_wakes_kswapd="false"),
    "before, pins 0": _before(workers__pinned_share="0.0"),
    "before, pins 0, kswapd woken at high": _before(workers__pinned_share="0.0", reclaim__kswapd_wake="high"),
    "all corrections": OFF,
    "all corrections, barred pages subtracted": [*OFF, "reclaim.barred_free=subtracted"],
}
LATE = 12  # samples of 10 s: the last quarter of the burst


def cases() -> dict[str, list[str]]:
    """The overrides of every run by its key."""
    return dict(CASES)


def simulate(overrides: Sequence[str]) -> dict[str, Any]:
    """Replicate 0 of 480 s and what the page needs of it."""
    given = ["duration=480s", "seed=1", "output.every=1s", *overrides]
    job = load_config(configs() / MACHINE, given, one_point=True)
    result = engine.run_replicate(job.scenario, job.seed, 0, check=True)
    vm = dict(zip(result.coords["counter"].tolist(), result.data["vmstat"][:, -1].tolist(), strict=True))
    data = result.data
    return {
        "tainted": data["spb_tainted"][::10].tolist(),
        "slab_mb": int(data["slab_pages"][-1]) * 4096 // 10**6,
        "cache_mb": int(data["pagecache_pages"][-1]) * 4096 // 10**6,
        "stranded_mb": int(data["free_pages_stranded_in_tainted"][-1]) * 4096 // 10**6,
        "pinned_mb": int(data["pinned_pages"][-1]) * 4096 // 10**6,
        "wall_s": round(result.wall_s, 1),
        "digest": result.digest,
        "demand_digest": result.demand_digest,
        "model_version": engine.MODEL_VERSION,
        "vm": {name: int(vm[name]) for name in COUNTERS},
    }


def run(quick: bool) -> dict[str, Any]:
    """The runs that are there, by case."""
    raw = json.loads(RAW.read_text(encoding="utf-8")) if RAW.is_file() else {}
    return {name: raw[name] for name in CASES if name in raw}


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """How far the corrections move the count; nobody has published what they should do."""
    if not {"before", "all corrections"} <= numbers.keys():
        return [unchecked("the burst, correction by correction", "-", "scripts/corrected has not run")]
    before, after = (numbers[name]["tainted"][-1] for name in ("before", "all corrections"))
    return [
        Finding(
            "tainted at the end of the burst, before and with all corrections",
            "-",
            f"{before} -> {after}",
            OBSERVED,
            "one run each; the distribution with all corrections stands under V3",
        )
    ]


def tables(numbers: Mapping[str, Any]) -> list[str]:
    """Every case, correction by correction."""
    lines = [
        "",
        "Replicate 0 of seed 1 in every case; it meets the same demand.",
        "",
        "| case | tainted at the end | in the last 120 s | stranded, GB | slab, GB | stalls | kswapd runs "
        "| slab pages from reclaim | splits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(name, run) for name, run in numbers.items()]


def _line(name: str, run: Mapping[str, Any]) -> str:
    end = run["tainted"][-1]
    cells = [
        name,
        end,
        end - run["tainted"][-1 - LATE],
        round(run["stranded_mb"] / 1e3, 1),
        round(run["slab_mb"] / 1e3, 1),
        *(
            run["vm"][counter]
            for counter in ("allocstall_normal", "pageoutrun", "reclaim_slab_pages", "thp_migration_split")
        ),
    ]
    return "| " + " | ".join(c if isinstance(c, str) else f"{c:,}" for c in cells) + " |"


EXPERIMENT = Experiment(
    "V3c",
    "V3c: the burst, correction by correction",
    "480 simulated seconds of the burst on the 247 GB machine: as models up to version 3 had it by default, "
    "with single corrections, and with all of them, which are the defaults now (kswapd woken at high, slab "
    "shrunk as MGLRU does, huge pages that split, compaction of any label, SLUB's first attempt without "
    "kswapd, pins in regions of the daemons alone). Runs are those of `scripts/corrected`. Barred pages are "
    "free pages that no movable request may use: those of tainted superpageblocks at or below their reserve.",
    run,
    judge,
    tables,
)
