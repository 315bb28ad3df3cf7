"""Reading results: a directory or a results.nc as one dataset.

Opens what a sweep wrote, complete or not. Never runs a simulation and never changes a directory. What can be
done with the dataset is in analysis.py and effects.py.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError, ResultsError
from spbfast.outputs.variables import annotate, check_dataset
from spbfast.places import as_path, check_readable
from spbfast.results.runfile import as_sweep, is_run
from spbfast.sweep.store.consolidate import PURPOSE, consolidate
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.netcdf import open_as_dataset
from spbfast.sweep.store.seal import SEALED, has_good_seal
from spbfast.sweep.store.view import EXAMINED_BYTES
from spbfast.text import quote_value, suggest

# More than this is read when it is used, so that opening stays quick.
LOAD_BYTES = 16 << 20


def open_results(path: str | Path, *, load: bool | None = None, chunks: Any | None = None) -> xr.Dataset:
    """The results of a sweep as one dataset.

    Parameters
    ----------
    path : path
        A results directory, also of a sweep that still runs, a results.nc, or what `spbfast run -o` wrote,
        which is a sweep of one point.
    load : bool, optional
        Read everything into memory; by default when it takes less than 16 MiB, else on use.
    chunks : int, dict or "auto", optional
        Give dask arrays, for results larger than memory; `{}` takes the chunks of the file;
        computing them on threads is safe. Nothing is loaded then.

    Returns
    -------
    Dataset
        Dimensions point, replicate and those of the variables (time in seconds). Swept parameters are
        coordinates along point, named by their path with underscores and in SI units; `point_id` holds the 16
        hex digits that `spbfast rerun` and `spbfast status` use. Runs that failed or
        are missing are NaN and marked in `status`.

    Raises
    ------
    ResultsError
        When there are no results or the file is not one of ours.
    """
    path = _path_of(path)
    _check_reading(load, chunks)
    if not path.is_dir():
        return _open(path, load, chunks)
    store = Store(path)
    store.manifest()
    why = _why_not_current(store)
    if not why:
        try:
            return _open(store.results_path, load, chunks)
        except ResultsError:
            why = "has a damaged results.nc"
    if chunks is not None:
        raise ResultsError(f"{why}; to open it in chunks run: spbfast consolidate {path}", path)
    with tempfile.TemporaryDirectory(prefix="spbfast-") as scratch:
        return _open(consolidate(path, Path(scratch) / "results.nc"), load=True)


def _path_of(given: object) -> Path:
    try:
        return as_path(given)
    except OSError as error:
        raise ResultsError(f"{error.strerror}, such as results/quickstart", str(error.filename)) from None


def _check_reading(load: object, chunks: object) -> None:
    if load is not None and not isinstance(load, bool):
        raise QuestionError(f"load must be True, False or None, got {quote_value(load)}")
    is_number = isinstance(chunks, int) and not isinstance(chunks, bool) and chunks > 0
    is_word = isinstance(chunks, str) and chunks == "auto"
    if not (chunks is None or is_word or is_number or isinstance(chunks, dict)):
        raise QuestionError(f"chunks must be a number, a dict or 'auto', got {quote_value(chunks)}")


def _nearest_results(path: Path) -> str:
    """The results directory beside it whose name is nearest, where there is no such path."""
    if path.exists() or not path.parent.is_dir():
        return ""
    return suggest(path.name, sorted(p.parent.name for p in path.parent.glob("*/manifest.json")))


def _with_hex_ids(ds: xr.Dataset) -> xr.Dataset:
    """Points named as everything else names them: 16 hex digits. Files hold the same number as uint64."""
    ids = ds["point_id"]
    if ids.dtype.kind not in "iu":
        return ds
    names = np.array([f"{int(i):016x}" for i in ids.values], "U16")
    return ds.assign_coords(point_id=(ids.dims, names, ids.attrs))


def _why_not_current(store: Store) -> str:
    """Why results.nc is not what the directory holds, "" if it is."""
    try:
        made = store.results_path.stat().st_mtime_ns
        _check_seal(store.results_path)
    except FileNotFoundError:
        return "has no results.nc"
    except ResultsError:
        return "has a damaged results.nc"
    journals = [path.stat().st_mtime_ns for path in store.dir.glob("journal*.jsonl")]
    return "has newer runs than results.nc" if any(time > made for time in journals) else ""


def _check_seal(path: Path) -> bool:
    """Whether a file is sealed; of a large one that takes too long to find out, but its chunks have sums."""
    return path.stat().st_size < EXAMINED_BYTES and has_good_seal(path, PURPOSE)


def _open(path: Path, load: bool | None, chunks: Any | None = None) -> xr.Dataset:
    try:
        check_readable(path)
        is_sealed = _check_seal(path)
        ds = open_as_dataset(path, chunks)
    except (OSError, ValueError, TypeError, RuntimeError, AttributeError) as err:  # by where the damage lies
        reason = getattr(err, "strerror", None) or err
        raise ResultsError(f"cannot read: {reason}{_nearest_results(path)}", path) from err
    if ds.attrs.pop(SEALED, None) is not None and not is_sealed and path.stat().st_size < EXAMINED_BYTES:
        raise ResultsError("is damaged: it is cut short, or another program wrote it: its seal is gone", path)
    if is_run(ds):
        ds = as_sweep(ds)
    if "point" not in ds.dims or "point_id" not in ds.variables or "status" not in ds.variables:
        ds.close()
        raise ResultsError("is not a results file of this program", path)
    if load or (load is None and chunks is None and ds.nbytes < LOAD_BYTES):
        with ds:
            ds = ds.load()
    check_dataset(ds)
    ds = _with_hex_ids(ds)
    failed, missing = int(ds.attrs.get("n_failed", 0)), int(ds.attrs.get("n_missing", 0))
    if failed or missing:
        warnings.warn(
            f"{path}: {failed} runs failed and {missing} are missing; they are NaN, see ds.status",
            stacklevel=3,
        )
    return annotate(ds)
