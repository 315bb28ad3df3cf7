"""khugepaged: which regions become huge pages again, at what pace, and what it asks for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spbfast.config.models import StartSpec
from spbfast.constants import PB_ORDER, PB_PAGES, C, Op
from spbfast.errors import ConfigError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate, simulate_ticks
from spbfast.model.state.node import Kh, N, Now
from spbfast.model.state.page_state import CODE_MOVABLE, ORDER_NIBBLE, states_of
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.slots import EMPTY_SLOT, SWAPPED
from tests.demand_tools import scenario
from tests.machine_tools import Machine, U, bare
from tests.passes import cases, words_by_pass
from tests.test_swap import OUT, ask

QUICK = settings(
    max_examples=3 if INTERPRETED else 30,
    stateful_step_count=15 if INTERPRETED else 40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def rebuilding(policy="v1@30", **values) -> Machine:
    """Free memory, one owner with 32 regions, and a khugepaged that looks at one region a tick."""
    given = {
        "khugepaged__enabled": True,
        "khugepaged__pages_to_scan": PB_PAGES,
        "khugepaged__scan_sleep": "1ms",
        "khugepaged__alloc_sleep": "10ms",
        "workers__pinned_share": 0.0,
        "workers__busy_share": 0.0,
        "workers__migrate_thp_cost": "0ms",
        **values,
    }
    return bare(policy, **given)


def ticks(machine, nr):
    """Simulate some ticks; the machine must hold together."""
    until = int(machine.world.node.now[Now.TICK]) + nr
    assert simulate_ticks(machine.run, (make_samples(8),), until, 1)
    machine.check()


def huge(machine, region) -> bool:
    """Whether a region is one huge page in its first slot."""
    slots = machine.slots(region * PB_PAGES, PB_PAGES)
    if slots[0] < 0:
        return False
    is_huge = int(states_of(machine.world.zone.page, slots[:1])[0]) & ORDER_NIBBLE == PB_ORDER
    assert not is_huge or (slots[1:] == EMPTY_SLOT).all()
    return is_huge


def base_pages(machine, region, nr=PB_PAGES):
    """A region's first pages come one by one."""
    assert machine.row(Op.ALLOC, region * PB_PAGES, nr) == 0


@pytest.mark.parametrize("policy", cases("v1@30", "mainline", "v2"))
def test_a_region_of_base_pages_becomes_a_huge_page(policy):
    machine = rebuilding(policy)
    base_pages(machine, 2)
    free = machine.free
    ticks(machine, 3)
    assert not huge(machine, 2), "the first region is looked at when the first sleep is over"
    ticks(machine, 1)
    assert huge(machine, 2)
    state = int(states_of(machine.world.zone.page, machine.slots(2 * PB_PAGES, 1))[0])
    assert state >> 4 == CODE_MOVABLE
    pcp = int(machine.world.zone.count[C.PCP_PAGES])
    assert machine.free + pcp >= free, "the base pages came back"
    assert (machine.vm("thp_collapse_alloc"), machine.vm("thp_collapse_alloc_failed")) == (1, 0)


def test_a_huge_page_has_its_pages_counted_once():
    machine = rebuilding()
    base_pages(machine, 0)
    allocated, freed, events = (machine.vm(n) for n in ("pgalloc_normal", "pgfree", "page_events"))
    ticks(machine, 2)
    assert machine.vm("pgalloc_normal") - allocated == PB_PAGES
    assert machine.vm("pgfree") - freed == PB_PAGES
    assert machine.vm("page_events") - events == PB_PAGES + 1


@pytest.mark.parametrize("missing", [0, 17, PB_PAGES - 1])
def test_a_region_with_a_hole_stays(missing):
    machine = rebuilding()
    base_pages(machine, 0)
    machine.row(Op.FREE, missing, 1)
    ticks(machine, 40)
    assert machine.vm("thp_collapse_alloc") == 0
    base = machine.row(Op.ALLOC, missing, 1)
    assert base == 0
    ticks(machine, 40)
    assert huge(machine, 0)


@pytest.mark.compiled
def test_huge_pages_and_empty_regions_stay_as_they_are():
    machine = rebuilding()
    assert machine.row(Op.THP, 0) == 0
    before = machine.slots().tolist()
    ticks(machine, 70)
    assert machine.slots().tolist() == before
    assert machine.vm("thp_collapse_alloc") == 0


def test_a_region_with_a_pinned_page_stays():
    machine = rebuilding(workers__pinned_share=0.05)
    base_pages(machine, 0)
    ticks(machine, 40)
    assert machine.vm("thp_collapse_alloc") == 0


def test_pages_of_another_type_are_no_business_of_khugepaged():
    """Network buffers, statics and page cache lie in slots of owners that it does not go through."""
    machine = rebuilding()
    assert machine.world.node.collapse[Kh.FIRST_OWNER :].tolist() == [machine.owner]
    assert machine.row(Op.ALLOC, 0, PB_PAGES, mt=U) == 0
    ticks(machine, 40)
    assert machine.vm("thp_collapse_alloc") == 0


