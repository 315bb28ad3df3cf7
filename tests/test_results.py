"""Opening, cubes, paired comparisons and bands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import spbfast
from spbfast.errors import ResultsError
from spbfast.results.analysis import band, cube
from spbfast.results.effects import compare, mean_interval
from spbfast.results.open import open_results
from spbfast.sweep import run_sweep
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("results")
    return run_sweep(make_job(directory), directory / "out", engine=ENGINE, quiet=True).directory


@pytest.fixture(scope="module")
def ds(results: Path) -> xr.Dataset:
    return open_results(results)


def test_directory_and_file_are_the_same(results: Path, ds: xr.Dataset) -> None:
    xr.testing.assert_identical(open_results(results / "results.nc"), ds)
    assert ds.spb_tainted.attrs["direction"] == "lower is better"


def test_without_results_nc_the_shards_are_read(results: Path, ds: xr.Dataset) -> None:
    path = results / "results.nc"
    kept = path.read_bytes()
    path.unlink()
    try:
        xr.testing.assert_equal(open_results(results), ds)
        assert not path.exists()
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("none", None, "not a results directory"), ("x.nc", "text", "cannot read"), ("absent.nc", None, "read")],
)
def test_what_is_not_a_result_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    elif not name.endswith(".nc"):
        (tmp_path / name).mkdir()
    with pytest.raises(ResultsError, match=message):
        open_results(tmp_path / name)


def test_another_netcdf_file_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", [1])}).to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with pytest.raises(ResultsError, match="not a results file"):
        open_results(tmp_path / "a.nc")


def test_cube_is_the_grid(ds: xr.Dataset) -> None:
    """So that a plot of two swept keys over time needs no more than their names."""
    c = cube(ds)
    assert dict(c.spb_tainted.sizes) == {
        "policy_slab_shrink_throttle": 2,
        "policy_slab_shrink_target_objs": 2,
        "replicate": 3,
        "time": 13,
    }
    beside = cube(ds, baseline=True).spb_tainted.sel(policy_slab_shrink=True)
    xr.testing.assert_equal(c.spb_tainted, beside.transpose(*c.spb_tainted.dims))
    assert c.policy_slab_shrink.item() is True


def test_cube_has_the_baseline_beside_every_point(ds: xr.Dataset) -> None:
    c = cube(ds, baseline=True)
    assert dict(c.sizes) == {
        "policy_slab_shrink": 2,
        "policy_slab_shrink_throttle": 2,
        "policy_slab_shrink_target_objs": 2,
        "replicate": 3,
        "time": 13,
        "migratetype": 3,
        "counter": 3,
    }
    base = c.spb_tainted.sel(policy_slab_shrink=False)
    for throttle in (0.05, 0.5):
        for target in (512, 4096):
            at = {"policy_slab_shrink_throttle": throttle, "policy_slab_shrink_target_objs": target}
            np.testing.assert_array_equal(base.sel(at), ds.spb_tainted.isel(point=0))
            k = int(
                np.flatnonzero(
                    (ds.policy_slab_shrink_throttle == throttle)
                    & (ds.policy_slab_shrink_target_objs == target)
                )[0]
            )
            on = c.spb_tainted.sel(at).sel(policy_slab_shrink=True)
            np.testing.assert_array_equal(on, ds.spb_tainted.isel(point=k))


def test_cube_of_one_parameter_is_sorted_by_it(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [4096, 512]}}\n"
    job = make_job(tmp_path, sweep=sweep)
    ds = open_results(run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).directory)
    c = cube(ds)
    assert c.policy_slab_shrink_target_objs.values.tolist() == [512, 4096]
    np.testing.assert_array_equal(c.tainted_end[0], ds.tainted_end[1])


def test_cube_with_two_causes_calls_them_case(tmp_path: Path) -> None:
    sweep = (
        "sweep:\n  baseline: {policy.slab_shrink: false, policy.slab_shrink_start_priority: 6}\n"
        "  grid: {policy.slab_shrink_target_objs: [4096, 512]}\n"
    )
    job = make_job(tmp_path, sweep=sweep)
    found = open_results(run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).directory)
    c = cube(found, baseline=True)
    assert c.case.values.tolist() == ["baseline", "grid"]
    assert c.spb_tainted.sizes["policy_slab_shrink_target_objs"] == 2


def test_a_sampled_design_is_no_cube(tmp_path: Path) -> None:
    """48 samples of three keys would be a cube of 110,592 cells; that of 5 samples is refused alike."""
    sampled = (
        "sweep: {design: {kind: lhs, samples: 48, ranges: {policy.slab_shrink_throttle: {min: 1ms, max: 1s}, "
        "policy.slab_shrink_target_objs: {min: 1, max: 65536}, slab.refault_share: {min: 0, max: 1}}}}\n"
    )
    job = make_job(tmp_path, sweep=sampled, replicates=1)
    found = open_results(run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).directory)
    with pytest.raises(ResultsError, match="48 points fill 0.043 % of a cube of 48 x 48 x 48 values"):
        cube(found)
    with pytest.raises(ResultsError, match=r"5 points fill 4 % of a cube of 5 x 5 x 5"):
        cube(found.isel(point=slice(0, 5)))


def test_zipped_keys_are_a_cube_with_gaps(tmp_path: Path) -> None:
    zipped = (
        "sweep:\n  zip:\n    policy.slab_shrink_throttle: [1ms, 2ms, 3ms]\n"
        "    policy.slab_shrink_target_objs: [1, 2, 3]\n"
        "  grid: {policy.slab_shrink_start_priority: [6, 12]}\n"
    )
    job = make_job(tmp_path, sweep=zipped, replicates=1)
    c = cube(open_results(run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).directory))
    assert int(c.tainted_end.notnull().sum()) == 6


def test_compare_is_paired_by_replicate(ds: xr.Dataset) -> None:
    table = compare(ds, by="policy_slab_shrink", metric="spb_tainted", at="end")
    assert table.point.values.tolist() == [1, 2, 3, 4]
    for k, point in enumerate(table.point.values):
        diff = ds.spb_tainted.values[point, :, -1] - ds.spb_tainted.values[0, :, -1]
        assert table.difference.values[k] == pytest.approx(diff.mean())
        assert table.ci_low.values[k] <= diff.mean() <= table.ci_high.values[k]
        assert diff.min() <= table.ci_low.values[k]
        assert table.ci_high.values[k] <= diff.max()
    xr.testing.assert_identical(table.drop_attrs(), compare(ds).drop_attrs())
    assert table.pairs.values.tolist() == [3] * 4


def test_compare_within_the_grid_matches_the_other_parameters(ds: xr.Dataset) -> None:
    table = compare(ds, by="policy_slab_shrink_target_objs", metric="tainted_peak")
    assert table.policy_slab_shrink_throttle.values.tolist() == [0.05, 0.5]
    expected = ds.tainted_peak.values[[2, 4]] - ds.tainted_peak.values[[1, 3]]
    np.testing.assert_allclose(table.difference, expected.mean(axis=1))


def test_compare_other_times_and_labels(ds: xr.Dataset) -> None:
    early = compare(ds, metric="spb_tainted", at=2.2)
    assert early.value.values[0] == pytest.approx(ds.spb_tainted.values[1, :, 2].mean())
    ran = compare(ds, metric="vmstat", sel={"counter": "spb_slab_shrink_ran"})
    assert ran.difference.values.tolist() == [12.0] * 4
    assert (ran.ci_low.values == 12).all()
    assert compare(ds, at="peak").control.values[0] >= compare(ds, at="mean").control.values[0]


def test_compare_leaves_failed_runs_out(ds: xr.Dataset) -> None:
    broken = ds.copy(deep=True)
    broken.status.values[1, 0] = 1
    table = compare(broken)
    assert table.pairs.values.tolist() == [2, 3, 3, 3]
    diff = ds.spb_tainted.values[1, 1:, -1] - ds.spb_tainted.values[0, 1:, -1]
    assert table.difference.values[0] == pytest.approx(diff.mean())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"metric": "spb_taint"}, "no variable or counter 'spb_taint'; did you mean 'spb_tainted'"),
        ({"metric": "vmstat"}, "pick labels with sel="),
        ({"by": "policy_nothing"}, "not a swept parameter"),
    ],
)
def test_compare_says_what_is_wrong(ds: xr.Dataset, kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        compare(ds, **kwargs)


def test_compare_needs_a_control(ds: xr.Dataset) -> None:
    grid = ds.isel(point=slice(1, None))
    with pytest.raises(ResultsError, match="no baseline"):
        compare(grid)
    with pytest.raises(ResultsError, match="no two points differ"):
        compare(grid, by="policy_slab_shrink")


def test_interval_is_reproducible_and_covers() -> None:
    assert np.isnan(mean_interval(np.array([3.0]))).all()
    assert mean_interval(np.array([2.0, 2.0])) == (2.0, 2.0)
    sample = np.random.default_rng(1).normal(10, 2, 40)
    low, high = mean_interval(sample)
    assert (low, high) == mean_interval(sample)
    assert 1.0 < high - low < 1.5
    assert low < 10 < high


def test_band_ignores_missing_runs(ds: xr.Dataset) -> None:
    da = ds.spb_tainted.astype("f8").copy(deep=True)
    da.values[1, 0] = np.nan
    da.values[2] = np.nan
    b = band(da)
    np.testing.assert_allclose(b["mean"].values[1], da.values[1, 1:].mean(axis=0))
    assert np.isnan(b["median"].values[2]).all()
    assert (b.p5 <= b["median"]).isel(point=[0, 1]).all()
    assert b.p95.attrs["units"] == "1"


def test_public_names() -> None:
    assert spbfast.open_results is open_results
    assert spbfast.cube is cube
    assert spbfast.compare is compare


def test_a_hundred_thousand_points_open_at_once(tmp_path: Path, ds: xr.Dataset) -> None:
    rows = np.arange(100_000) % 5
    many = ds.isel(point=rows, time=slice(0, 2)).assign_coords(point=np.arange(100_000))
    many.to_netcdf(tmp_path / "results.nc", engine="netcdf4")
    seconds = []
    for _ in range(3):
        begin = time.process_time()  # whatever else the machine does
        with open_results(tmp_path / "results.nc") as opened:
            assert opened.sizes["point"] == 100_000
            seconds.append(time.process_time() - begin)
    # About 0.05 s.
    assert min(seconds) < 0.2


def test_results_follow_the_conventions(results: Path, tmp_path: Path) -> None:
    """The CF conventions, as the compliance checker of IOOS reads them."""
    pytest.importorskip("compliance_checker")
    command = [
        str(Path(sys.executable).with_name("compliance-checker")),
        "--test=cf:1.11",
        "--criteria=strict",
    ]
    report = tmp_path / "report.json"
    words = [*command, "--format=json", "-o", str(report), str(results / "results.nc")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert report.exists(), done.stderr
    found = json.loads(report.read_text())["cf:1.11"]
    levels = ("high_priorities", "medium_priorities", "low_priorities")
    said = {m for level in levels for check in found[level] for m in check["msgs"]}
    # The standard name `time` is for calendar time; ours is elapsed time in seconds.
    assert said == {"Coordinate variable 'time' should have standard_name='time', found: 'None'"}


@pytest.mark.skipif(shutil.which("ncdump") is None, reason="needs ncdump (netcdf-bin)")
def test_ncdump_reads_results(results: Path) -> None:
    done = subprocess.run(
        ["ncdump", "-h", str(results / "results.nc")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "point = 5 ;" in done.stdout
    assert ':Conventions = "CF-1.11"' in done.stdout
