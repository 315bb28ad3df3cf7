"""Anonymous memory in swap: what goes, how much of it, what its slots say meanwhile, how it comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spbfast.config.models import StartSpec
from spbfast.constants import PB_PAGES, C, Err, Op
from spbfast.errors import ConfigError, InvariantError
from spbfast.jit.decorators import INTERPRETED, entry_kernel
from spbfast.model.engine import run_replicate, simulate_ticks
from spbfast.model.holders.swap import swap_out
from spbfast.model.loop.replay import boot_zone
from spbfast.model.loop.step import end_boot
from spbfast.model.lowering.lower_machine import first_demand_owner, lower_scenario
from spbfast.model.state.build import boot_chunks, first_usable
from spbfast.model.state.check import check_zone
from spbfast.model.state.node import Ca, N, Now
from spbfast.model.state.page_state import CODE_MOVABLE, CODE_PINNED, ORDER_NIBBLE, states_of
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.slots import EMPTY_SLOT, SWAPPED
from spbfast.model.workers.scan_balance import nr_scanned, reclaim_both
from tests.demand_tools import scenario
from tests.machine_tools import Machine, U, bare
from tests.passes import cases, words_by_pass

ROOT = Path(__file__).parent.parent
STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0}
OUT, BOTH, SCANNED = range(3)


@entry_kernel
def ask(verb, w, policy, want):
    """Swap out, reclaim of both kinds, or say what a classic pass scans."""
    if verb == OUT:
        return np.int64(swap_out(w.zone, policy, w.node, want))
    if verb == BOTH:
        return np.int64(reclaim_both(w, policy, want))
    return np.int64(nr_scanned(w))


def reclaimed(machine: Machine, verb: int, want: int) -> int:
    return int(ask(verb, machine.world, machine.policy, want))


def with_swap(policy="v1@30", swap="8MiB", **values) -> Machine:
    """Free memory, one owner, and room in swap for 2048 pages."""
    return bare(policy, machine__swap=swap, **{**STILL, **values})


def swapped(machine: Machine) -> list[int]:
    """Slots whose pages are in swap."""
    return np.flatnonzero(machine.slots() == SWAPPED).tolist()


def in_swap(machine: Machine) -> int:
    """Pages in swap, recounted: the zone's own count is checked on the way."""
    machine.check()
    found = len(swapped(machine))
    assert int(machine.world.zone.count[C.SWAP_PAGES]) == found
    return found


# -- what goes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", cases("v1@30", "mainline", "v2"))
def test_pages_go_in_the_order_of_their_slots_and_leave_free_memory(policy):
    machine = with_swap(policy, pcp__enabled=False)
    assert machine.fill(100, 300) == 300
    free = machine.free
    assert reclaimed(machine, OUT, 40) == 40
    assert swapped(machine) == list(range(100, 140))
    assert machine.free == free + 40
    assert (machine.vm("pswpout"), in_swap(machine)) == (40, 40)
    assert reclaimed(machine, OUT, 10) == 10
    assert swapped(machine) == list(range(100, 150)), "the hand goes on"


def test_the_hand_goes_round():
    machine = with_swap()
    machine.fill(0, 100)
    reclaimed(machine, OUT, 60)
    machine.row(Op.FREE, 0, 100)
    machine.fill(0, 50)
    assert reclaimed(machine, OUT, 1000) == 50
    assert swapped(machine) == list(range(50))


def test_swap_is_bounded_by_its_size():
    machine = with_swap(swap="64KiB")
    machine.fill(0, 100)
    assert reclaimed(machine, OUT, 100) == 16
    assert reclaimed(machine, OUT, 100) == 0
    assert in_swap(machine) == 16
    machine.row(Op.FREE, 0, 4)
    assert reclaimed(machine, OUT, 100) == 4, "slots that were freed give their swap back"
    assert in_swap(machine) == 16


@pytest.mark.parametrize("pinned", [0.0, 1.0])
def test_pinned_memory_never_goes(pinned):
    machine = with_swap(workers__pinned_share=pinned)
    machine.fill(0, 200)
    assert int(machine.world.zone.count[C.ANON_PAGES]) == (0 if pinned else 200)
    assert reclaimed(machine, OUT, 50) == (0 if pinned else 50)
    assert in_swap(machine) == (0 if pinned else 50)


