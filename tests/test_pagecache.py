"""Rings of folios: order of reclaim, what is hot, and slots that stay true whatever is mixed."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, Op
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca
from tests.machine_tools import Machine, bare, reclaim


def add(machine: Machine, n: int, order: int = 0, reused: int = 0) -> None:
    """N folios into the cache."""
    assert machine.row(Op.CACHE_ADD, reused, n, order=order, alt=0, owner=0) == 0


def oldest(machine: Machine, owner: int = OWNER_COLD) -> list[int]:
    """Page indices on a ring, oldest first."""
    cache = machine.world.node.cache
    head, tail = int(cache[2 * owner + Ca.COLD_HEAD]), int(cache[2 * owner + Ca.COLD_TAIL])
    slots = machine.slots(owner=owner)
    return [int(slots[i % len(slots)]) for i in range(head, tail)]


def check_rings(machine: Machine) -> None:
    """Rings are dense, their pages counted, and every block knows its slot."""
    world = machine.world
    for owner in (OWNER_COLD, OWNER_HOT):
        ring = oldest(machine, owner)
        assert min(ring, default=0) >= 0
        assert int((machine.slots(owner=owner) >= 0).sum()) == len(ring)
        pages = sum(1 << (int(world.zone.page.state[pfn]) & 15) for pfn in ring)
        assert world.node.cache[Ca.COLD_PAGES + owner] == pages
    machine.check()


@pytest.mark.parametrize("lru_mix", [0.0, 0.5, 1.0])
def test_reclaim_keeps_rings_and_slots_true(lru_mix):
    machine = bare(pagecache__lru_mix=lru_mix)
    for round_ in range(6):
        add(machine, 150, order=round_ % 3)
        add(machine, 60, reused=1)
        before = machine.free
        freed = int(reclaim(machine.world, machine.policy, 100))
        assert freed >= 100
        assert machine.free == before + freed
        check_rings(machine)


def test_without_mixing_the_oldest_go_first():
    machine = bare(pagecache__lru_mix=0.0)
    add(machine, 100)
    ring = oldest(machine)
    assert reclaim(machine.world, machine.policy, 40) == 40
    assert oldest(machine) == ring[40:]


def test_with_mixing_runs_leave_from_anywhere():
    machine = bare(pagecache__lru_mix=1.0, pagecache__reclaim_run=8)
    add(machine, 400)
    ring = oldest(machine)
    assert reclaim(machine.world, machine.policy, 40) == 40
    left = set(oldest(machine))
    gone = [place for place, pfn in enumerate(ring) if pfn not in left]
    assert len(gone) == 40
    assert gone != list(range(40))
    check_rings(machine)


def test_hot_folios_stay_while_cold_ones_remain():
    machine = bare(pagecache__hot_share=0.5)
    add(machine, 100, reused=1)
    hot = set(oldest(machine, OWNER_HOT))
    assert 40 <= len(hot) <= 60
    nr_cold = len(oldest(machine))
    assert reclaim(machine.world, machine.policy, nr_cold) == nr_cold
    assert set(oldest(machine, OWNER_HOT)) == hot
    assert reclaim(machine.world, machine.policy, 1000) == len(hot)
    assert reclaim(machine.world, machine.policy, 1) == 0
    check_rings(machine)


def test_what_is_read_once_is_never_hot():
    machine = bare(pagecache__hot_share=0.5)
    add(machine, 100, reused=0)
    assert oldest(machine, OWNER_HOT) == []


def test_rings_wrap_around_and_refuse_when_full():
    machine = bare(pagecache__hot_share=0.0, pagecache__folio_weights=[0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    size = len(machine.slots(owner=OWNER_COLD))
    add(machine, size)
    assert machine.vm("page_cache_not_added") == 0
    add(machine, 5)
    assert machine.vm("page_cache_not_added") == 5
    assert machine.vm("page_cache_added") == size
    reclaim(machine.world, machine.policy, 30)
    add(machine, 20)
    tail = int(machine.world.node.cache[Ca.COLD_TAIL])
    assert tail > size
    check_rings(machine)


def test_dropping_takes_the_oldest_and_then_nothing():
    machine = bare()
    add(machine, 10)
    ring = oldest(machine)
    assert machine.row(Op.CACHE_DROP, n=4, owner=0) == 0
    assert oldest(machine) == ring[4:]
    assert machine.row(Op.CACHE_DROP, n=50, owner=0) == 0
    assert machine.vm("page_cache_dropped") == 10
    check_rings(machine)


def test_migrated_folios_keep_their_places():
    machine = bare("mainline")
    add(machine, 200)
    assert machine.fill(0, PB_PAGES) == PB_PAGES
    state = machine.world.zone.page.state
    assert (np.array([state[pfn] for pfn in oldest(machine)]) >= 0).all()
    check_rings(machine)
