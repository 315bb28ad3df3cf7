"""One simulated run: from a scenario to named arrays.

Owns the sequence build, boot, simulate, sample; quanta.py cuts time so that a stop request, a signal or a
progress display never waits long. Pure in (scenario, seed, replicate): nothing else decides a result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.config.branch import shared_part
from spbfast.config.models import StartSpec
from spbfast.constants import NS_PER_TICK, P
from spbfast.errors import ArgumentError, SetupError
from spbfast.model.asking import ask_machine, asked_over_time, asking_moments
from spbfast.model.collect import (
    Records,
    collect_records,
    collect_samples,
    collect_spbs,
    digest_of,
    kept_samples,
    ratios,
    shape_of_zone,
)
from spbfast.model.lowering.lower_machine import Lowered, lower_scenario, state_nbytes
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.program import finish
from spbfast.model.quanta import boot, room_for_samples, simulate_ticks
from spbfast.model.saved import Origin, SavedState, restore
from spbfast.model.state.node import Now, Ph
from spbfast.model.state.sample_layout import Samples
from spbfast.model.state.trace import start_records
from spbfast.model.state.vmstat import V
from spbfast.outputs.rundata import dataset_of
from spbfast.outputs.tracepoints import record_mask
from spbfast.recordings.recorded_run import recorded_bytes, run_recording
from spbfast.text import format_value, quote_value

if TYPE_CHECKING:
    import xarray as xr

    from spbfast.config.models import Scenario


MODEL_VERSION = 4  # raise it when the same scenario and seed give other numbers
MAX_SEED = 2**63 - 1
MAX_REPLICATES = 100_000


@dataclass(frozen=True)
class ReplicateResult:
    """What one run gave.

    Attributes
    ----------
    data : dict of str to ndarray
        By registered variable name, without point and replicate dimensions.
    coords : dict of str to ndarray
        time (s), migratetype, order, counter, zone.
    wall_s, boot_s : float
        Wall time in all and of building and booting.
    events : int
        Page events after boot (docs/spec/machine.md, section 6).
    digest : str
        16 hex digits over all data.
    demand_digest : str
        16 hex digits over all demand rows; equal under every policy.
    stopped : bool
        The run ended early because it was asked to.
    phases : dict of str to float
        Seconds of simulation by what they went to: generation, workers, slab, allocator. A profile.
    records : dict of str to Records
        What was recorded, by kind (tracepoints.py).
    shapes : list of dict
        By zone, `shape_of_zone`.
    """

    data: dict[str, np.ndarray]
    coords: dict[str, np.ndarray]
    wall_s: float
    boot_s: float
    events: int
    digest: str
    demand_digest: str
    stopped: bool = False
    phases: dict[str, float] = field(default_factory=dict)
    records: dict[str, Records] = field(default_factory=dict)
    shapes: list[dict[str, int]] = field(default_factory=list)


def run_replicate(
    scenario: Scenario,
    seed: int,
    replicate: int,
    *,
    stop: Callable[[], bool] | None = None,
    check: bool = False,
    snapshots: bool = False,
    records: tuple[str, ...] = (),
    records_max: int = 1_000_000,
    records_boot: bool = False,
    save: tuple[int, Callable[[SavedState], object]] | None = None,
    frames: tuple[Sequence[int], Callable[[Lowered], object]] | None = None,
    continued: Path | None = None,
    on_stop: Callable[[SavedState], object] | None = None,
) -> ReplicateResult:
    """Simulate one replicate of a scenario.

    Parameters
    ----------
    scenario : Scenario
        A validated scenario.
    seed, replicate : int
        Key all draws; equal numbers mean equal demand under every policy.
    stop : callable, optional
        Asked between quanta; True ends the run early.
    check : bool
        Recount all allocator and slab state at the end (`check_zone`, `check_slab`): ten seconds and
        600 MB more on 247 GiB.
    snapshots : bool
        Sample every superpageblock too (output level `spb`).
    records : tuple of str
        Kinds of events to record from the end of boot on; names of `tracepoints.KINDS`.
    records_max : int
        Records kept of each kind, the first ones.
    records_boot : bool
        Record boot, too, at time 0.
    save : (int, callable), optional
        A tick, and what is called with the machine's state once that many ticks are done. A run that is
        stopped before does not call it.
    frames : (sequence of int, callable), optional
        Ticks, ascending, and what is called with the machine when each is done, to look at it. Ticks before
        the moment that the run begins at are left out.
    continued : Path, optional
        A state of this very run, which goes on from there instead of from its beginning.
    on_stop : callable, optional
        Called with the machine's state when the run is stopped after boot (and after a branch).

    None of the last eight changes what is simulated, nor the digest.

    Raises
    ------
    SimulationError
        A kernel gave up; names tick and seed.
    InvariantError
        With `check`: the first count that is wrong.
    ResultsError
        The state file that the scenario begins with, or `continued`, cannot be continued by it.
    """
    start = time.perf_counter()
    _check_run(scenario, seed, replicate)
    if scenario.replay is not None:
        if records or save is not None or frames is not None or continued is not None:
            raise ArgumentError("a run that repeats a recording has no records, states or frames")
        return _run_recording(scenario, stop, start)
    mask = record_mask(records)
    run = lower_scenario(scenario, seed, replicate, trace_mask=mask, trace_rows=records_max)
    if records_boot:
        start_records(run.world.zone.trace, mask)
    samples = room_for_samples(run, scenario, snapshots=snapshots)
    origin = Origin(MODEL_VERSION, seed, replicate)
    begun = _begin(run, samples, scenario, origin, stop, continued)
    boot_s = time.perf_counter() - start
    if not records_boot:
        start_records(run.world.zone.trace, mask)
    moments = asking_moments(run, samples, scenario) + _moments(run, frames)
    if save is not None:
        moments.append((save[0], lambda: save[1](SavedState(run, samples, scenario, origin))))
    stopped = not (begun and _go_on(run, samples, scenario, origin, stop, moments))
    if begun and stopped and on_stop is not None:
        on_stop(SavedState(run, samples, scenario, origin))
    finish(run, samples)
    if check:
        _recount(run)
    data, coords, digest = _collect(run, samples, scenario, snapshots=snapshots)
    shown = {name: collect_records(run, name) for name in records}
    events = sum(int(world.node.vm[V.PAGE_EVENTS]) for world in run.worlds)
    phases = _phases(run, time.perf_counter() - start - boot_s)
    if not stopped:
        data["contig_1g_obtainable"] = np.array(ask_machine(run, scenario.machine.nodes))
        if scenario.ask_1g_every is not None:
            data["contig_1g_asked"][-1] = data["contig_1g_obtainable"]
    return ReplicateResult(
        data=data,
        coords=coords,
        wall_s=time.perf_counter() - start,
        boot_s=boot_s,
        events=events,
        digest=digest,
        demand_digest=f"{int(run.world.node.now[Now.DIGEST]) & 0xFFFF_FFFF_FFFF_FFFF:016x}",
        stopped=stopped,
        phases=phases,
        records=shown,
        shapes=[shape_of_zone(w.zone, base) for w, base in zip(run.worlds, run.bases, strict=True)],
    )


def _run_recording(scenario: Scenario, stop: Callable[[], bool] | None, start: float) -> ReplicateResult:
    run = run_recording(scenario, stop)
    return ReplicateResult(
        data=run.data,
        coords=run.coords,
        wall_s=time.perf_counter() - start,
        boot_s=run.boot_s,
        events=run.events,
        digest=digest_of(run.data),
        demand_digest=run.demand_digest,
        stopped=run.stopped,
    )


def _moments(
    run: Lowered, frames: tuple[Sequence[int], Callable[[Lowered], object]] | None
) -> list[tuple[int, Callable[[], object]]]:
    """Ticks at which somebody wants to look at the machine, and what is called then."""
    if frames is None:
        return []
    ticks, take = frames
    begin = int(run.world.node.now[Now.TICK])
    return [(tick, lambda: take(run)) for tick in ticks if tick >= begin]


def _go_on(
    run: Lowered,
    samples: tuple[Samples, ...],
    scenario: Scenario,
    origin: Origin,
    stop: Callable[[], bool] | None,
    moments: list[tuple[int, Callable[[], object]]],
) -> bool:
    """Simulate to the end, pausing at moments on the way; False if stopped."""
    for tick, act in sorted(moments, key=lambda moment: moment[0]):
        if not simulate_ticks(run, samples, tick, origin.seed, stop):
            return False
        act()
    return simulate_ticks(run, samples, scenario.duration // NS_PER_TICK, origin.seed, stop)


def _collect(
    run: Lowered, samples: tuple[Samples, ...], scenario: Scenario, *, snapshots: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], str]:
    """Data, coordinates and the digest of what every run samples."""
    data, coords = collect_samples(run, samples, scenario)
    digest = digest_of(data)
    if snapshots:
        data |= collect_spbs(run, samples)
        coords["spb"] = np.arange(max(world.zone.geo.nr_spb for world in run.worlds))
    if scenario.ask_1g_every is not None:
        data |= asked_over_time(samples, kept_samples(run, samples))
    return data | ratios(run), coords, digest


def _check_run(scenario: object, seed: object, replicate: object) -> None:
    """Refuse what would be taken for another run.

    Raises
    ------
    ArgumentError
        With what would be right.
    """
    from spbfast.config.models import Scenario

    if not isinstance(scenario, Scenario):
        hint = "; give job.scenario" if hasattr(scenario, "scenario") else ""
        raise ArgumentError(
            f"needs a scenario such as load_config('tiny').scenario, got {quote_value(scenario)}{hint}"
        )
    _whole(seed, "seed", 0, MAX_SEED)
    _whole(replicate, "replicate", 0, MAX_REPLICATES - 1)


def _whole(value: object, name: str, low: int, high: int) -> int:
    """A whole number within bounds; a float is none, and a greater one would be cut to 64 bits."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise ArgumentError(f"{name} must be a whole number, got {quote_value(value)}")
    if not low <= value <= high:
        raise ArgumentError(f"{name} must be {low} to {high}, got {quote_value(value)}")
    return int(value)


