"""The numbers behind a study: what is kept of its sweep, and effects read from that.

Owns the form of results/studies/NAME.json and the comparison of points under the same varied inputs. Runs are
those of configs/studies/NAME.yaml; effects and intervals are spbfast's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from spbfast.results.analysis import outcomes, sweep_params
from spbfast.results.effects import Effect, effect_of
from spbfast.text import format_change, format_number

# The machine's uncertain inputs, by coordinate and value: what a page calls them.
VARIED = {
    ("workers_pinned_share", 0.01): "1 % pinned",
    ("slab_memcgs", 22): "22 memcgs",
    ("reclaim_shrink_slab", "none"): "kswapd sparing slab",
    ("reclaim_barred_free", "subtracted"): "barred pages subtracted",
    ("reclaim_kswapd_wake", "low"): "kswapd woken at low",
}
AS_FILE = "as in the file"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is read of each run.

    Attributes
    ----------
    names : tuple of str
        Variables or counters, whose sum is taken.
    at : str or float
        As `outcomes` has it: "end", "peak", or seconds.
    unit : str
        As a page writes it after a number.
    scale : float
        What the sum is multiplied by.
    per : tuple of str
        Variables or counters by whose sum it is divided.
    since : float or None
        The value at this second is taken off first, also from `per`.
    """

    names: tuple[str, ...]
    unit: str
    at: str | float = "end"
    scale: float = 1.0
    per: tuple[str, ...] = ()
    since: float | None = None


@dataclass(frozen=True)
class Numbers:
    """What is kept of a study: by point its own settings, the varied input, and values by replicate."""

    kept: Mapping[str, Any]

    def values(self, metric: str, varied: str = AS_FILE, **own: Any) -> np.ndarray:
        """Values of one point by replicate.

        Raises
        ------
        KeyError
            No point has these settings.
        """
        for point in self.kept["points"]:
            if point["varied"] == varied and all(point["own"][key] == value for key, value in own.items()):
                return np.array([np.nan if v is None else v for v in point["values"][metric]])
        raise KeyError(f"no point with {own}, {varied}")

    def mean(self, metric: str, varied: str = AS_FILE, **own: Any) -> float:
        """Mean over replicates."""
        return float(np.nanmean(self.values(metric, varied, **own)))

    def effect(
        self,
        metric: str,
        value: Mapping[str, Any],
        control: Mapping[str, Any] | None,
        varied: str = AS_FILE,
    ) -> Effect:
        """Two points against each other, paired by replicate; without a control the values themselves."""
        values = self.values(metric, varied, **value)
        below = np.zeros_like(values) if control is None else self.values(metric, varied, **control)
        return effect_of(metric, below, values)

    def has(self, varied: str, *settings: Mapping[str, Any] | None) -> bool:
        """Whether there are points of all these settings under a varied input."""
        there = [p["own"] for p in self.kept["points"] if p["varied"] == varied]
        return all(any(own.items() >= dict(wanted or {}).items() for own in there) for wanted in settings)

    @property
    def varied(self) -> list[str]:
        """The varied inputs, in the order of the file."""
        return list(dict.fromkeys(p["varied"] for p in self.kept["points"] if p["varied"] != AS_FILE))

    def own(self, key: str) -> list[Any]:
        """The values of one of the study's own keys, in the order of the file, nothing else varied."""
        return list(dict.fromkeys(p["own"][key] for p in self.kept["points"] if p["varied"] == AS_FILE))

    @property
    def replicates(self) -> int:
        """Runs of each point."""
        return int(self.kept["replicates"])


def keep(ds: xr.Dataset, own: Sequence[str], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """What is kept of a finished sweep.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    own : sequence of str
        Coordinates that the study's question is about; all other swept ones are varied inputs.
    metrics : mapping
        What is read, by name.

    Raises
    ------
    KeyError
        A varied input has no words.
    """
    read = {name: _outcomes(ds, metric) for name, metric in metrics.items()}
    others = [name for name in sweep_params(ds) if name not in own]
    points = [
        {
            "own": {name: ds[name].values[i].item() for name in own},
            "varied": _varied({name: ds[name].values[i].item() for name in others}),
            "values": {name: [_plain(v) for v in values[i]] for name, values in read.items()},
        }
        for i in range(ds.sizes["point"])
    ]
    return {
        "replicates": int(ds.sizes["replicate"]),
        "seconds_simulated": float(np.nanmax(ds["time"].values)),
        "wall_s": round(float(np.nansum(ds["wall_time"].values)), 1),
        "model_version": int(ds.attrs.get("model_version", 0)),
        "points": points,
    }


def _outcomes(ds: xr.Dataset, metric: Metric) -> np.ndarray:
    def total(names: Sequence[str]) -> np.ndarray:
        found = np.sum([outcomes(ds, name, metric.at) for name in names], axis=0)
        if metric.since is not None:
            found = found - np.sum([outcomes(ds, name, metric.since) for name in names], axis=0)
        return found

    values = total(metric.names) * metric.scale
    return values / total(metric.per) if metric.per else values


def _varied(values: Mapping[str, Any]) -> str:
    """The words for the inputs that are not as in the file; at most one a point."""
    found = [VARIED[item] for item in values.items() if item in VARIED]
    return " and ".join(found) or AS_FILE


def _plain(value: float) -> float | None:
    return None if value != value else float(f"{value:.7g}")


def sign(effect: Effect) -> int:
    """1 for a clear rise, -1 for a clear fall, 0 where the interval holds 0."""
    return (effect.low > 0) - (effect.high < 0)


def told(effect: Effect, unit: str = "") -> str:
    """A difference with its 95 % interval."""
    span = (
        f"[{format_change(effect.low)}, {format_change(effect.high)}]"
        if effect.low != effect.high
        else "in every pair"
    )
    return f"{format_change(effect.difference)}{unit and ' '}{unit} {span}"


def number(x: float) -> str:
    """A number of three figures."""
    return format_number(x)
