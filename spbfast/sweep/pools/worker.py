"""What runs where the work is: one batch, one shard, one short receipt.

Owns the loop over the cells of a batch and the account of a failed cell. Imported by worker processes, so
everything here is importable by name; no bulk data leaves through the return value. Knows nothing of Dask.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import pickle
import re
import shlex
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config.models import Scenario
from spbfast.errors import ResultsError, SetupError, SpbfastError, StorageError
from spbfast.outputs.variables import VARIABLES, add_summaries, at_level, check_run
from spbfast.sweep.points.plan import Batch, Task
from spbfast.sweep.pools.ageing import RunTimeoutError, begun_at_branch, snapshot_option, too_long
from spbfast.sweep.pools.going_on import GoingOn, give_up_after
from spbfast.sweep.store.atomic import hostname, write_json
from spbfast.sweep.store.directory import Store, quarantine
from spbfast.sweep.store.halfway import halfway_path
from spbfast.sweep.store.notes import notebook
from spbfast.sweep.store.shards import (
    FAILED,
    INTERRUPTED,
    LOST,
    OK,
    TIMEOUT,
    CellResult,
    read_shard,
    scalars_of,
    write_shard,
)
from spbfast.sweep.store.states import remove_state

TRACEBACK_CHARS = 8000
SAID, SAID_CHARS = 3, 160
_stops: dict[str, threading.Event] = {}
_started: dict[str, float] = {}
_guard, _prepare_guard = threading.Lock(), threading.Lock()


class WorkerLostError(SpbfastError):
    """A worker process died while it ran a batch: a crash, a kill, no memory left."""


def stop_flag(sweep: str) -> threading.Event:
    """The flag that tells this process's runs of a sweep to end early."""
    with _guard:
        return _stops.setdefault(sweep, threading.Event())


def started_at(sweep: str) -> float:
    """When this process began with a sweep (`time.perf_counter`)."""
    with _guard:
        return _started.setdefault(sweep, time.perf_counter())


def request_stop(sweep: str) -> None:
    """Set the stop flag; the driver has every worker process call it."""
    stop_flag(sweep).set()


def forget_stop(sweep: str) -> None:
    """Drop the flag of a finished sweep."""
    with _guard:
        _stops.pop(sweep, None)
        _started.pop(sweep, None)


