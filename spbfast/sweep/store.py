"""The results directory: what lies where, and what may go into it.

Owns the layout (manifest.json, config.yaml, config.base.yaml, config.resolved.json, points.nc, shards/,
journal.jsonl, status.json, failures/), the rule that decides which jobs may share a directory, and the
knowledge of which cells are done. The journal is a fast index; the shards are the truth. One driver at a
time: lock.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.sweep.files import hostname, is_leftover, read_json, remove_leftovers, write_json, write_text
from spbfast.sweep.plan import Cell, Plan
from spbfast.sweep.shards import FAILED, OK, SETTLED, read_shard

FORMAT = 1
# A difference in one of these makes results incomparable.
IDENTITY = ("format", "model_version", "root_seed", "output_level")
PACKAGES = ("spbfast", "numba", "numpy", "xarray", "netCDF4", "distributed")


class Store:
    """Paths and bookkeeping of one results directory.

    Parameters
    ----------
    directory : path
        Created by `open_for`; may exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self.dir = Path(directory)
        self.manifest_path = self.dir / "manifest.json"
        self.points_path = self.dir / "points.nc"
        self.results_path = self.dir / "results.nc"
        self.journal_path = self.dir / "journal.jsonl"
        self.status_path = self.dir / "status.json"
        self.shards = self.dir / "shards"
        self.failures = self.dir / "failures"

    def shard_path(self, batch_id: str) -> Path:
        """Where the shard of a batch lies (two-digit fan-out keeps directories small)."""
        return self.shards / batch_id[:2] / f"{batch_id}.nc"

    def failure_path(self, cell: Cell) -> Path:
        """Where the account of a failed cell lies."""
        return self.failures / f"{cell.point_id:016x}-r{cell.replicate}.json"

    def manifest(self) -> dict[str, Any]:
        """The stored manifest.

        Raises
        ------
        ResultsError
            When this is not a results directory.
        """
        if not self.manifest_path.is_file():
            raise ResultsError("not a results directory: it has no manifest.json", self.dir)
        return dict(read_json(self.manifest_path))

    # -- the journal ---------------------------------------------------------------------------------

    def append(self, receipt: Mapping[str, Any], cells: Iterable[Cell]) -> None:
        """Add one finished batch to the journal."""
        line = json.dumps({**receipt, "cells": [str(c) for c in cells]}, separators=(",", ":"))
        try:
            with open(self.journal_path, "ab") as f:
                # A driver killed in the middle of a line must not spoil the next one.
                torn = f.tell() > 0 and _last_byte(self.journal_path) != b"\n"
                f.write((b"\n" if torn else b"") + line.encode() + b"\n")
        except OSError as err:
            raise ResultsError(f"cannot write: {err.strerror}", self.journal_path) from err

    def receipts(self) -> list[dict[str, Any]]:
        """Journal lines that are whole and whose shard exists, oldest first."""
        try:
            text = self.journal_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            try:
                receipt = json.loads(line)
                ok = len(receipt["cells"]) == len(receipt["statuses"])
            except (ValueError, KeyError, TypeError):
                continue
            if ok and self.shard_path(str(receipt["batch"])).is_file():
                found.append(receipt)
        return found

    def scan(self) -> tuple[dict[Cell, int], dict[Cell, int]]:
        """Status of every cell that any shard holds, and how often each was tried.

        Shards that the journal lacks (the driver died between rename and journal) are read and added to
        it. Unreadable ones are renamed, so that their cells run again.
        """
        status: dict[Cell, int] = {}
        attempts: dict[Cell, int] = {}
        known = set()
        receipts = self.receipts()
        for receipt in receipts:
            known.add(receipt["batch"])
            _merge(status, attempts, map(Cell.parse, receipt["cells"]), map(int, receipt["statuses"]))
        for path in sorted(self.shards.glob("??/*.nc")):
            if path.stem in known:
                continue
            try:
                shard = read_shard(path, data=False)
            except ResultsError:
                quarantine(path)
                continue
            codes = [int(s) for s in shard.facts["status"]]
            self.append(
                {"batch": path.stem, "statuses": "".join(map(str, codes)), "found": True}, shard.cells
            )
            _merge(status, attempts, shard.cells, codes)
        return status, attempts

    # -- starting or continuing a sweep --------------------------------------------------------------

    def open_for(self, plan: Plan, job: Any, command: str) -> tuple[dict[Cell, int], dict[Cell, int]]:
        """Make the directory ready for `plan` and say what it already holds.

        Raises
        ------
        ResultsError
            When the directory holds something else: results of another model version, seed, output level
            or of scenarios that have nothing in common with this job.
        """
        from spbfast.sweep.consolidate import write_points

        manifest = make_manifest(plan, job, command)
        if self.manifest_path.exists():
            self.refuse_identity(plan)
            manifest["created"] = self.manifest().get("created", manifest["created"])
            status, attempts = self.scan()
            self._refuse_foreign(plan, status)
        else:
            self._refuse_occupied()
            status, attempts = {}, {}
        remove_leftovers(self.dir)
        # The manifest goes first: it is what makes the directory ours, should we be killed in between.
        write_json(self.manifest_path, manifest)
        write_text(self.dir / "config.yaml", str(job.source_text or ""))
        if job.base_text:
            write_text(self.dir / "config.base.yaml", str(job.base_text))
        write_json(self.dir / "config.resolved.json", resolved(plan))
        write_points(self.points_path, plan)
        return status, attempts

    def _refuse_occupied(self) -> None:
        if self.dir.exists() and not self.dir.is_dir():
            raise ResultsError("is a file, not a directory; choose another one with -o", self.dir)
        others = (
            []
            if not self.dir.exists()
            else [p.name for p in self.dir.iterdir() if p.name != "lock" and not is_leftover(p)]
        )
        if others:
            shown = ", ".join(sorted(others)[:5])
            raise ResultsError(
                f"holds other files ({shown}) and no manifest.json; choose an empty directory with -o",
                self.dir,
            )

    def refuse_identity(self, plan: Plan) -> None:
        """Raise ResultsError when the directory's results cannot be continued by `plan`."""
        old = self.manifest()
        new = identity(plan)
        diff = [f"  {k}: {old.get(k)} there, {new[k]} now" for k in IDENTITY if old.get(k) != new[k]]
        if diff:
            raise ResultsError(
                "holds results that cannot be continued by this job:\n"
                + "\n".join(diff)
                + "\nChoose another directory with -o, or restore these settings to continue.",
                self.dir,
            )

    def _refuse_foreign(self, plan: Plan, status: Mapping[Cell, int]) -> None:
        ids = {p.point_id for p in plan.points}
        if not status or any(c.point_id in ids for c in status):
            return
        lines = ["no point of the sweep is the same"]
        with contextlib.suppress(ResultsError):
            old = read_json(self.dir / "config.resolved.json")
            lines = diff_trees(old.get("base", {}), resolved(plan)["base"]) or lines
        more = [f"and {len(lines) - 12} more"] if len(lines) > 12 else []
        shown = "\n".join(f"  {line}" for line in lines[:12] + more)
        raise ResultsError(
            f"holds results of a different job:\n{shown}\n"
            "Choose another directory with -o, or move this one away.",
            self.dir,
        )


