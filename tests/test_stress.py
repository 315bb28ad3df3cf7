"""A machine driven to its last pages: it neither hangs nor loses one, and every failure is counted.

Demand is more than there is memory, a third of movable memory is pinned, and workers have more to do than
they can: no throttles, one descriptor, slow migrations that are often busy.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import simulate_ticks
from spbfast.model.state.build import first_usable
from spbfast.model.state.node import N, Now
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.vmstat import VM_NAMES
from tests.machine_tools import MS, booted

TICKS = 300 if INTERPRETED else 60_000
HARD = {
    "machine__min_free": "64KiB",
    "workers__pinned_share": 0.33,
    "workers__busy_share": 0.3,
    "workers__evacuation_descriptors": 1,
    "workers__migrate_page_cost": "100us",
    "workers__defrag_cooldown": "1ms",
    "reclaim__kswapd_page_cost": "100us",
    "reclaim__shrink_slab": "none",  # what kswapd frees of slab would keep memory from being full
    "actors__guests__count": 16,
    "actors__guests__restart": True,
    "actors__network__rate": 2000,
    # Movable requests leave the reserve and the holes of tainted superpageblocks free; these fill them.
    "actors__extent_buffers__total": "32MiB",
    "actors__extent_buffers__growth": "2MiB/s",
}
SWITCHES = {"slab_shrink_throttle": "0s", "evacuate_throttle": "0s"}
POLICIES = {
    "mainline": {"preset": "mainline", "highatomic_reserve": True},
    "v1@15": {"preset": "v1@15", "watermark_boost": True},
    "v1@30": {"preset": "v1@30"},
    "v1@45 soft": {"preset": "v1@45", "movable_reserve": "soft", "migration_target_reclaim": 2},
    "v2 all": {
        "preset": "v2",
        "highatomic_reserve": True,
        "watermark_boost": True,
        "nowarn_lower_order_fails": True,
        "extent_buffers_movable": True,
        "kvmalloc_noretry": True,
    },
}


def drive(machine, ticks, seed=1):
    """Simulate, and sample every 10 ms: the fullest moment is a short one."""
    machine.world.node.conf[N.SAMPLE_EVERY] = 10 * MS
    samples = make_samples(ticks // 10 + 2)
    assert simulate_ticks(machine.run, (samples,), ticks, seed)
    return samples


def fullness(machine, samples):
    """Greatest share of usable memory that was in use or on per-CPU lists at a sample."""
    z = machine.world.zone
    usable = z.geo.hi - first_usable(z)
    nr = int(machine.world.node.now[Now.NR_SAMPLES])
    return 1 - int(samples.free_pages[:nr].sum(axis=1).min()) / usable


def check_counts(machine):
    """Every request of a slow path was served or is counted as a failure of its class."""
    vm = machine.vm
    assert (machine.world.node.vm >= 0).all()
    assert vm("allocslow_blocking") == vm("allocslow_served_blocking") + vm("alloc_failed_blocking")
    failed = vm("alloc_failed_atomic") + vm("alloc_failed_optional")
    assert vm("allocslow_atomic") == vm("allocslow_served_atomic") + failed
    assert failed == sum(vm(f"alloc_failed_nonblock_{part}") for part in ("order0", "order1_3", "costly"))


@pytest.mark.parametrize("name", POLICIES)
def test_a_full_machine_neither_hangs_nor_loses_a_page(name):
    machine = booted({**POLICIES[name], **SWITCHES}, **HARD)
    samples = drive(machine, TICKS)
    machine.check()
    check_counts(machine)
    if not INTERPRETED:
        assert fullness(machine, samples) >= 0.999
        assert machine.vm("alloc_failed_blocking") > 0
        assert machine.vm("oom_kill") > 0


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", POLICIES)
def test_the_large_machine_full_for_a_minute(name, record_property):
    """The flagship machine with less memory than its guests want; figures go to the test report."""
    from spbfast.config import load_config
    from spbfast.model.engine import boot
    from spbfast.model.lowering.lower_machine import first_demand_owner, lower_scenario
    from tests.demand_tools import CONFIGS
    from tests.machine_tools import Machine

    given = load_config(CONFIGS / "devvm-burst.yaml").with_values(
        {
            "policy": {**POLICIES[name], **SWITCHES},
            "machine.min_free": "64MiB",
            "workers.pinned_share": 0.33,
            "workers.busy_share": 0.3,
            "workers.evacuation_descriptors": 1,
            "actors.guests.count": 64,
            "actors.guests.start": "0s",
            "actors.guests.spacing_min": "10ms",
            "actors.guests.spacing_max": "20ms",
            "actors.guests.touch_rate": "1GB/s",
            "actors.extent_buffers.total": "64GiB",
            "actors.extent_buffers.growth": "1GiB/s",
        }
    )
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    machine = Machine(run, first_demand_owner(given))
    start = time.perf_counter()
    samples = drive(machine, 60_000)
    wall = time.perf_counter() - start
    machine.check()
    check_counts(machine)
    figures = {
        "wall_s": round(wall, 1),
        "page_events": machine.vm("page_events"),
        "ns_per_event": round(wall / max(machine.vm("page_events"), 1) * 1e9, 1),
        "fullness": round(fullness(machine, samples), 5),
        **{n: machine.vm(n) for n in VM_NAMES if n.startswith(("alloc_failed", "allocslow", "oom"))},
    }
    for key, value in figures.items():
        record_property(key, value)
    print(name, figures)
    assert figures["fullness"] >= 0.99
    assert np.isfinite(wall)
