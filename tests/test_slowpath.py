"""The slow paths step by step: what comes before what, who gives up where, and that every step is counted."""

from __future__ import annotations

import pytest

from spbfast.constants import LIST_TAINTED, PB_PAGES, C, Cls, Ev, Op, Req
from spbfast.jit.decorators import entry_kernel
from spbfast.model.requests.attempt import is_above_min
from spbfast.model.state.node import N, Now
from tests.machine_tools import ATOMIC, MS, OPTIONAL, USER, M, R, U, bare
from tests.passes import cases

NORETRY = USER | int(Cls.NORETRY)
MAYFAIL = USER | int(Cls.RETRY_MAYFAIL)
QUIET = {"workers__busy_share": 0.0, "reclaim__compact_candidates": 0}


@entry_kernel
def above_min(w, policy, order, cls):
    """Whether a caller of this class may have an unmovable block."""
    return is_above_min(w, policy, order, U, cls, 0)


def fragmented(policy, hole=1, **values):
    """A tainted pool without a free page, and clean superpageblocks full of pinned pages but for small holes.

    UUUUUU UUMMUUUU mmmmmmmm mmmmmmmm ..: only a step that drops NOFRAGMENT finds an unmovable page, and it
    taints. Counters start at 0.
    """
    machine = bare(policy, workers__pinned_share=1.0, pcp__enabled=False, **QUIET, **values)
    conf = machine.world.node.conf
    conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 0
    machine.fill(0, 8, order=9, mt=U)
    nr = machine.fill_up(1000, 15_300, order=1)
    for i, order in enumerate((9, 6, 3, 1, 0)):
        machine.fill(10 + 150 * i, 150, order=order, mt=U)
    assert machine.free == 0
    for first in range(1000, 1000 + nr // 2, 64):
        machine.row(Op.FREE, first, 1 << (hole - 1))
    assert machine.free > 100
    conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 16, 20, 24
    machine.world.node.vm[:] = 0
    return machine


def counts(machine, *names):
    """Counters by name."""
    return {name: machine.vm(name) for name in names}


RELAX = tuple(
    f"spb_alloc_atomic_relax_{step}"
    for step in ("noretry_skip", "nowarn_lower_order", "add_tainted_ok", "drop_nofragment")
)


@pytest.mark.compiled
def test_a_noretry_caller_fails_before_any_relaxation():
    machine = fragmented({"preset": "v1@45", "atomic_noretry_fails": True})
    tainted = machine.world.zone.count[C.TAINTED_SPBS]
    assert machine.fill(900, 5, mt=U, cls=OPTIONAL) == 0
    assert list(counts(machine, *RELAX).values()) == [5, 0, 0, 0]
    assert machine.vm("alloc_failed_optional") == machine.vm("alloc_failed_nonblock_order0") == 5
    assert machine.world.zone.count[C.TAINTED_SPBS] == tainted
    machine.check()


@pytest.mark.compiled
def test_an_atomic_caller_relaxes_in_two_steps_and_then_taints():
    machine = fragmented("v1@45")
    tainted = int(machine.world.zone.count[C.TAINTED_SPBS])
    assert machine.fill(900, 1, mt=U, cls=ATOMIC) == 1
    assert list(counts(machine, *RELAX).values()) == [0, 0, 1, 1]
    assert machine.world.zone.count[C.TAINTED_SPBS] == tainted + 1
    assert machine.vm("taints_by_atomic") == 1
    machine.check()


@pytest.mark.parametrize("rule", cases(False, True))
def test_who_does_not_warn_fails_rather_than_taint_where_lower_orders_are_to_be_had(rule):
    machine = fragmented({"preset": "v2", "nowarn_lower_order_fails": rule}, hole=3)
    z = machine.world.zone
    assert z.spb.content[z.spb.list >= LIST_TAINTED, M].sum() > 0, "what the rule looks for"
    tainted = int(machine.world.zone.count[C.TAINTED_SPBS])
    before = counts(machine, *RELAX)
    served = machine.fill(900, 1, order=2, mt=U, cls=ATOMIC)
    gone = {name: machine.vm(name) - before[name] for name in RELAX}
    assert gone["spb_alloc_atomic_relax_nowarn_lower_order"] == int(rule)
    assert gone["spb_alloc_atomic_relax_drop_nofragment"] == int(not rule)
    assert machine.world.zone.count[C.TAINTED_SPBS] <= tainted + served
    machine.check()


@pytest.mark.compiled
def test_a_single_page_never_falls_under_the_rule_of_lower_orders():
    machine = fragmented({"preset": "v2", "nowarn_lower_order_fails": True})
    assert machine.fill(900, 1, mt=U, cls=ATOMIC) == 1
    assert machine.vm("spb_alloc_atomic_relax_nowarn_lower_order") == 0


@pytest.mark.compiled
def test_mainline_has_no_relax_steps():
    machine = fragmented("mainline")
    assert machine.fill(900, 3, mt=U, cls=ATOMIC) == 3
    assert list(counts(machine, *RELAX).values()) == [0, 0, 0, 0]


@pytest.mark.compiled
def test_a_blocking_caller_drops_nofragment_last():
    machine = fragmented("v1@45")
    assert machine.fill(900, 1, mt=U) == 1
    # Nothing to reclaim: one round without progress, an evacuation, then the taint.
    assert counts(machine, "allocstall_normal", "direct_reclaim_rounds", "alloc_no_progress_loops") == {
        "allocstall_normal": 1,
        "direct_reclaim_rounds": 1,
        "alloc_no_progress_loops": 1,
    }
    assert machine.vm("spb_evac_direct") == 1
    assert machine.vm("dropped_nofragment") == 1
    assert machine.vm("taints_by_blocking") == 1
    machine.check()


@pytest.mark.compiled
def test_noretry_callers_give_up_after_one_loop_and_do_not_taint():
    machine = fragmented("v1@45")
    tainted = int(machine.world.zone.count[C.TAINTED_SPBS])
    assert machine.fill(900, 4, mt=U, cls=NORETRY) == 0
    assert machine.vm("alloc_noretry_exits") == machine.vm("alloc_failed_blocking") == 4
    assert machine.vm("direct_reclaim_rounds") == 4
    assert machine.vm("dropped_nofragment") == machine.vm("oom_kill") == 0
    assert machine.world.zone.count[C.TAINTED_SPBS] == tainted


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@30", "v1@45", "v2"))
def test_costly_callers_give_up_before_out_of_memory(policy):
    machine = fragmented(policy)
    assert machine.fill(900, 3, order=5, mt=U) == 0
    assert machine.vm("alloc_costly_exits") == 3
    assert machine.fill(900, 3, order=5, mt=U, cls=MAYFAIL) == 0
    assert machine.vm("alloc_costly_exits") == 3
    assert machine.vm("oom_kill") == 0
    assert machine.fill(900, 3, order=3, mt=U) == 0
    assert machine.vm("oom_kill") == 3
    assert machine.fill(900, 3, order=3, mt=U, cls=MAYFAIL) == 0
    assert machine.vm("oom_kill") == 3
    assert machine.vm("alloc_failed_blocking") == 12
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize(("order", "mt", "first"), cases((0, U, 0), (2, U, 1), (2, M, 0), (4, M, 1)))
def test_compaction_comes_first_for_costly_orders_and_what_is_not_movable(order, mt, first):
    """With no-retry there is one loop after it, so its number tells: first, and once more after reclaim."""
    machine = bare("v1@15", workers__pinned_share=1.0, workers__busy_share=0.0, pcp__enabled=False)
    machine.fill_up(0, 16_000, order=1)
    machine.world.node.conf[[N.COMPACT_INTERVAL, N.COMPACT_CANDIDATES]] = 1, 100_000
    machine.work(10 * MS)
    before = machine.vm("compact_stall") + machine.vm("compact_deferred")
    machine.fill(16_100, 1, order=order, mt=mt, cls=NORETRY)
    tries = machine.vm("compact_stall") + machine.vm("compact_deferred") - before
    assert tries == (first + 1 if order else 0)


@pytest.mark.compiled
def test_compaction_that_fails_is_put_off_longer_and_longer():
    machine = fragmented("v1@45")
    machine.fill(900, 40, order=3, mt=U)
    node = machine.world.node
    assert machine.vm("compact_deferred") > 0
    assert node.now[Now.COMPACT_DEFER_SHIFT] > 0
    assert machine.vm("spb_evac_direct") < 4 * 40


@pytest.mark.compiled
def test_pages_that_rest_on_other_cpus_are_set_free_after_reclaim():
    machine = bare("v1@30", pagecache__folio_weights=[1.0], pagecache__hot_share=0.0)
    machine.row(Op.CACHE_ADD, 0, 40_000, owner=0, cls=NORETRY)
    machine.fill(0, 200, cpu=3)
    machine.row(Op.FREE, 0, 200, cpu=3)
    assert machine.world.zone.count[C.PCP_PAGES] > 0
    # One round never makes so large a block.
    machine.fill(1000, 1, order=10, cls=MAYFAIL)
    assert machine.vm("direct_reclaim_rounds") > 0
    assert machine.vm("pcp_drained_all") > 0
    assert machine.world.zone.count[C.PCP_PAGES] == 0
    machine.check()


def test_who_must_not_fail_may_dip_into_the_reserves():
    machine = bare("mainline", workers__pinned_share=1.0, pcp__enabled=False)
    machine.fill(0, 10)
    machine.world.node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = machine.free + 20
    assert machine.fill(20, 8, cls=USER) == 0
    assert machine.vm("oom_kill") == 8
    assert machine.fill(30, 8, cls=USER | int(Cls.NOFAIL)) == 8
    assert machine.vm("alloc_failed_nofail") == 0
    machine.world.node.conf[N.WMARK_MIN] = 3 * machine.free
    assert machine.fill(40, 8, cls=USER | int(Cls.NOFAIL)) == 0
    assert machine.vm("alloc_failed_nofail") == 8


# --- watermarks -------------------------------------------------------------------------------------

HIGH_BLOCKING = USER | int(Cls.HIGH)
HIGH_NOMEMALLOC = int(Cls.HIGH | Cls.NOMEMALLOC | Cls.KSWAPD)


@pytest.mark.parametrize(
    ("cls", "order", "boost", "reserved", "mark"),
    [
        (USER, 0, 0, 0, 1000),
        (HIGH_BLOCKING, 0, 0, 0, 500),  # __GFP_HIGH: half of min
        (ATOMIC, 0, 0, 0, 375),  # that cannot block: a quarter of what is left
        (HIGH_NOMEMALLOC, 0, 0, 0, 500),
        (OPTIONAL, 0, 0, 0, 1000),
        (int(Cls.KSWAPD), 0, 0, 0, 1000),  # who cannot block has no share of min by that alone
        (USER, 0, 0, 96, 1096),  # the reserve is not for this caller
        (ATOMIC, 0, 0, 96, 375),
        (int(Cls.KSWAPD), 0, 0, 96, 1000),
        (OPTIONAL, 0, 0, 96, 1096),
        (USER, 0, 512, 0, 1512),
        (ATOMIC, 0, 512, 0, 375),  # a single page in a hurry ignores the boost
        (ATOMIC, 2, 512, 0, 887),
    ],
)
def test_how_far_down_each_class_may_go(cls, order, boost, reserved, mark):
    machine = bare("v1@30")
    w = machine.world
    w.node.conf[N.WMARK_MIN] = 1000
    w.zone.count[C.WATERMARK_BOOST] = boost
    w.zone.count[C.FREE_HIGHATOMIC] = reserved
    for free, expected in ((mark + (1 << order), True), (mark + (1 << order) - 1, False)):
        w.zone.count[C.FREE_PAGES] = free
        assert bool(above_min(w, machine.policy, order, cls)) is expected


@pytest.mark.compiled
def test_fragmenting_claims_boost_the_watermarks_and_kswapd_ends_it():
    machine = bare({"preset": "mainline", "watermark_boost": True}, pagecache__folio_weights=[1.0])
    w = machine.world
    high = int(w.node.conf[N.WMARK_HIGH])
    w.zone.ev[Ev.NR_BOOSTS] = 1
    machine.ask(Req.BOOST)
    assert w.zone.count[C.WATERMARK_BOOST] == min(PB_PAGES, max(high * 3 // 2, PB_PAGES))
    w.zone.ev[Ev.NR_BOOSTS] = 1000
    machine.ask(Req.BOOST)
    assert w.zone.count[C.WATERMARK_BOOST] == max(high * 3 // 2, PB_PAGES)
    assert machine.vm("watermark_boosted") == 1001
    assert machine.vm("pageoutrun") == 1
    machine.row(Op.CACHE_ADD, 0, 40_000, owner=0, cls=NORETRY)
    before = machine.free
    machine.work(50 * MS)
    assert machine.free >= before
    assert machine.free >= high + max(high * 3 // 2, PB_PAGES) - 64
    assert w.zone.count[C.WATERMARK_BOOST] == 0
    assert machine.vm("watermark_boost_cleared") == 1
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize(("policy", "boosts"), cases(("v1@15", False), ("v1@45", False), ("mainline", True)))
def test_mainline_boosts_and_the_series_does_not(policy, boosts):
    machine = bare(policy, workers__pinned_share=1.0, pcp__enabled=False, **QUIET)
    machine.fill_up(0, 16_000, order=1)
    for slot in range(0, 14_000, 8):
        machine.row(Op.FREE, slot, 1)
    machine.fill(16_050, 100, order=0, mt=U)
    machine.fill(16_200, 100, order=0, mt=R)
    assert (machine.vm("watermark_boosted") > 0) is boosts
    machine.check()


# --- the reserve, in a machine that is large enough for one ----------------------------------------

LARGE = {"machine__memory": "256MiB", "machine__min_free": "4MiB"}


@pytest.mark.parametrize("pcp", cases(False, True))
@pytest.mark.parametrize("preset", cases("mainline", "v1@45", "v2"))
def test_atomic_callers_reserve_below_the_low_watermark_and_others_bring_it_back(preset, pcp):
    policy = {"preset": preset, "highatomic_reserve": True, "watermark_boost": False}
    machine = bare(policy, workers__pinned_share=1.0, pcp__enabled=pcp, **LARGE, **QUIET)
    count = machine.world.zone.count
    assert machine.fill(0, 20, order=3, mt=U, cls=ATOMIC) == 20
    assert count[C.RESERVED_HIGHATOMIC] == 0, "above the low watermark nobody reserves"
    machine.fill_up(100, 16_000, order=2)
    machine.fill(16_100, 180, order=5, mt=U)
    assert machine.fill(30, 20, order=3, mt=U, cls=ATOMIC) > 0
    assert count[C.RESERVED_HIGHATOMIC] > 0
    machine.check()
    machine.row(Op.FREE, 0, 60)
    before = int(count[C.RESERVED_HIGHATOMIC])
    machine.fill(16_300, 60, order=2, mt=U)
    assert count[C.RESERVED_HIGHATOMIC] <= before
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize(
    "policy", cases("mainline", "v1@30", "v1@45", {"preset": "v2", "highatomic_reserve": True}), ids=str
)
def test_served_and_failed_slow_requests_add_up(policy):
    machine = fragmented(policy)
    for mt in (U, M, R):
        for cls in (USER, ATOMIC, OPTIONAL, NORETRY, MAYFAIL):
            for order in (0, 1, 3, 4, 9):
                machine.fill(900, 10, order=order, mt=mt, cls=cls)
                machine.row(Op.FREE, 900, 10)
    vm = machine.vm
    assert vm("allocslow_blocking") == vm("allocslow_served_blocking") + vm("alloc_failed_blocking") > 0
    failed = vm("alloc_failed_atomic") + vm("alloc_failed_optional")
    assert vm("allocslow_atomic") == vm("allocslow_served_atomic") + failed > 0
    parts = ("order0", "order1_3", "costly")
    assert failed == sum(vm(f"alloc_failed_nonblock_{part}") for part in parts) > 0
    machine.check()
