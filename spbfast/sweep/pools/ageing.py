"""The machine that a branched run continues, made by whoever needs it first.

Owns the step from a task to a scenario that begins at the branch. states.py owns the files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spbfast.config.branch import shared_part
from spbfast.config.models import Scenario
from spbfast.constants import NS_PER_TICK
from spbfast.errors import SpbfastError
from spbfast.sweep.points.plan import Task
from spbfast.sweep.pools.going_on import GoingOn
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.halfway import halfway_path_of_shared
from spbfast.sweep.store.states import make_once, state_path

Run = Callable[..., Any]


class RunTimeoutError(SpbfastError):
    """A run that took longer than it was given."""


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
    going_on: Callable[[Path], GoingOn],
) -> Scenario | None:
    """The scenario of a task, begun from its replicate's machine at the branch; None if stopped on the way.

    `going_on` gives what the shared part goes on from, by its file in halfway/.

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
    part = going_on(halfway_path_of_shared(path))
    age = functools.partial(_age, task, path, run, level, stop, timeout_s, part)
    if not make_once(path, age, stop):
        return None
    branch = scenario.branch.model_copy(update={"state": str(path)})
    return scenario.model_copy(update={"branch": branch})


def _age(
    task: Task,
    path: Path,
    run: Run,
    level: str,
    stop: Callable[[], bool],
    timeout_s: float | None,
    part: GoingOn,
) -> bool:
    """Simulate the shared part and save the machine; False if stopped on the way."""
    shared = shared_part(task.scenario)

    def write(state: Any) -> None:
        with atomic_file(path) as tmp:
            state.write(tmp)

    result = part.run(
        run,
        shared,
        lambda: shared,
        task.seed,
        task.cell.replicate,
        timeout_s=timeout_s,
        save=(shared.duration // NS_PER_TICK, write),
        **snapshot_option(level),
    )
    if result.stopped and not stop():
        raise too_long(timeout_s, "the part of the run up to the branch")
    if not result.stopped:
        part.end()
    return not result.stopped
