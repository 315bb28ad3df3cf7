"""The results directory: its layout, and which jobs may write into it.

Owns the paths (manifest.json, config.yaml, config.base.yaml, config.resolved.json, points.nc, shards/,
journal.jsonl, status.json, failures/), the rule that decides which jobs may share a directory, and the record
of which cells are done. The journal is a fast index; the shards are the truth. lock.py keeps it to one driver
at a time.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.sweep.points.plan import Cell, Plan
from spbfast.sweep.store.atomic import (
    atomic_file,
    is_leftover,
    read_json,
    remove_leftovers,
    write_failed,
)
from spbfast.sweep.store.checkedjson import read_checked, write_checked
from spbfast.sweep.store.halfway import halfway_runs
from spbfast.sweep.store.inputs import write_inputs
from spbfast.sweep.store.manifest import (
    IDENTITY,
    diff_trees,
    identity,
    make_manifest,
    plan_digest,
    resolved_point,
)
from spbfast.sweep.store.origins import UNKNOWN, refuse_other_sources, sources_here, sources_of
from spbfast.sweep.store.pointtable import write_points
from spbfast.sweep.store.receipts import receipt_in, summed_line
from spbfast.sweep.store.shards import FAILED, OK, SETTLED, fault_of, read_shard

# What may lie in a directory before it has a manifest.
_OURS = re.compile(r"lock(\.[0-9]+-of-[0-9]+)?|logs|running")


class Store:
    """Paths and bookkeeping of one results directory.

    Parameters
    ----------
    directory : path
        Created by `open_for`; may exist.
    share : str
        K-of-N for a task of a job array, which keeps a journal and a status of its own.
    """

    def __init__(self, directory: str | Path, share: str = "") -> None:
        self.dir = Path(directory)
        self.share = share
        mark = f".{share}" if share else ""
        self.manifest_path = self.dir / "manifest.json"
        self.points_path = self.dir / "points.nc"
        self.results_path = self.dir / "results.nc"
        self.report_path = self.dir / "report.html"
        self.journal_path = self.dir / f"journal{mark}.jsonl"
        self.status_path = self.dir / f"status{mark}.json"
        self.shards = self.dir / "shards"
        self.failures = self.dir / "failures"
        self.running = self.dir / "running"
        self.log_path = self.dir / "logs" / f"sweep{mark}.log"
        self.set_aside: dict[Path, str] = {}
        self.remarks: list[str] = []
        self.sources: set[str] = set()

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
            When this is not a results directory, or the manifest is damaged.
        """
        if not self.manifest_path.is_file():
            raise ResultsError("not a results directory: it has no manifest.json", self.dir)
        try:
            found = read_checked(self.manifest_path)
            if "model_version" not in found:
                raise ResultsError("is damaged: it does not say of which model version it is")
            return found
        except ResultsError as err:
            text = f"{err.message}; spbfast doctor {self.dir} --repair makes it anew"
            raise ResultsError(text, self.manifest_path) from err

    # -- the journal ---------------------------------------------------------------------------------

    def append(self, receipt: Mapping[str, Any], cells: Iterable[Cell]) -> None:
        """Add one finished batch to the journal."""
        whole = {"sources": sources_here(), **receipt, "cells": [str(c) for c in cells]}
        line = summed_line(whole)
        try:
            with open(self.journal_path, "ab") as f:
                # A driver killed in the middle of a line must not spoil the next one.
                torn = f.tell() > 0 and _last_byte(self.journal_path) != b"\n"
                f.write((b"\n" if torn else b"") + line.encode() + b"\n")
        except OSError as err:
            raise write_failed(err, self.journal_path) from err

    def receipts(self) -> Iterator[dict[str, Any]]:
        """Whole lines of all journals whose shard exists; oldest first within each journal."""
        for line in self._lines():
            receipt = receipt_in(line)
            if receipt is not None and self.shard_path(receipt["batch"]).is_file():
                yield receipt

    def _lines(self) -> Iterator[str]:
        for path in sorted(self.dir.glob("journal*.jsonl")):
            if not path.is_file():  # a named pipe would keep us waiting for ever
                continue
            with (
                contextlib.suppress(FileNotFoundError),
                open(path, encoding="utf-8", errors="replace") as f,
            ):
                yield from f

    def shard_paths(self) -> list[Path]:
        """All shards, by name."""
        return sorted(self.shards.glob("??/*.nc"))

    def failure_paths(self) -> list[Path]:
        """All accounts of failed cells, by name."""
        return sorted(self.failures.glob("*.json"))

    def scan(self) -> tuple[dict[Cell, int], dict[Cell, int]]:
        """Status of every cell that any shard holds, and how often each was tried.

        Shards that the journal lacks (the driver died between rename and journal) are read and added to
        it. Damaged ones are set aside and noted in `set_aside`, so that their cells run again. A task of an
        array looks for shards that the journal lacks only when it is continued, since the newest belong to
        the other tasks, and leaves the seals of all to the consolidation.
        """
        if not self.share:
            self._set_damaged_aside()
        status: dict[Cell, int] = {}
        attempts: Counter[Cell] = Counter()
        known = set()
        for receipt in self.receipts():
            known.add(receipt["batch"])
            self.sources.add(str(receipt.get("sources", UNKNOWN)))
            cells = [Cell.parse(text) for text in receipt["cells"]]
            take_better(status, cells, map(int, receipt["statuses"]))
            attempts.update(cells)
        for path in self.shard_paths() if not self.share or self.journal_path.exists() else []:
            if path.stem in known:
                continue
            try:
                shard = read_shard(path, data=False)
            except ResultsError as err:
                self.set_aside[path] = err.message
                quarantine(path)
                continue
            codes = shard.facts["status"].tolist()
            made = sources_of(shard.facts["source_hash"].tolist())
            statuses = "".join(map(str, codes))
            receipt = {"batch": path.stem, "statuses": statuses, "sources": made, "found": True}
            self.append(receipt, shard.cells)
            self.sources.add(made)
            take_better(status, shard.cells, codes)
            attempts.update(shard.cells)
        return status, attempts

    def _set_damaged_aside(self) -> None:
        for path in self.shard_paths():
            if why := fault_of(path):
                self.set_aside[path] = why
                quarantine(path)

    # -- starting or continuing a sweep --------------------------------------------------------------

    def open_for(
        self,
        plan: Plan,
        job: Any,
        command: str,
        *,
        retry_failed: bool = False,
        allow_changed_sources: bool = False,
    ) -> tuple[dict[Cell, int], dict[Cell, int]]:
        """Make the directory ready for `plan` and say what it already holds, as `scan` does.

        Where nothing is left to do, every file stays as it is. What a user should know of what is here is
        then in `remarks`.

        Raises
        ------
        ResultsError
            When the directory holds something else: results of another model version, seed, output level
            or of scenarios that have nothing in common with this job; and, unless allowed, when runs are
            left to do and those that are here were made by other sources of the kernels.
        """
        old: dict[str, Any] | None = None
        status: dict[Cell, int] = {}
        attempts: dict[Cell, int] = {}
        if self.manifest_path.exists() or not self._is_free():
            old = self.manifest()
            self.refuse_identity(plan)
            status, attempts = self.scan()
            for path, why in self.set_aside.items():
                self.remarks.append(f"set aside {path.name}, which {why}; its runs go again")
            self._refuse_foreign(plan, status)
            # Another task of the array may have written all this; a thousand of them need not do it again.
            known = old.get("plan") == plan_digest(plan)
            is_done = settled(status, retry_failed=retry_failed) >= set(plan.cells())
            if not is_done and not allow_changed_sources:
                begun = {run.sources for run in halfway_runs(self.dir, status)}
                refuse_other_sources(self.sources | begun, self.dir)
            if known and (self.share or is_done):
                return status, attempts
        if not self.share:
            remove_leftovers(self.dir)
        manifest = make_manifest(plan, job, command, old)
        manifest["replicates_kept"] = self._remark_on_more(plan, status)
        # The manifest goes first: it is what makes the directory ours, should we be killed in between. It
        # goes again at the end, when its mark of the plan is true.
        write_checked(self.manifest_path, manifest | {"plan": ""})
        write_inputs(self.dir, job)
        write_resolved(self.dir / "config.resolved.json", plan)
        write_points(self.points_path, plan)
        write_checked(self.manifest_path, manifest)
        return status, attempts

    def _remark_on_more(self, plan: Plan, status: Mapping[Cell, int]) -> int:
        """Note which finished runs the job leaves out; how many replicates results.nc keeps."""
        ids = set(plan.ids.tolist())
        further = [c.replicate for c in status if c.point_id in ids and c.replicate >= plan.replicates]
        if further:
            self.remarks.append(
                f"the job has {plan.replicates} replicates; {len(further)} finished runs of further "
                f"replicates are here and stay in {self.results_path.name}"
            )
        gone = [c.point_id for c in status if c.point_id not in ids]
        if gone:
            self.remarks.append(
                f"{len(gone)} finished runs belong to {len(set(gone))} points that this job does not have: "
                f"they stay in {self.shards}, and {self.results_path.name} leaves them out; a job with these "
                "points has them again"
            )
        return 1 + max(further, default=plan.replicates - 1)

    def is_current(self, path: Path) -> bool:
        """Whether a file was written after everything that these results consist of."""
        try:
            made = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        parts = (self.manifest_path, *self.dir.glob("journal*.jsonl"))
        return all(part.stat().st_mtime_ns <= made for part in parts)

    def move_aside(self) -> Path | None:
        """Rename the directory if it holds results; returns its new name. The caller has seen its lock.

        Raises
        ------
        StorageError
            When it cannot be renamed.
        """
        if not self.manifest_path.is_file():
            return None
        names = (self.dir.with_name(f"{self.dir.name}.old{n}") for n in itertools.count(1))
        target = next(name for name in names if not name.exists())
        try:
            self.dir.rename(target)
        except OSError as err:
            raise write_failed(err, self.dir, "cannot move aside") from err
        return target

    def _is_free(self) -> bool:
        """Whether nothing is here; False when another task of the array was faster than us.

        Raises
        ------
        ResultsError
            When somebody else's files are here.
        """
        if not self.dir.exists():
            return True
        if not self.dir.is_dir():
            raise ResultsError("is a file, not a directory; choose another one with -o", self.dir)
        others = [p.name for p in self.dir.iterdir() if not _OURS.fullmatch(p.name) and not is_leftover(p)]
        if others and not self.manifest_path.exists():
            shown = ", ".join(sorted(others)[:5])
            raise ResultsError(
                f"holds other files ({shown}) and no manifest.json; choose an empty directory with -o",
                self.dir,
            )
        return not others

    def refuse_identity(self, plan: Plan) -> None:
        """Raise ResultsError when the directory's results cannot be continued by `plan`."""
        old, new = self.manifest(), identity(plan)
        diff = [f"  {k}: {old.get(k)} there, {new[k]} now" for k in IDENTITY if old.get(k) != new[k]]
        if diff:
            raise ResultsError(
                "holds results that cannot be continued by this job:\n"
                + "\n".join(diff)
                + "\nChoose another directory with -o, restore these settings to continue, or give "
                "--force-new, which moves the old results aside.",
                self.dir,
            )

    def _refuse_foreign(self, plan: Plan, status: Mapping[Cell, int]) -> None:
        ids = set(plan.ids.tolist())
        if not status or any(c.point_id in ids for c in status):
            return
        lines = ["no point of the sweep is the same"]
        with contextlib.suppress(ResultsError):
            old = read_json(self.dir / "config.resolved.json")
            lines = diff_trees(old.get("base", {}), plan.scenario(0).canonical()) or lines
        more = [f"and {len(lines) - 12} more"] if len(lines) > 12 else []
        shown = "\n".join(f"  {line}" for line in lines[:12] + more)
        raise ResultsError(
            f"holds results of a different job:\n{shown}\n"
            "Choose another directory with -o, or give --force-new, which moves the old results aside.",
            self.dir,
        )


