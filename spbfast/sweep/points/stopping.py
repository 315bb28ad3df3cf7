"""When a point has enough replicates: an interval that may be looked at as often as one likes.

Owns the confidence sequence and the looks. A pure function of the results, so it does not matter who computed
them, in which order, or how often a sweep was interrupted.

Source: H. Wang and A. Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown
variance (arXiv:2310.03722), the test martingale that mixes the standardised mean over a normal distribution;
after T. L. Lai, On confidence sequences, Annals of Statistics 4 (1976).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spbfast.config.replicates import ReplicatesSpec
from spbfast.outputs.variables import VARIABLES

MIXING = 1.0  # inverse variance of the mixing distribution of mean / standard deviation
ROUNDING = 1 / 12  # variance of the rounding of a whole number


@dataclass(frozen=True)
class StopVerdict:
    """What is known of a point's replicates.

    Attributes
    ----------
    replicates : int
        How many the point is known to need.
    half_width : float
        Of the interval after the last look; infinite or NaN where there is none.
    is_narrow : bool
        Whether that is as narrow as wanted.
    is_final : bool
        Whether nothing more has to be run for it.
    """

    replicates: int
    half_width: float = math.nan
    is_narrow: bool = False
    is_final: bool = False


def looks(least: int, most: int) -> list[int]:
    """Numbers of replicates after which a point is judged: a quarter more each time."""
    found = [least]
    while found[-1] < most:
        found.append(min(most, found[-1] + -(-found[-1] // 4)))
    return found


def mean_half_width(values: Sequence[float], level: float, least_variance: float = 0.0) -> float:
    """Half width of the confidence sequence for the mean of normal values, after the last of them.

    The intervals after any number of values, all of them together, hold the mean with probability `level`.
    Infinite while there are too few.

    Parameters
    ----------
    least_variance : float
        The values' variance is taken to be no less: equal values say little of the spread.
    """
    n = len(values)
    if n < 2:
        return math.inf
    variance = max(float(np.var(values, ddof=1)), least_variance)
    shrunk = MIXING / (n + MIXING)
    threshold = math.exp((-math.log(shrunk) - 2 * math.log(1 - level)) / n)
    if threshold * shrunk >= 1:
        return math.inf
    squared_t = (n - 1) * (threshold - 1) / (1 - threshold * shrunk)
    return math.sqrt(squared_t * variance / n)


class StopRule:
    """The rule of a job: how many replicates a point needs, given its values."""

    def __init__(self, spec: ReplicatesSpec) -> None:
        assert spec.until is not None
        self.spec, self.until = spec, spec.until
        self.metric, self.is_paired = spec.until.metric, spec.until.of == "difference"
        whole = np.dtype(VARIABLES[self.metric].dtype).kind in "iu"
        self._least_variance = (2 if self.is_paired else 1) * ROUNDING if whole else 0.0

    def judge(self, values: Sequence[float | None]) -> StopVerdict:
        """The verdict on one point.

        Parameters
        ----------
        values : sequence of float or None
            By replicate: None is not known yet, NaN a run that failed, which is left out.
        """
        width = math.nan
        for nr in looks(self.spec.min, self.spec.max):
            if any(value is None for value in values[:nr]) or len(values) < nr:
                return StopVerdict(nr, width)
            usable = [v for v in values[:nr] if v is not None and not math.isnan(v)]
            width = mean_half_width(usable, self.until.level, self._least_variance)
            if not usable:
                return StopVerdict(nr, width, is_final=True)  # all failed, and others would
            if width <= self.until.half_width:
                return StopVerdict(nr, width, is_narrow=True, is_final=True)
        return StopVerdict(self.spec.max, width, is_final=True)

    def words(self) -> str:
        """The rule in words."""
        of = "its paired difference to the baseline" if self.is_paired else "its mean"
        return (
            f"{self.spec.min} to {self.spec.max} a point, until the {100 * self.until.level:g} % interval of "
            f"{of} in {self.metric} is at most {self.until.half_width:g} to either side"
        )
