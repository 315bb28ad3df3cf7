"""Speed of page events: wall time divided by blocks allocated or freed.

Everything goes through the kernels that golden traces verify, with owners and accounting on. Owns workloads,
no kernels (model/loop/churn.py has them).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.bench.workload import RANGE_PAGES, Clocked, Population, measure_yardstick
from spbfast.model.loop import replay
from spbfast.model.state.build import PcpConf

SIZES = {"4GiB": 4 << 18, "32GiB": 32 << 18, "247GiB": 238 << 18}  # pages; 238 superpageblocks of 1 GiB


def bench_churn(label: str, quick: bool = False, scattered: bool = False) -> dict[str, Any]:
    """Random churn of order-0 movable pages on one of SIZES, with its yardstick."""
    population = Population(SIZES[label], scattered=scattered)
    yardstick = measure_yardstick(population.state_bytes, 40_000 if quick else 400_000)
    clocked = population.churn(20_000 if quick else 200_000, 3 if quick else 9)
    return {"ns": clocked, "yardstick": yardstick, "state_bytes": population.state_bytes}


def bench_pcp(quick: bool = False) -> Clocked:
    """The same churn at 4 GiB through one CPU's page lists."""
    population = Population(SIZES["4GiB"], pcp=PcpConf(batch=63, high_min=252, high_max=1008))
    return population.churn(20_000 if quick else 200_000, 3 if quick else 9)


def bench_ranges(quick: bool = False) -> dict[int, Clocked]:
    """Nanoseconds per page of ranges of 16, 256 and 4096 pages at 4 GiB, each range one event."""
    return {n: Population(SIZES["4GiB"]).churn_ranges(n, 3 if quick else 9) for n in RANGE_PAGES}


def bench_p18(quick: bool = False) -> Clocked | str:
    """Nanoseconds per event of the throughput trace; or why it was not run.

    Raises
    ------
    TraceError
        The pfns of this very run differ from the trace's.
    """
    from spbfast.errors import TraceError
    from spbfast.verify.golden import load_golden
    from spbfast.verify.replay_zone import Replay

    folder = os.environ.get("SPBFAST_GOLDEN_DIR", "")
    files = sorted(Path(folder).glob("p18*.npz")) if folder else []
    if not files:
        return "set SPBFAST_GOLDEN_DIR to the folder that has p18"
    golden = load_golden(files[0])
    values = []
    for _ in range(1 if quick else 3):
        trial = Replay(golden)
        nr = golden.nr_events
        trial.out.fill(0)  # the first touch of 160 MB is not the loop's
        start = time.perf_counter_ns()
        replay.run_events(trial.z, trial.policy, trial.events, 0, nr, trial.pins, trial.out)
        values.append((time.perf_counter_ns() - start) / nr)
        if not np.array_equal(trial.out[:, replay.R_PFN], golden["pfn"]):
            raise TraceError("the pfns of this run differ from the trace's", files[0])
    return Clocked(tuple(values))
