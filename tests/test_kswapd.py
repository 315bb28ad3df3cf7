"""When kswapd wakes and what it counts as free: its mark, and pages that no movable request may use."""

from __future__ import annotations

import pytest

from spbfast.constants import MOVABLE, PB_PAGES, C, Op
from spbfast.jit.decorators import entry_kernel
from spbfast.model.allocator.barred import nr_barred, nr_free_for_kswapd
from spbfast.model.requests.attempt import is_above
from spbfast.model.state.node import NEVER, N, Wk
from spbfast.model.workers.kswapd import reclaim_direct, wake_kswapd
from tests.machine_tools import MS, M, U, bare


@entry_kernel
def wake(w, policy):
    """A request has entered the slow path."""
    wake_kswapd(w, policy)


@entry_kernel
def barred(z, policy):
    """Free pages closed to movable requests."""
    return nr_barred(z, policy)


@entry_kernel
def free_for_kswapd(w, policy):
    """What kswapd compares with its marks."""
    return nr_free_for_kswapd(w, policy)


@entry_kernel
def direct(w, policy, order):
    """A round of direct reclaim for a request of that order."""
    return reclaim_direct(w, policy, order)


@entry_kernel
def above(w, policy, mt, mark):
    """Whether a single page of a type may be had above a mark."""
    return is_above(w, policy, 0, mt, mark)


@pytest.mark.parametrize(("key", "mark"), [("low", N.WMARK_LOW), ("high", N.WMARK_HIGH)])
@pytest.mark.parametrize("boost", [0, 700])
def test_a_request_in_the_slow_path_wakes_kswapd_below_its_mark(key, mark, boost):
    machine = bare(reclaim__kswapd_wake=key)
    node, count = machine.world.node, machine.world.zone.count
    node.conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = 1000, 1250, 1500
    count[C.WATERMARK_BOOST], count[C.FREE_HIGHATOMIC] = boost, 100
    for short, is_woken in ((0, False), (1, True)):
        count[C.FREE_PAGES] = int(node.conf[mark]) + boost + 100 - short
        wake(machine.world, machine.policy)
        assert bool(node.due[Wk.KSWAPD] != NEVER) is is_woken
        assert machine.vm("pageoutrun") == int(is_woken)
    wake(machine.world, machine.policy)
    assert machine.vm("pageoutrun") == 1, "it is awake"


@pytest.mark.compiled
def test_woken_at_high_it_works_before_the_low_mark_is_reached():
    """Memory between low and high, and a request that the lists cannot serve: only one reading reclaims."""
    freed = {}
    for key in ("low", "high"):
        machine = bare("mainline", reclaim__kswapd_wake=key, machine__min_free="8MiB")
        conf = machine.world.node.conf
        conf[N.WMARK_HIGH] = conf[N.WMARK_LOW] + 1000
        while machine.free > conf[N.WMARK_LOW] + 500:
            assert machine.row(Op.CACHE_ADD, 0, 16, order=2, alt=0, owner=0) == 0
        assert machine.vm("pageoutrun") == 0
        machine.fill(0, 1, order=10)
        machine.work(100 * MS)
        freed[key] = machine.vm("pgsteal_kswapd")
        assert bool(machine.free >= conf[N.WMARK_HIGH]) is (key == "high")
        machine.check()
    assert freed["low"] == 0 < freed["high"]


def tainted(policy="v1@30", **values):
    """One tainted superpageblock of which an unmovable pageblock is in use, all else free; and its number."""
    machine = bare(policy, pcp__enabled=False, workers__pinned_share=0.0, **values)
    assert machine.fill(0, 1, order=9, mt=U) == 1
    return machine, int(machine.slots(0, 1)[0]) >> machine.world.zone.geo.spb_shift