@pytest.mark.compiled
def test_some_pins_are_passed_over_and_stay():
    machine = with_swap(workers__pinned_share=0.3)
    machine.fill(0, 1000)
    pfn = machine.slots(0, 1000)
    pinned = states_of(machine.world.zone.page, pfn) >> 4 == CODE_PINNED
    assert 200 < pinned.sum() < 400
    assert reclaimed(machine, OUT, 5000) == 1000 - pinned.sum()
    assert (machine.slots(0, 1000) >= 0).tolist() == pinned.tolist()
    in_swap(machine)


def test_memory_of_no_daemon_or_guest_never_goes():
    """The owner of unmovable pages beside a guest, and slab, page cache and statics."""
    machine = bare(machine__swap="8MiB", **STILL)
    z = machine.world.zone
    assert z.slots.anon.tolist() == [owner == machine.owner for owner in range(z.slots.anon.size)]
    machine.fill(0, 10, mt=U)
    assert reclaimed(machine, OUT, 10) == 0
    machine.check()


def test_owners_take_turns_by_what_they_have():
    """A 4096th each, of 8700 and of 4600 pages: two pages of the one for each of the other."""
    actors = [{"kind": "daemons", "name": n, "memory": "36MiB", "churn_per_second": 0.0} for n in ("a", "b")]
    given = scenario(*actors, machine__swap="8MiB", **STILL)
    run = lower_scenario(given, 1, 0)
    z = run.world.zone
    boot_zone(z, run.policy, boot_chunks(z, first_usable(z), z.geo.hi))
    end_boot(run.world)
    machine = Machine(run, first_demand_owner(given))
    other = machine.owner + 1
    machine.fill(0, 8700)
    machine.row(Op.ALLOC, 0, 4600, owner=other)
    assert reclaimed(machine, OUT, 9) == 9
    assert int((machine.slots() == SWAPPED).sum()) == 6
    assert int((machine.slots(owner=other) == SWAPPED).sum()) == 3
    machine.check()


# -- huge pages ----------------------------------------------------------------------------------------


def test_a_huge_page_goes_whole_and_comes_back_as_base_pages():
    machine = with_swap(swap__refault_share=1.0, swap__refault_delay="5ms")
    assert machine.row(Op.THP, 0) == 0
    free = machine.free
    assert reclaimed(machine, OUT, 1) == PB_PAGES
    assert in_swap(machine) == PB_PAGES
    assert machine.free == free + PB_PAGES
    assert (machine.vm("thp_swpout"), machine.vm("thp_swpout_fallback")) == (1, 0)
    ticks(machine, 5)
    assert in_swap(machine) == PB_PAGES
    ticks(machine, 6)
    assert in_swap(machine) == 0
    pfn = machine.slots(0, PB_PAGES)
    assert len(set(pfn.tolist())) == PB_PAGES
    states = states_of(machine.world.zone.page, pfn)
    assert set((states & ORDER_NIBBLE).tolist()) == {0}
    assert set((states >> 4).tolist()) == {CODE_MOVABLE}
    assert machine.vm("pswpin") == machine.vm("pswpout") == PB_PAGES


@pytest.mark.parametrize("split_folios", [False, True])
def test_a_huge_page_is_split_where_swap_has_no_room_for_the_whole(split_folios):
    machine = with_swap(swap="1MiB", workers__split_folios=split_folios)
    assert machine.row(Op.THP, 0) == 0
    assert reclaimed(machine, OUT, 3) == 3
    assert swapped(machine) == [0, 1, 2]
    assert (machine.slots(3, PB_PAGES - 3) >= 0).all()
    assert (machine.vm("thp_swpout"), machine.vm("thp_swpout_fallback")) == (0, 1)
    assert machine.vm("thp_migration_split") == 0
    assert reclaimed(machine, OUT, 1000) == 253
    assert in_swap(machine) == 256


