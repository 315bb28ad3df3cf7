"""Every op of a demand row: what it does to slots, what failing leaves behind, and who is counted."""

from __future__ import annotations

import pytest

from spbfast.constants import PB_PAGES, Err, Op
from spbfast.model.state.page_state import CODE_PINNED, states_of
from spbfast.model.state.slab_layout import Sc, Si
from tests.machine_tools import ATOMIC, OPTIONAL, USER, M, R, U, bare, held_pages
from tests.passes import cases


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v2"))
@pytest.mark.parametrize("order", [0, 1, 3, 9, 10])
def test_alloc_and_free_are_each_others_reverse(policy, order):
    machine = bare(policy)
    before = machine.free + machine.world.zone.count[10]
    for mt in (U, M, R):
        assert machine.fill(0, 3, order=order, mt=mt) == 3
        machine.check()
        assert machine.row(Op.FREE, 0, 3) == 0
    assert machine.free + machine.world.zone.count[10] == before
    assert machine.vm("pgalloc_normal") == machine.vm("pgfree") == 9 << order
    assert machine.vm("page_events") == 18
    machine.check()


def test_a_slot_in_use_is_not_asked_for_again():
    machine = bare()
    assert machine.fill(5, 1) == 1
    assert machine.row(Op.ALLOC, 4, 3) == Err.CORRUPT


def test_the_first_error_ends_the_rows():
    machine = bare()
    machine.fill(0, 1)
    row = (int(Op.ALLOC), machine.owner, 0, 1, 0, -1, M, USER, 0)
    other = (int(Op.ALLOC), machine.owner, 9, 1, 0, -1, M, USER, 0)
    assert machine.rows(other, row, other) == Err.CORRUPT
    assert machine.slots(9, 1)[0] >= 0


def test_freeing_an_empty_slot_does_nothing():
    machine = bare()
    assert machine.row(Op.FREE, 0, 100) == 0
    assert machine.vm("page_events") == 0


def test_replace_ends_one_lifetime_and_begins_another():
    machine = bare()
    # More rows than the look-ahead is long.
    rows = [(int(Op.REPLACE), machine.owner, i % 20, 1, 0, -1, M, USER, i % 4) for i in range(80)]
    assert machine.rows(*rows) == 0
    assert held_pages(machine.world) == 20
    assert machine.vm("pgalloc_normal") == 80
    assert machine.vm("pgfree") == 60
    machine.check()


@pytest.mark.compiled
def test_huge_faults_take_huge_pages_and_then_base_pages():
    machine = bare("v1@30", reclaim__compact_candidates=0, workers__pinned_share=0.0)
    assert machine.row(Op.THP, 0, 31) == 0
    assert machine.vm("thp_fault_alloc") == 31
    assert machine.row(Op.FREE, 0, 31 * PB_PAGES) == 0
    # Memory in single pages: every second one goes again.
    other = bare("mainline", reclaim__compact_candidates=0, workers__pinned_share=0.0)
    assert other.fill(0, 16_000, order=1) > 15_000
    for first in range(0, 15_000, 64):
        other.row(Op.FREE, first, 32)
    assert other.row(Op.THP, 16_384 - PB_PAGES, 1) in (0, Err.CORRUPT)
    machine.check()
    other.check()


@pytest.mark.compiled
def test_a_huge_fault_that_falls_back_fills_all_its_slots():
    machine = bare("mainline", reclaim__compact_candidates=0)
    full = machine.fill(2 * PB_PAGES, 15_000, order=1)
    assert full > 14_000
    for first in range(2 * PB_PAGES, 2 * PB_PAGES + full, 2):
        machine.row(Op.FREE, first, 1)
    assert machine.fill(16_100, 100, order=9) < 100
    before = machine.vm("thp_fault_fallback")
    assert machine.row(Op.THP, 0, 1) == 0
    assert machine.vm("thp_fault_fallback") == before + 1
    assert (machine.slots(0, PB_PAGES) >= 0).all()
    machine.check()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pinned_share_decides_the_code_of_movable_pages(share):
    machine = bare(workers__pinned_share=share)
    assert machine.fill(0, 20) == 20
    assert machine.fill(30, 20, mt=U) == 20
    assert machine.row(Op.THP, PB_PAGES, 2) == 0
    state = states_of(machine.world.zone.page)
    movable = [*machine.slots(0, 20), machine.slots(PB_PAGES, 1)[0]]
    assert {int(state[pfn]) >> 4 for pfn in movable} == {CODE_PINNED if share else M}
    assert {int(state[pfn]) >> 4 for pfn in machine.slots(30, 20)} == {U}
    machine.check()


