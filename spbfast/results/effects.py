"""Points against each other: paired differences, how certain they are, and what they cost.

Owns the pairing of points, the statistics of a sample of differences, and the table of effects for a
terminal. Replicate k meets the same demand in every point, so differences are taken replicate by replicate.
Pure functions of a Dataset with the schema of results.nc; never touches files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from spbfast.errors import QuestionError, ResultsError
from spbfast.results.analysis import checked_results, outcomes, sweep_params, varied_params
from spbfast.text import format_change, format_number, quote_value, suggest, text_table

PREVIOUS, BASELINE = "previous", "baseline"
METRICS = ("spb_tainted",)
COSTS = ("pgmigrate_success", "direct_reclaim_rounds")
# How long the simulator took says nothing about the machine that it simulated.
NO_RESULTS = ("wall_time", "boot_time")
CONFIDENCE = 0.95
FEW_PAIRS = 10  # a percentile bootstrap of fewer is too narrow to be believed
RESAMPLES = 9999
NAN = float("nan")
# Of the dataset that `compare` returns: column and attribute of Effect.
COLUMNS = {
    **{"control": "control", "value": "value", "difference": "difference"},
    **{"ci_low": "low", "ci_high": "high", "pairs": "pairs"},
}


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

    @property
    def star(self) -> str:
        """``*`` for a clear effect, ``(*)`` where it rests on few pairs."""
        return "" if not self.clear else "*" if self.pairs >= FEW_PAIRS else "(*)"


@dataclass(frozen=True, slots=True)
class Step:
    """One point against its control: its name, the control's name, and an effect a metric."""

    name: str
    control: str
    effects: tuple[Effect, ...]

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON; NaN becomes None."""
        rows = [{k: None if v != v else v for k, v in asdict(effect).items()} for effect in self.effects]
        return {"name": self.name, "control": self.control, "effects": rows}


def compare(
    ds: xr.Dataset,
    by: str | None = None,
    metric: str = "spb_tainted",
    at: str | float = "end",
    *,
    sel: Mapping[str, Any] | None = None,
    confidence: float = CONFIDENCE,
) -> xr.Dataset:
    """Paired differences against the baseline, with bootstrap confidence intervals.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    by : str, optional
        Coordinate that tells treatment from control, such as ``policy_slab_shrink``. If the grid varies it,
        the control is the grid point with the baseline's value (or else the smallest, False first) and
        otherwise the same parameters; if only the baseline differs in it, the control is the baseline. None
        compares every point with the baseline.
    metric : str
        A variable or a counter; one with labels besides time needs `sel`.
    at : {"end", "peak", "mean"} or float
        How a series becomes one value; a float is a time in seconds.
    sel : mapping, optional
        Labels of the metric, such as ``{"counter": "spb_slab_shrink_ran"}``.
    confidence : float
        Level of the interval (percentile bootstrap of the mean difference, fixed random stream).

    Returns
    -------
    Dataset
        Along point: control, value (means over pairs), difference, ci_low, ci_high, pairs, and who the
        control is (control_id, control_name). The interval is NaN with fewer than two pairs; with fewer than
        about ten it is too narrow rather than too wide, and few_pairs says so.

    Raises
    ------
    ResultsError
        When there is nothing to compare with, or the metric does not exist.
    """
    _check_confidence(confidence)
    values = outcomes(ds, metric, at, sel)
    rows, controls = _pairs(ds, by)
    effects = [
        effect_of(metric, values[control], values[row], confidence)
        for row, control in zip(rows, controls, strict=True)
    ]
    units = ds[metric].attrs.get("units", "1") if metric in ds else "1"
    keep = [name for name in ds.coords if ds[name].dims == ("point",)]
    out = ds[keep].isel(point=rows)
    for name, attribute in COLUMNS.items():
        column = np.array([getattr(effect, attribute) for effect in effects])
        out[name] = ("point", column, {} if name == "pairs" else {"units": units})
    names, ids = point_names(ds), ds["point_id"].values
    out["control_id"] = ("point", ids[controls])
    out["control_name"] = ("point", np.array([names[i] for i in controls]))
    out["few_pairs"] = ("point", np.array([effect.pairs < FEW_PAIRS for effect in effects]))
    out.attrs = {"metric": metric, "at": str(at), "confidence": confidence, "by": by or ""}
    return out


def steps(
    ds: xr.Dataset,
    metrics: Sequence[str] = (*METRICS, *COSTS),
    against: str = PREVIOUS,
    at: str | float = "end",
    *,
    confidence: float = CONFIDENCE,
) -> list[Step]:
    """Every point of a sweep against the one before it, or against the baseline.

    The first point, or the baseline, is compared with itself, so that its values can be read.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    metrics : sequence of str
        Variables without labels besides time, or counters such as ``pgmigrate_success``.
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
        hint = suggest(against, (PREVIOUS, BASELINE)) if isinstance(against, str) else ""
        raise QuestionError(f"against must be {PREVIOUS!r} or {BASELINE!r}, got {quote_value(against)}{hint}")
    _check_confidence(confidence)
    checked_results(ds)
    if isinstance(metrics, str):
        metrics = [metrics]
    if ds.sizes["point"] < 2:
        raise QuestionError("there is one point only; a comparison needs two")
    names = point_names(ds)
    values = {metric: outcomes(ds, metric, at) for metric in metrics}
    return [
        Step(
            names[row],
            names[control],
            tuple(effect_of(m, of[control], of[row], confidence) for m, of in values.items()),
        )
        for row, control in _steps_of(ds, against)
    ]


