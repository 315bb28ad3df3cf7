"""Response curves: a metric against one swept number, for each setting of the other parameters.

Owns which parameters are numbers that a curve can be drawn against, and how points and replicates become the
lines of a curve. Pure functions of a Dataset with the schema of results.nc; draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError
from spbfast.results.analysis import varied_params
from spbfast.results.plots import param_words
from spbfast.text import format_value, suggest_or_list

VALUES_MIN = 3  # fewer make no curve
LINES_MAX = 6  # with more settings of the rest, one line with a band over all of them


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a curve: float64 [x] each, the mean and the range that 90 % of the runs lie in."""

    label: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True)
class Response:
    """A metric against one parameter.

    Attributes
    ----------
    name, label, units : str
        The coordinate, its configuration path, and the unit of `x`.
    x : ndarray
        float64, ascending.
    lines : tuple of Line
        One for each setting of the other parameters, or one over all of them.
    control : float
        Mean of the metric in a baseline outside the grid; NaN without one.
    """

    name: str
    label: str
    units: str
    x: np.ndarray
    lines: tuple[Line, ...]
    control: float


def numeric_params(ds: xr.Dataset) -> list[str]:
    """Swept parameters with at least three values, all of them numbers."""
    grid = ds["in_grid"].values
    found = []
    for name in varied_params(ds):
        values = ds[name].values[grid]
        if values.dtype.kind in "iuf" and np.isfinite(values).all() and len(np.unique(values)) >= VALUES_MIN:
            found.append(name)
    return found


def find_swept_number(ds: xr.Dataset, over: str = "") -> str:
    """The coordinate of a swept number by its configuration path or its own name; by default the only one.

    Raises
    ------
    QuestionError
        When no swept key has three numbers, when there are several and none is named, or the name is of none.
    """
    known = {str(ds[n].attrs.get("config_path", n)): n for n in numeric_params(ds)}
    if not known:
        raise QuestionError("no swept key has three numbers or more, so there is no curve to draw")
    over = over or (next(iter(known)) if len(known) == 1 else "")
    if over not in known and over.replace(".", "_") not in known.values():
        given = (
            f"there is no swept number {over!r}" if over else "several keys are swept; choose one with --over"
        )
        raise QuestionError(f"{given}{suggest_or_list(over, list(known))}")
    return known.get(over, over.replace(".", "_"))


def responses(ds: xr.Dataset, values: np.ndarray) -> list[Response]:
    """The curves of a metric, one for each swept number.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    values : ndarray
        float64 [point, replicate], NaN where a run has no result (`outcomes`).
    """
    known = ds.isel(point=np.flatnonzero(np.isfinite(values).any(axis=1)))
    return [_response(ds, name, values) for name in numeric_params(known)] if known.sizes["point"] else []


def _response(ds: xr.Dataset, name: str, values: np.ndarray) -> Response:
    grid = np.flatnonzero(ds["in_grid"].values & np.isfinite(values).any(axis=1))
    own = ds[name].values[grid].astype("f8")
    x = np.unique(own)
    settings = settings_of(ds, name, grid)
    labels = list(dict.fromkeys(settings))
    if len(labels) > LINES_MAX:
        settings, labels = [""] * len(grid), [""]
    groups = [[grid[k] for k, setting in enumerate(settings) if setting == label] for label in labels]
    lines = tuple(
        _line(label, ds[name].values.astype("f8"), group, x, values)
        for label, group in zip(labels, groups, strict=True)
    )
    attrs = ds[name].attrs
    units = str(attrs.get("units", "1"))
    base = np.flatnonzero(ds["is_baseline"].values & ~ds["in_grid"].values)
    known = values[base][np.isfinite(values[base])]
    control = float(known.mean()) if known.size else float("nan")
    path = str(attrs.get("config_path", name))
    return Response(name, path, "" if units == "1" else units, x, lines, control)


def settings_of(ds: xr.Dataset, name: str, points: np.ndarray) -> list[str]:
    """What the other swept parameters are in each of the points, in words."""
    varied = varied_params(ds.isel(point=points))
    words = param_words(ds, varied)
    columns = []
    for other in (n for n in varied if n != name):
        units, own = str(ds[other].attrs.get("units", "")), ds[other].values[points].tolist()
        columns.append([f"{words[other]} {format_value(v, units)}" for v in own])
    return [", ".join(parts) for parts in zip(*columns, strict=True)] or [""] * len(points)


def _line(label: str, at: np.ndarray, points: list[int], x: np.ndarray, values: np.ndarray) -> Line:
    """Mean and range over replicates, and over points that share the value."""
    out = np.full((3, len(x)), np.nan)
    chosen = np.array(points)
    for k, value in enumerate(x.tolist()):
        own = values[chosen[at[chosen] == value]]
        own = own[np.isfinite(own)]
        if own.size:
            out[:, k] = own.mean(), *np.quantile(own, (0.05, 0.95))
    return Line(label, *out)