def test_alternative_order_where_the_first_fails():
    machine = bare("mainline")
    assert machine.fill(0, 16_000, order=1) > 15_000
    for slot in range(0, 3000, 2):
        machine.row(Op.FREE, slot, 1)
    assert machine.fill(16_000, 4, order=10, alt=0, cls=OPTIONAL, mt=U) == 4
    state = states_of(machine.world.zone.page)
    assert {int(state[pfn]) & 15 for pfn in machine.slots(16_000, 4)} == {0}
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mainline", "v1@30"])
def test_inodes_come_with_slabs_and_go_with_them(policy):
    machine = bare(policy, slab__min_partial=0)
    assert machine.row(Op.SLAB_GROW, 1, 3000, mt=R) == 0
    slab = machine.world.slab
    pages = int(slab.cache[:, Sc.NR_PAGES].sum())
    assert pages == held_pages(machine.world) == machine.vm("pgalloc_normal")
    machine.check()
    events = machine.vm("page_events")
    assert machine.row(Op.SLAB_DROP, 1, 3000, mt=R) == 0
    assert machine.vm("pgfree") > 0.9 * pages
    assert machine.vm("page_events") > events
    assert machine.vm("pgalloc_normal") - machine.vm("pgfree") == held_pages(machine.world)
    machine.check()


def test_slabs_fall_back_to_small_orders_and_then_fail():
    machine = bare("mainline", workers__pinned_share=1.0)
    assert machine.fill(0, 16_000, order=1) > 15_000
    for slot in range(0, 400, 2):
        machine.row(Op.FREE, slot, 1)
    assert machine.row(Op.SLAB_GROW, 0, 20_000, mt=R) == 0
    assert machine.vm("slab_order_fallback") > 0
    assert machine.vm("slab_alloc_failed") > 0
    machine.check()


def test_a_full_object_pool_is_counted():
    machine = bare(slab__objects_max=4096)
    assert machine.row(Op.SLAB_GROW, 0, 9000, mt=R) == 0
    assert machine.vm("slab_objects_full") > 0
    machine.check()


def test_a_full_table_of_slabs_is_counted(monkeypatch):
    for module in ("lower_machine", "lower_slab"):
        monkeypatch.setattr(f"spbfast.model.lowering.{module}.nr_slots", lambda *_: 100)
    machine = bare()
    slab = machine.world.slab
    assert machine.row(Op.SLAB_GROW, 0, 9000, mt=R) == 0
    grown = int(slab.inst[0, Si.NR_INODES])
    assert machine.vm("slab_objects_full") + grown == 9000
    assert machine.vm("slab_alloc_failed") == slab.inst[0, Si.AWAITED] == 0
    assert slab.cache[:, Sc.NR_SLABS].sum() == 100
    machine.check()
    assert machine.row(Op.SLAB_DROP, 0, 500, mt=R) == 0
    left = int(slab.inst[0, Si.NR_INODES])
    assert machine.row(Op.SLAB_GROW, 0, 100, mt=R) == 0
    assert slab.inst[0, Si.NR_INODES] == left + 100
    machine.check()


@pytest.mark.compiled
def test_cache_that_finds_no_page_is_counted():
    machine = bare("mainline", workers__pinned_share=1.0)
    assert machine.fill(0, 16_000, order=1) > 15_000
    assert machine.row(Op.CACHE_ADD, 0, 2000, order=3, alt=0, owner=0) == 0
    assert machine.vm("page_cache_added") + machine.vm("page_cache_not_added") >= 2000
    assert machine.row(Op.CACHE_ADD, 0, 300, order=5, alt=-1, owner=0, cls=ATOMIC) == 0
    assert machine.vm("page_cache_not_added") > 0
    machine.check()