# -- what demand does with it --------------------------------------------------------------------------


@pytest.mark.parametrize("percpu", [False, True])
def test_freeing_what_is_in_swap_gives_the_swap_back_and_frees_no_page(percpu):
    machine = with_swap(pcp__enabled=percpu)
    machine.fill(0, 64)
    reclaimed(machine, OUT, 32)
    freed, events = machine.vm("pgfree"), machine.vm("page_events")
    machine.row(Op.FREE, 16, 32)
    assert (machine.vm("pgfree") - freed, machine.vm("page_events") - events) == (16, 16)
    assert in_swap(machine) == 16
    machine.row(Op.FREE, 0, 64)
    assert in_swap(machine) == 0
    assert (machine.slots() == EMPTY_SLOT).all()
    assert int(machine.world.zone.count[C.ANON_PAGES]) == 0


def test_memory_in_swap_is_touched_anew_after_it_was_freed():
    machine = with_swap()
    machine.row(Op.THP, 0)
    reclaimed(machine, OUT, 1)
    machine.row(Op.FREE, 0, PB_PAGES)
    assert machine.row(Op.THP, 0) == 0
    assert in_swap(machine) == 0
    assert int(machine.world.zone.count[C.ANON_PAGES]) == PB_PAGES


@pytest.mark.parametrize("percpu", [False, True])
def test_a_request_into_a_slot_in_swap_is_an_error_of_demand(percpu):
    machine = with_swap(pcp__enabled=percpu)
    machine.fill(0, 8)
    reclaimed(machine, OUT, 4)
    assert machine.row(Op.ALLOC, 0, 1) == Err.CORRUPT


def test_a_replaced_page_in_swap_gives_its_swap_back():
    machine = with_swap()
    machine.fill(0, 8)
    reclaimed(machine, OUT, 4)
    machine.row(Op.REPLACE, 0)
    machine.row(Op.REPLACE, 7)
    assert in_swap(machine) == 3
    assert int(machine.world.zone.count[C.ANON_PAGES]) == 5


# -- coming back ---------------------------------------------------------------------------------------


def ticks(machine, until):
    """Simulate up to a tick."""
    assert simulate_ticks(machine.run, (make_samples(4),), until, 1)


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_comes_back_after_the_delay_to_where_it_was(share):
    machine = with_swap(swap__refault_share=share, swap__refault_delay="20ms")
    machine.fill(0, 100)
    reclaimed(machine, OUT, 40)
    ticks(machine, 20)
    assert in_swap(machine) == 40
    ticks(machine, 21)
    back = round(40 * share)
    assert (machine.vm("pswpin"), in_swap(machine)) == (back, 40 - back)
    every = round(1 / share)
    assert (machine.slots(0, 40)[every - 1 :: every] >= 0).all(), "spread evenly"
    ticks(machine, 60)
    assert machine.vm("pswpin") == back
    assert machine.vm("workingset_refault_file") == 0


def test_what_was_freed_meanwhile_is_not_touched():
    machine = with_swap(swap__refault_share=1.0, swap__refault_delay="20ms")
    machine.fill(0, 40)
    reclaimed(machine, OUT, 40)
    machine.row(Op.FREE, 0, 30)
    ticks(machine, 30)
    assert machine.vm("pswpin") == 10
    assert in_swap(machine) == 0


def test_pages_swapped_out_are_no_reclaimed_pages_of_files():
    machine = with_swap(
        reclaim__swappiness=100, pagecache__refault_share=1.0, pagecache__refault_delay="64ms"
    )
    machine.fill(0, 1000)
    machine.row(Op.CACHE_ADD, 0, 1000, owner=0)
    ticks(machine, 2)
    want = 200
    freed = reclaimed(machine, BOTH, want)
    machine.world.node.vm[5] += freed  # as direct reclaim counts them, pgsteal_direct
    out = machine.vm("pswpout")
    assert 0 < out < freed
    ticks(machine, 200)
    assert machine.vm("workingset_refault_file") == freed - out


