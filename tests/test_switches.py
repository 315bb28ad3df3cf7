"""Every switch that is said to be modelled does something: turning it alone changes a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from spbfast.config import load_config, presets, series
from spbfast.jit.decorators import INTERPRETED
from spbfast.model import engine

TINY = Path(__file__).resolve().parents[1] / "configs" / "tiny.yaml"
BASES = ("v1", "v1@15", "mainline", "v1@30")
# What to set instead of the opposite of a switch.
OTHER = {
    "aggressive_threshold": ("2", "-1"),
    "evacuate_max_pageblocks": ("1", "2"),
    "evacuate_max_superpageblocks": ("1", "2"),
    "evacuate_throttle": ("500ms", "0s"),
    "migration_target_reclaim": ("4", "0"),
    "movable_reserve": ("soft", "hard"),
    "reserve_floor": ("1", "4"),
    "slab_shrink_start_priority": ("2", "12"),
    "slab_shrink_throttle": ("500ms", "0s"),
}
# Switches that the tiny machine, eight superpageblocks of eight pageblocks, has no occasion for.
ELSEWHERE = {
    "claim_prefers_tainted": "test_a_claim_prefers_a_tainted_superpageblock",
    "compact_within_superpageblock": "tests of workers/compact_within.py; needs pageblocks by the hundred",
    "contig": "golden traces (contig); the tiny machine has no gigantic_pages actor",
    "contig_max_candidates": "golden traces (contig); the tiny machine has no gigantic_pages actor",
    "defrag_start_at_reserve": "golden traces from v1@24 on; the tiny reserve is below both marks",
    "evacuate_throttle": "tests of workers/defer.py; evacuations are seldom asked for twice in a tick here",
    "evacuate_any_label": "golden traces of v1@45",
    "highatomic_reserve": "tests/test_highatomic.py; zones below 100 pageblocks have no reserve",
    "kvmalloc_noretry": "tests/test_kvmalloc.py; the tiny machine has no kvmalloc actor",
    "nowarn_lower_order_fails": "tests/test_slowpath.py; atomic requests seldom come to its step here",
    "optional_refusal": "golden traces (gates): whole claims leave hardly a request to refuse",
    "optional_skips_empty": "golden traces (gates): whole claims leave hardly a request to refuse",
    "pcp_adopts_partial": "test_rules_of_owned_pageblocks_act; needs pcp_owned_pageblocks",
    "pcp_stays_in_tainted": "test_rules_of_owned_pageblocks_act; needs pcp_owned_pageblocks",
    "relabel_on_empty": "golden traces (storm)",
    "reserve_shift": "golden traces (512pb): eight pageblocks >> 5 is nothing",
    "separate_by_content": "golden traces (borrow)",
    "slab_shrink_target_objs": "tests of workers/shrink.py; hardly an object is freed here",
    "sticky_content": "golden traces (storm)",
}
SWITCHES = sorted(presets.flat_values("v1"))


@cache
def digest(*overrides: str) -> str:
    job = load_config(TINY, ["duration=1s", *overrides], one_point=True)
    return engine.run_replicate(job.scenario, job.seed, 0).digest


def turned(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(not value).lower()
    first, second = OTHER[key]
    return second if str(value) == first else first


def acts(key: str, base: str, *also: str) -> bool:
    """Whether the run under a preset changes with this one key."""
    value = presets.flat_values(base)[key]
    return digest(f"policy={base}", *also, f"policy.{key}={turned(key, value)}") != digest(
        f"policy={base}", *also
    )


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="two hundred runs")
@pytest.mark.parametrize("key", [key for key in SWITCHES if key not in ELSEWHERE])
def test_a_switch_changes_a_run(key: str) -> None:
    assert any(acts(key, base) for base in BASES), f"policy.{key} changes nothing under {', '.join(BASES)}"


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="whole runs")
@pytest.mark.parametrize("key", ["pcp_adopts_partial", "pcp_stays_in_tainted"])
def test_rules_of_owned_pageblocks_act(key: str) -> None:
    """On the mix of the validation page: the tiny machine drains its lists too soon."""
    mix = TINY.with_name("validation-mix.yaml")

    def run(*overrides: str) -> str:
        job = load_config(
            mix, ["duration=4s", "policy=v1", "policy.pcp_owned_pageblocks=true", *overrides], one_point=True
        )
        return engine.run_replicate(job.scenario, job.seed, 0).digest

    assert run() != run(f"policy.{key}=true")


@pytest.mark.compiled
def test_a_claim_prefers_a_tainted_superpageblock() -> None:
    from spbfast import Zone
    from spbfast.constants import Mt

    def claimed_in(prefer: bool) -> int:
        zone = Zone("64MiB", {"preset": "mainline", "claim_prefers_tainted": prefer}, spb_size="16MiB")
        pages = sorted(zone.alloc_many(zone.nr_pages, 0, Mt.MOVABLE).tolist())
        zone.free_many(pages[:512])
        zone.alloc(9, Mt.UNMOVABLE)  # taints the first superpageblock
        zone.free_many(pages[512:1024])  # one free pageblock in it, deeper in the list
        zone.free_many(pages[2 * 4096 : 2 * 4096 + 512])  # and one in the third, at the head
        return (zone.alloc(0, Mt.UNMOVABLE) - zone.start_pfn) // 4096

    assert claimed_in(False) == 2
    assert claimed_in(True) == 0


def test_exceptions_are_switches_that_exist() -> None:
    assert set(ELSEWHERE) <= set(SWITCHES) == set(series.certain_keys())


@pytest.mark.compiled
def test_patch_42_acts_under_the_half_presets_only() -> None:
    served = {}
    for name in ("v1@42", "v1@42-half"):
        job = load_config(
            TINY.parent / "base/devvm-small.yaml", ["duration=10s", f"policy={name}"], one_point=True
        )
        result = engine.run_replicate(job.scenario, job.seed, 0)
        counters = result.coords["counter"].tolist()
        served[name] = int(result.data["vmstat"][counters.index("spb_alloc_borrow_movable"), -1])
    assert served["v1@42"] == 0
    assert served["v1@42-half"] > 0
