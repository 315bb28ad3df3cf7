"""What the page judges by: metrics with their values, differences from a control, and a sentence for each.

Owns which metrics a page shows by default and how a metric is told in words. Pure functions of a Dataset
with the schema of results.nc; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from spbfast.outputs.variables import NEITHER, VARIABLES
from spbfast.results.analysis import outcomes
from spbfast.results.effects import Effect, effect_of
from spbfast.sweep.store.shards import OK
from spbfast.text import format_change, format_number

DEFAULT_METRICS = (
    *("tainted_end", "contig_1g_obtainable", "contig_alloc_success"),
    *("alloc_failed_blocking", "alloc_failed_atomic", "pgmigrate_success", "allocstall_normal"),
)
# A scalar and the series that it is the end of.
SERIES_OF = {
    "tainted_end": "spb_tainted",
    "tainted_peak": "spb_tainted",
    "contig_1g_obtainable": "contig_1g_without_reclaim",
}
# Counters have no entry in the registry of variables; these are what people look for first.
COUNTER_WORDS = {
    "contig_alloc_success": ("requests for gigantic pages that were served", "higher is better"),
    "contig_alloc_fail": ("requests for gigantic pages that failed", "lower is better"),
    "alloc_failed_blocking": ("failed allocations of blocking callers", "lower is better"),
    "alloc_failed_atomic": ("failed allocations of atomic callers", "lower is better"),
    "pgmigrate_success": ("pages migrated", "lower is better"),
    "allocstall_normal": ("stalls in direct reclaim", "lower is better"),
    "taints": ("superpageblocks tainted, over the whole run", "lower is better"),
}
# With more points than this, intervals are for the drawn ones alone: each takes milliseconds.
INTERVALS_MAX = 40


@dataclass(frozen=True, slots=True)
class Judged:
    """A metric of the page.

    Attributes
    ----------
    name, title, direction : str
        The variable or counter, its words, and "lower is better", "higher is better" or neither.
    values : ndarray
        float64 [point, replicate], at the end of the run; NaN where a run has no result.
    control : int
        The point that others are compared with.
    effects : dict
        Difference from the control, by point.
    """

    name: str
    title: str
    direction: str
    values: np.ndarray
    control: int
    effects: dict[int, Effect]

    @property
    def is_alike(self) -> bool:
        """Whether the points don't differ, replicate by replicate."""
        apart = self.values - self.values[self.control]
        return not bool(np.nan_to_num(apart).any())

    @property
    def means(self) -> np.ndarray:
        """float64 [point]: mean over replicates; NaN without results."""
        known = np.isfinite(self.values)
        total = np.where(known, self.values, 0).sum(axis=1)
        return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def control_of(ds: xr.Dataset) -> int:
    """The baseline, or else the first point that has results."""
    alive = (ds["status"].transpose("point", "replicate").values == OK).any(axis=1)
    base = np.flatnonzero(ds["is_baseline"].values & alive)
    first = base if len(base) else np.flatnonzero(alive)
    return int(first[0]) if len(first) else 0


def words_of(name: str) -> tuple[str, str]:
    """Title and direction of a variable or counter."""
    if name in VARIABLES:
        return VARIABLES[name].long_name, VARIABLES[name].direction
    return COUNTER_WORDS.get(name, (name.replace("_", " "), NEITHER))


def judged_metrics(ds: xr.Dataset, shown: Sequence[int], metrics: Sequence[str] = ()) -> list[Judged]:
    """The metrics asked for, or of the usual ones those that were recorded and are not 0 throughout.

    Raises
    ------
    ResultsError
        A metric that was asked for does not exist, or has labels besides time.
    """
    control = control_of(ds)
    points = range(ds.sizes["point"]) if ds.sizes["point"] <= INTERVALS_MAX else shown
    found = []
    for name in metrics or _recorded(ds):
        values = outcomes(ds, name)
        if not metrics and not np.nan_to_num(values).any():
            continue
        effects = {i: effect_of(name, values[control], values[i]) for i in points if i != control}
        found.append(Judged(name, *words_of(name), values, control, effects))
    return found


def _recorded(ds: xr.Dataset) -> list[str]:
    counters = set(ds["counter"].values.tolist()) if "vmstat" in ds.data_vars else set()
    return [n for n in DEFAULT_METRICS if n in ds.data_vars or n in counters]


def series_of(ds: xr.Dataset, name: str) -> xr.DataArray | None:
    """What a metric looks like over time, or None where that was not recorded."""
    name = SERIES_OF.get(name, name)
    if name in ds.data_vars:
        return ds[name] if set(ds[name].dims) == {"point", "replicate", "time"} else None
    try:
        da = ds["vmstat"].sel(counter=name, drop=True)
    except KeyError:
        return None
    return da if "time" in da.dims else None


def over_time_title(name: str, title: str) -> str:
    """What the series of a metric is called."""
    series = SERIES_OF.get(name)
    return VARIABLES[series].long_name if series else f"{title}, over time"


# -- in words ------------------------------------------------------------------------------------------


def sentence(judged: Judged, labels: Sequence[str]) -> str:
    """What the sweep says about a metric: where it is lowest and highest, and against what."""
    means = judged.means
    alive = [i for i in range(len(means)) if np.isfinite(means[i])]
    if len(alive) < 2 or judged.is_alike:
        return _alike(judged, len(alive))
    others = [i for i in alive if i != judged.control]
    low, high = min(others, key=lambda i: means[i]), max(others, key=lambda i: means[i])
    own = format_number(float(means[judged.control]))
    parts = [f"{own} in {labels[judged.control]}"]
    parts += [_extreme("lowest", low, judged, labels)]
    if means[low] != means[high]:
        parts += [_extreme("highest", high, judged, labels)]
    return f"{'; '.join(parts)}.{_how_many(judged)}"


def _alike(judged: Judged, alive: int) -> str:
    own = judged.values[np.isfinite(judged.values)]
    if len(own) == 0:
        return "No run has a result."
    low, high = format_number(float(own.min())), format_number(float(own.max()))
    amount = low if low == high else f"{low} to {high}"
    return f"{amount}." if alive < 2 else f"The same in every point, replicate by replicate: {amount}."


def _extreme(word: str, point: int, judged: Judged, labels: Sequence[str]) -> str:
    text = f"{word} {format_number(float(judged.means[point]))} in {labels[point]}"
    effect = judged.effects.get(point)
    return text if effect is None else f"{text} ({effect_words(effect)})"


def effect_words(effect: Effect) -> str:
    """A difference with its interval and what that rests on."""
    if effect.pairs == 0:
        return "no pair"
    change, low, high = map(signed_number, (effect.difference, effect.low, effect.high))
    if not np.isfinite(effect.low):
        return f"{change}; one pair, so no interval"
    return f"{change}, 95 % interval {low} to {high}, {effect.pairs} pairs"


def signed_number(x: float) -> str:
    """A difference with its sign, and a typographic minus."""
    return format_change(x).replace("-", "\N{MINUS SIGN}")


def _how_many(judged: Judged) -> str:
    """Of the points with an interval, how many are clearly apart from the control."""
    known = [e for e in judged.effects.values() if np.isfinite(e.low)]
    if len(known) < 2:
        return ""
    clear = sum(e.clear for e in known)
    return f" Intervals without 0: {clear} of {len(known)}." if clear else " All intervals include 0."
