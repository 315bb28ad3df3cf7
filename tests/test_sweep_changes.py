"""What changes between two starts of a sweep: fewer replicates or points than the directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spbfast.results.open import open_results
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.run.progress import Progress
from spbfast.sweep.store.inputs import load_stored
from spbfast.sweep.store.shards import MISSING, OK, UNNEEDED
from spbfast.sweep.store.view import look
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell


class Heard(Progress):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def go(directory: Path, *overrides: str, engine: str = ENGINE, **options: Any) -> tuple[Any, str]:
    """A sweep in `out`, and what it said."""
    settings = {k: options.pop(k) for k in ("sweep", "replicates", "duration") if k in options}
    heard = Heard()
    job = make_job(directory, *overrides, **settings)
    outcome = run_sweep(job, directory / "out", engine=engine, progress=heard, **options)
    return outcome, "\n".join(heard.lines)


def grid(*throttles: str) -> str:
    return f"sweep: {{grid: {{policy.slab_shrink_throttle: [{', '.join(throttles)}]}}}}\n"


# -- fewer replicates, fewer points ----------------------------------------------------------------


def test_fewer_replicates_leave_results_as_large_as_they_were(tmp_path: Path) -> None:
    go(tmp_path, replicates=4)
    digest = results_digest(tmp_path / "out")
    outcome, said = go(tmp_path, replicates=2)
    assert (outcome.exit_code, outcome.n_new, outcome.n_missing) == (0, 0, 0)
    assert "10 finished runs of further replicates are here and stay in results.nc" in said
    assert open_results(tmp_path / "out").sizes["replicate"] == 4
    assert results_digest(tmp_path / "out") == digest
    assert look(tmp_path / "out").state == "finished"
    outcome, said = go(tmp_path, replicates=4)
    assert (outcome.n_new, "further replicates" in said) == (0, False)
    assert results_digest(tmp_path / "out") == digest


def test_resume_with_fewer_replicates_keeps_them_too(tmp_path: Path) -> None:
    go(tmp_path, replicates=3)
    job = load_stored(tmp_path / "out", ["replicates=1"])
    assert run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).n_missing == 0
    assert open_results(tmp_path / "out").sizes["replicate"] == 3


def test_a_grown_grid_with_fewer_replicates_misses_nothing(tmp_path: Path) -> None:
    go(tmp_path, replicates=3, sweep=grid("50ms"))
    outcome, _ = go(tmp_path, replicates=1, sweep=grid("50ms", "70ms"))
    assert (outcome.exit_code, outcome.n_new, outcome.n_missing) == (0, 1, 0)
    ds = open_results(tmp_path / "out")
    assert ds.status.values.tolist() == [[OK] * 3, [OK, UNNEEDED, UNNEEDED]]
    assert (look(tmp_path / "out").state, int(ds.attrs["n_missing"])) == ("finished", 0)


def test_what_is_missing_is_counted_among_the_replicates_of_the_job(tmp_path: Path) -> None:
    go(tmp_path, replicates=3, sweep=grid("50ms"))
    go(tmp_path, replicates=2, sweep=grid("50ms", "70ms"))
    for path in (tmp_path / "out" / "shards").rglob("*.nc"):
        if path.stat().st_mtime_ns == max(p.stat().st_mtime_ns for p in path.parent.parent.rglob("*.nc")):
            path.unlink()
            break
    (tmp_path / "out" / "results.nc").unlink()
    with pytest.warns(UserWarning, match="1 are missing"):
        ds = open_results(tmp_path / "out")
    assert sorted(ds.status.values[1].tolist()) == [OK, MISSING, UNNEEDED]


def test_a_fixed_number_of_replicates_ends_the_rule_before_it(tmp_path: Path) -> None:
    rule = "replicates={min: 4, max: 9, until: {metric: tainted_end, half_width: 1000000, level: 0.9}}"
    go(tmp_path, rule, sweep=grid("50ms"))
    assert open_results(tmp_path / "out").replicates_needed.values.tolist() == [4]
    outcome, _ = go(tmp_path, replicates=5, sweep=grid("50ms"))
    assert outcome.n_new == 1
    ds = open_results(tmp_path / "out")
    assert ds.status.values.tolist() == [[OK] * 5]
    assert "replicates_needed" not in ds


def test_points_that_a_job_no_longer_has_are_said(tmp_path: Path) -> None:
    go(tmp_path, replicates=2, sweep=grid("50ms", "70ms", "90ms"))
    digest = results_digest(tmp_path / "out")
    _, said = go(tmp_path, replicates=2, sweep=grid("50ms", "70ms"))
    assert "2 finished runs belong to 1 points that this job does not have" in said
    outcome, _ = go(tmp_path, replicates=2, sweep=grid("50ms", "70ms", "90ms"))
    assert outcome.n_new == 0
    assert results_digest(tmp_path / "out") == digest
