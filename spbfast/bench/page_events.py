"""Speed, beside a yardstick of the same run: what `spbfast bench` prints.

The yardstick is a random cyclic pointer chase, one load per 64-byte line, over as many bytes as the
zone's state and allocated like it: the machine's memory latency for that size. Every other figure is
wall time divided by page events (a block allocated or freed), through the kernels that the golden traces
verify, with owners and accounting on. Owns workloads and clocks, no kernels (loop/churn.py has them).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.bench.whole_runs import (
    LINE_WORDS,
    bench_compile,
    bench_flagship,
    bench_start,
    bench_threads,
    chase_links,
    rounded,
)
from spbfast.constants import MOVABLE
from spbfast.model.loop import churn, replay
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone, nbytes, zeros
from spbfast.model.state.layout import ZoneState

SIZES = {"4GiB": 4 << 18, "32GiB": 32 << 18, "247GiB": 238 << 18}  # pages; 238 superpageblocks of 1 GiB
PRESET = "v1@30"
FULL = 0.7  # share of the zone's pages in use
RANGE_PAGES = (16, 256, 4096)


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


def bench_churn(label: str, quick: bool = False, scattered: bool = False) -> dict[str, Any]:
    """Random churn of order-0 movable pages on one of SIZES, with its yardstick."""
    population = Population(SIZES[label], scattered=scattered)
    yardstick = measure_yardstick(population.state_bytes, 40_000 if quick else 400_000)
    clocked = population.churn(20_000 if quick else 200_000, 3 if quick else 9)
    return {"ns": clocked, "yardstick": yardstick, "state_bytes": population.state_bytes}


def bench_pcp(quick: bool = False) -> Clocked:
    """The same churn at 4 GiB through one CPU's page lists."""
    population = Population(SIZES["4GiB"], pcp=PcpConf(batch=63, high_min=252, high_max=1008))
    return population.churn(20_000 if quick else 200_000, 3 if quick else 9)


def bench_ranges(quick: bool = False) -> dict[int, Clocked]:
    """Nanoseconds per page of ranges of 16, 256 and 4096 pages at 4 GiB, each range one event."""
    return {n: Population(SIZES["4GiB"]).churn_ranges(n, 3 if quick else 9) for n in RANGE_PAGES}


def bench_p18(quick: bool = False) -> Clocked | str:
    """Nanoseconds per event of the throughput trace; or why it was not run.

    Raises
    ------
    TraceError
        The pfns of this very run differ from the trace's.
    """
    from spbfast.errors import TraceError
    from spbfast.verify.golden import load_golden
    from spbfast.verify.replay_zone import Replay

    folder = os.environ.get("SPBFAST_GOLDEN_DIR", "")
    files = sorted(Path(folder).glob("p18*.npz")) if folder else []
    if not files:
        return "set SPBFAST_GOLDEN_DIR to the folder that has p18"
    golden = load_golden(files[0])
    values = []
    for _ in range(1 if quick else 3):
        trial = Replay(golden)
        nr = golden.nr_events
        trial.out.fill(0)  # the first touch of 160 MB is not the loop's
        start = time.perf_counter_ns()
        replay.run_events(trial.z, trial.policy, trial.events, 0, nr, trial.pins, trial.out)
        values.append((time.perf_counter_ns() - start) / nr)
        if not np.array_equal(trial.out[:, replay.R_PFN], golden["pfn"]):
            raise TraceError("the pfns of this run differ from the trace's", files[0])
    return Clocked(tuple(values))


def compile_all() -> float:
    """Compile, or load from the cache, every kernel of the benchmarks and of the engine; seconds."""
    start = time.perf_counter()
    population = Population(1 << 12, spb_pb=4)
    population.run(population.rows(8))
    events = np.zeros((1, replay.NR_EVENT_FIELDS), np.int64)
    out = np.zeros((1, replay.NR_RESULT_FIELDS), np.int64)
    replay.run_events(population.zone, population.policy, events, 0, 0, np.zeros(2, np.int64), out)
    churn.chase(zeros((LINE_WORDS,), "int64"), 0, 1)
    try:
        from spbfast.model.engine import warmup
    except ModuleNotFoundError:
        return time.perf_counter() - start
    warmup()
    return time.perf_counter() - start


