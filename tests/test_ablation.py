"""The ablation jobs, their summaries, and the page of the series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments import ablation
from experiments.series_page import page

from spbfast.config import load_config, presets, series
from spbfast.results.open import open_results
from spbfast.sweep.run.driver import run_sweep
from tests.sweep_tools import ENGINE

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "results" / "studies" / "ablation.json"


def kept() -> dict:
    return json.loads(RAW.read_text(encoding="utf-8")) if RAW.is_file() else {}


def test_the_ladder_has_every_preset_in_order() -> None:
    job = load_config(ROOT / "configs" / "ablation-ladder.yaml")
    assert job.sweep.grid["policy"] == presets.ladder()
    assert job.replicates == 20


def test_leave_one_out_is_written_from_the_presets() -> None:
    text = (ROOT / "configs" / "ablation-leave-one-out.yaml").read_text(encoding="utf-8")
    assert text == ablation.leave_one_out_text(), "run: scripts/series --configs"


def test_leave_one_out_changes_one_switch_a_point() -> None:
    job = load_config(ROOT / "configs" / "ablation-leave-one-out.yaml")
    full = presets.preset_values("v1")
    wanted = load_config(ROOT / "configs" / "ablation-ladder.yaml", ["policy=v1"], one_point=True)
    whole = wanted.scenario.policy.canonical()
    assert job.with_values({"policy": "v1"}).policy.canonical() == whole
    for name in job.sweep.grid["policy"]:
        other = job.with_values({"policy": name}).policy.canonical()
        changed = [key for key in whole if whole[key] != other[key]]
        need = ablation.NEEDS.get(name.split("+")[1].split("=")[0])
        assert len(changed) == 1 + (need is not None), name
        assert set(changed) <= set(full)
    assert len(job.sweep.grid["policy"]) == len(ablation.leave_one_out()) > 20


def test_both_jobs_have_the_same_world() -> None:
    one, other = (load_config(ROOT / "configs" / f"{a.name}.yaml") for a in ablation.ABLATIONS)
    mine, theirs = one.scenario.canonical(), other.scenario.canonical()
    assert [key for key in mine if mine[key] != theirs[key]] == []
    assert one.seed == other.seed
    assert mine["duration"] == 120 * 10**9


@pytest.mark.compiled
@pytest.mark.parametrize("job", ablation.ABLATIONS, ids=lambda a: a.name)
def test_a_summary_becomes_a_table(job: ablation.Ablation, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ablation, "METRICS", ("spb_tainted", "wall_time"))
    loaded = load_config(
        ROOT / "configs" / f"{job.name}.yaml", ["replicates=2", "duration=20s", "executor.kind=serial"]
    )
    done = run_sweep(loaded, tmp_path / "out", engine=ENGINE, quiet=True)
    summary = json.loads(json.dumps(ablation.summary(open_results(done.directory), job.against)))
    lines = ablation.table_lines(summary)
    assert len(lines) == 2 + summary["points"]
    assert lines[2].split("|")[1].strip() == ("`mainline`" if job.against == "previous" else "`v1`")
    assert f"{summary['points']} points, 2 replicates" in ablation.conditions(summary)
    text = page({job.name: summary})
    assert lines[-1] in text
    assert text.count("Not run yet") == 1


@pytest.mark.compiled
def test_the_full_ladder_pairs_each_step_with_what_it_leaves_off(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ablation, "METRICS", ("spb_tainted", "wall_time"))
    path = ROOT / "configs" / "ablation-full.yaml"
    job = load_config(path, ["replicates=2", "duration=20s", "executor.kind=serial"])
    assert job.sweep.grid["policy"] == ablation.full_ladder()
    done = run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    summary = json.loads(json.dumps(ablation.summary(open_results(done.directory), ablation.STEP)))
    pairs = [(step["name"], step["control"]) for step in summary["steps"]]
    assert pairs[:4] == [
        *(("v1@15", "v1@15"), ("v1@15-full", "v1@15"), ("v1@21", "v1@21"), ("v1@21-full", "v1@21")),
    ]
    lines = ablation.table_lines(summary)
    text = page({ablation.FULL_LADDER.name: summary})
    assert all(line in text for line in lines)
    assert presets.WHY_LEFT_OFF in " ".join(text.split())


def test_a_metric_that_was_given_up_leaves_the_table() -> None:
    effect = {"metric": "spb_tainted", "value": 1.0, "difference": 0.0, "low": None, "high": None}
    old = {"steps": [{"name": "a", "control": "a", "effects": [effect, {**effect, "metric": "gone"}]}]}
    assert "gone" not in ablation.table_lines(old)[0]


def _step(name: str, control: str, difference: float, low: float | None, high: float | None) -> dict:
    effect = {"metric": "spb_tainted", "difference": difference, "low": low, "high": high}
    return {"name": name, "control": control, "effects": [effect]}


def test_findings_name_what_leaves_0_out_the_greatest_first() -> None:
    steps = [
        _step("a", "a", 0.0, None, None),
        _step("b", "a", -1.0, -2.0, -0.5),
        _step("c", "b", 3.0, -1.0, 7.0),
        _step("d", "c", 8.25, 8.0, 9.0),
    ]
    told = ablation.findings({"steps": steps})
    assert told == "2 of 3 change `spb_tainted` clearly: `d` (+8.25), `b` (-1)."
    assert ablation.findings({"steps": steps[::2]}).startswith("None of 1 changes")


def test_page_names_every_patch() -> None:
    text = page({})
    for row in series.patches():
        assert f"\n| {row.patch:02} | {row.behaviour} |" in text


def test_page_is_what_its_table_says() -> None:
    text = (ROOT / "docs" / "series.md").read_text(encoding="utf-8")
    assert text == page(kept()), "run: scripts/series"
