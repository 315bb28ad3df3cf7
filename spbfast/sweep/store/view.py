"""A results directory seen from outside: what is done, what failed, is it running.

Owns the read-only view behind `status`, `ls` and the dry run. It may look while a driver writes, on any
machine that sees the files, so it believes only what is complete and changes nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.pointtable import read_points
from spbfast.sweep.store.shards import FAILED, OK, read_shard

SILENT_S = 120.0
FAILURES_SHOWN = 5


@dataclass(frozen=True)
class Held:
    """The runs that a directory holds.

    Attributes
    ----------
    status : dict
        Per cell the code of its best outcome.
    wall_s, timed : float, int
        Seconds that some runs took in all, and how many these are.
    shard_bytes, shards : int
    sample : Path or None
        One of the shards.
    """

    status: dict[Cell, int]
    wall_s: float
    timed: int
    shard_bytes: int
    shards: int
    sample: Path | None


def held_runs(store: Store) -> Held:
    """Read the journals, and the shards that they lack."""
    status: dict[Cell, int] = {}
    wall, timed, known = 0.0, 0, set()
    for receipt in store.receipts():
        known.add(str(receipt["batch"]))
        for text, code in zip(receipt["cells"], receipt["statuses"], strict=True):
            _note(status, Cell.parse(text), int(code))
        if float(receipt.get("wall_s", 0.0)) > 0:
            wall += float(receipt["wall_s"])
            timed += len(receipt["cells"])
    nbytes, count, sample = 0, 0, None
    for path in sorted(store.shards.glob("??/*.nc")):
        with contextlib.suppress(OSError):
            nbytes += path.stat().st_size
        count, sample = count + 1, sample or path
        if path.stem in known:
            continue
        with contextlib.suppress(ResultsError):
            shard = read_shard(path, data=False)
            for cell, code in zip(shard.cells, shard.facts["status"].tolist(), strict=True):
                _note(status, cell, int(code))
    return Held(status, wall, timed, nbytes, count, sample)


def _note(status: dict[Cell, int], cell: Cell, code: int) -> None:
    if status.get(cell) != OK:
        status[cell] = code


@dataclass(frozen=True)
class DirectoryState:
    """Where a sweep stands.

    Attributes
    ----------
    state : str
        running, silent (a driver holds it but has not been heard of for two minutes), finished, or stopped.
    eta_s : float or None
        Seconds until the end at the speed of this start; None unless running.
    failures : list of dict
        The first failed runs: point_id, replicate, error, message.
    """

    directory: str
    name: str
    state: str
    points: int
    replicates: int
    runs: int
    ok: int
    failed: int
    missing: int
    created: str
    updated: str
    eta_s: float | None
    driver: str
    nbytes: int
    model_version: int
    failures: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def look(directory: str | Path) -> DirectoryState:
    """Where the sweep of a directory stands.

    Raises
    ------
    ResultsError
        When it is not a results directory.
    """
    store = Store(directory)
    manifest = store.manifest()
    replicates = int(manifest.get("replicates", 1))
    try:
        ids = read_points(store.points_path).point_id
    except ResultsError:
        # A driver that was killed in its first second has not written the points yet.
        ids = np.empty(0, np.uint64)
    held = held_runs(store)
    cells = [c for c in held.status if c.replicate < replicates]
    ours = np.isin(np.array([c.point_id for c in cells], np.uint64), ids)
    codes = np.array([held.status[c] for c in cells], int)[ours]
    runs = len(ids) * replicates if len(ids) else int(manifest.get("n_points", 0)) * replicates
    ok, failed = int((codes == OK).sum()), int((codes >= FAILED).sum())
    driver, silent = _driver(store.dir)
    told = _status(store)
    missing = runs - ok - failed
    state = ("silent" if silent else "running") if driver else "stopped" if missing else "finished"
    return DirectoryState(
        directory=str(store.dir),
        name=str(manifest.get("name", store.dir.name)),
        state=state,
        points=len(ids),
        replicates=replicates,
        runs=runs,
        ok=ok,
        failed=failed,
        missing=missing,
        created=str(manifest.get("created", "")),
        updated=str(told.get("updated", "")),
        eta_s=_eta(store, ok + failed, missing) if state == "running" else None,
        driver=driver,
        nbytes=held.shard_bytes + (store.results_path.stat().st_size if store.results_path.exists() else 0),
        model_version=int(manifest.get("model_version", 0)),
        failures=_failures(store),
    )


def _driver(directory: Path) -> tuple[str, bool]:
    """Who holds the directory, "" if nobody, and whether they have been silent for long."""
    for path in sorted(directory.glob("lock*")):
        try:
            age = time.time() - path.stat().st_mtime
            holder = read_json(path)
        except (OSError, ResultsError):
            continue
        if isinstance(holder, dict):
            return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}", age > SILENT_S
    return "", False


def _status(store: Store) -> dict[str, Any]:
    with contextlib.suppress(ResultsError):
        found = read_json(store.status_path)
        return found if isinstance(found, dict) else {}
    return {}


def _eta(store: Store, done: int, missing: int) -> float | None:
    """Seconds left if the rest goes like the runs since the manifest was written, at the start."""
    try:
        begun = store.manifest_path.stat().st_mtime
    except OSError:
        return None
    fresh = 0
    for path in store.dir.glob("journal*.jsonl"):
        with contextlib.suppress(OSError):
            fresh = max(fresh, int(path.stat().st_mtime - begun))
    before = int(_status(store).get("done_before", 0) or 0)
    return missing * fresh / (done - before) if fresh > 0 and done > before else None


def _failures(store: Store) -> list[dict[str, Any]]:
    out = []
    paths = sorted(store.failures.glob("*.json")) if store.failures.is_dir() else []
    for path in paths[:FAILURES_SHOWN]:
        with contextlib.suppress(ResultsError):
            account = read_json(path)
            keys = ("point_id", "replicate", "error", "message")
            out.append({k: account.get(k) for k in keys} if isinstance(account, dict) else {})
    return out


def find_directories(root: str | Path, depth: int = 3) -> Iterator[Path]:
    """Results directories at or below a directory, by name; links are not followed."""
    root = Path(root)
    if (root / "manifest.json").is_file():
        yield root
        return
    if depth <= 0 or not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from find_directories(path, depth - 1)
