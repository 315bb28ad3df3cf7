"""Is this installation, this machine and this results directory in order?

Owns the checks of `spbfast doctor` and the repair of a results directory: the journal made anew from the
shards, unreadable shards set aside, leftovers removed, results.nc written again. Repair holds the
directory's lock and deletes nothing that anybody wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from spbfast import __version__
from spbfast.errors import ResultsError

GOOD, CAUTION, BAD = "ok", "warning", "problem"
SPACE_MIN = 100 << 20
PACKAGES = ("numba", "numpy", "xarray", "dask", "distributed", "netCDF4", "pydantic", "scipy")
EXTRAS = ("matplotlib", "zarr", "dask-jobqueue", "SALib", "pyarrow", "bokeh")


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, how it is, and what to do if it is not well."""

    what: str
    level: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.level:<8} {self.what}: {self.text}{advice}"


def check_installation() -> Iterator[Finding]:
    """Versions, cache, processors, memory, netCDF: one finding each."""
    yield Finding(
        "spbfast", GOOD, f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    yield from _guarded("packages", _packages)
    yield from _guarded("kernel cache", _cache)
    yield from _guarded("processors", _processors)
    yield from _guarded("memory", _memory)
    with tempfile.TemporaryDirectory(prefix="spbfast-") as scratch:
        yield from _guarded("netCDF", lambda: _netcdf(Path(scratch)))


def _guarded(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; one that breaks is a finding too."""
    try:
        yield from list(check())
    except Exception as error:  # a check must not end the examination
        yield Finding(what, BAD, f"{type(error).__name__}: {error}")


def _packages() -> Iterator[Finding]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding("packages", BAD, f"missing: {', '.join(missing)}", "install them: pip install spbfast")
    yield Finding("packages", GOOD, ", ".join(found))
    extras = []
    for name in EXTRAS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            extras.append(f"{name} {metadata.version(name)}")
    yield Finding("optional packages", GOOD, ", ".join(extras) or "none")


def _cache() -> Iterator[Finding]:
    from spbfast.jit import decorators

    if decorators.INTERPRETED:
        yield Finding("kernel cache", CAUTION, "kernels are interpreted", "unset NUMBA_DISABLE_JIT for speed")
        return
    if decorators.CACHE_DIR is None:
        advice = "set SPBFAST_CACHE_DIR to a directory of your own that can be written"
        yield Finding("kernel cache", CAUTION, "no place can be written, so every start compiles", advice)
        return
    probe = decorators.CACHE_DIR / f".probe.{uuid.uuid4().hex}.tmp"
    probe.write_bytes(b"x")
    probe.unlink()
    size = sum(p.stat().st_size for p in decorators.CACHE_DIR.rglob("*") if p.is_file())
    filled = "compiled" if size else "empty; `spbfast warmup` fills it"
    free = shutil.disk_usage(decorators.CACHE_DIR).free
    level = GOOD if free > SPACE_MIN else CAUTION
    yield Finding(
        "kernel cache", level, f"{decorators.CACHE_DIR}, {size >> 20} MiB ({filled}), {free >> 30} GiB free"
    )


def _processors() -> Iterator[Finding]:
    from spbfast.sweep.pools.limits import usable_cpus

    usable, all_ = usable_cpus(), os.cpu_count() or 1
    names = ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    told = ", ".join(f"{n}={os.environ[n]}" for n in names if n in os.environ)
    text = f"{usable} usable of {all_} (affinity, control group, batch system)"
    yield Finding("processors", GOOD, text + (f"; {told}" if told else ""))


def _memory() -> Iterator[Finding]:
    from spbfast.sweep.pools.limits import usable_memory

    free = usable_memory()
    level = GOOD if free > 2 << 30 else CAUTION
    advice = "" if level == GOOD else "a run of the 247 GB machine needs 1.1 GB"
    yield Finding("memory", level, f"{free / 2**30:.1f} GiB free for this process", advice)


def _netcdf(directory: Path) -> Iterator[Finding]:
    """Write and read a small file the way workers do."""
    import netCDF4
    import numpy as np

    from spbfast.sweep.store.atomic import NETCDF_LOCK, atomic_file

    path = directory / f"spbfast-probe-{uuid.uuid4().hex}.nc"
    values = np.arange(1000, dtype="i8")
    try:
        with atomic_file(path) as tmp, NETCDF_LOCK, netCDF4.Dataset(str(tmp), "w", format="NETCDF4") as nc:
            nc.createDimension("x", len(values))
            nc.createVariable("v", "i8", ("x",), compression="zlib")[:] = values
        with NETCDF_LOCK, netCDF4.Dataset(str(path), "r") as nc:
            same = bool((nc["v"][:] == values).all())
    finally:
        path.unlink(missing_ok=True)
    libraries = f"netCDF {netCDF4.__netcdf4libversion__}, HDF5 {netCDF4.__hdf5libversion__}"
    level = GOOD if same else BAD
    yield Finding(
        "netCDF", level, f"{libraries}: a file {'came' if same else 'did not come'} back as it was written"
    )


# -- a results directory ---------------------------------------------------------------------------------


def check_directory(directory: str | Path) -> Iterator[Finding]:
    """The file system under a results directory, and whether its parts agree; changes nothing.

    Raises
    ------
    ResultsError
        When it is not a results directory.
    """
    from spbfast.sweep.store.directory import Store

    store = Store(directory)
    store.manifest()
    yield from _guarded("file system", lambda: _file_system(store.dir))
    yield from _guarded("inputs", lambda: _inputs(store))
    yield from _guarded("shards", lambda: _shards(store))
    yield from _guarded("results.nc", lambda: _results(store))


def _file_system(directory: Path) -> Iterator[Finding]:
    if not os.access(directory, os.W_OK):
        yield Finding(
            "file system", CAUTION, f"{directory} is read-only for you; it can be read, not continued"
        )
        return
    free = shutil.disk_usage(directory).free
    level = GOOD if free > SPACE_MIN else BAD
    yield Finding("file system", level, f"{free / 1e9:.1f} GB free", "" if level == GOOD else "make room")
    with tempfile.TemporaryDirectory(prefix=".doctor-", suffix=".tmp", dir=directory) as scratch:
        yield from _exclusive(Path(scratch))
        yield from _netcdf(Path(scratch))


def _exclusive(directory: Path) -> Iterator[Finding]:
    """What the lock of a directory rests on: exclusive creation and rename."""
    probe = directory / "lock"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        os.rename(probe, directory / "grave")
        if not probe.exists():
            yield Finding("locks", GOOD, "exclusive creation and rename work")
            return
    yield Finding(
        "locks", BAD, "exclusive creation does not work here", "use another file system for results"
    )


def _inputs(store: Any) -> Iterator[Finding]:
    from spbfast.errors import ConfigError
    from spbfast.sweep.store.inputs import load_stored
    from spbfast.sweep.store.pointtable import read_points

    try:
        job = load_stored(store.dir)
        yield Finding("configuration", GOOD, f"{job.name}, can be continued: spbfast resume {store.dir}")
    except (ResultsError, ConfigError) as error:
        first = str(error).splitlines()[0]
        yield Finding("configuration", CAUTION, first, "results can be read but not resumed from here")
    points = read_points(store.points_path)
    yield Finding("points", GOOD, f"{len(points.point_id)} points")


def _shards(store: Any) -> Iterator[Finding]:
    from spbfast.sweep.store.atomic import is_leftover
    from spbfast.sweep.store.shards import read_shard

    listed = {str(r["batch"]) for r in _journal_lines(store)}
    paths = {p.stem: p for p in sorted(store.shards.glob("??/*.nc"))}
    broken = []
    for path in paths.values():
        try:
            read_shard(path, data=False)
        except ResultsError:
            broken.append(path)
    repair = "spbfast doctor DIR --repair sets things right"
    if broken:
        text = f"{len(broken)} of {len(paths)} cannot be read, such as {broken[0].name}; their runs go again"
        yield Finding("shards", BAD, text, repair)
    else:
        yield Finding("shards", GOOD, f"{len(paths)}, all readable")
    gone, unknown = len(listed - set(paths)), len(set(paths) - listed)
    if gone or unknown:
        text = f"the journal names {gone} shards that are gone and lacks {unknown}"
        yield Finding("journal", CAUTION, text, repair)
    else:
        yield Finding("journal", GOOD, f"{len(listed)} batches")
    left = [p for p in store.dir.rglob(".*.tmp") if is_leftover(p)]
    if left:
        yield Finding("leftovers", CAUTION, f"{len(left)} unfinished files of drivers or workers", repair)
    aside = list(store.shards.glob("??/*.unreadable"))
    if aside:
        yield Finding("set aside", CAUTION, f"{len(aside)} unreadable shards were set aside before")


def _journal_lines(store: Any) -> Iterator[dict[str, Any]]:
    """Whole lines of all journals, whether or not their shard is there."""
    for path in sorted(store.dir.glob("journal*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "batch" in found:
                    yield found


def _results(store: Any) -> Iterator[Finding]:
    if not store.results_path.exists():
        advice = "spbfast consolidate makes it"
        yield Finding("results.nc", CAUTION, "is not there; shards are read instead", advice)
        return
    import warnings

    from spbfast.results.open import open_results

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_results(store.results_path, load=False) as ds:
            text = f"{ds.sizes['point']} points x {ds.sizes['replicate']} replicates, "
            text += f"{ds.attrs.get('n_failed', 0)} failed, {ds.attrs.get('n_missing', 0)} missing"
    yield Finding("results.nc", GOOD, text)


def repair_directory(directory: str | Path) -> list[str]:
    """Set a results directory right; returns what was done, one line each.

    Raises
    ------
    ResultsError
        When it is not a results directory, a driver holds it, or it cannot be written.
    """
    from spbfast.sweep.store.atomic import remove_leftovers
    from spbfast.sweep.store.consolidate import consolidate
    from spbfast.sweep.store.directory import Store, quarantine
    from spbfast.sweep.store.lock import DirectoryLock
    from spbfast.sweep.store.shards import read_shard

    store = Store(directory)
    store.manifest()
    done = []
    with DirectoryLock(store.dir):
        n = remove_leftovers(store.dir)
        done += [f"removed {n} unfinished files"] if n else []
        for path in sorted(store.shards.glob("??/*.nc")):
            try:
                read_shard(path, data=False)
            except ResultsError:
                quarantine(path)
                done.append(f"set {path.name} aside as {path.with_suffix('.unreadable').name}")
        done += _rebuild_journal(store)
        consolidate(store.dir)
        done.append(f"wrote {store.results_path}")
    return done


def _rebuild_journal(store: Any) -> list[str]:
    """A journal with one line for every shard: what was known of it, or what it says itself."""
    known = {str(r["batch"]): r for r in store.receipts()}
    shards = {p.stem for p in store.shards.glob("??/*.nc")}
    lines = {str(r["batch"]) for r in _journal_lines(store)}
    if lines == shards == set(known):
        return []
    for path in sorted(store.dir.glob("journal*.jsonl")):
        kept = path.with_name(f"{path.name}.old")
        n = 1
        while kept.exists():
            n += 1
            kept = path.with_name(f"{path.name}.old{n}")
        os.replace(path, kept)
    for receipt in known.values():
        cells = receipt.pop("cells")
        from spbfast.sweep.points.plan import Cell

        store.append(receipt, map(Cell.parse, cells))
    store.scan()
    return [f"made the journal anew from {len(shards)} shards; the old one is kept beside it"]


def worst(findings: list[Finding]) -> str:
    """The worst level found."""
    levels = {f.level for f in findings}
    return next(level for level in (BAD, CAUTION, GOOD) if level in levels or level == GOOD)


def versions() -> dict[str, Any]:
    """Versions of spbfast and of what its results depend on; None for what is not installed."""
    found: dict[str, Any] = {"spbfast": __version__, "python": sys.version.split()[0]}
    for name in ("numba", "llvmlite", "numpy", "xarray", "dask", "distributed", "netcdf4", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