# -- how much of which ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("swappiness", "anon", "cached", "expected"),
    [
        (0, 1000, 1000, 0),
        (60, 1000, 1000, 300),
        (100, 1000, 1000, 500),
        (200, 1000, 1000, 1000),
        (60, 3000, 1000, 563),
        (100, 500, 1500, 250),
    ],
)
def test_each_list_gives_by_its_length_and_swappiness(swappiness, anon, cached, expected):
    """Known answers: anon * s of anon * s + cached * (200 - s), of 1000 pages asked for 100 by 100.

    Lengths change meanwhile, so the last case is only near.
    """
    machine = with_swap(swap="64MiB", reclaim__swappiness=swappiness, pagecache__reclaim_run=1)
    machine.fill(0, anon)
    machine.row(Op.CACHE_ADD, 0, cached, owner=0)
    freed = sum(reclaimed(machine, BOTH, 10) for _ in range(10))
    assert freed == 100
    assert abs(machine.vm("pswpout") - expected / 10) <= 3
    in_swap(machine)


def test_a_huge_page_more_than_the_part_is_made_up_for_later():
    machine = with_swap(swap="64MiB", reclaim__swappiness=100)
    for i in range(8):
        machine.row(Op.THP, i * PB_PAGES)
    machine.row(Op.CACHE_ADD, 0, 8 * PB_PAGES, owner=0)
    for _ in range(16):
        reclaimed(machine, BOTH, 64)
    assert machine.vm("pswpout") == PB_PAGES, "half of 1024 pages"


def test_anonymous_memory_gives_all_where_there_is_no_page_cache():
    machine = with_swap(reclaim__swappiness=0)
    machine.fill(0, 500)
    assert reclaimed(machine, BOTH, 100) == 100
    assert machine.vm("pswpout") == 100


def test_page_cache_gives_all_where_swap_is_full():
    machine = with_swap(swap="4KiB", reclaim__swappiness=200)
    machine.fill(0, 500)
    machine.row(Op.CACHE_ADD, 0, 500, owner=0)
    assert reclaimed(machine, BOTH, 100) == 100
    assert machine.vm("pswpout") == 1
    left = machine.world.node.cache[Ca.COLD_PAGES] + machine.world.node.cache[Ca.HOT_PAGES]
    assert left == 401


def test_a_classic_pass_scans_of_each_list_what_swappiness_leaves_of_it():
    machine = with_swap(reclaim__swappiness=60)
    machine.fill(0, 1000)
    machine.row(Op.CACHE_ADD, 0, 500, owner=0)
    assert reclaimed(machine, SCANNED, 0) == 1000 * 60 // 200 + 500 * 140 // 200
    machine.world.node.conf[N.SWAP_PAGES] = 0
    assert reclaimed(machine, SCANNED, 0) == 500


# -- invariants ----------------------------------------------------------------------------------------


def test_check_zone_knows_what_is_in_swap():
    machine = with_swap()
    machine.fill(0, 100)
    reclaimed(machine, OUT, 50)
    z = machine.world.zone
    base = int(z.slots.base[machine.owner])
    faults = [
        (z.slots.link, base + 3, 0),  # forgotten
        (z.slots.link, base + 200, -1),  # invented
        (z.slots.link, base + 3, -2),
        (z.count, int(C.SWAP_PAGES), 49),
        (z.count, int(C.ANON_PAGES), 51),
        (z.slots.nr_anon, machine.owner, 49),
        (z.slots.nr_anon, 0, 1),
        (z.slots.link, int(z.slots.base[0]), -1),  # page cache
    ]
    for array, at, value in faults:
        held = array[at]
        array[at] = value
        with pytest.raises(InvariantError):
            check_zone(z, machine.policy)
        array[at] = held
    check_zone(z, machine.policy)


def test_page_cache_marked_as_swapped_is_told_as_such():
    machine = with_swap()
    machine.fill(0, 100)
    reclaimed(machine, OUT, 50)
    z = machine.world.zone
    z.slots.link[int(z.slots.base[0])] = -1
    z.count[C.SWAP_PAGES] += 1
    with pytest.raises(InvariantError, match="only memory that may be swapped out"):
        check_zone(z, machine.policy)


