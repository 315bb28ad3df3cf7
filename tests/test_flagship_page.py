"""The page of the flagship study says what its numbers say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from experiments import flagship, jump
from experiments import flagship_page as page


def run(end: int, late: int = 0, **vm: int) -> dict[str, Any]:
    """A run of 480 s whose count climbs to `end`, the last `late` of it in its last minute."""
    climb = [8 + (end - late - 8) * i // 42 for i in range(43)]
    counters = dict.fromkeys(flagship.COUNTERS, 0) | vm
    return {
        "tainted": [*climb, *[end] * 6],
        "slab_mb": 25_000,
        "stranded_mb": 300,
        "wall_s": 20.0,
        "demand_digest": "d",
        "overrides": ["reclaim.x=1"],
        "vm": counters,
    }


def test_a_jump_is_twenty_within_a_minute() -> None:
    assert not page.is_jump(run(32))
    assert page.is_jump(run(60, late=30))
    assert page.is_jump({"tainted": [8, *[28] * 48]})
    assert not page.is_jump({"tainted": [8, *[27] * 48]})
    assert page.jumps([run(32), run(60, late=30)]) == "1 of 2"


def test_pairs_are_of_one_replicate_and_of_one_condition() -> None:
    raw = {
        "shrink off|0": run(30),
        "shrink off|1": run(34),
        "v1@30|0": run(29),
        "v1@30|1": run(33),
        "reserve soft, shrink off|0": run(40),
        "reserve soft, v1@30|0": run(38),
        "reserve soft, v1@30|1": run(99),
    }
    rows = page.pair_table(raw)[2:]
    assert rows == [
        "| as in the file | -1 in every pair | 2 |",
        "| reserve soft | -2 [none, none] | 1 |",
    ]


def test_gigantic_pages_cost_what_all_requests_of_the_case_moved() -> None:
    got = {"contig_alloc_success": 40, "contig_alloc_fail": 10, "contig_fail_pinned": 9}
    got |= {"contig_fail_busy": 1, "contig_pages_migrated": 4_000, "contig_alloc_ns": 80_000_000}
    raw = {"50 asked for: v2|0": run(30, **got), "50 asked for: v2|1": run(30, contig_alloc_success=0)}
    (row,) = page.gigantic_table(raw)[2:]
    assert row == "| v2 | 2 | 20 | 40, 0 | 20.0 [0.0, 40.0] | 100 | 2 | pinned 9, busy 1 | 0 |"
    nothing = {"50 asked for: mainline|0": run(200, contig_fail_no_candidate=50)}
    assert "| - | - | no candidate 50 |" in page.gigantic_table(nothing)[2]


def test_the_sentence_counts_every_run_under_superpageblocks() -> None:
    raw = {"shrink off|0": run(31), "shrink off|1": run(33), "mainline|0": run(235, late=90)}
    assert page.sentence(raw) == (
        "The changelog's 8 -> 85 comes out here as 8 -> 32 (31..33) in 2 runs. Of all 2 runs under "
        "superpageblock policies, inputs varied or not, none jumps; the highest ends at 33."
    )
    raw["guest memory:low|0"] = run(120, late=80)
    assert page.sentence(raw).endswith("inputs varied or not, 1 jumps; the highest ends at 120.")


def test_inputs_stand_by_how_far_they_move_the_mean() -> None:
    raw = {
        f"{name}|{i}": run(end + i)
        for name, end in (("v1@30", 30), ("guest memory:low", 31), ("guest memory:high", 30))
        for i in (0, 1)
    }
    raw |= {"pins one by one:high|0": run(45)}
    rows = page.tornado_table(raw)[2:]
    assert rows[0] == "| pins one by one | as in the file |  |  | 1 | +15 [none, none] | 0 of 1 |"
    assert rows[1] == "| guest memory | 1 | +1 in every pair | 0 of 2 | 1 | 0 in every pair | 0 of 2 |"
    assert page.bars(raw)[0] == ("pins one by one", 30.5, 45)


def test_every_case_has_its_replicates_and_some_of_all_come_first() -> None:
    keys = list(flagship.cases(10, "all"))
    assert len(keys) == len(set(keys)) == 10 * len(flagship.cases(1, "all"))
    first_half = keys[: len(keys) // 2]
    assert {key.rpartition("|")[2] for key in first_half} == set("01234")


def test_a_run_that_jumps_stands_beside_the_one_without_barred_pages() -> None:
    few = "one memcg, one superblock"
    raw = {
        f"{few}, shrink off|0": run(24),
        f"{few}, shrink off|1": run(97, late=60, allocstall_normal=1_480_689),
        f"{few}, barred pages subtracted, shrink off|1": run(29, allocstall_normal=7),
        "v1-half|0": run(54, late=35),
        "mainline|0": run(235, late=200),
    }
    rows = page.jump_table(raw)[2:]
    assert rows == [
        f"| {few}, shrink off | 1 | 97 | +64 from 370 s on | 0.3 | 1,480,689 | 29, 7 stalls |",
        "| v1-half | 0 | 54 | +37 from 370 s on | 0.3 | 0 | - |",
    ]
    assert page.jump_table({"v1|0": run(30)}) == ["No run does."]


def test_a_recorded_jump_is_told_from_its_worst_millisecond() -> None:
    """Three taints at 2.500 s, one before; kswapd last worked between the first two samples."""
    taints = {
        "time": np.array([1.2, 2.5, 2.5, 2.5, 2.5]),
        "first_or_last": np.array([1, 1, 1, 1, 0]),
        "action": np.ones(5, int),
    }
    steals = {
        "time": np.array([1.2, 2.5, 2.5, 2.5]),
        "alloc_order": np.array([9, 0, 0, 3]),
        "alloc_migratetype": np.array([1, 0, 0, 2]),
    }
    through = {"time": np.array([1.2, 2.5]), "n_tainted_with_buddy": np.array([7, 0])}
    counters = ["pgsteal_kswapd", "pgsteal_direct"]
    result = SimpleNamespace(
        coords={"counter": np.array(counters)},
        data={
            "vmstat": np.array([[0, 50, 50, 60], [0, 10, 40, 90]]),
            "spb_tainted": np.array([8, 9, 10, 13]),
            "nr_free_pages": np.array([0, 0, 1_000, 0]),
            "free_pages_stranded_in_tainted": np.array([0, 0, 990, 0]),
        },
    )
    columns = dict(zip(jump.KINDS, (taints, steals, through), strict=True))
    found = jump.told(result, columns)  # type: ignore[arg-type]
    assert found == {
        "moment": 2.5,
        "tainted": 3,
        "before": 10,
        "requests": [[0, "unmovable", 2], [3, "reclaimable", 1]],
        "with_block": 0,
        "free": 1_000,
        "stranded": 990,
        "kswapd_quiet": 1,
        "direct": 30,
    }
    (text, _) = jump.sentences({"case": "x", "replicate": 4, **found})
    assert "2 unmovable ones of order 0 and 1 reclaimable ones of order 3" in text
    assert "all clean ones together had 10" in text
    assert jump.sentences({}) == []


def test_the_steepest_jump_under_superpageblocks_is_recorded() -> None:
    raw = {"mainline|0": run(235, late=200), "v1|3": run(60, late=40), "v2|1": run(90, late=30)}
    assert jump.steepest(raw) == "v1|3"
    assert jump.steepest({"v1|0": run(30)}) == ""
