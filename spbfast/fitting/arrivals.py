"""How blocks of one kind arrive: their rate with its interval, and whether they come in bursts.

Owns the counting. Arrivals of real machines come in clumps, so that a rate's interval is taken from the
spread between blocks of time, not from the square root of a count. A burst is what `burst` of an actor can
tell: a time of work and a time of silence, again and again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spbfast.fitting.exponential_mixture import LEVEL, TIME_BLOCKS

BIN_WIDTHS_S = (0.01, 0.05, 0.25)
LEAST_IN_BIN = 3.0
CLUMP_S, MOST_CLUMPS = 0.1, 100_000
LEAST_CYCLES = 5
MOST_ACTIVE = 0.7
MOST_WHILE_SILENT = 0.1


@dataclass(frozen=True)
class ArrivalRate:
    """Arrivals a second.

    Attributes
    ----------
    rate, low, high : float
        Mean and its 99 % interval, 1/s.
    clumping : float
        Variance of counts in 100 ms (of hours: in longer times) over their mean: 1 for independent arrivals.
    """

    rate: float
    low: float
    high: float
    clumping: float


@dataclass(frozen=True)
class FoundBurst:
    """Active and idle time of a cycle, s, cycles seen, and the share of arrivals in the idle time."""

    on: float
    off: float
    cycles: int
    silent_share: float


def arrival_rate(seconds: np.ndarray, length: float) -> ArrivalRate:
    """Rate of arrivals at these times within 0 .. `length`, all in seconds."""
    from scipy.stats import chi2, t

    n = len(seconds)
    blocks = np.bincount(time_block(seconds, length), minlength=TIME_BLOCKS)
    spread = float(blocks.std(ddof=1)) * np.sqrt(TIME_BLOCKS)
    reach = float(t.ppf(0.5 + LEVEL / 2, TIME_BLOCKS - 1)) * spread
    low = min(n - reach, 0.5 * chi2.ppf((1 - LEVEL) / 2, 2 * n) if n else 0.0)
    high = max(n + reach, 0.5 * chi2.ppf((1 + LEVEL) / 2, 2 * n + 2))
    width = max(CLUMP_S, length / MOST_CLUMPS)
    counts = np.bincount((seconds / width).astype(np.int64), minlength=max(int(length / width), 1))
    clumping = float(counts.var() / counts.mean()) if n and len(counts) > 1 else 1.0
    return ArrivalRate(n / length, max(float(low), 0.0) / length, float(high) / length, clumping)


def time_block(seconds: np.ndarray, length: float) -> np.ndarray:
    """Block of time, 0 .. TIME_BLOCKS - 1: int64 [n]."""
    return np.clip((seconds / length * TIME_BLOCKS).astype(np.int64), 0, TIME_BLOCKS - 1)


def find_burst(seconds: np.ndarray, length: float) -> FoundBurst | None:
    """The cycle of work and silence in arrivals, None where there is none that an actor could repeat."""
    n = len(seconds)
    width = next((w for w in BIN_WIDTHS_S if n * w / length >= LEAST_IN_BIN), 0.0)
    nr = int(length / width) if width else 0
    if nr < 4 * LEAST_CYCLES:
        return None
    counts = np.bincount((seconds / width).astype(np.int64), minlength=nr)[:nr]
    active = counts > _threshold(counts)
    starts = np.flatnonzero(np.diff(active.astype(np.int8)) == 1)
    cycles, share = len(starts), active.mean()
    silent_share = float(counts[~active].sum() / max(counts.sum(), 1))
    if cycles < LEAST_CYCLES or not 0 < share <= MOST_ACTIVE or silent_share > MOST_WHILE_SILENT:
        return None
    period = length / cycles
    return FoundBurst(float(share * period), float((1 - share) * period), cycles, silent_share)


def _threshold(counts: np.ndarray) -> float:
    """Splits counts in two, so that their logarithms differ least within both parts (Otsu 1979)."""
    values = np.sort(np.log1p(counts))
    below = np.cumsum(values)
    number = np.arange(1, len(values))
    gap = below[:-1] / number - (below[-1] - below[:-1]) / (len(values) - number)
    at = int(np.argmax(number * (len(values) - number) * gap**2))
    return float(np.expm1((values[at] + values[at + 1]) / 2))
