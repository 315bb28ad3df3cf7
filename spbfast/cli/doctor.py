"""Are this installation and this machine in order?

Owns the findings of `spbfast doctor` about packages, kernel cache, processors, memory and netCDF. A results
directory is examined and repaired by repair.py.
"""

from __future__ import annotations

import contextlib
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
from spbfast.cli.versions import advice, unfit_packages
from spbfast.text import format_bytes, format_seconds

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
    yield from guarded("packages", _packages)
    yield from guarded("kernel cache", _cache)
    yield from guarded("processors", _processors)
    yield from guarded("memory", _memory)
    with tempfile.TemporaryDirectory(prefix="spbfast-") as scratch:
        yield from guarded("netCDF", lambda: check_netcdf(Path(scratch)))


def guarded(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; a check that breaks is a finding, too."""
    try:
        yield from list(check())
    except Exception as error:  # one broken check must not end the examination
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
    unfit = unfit_packages()
    if unfit:
        text = ", ".join(f"{have} is installed, {needed} is needed" for have, needed in unfit)
        yield Finding("packages", BAD, text, advice(unfit))
    yield Finding("packages", GOOD if not unfit else CAUTION, ", ".join(found))
    extras = []
    for name in EXTRAS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            extras.append(f"{name} {metadata.version(name)}")
    yield Finding("optional packages", GOOD, ", ".join(extras) or "none")


def _cache() -> Iterator[Finding]:
    from spbfast.jit import decorators
    from spbfast.jit.kernelcache import VARIABLE, damaged_entries, why_not_kept
    from spbfast.model.engine import warmup

    if decorators.INTERPRETED:
        yield Finding("kernel cache", CAUTION, "kernels are interpreted", "unset NUMBA_DISABLE_JIT for speed")
        return
    if decorators.CACHE_DIR is None:
        advice = f"set {VARIABLE} to a directory of your own that can be written"
        why = why_not_kept()
        text = f"every start compiles, because nothing can be kept: {why}"
        yield Finding("kernel cache", CAUTION, text, advice)
        return
    probe = decorators.CACHE_DIR / f".probe.{uuid.uuid4().hex}.tmp"
    probe.write_bytes(b"x")
    probe.unlink()
    size = sum(p.stat().st_size for p in decorators.CACHE_DIR.rglob("*") if p.is_file())
    damaged = damaged_entries(decorators.CACHE_DIR)
    filled = f"loaded in {format_seconds(warmup())}" if size else "empty; `spbfast warmup` fills it"
    if damaged:
        text = f"{len(damaged)} entries were damaged and have been compiled anew, such as {damaged[0]}"
        yield Finding("kernel cache", CAUTION, text, "is the disk sound?")
    free = shutil.disk_usage(decorators.CACHE_DIR).free
    level = GOOD if free > SPACE_MIN else CAUTION
    sizes = f"{format_bytes(size)} ({filled}), {format_bytes(free)} free"
    yield Finding("kernel cache", level, f"{decorators.CACHE_DIR}, {sizes}")


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
    yield Finding("memory", level, f"{format_bytes(free)} free for this process", advice)


def check_netcdf(directory: Path) -> Iterator[Finding]:
    """Write and read a small file the way workers do."""
    import numpy as np

    from spbfast.sweep.store.atomic import atomic_file
    from spbfast.sweep.store.netcdf import NETCDF_LOCK, library_versions, open_netcdf

    path = directory / f"spbfast-probe-{uuid.uuid4().hex}.nc"
    values = np.arange(1000, dtype="i8")
    try:
        with atomic_file(path) as tmp, NETCDF_LOCK, open_netcdf(tmp, "w") as nc:
            nc.createDimension("x", len(values))
            nc.createVariable("v", "i8", ("x",), compression="zlib")[:] = values
        with NETCDF_LOCK, open_netcdf(path) as nc:
            same = bool((nc["v"][:] == values).all())
    finally:
        path.unlink(missing_ok=True)
    level = GOOD if same else BAD
    yield Finding(
        "netCDF",
        level,
        f"{library_versions()}: a file {'came' if same else 'did not come'} back as it was written",
    )


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
