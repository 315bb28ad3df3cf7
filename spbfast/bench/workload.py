"""What the benchmarks of page events run on: a zone in steady use, the yardstick beside it, and the clock.

The yardstick is a random cyclic pointer chase, one load for each 64-byte line, over as many bytes as the
zone's state and allocated like it: the machine's memory latency for that size.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spbfast.constants import MOVABLE
from spbfast.model.loop import churn, replay
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone, nbytes, zeros
from spbfast.model.state.layout import ZoneState

PRESET = "v1@30"
FULL = 0.7  # share of the zone's pages in use
RANGE_PAGES = (16, 256, 4096)
LINE_WORDS = 8  # int64 words in a line of 64 bytes


@dataclass(frozen=True)
class Clocked:
    """Repeated measurements of one figure."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def best(self) -> float:
        return min(self.values)


def clock(run: Callable[[], int], repeats: int) -> Clocked:
    """Nanoseconds per unit of `run`, which returns the number of units it did."""
    values = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        units = run()
        values.append((time.perf_counter_ns() - start) / units)
    return Clocked(tuple(values))


def chase_links(size: int, seed: int = 1) -> np.ndarray:
    """A random cycle through the 64-byte lines of `size` bytes, allocated as a zone is; int64."""
    nr_lines = max(size // 64, 2)
    links = zeros((nr_lines * LINE_WORDS,), "int64")
    order = np.random.default_rng(seed).permutation(nr_lines) * LINE_WORDS
    links[order] = np.roll(order, -1)
    return links


def measure_yardstick(size: int, loads: int = 400_000) -> Clocked:
    """Nanoseconds per load of a random cyclic pointer chase over `size` bytes; five runs."""
    links = chase_links(size)
    at = churn.chase(links, 0, 1)

    def run() -> int:
        nonlocal at
        at = churn.chase(links, at, loads)
        return loads

    return clock(run, 5)


class Population:
    """A zone 70 % full of order-0 movable pages of one owner, and rows of random lifetimes on it.

    The zone is filled in order, as a fresh machine fills. Each row frees a random live page or allocates
    into a random empty slot, half of either, in random order: freed pages are taken again after a random
    while, from the fullest superpageblock that has one. Rows are drawn outside the clock.

    A scattered population fills the zone and frees a random 30 % instead: free pages are then strewn over
    all of memory, and each allocation waits for a link that only the one before it revealed.
    """

    def __init__(
        self, pages: int, spb_pb: int = 512, pcp: PcpConf | None = None, scattered: bool = False
    ) -> None:
        spec = ZoneSpec(
            zone_pages=pages,
            spb_pb=spb_pb,
            superpageblocks=True,
            owner_slots=(pages,),
            nr_cpus=1 if pcp else 0,
            pcp=pcp,
        )
        self.policy = policy_array(PRESET)
        self.zone: ZoneState = build_zone(spec)[0]
        self.rng = np.random.default_rng(7)
        replay.boot_zone(self.zone, self.policy, boot_chunks(self.zone, self.zone.geo.lo, self.zone.geo.hi))
        self.step = min(RANGE_PAGES[-1], pages // 64)
        nr_live = pages if scattered else int(pages * FULL) // self.step * self.step
        self.run_ranges(np.arange(0, nr_live, self.step, dtype=np.int32), self.step)
        self.live = np.arange(nr_live, dtype=np.int32)
        self.empty = np.arange(nr_live, pages, dtype=np.int32)
        if scattered:
            order = self.rng.permutation(self.live)
            self.live, self.empty = np.split(order, [int(pages * FULL)])
            self.run(self.empty.copy())

    @property
    def state_bytes(self) -> int:
        return sum(nbytes(self.zone).values())

    def rows(self, nr: int) -> np.ndarray:
        """Up to `nr` slots, each once: live ones to free and as many empty ones to fill, shuffled."""
        free_at = self._pick(self.live, nr // 2)
        fill_at = self._pick(self.empty, nr // 2)
        k = min(free_at.size, fill_at.size)
        free_at, fill_at = free_at[:k], fill_at[:k]
        rows = np.concatenate([self.live[free_at], self.empty[fill_at]])
        self.live[free_at], self.empty[fill_at] = rows[k:], rows[:k]
        return self.rng.permutation(rows)

    def _pick(self, array: np.ndarray, nr: int) -> np.ndarray:
        picked = np.unique(self.rng.integers(0, array.size, nr))
        return self.rng.permutation(picked)

    def run(self, rows: np.ndarray) -> int:
        """Page events done; the rows are one each."""
        return int(churn.run_lifetimes(self.zone, self.policy, rows, MOVABLE))

    def run_ranges(self, slots: np.ndarray, nr_pages: int) -> int:
        """Pages allocated and freed by rows that fill or free whole ranges."""
        return int(churn.run_ranges(self.zone, self.policy, slots, MOVABLE, nr_pages))

    def churn(self, nr: int, repeats: int) -> Clocked:
        """Nanoseconds per page event; every repetition has fresh rows."""
        batches = [self.rows(nr) for _ in range(repeats + 1)]
        self.run(batches.pop())
        return clock(lambda: self.run(batches.pop()), repeats)

    def churn_ranges(self, nr_pages: int, repeats: int) -> Clocked:
        """Nanoseconds per page of random ranges freed and filled, half of them live at the start."""
        slots = np.arange(0, self.live.size, nr_pages, dtype=np.int32)
        self.run_ranges(self.rng.permutation(slots)[: slots.size // 2], nr_pages)
        nr = max(slots.size // 4, 1)
        batches = [self.rng.permutation(slots)[:nr] for _ in range(repeats + 1)]
        self.run_ranges(batches.pop(), nr_pages)
        return clock(lambda: self.run_ranges(batches.pop(), nr_pages), repeats)
