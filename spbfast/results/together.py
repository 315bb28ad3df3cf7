"""Several results as one dataset, told apart by `file`; the first of them has the baseline.

Owns what makes points of different results comparable. open.py reads each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.results.analysis import sweep_params
from spbfast.results.open import open_results
from spbfast.results.plots import point_labels
from spbfast.sweep.store.shards import MISSING

FILE = "file"
SETTING = "setting"


def open_together(paths: Sequence[str | Path]) -> xr.Dataset:
    """Sweeps and files of runs as one dataset; a single path as by `open_results`.

    Parameters
    ----------
    paths : sequence of path
        Results directories or files. The baseline is that of the first, or its first point.

    Returns
    -------
    Dataset
        All points one after the other, with the coordinate `file` along point. What the sweeps vary stays a
        coordinate where all vary the same; otherwise `setting` holds each point's label in its own sweep.

    Raises
    ------
    ResultsError
        When one cannot be opened, or one is given twice.
    """
    if len(paths) == 1:
        return open_results(paths[0])
    names = [str(path) for path in paths]
    for k, name in enumerate(names):
        if name in names[:k]:
            raise ResultsError("is given twice; results are compared with other ones", Path(name))
    parts = [open_results(path, load=True) for path in paths]
    params, parts = _comparable(parts)
    whole = xr.concat(
        [
            _marked(part, name, is_first=k == 0)
            for k, (name, part) in enumerate(zip(names, parts, strict=True))
        ],
        "point",
        join="outer",
        coords="minimal",
        compat="override",
        combine_attrs="override",
    )
    whole["status"] = whole["status"].fillna(MISSING).astype("i1")
    whole = whole.assign_attrs(sweep_params=" ".join([FILE, *params]), n_points=whole.sizes["point"])
    _warn_of_other_demand(whole, params)
    return whole


def _comparable(parts: Sequence[xr.Dataset]) -> tuple[list[str], list[xr.Dataset]]:
    """What tells points of one part apart, by the same names in all of them."""
    swept = [sweep_params(part) for part in parts]
    if all(set(own) == set(swept[0]) for own in swept):
        return swept[0], list(parts)
    named = [
        part.drop_vars(own).assign_coords({SETTING: ("point", _settings(part))})
        for own, part in zip(swept, parts, strict=True)
    ]
    return [SETTING], named


def _settings(part: xr.Dataset) -> list[str]:
    """The label of each point in its own sweep; a single run has none."""
    if not sweep_params(part):
        return ["as configured"] * part.sizes["point"]
    nobody = np.zeros(part.sizes["point"], bool)
    return point_labels(part.assign_coords(is_baseline=("point", nobody)))


def _marked(part: xr.Dataset, name: str, *, is_first: bool) -> xr.Dataset:
    """A part with its name, and with a baseline if it is the first."""
    nr = part.sizes["point"]
    is_baseline = part["is_baseline"].values.copy() if is_first else np.zeros(nr, bool)
    if is_first and not is_baseline.any():
        is_baseline[0] = True
    marks: dict[str, Any] = {FILE: ("point", [name] * nr), "is_baseline": ("point", is_baseline)}
    # One sweep's baseline is compared with the other's, too.
    marks["in_grid"] = ("point", np.ones(nr, bool))
    return part.drop_vars("point").assign_coords(marks)


def _warn_of_other_demand(whole: xr.Dataset, params: Sequence[str]) -> None:
    """Say which results did not meet the first one's demand, so that their replicates are no pairs."""
    if "demand_digest" not in whole:
        return
    demand = whole["demand_digest"].transpose("point", "replicate").values
    ran = whole["status"].transpose("point", "replicate").values != MISSING
    files = whole[FILE].values.tolist()
    keys = list(zip(*(whole[name].values.tolist() for name in params), strict=True)) or [()] * len(files)
    first = {key: row for row, key in reversed(list(enumerate(keys))) if files[row] == files[0]}
    others = {
        files[row]
        for row, key in enumerate(keys)
        if key in first and ((demand[row] != demand[first[key]]) & ran[row] & ran[first[key]]).any()
    }
    for name in dict.fromkeys(files):
        if name in others:
            warnings.warn(
                f"{name} did not meet the same demand as {files[0]} (another seed, machine, actors or "
                "duration): differences by replicate are no pairs",
                stacklevel=3,
            )
