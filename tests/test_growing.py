"""As many replicates as needed: intervals that may be looked at again and again, and sweeps that use them."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from typer.testing import CliRunner

from spbfast.cli import app
from spbfast.config import load_config
from spbfast.config.replicates import ReplicatesSpec
from spbfast.errors import ConfigError
from spbfast.results.report.exhibits import provenance, read_exhibit
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.points.plan import Cell, make_plan
from spbfast.sweep.points.stopping import MIXING, ROUNDING, StopRule, looks, mean_half_width
from spbfast.sweep.run.estimate import estimate, estimate_lines
from spbfast.sweep.store.decisions import read_decisions
from spbfast.sweep.store.shards import OK, UNNEEDED
from spbfast.sweep.store.view import look
from tests.sweep_tools import ENGINE, GRID, write_job

pytestmark = pytest.mark.shell

LEVEL = 0.95
UNTIL = "{min: 4, max: 30, until: {metric: tainted_end, half_width: %s, level: 0.9%s}}"


def growing_job(directory: Path, *overrides: str, width: float = 8.0, of: str = "", sweep: str = GRID) -> Any:
    """The job of the sweep tests with a rule for its replicates."""
    path = write_job(directory, sweep=sweep)
    rule = UNTIL % (width, f", of: {of}" if of else "")
    path.write_text(path.read_text().replace("replicates: 3", f"replicates: {rule}"))
    return load_config(path, ["executor.kind=serial", *overrides])


# -- the interval --------------------------------------------------------------------------------------


def evidence(t: float, n: int) -> float:
    """Against mean 0, from the ratio of two densities of the t statistic: mixed over effects, and without.

    By numerical integration over the normal distribution of the effect, so nothing is shared with the code.
    """
    effects = np.linspace(-12, 12, 4001) / math.sqrt(MIXING)
    weights = stats.norm.pdf(effects, scale=1 / math.sqrt(MIXING))
    mixed = np.trapezoid(weights * stats.nct.pdf(t, n - 1, effects * math.sqrt(n)), effects)
    return float(mixed / stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("n", [5, 9, 20])
def test_the_interval_ends_where_the_evidence_reaches_one_in_twenty(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    t = mean_half_width(values.tolist(), LEVEL) / (values.std(ddof=1) / math.sqrt(n))
    assert evidence(t, n) == pytest.approx(1 / (1 - LEVEL), rel=1e-3)


def test_all_looks_together_keep_their_promise_and_plain_intervals_do_not() -> None:
    rng = np.random.default_rng(7)
    rounds, ours, plain = 2000, 0, 0
    at = looks(5, 40)
    for values in rng.normal(0, 1, (rounds, 40)):
        means = [values[:n].mean() for n in at]
        widths = [mean_half_width(values[:n].tolist(), LEVEL) for n in at]
        usual = [stats.t.ppf(0.975, n - 1) * values[:n].std(ddof=1) / math.sqrt(n) for n in at]
        ours += any(abs(m) > w for m, w in zip(means, widths, strict=True))
        plain += any(abs(m) > w for m, w in zip(means, usual, strict=True))
    error = 3 * math.sqrt(0.05 * 0.95 / rounds)
    assert ours / rounds < 0.05 + error
    assert plain / rounds > 0.10


def test_width_follows_spread_level_and_number() -> None:
    values = [1.0, 2.0, 4.0, 3.0, 5.0]
    assert mean_half_width([2 * v for v in values], LEVEL) == pytest.approx(
        2 * mean_half_width(values, LEVEL)
    )
    assert mean_half_width(values, 0.99) > mean_half_width(values, 0.9)
    assert mean_half_width(values * 4, LEVEL) < mean_half_width(values, LEVEL) / 2
    assert mean_half_width([1.0], LEVEL) == math.inf
    assert mean_half_width([1.0, 2.0], 0.999) == math.inf
    assert mean_half_width([3.0] * 5, LEVEL) == 0
    assert mean_half_width([3.0] * 5, LEVEL, ROUNDING) > 1


def test_looks_are_a_quarter_apart() -> None:
    assert looks(5, 40) == [5, 7, 9, 12, 15, 19, 24, 30, 38, 40]
    assert looks(3, 3) == [3]


def rule(**changes: Any) -> StopRule:
    until = {"metric": "tainted_end", "half_width": 1.0, "level": 0.9} | changes
    return StopRule(ReplicatesSpec.model_validate({"min": 5, "max": 12, "until": until}))


def test_a_verdict_needs_all_runs_up_to_its_look_and_no_others() -> None:
    judge = rule().judge
    assert judge([None] * 12).replicates == 5
    assert judge([8.0, 8.0, None, 8.0, 8.0, 99.0]).replicates == 5
    same = judge([8.0] * 5 + [None] * 7)
    assert (same.replicates, same.is_final) == (5, True)
    wide = judge([1.0, 9.0, 4.0, 7.0, 2.0] + [None] * 7)
    assert (wide.replicates, wide.is_final, wide.is_narrow) == (7, False, False)
    end = judge([1.0, 9.0] * 6)
    assert (end.replicates, end.is_final, end.is_narrow) == (12, True, False)
    assert judge([8.0] * 5 + [float("nan")] * 7) == same


def test_failed_runs_are_left_out_and_a_point_that_always_fails_stops() -> None:
    nan = float("nan")
    some = rule().judge([8.0, nan, 8.0, 8.0, 8.0, 8.0, 8.0] + [None] * 5)
    assert some.half_width == pytest.approx(mean_half_width([8.0] * 4, 0.9, ROUNDING)) or some.replicates == 7
    assert rule().judge([nan] * 5 + [None] * 7).is_final


def test_differences_of_whole_numbers_are_rounded_twice() -> None:
    point, pair = rule(), rule(of="difference")
    assert pair.judge([0.0] * 12).half_width > point.judge([0.0] * 12).half_width or (
        pair.judge([0.0] * 12).replicates > point.judge([0.0] * 12).replicates
    )


# -- sweeps --------------------------------------------------------------------------------------------


def needed_by_hand(job: Any, of: str) -> dict[int, int]:
    """What each point needs, from a sweep that runs all replicates of all points."""
    plan = make_plan(job, 1)
    stop = plan.stop_rule
    from tests.fake_engine import run_replicate

    values = {
        cell: float(
            run_replicate(
                plan.scenario(plan.index_of(cell.point_id)), plan.seed_of(cell.point_id), cell.replicate
            ).data["spb_tainted"][-1]
        )
        for cell in plan.cells()
    }
    base = next(p.point_id for p in plan.points if p.baseline)
    found = {}
    for point in plan.ids.tolist():
        own = [values[Cell(point, r)] for r in range(plan.replicates)]
        if of == "difference":
            own = [a - values[Cell(base, r)] for r, a in enumerate(own)]
        found[point] = stop.judge(own).replicates
    if of == "difference":
        found[base] = max(n for point, n in found.items() if point != base)
    return found


def runs_of(directory: Path) -> dict[int, int]:
    """Replicates that each point has, which are the first ones."""
    with xr.open_dataset(directory / "results.nc", decode_timedelta=False) as ds:
        found = {}
        for i, point in enumerate(ds.point_id.values.tolist()):
            ok = ds.status.values[i] == OK
            found[point] = int(ok.sum())
            assert ok[: found[point]].all()
            assert (ds.status.values[i, found[point] :] == UNNEEDED).all()
            assert int(ds.replicates_needed[i]) == found[point]
        assert ds.sizes["replicate"] == max(found.values())
        assert (ds.attrs["n_missing"], ds.attrs["n_failed"]) == (0, 0)
    return found


@pytest.mark.parametrize(("of", "width"), [("point", 8.0), ("difference", 8.0)])
def test_each_point_gets_what_it_needs_whatever_the_executor(of: str, width: float, tmp_path: Path) -> None:
    digests = set()
    for name, overrides in {
        "serial": (),
        "small": ("executor.batch=1",),
        "threads": ("executor.kind=threads", "executor.workers=3", "executor.batch=3"),
    }.items():
        job = growing_job(tmp_path, *overrides, width=width, of=of)
        done = run_sweep(job, tmp_path / name, engine=ENGINE, quiet=True)
        assert (done.n_missing, done.n_ok) == (0, done.n_runs)
        found = runs_of(tmp_path / name)
        assert found == needed_by_hand(job, of)
        assert done.n_runs == sum(found.values())
        digests.add(results_digest(tmp_path / name))
    assert len(digests) == 1
    assert len(set(found.values())) > 1, "the example must tell points apart"
    assert 4 < max(found.values()) < 30


def test_an_interrupted_sweep_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = growing_job(tmp_path)
    run_sweep(job, tmp_path / "whole", engine=ENGINE, quiet=True)
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.03")
    out = tmp_path / "out"
    starts = 1
    while run_sweep(job, out, engine=ENGINE, quiet=True, time_limit_s=0.25 * starts).n_missing:
        starts += 1
        if starts % 2:  # the values come from the shards where the journal is lost
            (out / "journal.jsonl").unlink(missing_ok=True)
        assert starts < 40
    assert starts > 2
    assert results_digest(out) == results_digest(tmp_path / "whole")
    assert look(out).state == "finished"


def test_a_wider_limit_continues_where_it_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_sweep(growing_job(tmp_path, width=0.5), out, engine=ENGINE, quiet=True)
    assert first.n_runs == 5 * 30
    more = growing_job(tmp_path, "replicates.max=40", width=0.5)
    again = run_sweep(more, out, engine=ENGINE, quiet=True)
    assert (again.n_new, again.n_runs) == (50, 200)
    assert run_sweep(more, out, engine=ENGINE, quiet=True).n_new == 0


def test_tasks_of_an_array_take_whole_points(tmp_path: Path) -> None:
    job, out = growing_job(tmp_path), tmp_path / "out"
    run_sweep(job, tmp_path / "whole", engine=ENGINE, quiet=True)
    tasks = [
        threading.Thread(
            target=run_sweep, args=(job, out), kwargs={"shard_of": (i, 2), "engine": ENGINE, "quiet": True}
        )
        for i in range(2)
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert CliRunner().invoke(app, ["consolidate", str(out)]).exit_code == 0
    assert results_digest(out) == results_digest(tmp_path / "whole")
    with pytest.raises(ConfigError, match="--shard-of.*difference"):
        run_sweep(
            growing_job(tmp_path, of="difference"),
            tmp_path / "pairs",
            engine=ENGINE,
            quiet=True,
            shard_of=(0, 2),
        )


def test_failed_points_stop_at_the_first_look(tmp_path: Path) -> None:
    sweep = GRID.replace("[512, 4096]", "[512, 666]")
    job, out = growing_job(tmp_path, sweep=sweep), tmp_path / "out"
    done = run_sweep(job, out, engine=ENGINE, quiet=True)
    assert (done.n_failed, done.n_missing) == (8, 0)
    found = read_decisions(out, make_plan(job, 1).ids, 4)
    assert found is not None
    assert sorted(found.needed.tolist())[:2] == [4, 4]


def test_with_a_branch_each_replicate_is_aged_once(tmp_path: Path) -> None:
    job, out = (
        growing_job(tmp_path, sweep=GRID.replace("sweep:", "sweep:\n  branch_at: 5s")),
        tmp_path / "out",
    )
    done = run_sweep(job, out, engine=ENGINE, quiet=True)
    assert done.n_ok == done.n_runs == sum(runs_of(out).values())
    assert not (out / "states").exists()


def test_results_status_and_report_say_what_was_decided(tmp_path: Path) -> None:
    job, out = growing_job(tmp_path), tmp_path / "out"
    done = run_sweep(job, out, engine=ENGINE, quiet=True)
    assert look(out).runs == done.n_runs
    assert json.loads((out / "decisions.json").read_text())["metric"] == "tainted_end"
    assert "reached for 5 of 5" in (out / "logs" / "sweep.log").read_text()
    with xr.open_dataset(out / "results.nc", decode_timedelta=False) as ds:
        assert (ds.half_width <= 8).all()
        assert ds.is_narrow.all()
        assert ds.replicates_needed.dims == ("point",)
        rows = dict(provenance(read_exhibit(out), ds))
    assert (
        "4 to 30 a point, until the 90 % interval of its mean in tainted_end is at most 8"
        in rows["replicates"]
    )
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    page = (out / "report.html").read_text()
    assert f"= {done.n_runs} runs" in page
    assert "0 not done" in page


def test_the_dry_run_gives_the_range(tmp_path: Path) -> None:
    job = growing_job(tmp_path)
    found = estimate(job, tmp_path / "out", engine=ENGINE)
    assert (found.runs_min, found.runs) == (20, 150)
    assert found.run is not None
    assert found.wall_min_s == pytest.approx(20 * found.run.seconds)
    assert found.wall_s == pytest.approx(150 * found.run.seconds)
    text = "\n".join(estimate_lines(found))
    assert "5 points x 4 to 30 replicates = 20 to 150 runs, 0 done, 20 to 150 new" in text
    run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    assert estimate(job, tmp_path / "out", engine=ENGINE).done > 20


# -- the section ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "replicates: must be at least 1, got 0"),
        ("many", "whole number, or a mapping of min, max and until"),
        ("true", "whole number"),
        ("{min: 3, max: 9}", "until: is missing"),
        ("{min: 9, max: 3, until: {metric: tainted_end, half_width: 1}}", r"max: must be at least min \(9\)"),
        ("{min: 1, max: 3, until: {metric: tainted_end, half_width: 1}}", "min: must be at least 2"),
        ("{min: 3, max: 9, until: {metric: spb_tainted, half_width: 1}}", "has values along time"),
        ("{min: 3, max: 9, until: {metric: tainted_ent, half_width: 1}}", "did you mean 'tainted_end'"),
        ("{min: 3, max: 9, until: {metric: tainted_end}}", "half_width"),
        ("{min: 3, max: 9, until: {metric: tainted_end, half_width: 0}}", "must be greater than 0"),
        ("{min: 3, max: 9, until: {metric: tainted_end, half_width: 1, level: 1.0}}", "must be less than 1"),
        ("{min: 3, most: 9, until: {metric: tainted_end, half_width: 1}}", "unknown key 'most'"),
        (
            "{min: 3, max: 9, until: {metric: tainted_end, half_width: 1, of: difference}}",
            "no sweep.baseline",
        ),
    ],
)
def test_a_wrong_section_is_told_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    path = write_job(tmp_path, sweep="sweep: {grid: {policy.slab_shrink: [false, true]}}\n")
    path.write_text(path.read_text().replace("replicates: 3", f"replicates: {text}"))
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert "job.yaml:6:" in str(error.value)


def test_a_number_and_the_rule_can_replace_each_other(tmp_path: Path) -> None:
    assert growing_job(tmp_path, "replicates=2").replicates == 2
    path = write_job(tmp_path)
    job = load_config(path, ["replicates={min: 2, max: 7, until: {metric: tainted_end, half_width: 1}}"])
    assert (job.replicates, job.growing.min) == (7, 2)
    assert load_config(growing_job(tmp_path).path, one_point=True).replicates == 4
    shown = CliRunner().invoke(app, ["validate", str(growing_job(tmp_path).path)]).output
    assert "4 to 30 replicates" in shown
