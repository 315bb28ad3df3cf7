"""The machine that a branched run continues, made by whoever needs it first.

Owns the step from a task to a scenario that begins at the branch. states.py owns the files.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spbfast.config.branch import shared_part
from spbfast.config.models import Scenario
from spbfast.constants import NS_PER_TICK
from spbfast.errors import SpbfastError
from spbfast.sweep.points.plan import Task
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.states import make_once, state_path

Run = Callable[..., Any]


class RunTimeoutError(SpbfastError):
    """A run that took longer than it was given."""


def give_up_after(timeout_s: float | None) -> Callable[[], bool]:
    """Whether more than so many seconds have passed from now on."""
    start = time.perf_counter()
    return lambda: timeout_s is not None and time.perf_counter() - start > timeout_s


def too_long(timeout_s: float | None, what: str) -> RunTimeoutError:
    """The error of a run that was stopped for its time."""
    return RunTimeoutError(f"{what} took longer than executor.timeout ({timeout_s:g} s)")


def snapshot_option(level: str) -> dict[str, bool]:
    """What an output level asks of the engine."""
    return {"snapshots": True} if level == "spb" else {}


def begun_at_branch(
    task: Task,
    run: Run,
    level: str,
    directory: Path,
    model_version: int,
    stop: Callable[[], bool],
    timeout_s: float | None,
) -> Scenario | None:
    """The scenario of a task, begun from its replicate's machine at the branch; None if stopped on the way.

    Raises
    ------
    SimulationError
        When the part that all points share fails.
    RunTimeoutError
        When it takes longer than a run may.
    StorageError
        When its state cannot be written.
    """
    scenario = task.scenario
    if scenario.branch is None:
        return scenario
    path = state_path(directory, scenario, model_version, task.cell.replicate)
    age = functools.partial(_age, task, path, run, level, stop, timeout_s)
    if not make_once(path, age, stop):
        return None
    branch = scenario.branch.model_copy(update={"state": str(path)})
    return scenario.model_copy(update={"branch": branch})


def _age(
    task: Task, path: Path, run: Run, level: str, stop: Callable[[], bool], timeout_s: float | None
) -> bool:
    """Simulate the shared part and save the machine; False if stopped on the way."""
    shared, late = shared_part(task.scenario), give_up_after(timeout_s)

    def write(state: Any) -> None:
        with atomic_file(path) as tmp:
            state.write(tmp)

    result = run(
        shared,
        task.seed,
        task.cell.replicate,
        stop=lambda: stop() or late(),
        save=(shared.duration // NS_PER_TICK, write),
        **snapshot_option(level),
    )
    if result.stopped and not stop():
        raise too_long(timeout_s, "the part of the run up to the branch")
    return not result.stopped