def _measure_churn(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {"yardstick_ns": {}, "churn_ns": {}, "scattered_ns": {}}
    labels = ("4GiB",) if quick else tuple(SIZES)
    for scattered, label in [(False, label) for label in labels] + [(True, labels[-1])]:
        one = bench_churn(label, quick, scattered)
        ns, yardstick = one["ns"], one["yardstick"]
        found["yardstick_ns"].setdefault(label, rounded(yardstick.median))
        found["scattered_ns" if scattered else "churn_ns"][label] = rounded(ns.median)
        name = "scattered" if scattered else "churn"
        say(
            f"{name:<9} {label:<7} {ns.median:7.1f} ns a page event, best {ns.best:5.1f}; "
            f"{ns.median / yardstick.median:.2f} of the yardstick: {yardstick.median:.0f} ns a load "
            f"over {one['state_bytes'] / 1e6:.0f} MB"
        )
    return found


def _measure_pcp(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    pcp = bench_pcp(quick)
    say(f"pcp       4GiB    {pcp.median:7.1f} ns a page event, best {pcp.best:5.1f}")
    return {"pcp_ns": rounded(pcp.median)}


def _measure_ranges(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    ranges = bench_ranges(quick)
    for nr, ns in ranges.items():
        say(f"range     {nr:<7} {1e3 / ns.median:7.0f} million pages a second, best {1e3 / ns.best:.0f}")
    return {f"range{nr}_mpages_per_s": rounded(1e3 / ns.median) for nr, ns in ranges.items()}


def _measure_p18(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    p18 = bench_p18(quick)
    say(f"p18               {p18.median:7.1f} ns an event" if isinstance(p18, Clocked) else f"p18: {p18}")
    return {"p18_ns": rounded(p18.median) if isinstance(p18, Clocked) else None}


def _measure_flagship(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    flagship = bench_flagship(quick)
    if isinstance(flagship, str):
        say(f"flagship      {flagship}")
        return {"flagship": None}
    events, wall_s = flagship["page_events"] / 1e6, flagship["wall_s"]
    say(
        f"flagship      {flagship['simulated_s']:.0f} simulated s, {events:.0f} million page events "
        f"in {wall_s:.1f} s, {flagship['boot_s']:.1f} s of it boot"
    )
    phases = ", ".join(f"{name} {ns:.1f}" for name, ns in flagship["ns_by_phase"].items())
    say(f"              ns a page event: {phases}")
    taken, asked = flagship["resident_bytes"], flagship["state_bytes"]
    say(f"              memory: {taken / 1e9:.2f} GB taken, tables of {asked / 1e9:.2f} GB asked for")
    return {"flagship": flagship}


def _measure_start(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    start = bench_start(quick)
    say(f"start         {start if isinstance(start, str) else f'{start:.1f} s to the first event'}")
    return {"start_s": rounded(start) if isinstance(start, float) else None}


def _measure_threads(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    two = bench_threads(quick)
    if isinstance(two, str):
        say(f"threads       {two}")
        return {"threads": None}
    say(f"threads       two do {two['runs']:.2f} times one's runs, {two['yardstick']:.2f} times one's loads")
    return {"threads": {name: rounded(value) for name, value in two.items()}}


def _measure_compile(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    cold = bench_compile(quick)
    say(f"compile       {cold if isinstance(cold, str) else f'{cold:.1f} s cold'}")
    return {"compile_s": rounded(cold) if isinstance(cold, float) else None}


MEASURES = {
    "churn": _measure_churn,
    "pcp": _measure_pcp,
    "ranges": _measure_ranges,
    "p18": _measure_p18,
    "flagship": _measure_flagship,
    "start": _measure_start,
    "threads": _measure_threads,
    "compile": _measure_compile,
}
GROUPS = tuple(MEASURES)


def main(json: bool = False, only: str | None = None, quick: bool = False) -> int:  # noqa: A002
    """Measure and print; exit code.

    Parameters
    ----------
    json : bool
        Print one JSON object and nothing else on stdout: the medians.
    only : str, optional
        One of GROUPS instead of all.
    quick : bool
        Small and short, to see that it runs: 4 GiB, no flagship, no cold compilation.

    Raises
    ------
    ValueError
        `only` names no group.
    """
    if only is not None and only not in GROUPS:
        raise ValueError(f"unknown group {only!r}; there are {', '.join(GROUPS)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"load {load:.2f} on {os.cpu_count()} CPUs at the start; compiling if need be ...", file=sys.stderr)
    compile_all()
    found: dict[str, Any] = {}
    for group in (only,) if only else GROUPS:
        found |= MEASURES[group](quick, lambda line: None if json else print(line, flush=True))
    found["load"] = rounded(load)
    if json:
        import json as json_module

        print(json_module.dumps(found, indent=1))
    return 0
