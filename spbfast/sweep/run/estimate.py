"""What a sweep will cost, known before it runs.

Owns `sweep --dry-run`: counts, the measured cost of a run, wall time, memory, files and bytes. It never
writes into a results directory and starts no executor; the only runs it makes are short ones, in this
thread, to learn what a run costs.
"""

from __future__ import annotations

import importlib
import shutil
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config.units import format_duration
from spbfast.errors import ResultsError
from spbfast.outputs.variables import VARIABLES, add_summaries, at_level
from spbfast.sweep.points.plan import AUTO_BATCH_MAX, AUTO_BATCH_S, Plan, make_plan
from spbfast.sweep.pools.limits import PROCESS_BYTES, local_workers, usable_memory, worker_budget
from spbfast.sweep.run.needs import Needs
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.shards import FACTS, SETTLED, read_shard
from spbfast.sweep.store.view import held_runs
from spbfast.text import format_bytes, format_seconds

POINTS_MANY = 100_000
BYTES_MANY = 50 * 10**9
SHOWN = 5
CALIBRATION_S = 3.0
SECOND = 10**9
FILES_ALWAYS = 8
BUSY_SHARE = 0.8
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
    """

    seconds: float
    cpu_seconds: float
    nbytes: float
    shard_nbytes: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost.

    Attributes
    ----------
    runs, done, new : int
        Replicates of all points; those that a continued sweep would not repeat; the others.
    run : RunCost or None
        None when it was not to be measured.
    slots : int
        Runs at a time.
    wall_s, disk_bytes : float or None
        For the new runs; bytes of shards and results.nc together.
    """

    name: str
    directory: str
    points: int
    replicates: int
    runs: int
    done: int
    new: int
    merged: int
    run: RunCost | None
    executor: str
    slots: int
    wall_s: float | None
    run_bytes: int
    memory_bytes: int
    memory_free: int
    files: int
    disk_bytes: float | None
    seeds: str
    first: list[dict[str, Any]]
    cautions: list[str] = field(default_factory=list)