def _steps_of(ds: xr.Dataset, against: str) -> list[tuple[int, int]]:
    """Rows of points with the row of the control of each, the first with itself."""
    order = list(range(ds.sizes["point"]))
    if against == PREVIOUS:
        return list(zip(order, [0, *order[:-1]], strict=True))
    marked = np.flatnonzero(ds["is_baseline"].values).tolist()
    base = marked[0] if marked else 0
    return [(base, base), *((row, base) for row in order if row != base)]


def costs(ds: xr.Dataset) -> list[str]:
    """The cost quantities that the dataset has."""
    counters = ds["counter"].values.tolist() if "counter" in ds.coords else []
    return [name for name in COSTS if name in ds.data_vars or name in counters]


def point_names(ds: xr.Dataset) -> list[str]:
    """A short name for each point: the values of what the sweep varies."""
    params = varied_params(ds)
    if len(params) == 1:
        return [str(v) for v in ds[params[0]].values.tolist()]
    columns = [[f"{p}={v}" for v in ds[p].values.tolist()] for p in params]
    return [", ".join(cells) for cells in zip(*columns, strict=True)] or ["0"] * ds.sizes["point"]


def _check_confidence(confidence: object) -> None:
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise QuestionError(f"confidence must be a number between 0 and 1, got {quote_value(confidence)}")


def _pairs(ds: xr.Dataset, by: str | None) -> tuple[list[int], list[int]]:
    """Rows of points and of the control of each."""
    base = np.flatnonzero(ds["is_baseline"].values).tolist()
    n = ds.sizes["point"]
    if by is None:
        if not base:
            raise ResultsError("the sweep has no baseline; say which parameter to compare by")
        rows = [i for i in range(n) if i != base[0]]
        return rows, [base[0]] * len(rows)
    if not isinstance(by, str) or by not in ds.coords or ds[by].dims != ("point",):
        known = ", ".join(sweep_params(ds))
        raise QuestionError(f"{quote_value(by)} is not a swept parameter; there are {known}")
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


def effect_of(metric: str, control: np.ndarray, value: np.ndarray, confidence: float = CONFIDENCE) -> Effect:
    """What tells two points apart, from their values by replicate (float64 [replicate], NaN without one)."""
    both = np.isfinite(control) & np.isfinite(value)
    if not both.any():
        return Effect(metric, NAN, NAN, NAN, NAN, NAN, 0)
    a, b = control[both], value[both]
    low, high = mean_interval(b - a, confidence)
    return Effect(metric, float(a.mean()), float(b.mean()), float((b - a).mean()), low, high, int(both.sum()))


def mean_interval(sample: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean; the same sample always gives the same interval."""
    if len(sample) < 2:
        return NAN, NAN
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


def verdict(metric: str, difference: ArrayLike, low: ArrayLike, high: ArrayLike) -> str:
    """How often a metric is clearly lower or higher than in the control, in a sentence; arrays by point."""
    diff, lows, highs = (np.asarray(column, "f8") for column in (difference, low, high))
    counts = {
        "lower": int((highs < 0).sum()),
        "higher": int((lows > 0).sum()),
        "the same in every replicate": int(((diff == 0) & (lows == 0) & (highs == 0)).sum()),
        "without results": int(np.isnan(diff).sum()),
    }
    counts["not clearly different"] = len(diff) - sum(counts.values())
    told = ", ".join(f"{words} in {nr}" for words, nr in counts.items() if nr)
    return f"{metric}: of {len(diff)} points, {told} (clear: the {100 * CONFIDENCE:g} % interval excludes 0)"


def steps_text(table: Sequence[Step], confidence: float = CONFIDENCE) -> str:
    """The table for a terminal: the first metric with its effect, the others as value and difference.

    A star marks an effect whose interval excludes 0.
    """
    first, *rest = (effect.metric for effect in table[0].effects)
    percent = f"{100 * confidence:g} %"
    few = any(step.effects[0].star == "(*)" for step in table)
    warning = (
        f"\n(*) the same from fewer than {FEW_PAIRS} pairs, of which such an interval is too narrow: this "
        "may be chance; raise replicates"
    )
    header = ["", first, "difference", f"{percent} interval", "pairs", *(f"{m} (difference)" for m in rest)]
    stars = f"\n* the {percent} interval excludes 0"
    return text_table(header, map(_cells, table)) + stars + (warning if few else "")


def _cells(step: Step) -> list[str]:
    main, *others = step.effects
    own = step.name == step.control
    star = "" if own else main.star
    change = ["", ""] if own else [format_change(main.difference) + star, _interval(main)]
    extra = [format_number(e.value) + ("" if own else f" ({format_change(e.difference)})") for e in others]
    return [step.name, format_number(main.value), *change, str(main.pairs), *extra]


def _interval(effect: Effect) -> str:
    return f"[{format_change(effect.low)}, {format_change(effect.high)}]" if np.isfinite(effect.low) else "-"
