"""Samples say what the zone's pages say when they are counted again."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import C, Op
from spbfast.jit.decorators import entry_kernel
from spbfast.model.loop.sample import record_sample
from spbfast.model.state.check import check_zone
from spbfast.model.state.node import Now
from spbfast.model.state.page_state import CODE_PINNED, ORDER_NIBBLE, states_of
from spbfast.model.state.sample_layout import Ga, make_samples
from spbfast.model.state.walk import read_free_lists, spb_lists
from tests.machine_tools import M, R, U, bare, booted


@entry_kernel
def sample(w, samples):
    """One sample."""
    record_sample(w, samples)


def gauges_of(machine):
    """A fresh sample."""
    samples = make_samples(1)
    machine.world.node.now[Now.NR_SAMPLES] = 0
    sample(machine.world, samples)
    return samples


def pinned_by_hand(z):
    """Superpageblocks with a pinned page."""
    state = states_of(z.page)
    heads = np.flatnonzero((state >> 4 == CODE_PINNED) & (state & ORDER_NIBBLE <= 10))
    return {int(pfn) >> z.geo.spb_shift for pfn in heads}


def possible_by_hand(z, unmovable):
    """Clean superpageblocks that can be emptied one after the other, emptiest first; (number, pages)."""
    clean = [spb for members in spb_lists(z)[:5] for spb in members]
    free = {spb: int(z.spb.nr_free_pages[spb]) for spb in clean}
    whole = [s for s in clean if z.spb.full_length[s] and s not in unmovable]
    whole.sort(key=lambda s: (-free[s], s))
    room, nr, moved = sum(free.values()), 0, 0
    for spb in whole:
        used = int(z.spb.total[spb]) * 512 - free[spb]
        if used > room - free[spb]:
            break
        room -= free[spb] + used
        nr += 1
        moved += used
    return nr, moved


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mainline", "v1@30", "v2"])
def test_samples_agree_with_the_lists(policy):
    machine = booted(policy)
    samples = gauges_of(machine)
    z = machine.world.zone
    lengths = read_free_lists(z)[0].sum(axis=0)
    orders = np.arange(11)
    assert samples.free_blocks[0].tolist() == lengths.sum(axis=1).tolist()
    assert samples.free_pages[0].tolist() == (lengths << orders[:, None]).sum(axis=0).tolist()
    assert samples.free_pages[0].sum() == z.count[C.FREE_PAGES]
    assert samples.gauges[0, Ga.PCP_PAGES] == z.count[C.PCP_PAGES]
    assert samples.vm[0].tolist() == machine.world.node.vm.tolist()
    check_zone(z, machine.policy)


def test_categories_and_stranded_pages():
    machine = bare("v1@30")
    z = machine.world.zone
    first = gauges_of(machine).gauges[0]
    assert first[Ga.SPB_TAINTED] == first[Ga.FREE_PAGES_STRANDED_IN_TAINTED] == 0
    assert machine.fill(0, 10, order=3, mt=U) == 10
    assert machine.fill(20, 10, order=9) == 10
    gauges = gauges_of(machine).gauges[0]
    assert gauges[Ga.SPB_TAINTED] == 1
    lists = spb_lists(z)
    tainted = [spb for members in lists[5:10] for spb in members]
    assert gauges[Ga.SPB_TAINTED] == len(tainted)
    assert gauges[Ga.FREE_PAGES_STRANDED_IN_TAINTED] == sum(int(z.spb.nr_free_pages[s]) for s in tainted)
    total = sum(gauges[g] for g in (Ga.SPB_TAINTED, Ga.SPB_CLEAN, Ga.SPB_EMPTY, Ga.SPB_ISOLATED))
    assert total == z.geo.nr_spb
    assert gauges[Ga.CONTIG_1G_NOW] == sum(int(z.spb.full_length[s]) for s in lists[10])


def test_what_cpus_own_and_hold_back():
    """An unmovable page on each of two CPUs, one movable: three pageblocks, two in tainted memory."""
    machine = bare({"preset": "v1@30", "pcp_owned_pageblocks": True})
    for slot, (mt, cpu) in enumerate([(U, 0), (U, 3), (M, 2)]):
        assert machine.fill(slot, 1, mt=mt, cpu=cpu) == 1
    samples = gauges_of(machine)
    gauges = samples.gauges[0]
    assert gauges[Ga.PCP_OWNED_PAGEBLOCKS] == 3
    assert gauges[Ga.PCP_STRANDED_PAGES] == 2 * 511
    assert gauges[Ga.PCP_PAGES] == 3 * 511
    assert machine.vm("pcp_pageblocks_claimed") == 3
    # Freed on CPU 1 it makes CPU 0's pageblock whole again, which is above that CPU's limit and goes back.
    assert machine.row(Op.FREE, 0, 1, cpu=1) == 0
    assert machine.world.zone.pcp.cpu[:, 0].tolist() == [0, 0, 511, 511]
    assert machine.world.zone.count[C.PCP_OWNED_PAGEBLOCKS] == 2
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("nr", [0, 1000, 6000, 9000, 15_000])
def test_what_migration_could_empty(nr):
    machine = bare("v1@30", workers__pinned_share=0.01)
    if nr:
        assert machine.fill(0, nr, order=1) == nr
    for slot in range(0, nr, 700):
        machine.row(Op.FREE, slot, 350)
    gauges = gauges_of(machine).gauges[0]
    z = machine.world.zone
    pinned = pinned_by_hand(z)
    assert bool(pinned) == (nr > 0)
    nr_emptied, moved = possible_by_hand(z, pinned)
    assert gauges[Ga.CONTIG_1G_WITHOUT_RECLAIM] - gauges[Ga.CONTIG_1G_NOW] == nr_emptied
    assert gauges[Ga.CONTIG_1G_PAGES_TO_MOVE] == moved
    without = possible_by_hand(z, set())[0]
    assert gauges[Ga.CONTIG_1G_WITHOUT_RECLAIM_UNPINNED] - gauges[Ga.CONTIG_1G_NOW] == without >= nr_emptied


def test_slab_and_cache_gauges():
    machine = bare()
    assert machine.row(Op.SLAB_GROW, 0, 2000, mt=R) == 0
    assert machine.row(Op.CACHE_ADD, 0, 50, order=2, mt=M, owner=0) == 0
    gauges = gauges_of(machine).gauges[0]
    assert gauges[Ga.SLAB_PAGES] > 0
    assert gauges[Ga.SLAB_OBJECTS] >= 2000
    assert gauges[Ga.SLAB_CACHED_BYTES] > 0
    assert gauges[Ga.PAGECACHE_PAGES] == 200
