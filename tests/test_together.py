"""The workers and choices all at once: nothing is lost, compiled is interpreted, quanta decide nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spbfast.config.actors import GiganticPages
from spbfast.config.models import Scenario
from spbfast.constants import C
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import boot, room_for_samples, run_replicate, simulate_ticks
from spbfast.model.lowering.lower_machine import Lowered, lower_scenario
from spbfast.model.state.check import check_zone
from spbfast.model.state.vmstat import VM_NAMES
from tests.demand_tools import scenario
from tests.machine_tools import held_pages

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = {
    "claim_evacuation": True,
    "claim_prefers_tainted": True,
    "compact_within_superpageblock": True,
    "compaction_skips_immovable": True,
    "choose_by_bitmap": True,
}
PRESETS = ("mainline", "v1@15", "v1@45", "v2")
ASK = {
    "kind": "gigantic_pages",
    "count": 2,
    "start": "20ms",
    "interval": "10ms",
    "hold": "60ms",
    "pause": "20ms",
}


def busy(preset: str, duration: str) -> Scenario:
    """The tiny machine with every switch on, background compaction, and demand for gigantic pages."""
    given = scenario(
        policy={"preset": preset, **SWITCHES},
        duration=duration,
        reclaim__kcompactd=True,
        reclaim__kcompactd_pause="20ms",
        workers__compact_within_interval="20ms",
        workers__compact_within_cooldown="100ms",
        workers__compact_within_fragments=1,
    )
    return given.model_copy(update={"actors": (*given.actors, GiganticPages.model_validate(ASK))})


def nr_pages(run: Lowered) -> int:
    """Pages of the zone, wherever they are."""
    z = run.world.zone
    return int(z.count[C.FREE_PAGES] + z.count[C.PCP_PAGES]) + held_pages(run.world)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_page_is_lost(preset: str) -> None:
    given = busy(preset, "120ms" if INTERPRETED else "3s")
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    samples = room_for_samples(run, given)
    total = nr_pages(run)
    last = given.duration // 10**6
    for until in range(last // 6, last + 1, last // 6):
        assert simulate_ticks(run, samples, until, 1)
        check_zone(run.world.zone, run.policy)
        assert nr_pages(run) == total
    if not INTERPRETED:
        vm = dict(zip(VM_NAMES, run.world.node.vm.tolist(), strict=True))
        acted = ["contig_ranges_tried", "compact_daemon_wake", "compact_migrate_scanned"]
        acted += ["claim_evac_ran"] if preset == "mainline" else []
        assert [name for name in acted if preset != "v1@15" and vm[name] == 0] == []


SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.test_together import busy
for preset in ("mainline", "v1@45"):
    run = run_replicate(busy(preset, "150ms"), 1, 0, check=True)
    print(run.digest, run.demand_digest, run.events)
"""


@pytest.mark.skipif(INTERPRETED, reason="compares the compiled kernels with the interpreted ones")
def test_interpreted_kernels_give_the_same() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", SNIPPET]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = [run_replicate(busy(preset, "150ms"), 1, 0) for preset in ("mainline", "v1@45")]
    assert done.stdout.split() == [
        str(value) for run in runs for value in (run.digest, run.demand_digest, run.events)
    ]
