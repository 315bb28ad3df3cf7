"""Runs of a whole machine that end with a look at its pages.

Owns the step from a configuration to the final zone of a run; experiments that count what lies in which
superpageblock start here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config import load_config
from spbfast.constants import TAINTED, Mt
from spbfast.model import engine
from spbfast.model.lowering.lower_machine import lower_scenario
from spbfast.model.program import finish
from spbfast.model.state.check import check_zone
from spbfast.model.state.node import Now
from spbfast.model.state.sample_layout import Ga
from spbfast.model.state.vmstat import VM_NAMES
from spbfast.model.state.walk import read_places


@dataclass(frozen=True)
class Aged:
    """A machine after boot and after its run.

    Attributes
    ----------
    tainted_at_boot : ndarray
        bool [superpageblock], tainted when boot was done.
    tainted : ndarray
        bool [superpageblock], at the end.
    content : ndarray
        int64 [superpageblock, migratetype]: pageblocks with content of that type at the end.
    vm : dict
        Counters at the end.
    tainted_over_time : list of int
        Tainted superpageblocks at each sample.
    """

    tainted_at_boot: np.ndarray
    tainted: np.ndarray
    content: np.ndarray
    vm: dict[str, int]
    tainted_over_time: list[int]


def configs() -> Path:
    """The folder of ready-made jobs in this source tree."""
    return Path(__file__).resolve().parents[2] / "configs"


def age(config: Path, overrides: Sequence[str], replicate: int) -> Aged:
    """Run one replicate of a configuration's own point and look at the first node's zone Normal.

    Raises
    ------
    ConfigError, SimulationError, InvariantError
        As loading, running and checking do.
    """
    job = load_config(config, overrides, one_point=True)
    scenario = job.scenario
    run = lower_scenario(scenario, job.seed, replicate)
    engine.boot(run, scenario, job.seed)
    at_boot = _tainted(run.world.zone)
    samples = engine.room_for_samples(run, scenario)
    engine.simulate_ticks(run, samples, scenario.duration // engine.NS_PER_TICK, job.seed)
    finish(run, samples)
    nr = int(run.world.node.now[Now.NR_SAMPLES])
    zone = run.world.zone
    check_zone(zone, run.policy)
    return Aged(
        tainted_at_boot=at_boot,
        tainted=_tainted(zone),
        content=zone.spb.content[:, : len(Mt)].astype(np.int64),
        vm=dict(zip(VM_NAMES, run.world.node.vm.tolist(), strict=True)),
        tainted_over_time=samples[0].gauges[:nr, Ga.SPB_TAINTED].tolist(),
    )


def _tainted(zone: Any) -> np.ndarray:
    category, _, _ = read_places(zone)
    return category == TAINTED
