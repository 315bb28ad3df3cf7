"""What a report judges by: chosen metrics, their sentences, response curves and matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.results.open import open_results
from spbfast.results.plots import point_labels
from spbfast.results.report import build_report
from spbfast.results.report.measures import fallback_matrices
from spbfast.results.report.metrics import control_of, judged_metrics, sentence
from spbfast.results.report.trust import trust
from spbfast.results.response import numeric_params, responses
from spbfast.sweep import run_sweep
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

CURVE = """\
sweep:
  baseline: {policy.slab_shrink: false}
  grid:
    policy.slab_shrink_throttle: [10ms, 100ms, 1s]
    policy.slab_shrink_target_objs: [512, 4096]
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    return Path(run_sweep(make_job(folder, sweep=CURVE), folder / "out", engine=ENGINE, quiet=True).directory)


@pytest.fixture
def ds(directory: Path) -> xr.Dataset:
    return open_results(directory)


def set_ends(ds: xr.Dataset, rows: list[list[float]]) -> xr.Dataset:
    """The dataset with other ends, one row a point."""
    return ds.assign(tainted_end=(("point", "replicate"), np.array(rows, "f8")))


def test_the_control_is_the_baseline_or_the_first_point_that_ran(ds: xr.Dataset) -> None:
    assert control_of(ds) == int(np.flatnonzero(ds["is_baseline"].values)[0])
    ds["is_baseline"][:] = False
    ds["status"][0, :] = 1
    assert control_of(ds) == 1


def test_a_sentence_names_both_ends_and_their_intervals(ds: xr.Dataset) -> None:
    base = [10.0, 11.0, 12.0]
    rows = [base, [4, 5, 6], [10, 11, 12], *([[13, 15, 14]] * (ds.sizes["point"] - 3))]
    (found,) = judged_metrics(set_ends(ds, rows), [0, 1], ["tainted_end"])
    text = sentence(found, point_labels(ds))
    assert text.startswith("11 in baseline: slab shrink off; lowest 5 in throttle 10 ms, target objs 512")
    assert "(\N{MINUS SIGN}6, 95 % interval \N{MINUS SIGN}6 to \N{MINUS SIGN}6, 3 pairs)" in text
    assert "; highest 14 in " in text
    assert text.endswith(f"Intervals without 0: {ds.sizes['point'] - 2} of {ds.sizes['point'] - 1}.")


def test_what_does_not_differ_is_said_in_one_number(ds: xr.Dataset) -> None:
    (found,) = judged_metrics(set_ends(ds, [[7.0, 8.0, 9.0]] * ds.sizes["point"]), [0], ["tainted_end"])
    assert sentence(found, point_labels(ds)) == "The same in every point, replicate by replicate: 7 to 9."


def test_runs_without_results_leave_no_pair(ds: xr.Dataset) -> None:
    rows = [[1.0, 2.0, 3.0]] * ds.sizes["point"]
    own = set_ends(ds, rows)
    own["status"][1, :] = 1
    (found,) = judged_metrics(own, [0, 1], ["tainted_end"])
    assert found.effects[1].pairs == 0
    assert np.isnan(found.means[1])


def test_an_unknown_metric_is_named(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="'spb_taintd'; did you mean 'spb_tainted'"):
        build_report(directory, tmp_path / "x.html", ["spb_taintd"])
    assert not (tmp_path / "x.html").exists()


def test_chosen_metrics_make_the_page(directory: Path, tmp_path: Path) -> None:
    text = build_report(directory, tmp_path / "x.html", ["slab_pages", "spb_slab_shrink_ran"]).read_text()
    assert 'id="metric-slab_pages"' in text
    assert 'id="metric-spb_slab_shrink_ran"' in text
    assert 'id="metric-tainted_end"' not in text


def test_a_curve_has_a_line_for_each_setting_of_the_rest(ds: xr.Dataset) -> None:
    assert numeric_params(ds) == ["policy_slab_shrink_throttle"]
    values = np.arange(ds.sizes["point"] * 3, dtype="f8").reshape(-1, 3)
    (curve,) = responses(ds, values)
    assert curve.x.tolist() == [0.01, 0.1, 1.0]
    assert [line.label for line in curve.lines] == ["target objs 512", "target objs 4096"]
    for line in curve.lines:
        target = float(line.label.rsplit(" ", 1)[1])
        for x, mean in zip(curve.x, line.mean, strict=True):
            at = (ds["policy_slab_shrink_throttle"] == x) & (ds["policy_slab_shrink_target_objs"] == target)
            assert mean == values[np.flatnonzero(at.values & ds["in_grid"].values)].mean()
    assert curve.control == values[control_of(ds)].mean()


def test_a_curve_needs_results_at_three_values(ds: xr.Dataset) -> None:
    values = np.full((ds.sizes["point"], 3), np.nan)
    assert responses(ds, values) == []
    values[-1] = 4.0
    assert responses(ds, values) == []
    values[1:] = 4.0
    assert len(responses(ds, values)) == 1


def test_matrices_are_shaded_by_their_largest_cell() -> None:
    zero = np.zeros(2)
    found = {
        "pageblock_steal_unmovable_from_movable": np.array([0.0, 40.0]),
        "pageblock_steal_reclaimable_from_movable": np.array([0.0, 10.0]),
        "pageblock_pollute_unmovable_from_movable": zero,
    }
    (matrix,) = fallback_matrices(found, ["a", "b"])
    assert matrix["label"] == "b"
    steal = matrix["kinds"][0]
    assert [c["share"] for c in steal["rows"][0]["cells"]] == [0, 100, 0]
    assert steal["rows"][2]["cells"][1] == {"text": "10", "share": 25}
    assert not matrix["kinds"][1]["total"]


def test_other_demand_is_said(ds: xr.Dataset) -> None:
    assert "same demand in every point" in trust(ds, ())[0]
    ds["demand_digest"][2, :] = ds["demand_digest"][2, :] + 1
    assert trust(ds, ())[0].startswith(f"1 of {ds.sizes['point']} points met another demand")
