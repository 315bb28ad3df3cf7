"""Steps of a sweep against each other: pairing, effects, costs, names, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spbfast import cli
from spbfast.errors import ResultsError
from spbfast.results import effects
from spbfast.results.open import open_results
from spbfast.sweep.run.driver import run_sweep
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

LADDER = (
    "presets: {mine: {preset: v1, contig: false}}\n"
    "sweep: {baseline: {policy: v1}, grid: {policy: [mainline, v1@30, mine]}}\n"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("ladder")
    (base / "job.yaml").write_text(
        f"name: ladder\nduration: 12s\nseed: 7\nreplicates: 4\nexecutor: {{kind: serial}}\n{LADDER}"
    )
    from spbfast.config import load_config

    return run_sweep(load_config(base / "job.yaml"), base / "out", engine=ENGINE, quiet=True).directory


@pytest.fixture(scope="module")
def ds(directory: Path) -> xr.Dataset:
    return open_results(directory)


def test_each_point_against_the_one_before_it(ds: xr.Dataset) -> None:
    table = effects.steps(ds, ["spb_tainted"], "previous")
    assert [s.name for s in table] == ["v1", "mainline", "v1@30", "mine"]
    assert [s.control for s in table] == ["v1", "v1", "mainline", "v1@30"]
    ends = ds.spb_tainted.isel(time=-1).values
    for row in range(1, 4):
        effect = table[row].effects[0]
        difference = (ends[row] - ends[row - 1]).mean()
        assert effect.difference == pytest.approx(difference)
        assert effect.low <= difference <= effect.high
        assert (effect.control, effect.value) == (pytest.approx(ends[row - 1].mean()), ends[row].mean())
        assert effect.pairs == 4
        assert effect.clear == (effect.low > 0 or effect.high < 0)


def test_each_point_against_the_baseline(ds: xr.Dataset) -> None:
    table = effects.steps(ds, ["spb_tainted"], "baseline")
    assert {s.control for s in table} == {"v1"}
    assert table[0].effects[0].difference == 0.0
    moved = ds.isel(point=[1, 2, 3, 0])
    again = effects.steps(moved, ["spb_tainted"], "baseline")
    assert [s.name for s in again] == ["v1", "mainline", "v1@30", "mine"]
    assert [s.data() for s in again] == [s.data() for s in table]


def test_counters_and_costs_are_quantities_too(ds: xr.Dataset) -> None:
    counter = str(ds.counter.values[0])
    effect = effects.steps(ds, [counter], "previous")[1].effects[0]
    series = ds.vmstat.sel(counter=counter).isel(time=-1)
    assert effect.difference == pytest.approx(float((series[1] - series[0]).mean()))
    assert "wall_time" in ds
    assert "wall_time" not in effects.costs(ds)


def test_failed_runs_leave_their_pair_out(ds: xr.Dataset) -> None:
    broken = ds.copy(deep=True)
    broken["status"][1, 2] = 1
    table = effects.steps(broken, ["spb_tainted"], "previous")
    assert [s.effects[0].pairs for s in table] == [4, 3, 3, 4]
    broken["status"][:] = 1
    nothing = effects.steps(broken, ["spb_tainted"], "previous")[1]
    assert nothing.effects[0].pairs == 0
    assert np.isnan(nothing.effects[0].difference)
    assert nothing.data()["effects"][0]["difference"] is None
    assert "none" in effects.steps_text([nothing, nothing])


def test_names_of_points_with_several_parameters(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    found = open_results(run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).directory)
    names = effects.point_names(found)
    assert len(set(names)) == found.sizes["point"] == 5
    assert all("policy_slab_shrink_throttle=" in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"against": "sideways"}, "'previous' or 'baseline', got 'sideways'"),
        ({"metrics": ["spb_taintd"]}, "did you mean 'spb_tainted'"),
        ({"metrics": ["free_pages"]}, "pick labels with sel="),
    ],
)
def test_wrong_questions(ds: xr.Dataset, change: dict, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        effects.steps(ds, **{"metrics": ["spb_tainted"], **change})
    with pytest.raises(ResultsError, match="one point only"):
        effects.steps(ds.isel(point=[0]))


def test_compare_on_the_command_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["compare", str(directory), *args])
        return int(caught.value.code or 0), *capsys.readouterr()

    code, out, _ = call("--against", "previous")
    assert code == 0
    head, columns, *rows, star, few = out.splitlines()
    assert head == "spb_tainted at end, each point against the one before it"
    assert columns.split()[:2] == ["spb_tainted", "difference"]
    assert "wall_time" not in columns  # how long the simulator took is no result
    assert [row.split()[0] for row in rows] == ["v1", "mainline", "v1@30", "mine"]
    assert star.startswith("*")
    assert few.startswith("(*) the same from fewer than 10 pairs")
    assert not any("* " in row.replace("(*)", "") for row in rows)
    code, out, _ = call("--json", "--metric", "spb_clean")
    assert json.loads(out)["against"] == "baseline"
    assert json.loads(out)["steps"][1]["effects"][0]["metric"] == "spb_clean"
    code, out, _ = call("--by", "policy", "--json")
    assert len(json.loads(out)["metrics"]["spb_tainted"]) == 2
    assert call("--by", "policy", "--against", "previous")[0] == 2
    assert call("--against", "sideways")[0] == 2
    code, _, err = call("--metric", "spb_tinted")
    assert (code, "did you mean 'spb_tainted'" in err) == (2, True)
    code, _, err = call("--metric", "qqqqqqqq")
    assert code == 2
    assert ", such as " in err
    assert len(err) < 300
    code, out, _ = call("--by", "policy")
    assert "control_name" in out
    assert "fewer than 10 pairs" in out


@pytest.mark.parametrize("at", ["nan", "inf", "-1", "99999", "12.6", "1e400", "noon"])
def test_a_time_that_nobody_simulated(directory: Path, at: str, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--by", "policy")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["compare", str(directory), f"--at={at}", *more])
        assert caught.value.code == 2
        err = capsys.readouterr().err
        assert "seconds such as 60" in err or "there are no samples; they go from 0 to 12 s" in err


@pytest.mark.parametrize(
    ("words", "head"),
    [
        (["--at", "3"], "spb_tainted at 3 s, each"),
        (["--at", "3s"], "spb_tainted at 3 s, each"),
        (["--at", "3.2"], "spb_tainted at 3 s (the sample nearest to 3.2 s), each"),
        (["--at", "peak"], "spb_tainted at peak, each"),
        (["--at", "3.2", "--metric", "tainted_end"], "tainted_end of the whole run, each"),
    ],
)
def test_the_moment_is_the_one_that_is_shown(
    directory: Path, words: list[str], head: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--by", "policy")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["compare", str(directory), *words, *more])
        assert not caught.value.code
        assert capsys.readouterr().out.startswith(head)


def test_the_control_of_each_point_is_named(ds: xr.Dataset) -> None:
    table = effects.compare(ds, by="policy")
    assert table.few_pairs.values.all()
    # The baseline's value is not in the grid, so the smallest one is the control: who would have thought?
    assert set(table.control_name.values.tolist()) == {"mainline"}
    assert set(table.control_id.values.tolist()) == {ds.point_id.values[1]}
    assert set(effects.compare(ds).control_name.values.tolist()) == {"v1"}


@pytest.mark.parametrize(
    "question",
    [
        {"metric": 5},
        {"metric": "qq"},
        {"by": 5},
        {"by": "nothing"},
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": -1},
        {"at": 10**400},
        {"at": None},
        {"at": True},
        {"at": "noon"},
        {"metric": "wall_time", "at": "noon"},
        {"sel": 5},
        {"sel": {"nothing": 1}},
        {"confidence": 0},
        {"confidence": 1.0},
        {"confidence": float("nan")},
        {"confidence": "95"},
    ],
    ids=str,
)
def test_questions_that_make_no_sense(ds: xr.Dataset, question: dict) -> None:
    with pytest.raises(ResultsError) as caught:
        effects.compare(ds, **question)
    assert caught.value.exit_code == 2
    for wrong in (5, None, xr.Dataset(), ds.isel(point=0)):
        with pytest.raises(ResultsError, match="needs the results of a sweep"):
            effects.compare(wrong)
