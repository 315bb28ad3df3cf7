"""Who gets a page, who is refused, and how each failure is counted: the classes and their slow paths."""

from __future__ import annotations

import pytest

from spbfast.constants import PB_PAGES, Cls, Op
from spbfast.model.state.node import N
from spbfast.model.state.page_state import CODE_PINNED, states_of
from tests.machine_tools import ATOMIC, OPTIONAL, USER, M, R, U, bare


def full(policy="v1@45", **values):
    """A machine whose memory is full of movable pages that cannot be moved."""
    machine = bare(policy, workers__pinned_share=1.0, **values)
    machine.fill(0, 16_000, order=1)
    assert machine.free < 2 * machine.world.node.conf[N.WMARK_LOW] + 1024
    return machine


@pytest.mark.parametrize("policy", ["mainline", "v1@15", "v1@30", "v1@45", "v2"])
def test_every_request_on_a_full_machine_ends_and_is_counted(policy):
    machine = full(policy)
    for mt in (U, M, R):
        for cls in (USER, ATOMIC, OPTIONAL, USER | int(Cls.NORETRY), int(Cls.HIGH | Cls.NOFAIL)):
            for order in (0, 2, 4, 10):
                before = {name: machine.vm(name) for name in FAILED}
                served = machine.fill(16_100, 12, order=order, mt=mt, cls=cls)
                after = sum(machine.vm(name) - before[name] for name in FAILED)
                assert served + after == 12
                machine.row(Op.FREE, 16_100, 12)
    assert machine.vm("alloc_failed_blocking") > 0
    assert machine.vm("alloc_failed_optional") > 0
    machine.check()


FAILED = ("alloc_failed_blocking", "alloc_failed_atomic", "alloc_failed_optional")


@pytest.mark.compiled
def test_only_small_blocking_failures_are_out_of_memory():
    machine = full("mainline")
    assert machine.fill(16_100, 40, order=10) < 40
    assert machine.vm("oom_kill") == machine.vm("alloc_failed_blocking") - 40 + int(
        (machine.slots(16_100, 40) >= 0).sum()
    )


@pytest.mark.compiled
def test_callers_that_cannot_wait_may_use_reserves():
    machine = full("mainline", machine__min_free="8MiB")
    mark = int(machine.world.node.conf[N.WMARK_MIN])
    machine.fill(16_050, 300, order=2, cls=USER)
    assert machine.free >= mark - 63  # a per-CPU refill goes below it
    assert machine.fill(16_350, 30, order=3, cls=ATOMIC) > 0
    assert machine.free >= mark // 4
    machine.check()


@pytest.mark.compiled
def test_direct_reclaim_serves_blocking_callers():
    machine = bare("v1@30", pagecache__folio_weights=[1.0], pagecache__hot_share=0.0)
    node = machine.world.node
    machine.row(Op.CACHE_ADD, 0, 40_000, owner=0, cls=int(Cls.NORETRY | Cls.NOWARN))
    assert machine.free <= node.conf[N.WMARK_HIGH] + 64
    served = machine.fill(0, 2000)
    assert served == 2000
    assert machine.vm("allocstall_normal") > 0
    assert machine.vm("pgsteal_direct") > 0
    machine.check()


def test_without_rounds_nothing_is_reclaimed_directly():
    machine = bare("v1@30", reclaim__rounds_max=0, pagecache__folio_weights=[1.0], pagecache__hot_share=0.0)
    machine.row(Op.CACHE_ADD, 0, 40_000, owner=0, cls=int(Cls.NORETRY | Cls.NOWARN))
    machine.fill(0, 2000)
    assert machine.vm("direct_reclaim_rounds") == 0
    assert machine.vm("alloc_failed_blocking") > 0


@pytest.mark.compiled
def test_optional_requests_are_refused_while_tainted_memory_has_room():
    machine = bare({"preset": "v1@30", "atomic_noretry_fails": False})
    assert machine.fill(0, 4, mt=U) == 4
    served = machine.fill(100, 4000, order=3, mt=U, cls=OPTIONAL)
    assert machine.vm("spb_highorder_refused") + served > 0
    machine.check()


def test_optional_atomic_requests_fail_at_once_where_the_policy_says_so():
    machine = full({"preset": "v1@45", "atomic_noretry_fails": True})
    dropped = machine.vm("dropped_nofragment")
    machine.fill(16_100, 20, order=3, mt=U, cls=OPTIONAL)
    assert machine.vm("alloc_failed_optional") > 0
    assert machine.vm("dropped_nofragment") == dropped


def test_a_soft_reserve_lets_more_movable_requests_in():
    served = {}
    for reserve in ("hard", "soft"):
        machine = bare({"preset": "v1@45", "movable_reserve": reserve}, workers__pinned_share=1.0)
        assert machine.fill(16_000, 24, order=9, mt=U) == 24
        for slot in range(16_000, 16_024, 3):
            machine.row(Op.FREE, slot, 1)
        served[reserve] = machine.fill(0, 3000, order=3)
        machine.check()
    assert served["soft"] >= served["hard"] > 0


@pytest.mark.compiled
def test_compaction_makes_room_for_a_huge_page():
    still = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0}
    machine = bare("v1@30", boot__fill_page_cache=False, **still)
    machine.fill(0, 16_000, order=1)
    for first in range(0, 15_800, 16):
        machine.row(Op.FREE, first, 9)
    machine.work(10**10)
    assert machine.row(Op.FREE, 15_872, PB_PAGES) == 0
    assert machine.row(Op.THP, 15_872, 1) == 0
    assert machine.vm("thp_fault_alloc") + machine.vm("thp_fault_fallback") == 1
    assert machine.vm("compact_stall") >= machine.vm("thp_fault_fallback")
    machine.check()


@pytest.mark.compiled
def test_compaction_is_bounded_by_its_rate():
    machine = bare("v1@30", reclaim__compact_rate=1, workers__pinned_share=0.0)
    machine.fill(0, 16_000, order=1)
    for first in range(0, 15_800, 16):
        machine.row(Op.FREE, first, 9)
    machine.row(Op.FREE, 15_872, PB_PAGES)
    assert machine.row(Op.THP, 15_872, 1) == 0
    assert machine.vm("compact_success") + machine.vm("compact_fail") == 0
    machine.check()


@pytest.mark.compiled
def test_pins_survive_in_the_page_state():
    machine = full()
    state = states_of(machine.world.zone.page)
    assert int(state[machine.slots(0, 1)[0]]) >> 4 == CODE_PINNED
