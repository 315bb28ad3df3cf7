"""What was freed too early comes back: the right number, after the delay, and only where it is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import Op, Req
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate, simulate_ticks
from spbfast.model.state.node import REFAULT_BUCKETS, Now
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.slab_layout import Si, St
from spbfast.model.state.vmstat import V
from tests.demand_tools import scenario
from tests.machine_tools import R, bare

DELAY = 64  # ms, one tick a bucket
SPAN = "150ms" if INTERPRETED else "2s"


def ticks(machine, until):
    """Simulate up to a tick."""
    assert simulate_ticks(machine.run, (make_samples(4),), until, 1)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_shrunk_inodes_comes_back_after_the_delay(share):
    machine = bare(
        {"preset": "v1@30", "slab_shrink_throttle": "0s", "slab_shrink_start_priority": 2},
        slab__refault_share=share,
        slab__refault_delay=f"{DELAY}ms",
        slab__batch=64,
        slab__inodes_held_by_page_cache=0.0,
    )
    slab = machine.world.slab
    for inst in (0, 1):
        assert machine.row(Op.SLAB_GROW, inst, 6000, mt=R) == 0
    for tick in range(8, DELAY, 8):
        machine.ask(Req.SHRINK_FALLTHROUGH)
        ticks(machine, tick)
    freed = slab.inst[:, Si.SCANNED_OUT].copy()
    inodes = slab.inst[:, Si.NR_INODES].copy()
    assert freed[:2].min() > 0
    assert freed[2:].sum() == machine.vm("workingset_refault_slab") == 0
    objects = int(slab.stat[St.NR_OBJECTS])
    ticks(machine, 2 * DELAY + 1)
    assert slab.inst[:, Si.SCANNED_OUT].tolist() == freed.tolist()
    expected = (freed * share).astype(int)
    assert machine.vm("workingset_refault_slab") == expected.sum() > 0
    assert (slab.inst[:, Si.NR_INODES] - inodes).tolist() == expected.tolist()
    assert int(slab.stat[St.NR_OBJECTS]) > objects + expected.sum()  # their dentries too
    machine.check()


def test_a_share_of_reclaimed_pages_comes_back():
    machine = bare("v1@30", pagecache__refault_share=0.5, pagecache__refault_delay=f"{DELAY}ms")
    vm = machine.world.node.vm
    ticks(machine, 10)
    vm[V.PGSTEAL_DIRECT] += 301
    ticks(machine, 20)
    vm[V.PGSTEAL_KSWAPD] += 100
    ticks(machine, 10 + DELAY)
    assert machine.vm("workingset_refault_file") == machine.vm("page_cache_added") == 0
    ticks(machine, 11 + DELAY)
    assert machine.vm("workingset_refault_file") == machine.vm("page_cache_added") == 150
    ticks(machine, 21 + DELAY)
    assert machine.vm("workingset_refault_file") == machine.vm("page_cache_added") == 200
    ticks(machine, 40 + 3 * DELAY)
    assert machine.vm("workingset_refault_file") == 200
    machine.check()


@pytest.mark.compiled
def test_off_there_are_no_lines_and_nothing_changes():
    plain = run_replicate(scenario(policy="v1@32", duration=SPAN), 1, 0)
    zero = run_replicate(scenario(policy="v1@32", duration=SPAN, slab__refault_delay="1s"), 1, 0)
    assert plain.digest == zero.digest
    assert bare().world.node.refault.shape[0] == 0


@pytest.mark.compiled
def test_demand_is_the_same_with_refaults():
    values = {"slab__refault_share": 0.5, "slab__refault_delay": "10ms"}
    values |= {"pagecache__refault_share": 0.3, "pagecache__refault_delay": "10ms"}
    plain = run_replicate(scenario(policy="v1@32", duration=SPAN), 1, 0)
    again = run_replicate(scenario(policy="v1@32", duration=SPAN, **values), 1, 0, check=True)
    assert again.demand_digest == plain.demand_digest
    if not INTERPRETED:
        vm = dict(zip(again.coords["counter"], again.data["vmstat"][:, -1].tolist(), strict=True))
        assert vm["workingset_refault_file"] > 0
        assert again.digest != plain.digest


def test_a_long_delay_is_resolved_to_a_64th():
    machine = bare(slab__refault_share=0.1, slab__refault_delay="640ms")
    node = machine.world.node
    assert node.refault.shape == (1 + 6, 2 + REFAULT_BUCKETS)
    node.refault[0, 2:] = np.arange(REFAULT_BUCKETS)
    assert int(node.now[Now.TICK]) == 0