@pytest.mark.compiled
@pytest.mark.parametrize(("pages", "regions"), [(512, 1), (513, 2), (4096, 8), (1_000_000, 1954)])
def test_it_looks_at_whole_regions_and_then_sleeps(pages, regions):
    """Known answer: mainline's 4096 pages are eight regions every ten seconds."""
    machine = rebuilding(khugepaged__pages_to_scan=pages, khugepaged__scan_sleep="5ms")
    assert machine.world.node.conf[N.COLLAPSE_REGIONS] == regions
    for region in range(20):
        base_pages(machine, region)
    for nr in range(1, 4):
        ticks(machine, 5 if nr > 1 else 6)
        assert sum(huge(machine, region) for region in range(20)) == min(regions * nr, 20)


def test_copying_takes_its_time():
    machine = rebuilding(workers__migrate_thp_cost="3ms")
    for region in range(4):
        base_pages(machine, region)
    ticks(machine, 2)
    assert machine.vm("thp_collapse_alloc") == 1
    ticks(machine, 3)
    assert machine.vm("thp_collapse_alloc") == 1
    ticks(machine, 1)
    assert machine.vm("thp_collapse_alloc") == 2


@pytest.mark.compiled
def test_after_a_failure_it_pauses_and_kswapd_sleeps_on():
    """All that is left is scattered and cannot move, so no huge page can be had."""
    machine = rebuilding(
        reclaim__rounds_max=0, reclaim__compact_candidates=0, pcp__enabled=False, machine__memory="80MiB"
    )
    base_pages(machine, 0)
    size = int(machine.world.zone.slots.size[machine.owner])
    machine.fill_up(PB_PAGES, size - PB_PAGES, mt=U, cls=0)
    assert machine.row(Op.CACHE_ADD, 0, machine.free, owner=0) == 0
    last = int(np.flatnonzero(machine.slots() >= 0)[-1])
    for slot in range(2 * PB_PAGES, last, 2):
        machine.row(Op.FREE, slot)
    woken = machine.vm("pageoutrun")
    ticks(machine, 35)
    assert machine.vm("thp_collapse_alloc") == 0
    assert machine.vm("thp_collapse_alloc_failed") == 1, "one region of 32, and a pause of ten ticks"
    assert machine.vm("pageoutrun") == woken
    assert (machine.slots(0, PB_PAGES) >= 0).all(), "the base pages stay"


# -- swap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("swapped", "most", "collapses"), [(64, 64, True), (65, 64, False), (1, 0, False)])
def test_a_few_pages_in_swap_come_back_with_the_huge_page(swapped, most, collapses):
    """Known answer: mainline allows an eighth of a region, 64 pages."""
    machine = rebuilding(machine__swap="8MiB", khugepaged__max_ptes_swap=most)
    base_pages(machine, 0)
    assert int(ask(OUT, machine.world, machine.policy, swapped)) == swapped
    ticks(machine, 2)
    assert huge(machine, 0) == collapses
    count = machine.world.zone.count
    assert count[C.SWAP_PAGES] == (0 if collapses else swapped)
    assert count[C.ANON_PAGES] == (PB_PAGES if collapses else PB_PAGES - swapped)
    assert machine.vm("pswpin") == (swapped if collapses else 0)
    assert machine.vm("pgfree") >= (PB_PAGES if collapses else swapped)


def test_what_came_back_with_a_huge_page_is_not_touched_once_more():
    machine = rebuilding(machine__swap="8MiB", swap__refault_share=1.0, swap__refault_delay="6ms")
    base_pages(machine, 0)
    ask(OUT, machine.world, machine.policy, 40)
    ticks(machine, 20)
    assert huge(machine, 0)
    assert machine.vm("pswpin") == 40


# -- the machine around it -----------------------------------------------------------------------------