def _begin(
    run: Lowered,
    samples: tuple[Samples, ...],
    scenario: Scenario,
    origin: Origin,
    stop: Callable[[], bool] | None,
    continued: Path | None = None,
) -> bool:
    """Boot, or bring the machine to the moment of a state or a branch; False if stopped on the way."""
    if continued is not None:
        restore(run, samples, scenario, origin, StartSpec(state=str(continued)), recount=False)
        return True
    if scenario.branch is not None:
        return _begin_at_branch(run, samples, scenario, origin, stop)
    if scenario.start is None:
        return boot(run, scenario, origin.seed, stop, origin.replicate)
    restore(run, samples, scenario, origin, scenario.start)
    return True


def _begin_at_branch(
    run: Lowered,
    samples: tuple[Samples, ...],
    scenario: Scenario,
    origin: Origin,
    stop: Callable[[], bool] | None,
) -> bool:
    """Read the part that the run shares with others, or simulate it under the policy that it had."""
    branch = scenario.branch
    assert branch is not None
    if branch.state is not None:
        restore(run, samples, scenario, origin, StartSpec(state=branch.state), recount=False)
        return True
    own = run.policy.copy()
    run.policy[:] = policy_array(branch.policy)
    done = _begin(run, samples, shared_part(scenario), origin, stop) and simulate_ticks(
        run, samples, branch.at // NS_PER_TICK, origin.seed, stop
    )
    # A branch changes no switch that shapes the machine, and what tables turned on stays on.
    own[P.highatomic_reserve] |= run.policy[P.highatomic_reserve]
    run.policy[:] = own
    return done


