"""The burst on the machine as it is by default and as a review against the kernel's sources corrects it.

Owns the cases, what is kept of each run in results/studies/corrected.json, which scripts/corrected fills, and
what the validation page says of them. Every case meets the same demand; nothing is tuned.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.finding import OBSERVED, Experiment, Finding, unchecked, verdict
from experiments.machines import configs
from spbfast.config import load_config
from spbfast.model import engine

RAW = configs().parent / "results" / "studies" / "corrected.json"
BEFORE, AFTER = "base/devvm.yaml", "devvm-corrected.yaml"
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
# Name of the case: machine, overrides, replicates.
CASES: dict[str, tuple[str, list[str], int]] = {
    "before, shrink off": (BEFORE, OFF, 3),
    "before, kswapd woken at high": (BEFORE, [*OFF, "reclaim.kswapd_wake=high"], 2),
    "before, slab shrunk by kswapd (MGLRU)": (BEFORE, [*OFF, "reclaim.shrink_slab=mglru"], 2),
    "before, slab shrunk by kswapd (classic)": (BEFORE, [*OFF, "reclaim.shrink_slab=classic"], 2),
    "before, barred pages subtracted": (BEFORE, [*OFF, "reclaim.barred_free=subtracted"], 2),
    "before, huge pages split": (BEFORE, [*OFF, "workers.split_folios=true"], 2),
    "before, pins 0": (BEFORE, [*OFF, "workers.pinned_share=0.0"], 3),
    "before, pins 0, kswapd woken at high": (
        BEFORE,
        [*OFF, "workers.pinned_share=0.0", "reclaim.kswapd_wake=high"],
        3,
    ),
    "corrected, shrink off": (AFTER, OFF, 5),
    "corrected, v1@30": (AFTER, [], 5),
    "corrected, barred pages subtracted, shrink off": (
        AFTER,
        [*OFF, "reclaim.barred_free=subtracted"],
        5,
    ),
    "corrected, barred pages subtracted, v1@30": (AFTER, ["reclaim.barred_free=subtracted"], 2),
    "corrected, classic LRU, shrink off": (AFTER, [*OFF, "reclaim.shrink_slab=classic"], 3),
    "corrected, v1": (AFTER, ["policy.preset=v1"], 2),
    "corrected, v2": (AFTER, ["policy.preset=v2"], 2),
    "corrected, mainline": (AFTER, ["policy.preset=mainline"], 1),
}
LATE = 12  # samples of 10 s: the last quarter of the burst
PUBLISHED_BOOT, PUBLISHED_END, PUBLISHED_SLAB_GB = 8, 85, (25, 35)


def cases() -> dict[str, tuple[str, list[str], int]]:
    """Every run by key: machine, overrides and replicate; first replicates of all cases first."""
    most = max(nr for _, _, nr in CASES.values())
    return {
        f"{name}|{replicate}": (machine, overrides, replicate)
        for replicate in range(most)
        for name, (machine, overrides, nr) in CASES.items()
        if replicate < nr
    }


def simulate(machine: str, overrides: Sequence[str], replicate: int) -> dict[str, Any]:
    """One run of 480 s and what the page needs of it."""
    given = ["duration=480s", "seed=1", "output.every=1s", *overrides]
    job = load_config(configs() / machine, given, one_point=True)
    result = engine.run_replicate(job.scenario, job.seed, replicate, check=True)
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
    """The runs that are there, by case and replicate."""
    raw = json.loads(RAW.read_text(encoding="utf-8")) if RAW.is_file() else {}
    return {
        name: [raw[f"{name}|{i}"] for i in range(nr) if f"{name}|{i}" in raw]
        for name, (_, _, nr) in CASES.items()
    }


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """What is published of the burst against the corrected machine."""
    off = numbers.get("corrected, shrink off")
    if not off:
        return [unchecked("the burst, corrected", "8 -> 85", "scripts/corrected has not run")]
    ends = [r["tainted"][-1] for r in off]
    late = [r["tainted"][-1] - r["tainted"][-1 - LATE] for r in off]
    slab = [r["slab_mb"] / 1e3 for r in off]
    low, high = PUBLISHED_SLAB_GB
    return [
        Finding(
            "tainted superpageblocks after boot",
            str(PUBLISHED_BOOT),
            spread([r["tainted"][0] for r in off]),
            verdict(statistics.median(r["tainted"][0] for r in off) == PUBLISHED_BOOT),
            "boot goes through the allocator; the count is not put there",
        ),
        Finding(
            "tainted at the end of the burst, shrink off",
            str(PUBLISHED_END),
            spread(ends),
            verdict(min(ends) <= PUBLISHED_END <= max(ends)),
            "no input was tuned towards it",
        ),
        Finding(
            "the plateau: taints in the last 120 s of the burst, shrink off",
            "0",
            spread(late),
            verdict(statistics.median(late) == 0),
            "taints of the last quarter of the run, by replicate",
        ),
        Finding(
            "slab at the end, GB",
            f"{low} of cached slab; {high} of slab",
            spread([round(x, 1) for x in slab]),
            verdict(low <= statistics.median(slab) <= high),
            "the text has both figures; growth is an input, what reclaim takes back is not",
        ),
        _stalls(numbers, "corrected, shrink off", "counted as free"),
        _stalls(numbers, "corrected, barred pages subtracted, shrink off", "subtracted"),
    ]


def _stalls(numbers: Mapping[str, Any], name: str, reading: str) -> Finding:
    runs = numbers.get(name, [])
    return Finding(
        f"direct-reclaim stalls in 480 s, barred pages {reading}",
        "-",
        spread([r["vm"]["allocstall_normal"] for r in runs]) if runs else "-",
        OBSERVED,
        "nobody has published a count; which reading holds is open",
    )


def spread(values: Sequence[float]) -> str:
    """Median, extremes and number of runs."""
    runs = "1 run" if len(values) == 1 else f"{len(values)} runs"
    return f"{statistics.median(values):,g} ({min(values):,g}..{max(values):,g}, {runs})"


def tables(numbers: Mapping[str, Any]) -> list[str]:
    """Every case, correction by correction."""
    lines = [
        "",
        "Seed 1; replicate k meets the same demand in every case. Figures are by replicate, the last three "
        "columns are medians. Cases of which no run is there yet are left out.",
        "",
        "| case | tainted at the end | in the last 120 s | stranded, GB | slab, GB | stalls | kswapd runs "
        "| slab pages from reclaim | splits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(name, runs) for name, runs in numbers.items() if runs]


def _line(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    def each(values: Sequence[Any]) -> str:
        return ", ".join(f"{value:,}" for value in values)

    def middle(counter: str) -> str:
        return f"{statistics.median(r['vm'][counter] for r in runs):,.0f}"

    cells = [
        name,
        each([r["tainted"][-1] for r in runs]),
        each([r["tainted"][-1] - r["tainted"][-1 - LATE] for r in runs]),
        each([round(r["stranded_mb"] / 1e3, 1) for r in runs]),
        each([round(r["slab_mb"] / 1e3, 1) for r in runs]),
        each([r["vm"]["allocstall_normal"] for r in runs]),
        middle("pageoutrun"),
        middle("reclaim_slab_pages"),
        middle("thp_migration_split"),
    ]
    return "| " + " | ".join(cells) + " |"


EXPERIMENT = Experiment(
    "V3c",
    "V3c: the burst on the corrected machine",
    "480 simulated seconds of the burst on the 247 GB machine: as the model was "
    "(`configs/base/devvm.yaml`), with single corrections, and with all of them (`configs/devvm-"
    "corrected.yaml`: kswapd woken at high, slab shrunk as MGLRU does, huge pages that split, pins in "
    "regions of the daemons alone). Runs are those of `scripts/corrected`. Published: the changelog of "
    "the patch. Barred pages are free pages that no movable request may use: those of tainted "
    "superpageblocks at or below their reserve.",
    run,
    judge,
    tables,
)
