"""The machines at the branch of a sweep: `states/`, one file for each replicate.

Owns their names, that each is made once whoever needs it first, and when they are removed. A file is whole
or absent, and the same bits whoever makes it, so the locks here only save work. What is in a file is the
engine's business.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from spbfast.config.branch import shared_part
from spbfast.config.models import Scenario
from spbfast.errors import SimulationError
from spbfast.sweep.points.identity import point_identity
from spbfast.sweep.store.atomic import read_json, write_json
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.lock import DirectoryLock, InUseError
from spbfast.sweep.store.view import look

FOLDER = "states"
POLL_S = 0.5


def state_path(directory: Path, scenario: Scenario, model_version: int, replicate: int) -> Path:
    """Where a results directory has the machine that a point's replicate continues."""
    shared = point_identity(shared_part(scenario).canonical(), model_version)
    return directory / FOLDER / f"{shared:016x}-r{replicate}.state"


def _failed(path: Path) -> Path:
    return path.with_suffix(".failed.json")


def make_once(path: Path, make: Callable[[], bool], stop: Callable[[], bool]) -> bool:
    """Have a state made unless it is there; False if stopped on the way.

    Parameters
    ----------
    make : callable
        Writes the file atomically; False if it was stopped.
    stop : callable
        Asked while another process makes it.

    Raises
    ------
    SimulationError
        When making it fails, or has failed before: it would fail again.
    StorageError
        When it cannot be written.
    """
    while not path.is_file():
        _fail_again(path)
        if stop():
            return False
        try:
            with DirectoryLock(path.parent, share=path.stem):
                if not path.is_file() and not _made(path, make):
                    return False
        except InUseError:
            time.sleep(POLL_S)
    return True


def _made(path: Path, make: Callable[[], bool]) -> bool:
    try:
        return make()
    except SimulationError as error:
        account = {"code": error.code, "message": error.message, "step": error.step, "seed": error.seed}
        write_json(_failed(path), account)
        raise


def _fail_again(path: Path) -> None:
    if _failed(path).is_file():
        raise SimulationError(**read_json(_failed(path)))


def forget_failures(directory: Path) -> None:
    """Let states that could not be made be tried again."""
    for path in (directory / FOLDER).glob("*.failed.json"):
        path.unlink(missing_ok=True)


def remove_state(path: Path) -> None:
    """Remove the state of a replicate of which no run is left to do."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_states(directory: Path) -> None:
    """Remove what a complete sweep needs no more."""
    shutil.rmtree(directory / FOLDER, ignore_errors=True)


def remove_states_of_complete(directory: Path) -> None:
    """Remove the states of a directory that is complete, unless its job keeps them."""
    found = look(directory)
    if not found.missing and not Store(directory).manifest().get("keep_states"):
        remove_states(directory)
