"""Which value of a swept number is good enough: the knee of a response curve, with its interval.

Owns the definition of the knee, the test that says whether the number matters at all, and the verdict in
words. Replicate k meets the same demand at every value, so replicates are resampled whole. Pure functions of
a Dataset with the schema of results.nc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError
from spbfast.outputs.counters import counter_docs
from spbfast.outputs.variable_rows import HIGHER, LOWER, NEITHER
from spbfast.outputs.variables import VARIABLES
from spbfast.results.analysis import outcomes
from spbfast.results.effects import CONFIDENCE, FEW_PAIRS, RESAMPLES, mean_interval
from spbfast.results.response import LINES_MAX, VALUES_MIN, find_swept_number, settings_of
from spbfast.text import format_number, format_value, quote_value

WITHIN = 0.1
MATTERS_P = 0.05
ALIKE, UNCLEAR, FEW, UP_TO, FROM, BETWEEN = "alike", "unclear", "few", "up to", "from", "between"


@dataclass(frozen=True, slots=True)
class Level:
    """The metric at one value: its mean over pairs, how far it is from the best, and that interval."""

    value: float
    shown: str
    mean: float
    from_best: float
    low: float
    high: float
    is_good: bool


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of the good values, and the interval that the resampled replicates put it in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The good values of one number, under one setting of the other swept keys.

    Attributes
    ----------
    setting : str
        The other swept keys, "" if there are none or the mean over all of them is taken.
    kind : str
        ``up to`` an edge, ``from`` one, ``between`` two; ``alike`` in every replicate, ``unclear`` when the
        replicates vary as much as the values, ``few`` when there are too few replicates to tell.
    pairs : int
        Replicates that all values have.
    p : float
        Chance of a span of means as large as this if the value did not matter; NaN with fewer than two pairs.
    lower, upper : Edge or None
        Ends of the good values where they are not the ends of what was swept.
    levels : tuple of Level
        By value, ascending.
    is_monotone : bool
        Whether no step of the curve goes clearly against the others.
    words : str
        The verdict.
    """

    setting: str
    kind: str
    pairs: int
    p: float
    lower: Edge | None
    upper: Edge | None
    levels: tuple[Level, ...]
    is_monotone: bool
    words: str

    def data(self) -> dict[str, Any]:
        """As plain data, for JSON; NaN becomes None."""
        found: dict[str, Any] = _without_nan(asdict(self))
        return found


def knees(
    ds: xr.Dataset,
    over: str = "",
    metric: str = "spb_tainted",
    at: str | float = "end",
    *,
    within: float = WITHIN,
    better: str = "",
) -> list[Knee]:
    """The values of a swept number that are good enough, for each setting of the other swept keys.

    A value is good enough when the mean of the metric there lies within a share of the curve's whole range
    from its best point, and so at every swept value between them: on the values that were swept, what dose
    finding calls the ED90, for the usual share of a tenth. Nothing between swept values is interpolated.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    over : str
        The swept key, such as ``policy.slab_shrink_throttle``; by default the only number.
    metric : str
        A variable without labels besides time, or a counter.
    at : {"end", "peak", "mean"} or float
        How a series becomes one value; a float is a time in seconds.
    within : float
        The share, between 0 and 1.
    better : {"lower", "higher"}, optional
        Which direction of the metric is good; by default that of the variable.

    Returns
    -------
    list of Knee
        One over the mean of all settings if there are more than six.

    Raises
    ------
    QuestionError
        The key is no swept number, the metric does not exist, or neither direction of it is better.
    ResultsError
        No replicate has results at three values that differ in the number alone.
    """
    if isinstance(within, bool) or not isinstance(within, int | float) or not 0 < within < 1:
        raise QuestionError(f"within must be a share between 0 and 1, got {quote_value(within)}")
    values = outcomes(ds, metric, at)
    sign = _sign(metric, better)
    name = find_swept_number(ds, over)
    found = [
        _knee(setting, x, y, sign, within, str(ds[name].attrs.get("units", "1")))
        for setting, x, y in _curves(ds, name, values)
    ]
    if not found:
        raise QuestionError(
            f"no replicate has {metric} at {VALUES_MIN} or more values of {name} that differ in it alone"
        )
    return found