# -- whole runs ----------------------------------------------------------------------------------------

SPAN = "60ms" if INTERPRETED else "2s"
PRESSED = {
    "machine__swap": "48MiB",
    "swap__refault_share": 0.3,
    "swap__refault_delay": "20ms",
    "workers__split_folios": True,
}


@pytest.mark.compiled
@pytest.mark.parametrize("machine", cases({}, {"machine__nodes": 2, "machine__dma32": "32MiB"}))
@pytest.mark.parametrize("policy", cases("v1@30", "mainline", "v2"))
def test_a_run_with_swap_stays_consistent_and_meets_the_same_demand(policy, machine):
    plain = run_replicate(scenario(policy=policy, duration=SPAN, **machine), 1, 0)
    run = run_replicate(scenario(policy=policy, duration=SPAN, **PRESSED, **machine), 1, 0, check=True)
    assert run.demand_digest == plain.demand_digest
    vm = dict(zip(run.coords["counter"], run.data["vmstat"][:, -1].tolist(), strict=True))
    if not INTERPRETED:
        assert vm["pswpout"] > vm["pswpin"] > 0
        assert run.digest != plain.digest
        used = run.data["swap_used_pages"]
        assert 0 < used.max() <= (48 << 20) // 4096


@pytest.mark.compiled
def test_off_nothing_changes_whatever_the_other_keys_say():
    plain = run_replicate(scenario(policy="v1@30", duration=SPAN), 1, 0)
    values = {"reclaim__swappiness": 200, "swap__refault_share": 0.5, "swap__refault_delay": "5ms"}
    off = run_replicate(scenario(policy="v1@30", duration=SPAN, **values), 1, 0)
    assert off.digest == plain.digest
    node = bare(**values).world.node
    assert node.hands.size == node.touch.size == 0
    assert int(bare().world.node.now[Now.TICK]) == 0


@pytest.mark.compiled
@pytest.mark.parametrize("machine", cases({}, {"machine__nodes": 2, "machine__dma32": "32MiB"}))
def test_a_saved_state_has_what_is_in_swap(tmp_path, machine):
    """What waits in swap, the hands and the list of touches: the run goes on to the same bits."""
    at = 37 if INTERPRETED else 733
    given = scenario(policy="v1@30", duration=SPAN, **PRESSED, **machine)
    whole = run_replicate(given, 1, 0)
    run_replicate(given, 1, 0, save=(at, lambda state: state.write(tmp_path / "a")))
    start = StartSpec(state=str(tmp_path / "a"))
    again = run_replicate(given.model_copy(update={"start": start}), 1, 0, check=True)
    assert (again.digest, again.demand_digest) == (whole.digest, whole.demand_digest)
    if not INTERPRETED:
        assert whole.data["swap_used_pages"].max() > 0


SNIPPET = f"""
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
for policy in ("mainline", "v1@30"):
    given = scenario(policy=policy, duration="300ms", actors__page_cache__rate="300MB/s", **{PRESSED})
    run = run_replicate(given, 1, 0, check=True)
    out = run.data["vmstat"][list(run.coords["counter"]).index("pswpout"), -1]
    print(run.digest, run.demand_digest, out)
"""


@pytest.mark.skipif(INTERPRETED, reason="compares the compiled kernels with the interpreted ones")
def test_interpreted_kernels_swap_the_same():
    found = words_by_pass(SNIPPET)
    assert found[0] == found[1]
    assert min(int(out) for out in found[0][2::3]) > 0


# -- wrong input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("reclaim__swappiness", 201, "200"),
        ("reclaim__swappiness", -1, "0"),
        ("reclaim__swappiness", 0.5, "integer|whole"),
        ("machine__swap", "-1GiB", "swap"),
        ("machine__swap", "17TiB", "16TiB"),
        ("machine__swap", "2KiB", "page"),
        ("swap__refault_share", 1.5, "1"),
        ("swap__refault_delay", "0s", "0"),
    ],
)
def test_wrong_values_are_named(key, value, says):
    with pytest.raises(ConfigError, match=says):
        scenario(**{key: value})
