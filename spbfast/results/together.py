"""Several files of `spbfast run -o` as one dataset, the first its baseline.

Owns what they must have in common to be compared. open.py reads each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.results.open import open_results
from spbfast.sweep.store.shards import MISSING


def open_together(paths: Sequence[str | Path]) -> xr.Dataset:
    """Files of one point each as one dataset, the first its baseline; a single path as by `open_results`.

    Raises
    ------
    ResultsError
        When one of several holds more than one point, or cannot be opened.
    """
    if len(paths) == 1:
        return open_results(paths[0])
    parts = [open_results(path, load=True) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.sizes["point"] != 1:
            text = "holds a sweep; give one sweep, or files that spbfast run -o wrote"
            raise ResultsError(text, Path(path))
    _warn_of_other_demand(paths, parts)
    marks = [
        part.drop_vars("point").assign_coords(
            file=("point", [str(path)]), is_baseline=("point", [i == 0]), in_grid=("point", [True])
        )
        for i, (path, part) in enumerate(zip(paths, parts, strict=True))
    ]
    whole = xr.concat(
        marks, "point", join="outer", coords="minimal", compat="override", combine_attrs="override"
    )
    whole["status"] = whole["status"].fillna(MISSING).astype("i1")
    return whole.assign_attrs(sweep_params="file")


def _warn_of_other_demand(paths: Sequence[str | Path], parts: Sequence[xr.Dataset]) -> None:
    """Say which files did not meet the first one's demand, so that their replicates are no pairs."""
    if not all("demand_digest" in part for part in parts):
        return
    first = parts[0]["demand_digest"].values[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        other = part["demand_digest"].values[0]
        nr = min(len(first), len(other))
        if not np.array_equal(first[:nr], other[:nr]):
            warnings.warn(
                f"{path} did not meet the same demand as {paths[0]} (another seed, machine, actors or "
                "duration): differences by replicate are no pairs",
                stacklevel=3,
            )
