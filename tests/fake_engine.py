"""An engine without a simulation: results follow from scenario, seed and replicate, and so do failures.

Stands in for spbfast.model.engine where a test is about sweeps. `policy.slab_shrink_target_objs` 666 (or
more than 666 million) fails, 667 kills its process, 668 takes memory until it is killed and 669 gets none.
SPBFAST_FAKE_SLEEP is the time in seconds that a run takes. A saved state says whose it is and how much of
that time has passed, and a run that continues one fails if it is another's.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError, SimulationError
from spbfast.statefile import read_state_head, write_state_file

MODEL_VERSION = 1
COUNTERS = ("spb_slab_shrink_queued", "spb_slab_shrink_ran", "pgalloc_normal")


@dataclass
class ReplicateResult:
    data: dict[str, np.ndarray]
    coords: dict[str, np.ndarray]
    wall_s: float
    boot_s: float
    events: int
    digest: str
    demand_digest: str
    stopped: bool


def state_bytes(scenario: Any) -> int:
    return 1 << 20


def check_memory(scenario: Any) -> None:
    """There is enough."""


def warmup() -> float:
    return 0.0


@dataclass
class FakeState:
    """What identifies the part of a run that others continue."""

    identity: list[Any]
    tick: int = 0

    def write(self, path: Path, note: Any = None) -> None:
        about = {"identity": self.identity, "tick": self.tick, "note": note}
        write_state_file(path, json.loads(json.dumps(about)), {})


def _identity(policy: Any, at: int, seed: int, replicate: int) -> list[Any]:
    return [policy.canonical(), at, seed, replicate]


def run_replicate(
    scenario: Any,
    seed: int,
    replicate: int,
    *,
    stop: Any = None,
    snapshots: bool = False,
    save: Any = None,
    continued: Path | None = None,
    on_stop: Any = None,
) -> ReplicateResult:
    begin = time.perf_counter()
    tree = scenario.canonical()
    whole = _identity(scenario.policy, scenario.duration, seed, replicate)
    passed = 0
    if continued is not None:
        about = read_state_head(continued).about
        passed = about["tick"]
        if about["identity"] != json.loads(json.dumps(whole)):
            raise ResultsError("is the state of another machine", continued)
    elif scenario.branch is not None and scenario.branch.state is not None:
        found = read_state_head(Path(scenario.branch.state)).about["identity"]
        wanted = _identity(scenario.branch.policy, scenario.branch.at, seed, replicate)
        if found != json.loads(json.dumps(wanted)):
            raise SimulationError(6, "the state of another run", step=1, seed=seed)
    policy = tree["policy"]
    target = policy["slab_shrink_target_objs"]
    if target == 667:
        os._exit(9)
    if target == 668:
        _take_memory()
    if target == 669:
        raise MemoryError("no memory for the pages")
    if target == 666 or target > 666_000_000 - 1:
        raise SimulationError(5, "no page left for <kernel> & co", step=42, seed=seed)
    pause = float(os.environ.get("SPBFAST_FAKE_SLEEP", "0")) - passed / 1000
    while pause > 0 and not (stop is not None and stop()):
        time.sleep(min(0.02, pause))
        pause -= 0.02
        passed += 20
    stopped = pause > 0
    if stopped and on_stop is not None:
        on_stop(FakeState(whole, passed))
    if save is not None and not stopped:
        save[1](FakeState(_identity(scenario.policy, save[0] * 1_000_000, seed, replicate)))
    data, coords = _series(tree, seed, replicate)
    digest = hashlib.blake2b(b"".join(data[k].tobytes() for k in sorted(data)), digest_size=8).hexdigest()
    return ReplicateResult(
        data,
        coords,
        time.perf_counter() - begin,
        0.0,
        1000,
        digest,
        f"{1000 * seed + replicate:016x}",
        stopped,
    )


def _take_memory() -> None:
    hoard = []
    while True:
        hoard.append(np.ones(4 << 20, np.int64))
        time.sleep(0.03)


def _series(tree: Any, seed: int, replicate: int) -> tuple[dict[str, Any], dict[str, Any]]:
    policy = tree["policy"]
    every_s = tree["output_every"] / 1e9
    time_s = np.arange(0, tree["duration"] / 1e9 + every_s / 2, every_s)
    n = len(time_s)
    rng = np.random.default_rng([seed, replicate])
    demand = np.cumsum(rng.random(n))
    shrink = bool(policy["slab_shrink"])
    throttle_s = policy["slab_shrink_throttle"] / 1e9
    relief = (0.5 / (1 + throttle_s) + policy["slab_shrink_target_objs"] / 20000) if shrink else 0.0
    tainted = (8 + demand * 77 / max(1.0, n * 0.5) * (1 - min(0.9, relief))).astype(np.int64)
    slab = (tainted * 100_000 + rng.integers(0, 50_000, n)).astype(np.int64)
    ran = np.arange(n) * int(shrink)
    free = np.stack([200_000 - slab // 100, 900_000 - slab // 20, 40_000 - 0 * slab])
    data = {
        "spb_tainted": tainted,
        "spb_clean": 238 - tainted - 20,
        "spb_empty": np.full(n, 20),
        "spb_isolated": np.zeros(n, np.int64),
        "slab_pages": slab,
        "slab_cached_bytes": slab * 4096 // 2,
        "slab_objects": slab * 21,
        "pagecache_pages": np.full(n, 30_000_000) - slab,
        "pcp_pages": np.full(n, 512),
        "free_pages_stranded_in_tainted": tainted * 60_000,
        "contig_1g_now": np.full(n, 20),
        "contig_1g_without_reclaim": 238 - tainted,
        "free_pages": free,
        "vmstat": np.stack([ran * 3, ran, np.cumsum(rng.integers(900, 1000, n))]).astype(np.int64),
    }
    coords = {
        "time": time_s,
        "migratetype": np.array(["unmovable", "movable", "reclaimable"]),
        "counter": np.array(COUNTERS),
    }
    return data, coords
