"""What a sweep's console and report say first: the finding, or plainly that nothing differs and why."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spbfast.results.open import open_results
from spbfast.results.report import build_report
from spbfast.results.sentences import alike, finding, nothing_differs
from spbfast.results.snippet import snippet
from spbfast.sweep import run_sweep
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

# The fake engine's runs do not depend on the priority.
SAME = (
    "sweep:\n  baseline: {policy.slab_shrink_start_priority: 9}\n"
    "  grid: {policy.slab_shrink_start_priority: [6, 12]}\n"
)
FAILS = "sweep: {grid: {policy.slab_shrink_target_objs: [666, 666666666]}}\n"


def results_of(directory: Path, sweep: str | None = None, **settings: object) -> xr.Dataset:
    options = {"sweep": sweep} if sweep is not None else {}
    job = make_job(directory, **options, **settings)
    run_sweep(job, directory / "out", engine=ENGINE, quiet=True)
    return open_results(directory / "out")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return results_of(tmp_path_factory.mktemp("same"), SAME)


def with_counter(ds: xr.Dataset, name: str, values: list[int]) -> xr.Dataset:
    """A dataset in which a counter ends at other values, point by point."""
    changed = ds.copy(deep=True)
    k = ds["counter"].values.tolist().index(name)
    changed["vmstat"][:, :, k, :] = np.array(values)[:, None, None]
    return changed


def test_where_nothing_differs_that_is_said_first_and_with_its_reason(same: xr.Dataset) -> None:
    text = finding(same)
    assert text.startswith(
        "Nothing differs: in each of 3 replicates all 3 points end with the same number of"
    )
    assert "never came into play" in text
    assert "policy.slab_shrink_start_priority" in text
    assert nothing_differs(same)


def test_the_reason_is_what_slab_shrink_did(same: xr.Dataset) -> None:
    counted = with_counter(same, "spb_slab_shrink_ran", [28, 30, 32])
    assert "Of 3 counters 1 differ: spb_slab_shrink_ran." in finding(counted)
    k = same["counter"].values.tolist().index("spb_slab_shrink_queued")
    freed = counted.assign_coords(
        counter=[
            "spb_slab_shrink_freed" if i == k else n for i, n in enumerate(same["counter"].values.tolist())
        ]
    )
    none = with_counter(freed, "spb_slab_shrink_freed", [0, 0, 0])
    assert "The reason: where slab shrink ran, 28 to 32 times a run, it freed no object." in finding(none)
    some = with_counter(freed, "spb_slab_shrink_freed", [0, 0, 7])
    assert "freed up to 7 objects" in finding(some)
    never = with_counter(with_counter(freed, "spb_slab_shrink_ran", [0, 0, 0]), "pgalloc_normal", [1, 2, 3])
    assert "slab shrink never ran" in finding(never)


def test_a_difference_in_one_replicate_is_one(same: xr.Dataset) -> None:
    other = same.copy(deep=True)
    other["slab_pages"][2, 1, 5] += 1
    assert not alike(other, "slab_pages")
    assert not nothing_differs(other)
    assert finding(other).startswith("No point differs from the baseline in tainted superpageblocks")
    assert "What differs: slab pages." in finding(other)
    other["status"][2, 1] = 1  # a failed run tells nothing
    assert nothing_differs(other)


def test_a_clear_finding_names_the_best_point(tmp_path: Path) -> None:
    text = finding(results_of(tmp_path))
    assert "(throttle 50 ms, target objs 4096)" in text
    assert "fewer than the baseline's" in text
    assert "95 % interval of the change" in text


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (FAILS, "No run succeeded"),
        ("", "The only point has"),
        ("sweep: {grid: {policy.slab_shrink_target_objs: [512, 4096]}}\n", "no baseline"),
        ("sweep: {grid: {policy.slab_shrink_target_objs: [512, 666]}}\n", "The only point with results"),
        ("sweep: {grid: {policy.slab_shrink_start_priority: [6, 12]}}\n", "Nothing differs"),
    ],
)
def test_every_outcome_has_words(
    tmp_path: Path, sweep: str, words: str, recwarn: pytest.WarningsRecorder
) -> None:
    assert words in finding(_quietly(tmp_path, sweep))


def _quietly(directory: Path, sweep: str) -> xr.Dataset:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return results_of(directory, sweep)


@pytest.mark.parametrize(
    "sweep",
    [
        FAILS,
        "",
        SAME,
        "sweep: {design: {kind: lhs, samples: 9, ranges: {policy.slab_shrink_throttle: {min: 1ms, max: 1s}, "
        "policy.slab_shrink_target_objs: {min: 1, max: 600}}}}\n",
        "sweep:\n  baseline: {policy.slab_shrink_target_objs: 256}\n"
        "  grid: {policy.slab_shrink_target_objs: [512, 4096]}\n",
        "sweep: {points: [{policy: mainline}, {policy.slab_shrink_throttle: 1ms}]}\n",
        "sweep: {baseline: {policy: mainline}}\n",
    ],
    ids=["all-failed", "no-sweep", "same", "lhs", "same-key", "points", "baseline-alone"],
)
@pytest.mark.parametrize("level", ["series", "summary"])
@pytest.mark.filterwarnings("ignore:.*runs failed and")
def test_the_printed_lines_work_on_any_results(tmp_path: Path, sweep: str, level: str) -> None:
    job = make_job(tmp_path, f"output.level={level}", sweep=sweep)
    run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    exec("\n".join(snippet(open_results(tmp_path / "out"), tmp_path / "out")), {})


def page_of(directory: Path, sweep: str) -> str:
    results_of(directory, sweep)
    return build_report(directory / "out").read_text(encoding="utf-8")


def test_a_report_without_a_difference_shows_no_best_and_no_empty_plot(tmp_path: Path) -> None:
    text = page_of(tmp_path, SAME)
    assert "Nothing differs" in text[text.index('<p class="finding">') :][:40]
    for left_out in ("best point", "worst point", "Paired differences", "all alike"):
        assert left_out not in text, left_out
    assert "every point" in text
    assert "the same in all points" in text
    assert re.search(r"<details><summary class=\"soft\">\d+ counters with the same count in all points", text)
    assert not re.search(r"<tr><td><code>pgalloc_normal</code></td>(<td>[^<]*</td>)\1\1", text)


def test_a_report_with_a_difference_shows_it(tmp_path: Path) -> None:
    text = page_of(
        tmp_path,
        "sweep:\n  baseline: {policy.slab_shrink: false}\n"
        "  grid: {policy.slab_shrink_throttle: [50ms, 1s]}\n",
    )
    for shown in ("Differences from baseline: slab shrink off", 'class="better"'):
        assert shown in text


def test_flat_panels_are_named_and_not_drawn(tmp_path: Path) -> None:
    from spbfast.results.report import figures

    ds = results_of(tmp_path, SAME)
    assert figures.flat_at_zero(ds) == []
    ds["spb_empty"][:] = 0
    assert figures.flat_at_zero(ds) == ["spb_empty"]
    styles = {0: {"color": "#000000", "linestyle": "-", "zorder": 2.0}}
    drawn = figures.superpageblock_panels(ds, styles)
    assert "clean superpageblocks" in drawn
    assert "empty superpageblocks" not in drawn


def test_the_command_to_reproduce_keeps_overrides() -> None:
    from spbfast.results.report.exhibits import reproduce

    made = {
        "command": "driver.py job.yaml out",
        "config_path": "my job.yaml",
        "overrides": ["replicates=2"],
        "grid": ["policy.slab_shrink_throttle=1ms,2ms"],
    }
    assert shlex.split(reproduce(made)) == [
        *("spbfast", "sweep", "my job.yaml", "--set", "replicates=2"),
        *("--grid", "policy.slab_shrink_throttle=1ms,2ms"),
    ]