def _recount(run: Lowered) -> None:
    from spbfast.model.holders.check_slab import check_slab
    from spbfast.model.state.check import check_zone
    from spbfast.model.state.compact_layout import check_compaction

    for world in run.worlds:
        check_zone(world.zone, run.policy)
        check_compaction(world.node.compact, world.node.skip, world.zone.geo)
        check_slab(world.slab, world.zone)


def _phases(run: Lowered, wall_s: float) -> dict[str, float]:
    """Wall time after boot, split in proportion to the cycles counted."""
    cycles = np.sum([world.node.cycles for world in run.worlds], axis=0)
    total = max(int(cycles.sum()), 1)
    return {phase.name.lower(): wall_s * int(cycles[phase]) / total for phase in Ph}


def state_bytes(scenario: Scenario) -> int:
    """Bytes of state that a run of the scenario allocates."""
    if scenario.replay is not None:
        return recorded_bytes(scenario)
    machines = 1 if scenario.ask_1g_every is None else 2  # what asking changes is put back from a copy
    return machines * sum(state_nbytes(scenario).values())


def check_memory(scenario: Scenario) -> None:
    """Refuse a machine whose state is larger than all memory of this one.

    Raises
    ------
    SetupError
        With both sizes.
    """
    need, there = state_bytes(scenario), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > there:
        raise SetupError(
            f"a run needs {format_value(need, 'byte')} of memory, this computer has "
            f"{format_value(there, 'byte')}; give less machine.memory or slab.objects_max"
        )