@functools.cache
def fingerprint() -> str:
    """The spbfast of this process: its version and a hash of its sources."""
    import spbfast

    root = Path(spbfast.__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{spbfast.__version__} ({digest.hexdigest()})"


def prepare(engine: str, *, several_zones: bool = False) -> Any:
    """The engine, its kernels compiled or loaded once in this process."""
    module = importlib.import_module(engine)
    with _prepare_guard:
        _warm_up(module, several_zones)
    return module


# By module, not by name: a name may come to mean another module, as in tests.
@functools.cache
def _warm_up(module: Any, several_zones: bool) -> None:
    module.warmup(**({"several_zones": True} if several_zones else {}))


def kinds_of_machine(scenarios: Iterable[Scenario]) -> set[bool]:
    """Whether scenarios have several zones: an engine may need other kernels then."""
    return {len(scenario.machine.zones()) > 1 for scenario in scenarios}


def pack(batch: Batch) -> bytes:
    """A batch as sent to a worker: small, and nothing that a scheduler could look into or keep alive."""
    return zlib.compress(pickle.dumps(batch, protocol=pickle.HIGHEST_PROTOCOL), 1)


def run_packed(run: Callable[[Batch], dict[str, Any]], packed: bytes) -> dict[str, Any]:
    """Run a batch from `pack`, which came from our own driver through an authenticated connection."""
    return run(pickle.loads(zlib.decompress(packed)))


def run_batch(
    batch: Batch,
    directory: str,
    engine: str,
    level: str,
    sweep: str,
    *,
    timeout_s: float | None = None,
    expected: str = "",
    metric: str = "",
) -> dict[str, Any]:
    """Run the cells of a batch, write those that ended as one shard, return a receipt of less than 1 kB.

    Parameters
    ----------
    engine : str
        Module with `run_replicate(scenario, seed, replicate, stop=...)`.
    level : str
        Output level: summary, series or spb.
    sweep : str
        Key of the stop flag.
    timeout_s : float, optional
        Longest time of one run.
    expected : str
        Fingerprint that this process must have, "" for any.
    metric : str
        A scalar output to put into the receipt as `values`, None where there is none; "" for none.

    Returns
    -------
    dict
        batch (id of the shard, "" if none was written), statuses (one digit a cell, those without a row
        in the shard included), wall_s, events, host, pid, and where there are any `said`: the first errors
        by place in the batch, and `remarks`: lines for the user.

    Raises
    ------
    StorageError
        When the shard cannot be written; a failing simulation does not raise.
    SetupError
        When this process runs another spbfast than the driver.
    """
    if expected and fingerprint() != expected:
        raise SetupError(f"the worker on {hostname()} has spbfast {fingerprint()}, the driver has {expected}")
    store = Store(directory)
    batch_id = batch.batch_id
    if (receipt := _receipt_of_shard(store, batch, metric)) is not None:
        return receipt
    for several in kinds_of_machine(task.scenario for task in batch.tasks):
        module = prepare(engine, several_zones=several)
    flag, started = stop_flag(sweep), started_at(sweep)
    run, version = module.run_replicate, int(module.MODEL_VERSION)
    start = time.perf_counter()
    notes = notebook(store.running)
    results, remarks = [], list[str]()
    going_on = functools.partial(GoingOn, stop=flag.is_set, started=started, say=remarks.append)
    halves = [going_on(halfway_path(store.dir, task.cell)) for task in batch.tasks]
    for task, half in zip(batch.tasks, halves, strict=True):
        notes.put(batch_id, task.cell)
        begin = functools.partial(
            begun_at_branch, task, run, level, Path(directory), version, flag.is_set, timeout_s, going_on
        )
        results.append(run_cell(task, run, level, flag.is_set, timeout_s, begin, half))
    said = _say_failures(store, batch, results)
    shard_id = _write_ended(store, batch, results)
    notes.put(batch_id, None)
    ended = [half for half, r in zip(halves, results, strict=True) if r.status in (OK, FAILED)]
    for half in ended:
        half.end()
    events = int(sum(r.facts.get("events", 0) for r in results))
    spent = time.perf_counter() - start + sum(half.before_s for half in ended)
    receipt = _receipt(shard_id, [r.status for r in results], spent, events)
    receipt |= _valued(metric, [float(r.data[metric]) if metric in r.data else None for r in results])
    told = {"said": said, "remarks": remarks[:SAID]}
    return receipt | {name: what for name, what in told.items() if what}


def _receipt_of_shard(store: Store, batch: Batch, metric: str) -> dict[str, Any] | None:
    """The receipt of a batch whose shard is there: a worker may have died after its last step."""
    path = store.shard_path(batch.batch_id)
    if not path.is_file():
        return None
    with suppress(ResultsError):
        shard = read_shard(path, data=bool(metric))
        codes = dict(zip(shard.cells, shard.facts["status"].tolist(), strict=True))
        values = dict(zip(shard.cells, scalars_of(shard, metric), strict=True)) if metric else {}
        return {
            **_receipt(batch.batch_id, [codes[t.cell] for t in batch.tasks]),
            **_valued(metric, [values.get(t.cell) for t in batch.tasks]),
        }
    quarantine(path)
    return None


def _valued(metric: str, values: list[float | None]) -> dict[str, Any]:
    return {"metric": metric, "values": values} if metric else {}


def _say_failures(store: Store, batch: Batch, results: list[CellResult]) -> dict[int, dict[str, str]]:
    """Write an account of every failed cell; the first errors by place in the batch, shortened."""
    said: dict[int, dict[str, str]] = {}
    for i, (task, result) in enumerate(zip(batch.tasks, results, strict=True)):
        account = result.account
        if account is not None and len(said) < SAID:
            said[i] = {"sign": account["signature"], "text": account["message"][:SAID_CHARS]}
        if result.status == FAILED:
            rerun = how_to_rerun(task, store.dir)
            write_json(store.failure_path(task.cell), {**(account or {}), "rerun": rerun})
    return said


def _write_ended(store: Store, batch: Batch, results: list[CellResult]) -> str:
    """Write the cells that ended as one shard; its id, "" if none did."""
    ended = [(t, r) for t, r in zip(batch.tasks, results, strict=True) if r.status in (OK, FAILED)]
    if not ended:
        return ""
    # The name says which cells the file holds, so a batch cut short is never taken for the whole one.
    shard_id = Batch(tuple(t for t, _ in ended)).batch_id
    write_shard(store.shard_path(shard_id), [r for _, r in ended])
    return shard_id


def _receipt(shard_id: str, codes: list[int], wall_s: float = 0.0, events: int = 0) -> dict[str, Any]:
    return {
        "batch": shard_id,
        "statuses": "".join(map(str, codes)),
        "wall_s": round(wall_s, 3),
        "events": events,
        "host": hostname(),
        "pid": os.getpid(),
    }


def run_cell(
    task: Task,
    run: Callable[..., Any],
    level: str,
    stop: Callable[[], bool],
    timeout_s: float | None = None,
    begin: Callable[[], Scenario | None] | None = None,
    going_on: GoingOn | None = None,
) -> CellResult:
    """One replicate of one point; an exception becomes a status with its account.

    A simulation error is `failed`. Too little memory or time is no fault of the simulation: `lost` and
    `timeout` leave no row in the shard, the driver tries them again. `begin` gives the scenario to run, once
    what it shares with others is there; None if it was stopped. With `going_on` the run continues what an
    earlier start left, and a stopped one is saved.

    Raises
    ------
    StorageError
        When what runs share cannot be written.
    """
    if stop():
        return CellResult(task.cell, INTERRUPTED)
    start = time.perf_counter()
    scenario: Scenario | None = None

    def begun() -> Scenario | None:
        nonlocal scenario
        scenario = task.scenario if begin is None else begin()
        return scenario

    try:
        numbers, more = (task.seed, task.cell.replicate), snapshot_option(level)
        if going_on is not None:
            result = going_on.run(run, task.scenario, begun, *numbers, timeout_s=timeout_s, **more)
        else:
            late = give_up_after(timeout_s)
            result = run(task.scenario, *numbers, stop=lambda: stop() or late(), **more)
        if result is None or (result.stopped and stop()):
            return CellResult(task.cell, INTERRUPTED)
        if result.stopped:
            raise too_long(timeout_s, "the run")
        problems = check_run(result.data, result.coords)
        if problems:
            raise ResultsError("the engine's output is malformed: " + "; ".join(problems))
        return _ok(task, result, level, going_on.before_s if going_on is not None else 0.0)
    except StorageError:
        raise
    except Exception as error:
        kind = {RunTimeoutError: TIMEOUT, MemoryError: LOST}.get(type(error), FAILED)
        if isinstance(error, ResultsError) and _drops_state(scenario):
            kind = LOST
        facts: dict[str, int | float] = {"seed": task.seed, "wall_time": time.perf_counter() - start}
        return CellResult(task.cell, kind, facts, account=failure_account(task, error))


def _drops_state(scenario: Scenario | None) -> bool:
    """Remove the state of a branch that cannot be read, so that it is made anew; False if there is none."""
    if scenario is None or scenario.branch is None or scenario.branch.state is None:
        return False
    remove_state(Path(scenario.branch.state))
    return True


def _ok(task: Task, result: Any, level: str, before_s: float) -> CellResult:
    full = add_summaries(result.data)
    data = {n: np.asarray(full[n]) for n in at_level(full, level)}
    used = {d for n in data for d in VARIABLES[n].dims}
    facts: dict[str, int | float] = {
        "seed": task.seed,
        "digest": int(result.digest, 16),
        "demand_digest": int(result.demand_digest, 16),
        "events": int(result.events),
        "wall_time": before_s + float(result.wall_s),
        "boot_time": float("nan") if before_s else float(result.boot_s),  # an earlier start knew
    }
    coords = {d: np.asarray(result.coords[d]) for d in result.coords if d in used}
    return CellResult(task.cell, OK, facts, data, coords)


def signature(error: BaseException) -> str:
    """8 hex digits, the same for errors that differ only in numbers such as step and seed."""
    text = re.sub(r"[0-9]+", "#", f"{type(error).__name__}: {error}")
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def how_to_rerun(task: Task, directory: str | Path) -> str:
    """The command that runs a point of a results directory again."""
    return shlex.join(["spbfast", "rerun", str(directory), f"{task.cell.point_id:016x}"])


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
        "signature": signature(error),
        "scenario": task.scenario.canonical(),
    }
