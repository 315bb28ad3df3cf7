"""What `spbfast run -o` and --save-state write: nothing is lost, and what reads sweeps reads it, too."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from spbfast import cli
from spbfast.results.export import export_results
from spbfast.results.open import open_results
from spbfast.results.together import open_together
from spbfast.sweep import run_sweep
from spbfast.sweep.store import rescue
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

JOB = "name: one\nduration: 10ms\nseed: 7\nreplicates: 3\n"


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A job in the current directory, and an engine that notes which replicates were simulated."""
    calls: list[int] = []

    def run_replicate(scenario: Any, seed: int, replicate: int, **options: Any) -> SimpleNamespace:
        calls.append(replicate)
        if options.get("save"):
            options["save"][1](SimpleNamespace(write=lambda path: path.write_bytes(b"state") and "digest"))
        data = {"spb_tainted": np.array([1, 8 + replicate]), "vmstat": np.array([[0, 5]])}
        coords = {"time": np.array([0.0, 1.0]), "counter": np.array(["pgalloc_normal"], object)}
        facts = {"digest": f"{replicate:016x}", "demand_digest": f"{seed:016x}", "events": 3}
        return SimpleNamespace(data=data, coords=coords, records={}, wall_s=0.5, boot_s=0.1, **facts)

    import spbfast.model.engine  # noqa: F401

    monkeypatch.setattr(sys.modules["spbfast.model.engine"], "run_replicate", run_replicate)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    Path("job.yaml").write_text(JOB)
    return calls


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(words))
    return int(caught.value.code or 0)


def test_a_run_file_says_who_made_it_from_what(ran: list[int]) -> None:
    assert call("run", "job.yaml", "-o", "one.nc", "--set", "policy.slab_shrink=false") == 0
    with xr.open_dataset("one.nc") as ds:
        assert ds.attrs["config_yaml"] == JOB
        assert "policy.slab_shrink=false" in ds.attrs["overrides"]
        for name in (
            "history",
            "command",
            "created",
            "hostname",
            "git_sha",
            "spbfast_version",
            "source",
            "cpu",
        ):
            assert name in ds.attrs
        assert ds.attrs["title"] == "spbfast run one"
        assert ds["digest"].values.tolist() == [0, 1, 2]
        assert ds["seed"].values.tolist() == [7, 7, 7]
        assert ds["spb_tainted"].dims == ("replicate", "time")
        assert ds["events"].attrs["long_name"] == "page events simulated"


def test_readers_of_sweeps_read_a_run(ran: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "job.yaml", "-o", "one.nc") == 0
    assert call("run", "job.yaml", "-o", "two.nc", "--set", "policy.slab_shrink=false") == 0
    ds = open_results("one.nc")
    assert ds["spb_tainted"].dims == ("point", "replicate", "time")
    assert ds["status"].values.tolist() == [[0, 0, 0]]
    assert ds["point_id"].values.tolist() != open_results("two.nc")["point_id"].values.tolist()
    table = export_results("one.nc", "csv", "one.csv").read_text()
    assert len(table.splitlines()) == 4
    capsys.readouterr()
    assert call("compare", "one.nc", "two.nc", "--metric", "spb_tainted") == 0
    said = capsys.readouterr().out
    assert "each point against 'one.nc'" in said
    assert "two.nc" in said
    assert call("compare", "one.nc") == 2
    assert "one point only" in capsys.readouterr().err


def test_files_that_did_not_meet_the_same_demand_are_said(ran: list[int]) -> None:
    assert call("run", "job.yaml", "-o", "one.nc") == 0
    assert call("run", "job.yaml", "-o", "two.nc", "--set", "seed=8", "--set", "replicates=2") == 0
    with pytest.warns(UserWarning, match=r"two\.nc did not meet the same demand as one\.nc"):
        ds = open_together(["one.nc", "two.nc"])
    assert ds["status"].values.tolist() == [[0, 0, 0], [0, 0, 5]]


def test_a_run_and_a_sweep_lie_together_by_their_settings(ran: list[int], tmp_path: Path) -> None:
    assert call("run", "job.yaml", "-o", "one.nc") == 0
    (tmp_path / "sweep").mkdir()
    run_sweep(make_job(tmp_path / "sweep"), "out", engine=ENGINE, quiet=True)
    ds = open_together(["one.nc", "out"])
    assert ds["file"].values.tolist() == ["one.nc", *["out"] * 5]
    assert ds["is_baseline"].values.tolist() == [True, *[False] * 5]
    assert ds["setting"].values[0] == "as configured"
    assert len(set(ds["setting"].values.tolist())) == 6


