"""Mainline mode: superpageblocks off is the allocator of Linux, whatever the other switches say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spbfast.constants import PB_PAGES, AllocFlag, Mt, Outcome, P
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.verify.golden import load_golden
from spbfast.verify.replay_zone import Replay
from spbfast.zone import Zone
from tests.strategies import mainline_geometries, operations, policies
from tests.test_statemachine import Pair
from tests.zone_tools import GOLDEN

BUDDY_FILES = [p.stem for p in sorted(GOLDEN.glob("p*.npz")) if load_golden(p).meta["level"] == "buddy"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["v1@15", "v1@30", "v2"])
@pytest.mark.parametrize("name", BUDDY_FILES)
def test_presets_without_superpageblocks_are_mainline(name: str, preset: str) -> None:
    replay = Replay(load_golden(GOLDEN / f"{name}.npz"))
    policy = policy_array({"preset": preset, "superpageblocks": False})
    assert policy[P.superpageblocks] == 0
    replay.policy = policy
    assert next(replay.differences(), None) is None


@pytest.mark.compiled
@settings(
    max_examples=10 if INTERPRETED else 60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(mainline_geometries(), policies(), operations(5, 20, workers=False))
def test_any_policy_without_superpageblocks_is_mainline(geometry, policy, sequence) -> None:
    off = dataclasses.replace(policy, superpageblocks=False)
    pair = Pair(dataclasses.replace(geometry, pageblocks_per_spb=4), off)
    for operation in sequence:
        pair.run(operation)


@pytest.mark.compiled
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 9), st.lists(st.sampled_from((0, 0, 1, 2, 3, 9)), min_size=1, max_size=30))
def test_per_cpu_lists_lose_nothing(seed: int, orders: list[int]) -> None:
    rng = np.random.default_rng(seed)
    for policy in ("mainline", "v1@30"):
        zone = Zone("16MiB", policy, spb_size="4MiB", pcp={"batch": 4, "high_min": 8, "high_max": 40})
        held: list[int] = []
        for order in orders:
            pfns = zone.alloc_many(int(rng.integers(1, 9)), order, int(rng.integers(3)))
            held += pfns[pfns >= 0].tolist()
            rng.shuffle(held)
            zone.free_many(held[: len(held) // 3])
            held = held[len(held) // 3 :]
            zone.check()
        zone.free_many(held)
        zone.drain()
        zone.check()
        assert zone.nr_free_pages() == zone.nr_pages
        assert zone.tainted() == 0


@pytest.mark.compiled
def test_a_claim_relabels_and_a_steal_does_not() -> None:
    zone = Zone("4MiB", "mainline")
    held = zone.alloc_many(8, 7, Mt.MOVABLE)
    zone.free(int(held[0]))
    assert zone.alloc(0, Mt.UNMOVABLE) == zone.start_pfn
    assert zone.last.outcome == Outcome.STEAL_FALLBACK
    assert zone.pageblock_types().tolist() == [Mt.MOVABLE, Mt.MOVABLE]
    zone.free_many(held[4:6])
    assert zone.alloc(0, Mt.UNMOVABLE) == held[4]
    assert zone.last.outcome == Outcome.CLAIM_FALLBACK_PREFERRED
    assert zone.pageblock_types().tolist() == [Mt.MOVABLE, Mt.UNMOVABLE]
    zone.check()


@pytest.mark.compiled
def test_nofragment_keeps_out_of_foreign_pageblocks() -> None:
    zone = Zone("4MiB", "mainline")
    held = zone.alloc_many(16, 6, Mt.MOVABLE)
    zone.free(int(held[0]))
    assert zone.alloc(0, Mt.UNMOVABLE, AllocFlag.NOFRAGMENT) == -1
    assert zone.alloc(0, Mt.MOVABLE, AllocFlag.NOFRAGMENT) == zone.start_pfn
    zone.check()


def test_an_order_10_block_spans_two_pageblocks_of_one_type() -> None:
    zone = Zone("8MiB", "mainline")
    assert zone.alloc(0, Mt.RECLAIMABLE) == zone.start_pfn
    assert zone.pageblock_types().tolist() == [2, 2, 1, 1]
    assert zone.nr_free_blocks()[:, 2].tolist() == [1] * 10 + [0]


@pytest.mark.compiled
def test_freed_memory_is_whole_again() -> None:
    zone = Zone(61 * PB_PAGES * 4096 + 5 * 4096, "mainline", start_pfn=0x100000 + 77)
    before = zone.nr_free_blocks()
    rng = np.random.default_rng(3)
    for _ in range(4):
        pfns = np.concatenate([zone.alloc_many(200, int(o), int(m)) for o, m in rng.integers(0, 3, (40, 2))])
        held = pfns[pfns >= 0]
        rng.shuffle(held)
        zone.free_many(held)
        zone.check()
    after = zone.nr_free_blocks()
    assert np.array_equal(after.sum(axis=1), before.sum(axis=1))


def test_buddy_files_are_found() -> None:
    assert len(BUDDY_FILES) == 11
