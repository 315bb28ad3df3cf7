"""Runs that were stopped on the way: `halfway/`, one saved state for each, from which the next start goes on.

Owns their names, what their heads say beside the state, whether a file belongs to a run, and when files are
removed. What is in a state is the engine's business, when one is worth writing the worker's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spbfast.constants import NS_PER_TICK
from spbfast.errors import ResultsError
from spbfast.statefile import StateHead, read_state_head
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.origins import sources_here

FOLDER = "halfway"
SHARED = "shared-"  # the part of a branched run that others share


@dataclass(frozen=True)
class HalfwayRun:
    """A run that was stopped on the way.

    Attributes
    ----------
    tick : int
        Ticks that are done.
    wall_s : float
        What they took, all starts together.
    sources : str
        Hash of the kernels' sources that simulated them.
    """

    path: Path
    tick: int
    wall_s: float
    sources: str

    @property
    def cell(self) -> Cell | None:
        """Which run it is, None for a part that runs share."""
        point, _, replicate = self.path.stem.rpartition("-r")
        with contextlib.suppress(ValueError):
            return Cell(int(point, 16), int(replicate))
        return None

    @property
    def at(self) -> int:
        """Simulated ns since the end of boot."""
        return self.tick * NS_PER_TICK


def halfway_path(directory: Path, cell: Cell) -> Path:
    """Where a results directory has the state of a stopped run."""
    return directory / FOLDER / f"{cell.point_id:016x}-r{cell.replicate}.state"


def halfway_path_of_shared(state: Path) -> Path:
    """The same for the shared part of a branched run, by where its state will be."""
    return state.parents[1] / FOLDER / f"{SHARED}{state.name}"


def save_halfway(state: Any, path: Path, wall_s: float) -> None:
    """Write the state of a run that is being stopped.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    note = {"run": path.stem, "wall_s": round(wall_s, 3), "sources": sources_here()}
    with atomic_file(path) as tmp:
        state.write(tmp, note)


def read_halfway(path: Path) -> HalfwayRun:
    """What the head of a stopped run's file says.

    Raises
    ------
    ResultsError
        When it is damaged, or another run's.
    """
    head = read_state_head(path)
    note = _note_in(head)
    if note.get("run") != path.stem:
        raise ResultsError("is the state of another run", path)
    return HalfwayRun(path, int(head.about["tick"]), float(note["wall_s"]), str(note["sources"]))


def _note_in(head: StateHead) -> dict[str, Any]:
    note = head.about.get("note")
    return note if isinstance(note, dict) else {}


def halfway_files(directory: Path) -> list[Path]:
    """All files of stopped runs, by name, damaged ones among them."""
    return sorted((directory / FOLDER).glob("*.state"))


def fault_of_halfway(path: Path) -> str:
    """Why a stopped run's file cannot be continued, "" if its head knows nothing against it."""
    try:
        read_halfway(path)
    except ResultsError as error:
        return error.message
    return ""


def halfway_runs(directory: Path, done: Collection[Cell] = ()) -> list[HalfwayRun]:
    """Stopped runs that can be continued and have not been done since, by name."""
    found = []
    for path in halfway_files(directory):
        with contextlib.suppress(ResultsError):
            found.append(read_halfway(path))
    return [run for run in found if run.cell not in done]


def begun_cells(directory: Path) -> set[Cell]:
    """Runs that have a file, whatever is in it."""
    cells = (HalfwayRun(path, 0, 0.0, "").cell for path in halfway_files(directory))
    return {cell for cell in cells if cell is not None}


def remove_halfway(path: Path) -> None:
    """Remove the state of a run that has ended."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def remove_ended(directory: Path, ended: Iterable[Cell]) -> None:
    """Remove the states of runs that have ended: a worker may have died before it did."""
    gone = {halfway_path(directory, cell).name for cell in ended}
    for path in halfway_files(directory):
        if path.name in gone:
            remove_halfway(path)


def remove_all_ended(directory: Path, ended: Iterable[Cell]) -> None:
    """The same when nothing is left to do, shared parts included."""
    remove_ended(directory, ended)
    for path in (directory / FOLDER).glob(f"{SHARED}*.state"):
        remove_halfway(path)
    with contextlib.suppress(OSError):
        (directory / FOLDER).rmdir()  # only when it is empty
