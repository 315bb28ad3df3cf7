"""Results in other forms: zarr for clusters and clouds, CSV and Parquet for tables.

Owns `spbfast export`. Reads through open_results and writes one new file or directory, whole or not at all.
Nothing that exists is overwritten.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from spbfast.errors import QuestionError, ResultsError, StorageError
from spbfast.places import as_path, check_writable
from spbfast.results.open import open_results
from spbfast.sweep.store.atomic import temporary_name, write_failed
from spbfast.text import quote_value, suggest_or_list

FORMS = ("zarr", "csv", "parquet")


def export_results(
    directory: str | Path, form: str, output: str | Path | None = None, variables: Sequence[str] = ()
) -> Path:
    """Write results in another form.

    Parameters
    ----------
    form : {"zarr", "csv", "parquet"}
        zarr holds the whole dataset. Tables have one row per run with the swept keys, its facts and its
        scalars; naming variables adds one row per label (time, counter, ..) and a column for each of them.
    output : path, optional
        By default `results.FORM` in the directory.

    Raises
    ------
    ResultsError
        When the output exists, a variable does not, or a package is missing.
    """
    if form not in FORMS:
        raise QuestionError(f"form must be one of {', '.join(FORMS)}, got {quote_value(form)}")
    target = _place_of(directory, form, output)
    ds = open_results(directory, chunks={})
    tmp = temporary_name(target)
    try:
        with ds:
            _WRITERS[form](ds, tmp, variables)
        os.replace(tmp, target)
    except ModuleNotFoundError as error:
        extra = "zarr" if form == "zarr" else "parquet"
        message = f"needs {error.name}; install it with: pip install 'spbfast[{extra}]'"
        raise ResultsError(message, target) from None
    except OSError as error:
        raise write_failed(error, target) from error
    finally:
        if tmp.is_dir():
            shutil.rmtree(tmp, ignore_errors=True)
        else:
            tmp.unlink(missing_ok=True)
    return target


def _place_of(directory: str | Path, form: str, output: str | Path | None) -> Path:
    """Where the export goes, which does not exist and can be written.

    Raises
    ------
    ResultsError
        When something is there already.
    StorageError
        When nothing can be written there.
    """
    try:
        home = as_path(directory)
        home = home if home.is_dir() else home.parent
        target = as_path(output) if output is not None else home / f"results.{form}"
        if target.exists() and not target.is_symlink():
            raise ResultsError("exists; choose another name with -o, or remove it", target)
        check_writable(target)
    except OSError as error:
        kind = StorageError if error.errno in (errno.EACCES, errno.EROFS) else ResultsError
        raise kind(f"cannot be written: {error.strerror}", error.filename) from None
    if target.is_symlink():
        raise ResultsError("exists; choose another name with -o, or remove it", target)
    return target


def _write_zarr(ds: xr.Dataset, tmp: Path, variables: Sequence[str]) -> None:
    import zarr  # noqa: F401  (so that its absence is reported before anything is written)

    kept = ds[_known(ds, variables)] if variables else ds
    for name in kept.variables:
        # What netCDF needed to pack its values means nothing to zarr.
        kept[name].encoding = {}
    # Format 2 because format 3 has no agreed form for text yet and warns about ours.
    kept.to_zarr(tmp, mode="w-", zarr_format=2, consolidated=True)


def table(ds: xr.Dataset, variables: Sequence[str] = ()) -> Any:
    """Results as a pandas table: a row per run, or per label of the named variables.

    Raises
    ------
    ResultsError
        When a variable does not exist, or their labels do not go together.
    """
    scalars = [n for n in ds.data_vars if ds[n].dims == ("point", "replicate")]
    names = _known(ds, variables) if variables else scalars
    if len({ds[n].dims for n in names if len(ds[n].dims) > 2}) > 1:
        raise ResultsError(f"{', '.join(map(str, names))} have different labels; export them one by one")
    frame = ds[list(names)].load().to_dataframe()
    frame = frame.reset_index()
    for name in ("seed", "digest", "demand_digest"):
        if name in frame:
            frame[name] = frame[name].map(lambda v, n=name: str(v) if n == "seed" else f"{int(v):016x}")
    return frame


def _known(ds: xr.Dataset, variables: Sequence[str]) -> list[Any]:
    wrong = [v for v in variables if v not in ds.data_vars]
    if wrong:
        known = [str(n) for n in ds.data_vars]
        raise QuestionError(f"there is no variable {wrong[0]!r}{suggest_or_list(wrong[0], known)}")
    return list(variables)


def _write_csv(ds: xr.Dataset, tmp: Path, variables: Sequence[str]) -> None:
    table(ds, variables).to_csv(tmp, index=False)


def _write_parquet(ds: xr.Dataset, tmp: Path, variables: Sequence[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    # Opened here, since pyarrow takes no name that is not text; pandas 2 would hand it the name again.
    with open(tmp, "wb") as file:
        parquet.write_table(pyarrow.Table.from_pandas(table(ds, variables), preserve_index=False), file)


_WRITERS = {"zarr": _write_zarr, "csv": _write_csv, "parquet": _write_parquet}
