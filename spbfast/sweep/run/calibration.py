"""What one run of a plan costs, from short runs in this thread.

Owns how long is long enough, and the extension to a whole run: of one that boots, of one that continues a
saved state, and of one that leaves a shared part at a branch. Leaves no file behind.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config.branch import shared_part
from spbfast.config.models import Scenario
from spbfast.config.start import start_time
from spbfast.config.units import format_duration
from spbfast.constants import NS_PER_TICK
from spbfast.outputs.variables import VARIABLES, add_summaries, at_level
from spbfast.sweep.points.plan import Plan
from spbfast.sweep.store.shards import FACTS

CALIBRATION_S = 3.0
SECOND = 10**9
# Measured: what a netCDF variable of a shard takes beside its compressed values.
VARIABLE_BYTES = 3_300


@dataclass(frozen=True)
class RunCost:
    """What one run costs.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall time as it was; processor time, which is what it takes where nothing else runs.
    nbytes, shard_nbytes : float
        Bytes of its values in a shard, and of the shard around them.
    source : str
        How this is known.
    age_seconds : float
        Simulating what all points share up to the branch, and saving it.
    state_nbytes : float
        Bytes of the machine at the branch.
    """

    seconds: float
    cpu_seconds: float
    nbytes: float
    shard_nbytes: float
    source: str
    age_seconds: float = 0.0
    state_nbytes: float = 0.0


@dataclass(frozen=True)
class _Measured:
    """A short run: its result, where it began and ended (ns), and its processor time."""

    result: Any
    begin: int
    end: int
    cpu: float

    @property
    def rate(self) -> float:
        """Seconds for a simulated nanosecond, without boot."""
        return _after_boot(self.result) / max(1, self.end - self.begin)

    @property
    def cpu_share(self) -> float:
        """Processor time for a second of wall time."""
        return min(1.0, max(self.cpu, 1e-9) / max(self.result.wall_s, 1e-9))


def calibrate(module: Any, plan: Plan, say: Callable[[str], None]) -> RunCost:
    """Measure a run of the first point over a short simulated time and extend it to the whole."""
    scenario, seed = plan.scenario(0), plan.seed_of(plan.points[0].point_id)
    say("measuring what a run costs (the kernels are compiled first if they are not) ...")
    module.warmup()
    if scenario.branch is not None:
        return _branched(module, scenario, seed, plan.level)
    found = _long_enough(module, scenario, seed)
    seconds = found.result.boot_s + found.rate * (scenario.duration - found.begin)
    return _cost(found, seconds, scenario.duration, plan.level)


def _cost(found: _Measured, seconds: float, duration: int, level: str, **more: float) -> RunCost:
    short = format_duration(found.end - found.begin)
    source = f"measured now on the first point, {short} of simulated time"
    if found.end < duration:
        source += f", extended to {format_duration(duration)}"
    names = at_level(add_summaries(found.result.data), level)
    nr_vars = 2 + len(FACTS) + len(names) + len({d for n in names for d in VARIABLES[n].dims})
    nbytes = _compressed(found.result, level, duration / found.end)
    return RunCost(seconds, seconds * found.cpu_share, nbytes, VARIABLE_BYTES * nr_vars, source, **more)


def _long_enough(module: Any, scenario: Scenario, seed: int) -> _Measured:
    """Run a scenario longer and longer from where it begins."""
    begin = start_time(scenario.start)
    whole = max(NS_PER_TICK, scenario.duration - begin)
    simulated = min(whole, max(SECOND, scenario.output_every))
    first = time.monotonic()
    while True:
        cpu = time.thread_time()
        short = scenario.model_copy(update={"duration": begin + simulated})
        result = module.run_replicate(short, seed, 0)
        cpu = time.thread_time() - cpu
        spent = _after_boot(result)
        enough = spent >= CALIBRATION_S or time.monotonic() - first > 4 * CALIBRATION_S
        if simulated >= whole or enough:
            return _Measured(result, begin, begin + simulated, cpu)
        simulated = min(whole, simulated * max(2, min(16, int(CALIBRATION_S / spent))))


def _branched(module: Any, scenario: Scenario, seed: int, level: str) -> RunCost:
    """The shared part, saving it, and continuing it, each measured by itself."""
    branch = scenario.branch
    assert branch is not None
    shared = _long_enough(module, shared_part(scenario), seed)
    saving, nbytes = 0.0, 0
    with tempfile.TemporaryDirectory(prefix="spbfast-") as folder:
        path = Path(folder) / "short.state"

        def write(state: Any) -> None:
            nonlocal saving, nbytes
            start = time.perf_counter()
            state.write(path)
            saving, nbytes = time.perf_counter() - start, path.stat().st_size

        short = shared_part(scenario).model_copy(update={"duration": shared.end})
        module.run_replicate(short, seed, 0, save=(shared.end // NS_PER_TICK, write))
        own = branch.model_copy(update={"at": shared.end, "state": str(path)})
        left = scenario.duration - branch.at
        end = shared.end + min(left, shared.end - shared.begin)
        cpu = time.thread_time()
        result = module.run_replicate(scenario.model_copy(update={"branch": own, "duration": end}), seed, 0)
        found = _Measured(result, shared.end, end, time.thread_time() - cpu)
    age = shared.result.boot_s + shared.rate * (branch.at - shared.begin) + saving
    seconds = result.boot_s + (found.rate * left if left else 0.0)
    return _cost(found, seconds, scenario.duration, level, age_seconds=age, state_nbytes=float(nbytes))


def _after_boot(result: Any) -> float:
    return float(max(1e-6, result.wall_s - result.boot_s))


def _compressed(result: Any, level: str, scale: float) -> float:
    """Bytes of a run's arrays as a shard packs them; samples over time grow with the duration."""
    full = add_summaries(result.data)
    total = 60.0 + 4 * len(FACTS)
    for name in at_level(full, level):
        values = np.ascontiguousarray(np.asarray(full[name]).astype(VARIABLES[name].dtype))
        planes = values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T  # HDF5's shuffle filter
        packed = len(zlib.compress(planes.tobytes(), 1))
        total += packed * (scale if "time" in VARIABLES[name].dims else 1.0)
    return total