def test_pages_behind_the_reserve_are_barred_and_those_above_it_are_not():
    machine, spb = tainted({"preset": "v1@30", "reserve_floor": 3, "reserve_shift": -1})
    z, slot = machine.world.zone, 1
    while z.spb.nr_free_pb[spb] > 4:
        assert machine.fill(slot, 1, order=9, mt=U) == 1
        slot += 1
    assert barred(z, machine.policy) == 0, "four free pageblocks are one above the reserve"
    assert machine.fill(slot, 1, order=9, mt=U) == 1
    assert barred(z, machine.policy) == 3 * PB_PAGES == z.spb.nr_free_pages[spb]
    assert machine.fill(slot + 1, 1, order=3, mt=U) == 1
    assert barred(z, machine.policy) == 3 * PB_PAGES - 8
    machine.check()


@pytest.mark.parametrize(
    ("policy", "share"),
    [
        ({"preset": "v1@30", "reserve_floor": 3, "reserve_shift": -1, "movable_reserve": "soft"}, 0),
        ({"preset": "v1@30", "reserve_floor": 0, "reserve_shift": -1, "movable_into_tainted": False}, 1),
        ("mainline", 0),
    ],
)
def test_what_is_barred_follows_the_policy(policy, share):
    """A soft reserve bars nothing, a closed tainted pool everything; mainline has no superpageblocks."""
    machine, spb = tainted(policy)
    z = machine.world.zone
    assert barred(z, machine.policy) == share * z.spb.nr_free_pages[spb]
    assert z.spb.nr_free_pages[spb] > 0


@pytest.mark.parametrize("key", ["counted", "subtracted"])
def test_barred_pages_count_or_not_for_movable_requests_and_for_kswapd(key):
    policy = {"preset": "v1@30", "reserve_floor": 8, "reserve_shift": -1}
    machine, spb = tainted(policy, reclaim__barred_free=key)
    w = machine.world
    nr = int(barred(w.zone, machine.policy))
    assert nr == w.zone.spb.nr_free_pages[spb] > 0
    lost = nr if key == "subtracted" else 0
    assert free_for_kswapd(w, machine.policy) == machine.free - lost
    for mt, most in ((U, machine.free - 1), (MOVABLE, machine.free - 1 - lost)):
        assert above(w, machine.policy, mt, most)
        assert not above(w, machine.policy, mt, most + 1)


@pytest.mark.compiled
@pytest.mark.parametrize("key", ["counted", "subtracted"])
def test_kswapd_sleeps_on_barred_pages_only_where_they_count(key):
    """The finding in small: pages behind the reserve hold the mark up while movable requests reclaim."""
    policy = {"preset": "v1@30", "reserve_floor": 8, "reserve_shift": -1}
    lru = {"pagecache__folio_weights": [1.0], "pagecache__hot_share": 0.0}
    machine, _ = tainted(policy, reclaim__barred_free=key, **lru)
    w, conf = machine.world, machine.world.node.conf
    nr = int(barred(w.zone, machine.policy))
    conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = nr // 8, nr // 4, nr // 2
    for _ in range(40):
        machine.row(Op.CACHE_ADD, 0, 1000, owner=0)
    stalls = machine.vm("allocstall_normal")
    assert (machine.vm("pageoutrun") > 0) is (key == "subtracted")
    machine.work(200 * MS)
    usable = machine.free - int(barred(w.zone, machine.policy))
    assert bool(usable >= conf[N.WMARK_HIGH]) is (key == "subtracted")
    if key == "counted":
        assert machine.free >= conf[N.WMARK_HIGH], "it sleeps for good"
        assert machine.fill(5000, 10, mt=M) == 10
        assert machine.vm("allocstall_normal") > stalls, "each request reclaims for itself"
    machine.check()


@pytest.mark.parametrize(
    ("gap", "order", "pages"),
    [(False, 0, 32), (False, 9, 32), (True, 0, 32), (True, 4, 32), (True, 5, 64), (True, 9, 1024)],
)
def test_a_round_of_direct_reclaim_frees_room_to_compact(gap, order, pages):
    machine = bare("mainline", reclaim__compact_gap=gap)
    for _ in range(4):
        assert machine.row(Op.CACHE_ADD, 0, 1000, order=0, alt=0, owner=0) == 0
    assert direct(machine.world, machine.policy, order) == pages
    assert machine.vm("pgsteal_direct") == pages
    machine.check()
