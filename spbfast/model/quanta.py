"""Boot and simulated time in quanta: kernels run for at most a quarter of a second between two questions.

Owns the lengths of quanta and the border where kernels' error codes become exceptions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from spbfast.constants import Err
from spbfast.errors import SimulationError, strerror
from spbfast.model.loop.replay import boot_zone
from spbfast.model.loop.step import end_boot
from spbfast.model.lowering.lower_machine import Lowered
from spbfast.model.lowering.lower_node import lowmem_reserve
from spbfast.model.program import boot_cache, boot_demand, run_until
from spbfast.model.state.build import boot_chunks, first_usable
from spbfast.model.state.node import N, Now
from spbfast.model.state.sample_layout import Samples, make_samples
from spbfast.recordings.begun_run import begin_as_real

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

QUANTUM_S = 0.2
BOOT_STEPS = 64
BOOT_FOLIOS = 1 << 16


def _check(code: int, run: Lowered, seed: int) -> None:
    """A kernel's error code as an exception."""
    if code != Err.OK:
        tick = int(run.world.node.now[Now.TICK])
        raise SimulationError(code, f"{strerror(code)} (tick {tick})", tick, seed)


def boot(
    run: Lowered,
    scenario: Scenario,
    seed: int,
    stop: Callable[[], bool] | None = None,
    replicate: int = 0,
) -> bool:
    """Bring a lowered scenario to time 0 through the same allocator; False if stopped on the way.

    A machine that begins as a real one (`machine.from`) has its memory in place; actors boot on top of it.
    """
    is_real = bool(scenario.machine.files)
    if is_real:
        begin_as_real(run, scenario, seed, replicate)
    for world in run.worlds if not is_real else ():
        zone = world.zone
        boot_zone(zone, run.policy, boot_chunks(zone, first_usable(zone), zone.geo.hi))
    step, done = 0, False
    while not done:
        code, done = boot_demand(run, step, step + BOOT_STEPS)
        _check(code, run, seed)
        step += BOOT_STEPS
        if stop is not None and stop():
            return False
    if scenario.boot.fill_page_cache and not is_real and not _fill_page_cache(run, scenario, stop):
        return False
    for world in run.worlds:
        end_boot(world)
    return True


def _fill_page_cache(run: Lowered, scenario: Scenario, stop: Callable[[], bool] | None) -> bool:
    """Page cache in every zone down to what its watermark and reserve keep; False if stopped on the way."""
    for number, world in enumerate(run.worlds):
        keep = int(world.node.conf[N.WMARK_HIGH])
        if number >= scenario.machine.nodes:
            keep += lowmem_reserve(scenario)
        done = False
        while not done:
            done = boot_cache(run, number, BOOT_FOLIOS, keep)
            if stop is not None and stop():
                return False
    return True


def room_for_samples(run: Lowered, scenario: Scenario, *, snapshots: bool = False) -> tuple[Samples, ...]:
    """Room for all samples of a run, zone by zone; with `snapshots` of every superpageblock too."""
    nr = scenario.duration // scenario.output_every + 2
    return tuple(make_samples(nr, world.zone.geo.nr_spb if snapshots else 0) for world in run.worlds)


def simulate_ticks(
    run: Lowered,
    samples: tuple[Samples, ...],
    until_tick: int,
    seed: int,
    stop: Callable[[], bool] | None = None,
) -> bool:
    """Simulate up to a tick in quanta; False if stopped on the way."""
    quantum = 16
    tick = int(run.world.node.now[Now.TICK])
    while tick < until_tick:
        start = time.perf_counter()
        target = min(tick + quantum, until_tick)
        _check(run_until(run, samples, target), run, seed)
        wall = time.perf_counter() - start
        tick = target
        quantum = max(1, min(2 * quantum, int(quantum * QUANTUM_S / max(wall, 1e-6))))
        if stop is not None and stop():
            return tick >= until_tick
    return True
