"""Every kernel that Python calls, and the least work that has it compiled.

Owns the list of entry kernels: a test compares it with the decorators in the sources. A kernel is compiled
once for each type of its arguments, so an entry appears with every group that calls it with others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spbfast.constants import MOVABLE, PB_ORDER
from spbfast.model import engine
from spbfast.model.demand.demand_rows import DIGEST0, fold_rows
from spbfast.model.demand.generate import generate_boot, generate_tick
from spbfast.model.loop.churn import chase, run_lifetimes, run_ranges
from spbfast.model.loop.replay import (
    NR_EVENT_FIELDS,
    boot_cma,
    boot_zone,
    run_events,
)
from spbfast.model.loop.replay_rows import event_rows, result_rows
from spbfast.model.loop.step import end_boot
from spbfast.model.loop.verbs import run_verb
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import ZoneSpec, build_zone, zeros
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.scan_lists import check_lists, check_pcp_lists
from spbfast.model.state.scan_owned import check_owned
from spbfast.model.state.scan_pages import check_pages, check_slots
from spbfast.model.state.shrink_layout import make_shrink
from spbfast.model.state.slab_layout import no_slab
from spbfast.model.state.standin_layout import no_standins
from spbfast.model.state.walk import read_lists, walk_lists
from spbfast.text import format_seconds
from spbfast.verify.replay_shrink import EVENT_COLUMNS, run_shrink_events

# Still compiled when they are first used: reading, replaying and judging what kernels have recorded.
COMPILED_AT_FIRST_USE = ("recorded_pages", "page_passage", "judge_events", "ring")
RUN = (boot_zone, end_boot, run_verb)
CHECKS = (check_lists, check_pcp_lists, check_owned, check_pages, check_slots)


@dataclass(frozen=True)
class Entries:
    """Entry kernels that are called together.

    Attributes
    ----------
    what : str
        What they are for.
    kernels : tuple
        The dispatchers.
    touch : callable
        Calls each of them with the types of real work.
    """

    what: str
    kernels: tuple[Any, ...]
    touch: Callable[[], object]


def _run(*, several_zones: bool) -> None:
    engine.run_replicate(engine.smallest_scenario(several_zones=several_zones), 0, 0, check=True)


def _small_zone() -> tuple[ZoneState, np.ndarray]:
    pages = 16 << PB_ORDER
    spec = ZoneSpec(zone_pages=pages, spb_pb=4, superpageblocks=True, owner_slots=(pages,))
    return build_zone(spec)[0], policy_array("v1@30")


def _touch_traces() -> None:
    zone, policy = _small_zone()
    boot_cma(zone, policy, 0, 0)
    events = event_rows(np.zeros((1, NR_EVENT_FIELDS), np.int64))
    run_events(zone, policy, events, 0, 0, np.zeros(2, np.int64), result_rows(1))
    read_lists(zone, zone.geo.list0, 1)


def _touch_shrink_traces() -> None:
    shrink = make_shrink(
        np.zeros((1, 5), np.int64), np.ones(1, np.int8), np.ones(1, np.int8), nr_runs=1, nr_calls=1
    )
    none = np.zeros((0, len(EVENT_COLUMNS)), np.int64)
    run_shrink_events(shrink, no_slab(), no_standins(), none, np.zeros(0, np.int64), 0)


def _touch_demand() -> None:
    run = engine.lower_scenario(engine.smallest_scenario(), 0, 0)
    rows = np.zeros_like(run.rows)
    generate_boot(run.actors, run.key, 0, rows)
    fold_rows(DIGEST0, rows, generate_tick(run.actors, run.key, 0, rows))


def _touch_benchmarks() -> None:
    zone, policy = _small_zone()
    none = np.zeros(0, np.int32)
    run_lifetimes(zone, policy, none, MOVABLE)
    run_ranges(zone, policy, none, MOVABLE, 16)
    chase(zeros((8,), "int64"), 0, 1)


ENTRIES = (
    Entries("runs on one zone", (*RUN, *CHECKS), lambda: _run(several_zones=False)),
    Entries("runs on several zones", (run_verb,), lambda: _run(several_zones=True)),
    Entries("recorded traces and Zone", (boot_cma, run_events, walk_lists), _touch_traces),
    Entries("shrink traces", (run_shrink_events,), _touch_shrink_traces),
    Entries("rows of demand", (generate_boot, generate_tick, fold_rows), _touch_demand),
    Entries("benchmarks", (run_lifetimes, run_ranges, chase), _touch_benchmarks),
)


def compile_entries(say: Callable[[str], None] = lambda text: None) -> float:
    """Compile, or load from the cache, every entry kernel; seconds."""
    start = time.perf_counter()
    for number, entries in enumerate(ENTRIES, 1):
        begin = time.perf_counter()
        entries.touch()
        took = format_seconds(time.perf_counter() - begin)
        say(f"{number} of {len(ENTRIES)}: {entries.what}, {took}")
    return time.perf_counter() - start
