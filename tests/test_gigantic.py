"""Gigantic pages: demand by the clock, whole superpageblocks obtained, held, returned, and their cost."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, C, Op, Row
from spbfast.errors import ConfigError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.asking import MORE_ASKED
from spbfast.model.collect import digest_of
from spbfast.model.engine import run_replicate, state_bytes
from spbfast.model.state.node import NEVER, N, Wk
from spbfast.model.state.slots import blocks_in
from spbfast.model.state.vmstat import NR_DIGESTED, VM_OPTIONAL, ContigFail
from tests.demand_tools import plan_for, scenario, tick_rows
from tests.machine_tools import MS, M, U, bare
from tests.passes import cases

SPB_PAGES = 8 * PB_PAGES
STILL = {"workers__pinned_share": 0.0, "workers__busy_share": 0.0}
ASK = {
    "kind": "gigantic_pages",
    "count": 2,
    "start": "10ms",
    "interval": "5ms",
    "hold": "20ms",
    "pause": "10ms",
}


def test_demand_is_a_clockwork() -> None:
    rows, ticks = tick_rows(plan_for(ASK), 50)
    found = [(int(t), Op(int(r[Row.OP])).name, int(r[Row.SLOT])) for r, t in zip(rows, ticks, strict=True)]
    assert found == [
        (10, "CONTIG_ALLOC", 0),
        (15, "CONTIG_ALLOC", 1),
        (30, "CONTIG_FREE", 0),
        (35, "CONTIG_FREE", 1),
        (40, "CONTIG_ALLOC", 0),
        (45, "CONTIG_ALLOC", 1),
    ]


def test_without_a_hold_time_each_is_asked_for_once() -> None:
    rows, ticks = tick_rows(plan_for({**ASK, "hold": "0s"}), 200)
    assert ticks.tolist() == [10, 15]
    assert (rows[:, Row.OP] == Op.CONTIG_ALLOC).all()


def test_a_hold_time_below_a_tick_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold: must be 0s or at least 1ms"):
        scenario({**ASK, "hold": "10us"})


def _ask(machine, slot: int = 0) -> None:
    assert machine.row(Op.CONTIG_ALLOC, slot) == 0


@pytest.mark.compiled
@pytest.mark.parametrize("policy", ["mainline", "v1@15", "v1@45"])
def test_an_empty_superpageblock_is_taken_and_comes_back(policy: str) -> None:
    machine = bare(policy, **STILL)
    free, node = machine.free, machine.world.node
    _ask(machine)
    assert node.due[Wk.CONTIG] == node.conf[N.WQ_DELAY]
    machine.work(MS)
    first = int(machine.slots(0, 1)[0])
    assert first % SPB_PAGES == 0 <= first
    assert machine.free == free - SPB_PAGES
    assert machine.world.zone.count[C.ISOLATED_SPBS] == 1
    assert (machine.vm("contig_alloc_success"), machine.vm("contig_pages_migrated")) == (1, 0)
    machine.check()
    assert machine.row(Op.CONTIG_FREE, 0) == 0
    assert machine.free == free
    assert machine.vm("contig_freed") == 1
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@15", "v1@45"))
def test_one_in_use_is_emptied_by_migration_which_takes_time(policy: str) -> None:
    machine = bare(policy, **STILL)
    z = machine.world.zone
    # A movable page in every superpageblock: none is empty, the first of full length is not the first.
    machine.fill(0, 14_000, order=1)
    keep = {int(pfn) // SPB_PAGES: i for i, pfn in enumerate(blocks_in(z.slots, slice(14_000)))}
    for slot in set(range(14_000)) - set(keep.values()):
        machine.row(Op.FREE, slot)
    machine.row(Op.CONTIG_ALLOC, 15_000)
    machine.work(1000 * MS)
    assert machine.slots(15_000, 1)[0] >= 0
    assert machine.vm("contig_pages_migrated") in (0, 2)
    assert machine.vm("contig_alloc_ns") >= machine.vm("migrate_ns")
    machine.check()


def test_a_scan_passes_over_ranges_with_unmovable_pages_and_gives_pinned_ones_back() -> None:
    machine = bare("mainline", workers__pinned_share=1.0, workers__busy_share=0.0)
    z = machine.world.zone
    assert machine.fill(0, 1, mt=U) == 1
    # Pinned pages in one superpageblock of full length, the rest of it free.
    assert machine.fill(1, 9_000, order=0) == 9_000
    for slot in range(1, 9_000, 2):
        machine.row(Op.FREE, slot)
    before = machine.slots(0, 9_001).copy()
    _ask(machine, 16_000)
    machine.work(1000 * MS)
    held = int(machine.slots(16_000, 1)[0])
    assert held >= 0
    assert machine.vm("contig_pages_migrated") == 0
    assert np.array_equal(before, machine.slots(0, 9_001)), "a pinned page does not move"
    pinned = np.unique(before[before >= 0] // SPB_PAGES)
    assert held // SPB_PAGES not in pinned
    assert machine.vm("contig_ranges_tried") >= 2
    assert machine.vm("pgmigrate_fail") >= 1
    assert z.count[C.ISOLATED_SPBS] == 1
    machine.check()


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_what_cannot_be_had_is_a_counted_failure(policy: str) -> None:
    machine = bare(policy, **STILL)
    machine.fill(0, 16_000, order=1, mt=U)
    count = machine.world.zone.count
    free = count[C.FREE_PAGES] + count[C.PCP_PAGES]
    _ask(machine, 16_001)
    machine.work(1000 * MS)
    assert machine.slots(16_001, 1)[0] == -1
    assert (machine.vm("contig_alloc_fail"), machine.vm("contig_alloc_success")) == (1, 0)
    assert count[C.FREE_PAGES] + count[C.PCP_PAGES] == free
    machine.check()


def test_a_request_that_waits_is_withdrawn_when_it_is_given_back() -> None:
    machine = bare("v1@45")
    node = machine.world.node
    _ask(machine)
    machine.row(Op.CONTIG_FREE, 0)
    assert machine.vm("contig_withdrawn") == 1
    machine.work(1000 * MS)
    assert machine.slots(0, 1)[0] == -1
    assert machine.vm("contig_alloc_success") + machine.vm("contig_alloc_fail") == 0
    assert node.due[Wk.CONTIG] == NEVER
    machine.row(Op.CONTIG_FREE, 0)  # nothing waits, nothing is held
    assert machine.vm("contig_withdrawn") == 1


def _without_room(policy: str, rounds: int):
    """A request where only page cache, once gone, leaves room for what has to move."""
    machine = bare(policy, **STILL, workers__contig_reclaim_rounds=rounds)
    assert machine.fill(0, 15_000, order=0) == 15_000
    assert machine.row(Op.CACHE_ADD, 0, 47_000, mt=M) == 0
    assert machine.world.zone.count[C.EMPTY_SPBS] == 0
    _ask(machine, 16_000)
    machine.work(1000 * MS)
    machine.check()
    return machine


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_page_cache_makes_room_for_what_has_to_move(policy: str) -> None:
    """Without free memory elsewhere migration finds no place until page cache goes."""
    found = {rounds: _without_room(policy, rounds).vm("contig_alloc_success") for rounds in (0, 64)}
    assert found == {0: 0, 64: 1}


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_room_is_made_before_anything_moves(policy: str) -> None:
    """Reclaim comes first: one range is tried, and no page moves more than once."""
    machine = _without_room(policy, 64)
    assert machine.vm("contig_ranges_tried") == 1
    assert 0 < machine.vm("contig_pages_migrated") <= SPB_PAGES
    assert 0 < machine.vm("pgsteal_direct") < 47_000


@pytest.mark.compiled
def test_a_scan_ends_where_a_move_finds_no_place() -> None:
    """The next range would fail like the first: what is missing is room, not a better range."""
    machine = _without_room("mainline", 0)
    assert machine.vm("contig_ranges_tried") == 1
    assert machine.vm("contig_pages_migrated") < SPB_PAGES


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases("mainline", "v1@45"))
def test_why_a_request_failed_is_counted(policy: str) -> None:
    full = bare(policy, **STILL)
    full.fill(0, 16_000, order=1, mt=U)
    _ask(full, 16_001)
    full.work(1000 * MS)
    assert _why(full) == {"no_candidate"}
    assert _why(_without_room(policy, 0)) == {"no_room"}
    for reason, noise in (("pinned", "workers__pinned_share"), ("busy", "workers__busy_share")):
        machine = bare(policy, **{**STILL, noise: 1.0})
        machine.fill(0, 14_000, order=1)
        for slot in range(0, 14_000, 2):
            machine.row(Op.FREE, slot)
        _ask(machine, 15_000)
        machine.work(1000 * MS)
        assert _why(machine) == {reason}, noise


def _why(machine) -> set[str]:
    reasons = ("no_candidate", "no_room", "pinned", "busy")
    found = {reason: machine.vm(f"contig_fail_{reason}") for reason in reasons}
    assert sum(found.values()) == machine.vm("contig_alloc_fail") == 1
    return {reason for reason, nr in found.items() if nr}


# Held memory that never changes, and requests that begin after 50 ms.
QUIET = [
    {"kind": "kernel_statics", "total": "3MB"},
    {"kind": "daemons", "memory": "24MiB", "churn_per_second": 0.0},
    {"kind": "gigantic_pages", "count": MORE_ASKED, "start": "50ms", "interval": "1ms", "hold": "0s"},
]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mainline", "v1@15", "v1@45"])
@pytest.mark.parametrize("pinned", [0.0, 0.001])
@pytest.mark.parametrize("rounds", [0, 64])
def test_obtainable_is_what_requests_get(policy: str, pinned: float, rounds: int) -> None:
    """The same machine at the same moment, asked at the end of one run and by the actor of a longer one."""
    noise = {"workers__pinned_share": pinned, "workers__contig_reclaim_rounds": rounds, "policy": policy}
    short, long = (
        run_replicate(scenario(*QUIET, duration=d, output__every="10ms", **noise), 1, 0, check=True)
        for d in ("50ms", "3s")
    )
    served = int(long.data["contig_1g_held"][-1])
    assert int(short.data["contig_1g_now"][-1]) == 0
    assert int(short.data["contig_1g_obtainable"]) == served
    if policy == "v1@45" and not pinned:
        # Page cache fills the machine: nothing fits without reclaim, which is no answer to what can be had.
        assert int(short.data["contig_1g_without_reclaim"][-1]) == 0
        assert (served > 0) == (rounds > 0)


@pytest.mark.compiled
def test_asking_changes_nothing_that_was_recorded() -> None:
    """What is only reported is in no digest."""
    # What reclaim does to slab and what splits is recorded, and so it is in the digest.
    still = {"reclaim__shrink_slab": "none", "workers__split_folios": False}
    given = scenario(policy="v1@45", duration="100ms", output__every="10ms", **still)
    run = run_replicate(given, 1, 0)
    names = run.coords["counter"].tolist()
    assert names[NR_DIGESTED:VM_OPTIONAL] == [f"contig_fail_{r.name.lower()}" for r in ContigFail]
    kept = {n: v for n, v in run.data.items() if n not in ("contig_1g_obtainable", "contig_pages_per_1g")}
    assert digest_of(kept) == run.digest
    kept["vmstat"] = kept["vmstat"][:NR_DIGESTED]
    assert digest_of(kept) == run.digest


@pytest.mark.compiled
def test_runs_under_all_policies_meet_the_same_demand() -> None:
    ask = {**ASK, "start": "200ms", "hold": "300ms", "interval": "100ms", "pause": "100ms"}
    actors = [actor.model_dump() for actor in scenario().actors]
    plain = [{k: v for k, v in a.items() if k in ("kind", "name")} for a in actors if a["kind"] == "network"]
    digests = set()
    for policy in ("mainline", "v1@45") if INTERPRETED else ("mainline", "v1@15", "v1@45"):
        given = scenario(
            ask, *plain, {"kind": "page_cache", "rate": "20MB/s"}, policy=policy, duration="1500ms"
        )
        result = run_replicate(given, 1, 0, check=True)
        digests.add(result.demand_digest)
        vm = dict(zip(result.coords["counter"], result.data["vmstat"][:, -1], strict=True))
        asked = vm["contig_alloc_success"] + vm["contig_alloc_fail"] + vm["contig_withdrawn"]
        assert asked >= 6
        if policy == "v1@45":
            assert result.data["contig_1g_held"].max() >= 1
        assert result.data["contig_1g_held"][-1] == vm["contig_alloc_success"] - vm["contig_freed"]
        per_page = float(result.data["contig_pages_per_1g"])
        if vm["contig_alloc_success"]:
            assert per_page == vm["contig_pages_migrated"] / vm["contig_alloc_success"]
        else:
            assert np.isnan(per_page)
    assert len(digests) == 1


@pytest.mark.compiled
@pytest.mark.parametrize("machine", [{}, {"machine__nodes": 2, "machine__memory": "256MiB"}])
def test_asking_on_the_way_is_asking_a_run_that_ends_there(machine: dict[str, object]) -> None:
    """Each answer on the way is that of a run of this length at its end; the run itself stays as it is."""
    given = {"policy": "v1@45", "output__every": "10ms", **machine}
    asked = run_replicate(scenario(duration="60ms", output__ask_1g_every="20ms", **given), 1, 0)
    plain = run_replicate(scenario(duration="60ms", **given), 1, 0)
    assert asked.digest == plain.digest
    assert "contig_1g_asked" not in plain.data
    found = asked.data["contig_1g_asked"]
    assert np.isnan(found).tolist() == [False, True, False, True, False, True, False]
    assert found[-1] == asked.data["contig_1g_obtainable"] == plain.data["contig_1g_obtainable"]
    # The machine is asked a tick after the sample.
    for at in (2, 4):
        short = run_replicate(scenario(duration=f"{at * 10 + 1}ms", **given), 1, 0)
        assert found[at] == short.data["contig_1g_obtainable"]
    assert (asked.data["contig_1g_asked_moved"][[0, 2, 4]] >= 0).all()


def test_asking_needs_the_memory_of_two_machines() -> None:
    once = scenario(duration="60ms", output__every="10ms")
    twice = scenario(duration="60ms", output__every="10ms", output__ask_1g_every="10ms")
    assert state_bytes(twice) == 2 * state_bytes(once)


def test_asking_between_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"15ms is no multiple of output.every, 10ms; write 20ms"):
        scenario(duration="60ms", output__every="10ms", output__ask_1g_every="15ms")
