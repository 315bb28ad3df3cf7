"""Damaged files of results directories, of runs and of the compile cache: an error or the truth, soon.

`python -m tests.fuzz_damage --minutes 10` runs for that long with new seeds; test_fuzz_damage.py runs some.
Files are cut, flipped, zeroed, emptied, swapped and replaced by directories. Whatever reads them then gives
the right numbers or an error meant for users; the sweep's own command, after a repair if need be, brings
everything back to the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

from spbfast.cli.repair import check_directory, repair_directory
from spbfast.errors import SpbfastError
from spbfast.jit import decorators, kernelcache
from spbfast.results.effects import steps
from spbfast.results.export import export_results
from spbfast.results.open import open_results
from spbfast.sweep import consolidate, results_digest, run_sweep
from spbfast.sweep.run.rerun import rerun
from spbfast.sweep.store.view import look
from tests.damage_tools import DAMAGES
from tests.sweep_tools import ENGINE, make_job

SECONDS_MAX = 60
FILES = ("shards/??/*.nc", "journal.jsonl", "results.nc", "points.nc", "manifest.json", "status.json")
Check = Callable[[random.Random], None]


class TooLongError(Exception):
    """An operation on damaged files that did not end."""


@contextlib.contextmanager
def soon(seconds: int = SECONDS_MAX) -> Iterator[None]:
    """Raise TooLongError when something takes longer."""

    def ring(*_: Any) -> None:
        raise TooLongError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Sweeps:
    """A finished sweep, and what is true of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = make_job(folder, "executor.batch=2")
        run_sweep(self.job, folder / "whole", engine=ENGINE, quiet=True)
        self.digest = results_digest(folder / "whole")
        self.truth = open_results(folder / "whole").load()

    def check(self, rng: random.Random) -> None:
        """Damage some files of a copy; read it in every way; bring it back."""
        out = self.folder / "copy"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(self.folder / "whole", out)
        for path in self._victims(out, rng):
            DAMAGES[rng.choice(sorted(DAMAGES))](path, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            readers = [self._look, self._open, self._consolidate, self._doctor, self._rerun, self._export]
            for read in rng.sample(readers, rng.randrange(1, len(readers))):
                with contextlib.suppress(SpbfastError):
                    read(out)
            self._recover(out)

    @staticmethod
    def _victims(out: Path, rng: random.Random) -> list[Path]:
        found = [p for pattern in FILES for p in sorted(out.glob(pattern))]
        weights = [1 if p.parent.parent.name == "shards" else 2 for p in found]
        return list(dict.fromkeys(rng.choices(found, weights, k=rng.choice((1, 1, 2, 4)))))

    def _look(self, out: Path) -> None:
        found = look(out)
        assert found.ok + found.failed + found.missing == found.runs
        assert found.failed == 0

    def _open(self, out: Path) -> None:
        ds = open_results(out)
        self._compare(ds)
        with contextlib.suppress(SpbfastError):
            steps(ds, ["spb_tainted"])

    def _compare(self, ds: Any) -> None:
        """Every run that is said to be ok has the numbers that it had, at the same values of the keys."""
        rows = {str(p): i for i, p in enumerate(self.truth.point_id.values)}
        for i, point in enumerate(ds.point_id.values.tolist()):
            true = self.truth.isel(point=rows[point])
            for name in ("policy_slab_shrink_throttle", "policy_slab_shrink_target_objs", "is_baseline"):
                assert ds[name].values[i] == true[name].values, name
            for replicate in np.flatnonzero(ds.status.values[i] == 0).tolist():
                for name in ("spb_tainted", "slab_pages", "digest", "vmstat"):
                    here, there = ds[name].values[i][replicate], true[name].values[replicate]
                    assert np.array_equal(here, there), name
            assert set(ds.status.values[i].tolist()) <= {0, 5}

    def _consolidate(self, out: Path) -> None:
        consolidate(out)
        self._compare(open_results(out))

    def _doctor(self, out: Path) -> None:
        assert list(check_directory(out))

    def _rerun(self, out: Path) -> None:
        assert rerun(out, str(self.truth.point_id.values[0]), engine=ENGINE).same is not False

    def _export(self, out: Path) -> None:
        target = self.folder / "table.csv"
        target.unlink(missing_ok=True)
        export_results(out, "csv", target)

    def _recover(self, out: Path) -> None:
        """The sweep's own command; where that is refused, a repair, or a place without directories in it."""
        for attempt in range(3):
            try:
                assert run_sweep(self.job, out, engine=ENGINE, quiet=True).exit_code == 0
                break
            except SpbfastError:
                if attempt == 2:
                    raise
                _remove_directories(out)
                with contextlib.suppress(SpbfastError):
                    repair_directory(out, ENGINE)
        assert results_digest(out) == self.digest
        self._compare(open_results(out))


def _remove_directories(out: Path) -> None:
    """What a message asks of a user who has a directory where a file should be."""
    for name in ("manifest.json", "journal.jsonl", "results.nc", "points.nc", "status.json"):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
            if name == "manifest.json":
                (out / name).write_text("")


KERNELS = """
from spbfast.jit.decorators import entry_kernel

@entry_kernel
def add(a, b):
    return a + b

@entry_kernel
def subtract(a, b):
    return a - b
"""


class Kernels:
    """Two kernels in a compile cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "cache" / "version"
        self.place.mkdir(parents=True)
        (folder / "fuzzed_kernels.py").write_text(KERNELS)
        decorators.CACHE_DIR = self.place
        numba.core.config.CACHE_DIR = str(self.place)
        self._run()

    def _load(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location("fuzzed_kernels", self.folder / "fuzzed_kernels.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _run(self) -> int:
        module = self._load()
        assert (module.add(5, 3), module.subtract(5, 3)) == (8, 2)
        return sum(sum(k.stats.cache_hits.values()) for k in (module.add, module.subtract))

    def check(self, rng: random.Random) -> None:
        """Damage entries; the kernels give the same numbers, and the cache is whole afterwards."""
        files = sorted(p for p in self.place.glob("*/*.nb[ci]"))
        for path in rng.sample(files, rng.choice((1, 1, 2))):
            DAMAGES[rng.choice(sorted(DAMAGES))](path, rng)
        self._run()
        assert kernelcache.damaged_entries(self.place) == []
        assert self._run() == 2


def run(check: Check, seed: int) -> str:
    """One example; what went wrong, "" if nothing did."""
    try:
        with soon():
            check(random.Random(seed))
    except Exception:
        return traceback.format_exc()
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="this example alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        (sweeps := Path(name) / "sweeps").mkdir()
        (kernels := Path(name) / "kernels").mkdir()
        checks = [Sweeps(sweeps).check]
        if not decorators.INTERPRETED:
            checks.append(Kernels(kernels).check)
        first = time.time_ns() if given.seed is None else given.seed
        end, nr, bad = time.monotonic() + 60 * given.minutes, 0, 0
        while time.monotonic() < end and (given.seed is None or nr < 1):
            for check in checks:
                if said := run(check, first + nr):
                    bad += 1
                    print(f"seed {first + nr}: {said}", flush=True)
            nr += 1
    print(json.dumps({"examples": nr * len(checks), "wrong": bad}))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
