"""Mixtures of exponentials from right-censored lifetimes.

Owns the estimate, its intervals, and how far it lies from the data. Lifetimes are grouped on a log grid of 60
bins a decade, in which an exponential hardly bends; of each bin the mean counts.

Method: maximum likelihood by EM (Dempster, Laird and Rubin 1977; with censored observations the expected
exposures and deaths of each part are in closed form), finished by BFGS on log means and logits. Parts are
added one by one, each time where splitting a part gains most, as long as BIC falls, with the number of ended
lives as its sample size (Volinsky and Raftery 2000). Intervals are 99 %, of log means and logits, from the
larger of two variances: the observed information's (Louis 1982), and the sandwich over blocks of time, which
allows for lives that end together (Liang and Zeger 1986). The yardstick is the estimate of Kaplan and Meier
(1958).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS_A_DECADE = 60
SHORTEST_S = 1e-6
DECADES = 10
NR_BINS = BINS_A_DECADE * DECADES
TIME_BLOCKS = 40
MOST_PARTS = 8
LEVEL = 0.99
FEW_DEATHS = 5.0
MANY_CENSORED = 0.8
LEAST_AT_RISK = 0.05  # share of the lives; behind that the yardstick itself is loose
_EM_TRIAL, _EM_START = 30, 60


class GroupedLives(NamedTuple):
    """Lifetimes on the log grid, by block of time in which they began.

    Attributes
    ----------
    ended, censored : ndarray
        int64 [TIME_BLOCKS, NR_BINS]
    ended_mean, censored_mean : ndarray
        float64 [NR_BINS]; mean lifetime of a bin, s.
    """

    ended: np.ndarray
    censored: np.ndarray
    ended_mean: np.ndarray
    censored_mean: np.ndarray

    @property
    def nr_ended(self) -> int:
        """Ended lives."""
        return int(self.ended.sum())

    @property
    def nr(self) -> int:
        """All lives."""
        return self.nr_ended + int(self.censored.sum())


@dataclass(frozen=True)
class MixturePart:
    """One exponential of a mixture.

    Attributes
    ----------
    mean, mean_low, mean_high : float
        Mean lifetime and its interval, s; the upper end is infinite where only a bound is known.
    share, share_low, share_high : float
        Of the blocks.
    deaths : float
        Ended lives that are expected to belong to it.
    is_bound : bool
        The recording does not tell the mean: nearly all of its blocks outlive it. `mean` is then no estimate.
    """

    mean: float
    mean_low: float
    mean_high: float
    share: float
    share_low: float
    share_high: float
    deaths: float
    is_bound: bool


@dataclass(frozen=True)
class FittedMixture:
    """A mixture, and how well it tells the data.

    Attributes
    ----------
    parts : tuple of MixturePart
        By mean.
    distance : float
        Largest distance of its survival function from Kaplan and Meier's, as far as 5 % of the lives are at
        risk.
    distance_by_chance : float
        What a right mixture stays below in 99 of 100 samples of this size (1.63 / sqrt of ended lives).
    bic : float
    """

    parts: tuple[MixturePart, ...]
    distance: float
    distance_by_chance: float
    bic: float


def bin_edges() -> np.ndarray:
    """Upper edges of the bins, s: float64 [NR_BINS]."""
    return SHORTEST_S * 10 ** (np.arange(1, NR_BINS + 1) / BINS_A_DECADE)


def grouped_lives(seconds: np.ndarray, ended: np.ndarray, block: np.ndarray) -> GroupedLives:
    """Group lifetimes.

    Parameters
    ----------
    seconds : ndarray
        float64 [n], finite.
    ended : ndarray
        bool [n]
    block : ndarray
        int64 [n], 0 .. TIME_BLOCKS - 1.
    """
    clipped = np.maximum(seconds, SHORTEST_S)
    index = np.clip((np.log10(clipped / SHORTEST_S) * BINS_A_DECADE).astype(np.int64), 0, NR_BINS - 1)
    counts, means = [], []
    middle = bin_edges() * 10 ** (-0.5 / BINS_A_DECADE)
    for chosen in (ended, ~ended):
        cell = block[chosen] * NR_BINS + index[chosen]
        counts.append(np.bincount(cell, minlength=TIME_BLOCKS * NR_BINS).reshape(TIME_BLOCKS, NR_BINS))
        total = np.bincount(index[chosen], weights=clipped[chosen], minlength=NR_BINS)
        nr = counts[-1].sum(axis=0)
        means.append(np.where(nr > 0, total / np.maximum(nr, 1), middle))
    return GroupedLives(counts[0], counts[1], means[0], means[1])


class _Cells:
    """Cells that hold something, ended ones first: time, whether ended, weight."""

    def __init__(self, lives: GroupedLives) -> None:
        ended, censored = lives.ended.sum(axis=0), lives.censored.sum(axis=0)
        one, two = np.flatnonzero(ended), np.flatnonzero(censored)
        self.time = np.concatenate([lives.ended_mean[one], lives.censored_mean[two]])
        self.ended = np.concatenate([np.ones(len(one)), np.zeros(len(two))])
        self.nr = np.concatenate([ended[one], censored[two]]).astype(float)
        self.by_block = np.concatenate([lives.ended[:, one], lives.censored[:, two]], axis=1)

    def parts_of(self, share: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, float]:
        """Chance of each cell to belong to each part, float64 [cells, parts], and the log likelihood."""
        logs = np.log(share) - self.ended[:, None] * np.log(mean) - self.time[:, None] / mean
        top = logs.max(axis=1, keepdims=True)
        weights = np.exp(logs - top)
        sums = weights.sum(axis=1, keepdims=True)
        return weights / sums, float(self.nr @ (top + np.log(sums))[:, 0])

    def em(self, share: np.ndarray, mean: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, float]:
        """EM steps; shares, means and the log likelihood before the last."""
        value = -np.inf
        for _ in range(steps):
            chance, value = self.parts_of(share, mean)
            weighted = chance * self.nr[:, None]
            share = np.maximum(weighted.sum(axis=0), 1e-9)
            share = share / share.sum()
            deaths = np.maximum(self.ended @ weighted, 1e-6)
            mean = np.clip(self.time @ weighted / deaths, self.least, self.most)
        return share, mean, value

    @property
    def least(self) -> float:
        return 0.1 * float(self.time.min())

    @property
    def most(self) -> float:
        return 1e3 * float(self.time.max())

    def scores(self, theta: np.ndarray) -> np.ndarray:
        """Derivatives of each cell's log likelihood by log means and logits: float64 [cells, 2 parts - 1]."""
        share, mean = _unpacked(theta)
        chance, _ = self.parts_of(share, mean)
        by_mean = chance * (self.time[:, None] / mean - self.ended[:, None])
        return np.concatenate([by_mean, (chance - share)[:, :-1]], axis=1)

    def polish(self, share: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The top of the likelihood near a start."""
        from scipy.optimize import minimize

        total = self.nr.sum()
        k = len(mean)
        ends = np.log([self.least, self.most])

        def inside(theta: np.ndarray) -> np.ndarray:
            return np.concatenate([np.clip(theta[:k], *ends), np.clip(theta[k:], -30, 30)])

        def downhill(theta: np.ndarray) -> tuple[float, np.ndarray]:
            kept = inside(theta)
            value = self.parts_of(*_unpacked(kept))[1]
            slope = np.where(kept == theta, self.nr @ self.scores(kept), 0.0)
            return -value / total, -slope / total

        # Not L-BFGS-B: it calls LAPACK on tiny matrices, where threads only wait for each other.
        options = {"maxiter": 300, "gtol": 1e-7}
        found = minimize(downhill, _packed(share, mean), jac=True, method="BFGS", options=options)
        share, mean = _unpacked(inside(found.x))
        order = np.argsort(mean)
        return share[order], mean[order], -float(found.fun) * total


def _packed(share: np.ndarray, mean: np.ndarray) -> np.ndarray:
    logits = np.log(np.maximum(share, 1e-12)) - np.log(max(share[-1], 1e-12))
    return np.concatenate([np.log(mean), np.clip(logits[:-1], -30, 30)])


def _unpacked(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k = (len(theta) + 1) // 2
    logits = np.append(theta[k:], 0.0)
    share = np.exp(logits - logits.max())
    return share / share.sum(), np.exp(theta[:k])


def fit_mixture(lives: GroupedLives, most_parts: int = MOST_PARTS) -> FittedMixture:
    """The mixture that BIC chooses.

    Raises
    ------
    ValueError
        Without lives.
    """
    if not lives.nr:
        raise ValueError("no lifetimes to fit")
    cells = _Cells(lives)
    size = np.log(max(lives.nr_ended, 2))
    best = cells.polish(np.ones(1), cells.em(np.ones(1), np.array([1.0]), 2)[1])
    bic = -2 * best[2] + size
    while len(best[1]) < most_parts:
        found = _one_more(cells, best)
        value = -2 * found[2] + (2 * len(found[1]) - 1) * size
        if value >= bic - 1e-6:
            break
        best, bic = found, value
    share, mean, _ = best
    distance = _largest_distance(lives, share, mean)
    chance = 1.63 / np.sqrt(max(lives.nr_ended, 1))
    return FittedMixture(_with_intervals(cells, share, mean), distance, float(min(chance, 1.0)), float(bic))


def _one_more(
    cells: _Cells, best: tuple[np.ndarray, np.ndarray, float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """The best mixture with one part more: each part split in two, the most promising one followed."""
    share, mean, _ = best
    tries = []
    for j in range(len(mean)):
        for spread in (2.0, 10.0):
            halves = np.append(mean, mean[j] * spread)
            halves[j] /= spread
            shares = np.append(share, share[j] / 2)
            shares[j] /= 2
            tries.append(cells.em(shares, np.clip(halves, cells.least, cells.most), _EM_TRIAL))
    start = max(tries, key=lambda found: found[2])
    return cells.polish(*cells.em(start[0], start[1], _EM_START)[:2])


# -- intervals -------------------------------------------------------------------------------------------


def _variances(cells: _Cells, theta: np.ndarray) -> np.ndarray:
    """The larger of information's and sandwich's covariance, by trace of each diagonal: [params, params]."""
    nr = len(theta)
    information = np.zeros((nr, nr))
    step = 1e-4
    for i in range(nr):
        shift = np.zeros(nr)
        shift[i] = step
        change = cells.nr @ cells.scores(theta + shift) - cells.nr @ cells.scores(theta - shift)
        information[i] = -change / (2 * step)
    information = (information + information.T) / 2
    inverse = np.linalg.pinv(information, hermitian=True)
    by_block = cells.by_block @ cells.scores(theta)
    full = int((cells.by_block.sum(axis=1) > 0).sum())
    if full <= nr + 1:
        return np.abs(inverse)
    meat = by_block.T @ by_block * (full / (full - 1))
    sandwich = inverse @ meat @ inverse
    scale = np.sqrt(np.maximum(np.maximum(np.diag(sandwich), np.diag(inverse)), 0))
    base = np.sqrt(np.maximum(np.diag(inverse), 1e-300))
    grown = inverse * np.outer(scale / base, scale / base)
    return np.asarray(grown)


def _with_intervals(cells: _Cells, share: np.ndarray, mean: np.ndarray) -> tuple[MixturePart, ...]:
    from scipy.stats import chi2, t

    theta = _packed(share, mean)
    covariance = _variances(cells, theta)
    reach = float(t.ppf(0.5 + LEVEL / 2, TIME_BLOCKS - 1))
    chance, _ = cells.parts_of(share, mean)
    weighted = chance * cells.nr[:, None]
    deaths = cells.ended @ weighted
    exposure = cells.time @ weighted
    parts = []
    for j in range(len(mean)):
        lives = weighted[:, j].sum()
        is_bound = deaths[j] < FEW_DEATHS or deaths[j] < (1 - MANY_CENSORED) * lives
        spread = reach * np.sqrt(max(covariance[j, j], 0.0))
        low, high = mean[j] * np.exp(-spread), mean[j] * np.exp(min(spread, 50.0))
        value = mean[j]
        if is_bound:
            bound = exposure[j] / (0.5 * chi2.ppf(LEVEL, 2 * deaths[j] + 2))
            low, high = min(low, bound) if deaths[j] >= FEW_DEATHS else bound, np.inf
            value = max(min(mean[j], exposure[j] / (deaths[j] + 0.7)), low)
        parts.append(
            MixturePart(
                float(value),
                float(low),
                float(high),
                float(share[j]),
                *_share_interval(share, covariance, j, reach),
                float(deaths[j]),
                bool(is_bound),
            )
        )
    return tuple(parts)


def _share_interval(share: np.ndarray, covariance: np.ndarray, j: int, reach: float) -> tuple[float, float]:
    """Interval of one share on the scale of its logit."""
    k = len(share)
    if k == 1:
        return 1.0, 1.0
    # d logit(w_j) by the free logits eta_i is (delta_ij - w_i) / (1 - w_j), with w_j taken as its own.
    slope = -share[:-1].copy()
    if j < k - 1:
        slope[j] += 1
    slope /= max(1 - share[j], 1e-12)
    spread = reach * np.sqrt(max(float(slope @ covariance[k:, k:] @ slope), 0.0))
    logit = np.log(max(share[j], 1e-12)) - np.log(max(1 - share[j], 1e-12))
    ends = 1 / (1 + np.exp(-np.clip([logit - spread, logit + spread], -50, 50)))
    return float(ends[0]), float(ends[1])


# -- goodness --------------------------------------------------------------------------------------------


def kaplan_meier(lives: GroupedLives) -> tuple[np.ndarray, np.ndarray]:
    """Survival at the upper edges of the bins, and how many are at risk in each: float64, int64 [NR_BINS]."""
    ended, gone = lives.ended.sum(axis=0), lives.censored.sum(axis=0)
    at_risk = lives.nr - np.concatenate([[0], np.cumsum(ended + gone)[:-1]])
    factor = np.where(at_risk > 0, 1 - ended / np.maximum(at_risk, 1), 1.0)
    return np.cumprod(factor), at_risk


def _largest_distance(lives: GroupedLives, share: np.ndarray, mean: np.ndarray) -> float:
    survival, at_risk = kaplan_meier(lives)
    told = at_risk >= max(10, LEAST_AT_RISK * lives.nr)
    if not told.any():
        return 0.0
    fitted = np.exp(-bin_edges()[:, None] / mean) @ share
    return float(np.abs(fitted - survival)[told].max())
