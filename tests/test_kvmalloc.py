"""Buffers that single pages can replace, and tree pages that a policy makes movable."""

from __future__ import annotations

import pytest

from spbfast.constants import Cls, Op
from spbfast.model.state.page_state import CODE_PINNED, states_of
from tests.demand_tools import SlotBook, digest_of, plan_for, tick_rows
from tests.machine_tools import USER, M, U, bare, held_pages

LARGE = int(Cls.KVMALLOC | Cls.KSWAPD | Cls.NOWARN)
TREE = USER | int(Cls.EXTENT_BUFFER)
ACTOR = {"kind": "kvmalloc", "rate": 2000, "lifetime": "100ms", "order_weights": [1, 2, 1]}


@pytest.mark.parametrize("noretry", [False, True])
def test_a_buffer_is_one_block_where_there_is_one(noretry):
    machine = bare({"preset": "v1@45", "kvmalloc_noretry": noretry})
    assert machine.row(Op.ALLOC, 0, 1, order=4, mt=U, cls=LARGE) == 0
    assert (machine.slots(0, 18) >= 0).sum() == 1
    assert machine.vm("kvmalloc_fallback") == 0
    assert machine.row(Op.FREE, 0, 18) == 0
    assert held_pages(machine.world) == 0
    machine.check()


@pytest.mark.parametrize("preset", ["mainline", "v1@45", "v2"])
def test_else_it_is_pages_and_a_page_table(preset):
    machine = bare(preset, workers__pinned_share=1.0)
    machine.fill(1000, 15_300, order=1)
    machine.fill(600, 300, order=1)
    machine.fill(16_300, 80, order=3)
    for slot in range(1000, 13_000, 8):
        machine.row(Op.FREE, slot, 1)
    before = held_pages(machine.world)
    assert machine.row(Op.ALLOC, 0, 1, order=9, mt=U, cls=LARGE) == 0
    assert machine.vm("kvmalloc_fallback") == 1
    assert machine.vm("kvmalloc_fallback_pages") == 513
    assert (machine.slots(0, 513) >= 0).all()
    assert held_pages(machine.world) == before + 513
    assert machine.row(Op.FREE, 0, 513) == 0
    assert held_pages(machine.world) == before
    machine.check()


def test_what_a_failed_fallback_got_goes_back():
    machine = bare("mainline", workers__pinned_share=1.0, pcp__enabled=False, machine__min_free="1MiB")
    machine.fill(4000, 12_300, order=1)
    machine.fill(3000, 900, order=3)
    before = held_pages(machine.world)
    failed = machine.vm("kvmalloc_failed")
    assert machine.row(Op.ALLOC, 0, 1, order=10, mt=U, cls=LARGE) == 0
    assert machine.vm("kvmalloc_failed") == failed + 1
    assert held_pages(machine.world) == before
    assert (machine.slots(0, 1100) < 0).all()
    machine.check()


@pytest.mark.compiled
def test_large_attempts_give_up_early_where_the_policy_says_so():
    skipped = {}
    for noretry in (False, True):
        policy = {"preset": "v1@45", "kvmalloc_noretry": noretry}
        machine = bare(policy, workers__pinned_share=1.0, pcp__enabled=False)
        machine.fill(100, 16_000, order=1)
        machine.row(Op.ALLOC, 0, 1, order=9, mt=U, cls=LARGE)
        skipped[noretry] = machine.vm("spb_alloc_atomic_relax_noretry_skip")
        machine.check()
    assert skipped == {False: 0, True: 1}


def test_the_actor_frees_all_slots_of_a_buffer_and_asks_once():
    plan = plan_for(ACTOR)
    rows, _ = tick_rows(plan, 300)
    SlotBook(plan).play(rows)
    assert len(rows) % 2 == 0
    assert (rows[0::2, 0] == Op.FREE).all()
    assert (rows[1::2, 0] == Op.ALLOC).all()
    assert (rows[1::2, 7] & int(Cls.KVMALLOC) > 0).all()
    # 2,000 a second for 300 ms.
    assert 450 < len(rows) / 2 < 750
    assert set(rows[1::2, 4]) == {1, 2, 3}


def test_demand_is_the_same_whatever_the_policy_makes_of_it():
    digests = set()
    for noretry in (False, True):
        for movable in (False, True):
            policy = {"preset": "v1@45", "kvmalloc_noretry": noretry, "extent_buffers_movable": movable}
            tree = {"kind": "extent_buffers", "at_boot": "1MiB", "total": "4MiB", "growth": "2MiB/s"}
            rows, _ = tick_rows(plan_for(ACTOR, tree, policy=policy), 100)
            digests.add(digest_of(rows))
    assert len(digests) == 1


@pytest.mark.parametrize("movable", [False, True])
def test_tree_pages_are_movable_where_the_policy_says_so(movable):
    policy = {"preset": "v1@45", "extent_buffers_movable": movable}
    machine = bare(policy, workers__pinned_share=1.0)
    assert machine.fill(0, 4, mt=U, cls=TREE) == 4
    state = states_of(machine.world.zone.page)
    assert {int(state[pfn]) >> 4 for pfn in machine.slots(0, 4)} == {M if movable else U}
    # Pins are drawn for others only, and stay the same.
    assert machine.fill(10, 1) == 1
    assert int(states_of(machine.world.zone.page, machine.slots(10, 1))[0]) >> 4 == CODE_PINNED
    assert machine.row(Op.FREE, 0, 11) == 0
    machine.check()
