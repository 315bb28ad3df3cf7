"""A results directory seen from outside: what is done, what failed, whether it is running.

Owns the read-only view behind `status`, `ls` and the dry run. A driver may be writing meanwhile, on any
machine that sees the files, so only complete files count and nothing is changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.decisions import read_decisions
from spbfast.sweep.store.directory import Store, take_better
from spbfast.sweep.store.halfway import halfway_runs
from spbfast.sweep.store.lock import ALIVE, DEAD, SILENT, judge
from spbfast.sweep.store.pointtable import read_points
from spbfast.sweep.store.seal import has_good_seal
from spbfast.sweep.store.shards import FAILED, OK, read_shard

FAILURES_SHOWN = 5
EXAMINED_BYTES = 64 << 20  # whose digests are checked while somebody waits for an answer


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

    def codes_of(self, ids: np.ndarray, replicates: int) -> np.ndarray:
        """The codes of those runs that belong to these points and replicates."""
        cells = [c for c in self.status if c.replicate < replicates]
        ours = np.isin(np.array([c.point_id for c in cells], np.uint64), ids)
        return np.array([self.status[c] for c in cells], int)[ours]


def held_runs(store: Store) -> Held:
    """Read the journals, and the shards that they lack; damaged shards hold nothing."""
    paths = store.shard_paths()
    nbytes = sum(map(_size, paths))
    damaged = {p.stem for p in paths if _is_damaged(p)} if nbytes < EXAMINED_BYTES else set()
    status: dict[Cell, int] = {}
    wall, timed, known = 0.0, 0, set(damaged)
    for receipt in store.receipts():
        if str(receipt["batch"]) in damaged:
            continue
        known.add(str(receipt["batch"]))
        take_better(status, map(Cell.parse, receipt["cells"]), map(int, receipt["statuses"]))
        if float(receipt.get("wall_s", 0.0)) > 0:
            wall += float(receipt["wall_s"])
            timed += len(receipt["cells"])
    for path in paths:
        if path.stem in known:
            continue
        with contextlib.suppress(ResultsError):
            shard = read_shard(path, data=False)
            take_better(status, shard.cells, shard.facts["status"].tolist())
    sound = [p for p in paths if p.stem not in damaged]
    return Held(status, wall, timed, nbytes, len(paths), sound[0] if sound else None)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _is_damaged(path: Path) -> bool:
    try:
        has_good_seal(path, path.stem)
    except ResultsError:
        return True
    return False


@dataclass(frozen=True)
class DirectoryState:
    """Where a sweep stands.

    Attributes
    ----------
    state : str
        running, silent (a driver holds it but has not been heard of for two minutes), finished, or stopped,
        also when the driver has died.
    eta_s : float or None
        Seconds until the end at the speed of this start; None unless running.
    halfway : list of dict
        Runs that were stopped on the way and go on from there: point_id, replicate, at_s (simulated).
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
    halfway: list[dict[str, Any]]
    failures: list[dict[str, Any]]


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
    ids = np.empty(0, np.uint64)
    with contextlib.suppress(ResultsError):  # a driver killed in its first second has not written the points
        ids = read_points(store.points_path).point_id
    held = held_runs(store)
    codes = held.codes_of(ids, replicates)
    runs = (len(ids) or int(manifest.get("n_points", 0))) * replicates
    least = int(manifest.get("replicates_min", replicates))
    if least < replicates:
        runs = _runs_known(store, ids, least)
    ok, failed = int((codes == OK).sum()), int((codes >= FAILED).sum())
    missing = runs - ok - failed
    driver, verdict = _driver(store.dir)
    state = {ALIVE: "running", SILENT: "silent"}.get(verdict, "stopped" if missing else "finished")
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
        updated=str(_read_mapping(store.status_path).get("updated", "")),
        eta_s=_eta(store, ok + failed, missing, runs) if state == "running" else None,
        driver=driver,
        nbytes=held.shard_bytes + (store.results_path.stat().st_size if store.results_path.exists() else 0),
        model_version=int(manifest.get("model_version", 0)),
        halfway=_halfway(store, held),
        failures=[_failure(path) for path in store.failure_paths()[:FAILURES_SHOWN]],
    )


def _halfway(store: Store, held: Held) -> list[dict[str, Any]]:
    runs = [(run.cell, run.at) for run in halfway_runs(store.dir, held.status)]
    return [
        {"point_id": f"{cell.point_id:016x}", "replicate": cell.replicate, "at_s": at / 1e9}
        for cell, at in runs
        if cell is not None
    ]


def _runs_known(store: Store, ids: np.ndarray, least: int) -> int:
    """Runs of a sweep whose results decide how many there are, as far as that is known."""
    told = _read_mapping(store.status_path).get("total")
    decisions = read_decisions(store.dir, ids, least)
    decided = len(ids) * least if decisions is None else int(decisions.needed.sum())
    return max(decided, int(told or 0))


def _read_mapping(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is none to read."""
    with contextlib.suppress(ResultsError):
        found = read_json(path)
        return found if isinstance(found, dict) else {}
    return {}


def _failure(path: Path) -> dict[str, Any]:
    account = _read_mapping(path)
    return {k: account.get(k) for k in ("point_id", "replicate", "error", "message")}


def _driver(directory: Path) -> tuple[str, int]:
    """Which process holds the directory, "" if none, and what is known of it; of several the liveliest."""
    found: list[tuple[int, str]] = []
    for path in sorted(directory.glob("lock*")):
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if holder := _read_mapping(path):
                verdict = judge(holder, age)
                died = ", which died without a word" if verdict == DEAD else ""
                who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}{died}"
                found.append((verdict, who))
    verdict, who = min(found, default=(DEAD, ""))
    return who, verdict


def _eta(store: Store, done: int, missing: int, runs: int) -> float | None:
    """Seconds left at the speed that the driver told last, or else at that of the runs since the start.

    The driver counts the time of runs alone; since the start, kernels may have been compiled.
    """
    told = _read_mapping(store.status_path)
    if (
        told.get("state") == "running"
        and told.get("total") == runs
        and told.get("eta_s")
        and told.get("missing")
    ):
        return float(told["eta_s"]) * missing / int(told["missing"])
    spent = 0
    with contextlib.suppress(OSError):
        begun = store.manifest_path.stat().st_mtime
        spent = max((int(p.stat().st_mtime - begun) for p in store.dir.glob("journal*.jsonl")), default=0)
    return missing * spent / done if spent > 0 and done > 0 else None


def find_directories(
    root: str | Path, depth: int = 3, refused: Callable[[Path], object] = lambda path: None
) -> Iterator[Path]:
    """Results directories at or below a directory, by name; links are not followed.

    Directories that may not be looked into are left out, and `refused` is told.
    """
    root = Path(root)
    try:
        is_one = (root / "manifest.json").is_file()
        below = [] if is_one or depth <= 0 or not root.is_dir() else sorted(root.iterdir())
    except PermissionError:
        refused(root)
        return
    if is_one:
        yield root
    for path in below:
        if path.is_dir() and not path.is_symlink():
            yield from find_directories(path, depth - 1, refused)
