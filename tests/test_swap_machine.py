"""Random demand, reclaim and time on a small machine with swap: nothing is lost, and every count holds.

The model knows which slots demand has filled. Such a slot is in use, in swap, or never was served; a freed
one is empty. `check_zone` recounts the rest after each step.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spbfast.constants import PB_PAGES, C, Op
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import simulate_ticks
from spbfast.model.state.node import N, Now
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.slots import EMPTY_SLOT, SWAPPED
from tests.machine_tools import bare
from tests.test_swap import BOTH, OUT, ask

REGIONS = 12
QUICK = settings(
    max_examples=3 if INTERPRETED else 30,
    stateful_step_count=20 if INTERPRETED else 40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HEAVY = settings(QUICK, max_examples=300, stateful_step_count=80)
regions = st.integers(0, REGIONS - 1)
nr_pages = st.integers(1, 700)


class SwapMachine(RuleBasedStateMachine):
    """One owner of regions of 2 MiB, page cache, and swap of a drawn size."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = None
        self.filled = np.zeros(REGIONS * PB_PAGES, bool)

    @initialize(
        swap=st.sampled_from(("4KiB", "1MiB", "3MiB", "64MiB")),
        swappiness=st.sampled_from((0, 60, 200)),
        pinned=st.sampled_from((0.0, 0.1)),
        share=st.sampled_from((0.0, 0.3, 1.0)),
        policy=st.sampled_from(("mainline", "v1@30", "v2")),
        percpu=st.booleans(),
    )
    def boot(self, swap, swappiness, pinned, share, policy, percpu) -> None:
        self.machine = bare(
            policy,
            machine__swap=swap,
            reclaim__swappiness=swappiness,
            workers__pinned_share=pinned,
            workers__split_folios=True,
            swap__refault_share=share,
            swap__refault_delay="3ms",
            pcp__enabled=percpu,
        )
        self.most = int(self.machine.world.node.conf[N.SWAP_PAGES])

    def compare(self) -> None:
        self.machine.check()
        slots = self.machine.slots(0, self.filled.size)
        assert (slots[~self.filled] == EMPTY_SLOT).all(), "what was freed is gone for good"
        count = self.machine.world.zone.count
        assert (slots == SWAPPED).sum() == count[C.SWAP_PAGES] <= self.most
        vm = self.machine.vm
        assert vm("pswpout") >= vm("pswpin") + count[C.SWAP_PAGES]

    def kept(self) -> int:
        """Pages of demand that are somewhere: in use or in swap."""
        return int(self.machine.world.zone.count[C.SWAP_PAGES]) + sum(self.held())

    def held(self) -> list[int]:
        heads = self.machine.slots(0, self.filled.size)
        pages = self.machine.world.zone.page
        return [1 << (int(pages.low[pfn]) & 15) for pfn in heads[heads >= 0]]

    @rule(region=regions, huge=st.booleans())
    def touch(self, region, huge) -> None:
        span = slice(region * PB_PAGES, (region + 1) * PB_PAGES)
        if self.filled[span].any():
            return
        op, nr = (Op.THP, 1) if huge else (Op.ALLOC, PB_PAGES)
        assert self.machine.row(op, span.start, nr) == 0
        self.filled[span] = True
        self.compare()

    @rule(region=regions)
    def free(self, region) -> None:
        self.machine.row(Op.FREE, region * PB_PAGES, PB_PAGES)
        self.filled[region * PB_PAGES : (region + 1) * PB_PAGES] = False
        self.compare()

    @rule(pages=nr_pages)
    def read(self, pages) -> None:
        assert self.machine.row(Op.CACHE_ADD, 0, pages, owner=0) == 0
        self.compare()

    @rule(verb=st.sampled_from((OUT, BOTH)), want=nr_pages)
    def reclaim(self, verb, want) -> None:
        free, kept = self.machine.free, self.kept()
        freed = int(ask(verb, self.machine.world, self.machine.policy, want))
        assert self.machine.free == free + freed
        assert self.kept() == kept, "what is swapped out is not lost"
        self.compare()

    @rule(ticks=st.integers(1, 5))
    def wait(self, ticks) -> None:
        kept = self.kept()
        until = int(self.machine.world.node.now[Now.TICK]) + ticks
        assert simulate_ticks(self.machine.run, (make_samples(4),), until, 1)
        assert self.kept() == kept, "what comes back from swap is not there twice"
        self.compare()

    def teardown(self) -> None:
        """When all is freed, nothing is in swap."""
        if self.machine is None:
            return
        self.machine.row(Op.FREE, 0, self.filled.size)
        self.filled[:] = False
        self.compare()
        assert self.machine.world.zone.count[C.SWAP_PAGES] == 0
        assert self.machine.world.zone.count[C.ANON_PAGES] == 0


def test_random_demand_reclaim_and_time() -> None:
    run_state_machine_as_test(SwapMachine, settings=QUICK)


@pytest.mark.heavy
def test_random_demand_reclaim_and_time_at_length() -> None:
    run_state_machine_as_test(SwapMachine, settings=HEAVY)