def write_resolved(path: Path, plan: Plan) -> None:
    """The job as understood, as JSON: the first point in full, then what each point sets, one per line."""
    with atomic_file(path) as tmp, open(tmp, "w", encoding="utf-8") as f:
        f.write('{\n "base": ' + json.dumps(plan.scenario(0).canonical()) + ',\n "points": [')
        for i, point in enumerate(plan.points):
            f.write((",\n  " if i else "\n  ") + json.dumps(resolved_point(point), default=str))
        f.write("\n ]\n}\n")


def quarantine(path: Path) -> None:
    """Set a damaged shard aside; its cells count as missing from then on."""
    names = (path.with_suffix(f".unreadable{n or ''}") for n in itertools.count())
    with contextlib.suppress(OSError):
        path.rename(next(name for name in names if not name.exists()))


def take_better(status: dict[Cell, int], cells: Iterable[Cell], codes: Iterable[int]) -> None:
    """Note how these runs ended, unless they are known to have succeeded."""
    for cell, code in zip(cells, codes, strict=True):
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


def count(cells: Iterable[Cell], status: Mapping[Cell, int]) -> dict[str, int]:
    """Cells that are ok, failed and not there yet."""
    codes = [status.get(c) for c in cells]
    ok = sum(c == OK for c in codes)
    failed = sum(c is not None and c >= FAILED for c in codes)
    return {"total": len(codes), "ok": ok, "failed": failed, "missing": len(codes) - ok - failed}
