"""What runs where the work is: one batch, one shard, one short receipt.

Owns the loop over the cells of a batch and the account of a failed cell. Imported by worker processes, so
everything here is importable by name; no bulk data leaves through the return value. Knows nothing of Dask.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.sweep.files import hostname, write_json
from spbfast.sweep.plan import Batch, Task
from spbfast.sweep.shards import FAILED, INTERRUPTED, OK, CellResult, read_shard, write_shard
from spbfast.sweep.store import Store
from spbfast.variables import VARIABLES, add_summaries, at_level, check_run

TRACEBACK_CHARS = 8000
_stops: dict[str, threading.Event] = {}
_stops_guard = threading.Lock()


def stop_flag(sweep: str) -> threading.Event:
    """The flag that tells this process's runs of a sweep to end early."""
    with _stops_guard:
        return _stops.setdefault(sweep, threading.Event())


def request_stop(sweep: str) -> None:
    """Set the stop flag; the driver has every worker process call it."""
    stop_flag(sweep).set()


def forget_stop(sweep: str) -> None:
    """Drop the flag of a finished sweep."""
    with _stops_guard:
        _stops.pop(sweep, None)


def run_batch(batch: Batch, directory: str, engine: str, level: str, sweep: str) -> dict[str, Any]:
    """Run the cells of a batch, write those that ended as one shard, return a receipt of less than 1 kB.

    Parameters
    ----------
    engine : str
        Module with `run_replicate(scenario, seed, replicate, stop=...)`.
    level : str
        Output level: summary, series or spb.
    sweep : str
        Key of the stop flag.

    Returns
    -------
    dict
        batch (id of the shard, "" if none was written), statuses (one digit a cell, interrupted ones
        included), wall_s, events, host, pid.

    Raises
    ------
    ResultsError
        When the shard cannot be written; a failing simulation does not raise.
    """
    store = Store(directory)
    path = store.shard_path(batch.batch_id)
    if path.is_file():
        return _receipt_of_existing(path, batch)
    stop = stop_flag(sweep).is_set
    run = importlib.import_module(engine).run_replicate
    start = time.perf_counter()
    results = [run_cell(task, run, level, stop) for task in batch.tasks]
    for task, result in zip(batch.tasks, results, strict=True):
        if result.status == FAILED:
            write_json(store.failure_path(task.cell), result.facts.pop("failure"))
    ended = [(t, r) for t, r in zip(batch.tasks, results, strict=True) if r.status != INTERRUPTED]
    # The name says which cells the file holds, so a batch cut short is never taken for the whole one.
    shard = Batch(tuple(t for t, _ in ended))
    if ended:
        write_shard(store.shard_path(shard.batch_id), [r for _, r in ended])
    return {
        "batch": shard.batch_id if ended else "",
        "statuses": "".join(str(r.status) for r in results),
        "wall_s": round(time.perf_counter() - start, 3),
        "events": int(sum(r.facts.get("events", 0) for r in results)),
        "host": hostname(),
        "pid": os.getpid(),
    }


def _receipt_of_existing(path: Path, batch: Batch) -> dict[str, Any]:
    """The receipt of a batch that was already written, as when a worker died after its last step."""
    shard = read_shard(path, data=False)
    found = dict(zip(shard.cells, shard.facts["status"].tolist(), strict=True))
    return {
        "batch": batch.batch_id,
        "statuses": "".join(str(found[t.cell]) for t in batch.tasks),
        "wall_s": 0.0,
        "events": 0,
        "host": hostname(),
        "pid": os.getpid(),
    }


def run_cell(task: Task, run: Callable[..., Any], level: str, stop: Callable[[], bool]) -> CellResult:
    """One replicate of one point; an exception becomes status `failed` with its account."""
    if stop():
        return CellResult(task.cell, INTERRUPTED)
    start = time.perf_counter()
    try:
        result = run(task.scenario, task.seed, task.cell.replicate, stop=stop)
        if result.stopped:
            return CellResult(task.cell, INTERRUPTED)
        problems = check_run(result.data, result.coords)
        if problems:
            raise ResultsError("the engine's output is malformed: " + "; ".join(problems))
        return _ok(task, result, level)
    except Exception as error:
        facts: dict[str, Any] = {
            "seed": task.seed,
            "wall_time": time.perf_counter() - start,
            "failure": failure_account(task, error),
        }
        return CellResult(task.cell, FAILED, facts)


def _ok(task: Task, result: Any, level: str) -> CellResult:
    full = add_summaries(result.data)
    data = {n: np.asarray(full[n]) for n in at_level(full, level)}
    used = {d for n in data for d in VARIABLES[n].dims}
    facts: dict[str, int | float] = {
        "seed": task.seed,
        "digest": int(result.digest, 16),
        "demand_digest": int(result.demand_digest, 16),
        "events": int(result.events),
        "wall_time": float(result.wall_s),
        "boot_time": float(result.boot_s),
    }
    coords = {d: np.asarray(result.coords[d]) for d in result.coords if d in used}
    return CellResult(task.cell, OK, facts, data, coords)


def failure_account(task: Task, error: BaseException) -> dict[str, Any]:
    """What happened, where, and with which scenario; goes to failures/ as JSON."""
    trace = "".join(traceback.format_exception(error))
    return {
        "point_id": f"{task.cell.point_id:016x}",
        "replicate": task.cell.replicate,
        "seed": task.seed,
        "error": type(error).__name__,
        "code": getattr(error, "code", None),
        "step": getattr(error, "step", None),
        "message": str(error)[:2000],
        "host": hostname(),
        "traceback": trace[-TRACEBACK_CHARS:],
        "signature": hashlib.blake2b(f"{type(error).__name__}{error}".encode(), digest_size=4).hexdigest(),
        "scenario": task.scenario.canonical(),
    }