def quarantine(path: Path) -> None:
    """Set an unreadable shard aside; its cells count as missing from then on."""
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(".unreadable"))


def _merge(
    status: dict[Cell, int], attempts: dict[Cell, int], cells: Iterable[Cell], codes: Iterable[int]
) -> None:
    for cell, code in zip(cells, codes, strict=True):
        attempts[cell] = attempts.get(cell, 0) + 1
        if status.get(cell) != OK:
            status[cell] = code


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as f:
        f.seek(-1, os.SEEK_END)
        return f.read(1)


def settled(status: Mapping[Cell, int], *, retry_failed: bool = False) -> set[Cell]:
    """Cells that need not run: a simulation error is deterministic and stays unless asked otherwise."""
    keep = (OK,) if retry_failed else SETTLED
    return {c for c, code in status.items() if code in keep}


def count(plan: Plan, status: Mapping[Cell, int]) -> dict[str, int]:
    """Cells of the plan that are ok, failed and not there yet."""
    codes = [status.get(c) for c in plan.cells]
    ok = sum(c == OK for c in codes)
    failed = sum(c is not None and c >= FAILED for c in codes)
    return {"total": len(codes), "ok": ok, "failed": failed, "missing": len(codes) - ok - failed}


def resolved(plan: Plan) -> dict[str, Any]:
    """The job as understood: the first point in full, then what each point sets."""
    base = plan.points[0]
    return {
        "base": base.scenario.canonical(),
        "points": [
            {"point_id": f"{p.point_id:016x}", "baseline": p.baseline, "values": p.design.values}
            for p in plan.points
        ],
    }


def diff_trees(old: Any, new: Any, path: str = "") -> list[str]:
    """Leaves that differ between two trees, one line each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = dict.fromkeys([*old, *new])
        return [
            line
            for k in keys
            for line in diff_trees(old.get(k), new.get(k), f"{path}.{k}" if path else str(k))
        ]
    return [] if old == new else [f"{path}: {json.dumps(old)} there, {json.dumps(new)} now"]


def identity(plan: Plan) -> dict[str, Any]:
    """The settings that all results of one directory share."""
    return {
        "format": FORMAT,
        "model_version": plan.model_version,
        "root_seed": plan.seed,
        "output_level": plan.level,
    }


def make_manifest(plan: Plan, job: Any, command: str) -> dict[str, Any]:
    """Who made these results, from what and with what."""
    return {
        **identity(plan),
        "name": plan.name,
        "n_points": len(plan.points),
        "replicates": plan.replicates,
        "config_path": str(job.path or ""),
        "overrides": list(job.overrides),
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": hostname(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "versions": {
            n: _version(n) for n in ("spbfast", "numba", "numpy", "xarray", "netCDF4", "distributed")
        },
        **_git(),
    }


def _version(name: str) -> str:
    if name == "spbfast":
        import spbfast

        return spbfast.__version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any]:
    """Commit of the source tree this package runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"git_sha": "", "git_dirty": False}

    def ask(*args: str) -> str:
        try:
            done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    sha = ask("rev-parse", "HEAD")
    return {"git_sha": sha, "git_dirty": bool(ask("status", "--porcelain", "--untracked-files=no"))}


def default_command() -> str:
    """This process's command line, for provenance and the resume hint."""
    import shlex

    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv and sys.argv[0] else "python"