def _sign(metric: str, better: str) -> int:
    """1 where less is better, -1 where more is."""
    if better not in ("", "lower", "higher"):
        raise QuestionError(f"better must be 'lower' or 'higher', got {quote_value(better)}")
    known = VARIABLES.get(metric) or counter_docs().get(metric)
    direction = known.direction if known else NEITHER
    if better:
        direction = LOWER if better == "lower" else HIGHER
    if direction == NEITHER:
        raise QuestionError(f"neither direction of {metric} is better; say --better lower or --better higher")
    return 1 if direction == LOWER else -1


def _curves(ds: xr.Dataset, name: str, values: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Of each setting its words, the values x and float64 [x, pair] from replicates that all values have."""
    grid = np.flatnonzero(ds["in_grid"].values & np.isfinite(values).any(axis=1))
    own, settings = ds[name].values.astype("f8"), settings_of(ds, name, grid)
    curves = []
    for setting in dict.fromkeys(settings):
        points = np.array([p for p, words in zip(grid, settings, strict=True) if words == setting])
        points = points[np.argsort(own[points], kind="stable")]
        if len(points) >= VALUES_MIN:
            curves.append((setting, own[points], values[points]))
    if len(curves) > LINES_MAX:
        curves = _averaged(curves)
    whole = [(setting, x, y[:, np.isfinite(y).all(axis=0)]) for setting, x, y in curves]
    return [curve for curve in whole if curve[2].size]


def _averaged(
    curves: list[tuple[str, np.ndarray, np.ndarray]],
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """One curve over those settings that have the most values, replicate by replicate."""
    longest = max((x for _, x, _ in curves), key=len)
    alike = [y for _, x, y in curves if np.array_equal(x, longest)]
    return [(f"mean of {len(alike)} settings of the other keys", longest, np.mean(alike, axis=0))]


def _knee(setting: str, x: np.ndarray, y: np.ndarray, sign: int, within: float, units: str) -> Knee:
    pairs = y.shape[1]
    means = y.mean(axis=1)
    p = _chance(y) if pairs > 1 else float("nan")
    kind = _doubt(y, p)
    edges: tuple[Edge | None, Edge | None] = (None, None)
    good = np.ones(len(x), bool)
    if not kind:
        first, last = (int(i) for i in good_range(sign * means, within))
        good = (np.arange(len(x)) >= first) & (np.arange(len(x)) <= last)
        edges = _edges(x, y, sign, within, first, last)
        kind = BETWEEN if all(edges) else UP_TO if edges[1] is not None else FROM
    apart = y - y[(sign * means).argmin()]
    levels = tuple(
        Level(
            float(v), format_value(v, units), float(m), float(row.mean()), *mean_interval(row), bool(is_good)
        )
        for v, m, row, is_good in zip(x, means, apart, good, strict=True)
    )
    monotone = _is_monotone(y, within)
    draft = Knee(setting, kind, pairs, p, *edges, levels, monotone, "")
    return Knee(setting, kind, pairs, p, *edges, levels, monotone, _words(draft, sign, within, units))


def good_range(costs: np.ndarray, within: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last index of the values around the least cost that are within a share of the range from it.

    Parameters
    ----------
    costs : ndarray
        float64 [x, ...], less is better.

    Returns
    -------
    first, last : ndarray
        intp [...].
    """
    best = costs.argmin(axis=0)
    least, most = costs.min(axis=0), costs.max(axis=0)
    good = costs <= least + within * (most - least)
    first, last = best.copy(), best.copy()
    nr = len(costs)
    for _ in range(nr - 1):
        left, right = np.maximum(first - 1, 0), np.minimum(last + 1, nr - 1)
        first = np.where(np.take_along_axis(good, left[None], 0)[0], left, first)
        last = np.where(np.take_along_axis(good, right[None], 0)[0], right, last)
    return first, last


def _edges(
    x: np.ndarray, y: np.ndarray, sign: int, within: float, first: int, last: int
) -> tuple[Edge | None, Edge | None]:
    from scipy.stats import bootstrap

    def statistic(*rows: np.ndarray, axis: int = -1) -> np.ndarray:
        means = np.stack([row.mean(axis=axis) for row in rows])
        return np.stack(good_range(sign * means, within)).astype("f8")  # scipy takes floats only

    found = bootstrap(
        tuple(y),
        statistic,
        n_resamples=RESAMPLES,
        paired=True,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    tail = (1 - CONFIDENCE) / 2
    spans = np.quantile(found.bootstrap_distribution, (tail, 1 - tail), axis=-1, method="inverted_cdf")
    low, high = x[spans.astype(int)]
    lower = None if first == 0 else Edge(float(x[first]), float(low[0]), float(high[0]))
    upper = None if last == len(x) - 1 else Edge(float(x[last]), float(low[1]), float(high[1]))
    return lower, upper


def _chance(y: np.ndarray) -> float:
    """Chance of so large a span of means if a replicate's results could stand at any value."""
    from scipy.stats import permutation_test

    def statistic(*rows: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.ptp(np.stack([row.mean(axis=axis) for row in rows]), axis=0)

    if not np.ptp(y, axis=0).any():
        return 1.0
    found = permutation_test(
        tuple(y),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _doubt(y: np.ndarray, p: float) -> str:
    """Why there is no knee, "" if there is one."""
    nr, pairs = y.shape
    if pairs and not np.ptp(y, axis=0).any():
        return ALIKE
    # The least chance that the test can give: in every replicate the same values are highest and lowest.
    if pairs < 2 or (nr * (nr - 1)) ** (pairs - 1) * MATTERS_P <= 1:
        return FEW
    return UNCLEAR if p > MATTERS_P else ""


def _is_monotone(y: np.ndarray, within: float) -> bool:
    """Whether no two steps go in opposite directions, each clearly and by more than counts as good enough.

    All steps are judged together (Bonferroni).
    """
    steps, means = np.diff(y, axis=0), y.mean(axis=1)
    confidence = 1 - (1 - CONFIDENCE) / len(steps)
    large = [step for step in steps if abs(step.mean()) > within * np.ptp(means)]
    spans = [mean_interval(step, confidence) for step in large]
    return not (any(low > 0 for low, _ in spans) and any(high < 0 for _, high in spans))


def _words(knee: Knee, sign: int, within: float, units: str) -> str:
    means = [level.mean for level in knee.levels]
    span = f"{format_number(min(means))} to {format_number(max(means))}"
    if knee.kind == ALIKE:
        return f"No value matters: every replicate is the same at all {len(means)} values."
    if knee.kind == FEW:
        return f"Too few replicates to tell: {knee.pairs}; the means go from {span}. Raise replicates."
    if knee.kind == UNCLEAR:
        return (
            f"No value matters as far as {knee.pairs} replicates can tell: the means go from {span}, and "
            f"chance alone makes such a span in {100 * knee.p:.2g} % of cases."
        )
    best = min(knee.levels, key=lambda level: sign * level.mean)
    ends = [_edge_words(end, units) for end in (knee.lower, knee.upper) if end is not None]
    only = knee.lower is not None and knee.upper is not None and knee.lower.value == knee.upper.value
    place = f"between {' and '.join(ends)}" if knee.kind == BETWEEN else f"{knee.kind} {ends[0]}"
    head = f"Good enough {'only at ' + ends[0] if only else place}"
    lines = [
        f"{head}: within {100 * within:g} % of the range of means ({span}) from the best, "
        f"{format_number(best.mean)} at {best.shown}."
    ]
    if not knee.is_monotone:
        lines.append("The curve is not monotone: some steps improve it clearly and others worsen it.")
    if knee.pairs < FEW_PAIRS:
        lines.append(f"Of {knee.pairs} pairs such an interval is too narrow; raise replicates.")
    return " ".join(lines)


def _edge_words(end: Edge, units: str) -> str:
    low, high = format_value(end.low, units), format_value(end.high, units)
    span = low if low == high else f"{low} to {high}"
    return f"{format_value(end.value, units)} ({100 * CONFIDENCE:g} % interval {span})"


def table_of(found: Sequence[Knee]) -> list[dict[str, Any]]:
    """A row for each value of each setting, for CSV."""
    return [
        {"setting": knee.setting, **asdict(level), "pairs": knee.pairs, "kind": knee.kind}
        for knee in found
        for level in knee.levels
    ]


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and tree != tree else tree
