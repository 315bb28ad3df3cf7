"""The validation experiments at a small scale, their verdicts, and the page that is made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from experiments import (
    COMES_OUT,
    DIFFERS,
    OBSERVED,
    UNCHECKED,
    aging,
    burst,
    corrected,
    golden_suites,
    mix,
    pollution,
    tainted_pool,
)
from experiments import shrink_arithmetic as arithmetic
from experiments.validation_page import EXPERIMENTS, page

from spbfast.config import load_config
from spbfast.jit.decorators import INTERPRETED

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "results" / "studies" / "validation.json"
COMPILED = pytest.mark.skipif(INTERPRETED, reason="millions of page events")


def verdicts(experiment, numbers) -> list[str]:
    return [f.verdict for f in experiment.judge(json.loads(json.dumps(numbers)))]


@COMPILED
def test_churn_leaves_mainline_flat_and_the_count_is_exact() -> None:
    """256 MiB: a tenth of 128 frames was never taken, and nothing else is ever whole."""
    got = aging.churn("256MiB", "mainline", rounds=5)
    assert got["free_huge"] == [12] * 5
    assert got["ideal"] == 70
    assert verdicts(aging.EXPERIMENT, {"256MiB mainline": got})[0] == COMES_OUT


def test_a_moving_or_other_count_does_not_come_out() -> None:
    moving = {"free_huge": [819, 819, 818], "ideal": 4505, "share": 0.18}
    other = {"free_huge": [820, 820], "ideal": 4505, "share": 0.18}
    for numbers in (moving, other):
        assert verdicts(aging.EXPERIMENT, {"16GiB mainline": numbers})[0] == DIFFERS


@COMPILED
def test_half_rule_decides_what_a_full_pool_serves() -> None:
    numbers = tainted_pool.CLAIMS.run(True)
    assert numbers["with"]["free_pageblocks"] == 0
    assert (numbers["with"]["tainted_before"], numbers["without"]["tainted_before"]) == (8, 8)
    assert verdicts(tainted_pool.CLAIMS, numbers) == [COMES_OUT] * 3
    swapped = {"with": numbers["without"], "without": numbers["with"]}
    assert set(verdicts(tainted_pool.CLAIMS, swapped)) == {DIFFERS}


@COMPILED
def test_borrowing_ends_stranding() -> None:
    numbers = tainted_pool.STRANDING.run(True)
    assert verdicts(tainted_pool.STRANDING, numbers) == [COMES_OUT]
    assert verdicts(tainted_pool.STRANDING, {**numbers, "v1@31": numbers["v1@30"]}) == [DIFFERS]


@COMPILED
@pytest.mark.slow
def test_mix_on_a_whole_machine() -> None:
    numbers = mix.run(True)
    assert set(numbers) == set(mix.PRESETS)
    for runs in numbers.values():
        assert runs[0]["unmovable_in_clean"] == 0
        assert len(runs[0]["unmovable_in_extra"]) == runs[0]["extra"]
        assert runs[0]["tainted_over_time"][0] == runs[0]["tainted_at_boot"]
    assert len(mix.EXPERIMENT.judge(numbers)) == 3


@COMPILED
def test_nofragment_on_two_zones_avoids_fallbacks() -> None:
    numbers = {
        name: pollution.mix(("32MiB", "16MiB"), 8000, nofragment=on)
        for name, on in (("without", False), ("with", True))
    }
    assert numbers["with"]["events"] < numbers["without"]["events"]
    for n in numbers.values():
        total = sum(map(sum, n["claimed"])) + sum(map(sum, n["stolen"]))
        assert total == n["events"]
        assert all(n[kind][i][i] == 0 for kind in ("claimed", "stolen", "polluted") for i in range(3))
    found = verdicts(pollution.MATRIX, numbers)
    assert found[0] == COMES_OUT
    assert found.count(UNCHECKED) == 5
    assert len(pollution.MATRIX.tables(numbers)) > 20


@COMPILED
def test_recipe_pollutes_mainline_and_not_the_series() -> None:
    numbers = pollution.RECIPE.run(True)
    assert verdicts(pollution.RECIPE, numbers)[0] == COMES_OUT
    assert numbers["v1"]["share"][-1] < 0.2
    assert numbers["mainline"]["share"] == sorted(numbers["mainline"]["share"])


def test_two_pages_a_pageblock_stay() -> None:
    pfns = np.array([1024, 5, 3, 4, 600, 1030, 1031])
    keep, give = pollution.two_a_pageblock(pfns)
    assert keep.tolist() == [3, 4, 600, 1024, 1030]
    assert give.tolist() == [5, 1031]


@COMPILED
def test_shrink_arithmetic_holds() -> None:
    numbers = arithmetic.run(True)
    assert set(verdicts(arithmetic.EXPERIMENT, numbers)) == {COMES_OUT}
    numbers["cold"]["1024"] = {"2097151": 1024, "2097152": 1024}
    assert verdicts(arithmetic.EXPERIMENT, numbers)[0] == DIFFERS


def test_burst_is_read_from_the_study() -> None:
    numbers = burst.run(False)
    assert set(numbers) == {burst.OFF, burst.ON, burst.SUBTRACTED, burst.VARIED}
    assert verdicts(burst.EXPERIMENT, numbers)[0] == COMES_OUT
    assert verdicts(burst.EXPERIMENT, {}) == [UNCHECKED]
    run = {"tainted": [8] + [85] * 48, "slab_mb": 35_000, "digest": "", "stalls": 3}
    found = verdicts(burst.EXPERIMENT, {burst.OFF: [run], burst.ON: [run]})
    assert found == [COMES_OUT] * 6 + [OBSERVED]
    climbing = {"tainted": [8] + [20] * 36 + [30] * 12, "slab_mb": 24_000, "digest": "", "stalls": 3}
    found = verdicts(burst.EXPERIMENT, {burst.OFF: [climbing], burst.ON: [climbing]})
    assert found == [COMES_OUT, *[DIFFERS] * 5, OBSERVED]


def test_golden_counts_and_a_trace_that_differs() -> None:
    numbers = {
        "files": 3,
        "events": 10,
        "kinds": {"spb": 2, "shrink": 1},
        "identical": {"spb": 1, "shrink": 1},
        "stages": {"v1_15": 1},
        "different": ["a.npz DIFFERENT\n  here"],
    }
    shrink, spb, steps = golden_suites.EXPERIMENT.judge(numbers)
    assert (shrink.verdict, spb.verdict, steps.verdict) == (COMES_OUT, DIFFERS, DIFFERS)
    assert spb.remark == "a.npz DIFFERENT"
    assert "v1@21" in steps.remark
    assert len(golden_suites.files()) > 150


def test_page_lists_what_does_not_come_out_first() -> None:
    raw = {
        "V1": {
            "numbers": {"16GiB mainline": {"free_huge": [1, 2], "ideal": 9, "share": 0.1}},
            "seconds": 1.0,
            "quick": False,
        }
    }
    text = page(raw)
    first = text.index("## Does not come out")
    assert first < text.index("free huge frames, 16GiB mainline") < text.index("## V1")
    assert "Not run: golden" in text


def test_page_is_what_its_numbers_say() -> None:
    """No figure on the page is typed by hand: it is generated again and compared."""
    raw = json.loads(RAW.read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    assert text == page(raw), "run: scripts/validate --page"
    assert set(raw) == {e.key for e in EXPERIMENTS}
    assert not any(part["quick"] for part in raw.values())
    assert re.search(r"^## Does not come out$", text, re.M)


def test_the_corrections_are_shown_one_by_one() -> None:
    vm = dict.fromkeys(corrected.COUNTERS, 5_000)
    run = {"tainted": [8, *[30] * 36, *[34] * 12], "slab_mb": 24_600, "stranded_mb": 100, "vm": vm}
    numbers = {"before": run, "all corrections": run | {"tainted": [8, *[31] * 48]}}
    assert [f.ours for f in corrected.judge(numbers)] == ["34 -> 31"]
    assert corrected.tables(numbers)[-2] == (
        "| before | 34 | 4 | 0.1 | 24.6 | 5,000 | 5,000 | 5,000 | 5,000 |"
    )
    assert verdicts(corrected.EXPERIMENT, {}) == [UNCHECKED]


@pytest.mark.compiled
def test_every_case_of_the_corrected_burst_is_a_valid_machine() -> None:
    for overrides in corrected.cases().values():
        file = corrected.configs() / corrected.MACHINE
        assert load_config(file, overrides, one_point=True).scenario.duration > 0