def simulate(
    scenario: Scenario, replicates: int = 1, seed: int = 0, *, snapshots: bool = False
) -> xr.Dataset:
    """Simulate a scenario in this process.

    Parameters
    ----------
    scenario : Scenario
        From `load_config(path).scenario`.
    replicates : int
        Runs with different draws.
    seed : int
        Root seed.
    snapshots : bool
        Sample every superpageblock too (output level `spb`).

    Returns
    -------
    xarray.Dataset
        Variables of the registry over (replicate, time, ..).

    Raises
    ------
    ArgumentError
        Another type, or a number of replicates or a seed that no run has.
    SimulationError
        A kernel gave up.
    """
    nr = _whole(replicates, "replicates", 1, MAX_REPLICATES)
    _check_run(scenario, seed, 0)
    check_memory(scenario)
    if not isinstance(snapshots, bool | np.bool_):
        raise ArgumentError(f"snapshots must be True or False, got {quote_value(snapshots)}")
    runs = [run_replicate(scenario, seed, replicate, snapshots=bool(snapshots)) for replicate in range(nr)]
    return dataset_of(runs, seed, MODEL_VERSION)


def has_several_zones(scenario: Scenario) -> bool:
    """Whether a scenario's machine needs the kernels for several zones."""
    return len(scenario.machine.zones()) > 1


def warmup(*, several_zones: bool = False) -> float:
    """Compile or load every kernel that a run needs, on one zone or on several; seconds."""
    start = time.perf_counter()
    run_replicate(smallest_scenario(several_zones=several_zones), 0, 0)
    return time.perf_counter() - start


def smallest_scenario(*, several_zones: bool = False) -> Scenario:
    """A tick of a machine so small that booting it costs nothing."""
    from spbfast.config.models import Scenario

    tiny = {"memory": "64MiB", "spb_size": "16MiB", "cpus": 1, "kernel_image": "1MiB", "min_free": "1MiB"}
    if several_zones:
        tiny |= {"dma32": "16MiB"}
    return Scenario.model_validate(
        {
            "duration": "1ms",
            "output_every": NS_PER_TICK,
            "policy": _warmup_policy(),
            "machine": tiny,
            "slab": {"objects_max": 4096},
        }
    )


def _warmup_policy() -> Any:
    from spbfast.model.lowering.lower_policy import complete_policy

    return complete_policy({"preset": "v1@30"})
