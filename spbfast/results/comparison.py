"""Steps of a sweep against each other: what each changes, how sure that is, and what it costs.

Owns the pairing of points (each with the one before it, or all with one) and the table of effects with their
intervals; statistics of one sample are analysis.py's. Pure functions of a dataset that has the schema of
results.nc; never touches files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from spbfast.results.analysis import at_time, mean_interval, sweep_params
from spbfast.errors import ResultsError
from spbfast.sweep.store.shards import OK

PREVIOUS, BASELINE = "previous", "baseline"
METRICS = ("spb_tainted",)
COSTS = ("wall_time", "pgmigrate_success", "direct_reclaim_rounds")
SURE = 0.95


@dataclass(frozen=True, slots=True)
class Effect:
    """What a step does to one quantity, over the replicates that both points have.

    Attributes
    ----------
    metric : str
        Name of the quantity.
    control, value : float
        Means of both points.
    difference : float
        Mean of the paired differences, value minus control.
    low, high : float
        Confidence interval of that mean; NaN with fewer than two pairs.
    pairs : int
        Replicates that both points have.
    """

    metric: str
    control: float
    value: float
    difference: float
    low: float
    high: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return bool(self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Step:
    """One point against its control: its name, the control's name, and an effect a metric."""

    name: str
    control: str
    effects: tuple[Effect, ...]

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON; NaN becomes None."""
        rows = [{k: _plain(v) for k, v in asdict(effect).items()} for effect in self.effects]
        return {"name": self.name, "control": self.control, "effects": rows}


def steps(
    ds: xr.Dataset,
    metrics: Sequence[str] = (*METRICS, *COSTS),
    against: str = PREVIOUS,
    at: str | float = "end",
    *,
    confidence: float = SURE,
) -> list[Step]:
    """Every point of a sweep against the one before it, or against the baseline.

    Replicate k meets the same demand in every point, so differences are taken replicate by replicate. The
    first point, or the baseline, is shown against itself, so that its values can be read.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    metrics : sequence of str
        Variables of one value a run or a series; or counters, such as ``pgmigrate_success``.
    against : {"previous", "baseline"}
        The control: the point before it in the order of the file, or the baseline (the first point where the
        sweep has none).
    at : {"end", "peak", "mean"} or float
        How a series becomes one value; a float is a time in seconds.
    confidence : float
        Level of the interval (percentile bootstrap of the mean difference, fixed random stream).

    Returns
    -------
    list of Step
        In the order of the file.

    Raises
    ------
    ResultsError
        Fewer than two points, or a metric that does not exist.
    """
    if against not in (PREVIOUS, BASELINE):
        raise ResultsError(f"against must be {PREVIOUS!r} or {BASELINE!r}, got {against!r}")
    nr = ds.sizes["point"]
    if nr < 2:
        raise ResultsError("there is one point only; a comparison needs two")
    names = point_names(ds)
    tables = {metric: _table(ds, metric, at) for metric in metrics}
    base = _base(ds)
    order = list(range(nr)) if against == PREVIOUS else [base, *(i for i in range(nr) if i != base)]
    out = []
    for place, row in enumerate(order):
        control = order[max(place - 1, 0)] if against == PREVIOUS else base
        effects = [_effect(m, table[control], table[row], confidence) for m, table in tables.items()]
        out.append(Step(names[row], names[control], tuple(effects)))
    return out


def costs(ds: xr.Dataset) -> list[str]:
    """The cost quantities that the dataset has."""
    counters = ds["counter"].values.tolist() if "counter" in ds.coords else []
    return [name for name in COSTS if name in ds.data_vars or name in counters]


def point_names(ds: xr.Dataset) -> list[str]:
    """A short name for each point: the values of what the sweep varies."""
    params = [p for p in sweep_params(ds) if len({str(v) for v in ds[p].values.tolist()}) > 1]
    if len(params) == 1:
        return [str(v) for v in ds[params[0]].values.tolist()]
    columns = [[f"{p}={v}" for v in ds[p].values.tolist()] for p in params]
    return [", ".join(cells) for cells in zip(*columns, strict=True)] or ["0"] * ds.sizes["point"]


def steps_text(table: Sequence[Step], confidence: float = SURE) -> str:
    """The table for a terminal: the first metric with its effect, the others as value and difference.

    An effect whose interval leaves 0 out is marked with a star.
    """
    first, *rest = (effect.metric for effect in table[0].effects)
    percent = f"{100 * confidence:g} %"
    head = ["", first, "difference", f"{percent} interval", "pairs", *(f"{m} (difference)" for m in rest)]
    rows = [head]
    for step in table:
        main, *others = step.effects
        own = step.name == step.control
        star = "*" if main.clear and not own else ""
        cells = ["", ""] if own else [f"{main.difference:+.4g}{star}", _interval(main)]
        extra = [_short(e.value) + ("" if own else f" ({_signed(e.difference)})") for e in others]
        rows.append([step.name, _short(main.value), *cells, str(main.pairs), *extra])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(
            f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(r, widths, strict=True))
        )
        for r in rows
    ]
    return "\n".join([line.rstrip() for line in lines] + [f"* the {percent} interval leaves 0 out"])


def _base(ds: xr.Dataset) -> int:
    marked = np.flatnonzero(ds["is_baseline"].values)
    return int(marked[0]) if len(marked) else 0


def _table(ds: xr.Dataset, metric: str, at: str | float) -> np.ndarray:
    """Values [point, replicate] of a variable or a counter, NaN where a run failed."""
    if metric in ds.data_vars:
        da = ds[metric]
    elif "vmstat" in ds and metric in ds["counter"].values.tolist():
        da = ds["vmstat"].sel(counter=metric, drop=True)
    else:
        known = [str(name) for name in ds.data_vars if set(ds[name].dims) <= {"point", "replicate", "time"}]
        known += ds["counter"].values.tolist() if "counter" in ds.coords else []
        raise ResultsError(f"there is no variable or counter {metric!r}{_suggest(metric, known)}")
    values = at_time(da.astype("f8"), at)
    if set(values.dims) != {"point", "replicate"}:
        raise ResultsError(f"{metric} has the dimensions {da.dims}; only series and single values compare")
    ok = ds["status"].transpose("point", "replicate").values == OK
    return np.where(ok, values.transpose("point", "replicate").values, np.nan)


def _suggest(metric: str, known: Sequence[str]) -> str:
    import difflib

    near = difflib.get_close_matches(metric, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _effect(metric: str, control: np.ndarray, value: np.ndarray, confidence: float) -> Effect:
    both = np.isfinite(control) & np.isfinite(value)
    if not both.any():
        nan = float("nan")
        return Effect(metric, nan, nan, nan, nan, nan, 0)
    a, b = control[both], value[both]
    low, high = mean_interval(b - a, confidence)
    return Effect(metric, float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, int(both.sum()))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _interval(effect: Effect) -> str:
    return f"[{effect.low:+.4g}, {effect.high:+.4g}]" if np.isfinite(effect.low) else "-"


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"{value:+.4g}" if abs(value) < 1e5 else f"{value:+.3g}"
