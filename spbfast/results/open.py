"""Reading results: a directory or a results.nc as one dataset.

Opens what a sweep wrote, complete or not. Never runs a simulation and never changes a directory. What can be
done with the dataset is in analysis.py and effects.py.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import xarray as xr

from spbfast.errors import ResultsError
from spbfast.outputs.variables import annotate, check_dataset
from spbfast.sweep.store.consolidate import consolidate
from spbfast.sweep.store.directory import Store

# More than this is read when it is used, so that opening stays quick.
LOAD_BYTES = 16 << 20


def open_results(path: str | Path, *, load: bool | None = None, chunks: Any | None = None) -> xr.Dataset:
    """The results of a sweep as one dataset.

    Parameters
    ----------
    path : path
        A results directory, also of a sweep that still runs, or a results.nc.
    load : bool, optional
        Read everything into memory; by default when it takes less than 16 MiB, else on use.
    chunks : int, dict or "auto", optional
        Give dask arrays, for results larger than memory; `{}` takes the chunks of the file;
        computing them on threads is safe. Nothing is loaded then.

    Returns
    -------
    Dataset
        Dimensions point, replicate and those of the variables (time in seconds). Swept parameters are
        coordinates along point, named by their path with underscores and in SI units. Runs that failed or
        are missing are NaN and marked in `status`.

    Raises
    ------
    ResultsError
        When there are no results or the file is not one of ours.
    """
    path = Path(path)
    if path.is_dir():
        store = Store(path)
        store.manifest()
        if not _is_current(store):
            if chunks is not None:
                raise ResultsError(
                    f"has newer runs than results.nc; to open it in chunks run: spbfast consolidate {path}",
                    path,
                )
            with tempfile.TemporaryDirectory(prefix="spbfast-") as scratch:
                return _open(consolidate(path, Path(scratch) / "results.nc"), load=True)
        path = store.results_path
    return _open(path, load, chunks)


def _is_current(store: Store) -> bool:
    """Whether results.nc is at least as new as the last finished batch."""
    try:
        made = store.results_path.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return not store.journal_path.exists() or store.journal_path.stat().st_mtime_ns <= made


def _open(path: Path, load: bool | None, chunks: Any | None = None) -> xr.Dataset:
    try:
        ds = xr.open_dataset(path, engine="netcdf4", chunks=chunks)
    except (OSError, ValueError) as err:
        raise ResultsError(f"cannot read: {err}", path) from err
    if "point_id" not in ds.variables or "status" not in ds.variables:
        ds.close()
        raise ResultsError("is not a results file of this program", path)
    if load or (load is None and chunks is None and ds.nbytes < LOAD_BYTES):
        with ds:
            ds = ds.load()
    check_dataset(ds)
    failed, missing = int(ds.attrs.get("n_failed", 0)), int(ds.attrs.get("n_missing", 0))
    if failed or missing:
        warnings.warn(
            f"{path}: {failed} runs failed and {missing} are missing; they are NaN, see ds.status",
            stacklevel=3,
        )
    return annotate(ds)
