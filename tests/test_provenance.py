"""Provenance is only ever added to: what made results stays written, whatever is done with them later."""

from __future__ import annotations

import os
import re
import shlex
import sys
from html import unescape
from pathlib import Path

import pytest

from spbfast import cli
from spbfast.results.open import open_results
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.consolidate import results_digest

pytestmark = pytest.mark.shell

JOB = (
    "name: prov\nextends: base.yaml\nexecutor: {kind: serial}\n"
    "sweep:\n  baseline: {policy.slab_shrink: false}\n"
    "  grid: {policy.slab_shrink_target_objs: [512, 2048]}\n"
)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tests import fake_engine

    (tmp_path / "base.yaml").write_text("duration: 4s\nreplicates: 2\n", encoding="utf-8")
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    monkeypatch.setitem(sys.modules, "spbfast.model.engine", fake_engine)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "prov"


def spbfast(monkeypatch: pytest.MonkeyPatch, line: str, code: int = 0) -> None:
    words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", ["spbfast", *words])
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert int(end.value.code or 0) == code


def records(directory: Path) -> dict[str, bytes]:
    """Everything that says where the results come from, and the report."""
    names = ("manifest.json", "points.nc", "report.html")
    paths = [*directory.glob("config.*"), *(directory / name for name in names)]
    return {path.name: path.read_bytes() for path in paths}


def written_command(directory: Path) -> str:
    """The command that the report tells a reader to give."""
    text = (directory / "report.html").read_text(encoding="utf-8")
    found = re.search(r"These results were made by</p>\s*<pre>(.*?)</pre>", text, re.S)
    assert found
    return unescape(found[1]).strip()


@pytest.mark.parametrize(
    "again", ["resume results/prov", "sweep job.yaml", "resume results/prov --retry-failed"]
)
def test_with_nothing_to_do_every_record_stays(
    job: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    spbfast(monkeypatch, "sweep job.yaml")
    before, history = records(job), open_results(job).attrs["history"]
    spbfast(monkeypatch, again)
    assert records(job) == before
    assert open_results(job).attrs["history"] == history


def test_the_written_command_makes_the_results_again(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spbfast(monkeypatch, "sweep job.yaml --set seed=5")
    spbfast(monkeypatch, "resume results/prov")
    (job / "report.html").unlink()
    spbfast(monkeypatch, "report results/prov")
    verb, line = written_command(job).split(" ", 1)
    assert verb == "spbfast"
    spbfast(monkeypatch, f"{line} -o again")
    assert results_digest("again") == results_digest(job)


def test_from_another_folder_too(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spbfast(monkeypatch, "sweep job.yaml")
    before = records(job)
    os.chdir(job.parent)
    spbfast(monkeypatch, "resume prov")
    assert records(job) == before


def test_a_grown_sweep_keeps_what_was_before(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spbfast(monkeypatch, "sweep job.yaml")
    first = read_json(job / "manifest.json")
    Path("job.yaml").write_text(JOB.replace("2048", "2048, 4096"), encoding="utf-8")
    spbfast(monkeypatch, "sweep job.yaml --set replicates=3")
    grown = read_json(job / "manifest.json")
    assert grown["created"] == first["created"]
    assert grown["history"][0] == first["history"][0]
    assert [entry["command"] for entry in grown["history"]] == [
        "spbfast sweep job.yaml",
        "spbfast sweep job.yaml --set replicates=3",
    ]
    assert [entry["config"] for entry in grown["history"]] == [JOB, JOB.replace("2048", "2048, 4096")]
    assert open_results(job).attrs["history"].count("\n") == 1
    assert "started again" in (job / "report.html").read_text(encoding="utf-8")
    assert written_command(job) == "spbfast sweep job.yaml --set replicates=3"


def test_a_resumed_sweep_still_names_the_job_that_was_given(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy in the directory has no base beside it; a command that names it would fail."""
    spbfast(monkeypatch, "sweep job.yaml")
    spbfast(monkeypatch, "resume results/prov --set replicates=3")
    assert read_json(job / "manifest.json")["config_path"] == "job.yaml"
    verb, line = written_command(job).split(" ", 1)
    spbfast(monkeypatch, f"{line} -o again")
    assert results_digest("again") == results_digest(job)


def test_a_directory_from_before_there_was_a_history(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    spbfast(monkeypatch, "sweep job.yaml")
    old = read_json(job / "manifest.json")
    for later in ("history", "digest"):
        old.pop(later)
    (job / "manifest.json").write_text(json.dumps(old))
    spbfast(monkeypatch, "report results/prov")
    spbfast(monkeypatch, "resume results/prov --set replicates=3")
    assert [e["command"] for e in read_json(job / "manifest.json")["history"]] == [
        "spbfast sweep job.yaml",
        "spbfast resume results/prov --set replicates=3",
    ]