def test_two_sweeps_are_compared_setting_by_setting(
    ran: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    for name in ("a", "b"):
        run_sweep(make_job(tmp_path / "sweep"), name, engine=ENGINE, quiet=True)
    ds = open_together(["a", "b"])
    assert ds.sizes["point"] == 10
    assert "setting" not in ds.coords
    capsys.readouterr()
    assert call("compare", "a", "b", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["metrics"]["spb_tainted"]
    assert {row["file"] for row in rows} == {"b"}
    assert len(rows) == 5
    assert all(row["difference"] == row["ci_low"] == row["ci_high"] == 0 for row in rows)
    assert call("compare", "a", "b") == 0
    nr = len(rows)
    assert f"spb_tainted: of {nr} points, the same in every replicate in {nr}" in capsys.readouterr().out
    assert call("compare", "a", "a") == 4
    assert "a: is given twice" in capsys.readouterr().err


def test_presets_are_no_results(ran: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", "v1@30", "v2") == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "v1@30 is a preset, not results" in said
    assert "--grid policy.preset=v1@30,v2" in said


def test_an_old_run_file_without_facts_opens(ran: list[int]) -> None:
    ds = xr.Dataset(
        {"spb_tainted": (("replicate", "time"), np.ones((2, 3), np.int64))},
        coords={"replicate": [0, 1], "time": [0.0, 1.0, 2.0]},
        attrs={"seed": 1, "model_version": 3, "digest": "a,b"},
    )
    ds.to_netcdf("old.nc")
    assert open_results("old.nc")["spb_tainted"].shape == (1, 2, 3)


@pytest.mark.parametrize("option", ["-o", "--save-state"])
@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("folder", 2, "is a directory; give the name of a file"),
        ("/dev/null", 2, "is a device"),
        ("pipe", 2, "is a named pipe"),
        ("dangling", 2, "is a link to nothing, which does not exist"),
        ("/proc/one.nc", 5, "cannot write"),
        ("n" * 300, 5, "File name too long"),
        ("nowhere/one.nc", 2, "does not exist"),
        ("job.yaml/one.nc", 2, "Not a directory"),
        ("./job.yaml", 2, "is the configuration"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_the_run(
    ran: list[int], capsys: pytest.CaptureFixture[str], option: str, place: str, code: int, words: str
) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    os.symlink("nothing", "dangling")
    assert call("run", "job.yaml", "--set", "replicates=1", option, place) == code
    assert words in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert ran == []
    assert os.path.exists("/dev/null")
    assert not os.path.isfile("/dev/null")


def _full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_found_before_the_run(
    ran: list[int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescue, "_flush", _full)
    assert call("run", "job.yaml", "-o", "one.nc") == 5
    assert "no space left" in capsys.readouterr().err
    assert ran == []
    assert [p.name for p in Path().iterdir() if p.suffix == ".tmp"] == []


def test_results_go_elsewhere_when_the_disk_fills_during_the_run(
    ran: list[int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from spbfast.sweep.store import atomic

    real = os.replace

    def replace(source: Any, target: Any) -> None:
        real(source, target) if "temporary" in str(target) else _full()

    monkeypatch.setattr(atomic.os, "replace", replace)
    assert call("run", "job.yaml", "-o", "one.nc") == 5
    said = capsys.readouterr().err
    (kept,) = (tmp_path / "temporary").glob("one-*.nc")
    assert "no space left on the disk; free some and give the same command again" not in said
    assert f"the results are in {kept}" in said
    assert open_results(kept)["spb_tainted"].shape == (1, 3, 2)


def test_a_state_goes_elsewhere_too_and_the_run_goes_on(
    ran: list[int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from spbfast.sweep.store import atomic

    real = os.replace

    def replace(source: Any, target: Any) -> None:
        _full() if Path(target).name == "x.state" else real(source, target)

    monkeypatch.setattr(atomic.os, "replace", replace)
    words = ["run", "job.yaml", "--set", "replicates=1", "--save-state", "x.state", "-o", "one.nc"]
    assert call(*words) == 5
    (kept,) = (tmp_path / "temporary").glob("x-*.state")
    assert f"the state is in {kept}" in capsys.readouterr().err
    assert open_results("one.nc").sizes["replicate"] == 1


def test_results_are_safe_before_they_are_printed(ran: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from spbfast.cli.streams import LostOutputError

    def echo(*_: Any, **__: Any) -> None:
        raise LostOutputError(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    monkeypatch.setattr("spbfast.cli.running.typer.echo", echo)
    assert call("run", "job.yaml", "-o", "one.nc") == 141
    assert open_results("one.nc").sizes["replicate"] == 3


@pytest.mark.parametrize("words", [("bench", "--save"), ("replay", "job.yaml", "-o")])
def test_other_commands_that_take_long_try_their_place_first(
    ran: list[int], capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert call(*words, "/dev/null") == 2
    assert "is a device" in capsys.readouterr().err
