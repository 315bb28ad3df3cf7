"""What a sweep is said to cost beforehand, against what it does cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from spbfast import cli
from spbfast.errors import ResultsError
from spbfast.sweep import run_sweep
from spbfast.sweep.run.estimate import estimate, estimate_lines
from tests import fake_engine
from tests.sweep_tools import ENGINE, GRID, make_job

pytestmark = pytest.mark.shell

LATIN = (
    "sweep: {design: {kind: random, samples: 100001, ranges: "
    "{policy.slab_shrink_throttle: {min: 0s, max: 100h}}}}\n"
)


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_new_sweep_is_measured_and_nothing_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.04")
    job = make_job(tmp_path)
    before = tree(tmp_path)
    found = estimate(job, tmp_path / "out", engine=ENGINE)
    assert tree(tmp_path) == before
    assert (found.points, found.runs, found.done, found.new) == (5, 15, 0, 15)
    assert found.run is not None
    assert "measured now on the first point" in found.run.source
    assert found.wall_s == pytest.approx(15 * found.run.seconds)
    text = "\n".join(estimate_lines(found))
    assert "root seed 7; replicate k meets the same demand" in text
    assert "policy.slab_shrink_throttle=50ms, policy.slab_shrink_target_objs=512" in text
    run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    used = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.nc"))
    assert found.disk_bytes is not None
    assert used / 3 < found.disk_bytes < 3 * used


def test_a_directory_tells_what_its_runs_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sweep(make_job(tmp_path), tmp_path / "out", engine=ENGINE, quiet=True)
    before = tree(tmp_path / "out")
    monkeypatch.setattr(fake_engine, "run_replicate", None)
    grown = GRID.replace("[512, 4096]", "[512, 1024, 4096]")
    found = estimate(make_job(tmp_path, sweep=grown), tmp_path / "out", engine=ENGINE)
    assert (found.points, found.done, found.new) == (7, 15, 6)
    assert found.run is not None
    assert found.run.source.startswith("mean of 15 runs in")
    (tmp_path / "out" / "journal.jsonl").unlink()
    assert estimate(make_job(tmp_path), tmp_path / "out", engine=ENGINE, measure=False).done == 15
    before.pop(str(tmp_path / "out" / "journal.jsonl"))
    assert tree(tmp_path / "out") == before
    with pytest.raises(ResultsError, match="root_seed: 7 there, 8 now"):
        estimate(make_job(tmp_path, seed=8), tmp_path / "out", engine=ENGINE)


def test_a_short_measurement_is_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = fake_engine.run_replicate
    seen = []

    def slow(scenario: Any, seed: int, replicate: int) -> Any:
        seen.append(scenario.duration)
        result = original(scenario, seed, replicate)
        result.boot_s = 2.0
        result.wall_s = 2.0 + 0.5 * scenario.duration / 1e9
        return result

    monkeypatch.setattr(fake_engine, "run_replicate", slow)
    found = estimate(make_job(tmp_path, duration="1000s"), tmp_path / "out", engine=ENGINE)
    assert found.run is not None
    assert found.run.seconds == pytest.approx(502.0)
    assert max(seen) < 100 * 10**9
    assert "extended to 1000s" in found.run.source


def test_large_sweeps_are_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_engine, "state_bytes", lambda scenario: 10**15)
    job = make_job(tmp_path, "executor.kind=processes", "executor.workers=2", sweep=LATIN, duration="60s")
    found = estimate(job, tmp_path / "out", engine=ENGINE)
    text = "\n".join(estimate_lines(found))
    assert "warning: 100001 points are more than 100000" in text
    assert "lower executor.workers" in text
    assert "first 5 of 100001 points:" in text


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "spbfast.model.engine", fake_engine)
    monkeypatch.chdir(tmp_path)
    make_job(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sweep", "job.yaml", "--dry-run", "--json", "--no-measure", "-o", "out"])
    assert not caught.value.code
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["run"], told["wall_s"]) == (15, None, None)
    assert not (tmp_path / "out").exists()
