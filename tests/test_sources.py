"""Runs remember the kernels that made them, and different ones are not mixed unawares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spbfast.cli.repair import check_directory
from spbfast.errors import ResultsError
from spbfast.jit import sources
from spbfast.results.caveats import caveats
from spbfast.results.open import open_results
from spbfast.sweep import run_sweep
from spbfast.sweep.store import origins, shards
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

OTHER = 0xFEED_0000_0000_0001


@pytest.fixture
def other_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the kernels' sources are different ones."""
    for module in (origins, shards):
        monkeypatch.setattr(module, "kernel_hash", lambda: OTHER)


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A directory with one replicate of three."""
    run_sweep(make_job(tmp_path, "replicates=1"), tmp_path / "out", engine=ENGINE, quiet=True)
    return tmp_path


def again(folder: Path, **options: object) -> Path:
    outcome = run_sweep(make_job(folder), folder / "out", engine=ENGINE, quiet=True, **options)
    return Path(outcome.directory)


def test_every_run_says_whose_it_is(half: Path) -> None:
    made = open_results(again(half))["source_hash"].values
    assert made.dtype == np.uint64
    assert set(made.ravel().tolist()) == {sources.kernel_hash()}
    assert not caveats(open_results(half / "out"))


def test_any_change_of_a_kernel_gives_another_hash(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "x.py"
    path.write_text("a = 1\n")
    before = sources.hash_sources(tmp_path).digest()
    path.write_text("a = 2\n")
    assert sources.hash_sources(tmp_path).digest() != before


def test_other_sources_are_refused_and_nothing_changes(half: Path, other_kernels: None) -> None:
    files = {p: p.read_bytes() for p in (half / "out").rglob("*") if p.is_file() and p.parent.name != "logs"}
    with pytest.raises(ResultsError, match="other sources of the kernels .* --allow-changed-sources"):
        again(half)
    assert {p: p.read_bytes() for p in files} == files


def test_where_nothing_is_left_to_do_nothing_is_refused(half: Path, other_kernels: None) -> None:
    outcome = run_sweep(make_job(half, "replicates=1"), half / "out", engine=ENGINE, quiet=True)
    assert outcome.exit_code == 0


def test_mixed_sources_are_told_everywhere(half: Path, other_kernels: None) -> None:
    directory = again(half, allow_changed_sources=True)
    ds = open_results(directory)
    assert set(ds["source_hash"].values.ravel().tolist()) == {sources.kernel_hash(), OTHER}
    (text,) = caveats(ds)
    assert "2 different sources of the kernels" in text
    assert f"{OTHER:016x}" in text
    (found,) = [finding for finding in check_directory(directory) if finding.what == "sources"]
    assert "2 different sources" in found.text


def test_a_shard_without_a_journal_says_it_as_well(half: Path, other_kernels: None) -> None:
    (half / "out" / "journal.jsonl").unlink()
    with pytest.raises(ResultsError, match="other sources"):
        again(half)


def test_runs_from_before_there_was_a_hash_go_on(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again(half)
    with monkeypatch.context() as patch:
        patch.setattr(origins, "kernel_hash", lambda: 0)
        assert origins.sources_of([0, 0]) == origins.UNKNOWN
    assert origins.other_sources([origins.UNKNOWN, origins.sources_here()]) == []
