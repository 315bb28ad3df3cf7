"""One run of a sweep again, and whether it gives the same bits.

Owns the way from a results directory and a point to the scenario, the run, and the comparison with what is
stored. Writes nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import QuestionError, ResultsError
from spbfast.outputs.variables import VARIABLES
from spbfast.sweep.points.plan import Cell, Plan, Task, make_plan
from spbfast.sweep.pools.worker import run_cell
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.inputs import load_stored
from spbfast.sweep.store.pointtable import read_points
from spbfast.sweep.store.shards import OK, STATUS_NAMES, CellResult, place, read_shard, union_coords

DIFFERENCES_SHOWN = 8


@dataclass(frozen=True)
class Rerun:
    """What a second run gave, beside the first.

    Attributes
    ----------
    same : bool or None
        Whether it equals what is stored; None when nothing is.
    differences : list of str
        What differs, one line each.
    """

    cell: Cell
    stored: str
    now: str
    digest: str
    wall_s: float
    same: bool | None
    differences: list[str] = field(default_factory=list)
    account: dict[str, Any] = field(default_factory=dict)


def rerun(
    directory: str | Path,
    point: str,
    replicate: int = 0,
    *,
    engine: str = "spbfast.model.engine",
    say: Callable[[str], None] = lambda text: None,
) -> Rerun:
    """Run one replicate of one point again and compare it with what the directory holds.

    Parameters
    ----------
    point : str
        The point's identity, as many hex digits as tell it from others; ``ID:REPLICATE`` works too.

    Raises
    ------
    QuestionError
        When there is no such point.
    ResultsError
        When the results are of another version of the model.
    """
    module = importlib.import_module(engine)
    store, plan = stored_plan(directory, module)
    task = task_of(plan, point, replicate, store.dir)
    say(f"point {task.cell.point_id:016x}, replicate {task.cell.replicate}, seed {task.seed}; running ...")
    now = run_cell(task, module.run_replicate, plan.level, lambda: False)
    old = _stored(store, task.cell)
    return _compare(old, now) if now.status == OK else _compare_failure(store, old, now)


def stored_plan(directory: str | Path, module: Any) -> tuple[Store, Plan]:
    """A results directory and its plan, if an engine can give the same bits again.

    Raises
    ------
    ResultsError
        When the results are of another version of the model or of the configuration.
    """
    store = Store(directory)
    manifest = store.manifest()
    made_by = manifest.get("versions", {}).get("spbfast")
    if manifest.get("model_version") != module.MODEL_VERSION:
        raise ResultsError(
            f"was made by model version {manifest.get('model_version')} and this is version "
            f"{module.MODEL_VERSION}; install spbfast {made_by} to rerun it",
            directory,
        )
    plan = make_plan(load_stored(directory), int(module.MODEL_VERSION))
    if not np.isin(read_points(store.points_path).point_id, plan.ids).any():
        commit = str(manifest.get("git_sha", ""))[:12]
        version = f"{made_by} (commit {commit})" if commit else f"{made_by}"
        raise ResultsError(
            f"was made by spbfast {version}, whose configuration had other keys: this version reads "
            "config.yaml as other points. Its results can be read; to rerun a point install that version",
            store.dir,
        )
    return store, plan


def task_of(plan: Plan, point: str, replicate: int, directory: Path) -> Task:
    """What runs one replicate of the point that a text names; raises as `find_cell` does."""
    return plan.task(find_cell(plan, point, replicate, directory))


def find_cell(plan: Plan, point: str, replicate: int, directory: Path) -> Cell:
    """The cell that a text names.

    Raises
    ------
    QuestionError
        When no point, or more than one, begins with it.
    """
    digits, colon, number = point.strip().lower().removeprefix("0x").partition(":")
    if colon:
        replicate = int(number) if number.isdigit() else -1
    if not re.fullmatch("[0-9a-f]{1,16}", digits):
        raise QuestionError(
            f"{point!r} is no point id; they are up to 16 hex digits, as in ds.point_id", directory
        )
    if not 0 <= replicate < plan.replicates:
        raise QuestionError(
            f"there is no replicate {replicate}; there are 0..{plan.replicates - 1}", directory
        )
    found = [i for i in plan.ids.tolist() if f"{i:016x}".startswith(digits)]
    if not found:
        shown = ", ".join(f"{i:016x}" for i in plan.ids[:3].tolist())
        raise QuestionError(f"has no point {digits}; it has {len(plan.ids)}, such as {shown}", directory)
    if len(found) > 1:
        shown = ", ".join(f"{i:016x}" for i in found[:5])
        raise QuestionError(f"{digits} is the beginning of several points: {shown}", directory)
    return Cell(found[0], replicate)


def _stored(store: Store, cell: Cell) -> CellResult | None:
    """What the directory holds of a run: a success before anything else."""
    best: CellResult | None = None
    text = str(cell)
    named = [r["batch"] for r in store.receipts() if text in r["cells"]]
    paths = [store.shard_path(str(b)) for b in named] or store.shard_paths()
    for path in paths:
        with contextlib.suppress(ResultsError):
            shard = read_shard(path)
            if cell not in shard.cells:
                continue
            row = shard.cells.index(cell)
            facts = {n: v[row] for n, v in shard.facts.items()}
            data = {n: v[row] for n, v in shard.data.items()}
            found = CellResult(cell, int(facts["status"]), facts, data, shard.coords)
            if best is None or best.status != OK:
                best = found
    return best


def _compare(old: CellResult | None, now: CellResult) -> Rerun:
    digest, wall = f"{int(now.facts['digest']):016x}", float(now.facts["wall_time"])
    if old is None:
        return Rerun(now.cell, "nothing", "ok", digest, wall, None)
    stored = STATUS_NAMES[old.status]
    if old.status != OK:
        return Rerun(now.cell, stored, "ok", digest, wall, False, [f"it was {stored} and is ok now"])
    lines = []
    for name, form in (("digest", "016x"), ("demand_digest", "016x"), ("events", "d")):
        before, after = int(old.facts[name]), int(now.facts[name])
        if before != after:
            lines.append(f"{name}: {before:{form}} stored, {after:{form}} now")
    for name in old.data:
        lines += _first_difference(name, old, now)
    return Rerun(now.cell, stored, "ok", digest, wall, not lines, lines)


def _first_difference(name: str, old: CellResult, now: CellResult) -> list[str]:
    """Where a variable begins to differ; labels that only the shard has are those of its other runs."""
    var = VARIABLES[name]
    if name not in now.data:
        return [f"{name}: stored, but not an output now"]
    dims = var.dims
    full = union_coords([{d: c.coords[d] for d in dims} for c in (old, now)])
    both = []
    for one in (old, now):
        block = np.full((1, *(len(full[d]) for d in dims)), var.fill, var.dtype)
        place(block, np.asarray(one.data[name]), dims, one.coords, full)
        both.append(block[0])
    differs = ~((both[0] == both[1]) | ((both[0] != both[0]) & (both[1] != both[1])))
    if not differs.any():
        return []
    at = tuple(int(i) for i in np.argwhere(differs)[0])
    where = ", ".join(f"{d}={full[d][i]}" for d, i in zip(dims, at, strict=True))
    count = int(differs.sum())
    first = f"{where or 'its value'}: {both[0][at]} stored, {both[1][at]} now"
    return [f"{name}: {count} values differ, first at {first}"]


def _compare_failure(store: Store, old: CellResult | None, now: CellResult) -> Rerun:
    account = dict(now.account or {})
    stored = STATUS_NAMES[old.status] if old is not None else "nothing"
    lines = ["it was ok and fails now"] if stored == "ok" else []
    path = store.failure_path(now.cell)
    if path.is_file():
        before = read_json(path)
        for key in ("error", "message", "step"):
            if before.get(key) != account.get(key):
                lines.append(f"{key}: {before.get(key)} stored, {account.get(key)} now")
    wall = float(now.facts.get("wall_time", 0.0))
    same = None if old is None else not lines
    return Rerun(now.cell, stored, STATUS_NAMES[now.status], "", wall, same, lines, account)
