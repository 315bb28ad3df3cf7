"""What is done with results once they are open: the cube of a grid, paired comparisons, bands.

Pure functions of an xarray Dataset that has the schema of results.nc; never touches files. plots.py draws
what comes from here; report/ puts it on a page.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.sweep.store.shards import OK

RESAMPLES = 9999


def sweep_params(ds: xr.Dataset) -> list[str]:
    """Names of the coordinates that the sweep varies."""
    return [n for n in str(ds.attrs.get("sweep_params", "")).split() if n in ds.coords]


def _varying(ds: xr.Dataset) -> list[str]:
    return [n for n in sweep_params(ds) if len({str(v) for v in ds[n].values.tolist()}) > 1]


def cube(ds: xr.Dataset) -> xr.Dataset:
    """A grid as an N-dimensional cube, one dimension per swept parameter.

    A baseline outside the grid is repeated along all of them and told apart by one more dimension: the
    parameter that makes the difference, or `case` (baseline, grid) if several do.

    Raises
    ------
    ResultsError
        When the points are not those of a grid.
    """
    grid = ds.isel(point=np.flatnonzero(ds["in_grid"].values))
    if grid.sizes["point"] == 0:
        raise ResultsError("there is no grid, only a baseline")
    names = _varying(grid)
    values = zip(*(grid[n].values.tolist() for n in names), strict=True)
    if names and len(set(values)) != grid.sizes["point"]:
        raise ResultsError(f"several points share the same values of {', '.join(names)}; this is not a grid")
    fixed = {n: grid[n].values[0] for n in sweep_params(ds) if n not in names}
    inner = grid.drop_vars([*fixed, "is_baseline", "in_grid", "point"])
    full = inner.set_index(point=names).unstack("point") if len(names) > 1 else _rename_point(inner, names)
    base = np.flatnonzero(ds["is_baseline"].values & ~ds["in_grid"].values)
    if len(base) == 0:
        return full.assign_coords(fixed)
    first = ds.isel(point=int(base[0]))
    apart = [n for n in fixed if str(first[n].item()) != str(fixed[n])]
    dim = apart[0] if len(apart) == 1 else "case"
    labels = [first[dim].item(), np.asarray(fixed[dim]).item()] if dim != "case" else ["baseline", "grid"]
    one = first.drop_vars([*sweep_params(ds), "is_baseline", "in_grid", "point"])
    sizes = {d: full[d] for d in names}
    repeated = one.reset_coords("point_id").expand_dims(sizes)
    whole = xr.concat(
        [repeated, full.reset_coords("point_id")],
        dim=dim,
        data_vars="all",
        coords="minimal",
        compat="override",
        join="outer",
    )
    rest = {n: v for n, v in fixed.items() if n not in apart}
    return whole.assign_coords({dim: labels, **rest}).set_coords("point_id")


def _rename_point(ds: xr.Dataset, names: list[str]) -> xr.Dataset:
    if not names:
        return ds.isel(point=0)
    return ds.swap_dims(point=names[0]).sortby(names[0])


def at_time(da: xr.DataArray, at: str | float) -> xr.DataArray:
    """A series reduced to one value: its end, peak or mean, or the sample nearest to a time in seconds."""
    if "time" not in da.dims:
        return da
    if at == "end":
        last = da.notnull().cumsum("time").argmax("time")
        return da.isel(time=last).drop_vars("time", errors="ignore")
    if at == "peak":
        return da.max("time")
    if at == "mean":
        return da.mean("time")
    if isinstance(at, str):
        raise ValueError(f"at={at!r}: choose 'end', 'peak', 'mean' or a time in seconds")
    return da.sel(time=at, method="nearest", drop=True)


def compare(
    ds: xr.Dataset,
    by: str | None = None,
    metric: str = "spb_tainted",
    at: str | float = "end",
    *,
    sel: Mapping[str, Any] | None = None,
    confidence: float = 0.95,
) -> xr.Dataset:
    """Paired differences against the baseline, with bootstrap confidence intervals.

    Replicate k meets the same demand in every point, so differences are taken replicate by replicate.

    Parameters
    ----------
    by : str, optional
        Coordinate that tells treatment from control, such as ``policy_slab_shrink``. If the grid varies it,
        control is the grid point with the baseline's value (or else the smallest, False first) and otherwise
        the same parameters; if only the baseline differs in it, control is the baseline. None compares
        every point with the baseline.
    metric : str
        A variable; one with labels besides time needs `sel`, such as ``{"counter": "spb_slab_shrink_ran"}``.
    at : {"end", "peak", "mean"} or float
        How a series becomes one value; a float is a time in seconds.
    confidence : float
        Level of the interval (percentile bootstrap of the mean difference, fixed random stream).

    Returns
    -------
    Dataset
        Along point: control, value (means over pairs), difference, ci_low, ci_high, pairs. The interval is
        NaN with fewer than two pairs; with fewer than about ten it is too narrow rather than too wide.

    Raises
    ------
    ResultsError
        When there is nothing to compare with, or the metric does not exist.
    """
    if metric not in ds.data_vars:
        raise ResultsError(f"there is no variable {metric!r}; there are {', '.join(map(str, ds.data_vars))}")
    da = ds[metric].sel(sel) if sel else ds[metric]
    values = at_time(da.astype("f8"), at)
    if set(values.dims) != {"point", "replicate"}:
        raise ResultsError(f"{metric} has the dimensions {da.dims}; pick labels with sel=")
    table = np.where(ds["status"].values == OK, values.transpose("point", "replicate").values, np.nan)
    rows, controls = _pairs(ds, by)
    columns: dict[str, list[float]] = {n: [] for n in ("control", "value", "difference", "ci_low", "ci_high")}
    pairs = []
    for row, control in zip(rows, controls, strict=True):
        both = np.isfinite(table[row]) & np.isfinite(table[control])
        a, b = table[control][both], table[row][both]
        low, high = mean_interval(b - a, confidence)
        shown = (a.mean(), b.mean(), (b - a).mean()) if len(a) else (np.nan,) * 3
        for name, x in zip(columns, (*shown, low, high), strict=True):
            columns[name].append(float(x))
        pairs.append(int(both.sum()))
    keep = [n for n in ds.coords if ds[n].dims == ("point",)]
    out = ds[keep].isel(point=rows).assign({n: ("point", x) for n, x in columns.items()})
    out = out.assign(pairs=("point", pairs))
    out.attrs = {"metric": metric, "at": str(at), "confidence": confidence, "by": by or ""}
    units = ds[metric].attrs.get("units", "1")
    for name in columns:
        out[name].attrs["units"] = units
    return out


def _pairs(ds: xr.Dataset, by: str | None) -> tuple[list[int], list[int]]:
    """Rows of points and of the control of each."""
    base = np.flatnonzero(ds["is_baseline"].values).tolist()
    n = ds.sizes["point"]
    if by is None:
        if not base:
            raise ResultsError("the sweep has no baseline; say which parameter to compare by")
        rows = [i for i in range(n) if i != base[0]]
        return rows, [base[0]] * len(rows)
    if by not in ds.coords or ds[by].dims != ("point",):
        raise ResultsError(f"{by!r} is not a swept parameter; there are {', '.join(sweep_params(ds))}")
    grid = np.flatnonzero(ds["in_grid"].values).tolist()
    values = ds[by].values.tolist()
    levels = {values[i] for i in grid}
    if len(levels) < 2:
        rows = [i for i in grid if base and values[i] != values[base[0]]]
        if not rows:
            raise ResultsError(f"no two points differ in {by}")
        return rows, [base[0]] * len(rows)
    reference = values[base[0]] if base and values[base[0]] in levels else min(levels)
    others = [name for name in sweep_params(ds) if name != by]
    keys = {i: tuple(str(ds[name].values[i]) for name in others) for i in grid}
    control = {keys[i]: i for i in grid if values[i] == reference}
    rows = [i for i in grid if values[i] != reference and keys[i] in control]
    if not rows:
        raise ResultsError(f"no two points differ in {by} alone")
    return rows, [control[keys[i]] for i in rows]


def mean_interval(sample: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean; the same sample always gives the same interval."""
    if len(sample) < 2:
        return float("nan"), float("nan")
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    from scipy.stats import bootstrap

    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
        vectorized=True,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


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
