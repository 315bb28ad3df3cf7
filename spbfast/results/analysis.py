"""Results in handy shapes: a grid as a cube, one value for each run, bands over replicates.

Pure functions of a Dataset with the schema of results.nc; never touches files. Differences between points are
in effects.py, drawing in plots.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError, ResultsError
from spbfast.sweep.store.shards import OK
from spbfast.text import quote_value, suggest_or_list

MOMENTS = ("end", "peak", "mean")

# Points that fill less of a cube than this are samples, and a cube of them is nearly all NaN.
SHARE_FILLED = 0.1


def sweep_params(ds: xr.Dataset) -> list[str]:
    """Names of the coordinates that the sweep varies."""
    return [n for n in str(ds.attrs.get("sweep_params", "")).split() if n in ds.coords]


def varied_params(ds: xr.Dataset) -> list[str]:
    """Those of them that have more than one value in this dataset."""
    return [n for n in sweep_params(ds) if len({str(v) for v in ds[n].values.tolist()}) > 1]


def cube(ds: xr.Dataset, *, baseline: bool = False) -> xr.Dataset:
    """A grid as an N-dimensional cube, one dimension per swept parameter.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    baseline : bool
        Repeat a baseline outside the grid along all dimensions, told apart by one more: the parameter that
        makes the difference, or `case` (baseline, grid) if several do. By default the cube is the grid alone.

    Raises
    ------
    ResultsError
        When the points are not those of a grid, or would fill less than a tenth of one.
    """
    ds = checked_results(ds)
    if not isinstance(baseline, bool):
        raise QuestionError(f"baseline must be True or False, got {quote_value(baseline)}")
    grid, names = _grid(ds)
    fixed = {n: grid[n].values[0] for n in sweep_params(ds) if n not in names}
    inner = grid.drop_vars([*fixed, "is_baseline", "in_grid", "point"])
    full = inner.set_index(point=names).unstack("point") if len(names) > 1 else _rename_point(inner, names)
    base = np.flatnonzero(ds["is_baseline"].values & ~ds["in_grid"].values)
    if not baseline or len(base) == 0:
        return full.assign_coords(fixed)
    return _with_baseline(full, ds.isel(point=int(base[0])), names, fixed)


def is_grid(ds: xr.Dataset) -> bool:
    """Whether `cube` can lay the points out."""
    try:
        _grid(ds)
    except ResultsError:
        return False
    return True


def _grid(ds: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """The points of the grid and what varies among them, judged before a cube of them takes memory."""
    grid = ds.isel(point=np.flatnonzero(ds["in_grid"].values))
    n = grid.sizes["point"]
    if n == 0:
        raise QuestionError("there is no grid, only a baseline")
    names = varied_params(grid)
    values = zip(*(grid[name].values.tolist() for name in names), strict=True)
    if names and len(set(values)) != n:
        raise QuestionError(f"several points share the same values of {', '.join(names)}; this is not a grid")
    sides = [len(set(grid[name].values.tolist())) for name in names]
    if n < SHARE_FILLED * math.prod(sides):
        shape = " x ".join(f"{side:,}" for side in sides)
        raise QuestionError(
            f"the {n:,} points fill {100 * n / math.prod(sides):.2g} % of a cube of {shape} values of "
            f"{', '.join(names)}; a sampled design is not a grid, so use the dataset itself, along point"
        )
    return grid, names


def _with_baseline(
    full: xr.Dataset, baseline: xr.Dataset, names: list[str], fixed: dict[str, Any]
) -> xr.Dataset:
    """A cube with the baseline repeated along its dimensions, along one more."""
    apart = [n for n in fixed if str(baseline[n].item()) != str(fixed[n])]
    dim, labels = "case", ["baseline", "grid"]
    if len(apart) == 1:
        dim = apart[0]
        labels = [baseline[dim].item(), np.asarray(fixed[dim]).item()]
    one = baseline.drop_vars([*names, *fixed, "is_baseline", "in_grid", "point"])
    repeated = one.reset_coords("point_id").expand_dims({d: full[d] for d in names})
    parts = [repeated, full.reset_coords("point_id")]
    whole = xr.concat(parts, dim=dim, data_vars="all", coords="minimal", compat="override", join="outer")
    rest = {n: v for n, v in fixed.items() if n not in apart}
    return whole.assign_coords({dim: labels, **rest}).set_coords("point_id")


def _rename_point(ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    if not names:
        return ds.isel(point=0)
    return ds.swap_dims(point=names[0]).sortby(names[0])


def at_time(da: xr.DataArray, at: str | float) -> xr.DataArray:
    """A series reduced to one value: its end, peak or mean, or the sample nearest to a time in seconds."""
    if not (isinstance(at, str) and at in MOMENTS):
        at = _check_number(at)
    if "time" not in da.dims:
        return da
    if at == "end":
        last = da.notnull().cumsum("time").argmax("time")
        return da.isel(time=last).drop_vars("time", errors="ignore")
    if at == "peak":
        return da.max("time")
    if at == "mean":
        return da.mean("time")
    return da.sel(time=checked_time(da, at), method="nearest", drop=True)


def checked_time(da: xr.DataArray, at: object) -> float:
    """A time in seconds that a series reaches.

    Raises
    ------
    QuestionError
        When it is none, or nothing was simulated then.
    """
    at = _check_number(at)
    times = da["time"].values
    last = float(times[-1]) if times.size else 0.0
    # Samples end at the last whole interval; half of one more is nearer to it than to anything else.
    reach = last + (float(times[-1] - times[-2]) / 2 if times.size > 1 else 0.0)
    if not 0 <= at <= reach:
        raise QuestionError(f"at {at:g} s there are no samples; they go from 0 to {last:g} s")
    return at


def when_text(ds: xr.Dataset, metric: str, at: str | float) -> str:
    """The moment that a metric is taken at, in words; of a time, the sample that stands for it."""
    da = _metric(ds, metric)
    if "time" not in da.dims:
        return "of the whole run"
    if isinstance(at, str):
        return f"at {at}"
    sample = float(da["time"].sel(time=checked_time(da, at), method="nearest"))
    return f"at {sample:g} s" + ("" if sample == at else f" (the sample nearest to {at:g} s)")


def _check_number(at: object) -> float:
    if isinstance(at, bool) or not isinstance(at, int | float | np.integer | np.floating) or at != at:
        raise QuestionError(
            f"at must be 'end', 'peak', 'mean' or a time in seconds such as 60, got {quote_value(at)}"
        )
    return float(min(max(at, -(10**18)), 10**18))  # an int may be more than a float holds


def outcomes(
    ds: xr.Dataset, metric: str, at: str | float = "end", sel: Mapping[str, Any] | None = None
) -> np.ndarray:
    """One value for each run: float64 [point, replicate], NaN where a run failed.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    metric : str
        A variable, or a counter such as ``pgmigrate_success``.
    at : {"end", "peak", "mean"} or float
        How a series becomes one value; a float is a time in seconds.
    sel : mapping, optional
        Labels to pick where the variable has other dimensions than time.

    Raises
    ------
    ResultsError
        The metric does not exist, or has labels that `sel` does not pick.
    """
    da = _metric(checked_results(ds), metric)
    values = at_time(_selected(da, sel).astype("f8"), at)
    if set(values.dims) != {"point", "replicate"}:
        labels = ", ".join(str(d) for d in da.dims if d not in ("point", "replicate", "time"))
        raise QuestionError(f"{metric} has values by {labels}; pick labels with sel=")
    ok = ds["status"].transpose("point", "replicate").values == OK
    return np.where(ok, values.transpose("point", "replicate").values, np.nan)


def checked_results(ds: Any) -> xr.Dataset:
    """A dataset of a sweep.

    Raises
    ------
    QuestionError
        When it is something else.
    """
    if isinstance(ds, xr.Dataset) and {"point", "replicate"} <= set(ds.sizes) and "status" in ds:
        return ds
    given = (
        f"a dataset with {', '.join(map(str, ds.sizes))}" if isinstance(ds, xr.Dataset) else quote_value(ds)
    )
    raise QuestionError(f"needs the results of a sweep, as open_results gives them; got {given}")


def _selected(da: xr.DataArray, sel: Mapping[str, Any] | None) -> xr.DataArray:
    if sel is None:
        return da
    if not isinstance(sel, Mapping):
        raise QuestionError(f"sel must be a mapping of labels, got {quote_value(sel)}")
    try:
        return da.sel(sel)
    except (KeyError, ValueError, TypeError) as error:
        known = ", ".join(map(str, da.dims))
        raise QuestionError(f"sel does not fit {da.name}, which has {known}: {error}") from None


def _metric(ds: xr.Dataset, name: str) -> xr.DataArray:
    """A variable, or the series of one counter."""
    if not isinstance(name, str):
        raise QuestionError(f"a metric is the name of a variable or counter, got {quote_value(name)}")
    if name in ds.data_vars:
        return ds[name]
    counters = ds["counter"].values.tolist() if "vmstat" in ds else []
    if name in counters:
        return ds["vmstat"].sel(counter=name, drop=True)
    known = [str(variable) for variable in ds.data_vars] + counters
    raise QuestionError(f"there is no variable or counter {quote_value(name)}{suggest_or_list(name, known)}")


def band(da: xr.DataArray, dim: str = "replicate") -> xr.Dataset:
    """Mean, median, 5th and 95th percentile over replicates, NaN left out."""
    values = da.astype("f8")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="All-NaN slice|Mean of empty slice", category=RuntimeWarning
        )
        q = values.quantile([0.05, 0.5, 0.95], dim=dim, skipna=True)
        parts = {
            "mean": values.mean(dim),
            "median": q.sel(quantile=0.5, drop=True),
            "p5": q.sel(quantile=0.05, drop=True),
            "p95": q.sel(quantile=0.95, drop=True),
        }
    out = xr.Dataset(parts)
    for name in parts:
        out[name].attrs = dict(da.attrs)
    return out