class Rebuilt(RuleBasedStateMachine):
    """One owner of regions that come whole or page by page, and go whole, in part or to swap."""

    REGIONS = 12

    def __init__(self) -> None:
        super().__init__()
        self.machine = None
        self.filled = np.zeros(self.REGIONS * PB_PAGES, bool)

    @initialize(
        policy=st.sampled_from(("mainline", "v1@30", "v2")),
        swap=st.sampled_from(("0B", "64KiB", "8MiB")),
        pinned=st.sampled_from((0.0, 0.0005)),
        scanned=st.sampled_from((512, 2048)),
        percpu=st.booleans(),
        split=st.booleans(),
    )
    def boot(self, policy, swap, pinned, scanned, percpu, split) -> None:
        self.machine = rebuilding(
            policy,
            machine__swap=swap,
            workers__pinned_share=pinned,
            workers__split_folios=split,
            khugepaged__pages_to_scan=scanned,
            pcp__enabled=percpu,
        )

    def kept(self) -> int:
        """Pages of demand that are somewhere."""
        heads = self.machine.slots(0, self.filled.size)
        used = heads[heads >= 0]
        return int((1 << (states_of(self.machine.world.zone.page, used) & ORDER_NIBBLE)).sum()) + int(
            (heads == SWAPPED).sum()
        )

    @rule(region=st.integers(0, REGIONS - 1), how=st.sampled_from(("whole", "pages", "most")))
    def touch(self, region, how) -> None:
        span = slice(region * PB_PAGES, (region + 1) * PB_PAGES)
        if self.filled[span].any():
            return
        nr = PB_PAGES if how != "most" else PB_PAGES - 3
        op, count = (Op.THP, 1) if how == "whole" else (Op.ALLOC, nr)
        assert self.machine.row(op, span.start, count) == 0
        self.filled[span.start : span.start + nr] = True

    @rule(region=st.integers(0, REGIONS - 1))
    def free(self, region) -> None:
        self.machine.row(Op.FREE, region * PB_PAGES, PB_PAGES)
        self.filled[region * PB_PAGES : (region + 1) * PB_PAGES] = False

    @rule(want=st.integers(1, 700))
    def swap_out(self, want) -> None:
        ask(OUT, self.machine.world, self.machine.policy, want)

    @rule(nr=st.integers(1, 40))
    def wait(self, nr) -> None:
        kept = self.kept()
        ticks(self.machine, nr)
        assert self.kept() == kept, "a huge page has as many pages as it took the place of"
        empty = self.machine.slots(0, self.filled.size)[~self.filled]
        assert (empty == EMPTY_SLOT).all(), "what demand freed, or never had, stays empty"

    def teardown(self) -> None:
        """When all is freed, nothing is left."""
        if self.machine is None:
            return
        self.machine.row(Op.FREE, 0, self.filled.size)
        self.machine.check()
        assert self.kept() == 0
        assert self.machine.world.zone.count[C.SWAP_PAGES] == 0


def test_random_demand_and_time() -> None:
    run_state_machine_as_test(Rebuilt, settings=QUICK)


@pytest.mark.heavy
def test_random_demand_and_time_at_length() -> None:
    run_state_machine_as_test(Rebuilt, settings=settings(QUICK, max_examples=300, stateful_step_count=80))


BUSY = {"kind": "daemons", "memory": "96MiB", "churn_per_second": 1.0, "thp_share": 0.3}
WALKED = {
    "khugepaged__enabled": True,
    "khugepaged__pages_to_scan": 4 * PB_PAGES,
    "khugepaged__scan_sleep": "5ms",
    "khugepaged__alloc_sleep": "20ms",
}


@pytest.mark.compiled
def test_off_it_changes_nothing_and_on_it_rebuilds():
    off = run_replicate(scenario(BUSY, duration="100ms"), 1, 0, check=True)
    on = run_replicate(scenario(BUSY, duration="100ms", **WALKED), 1, 0, check=True)
    vm = dict(zip(on.coords["counter"].tolist(), on.data["vmstat"][:, -1].tolist(), strict=True))
    assert vm["thp_collapse_alloc"] > 10
    assert off.digest != on.digest
    assert off.demand_digest == on.demand_digest


@pytest.mark.compiled
def test_several_zones_each_rebuild_what_lies_in_them_alone():
    values = {**WALKED, "machine__memory": "512MiB", "machine__dma32": "64MiB", "duration": "60ms"}
    result = run_replicate(scenario({**BUSY, "memory": "200MiB"}, **values), 1, 0, check=True)
    vm = dict(zip(result.coords["counter"].tolist(), result.data["vmstat"][:, -1].tolist(), strict=True))
    assert vm["thp_collapse_alloc"] > 0


@pytest.mark.compiled
def test_saved_and_continued_it_is_where_it_was(tmp_path):
    given = scenario(BUSY, duration="100ms", **WALKED)
    whole = run_replicate(given, 1, 0, check=True)
    path = tmp_path / "state"
    run_replicate(given, 1, 0, save=(50, lambda state: state.write(path)))
    later = given.model_copy(update={"start": StartSpec(state=str(path))})
    assert run_replicate(later, 1, 0, check=True).digest == whole.digest


SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
from tests.test_khugepaged import BUSY, WALKED
result = run_replicate(scenario({**BUSY, "memory": "16MiB"}, duration="12ms", **WALKED), 1, 0, check=True)
vm = dict(zip(result.coords["counter"].tolist(), result.data["vmstat"][:, -1].tolist(), strict=True))
print(result.digest, vm["thp_collapse_alloc"])
"""


@pytest.mark.compiled
def test_interpreted_equals_compiled():
    compiled, interpreted = words_by_pass(SNIPPET)
    assert compiled == interpreted
    assert int(compiled[1]) > 0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("khugepaged__pages_to_scan", 511, "512"),
        ("khugepaged__max_ptes_swap", 512, "512"),
        ("khugepaged__scan_sleep", "0ms", "scan_sleep"),
        ("khugepaged__enabled", "yes please", "enabled"),
    ],
)
def test_wrong_values_are_refused_by_name(key, value, said):
    with pytest.raises((ConfigError, ValueError), match=said):
        scenario(BUSY, **{key: value})