def estimate(
    job: Any,
    outdir: str | Path,
    *,
    engine: str = "spbfast.model.engine",
    measure: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Estimate:
    """What running, or continuing, a job's sweep will cost.

    Parameters
    ----------
    measure : bool
        Make short runs when the directory does not tell what a run costs.
    say : callable
        Told before something takes long.

    Raises
    ------
    ResultsError
        When the directory cannot be continued by this job, as `sweep` would say.
    """
    module = importlib.import_module(engine)
    with warnings.catch_warnings():
        # The number of merged points is part of the estimate.
        warnings.filterwarnings("ignore", message=".*are equal to another point")
        plan = make_plan(job, int(module.MODEL_VERSION))
    store, runs = Store(outdir), plan.nr_cells
    done, run = _look_into(store, plan)
    if run is None and measure and done < runs:
        run = calibrate(module, plan, say)
    state = Needs(plan, module.state_bytes).largest
    kind, slots, processes, remark = _executor(job.executor, state, runs - done)
    files = _files(job.executor, run, runs - done, slots)
    disk = None if run is None else 2 * runs * run.nbytes + (files - FILES_ALWAYS + 2) * run.shard_nbytes
    found = Estimate(
        name=plan.name,
        directory=str(outdir),
        points=len(plan.points),
        replicates=plan.replicates,
        runs=runs,
        done=done,
        new=runs - done,
        merged=plan.merged,
        run=run,
        executor=kind,
        slots=slots,
        wall_s=None if run is None else -(-(runs - done) // slots) * run.seconds,
        run_bytes=state,
        memory_bytes=slots * state + processes * PROCESS_BYTES,
        memory_free=usable_memory(),
        files=files,
        disk_bytes=disk,
        seeds=_seeds(plan),
        first=[{"point_id": f"{p.point_id:016x}", **p.values} for p in plan.points[:SHOWN]],
    )
    here = job.executor.kind in ("serial", "threads", "processes")
    found.cautions.extend([*([remark] if remark else []), *_cautions(found, Path(outdir), here)])
    return found


# -- what is known -------------------------------------------------------------------------------------


def _look_into(store: Store, plan: Plan) -> tuple[int, RunCost | None]:
    """Runs of the plan that a directory holds, and what a run cost there."""
    if not store.manifest_path.is_file():
        return 0, None
    store.refuse_identity(plan)
    held = held_runs(store)
    settled = np.array(
        [c.point_id for c, code in held.status.items() if code in SETTLED and c.replicate < plan.replicates],
        np.uint64,
    )
    done = int(np.isin(settled, plan.ids).sum())
    if not held.timed or held.sample is None:
        return done, None
    around = _around(held.sample)
    nbytes = max(200.0, (held.shard_bytes - around * held.shards) / max(1, len(held.status)))
    source = f"mean of {held.timed} runs in {store.dir}"
    seconds = held.wall_s / held.timed
    return done, RunCost(seconds, seconds, nbytes, around, source)


def _around(path: Path) -> float:
    """Bytes that a shard takes beside its values: so much per variable."""
    try:
        shard = read_shard(path, data=False)
    except ResultsError:
        return 0.0
    return VARIABLE_BYTES * (2 + len(shard.facts) + len(shard.coords) + len(shard.data))


def calibrate(module: Any, plan: Plan, say: Callable[[str], None]) -> RunCost:
    """Measure a run of the first point over a short simulated time and extend it to the whole."""
    scenario = plan.scenario(0)
    say("measuring what a run costs (the kernels are compiled first if they are not) ...")
    module.warmup()
    result, simulated, cpu = _long_enough(module, plan)
    scale = scenario.duration / simulated
    seconds = result.boot_s + _after_boot(result) * scale
    source = f"measured now on the first point, {format_duration(simulated)} of simulated time"
    if scale > 1:
        source += f", extended to {format_duration(scenario.duration)}"
    names = at_level(add_summaries(result.data), plan.level)
    nr_vars = 2 + len(FACTS) + len(names) + len({d for n in names for d in VARIABLES[n].dims})
    share = min(1.0, max(cpu, 1e-9) / max(result.wall_s, 1e-9))
    nbytes = _compressed(result, plan.level, scale)
    return RunCost(seconds, seconds * share, nbytes, VARIABLE_BYTES * nr_vars, source)


def _long_enough(module: Any, plan: Plan) -> tuple[Any, int, float]:
    """Run the first point longer and longer; the last result, its simulated time, and its processor time."""
    scenario, seed = plan.scenario(0), plan.seed_of(plan.points[0].point_id)
    simulated = min(scenario.duration, max(SECOND, scenario.output_every))
    begin = time.monotonic()
    while True:
        cpu = time.thread_time()
        short = scenario.model_copy(update={"duration": simulated, "start": None})
        result = module.run_replicate(short, seed, 0)
        cpu = time.thread_time() - cpu
        spent = _after_boot(result)
        enough = spent >= CALIBRATION_S or time.monotonic() - begin > 4 * CALIBRATION_S
        if simulated >= scenario.duration or enough:
            return result, simulated, cpu
        simulated = min(scenario.duration, simulated * max(2, min(16, int(CALIBRATION_S / spent))))


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


# -- what follows --------------------------------------------------------------------------------------


def _executor(executor: Any, state: int, new: int) -> tuple[str, int, int, str]:
    """Words for the executor, runs at a time, processes on this machine, and a remark."""
    kind = str(executor.kind)
    if kind == "serial":
        return "this thread", 1, 1, ""
    if kind in ("threads", "processes"):
        slots, remark, _ = local_workers(executor, state, max(1, new))
        one = {"threads": "thread", "processes": "process"}[kind]
        return f"{slots} {kind if slots > 1 else one}", slots, 1 if kind == "threads" else slots + 1, remark
    if kind == "address":
        return "a running scheduler, counted as one worker", 1, 0, ""
    jobs = executor.job_limits[1]
    fitting = max(1, min(executor.cores, executor.processes * (worker_budget(executor) // max(1, state))))
    words = f"{jobs} {kind} jobs of {executor.cores} cores"
    remark = f"memory of a job allows {fitting} runs at a time on {executor.cores} cores"
    return words, max(1, min(new, jobs * fitting)), 0, remark if fitting < executor.cores else ""


def _files(executor: Any, run: RunCost | None, new: int, slots: int) -> int:
    """Files of the new runs: shards, and the few that every directory has."""
    size = 1
    if executor.batch != "auto":
        size = int(executor.batch)
    elif run is not None:
        fair = max(1, new // (2 * slots))
        size = max(1, min(int(AUTO_BATCH_S / max(run.seconds, 1e-9)), AUTO_BATCH_MAX, fair))
    return -(-new // size) + FILES_ALWAYS


def _seeds(plan: Plan) -> str:
    if plan.seeding == "common":
        return f"root seed {plan.seed}; replicate k meets the same demand in every point (common)"
    return f"root seed {plan.seed}; every point has draws of its own (independent)"


def _cautions(found: Estimate, outdir: Path, here: bool) -> list[str]:
    out = []
    if found.points > POINTS_MANY:
        out.append(
            f"{found.points} points are more than {POINTS_MANY}; output.level summary keeps files small"
        )
    disk = found.disk_bytes or 0
    if disk > BYTES_MANY:
        out.append(f"about {format_bytes(disk)} on disk; output.level summary keeps scalars only")
    existing = next((p for p in (outdir, *outdir.resolve().parents) if p.exists()), Path("."))
    free = shutil.disk_usage(existing).free
    if disk > free:
        out.append(f"only {format_bytes(free)} are free on the disk of {outdir}")
    if found.run is not None and found.wall_s and found.run.cpu_seconds < BUSY_SHARE * found.run.seconds:
        alone = found.wall_s * found.run.cpu_seconds / found.run.seconds
        out.append(
            "this machine is busy with other work; alone a run would take about "
            f"{format_seconds(found.run.cpu_seconds)} and the sweep {format_seconds(alone)}"
        )
    if here and found.memory_bytes > found.memory_free:
        out.append(
            f"{format_bytes(found.memory_bytes)} of memory are needed and {format_bytes(found.memory_free)} "
            "are free; lower executor.workers"
        )
    return out


def estimate_lines(found: Estimate) -> list[str]:
    """The estimate as lines for people."""
    lines = [
        f"{found.name}: {found.points} points x {found.replicates} replicates = {found.runs} runs, "
        f"{found.done} done, {found.new} new; into {found.directory}"
    ]
    if found.run is not None:
        lines.append(f"  one run     about {format_seconds(found.run.seconds)} ({found.run.source})")
    if found.wall_s is not None and found.new:
        lines.append(f"  wall time   about {format_seconds(found.wall_s)} on {found.executor}")
    elif found.new:
        lines.append(f"  runs on     {found.executor}")
    size = "" if found.disk_bytes is None else f"about {format_bytes(found.disk_bytes)} in "
    lines += [
        f"  memory      {format_bytes(found.run_bytes)} per run, {format_bytes(found.memory_bytes)} in all; "
        f"{format_bytes(found.memory_free)} free here",
        f"  disk        {size}{found.files} files",
        f"  seeds       {found.seeds}",
    ]
    if found.merged:
        lines.append(f"  merged      {found.merged} points are equal to another one and run once")
    lines.append(f"first {len(found.first)} of {found.points} points:" if found.points > SHOWN else "points:")
    for point in found.first:
        values = ", ".join(f"{k}={v}" for k, v in point.items() if k != "point_id")
        lines.append(
            f"  {point['point_id']}  {values}" if values else f"  {point['point_id']}  the file's own point"
        )
    return lines + [f"warning: {text}" for text in found.cautions]
