"""Rings of folios: order of reclaim, what is hot, and slots that stay true whatever is mixed."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, Op
from spbfast.jit.decorators import entry_kernel
from spbfast.model.holders.reclaim import find_run
from spbfast.model.primitives.draws import below, chance, draw
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca, N
from spbfast.model.state.page_state import states_of
from tests.machine_tools import Machine, Verb, bare


@entry_kernel
def draw_place(key, counter, mix, places):
    """Place of the run that a counter draws from a ring with so many places for it."""
    return below(draw(key + 1, counter + 1), places) if chance(draw(key, counter), mix) else 0


@entry_kernel
def look_ahead(w, owner, nr, out):
    """Places of the next runs of `nr` folios, each counted from the head as it will be."""
    for i in range(out.shape[0]):
        out[i] = find_run(w.node, owner, i, i * nr)


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
        pages = sum(1 << (int(states_of(world.zone.page)[pfn]) & 15) for pfn in ring)
        assert world.node.cache[Ca.COLD_PAGES + owner] == pages
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("lru_mix", [0.0, 0.5, 1.0])
def test_reclaim_keeps_rings_and_slots_true(lru_mix):
    machine = bare(pagecache__lru_mix=lru_mix)
    for round_ in range(6):
        add(machine, 150, order=round_ % 3)
        add(machine, 60, reused=1)
        before = machine.free
        freed = machine.do(Verb.RECLAIM, 100)
        assert freed >= 100
        assert machine.free == before + freed
        check_rings(machine)


def test_without_mixing_the_oldest_go_first():
    machine = bare(pagecache__lru_mix=0.0)
    add(machine, 100)
    ring = oldest(machine)
    assert machine.do(Verb.RECLAIM, 40) == 40
    assert oldest(machine) == ring[40:]


def test_with_mixing_runs_leave_from_anywhere():
    machine = bare(pagecache__lru_mix=1.0, pagecache__reclaim_run=8)
    add(machine, 400)
    ring = oldest(machine)
    assert machine.do(Verb.RECLAIM, 40) == 40
    left = set(oldest(machine))
    gone = [place for place, pfn in enumerate(ring) if pfn not in left]
    assert len(gone) == 40
    assert gone != list(range(40))
    check_rings(machine)


def take_by_rule(machine: Machine, ring: list[int], want: int) -> list[int]:
    """The ring that reclaim of single pages leaves, taken folio by folio, none known ahead."""
    node, ring = machine.world.node, ring[:]
    conf, counter = node.conf, int(node.cache[Ca.COUNTER])
    while want and ring:
        nr = min(int(conf[N.RECLAIM_RUN]), len(ring))
        place = int(
            draw_place(int(conf[N.RECLAIM_KEY]), counter, int(conf[N.LRU_MIX_32]), len(ring) - nr + 1)
        )
        counter += 1
        for _ in range(min(nr, want)):
            ring[place] = ring[0]
            del ring[0]
            place = min(place, len(ring) - 1)
            want -= 1
    return ring


@pytest.mark.parametrize("run", [1, 7, 32])
@pytest.mark.parametrize("lru_mix", [0.0, 0.5, 1.0])
def test_reclaim_that_looks_ahead_takes_what_the_rule_says(lru_mix, run):
    machine = bare(pagecache__lru_mix=lru_mix, pagecache__reclaim_run=run, pagecache__hot_share=0.0)
    for want in (40, 1, 100, 333):
        add(machine, 150)
        left = take_by_rule(machine, oldest(machine), want)
        machine.do(Verb.RECLAIM, want)
        assert oldest(machine) == left
    check_rings(machine)


@pytest.mark.parametrize("lru_mix", [0.5, 1.0])
def test_the_look_ahead_knows_where_the_next_runs_begin(lru_mix):
    machine = bare(pagecache__lru_mix=lru_mix, pagecache__reclaim_run=8, pagecache__hot_share=0.0)
    add(machine, 200)
    seen = []
    for _ in range(10):
        ahead = np.zeros(3, np.int64)
        look_ahead(machine.world, OWNER_COLD, 8, ahead)
        seen.append(ahead)
        assert machine.do(Verb.RECLAIM, 8) == 8
    assert [row[1] for row in seen[:-1]] == [row[0] for row in seen[1:]]
    assert [row[2] for row in seen[:-2]] == [row[0] for row in seen[2:]]
    assert max(row[0] for row in seen) > 8


def test_hot_folios_stay_while_cold_ones_remain():
    machine = bare(pagecache__hot_share=0.5)
    add(machine, 100, reused=1)
    hot = set(oldest(machine, OWNER_HOT))
    assert 40 <= len(hot) <= 60
    nr_cold = len(oldest(machine))
    assert machine.do(Verb.RECLAIM, nr_cold) == nr_cold
    assert set(oldest(machine, OWNER_HOT)) == hot
    assert machine.do(Verb.RECLAIM, 1000) == len(hot)
    assert machine.do(Verb.RECLAIM, 1) == 0
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
    machine.do(Verb.RECLAIM, 30)
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
    state = states_of(machine.world.zone.page)
    assert (np.array([state[pfn] for pfn in oldest(machine)]) >= 0).all()
    check_rings(machine)
