"""Speed of whole runs: the flagship, its start, two runs in two threads, and compilation from nothing.

Each part of `spbfast bench` here needs the engine, or a process of its own. Owns clocks and no kernels.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.bench.workload import LINE_WORDS, Population, chase_links
from spbfast.model.loop import churn, replay
from spbfast.model.loop.replay_rows import event_rows, result_rows
from spbfast.model.state.build import zeros

FLAGSHIP = "devvm-burst"  # a ready-made job
LEFT_OUT = "left out by --quick"
THREAD_STEPS, STEP_TICKS, CHASE_STEP = 60, 4_000, 500_000  # steps; ticks and loads in each


def missing(quick: bool) -> str:
    """Why the flagship is not run, or nothing."""
    from spbfast.config.readymade import ready_made_jobs

    if quick:
        return LEFT_OUT
    return "" if FLAGSHIP in ready_made_jobs() else f"this installation has no configs/{FLAGSHIP}.yaml"


def bench_flagship(quick: bool = False, seconds: int | None = None) -> dict[str, Any] | str:
    """One replicate of the flagship configuration, or its first simulated seconds; or why it was not run.

    `state_bytes` are the tables that a run asks for, `resident_bytes` what it takes of the machine's memory.
    """
    if reason := missing(quick):
        return reason
    from spbfast.config import load_config
    from spbfast.model import engine

    shorter = [] if seconds is None else [f"duration={seconds}s"]
    scenario = load_config(FLAGSHIP, shorter).scenario
    engine.warmup()
    before = _resident_now()
    result = engine.run_replicate(scenario, 0, 0)
    return {
        "ns_per_event": rounded((result.wall_s - result.boot_s) / result.events * 1e9),
        "ns_by_phase": {name: rounded(s / result.events * 1e9) for name, s in result.phases.items()},
        "simulated_s": scenario.duration / 1e9,
        "wall_s": result.wall_s,
        "boot_s": result.boot_s,
        "page_events": result.events,
        "state_bytes": engine.state_bytes(scenario),
        "resident_bytes": max(_resident_peak() - before, 0),
    }


def _status_bytes(field: str) -> int:
    """A size of /proc/self/status in bytes; 0 where there is none."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = [line.split() for line in text.splitlines() if line.startswith(field + ":")]
    return int(found[0][1]) << 10 if found else 0


def _resident_now() -> int:
    """Resident bytes of this process; the peak is counted from here on, where the system allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _resident_peak() -> int:
    return _status_bytes("VmHWM")


FIRST_EVENT = """
import time
start = time.perf_counter()
from spbfast.model import engine
from spbfast.config import load_config
job = load_config({config!r})
stops = iter((True,))
run = engine.lower_scenario(job.scenario, 0, 0)
engine.boot(run, job.scenario, 0, stop=lambda: next(stops, True))
print(time.perf_counter() - start)
"""


def bench_start(quick: bool = False) -> float | str:
    """Seconds from starting a program, kernels cached, to the flagship's first page events."""
    if reason := missing(quick):
        return reason
    code = FIRST_EVENT.format(config=FLAGSHIP)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return float(done.stdout.split()[-1])


def both_at_once(work: Callable[[int], object]) -> float:
    """Seconds that `work(0)` and `work(1)` take in two threads."""
    pair = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    start = time.perf_counter()
    for thread in pair:
        thread.start()
    for thread in pair:
        thread.join()
    return time.perf_counter() - start


def pair_speedup(one: Callable[[], object], pair: Callable[[int], object]) -> float:
    """How much faster two threads do two pieces of work than one thread; `one` does one such piece."""
    start = time.perf_counter()
    one()
    return 2 * (time.perf_counter() - start) / both_at_once(pair)


def bench_threads(quick: bool = False) -> dict[str, float] | str:
    """How much faster two threads do two runs than one thread, beside two threads of the pointer chase.

    Three copies of the flagship's first replicate go on step by step: one by itself, then two in two threads
    over the same seconds, so that all do equal work; then the yardstick likewise, through as many bytes as a
    run's state. Each figure is the median over the steps; 2.0 is perfect. Starting and booting are left out:
    there machines whose memory is backed only when touched measure that.
    """
    if reason := missing(quick):
        return reason
    from spbfast.config import load_config
    from spbfast.model import engine

    scenario = load_config(FLAGSHIP).scenario
    engine.warmup()
    runs = [engine.lower_scenario(scenario, 0, 0) for _ in range(3)]
    for lowered in runs:
        engine.boot(lowered, scenario, 0)
    samples = [engine.room_for_samples(lowered, scenario) for lowered in runs]
    links = [chase_links(engine.state_bytes(scenario), seed) for seed in (1, 2)]
    until, at = 0, [0, 0]

    def step(i: int) -> None:
        engine.simulate_ticks(runs[i], samples[i], until, 0)

    def follow(i: int) -> None:
        at[i] = churn.chase(links[i], at[i], CHASE_STEP)

    found = []
    for _ in range(THREAD_STEPS):
        until += STEP_TICKS
        found.append((pair_speedup(lambda: step(2), step), pair_speedup(lambda: follow(0), follow)))
    runs_, yardstick = np.median(found, axis=0)
    return {"runs": float(runs_), "yardstick": float(yardstick)}


def compile_all() -> float:
    """Compile, or load from the cache, every kernel of the benchmarks and of the engine; seconds."""
    from spbfast.model import engine

    start = time.perf_counter()
    population = Population(1 << 12, spb_pb=4)
    population.run(population.rows(8))
    events = event_rows(np.zeros((1, replay.NR_EVENT_FIELDS), np.int64))
    replay.run_events(population.zone, population.policy, events, 0, 0, np.zeros(2, np.int64), result_rows(1))
    churn.chase(zeros((LINE_WORDS,), "int64"), 0, 1)
    engine.warmup()
    return time.perf_counter() - start


def bench_compile(quick: bool = False) -> float | str:
    """Seconds to compile everything in a fresh process with an empty cache; or why it was not run."""
    if quick:
        return LEFT_OUT
    code = "from spbfast.bench.whole_runs import compile_all; print(compile_all())"
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "SPBFAST_CACHE_DIR": folder}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return float(done.stdout.split()[-1])


def rounded(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")
