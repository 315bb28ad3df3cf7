"""What a sweep will cost, known before it runs.

Owns `sweep --dry-run`: counts, wall time, memory, files and bytes. It never writes into a results directory
and starts no executor. What a run costs is measured in calibration.py.
"""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config.units import format_duration
from spbfast.errors import ResultsError
from spbfast.sweep.points.plan import AUTO_BATCH_MAX, AUTO_BATCH_S, Cell, Plan, make_plan
from spbfast.sweep.pools.limits import PROCESS_BYTES, local_workers, usable_memory, worker_budget
from spbfast.sweep.run.calibration import VARIABLE_BYTES, RunCost, calibrate
from spbfast.sweep.run.needs import Needs
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.halfway import halfway_runs
from spbfast.sweep.store.shards import SETTLED, read_shard
from spbfast.sweep.store.states import state_path
from spbfast.sweep.store.view import held_runs
from spbfast.text import format_bytes, format_seconds

POINTS_MANY = 100_000
BYTES_MANY = 50 * 10**9
SHOWN = 5
FILES_ALWAYS = 8
BUSY_SHARE = 0.8


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost.

    Attributes
    ----------
    runs, done, new : int
        Replicates of all points; those that a continued sweep would not repeat; the others. Where results
        decide how many there are, these are the most.
    runs_min : int
        Runs that there are at least.
    run : RunCost or None
        None when it was not to be measured.
    branch_at_s : float or None
        Simulated seconds that all points of a replicate share.
    aged : int
        Replicates of which that part is still to be simulated.
    halfway : int
        New runs that were stopped on the way and go on from there.
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
    runs_min: int
    done: int
    new: int
    merged: int
    run: RunCost | None
    executor: str
    slots: int
    wall_s: float | None
    wall_min_s: float | None
    run_bytes: int
    memory_bytes: int
    memory_free: int
    files: int
    disk_bytes: float | None
    seeds: str
    branch_at_s: float | None
    aged: int
    halfway: int
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
    held, run = _look_into(store, plan)
    done = len(held)
    if run is None and measure and done < runs:
        run = calibrate(module, plan, say)
    state = Needs(plan, module.state_bytes).largest
    kind, slots, processes, remark = _executor(job.executor, state, runs - done)
    files = _files(job.executor, run, runs - done, slots)
    aged = _to_age(store, plan, held)
    begun = _begun(store, plan, held)
    saved = sum(begun) * run.seconds / slots if run is not None else 0.0
    least_aged = max(0, aged - plan.replicates + plan.nr_least // len(plan.points))
    found = Estimate(
        name=plan.name,
        directory=str(outdir),
        points=len(plan.points),
        replicates=plan.replicates,
        runs=runs,
        runs_min=plan.nr_least,
        done=done,
        new=runs - done,
        merged=plan.merged,
        run=run,
        executor=kind,
        slots=slots,
        wall_s=None if run is None else max(0.0, _wall(run, runs - done, aged, slots) - saved),
        wall_min_s=None
        if run is None
        else max(0.0, _wall(run, max(0, plan.nr_least - done), least_aged, slots) - saved),
        run_bytes=state,
        memory_bytes=slots * state + processes * PROCESS_BYTES,
        memory_free=usable_memory(),
        files=files,
        disk_bytes=None if run is None else _disk(run, runs, files, aged if plan.keeps_states else slots),
        seeds=_seeds(plan),
        branch_at_s=None if plan.branch is None else plan.branch.at / 1e9,
        aged=aged,
        halfway=len(begun),
        first=[{"point_id": f"{p.point_id:016x}", **p.values} for p in plan.points[:SHOWN]],
    )
    here = job.executor.kind in ("serial", "threads", "processes")
    found.cautions.extend([*([remark] if remark else []), *_cautions(found, Path(outdir), here)])
    return found


# -- what is known -------------------------------------------------------------------------------------


def _look_into(store: Store, plan: Plan) -> tuple[list[Cell], RunCost | None]:
    """Runs of the plan that a directory holds, and what a run cost there."""
    if not store.manifest_path.is_file():
        return [], None
    store.refuse_identity(plan)
    held = held_runs(store)
    settled = [c for c, code in held.status.items() if code in SETTLED and c.replicate < plan.replicates]
    ours = np.isin(np.array([c.point_id for c in settled], np.uint64), plan.ids)
    done = [cell for cell, own in zip(settled, ours.tolist(), strict=True) if own]
    if not held.timed or held.sample is None:
        return done, None
    around = _around(held.sample)
    nbytes = max(200.0, (held.shard_bytes - around * held.shards) / max(1, len(held.status)))
    source = f"mean of {held.timed} runs in {store.dir}"
    seconds = held.wall_s / held.timed
    return done, RunCost(seconds, seconds, nbytes, around, source)


def _to_age(store: Store, plan: Plan, done: list[Cell]) -> int:
    """Replicates of a branched sweep whose shared part is still to be simulated."""
    if plan.branch is None:
        return 0
    complete = Counter(cell.replicate for cell in done)
    todo = [r for r in range(plan.replicates) if complete[r] < len(plan.points)]
    scenario, version = plan.scenario(0), plan.model_version
    return sum(not state_path(store.dir, scenario, version, r).is_file() for r in todo)


def _begun(store: Store, plan: Plan, done: list[Cell]) -> list[float]:
    """Which share of each run that was stopped on the way is behind it."""
    ids = set(plan.ids.tolist())
    found = [run for run in halfway_runs(store.dir, set(done)) if run.cell and run.cell.point_id in ids]
    wholes = [plan.scenario(plan.index_of(run.cell.point_id)).duration for run in found if run.cell]
    return [min(1.0, run.at / max(1, whole)) for run, whole in zip(found, wholes, strict=True)]


def _around(path: Path) -> float:
    """Bytes that a shard takes beside its values: so much per variable."""
    try:
        shard = read_shard(path, data=False)
    except ResultsError:
        return 0.0
    return VARIABLE_BYTES * (2 + len(shard.facts) + len(shard.coords) + len(shard.data))


# -- what follows --------------------------------------------------------------------------------------


def _wall(run: RunCost, new: int, aged: int, slots: int) -> float:
    """Seconds of all runs and of what they share."""
    return -(-new // slots) * run.seconds + -(-aged // slots) * run.age_seconds


def _disk(run: RunCost, runs: int, files: int, states: int) -> float:
    """Bytes of shards, results.nc, and the states that lie there at a time."""
    return 2 * runs * run.nbytes + (files - FILES_ALWAYS + 2) * run.shard_nbytes + states * run.state_nbytes


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


def _branch_line(found: Estimate) -> str:
    cost = found.run.age_seconds if found.run is not None else 0.0
    each = f", about {format_seconds(cost)} each" if cost else ""
    at = format_duration(round((found.branch_at_s or 0) * 1e9))
    return f"  branch      {found.aged} replicates to age once up to {at}{each}; points continue from there"


def estimate_lines(found: Estimate) -> list[str]:
    """The estimate as lines for people."""
    replicates, runs, new = str(found.replicates), str(found.runs), str(found.new)
    if found.runs_min < found.runs:
        replicates = f"{found.runs_min // found.points} to {replicates}"
        runs = f"{found.runs_min} to {runs}"
        new = f"{max(0, found.runs_min - found.done)} to {new}"
    lines = [
        f"{found.name}: {found.points} points x {replicates} replicates = {runs} runs, "
        f"{found.done} done, {new} new; into {found.directory}"
    ]
    if found.run is not None:
        lines.append(f"  one run     about {format_seconds(found.run.seconds)} ({found.run.source})")
    if found.branch_at_s is not None:
        lines.append(_branch_line(found))
    if found.halfway:
        lines.append(f"  halfway     {found.halfway} runs go on from where they were stopped")
    if found.wall_s is not None and found.new:
        least = found.wall_min_s if found.runs_min < found.runs and found.wall_min_s is not None else None
        range_ = "" if least is None else f"{format_seconds(least)} to "
        lines.append(f"  wall time   about {range_}{format_seconds(found.wall_s)} on {found.executor}")
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
