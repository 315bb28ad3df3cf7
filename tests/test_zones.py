"""Machines of several zones: nodes with workers of their own, and DMA32 as what Normal falls back to."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.config.machine import MachineSpec
from spbfast.constants import PB_PAGES, C
from spbfast.errors import ConfigError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import boot, run_replicate, simulate_ticks
from spbfast.model.holders.check_slab import check_slab
from spbfast.model.lowering.lower_machine import lower_scenario
from spbfast.model.lowering.lower_node import lowmem_reserve
from spbfast.model.state.check import check_zone
from spbfast.model.state.node import N, Zl
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.vmstat import V
from tests.demand_tools import scenario
from tests.machine_tools import held_pages
from tests.passes import cases, cases_of

SPAN = "200ms" if INTERPRETED else "2s"
TWO_NODES = {"machine.nodes": 2}
WITH_DMA32 = {"machine.dma32": "32MiB"}
ALL = TWO_NODES | WITH_DMA32
# Each number of zones is compiled once more: one is enough, the interpreted pass has them all.
MACHINES = [TWO_NODES, WITH_DMA32, ALL] if INTERPRETED else [ALL]


def machine(values, **more):
    return scenario(**{key.replace(".", "__"): value for key, value in values.items()}, **more)


def test_zones_of_a_machine_divide_its_memory():
    shapes = MachineSpec(memory="238GiB", nodes=4, dma32="3GiB").zones()
    assert [shape.name for shape in shapes] == [*(f"node{n}.Normal" for n in range(4)), "node0.DMA32"]
    assert [shape.nr_pages >> 18 for shape in shapes] == [59, 59, 59, 61, 3]
    ends = [shape.start_pfn + shape.nr_pages for shape in shapes]
    assert ends[:3] == [shape.start_pfn for shape in shapes[1:4]]
    assert ends[4] == shapes[0].start_pfn
    assert [shape.name for shape in MachineSpec().zones()] == ["Normal"]


def test_watermarks_of_zones_add_up_to_the_machines():
    machine = MachineSpec(memory="238GiB", nodes=2, dma32="3GiB")
    marks = [machine.watermarks(10, zone)[0] for zone in machine.zones()]
    assert 0 <= machine.min_pages() - sum(marks) <= len(marks)
    assert MachineSpec().watermarks(10, MachineSpec().zones()[0]) == MachineSpec().watermarks(10)


def test_zonelists_have_the_own_zones_first_then_the_other_nodes():
    given = machine(ALL)
    run = lower_scenario(given, 1, 0)
    assert [world.node.zonelist[:, Zl.WORLD].tolist() for world in run.worlds] == [
        [0, 2, 1],
        [1, 0, 2],
        [0, 2, 1],
    ]
    reserve = lowmem_reserve(given)
    assert run.world.node.zonelist[:, Zl.RESERVE].tolist() == [0, reserve, 0]
    assert reserve == given.machine.normal_zones()[0].nr_managed // 256


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
@pytest.mark.parametrize("values", cases_of(MACHINES), ids=lambda v: " ".join(v))
def test_no_page_is_lost_in_any_zone(values, policy):
    given = machine(values, policy=policy, duration=SPAN)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    samples = tuple(make_samples(64) for _ in run.worlds)
    assert simulate_ticks(run, samples, given.duration // 10**6, 1)
    for shape, world in zip(given.machine.zones(), run.worlds, strict=True):
        check_zone(world.zone, run.policy)
        check_slab(world.slab, world.zone)
        z = world.zone
        usable = int(z.spb.total.sum()) * 512
        assert usable <= shape.nr_managed
        assert z.count[C.FREE_PAGES] + z.count[C.PCP_PAGES] + held_pages(world) == usable
    assert all(world.node.vm.any() for world in run.worlds[: given.machine.nodes])


@pytest.mark.compiled
def test_demand_does_not_depend_on_the_zones():
    digests = {
        run_replicate(machine(values, duration="100ms"), 1, 0).demand_digest for values in ({}, *MACHINES)
    }
    assert len(digests) == 1


@pytest.mark.compiled
def test_runs_over_zones_repeat_bit_by_bit():
    one, other = (run_replicate(machine(ALL, duration="100ms"), 1, 0) for _ in range(2))
    assert one.digest == other.digest


@pytest.mark.compiled
def test_sums_over_zones_are_the_machines_figures():
    run = run_replicate(machine(ALL, duration="100ms"), 1, 0)
    data = run.data
    assert run.coords["zone"].tolist() == ["node0.Normal", "node1.Normal", "node0.DMA32"]
    np.testing.assert_array_equal(data["zone_spb_tainted"][:2].sum(axis=0), data["spb_tainted"])
    np.testing.assert_array_equal(data["zone_free_pages"].sum(axis=0), data["free_pages"].sum(axis=0))
    np.testing.assert_array_equal(data["zone_pagecache_pages"].sum(axis=0), data["pagecache_pages"])


def with_daemons(memory, values, **more):
    daemons = {"kind": "daemons", "memory": memory, "thp_share": 0.0, **more}
    return scenario(
        daemons,
        machine__cpus=2,
        boot__fill_page_cache=False,
        **{key.replace(".", "__"): value for key, value in values.items()},
    )


def test_a_full_node_is_served_by_the_next_zone_of_its_list():
    given = with_daemons("60MiB", ALL, churn_per_second=0.0)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    own, other, low = (held_pages(world) for world in run.worlds)
    # All is asked for on node 0: its own zone serves down to the low watermark, then its DMA32.
    mark = int(run.world.node.conf[N.WMARK_LOW])
    assert mark <= run.world.zone.count[C.FREE_PAGES] < mark + PB_PAGES  # a row is a region of 2 MiB
    assert low == (60 << 8) - own > 0
    assert other == 0


@pytest.mark.compiled
def test_a_full_dma32_keeps_its_reserve_and_the_other_node_serves():
    given = with_daemons("90MiB", ALL, churn_per_second=0.0)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    own, other, low = (held_pages(world) for world in run.worlds)
    assert own + other + low == 90 << 8
    assert other > 0
    dma32 = run.worlds[2]
    assert dma32.zone.count[C.FREE_PAGES] >= dma32.node.conf[N.WMARK_LOW] + lowmem_reserve(given)


def test_rows_that_free_reach_every_zone():
    given = with_daemons("110MiB", ALL, churn_per_second=1.0)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    before = [held_pages(world) for world in run.worlds]
    assert min(before) > 0
    freed = [int(world.node.vm[V.PGFREE]) for world in run.worlds]
    samples = tuple(make_samples(8) for _ in run.worlds)
    assert simulate_ticks(run, samples, 300, 1)
    assert sum(held_pages(world) for world in run.worlds) == sum(before)
    assert all(world.node.vm[V.PGFREE] > old for world, old in zip(run.worlds, freed, strict=True))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"machine.nodes": 9}, "nodes"),
        ({"machine.nodes": 3, "machine.memory": "32MiB"}, "each needs a superpageblock of 16MiB"),
        ({"machine.dma32": "4GiB", "machine.start_pfn": 0x1000}, "does not fit below page frame 0x1000"),
        ({"machine.nodes": 4, "machine.cpus": 2}, "must be at least one per node"),
    ],
)
def test_impossible_machines_are_refused_with_the_reason(values, words):
    with pytest.raises(ConfigError, match=words):
        machine(values)
