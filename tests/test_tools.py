"""Tools for results directories: status, ls, resume, rerun, consolidate, export, doctor, sensitivity."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spbfast
from spbfast import cli
from spbfast.cli.doctor import BAD, CAUTION, GOOD, check_installation, worst
from spbfast.cli.repair import check_directory, repair_directory
from spbfast.config import load_config
from spbfast.errors import ResultsError
from spbfast.results.export import export_results, table
from spbfast.results.open import open_results
from spbfast.results.sensitivity import sensitivity
from spbfast.sweep import results_digest, run_sweep
from spbfast.sweep.run.rerun import rerun
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.inputs import load_stored
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_netcdf
from spbfast.sweep.store.view import _eta, find_directories, look
from tests import fake_engine
from tests.damage_tools import make_old
from tests.sweep_tools import ENGINE, ROOT, make_job, write_job

pytestmark = pytest.mark.shell

POISON = "sweep: {grid: {policy.slab_shrink_target_objs: [512, 666]}}\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    return run_sweep(make_job(directory), directory / "out", engine=ENGINE, quiet=True).directory


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A directory of one's own to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    return run_sweep(make_job(tmp_path, sweep=POISON), tmp_path / "bad", engine=ENGINE, quiet=True).directory


def call(args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "spbfast.model.engine", fake_engine)
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    read = capsys.readouterr()
    return int(caught.value.code or 0), read.out, read.err


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


# -- status and ls ---------------------------------------------------------------------------------------


def test_status_of_a_finished_sweep(finished: Path) -> None:
    before = tree(finished)
    found = look(finished)
    assert (found.state, found.runs, found.ok, found.failed, found.missing) == ("finished", 15, 15, 0, 0)
    assert tree(finished) == before


def test_the_time_left_is_the_drivers_and_shrinks_with_what_is_missing(out: Path) -> None:
    """Since the start kernels may have been compiled, so the clock alone says too much."""
    store = Store(out)
    told = {"state": "running", "total": 15, "missing": 10, "eta_s": 100.0}
    store.status_path.write_text(json.dumps(told))
    assert _eta(store, 11, 4, 15) == 40.0
    assert _eta(store, 11, 4, 16) != 40.0
    store.status_path.write_text(json.dumps(told | {"state": "stopped"}))
    assert _eta(store, 11, 4, 15) != 40.0


def test_status_names_failures_and_how_to_look_at_them(
    poisoned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = call(["status", str(poisoned)], capsys, monkeypatch)
    assert code == 0
    assert "3 of 6 runs ok (100 %), 3 failed, 0 missing" in text
    assert "SimulationError: no page left for <kernel> & co" in text
    command = next(line.split(None, 1)[1] for line in text.splitlines() if line.startswith("  rerun"))
    code, text, err = call(command.split()[1:], capsys, monkeypatch)
    assert code == 0
    assert "failed: SimulationError: no page left" in text
    assert text.endswith("the same as stored\n")
    assert "Traceback" in err


def test_status_while_a_sweep_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_job(tmp_path, replicates=20)
    env = os.environ | {"SPBFAST_FAKE_SLEEP": "0.2", "PYTHONPATH": str(ROOT)}
    code = (
        "import sys\nfrom tests import fake_engine\nsys.modules['spbfast.model.engine'] = fake_engine\n"
        "from spbfast.cli import main\nmain(sys.argv[1:])\n"
    )
    words = [
        "sweep",
        str(config),
        "-o",
        "run",
        "--set",
        "executor.kind=serial",
        "--set",
        "executor.batch=1",
        "-q",
    ]
    driver = subprocess.Popen([sys.executable, "-c", code, *words], cwd=tmp_path, env=env)
    try:
        deadline = time.monotonic() + 30
        while len(list((tmp_path / "run").glob("shards/??/*.nc"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = look(tmp_path / "run")
        assert found.state == "running"
        assert 3 <= found.ok < 100
        assert f"process {driver.pid}" in found.driver
    finally:
        driver.kill()
        driver.wait()
    found = look(tmp_path / "run")  # at once: the process is known to be gone
    assert found.state == "stopped"
    assert f"process {driver.pid}" in found.driver
    assert "died without a word" in found.driver
    assert found.eta_s is None
    lock = next((tmp_path / "run").glob("lock*"))
    elsewhere = {**json.loads(lock.read_text()), "world": "another machine", "host": "elsewhere"}
    lock.write_text(json.dumps(elsewhere))
    assert look(tmp_path / "run").state == "running"
    old = time.time() - 1000
    os.utime(lock, (old, old))
    assert look(tmp_path / "run").state == "silent"


def test_ls_finds_directories(
    out: Path, poisoned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(find_directories(out.parent)) == [poisoned, out]
    code, text, _ = call(["ls", str(out.parent)], capsys, monkeypatch)
    assert code == 0
    assert [line.split()[1:6] for line in text.splitlines()[1:]] == [
        ["finished", "2", "6", "3", "3"],
        ["finished", "5", "15", "15", "0"],
    ]
    code, text, _ = call(["ls", str(out.parent), "--json"], capsys, monkeypatch)
    assert [r["ok"] for r in json.loads(text)] == [3, 15]


# -- resume and rerun ------------------------------------------------------------------------------------


def test_a_directory_alone_is_enough_to_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "configs"
    (home / "base").mkdir(parents=True)
    (home / "base" / "b.yaml").write_text("duration: 5s\nexecutor: {kind: serial}\n")
    (home / "points.csv").write_text("policy.slab_shrink_target_objs\n512\n1024\n2048\n")
    (home / "j.yaml").write_text("extends: base/b.yaml\nname: j\nsweep: {points_file: points.csv}\n")
    job = load_config(home / "j.yaml", ["seed=3"], grid=["policy.evacuate=true,false"])
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0.5")
    outcome = run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True, time_limit_s=2)
    assert outcome.n_ok < 6
    assert outcome.resume_command == f"spbfast resume {tmp_path / 'out'}"
    monkeypatch.setenv("SPBFAST_FAKE_SLEEP", "0")
    shutil.rmtree(home)
    assert load_stored(tmp_path / "out").scenario == job.scenario
    code, _, err = call(["resume", str(tmp_path / "out"), "--no-report"], capsys, monkeypatch)
    assert code == 0, err
    assert look(tmp_path / "out").ok == 6
    code, _, err = call(["resume", str(tmp_path / "none")], capsys, monkeypatch)
    assert code == 4
    assert "no config.yaml" in err


def test_every_stored_run_gives_the_same_bits_again(finished: Path) -> None:
    before = tree(finished)
    for point in open_results(finished).point_id.values:
        for replicate in range(3):
            found = rerun(finished, str(point), replicate, engine=ENGINE)
            assert found.same is True, found.differences
    assert tree(finished) == before


def test_a_difference_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = str(open_results(out).point_id.values[1])
    original = fake_engine.run_replicate

    def other(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        result.data["spb_tainted"][4] += 1
        result.digest = "00000000000000aa"
        return result

    monkeypatch.setattr(fake_engine, "run_replicate", other)
    found = rerun(out, point[:6], engine=ENGINE)
    assert found.same is False
    assert found.differences[0].endswith("stored, 00000000000000aa now")
    assert any(
        line.startswith("spb_tainted: 1 values differ, first at time=4.0: ") for line in found.differences
    )


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("xyz", "is no point id"),
        ("", "is no point id"),
        ("0123456789abcdef0", "is no point id"),
        ("0000000000000001", "has no point 0000000000000001; it has 5, such as"),
        ("{id}:9", "there is no replicate 9; there are 0..2"),
        ("{id}:x", "there is no replicate -1"),
    ],
)
def test_points_that_are_not_there(finished: Path, point: str, message: str) -> None:
    first = str(open_results(finished).point_id.values[0])
    with pytest.raises(ResultsError, match=message):
        rerun(finished, point.format(id=first), engine=ENGINE)


def test_another_model_version_is_not_rerun(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_engine, "MODEL_VERSION", 2)
    with pytest.raises(ResultsError, match=r"model version 1 and this is version 2; install spbfast 0\.1\.0"):
        rerun(out, "0", engine=ENGINE)


def test_results_of_another_configuration_language_are_not_rerun(out: Path) -> None:
    make_old(out / "points.nc")
    with NETCDF_LOCK, open_netcdf(out / "points.nc", "a") as nc:
        nc["point_id"][:] = np.arange(1, 6, dtype="u8")
    with pytest.raises(ResultsError, match=r"made by spbfast 0\.1\.0.* reads config\.yaml as other points"):
        rerun(out, "0", engine=ENGINE)


# -- consolidate, chunks, export -------------------------------------------------------------------------


def test_consolidate_makes_results_nc(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = results_digest(out)
    (out / "results.nc").unlink()
    with pytest.raises(ResultsError, match="spbfast consolidate"):
        open_results(out, chunks={})
    code, text, _ = call(["consolidate", str(out)], capsys, monkeypatch)
    assert (code, text) == (0, f"{out / 'results.nc'}\n")
    assert results_digest(out) == digest


def test_chunks_are_lazy_and_safe_on_threads(finished: Path) -> None:
    import dask

    whole = open_results(finished)
    with open_results(finished, chunks={}) as ds:
        assert ds.spb_tainted.chunks is not None
        with dask.config.set(scheduler="threads", num_workers=8):
            for _ in range(5):
                parts = dask.compute(*(ds[n].sum() for n in ds.data_vars))
                assert float(parts[0]) == float(whole[next(iter(ds.data_vars))].sum())
                xr.testing.assert_equal(ds.compute(), whole)


@pytest.mark.filterwarnings("error")
def test_zarr_holds_the_same(finished: Path, tmp_path: Path) -> None:
    path = export_results(finished, "zarr", tmp_path / "r.zarr")
    with xr.open_zarr(path) as ds, open_results(finished, load=True) as whole:
        xr.testing.assert_equal(ds.compute(), whole)
        assert ds.attrs["config_yaml"] == whole.attrs["config_yaml"]
    with pytest.raises(ResultsError, match="exists"):
        export_results(finished, "zarr", tmp_path / "r.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["r.zarr"]


def test_tables(finished: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    ds = open_results(finished)
    frame = pandas.read_csv(export_results(finished, "csv", tmp_path / "r.csv"), dtype={"point_id": str})
    assert len(frame) == 15
    np.testing.assert_array_equal(frame.tainted_end, ds.tainted_end.values.ravel())
    assert frame.point_id[0] == ds.point_id.values[0]
    assert frame.policy_slab_shrink_throttle[3] == 0.05
    long = table(ds, ["free_pages"])
    assert len(long) == 15 * 3 * 13
    assert {"migratetype", "time", "free_pages"} <= set(long.columns)
    with pytest.raises(ResultsError, match="have different labels"):
        table(ds, ["free_pages", "vmstat"])
    with pytest.raises(ResultsError, match="no variable 'nope'"):
        export_results(finished, "csv", tmp_path / "x.csv", ["nope"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.csv"]


def test_parquet(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    frame = pd.read_parquet(export_results(finished, "parquet", tmp_path / "r.parquet"))
    assert frame.tainted_end.tolist() == open_results(finished).tainted_end.values.ravel().tolist()


# -- doctor ----------------------------------------------------------------------------------------------


def test_this_installation_is_in_order() -> None:
    findings = list(check_installation())
    assert worst(findings) in (GOOD, CAUTION), "\n".join(map(str, findings))
    assert {"packages", "kernel cache", "processors", "memory", "netCDF"} <= {f.what for f in findings}


def test_a_sound_directory_is_found_sound_and_left_alone(out: Path) -> None:
    before = tree(out)
    findings = list(check_directory(out))
    assert worst(findings) == GOOD, "\n".join(map(str, findings))
    assert tree(out) == before


def test_repair_sets_a_spoilt_directory_right(out: Path) -> None:
    digest = results_digest(out)
    lost = json.loads((out / "journal.jsonl").read_text().splitlines()[-1])["batch"]
    shards = sorted(p for p in out.glob("shards/??/*.nc") if p.stem != lost)
    shards[0].write_bytes(b"rubbish")
    text = (out / "journal.jsonl").read_text()
    (out / "journal.jsonl").write_text("".join(text.splitlines(True)[:-1]) + '{"batch": "torn')
    (out / "results.nc").unlink()
    (out / "shards" / f".x.nc.host.1.{'0' * 32}.tmp").write_text("half")
    findings = list(check_directory(out))
    assert {f.what for f in findings if f.level == BAD} == {"shards"}
    assert {f.what for f in findings if f.level == CAUTION} >= {"journal", "leftovers", "results.nc"}
    done = repair_directory(out)
    assert any("set" in line and "aside" in line for line in done)
    after = list(check_directory(out))
    assert {f.what for f in after if f.level != GOOD} == {"set aside"}, "\n".join(map(str, after))
    assert shards[0].with_suffix(".unreadable").read_bytes() == b"rubbish"
    assert list(out.glob("journal.jsonl.old*"))
    assert lost in {r["batch"] for r in Store(out).receipts()}
    with pytest.warns(UserWarning, match="missing"):
        ds = open_results(out)
    missing = int((ds.status == 5).sum())
    job = load_stored(out)
    assert run_sweep(job, out, engine=ENGINE, quiet=True).n_new == missing > 0
    assert results_digest(out) == digest
    assert repair_directory(out) == [f"wrote {out / 'results.nc'}"]


def test_doctor_on_the_command_line(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, _ = call(["doctor", str(out), "--json"], capsys, monkeypatch)
    assert code == 0
    assert {"what", "level", "text", "advice"} == set(json.loads(text)[0])
    min(out.glob("shards/??/*.nc")).write_bytes(b"rubbish")
    assert call(["doctor", str(out)], capsys, monkeypatch)[0] == 5
    assert call(["doctor", str(out), "--repair"], capsys, monkeypatch)[0] == 0
    assert call(["doctor", "--repair"], capsys, monkeypatch)[0] == 2
    assert call(["doctor", str(tmp_path)], capsys, monkeypatch)[0] == 4


# -- sensitivity -----------------------------------------------------------------------------------------

DESIGN = """\
sweep:
  baseline: {policy.slab_shrink: false}
  design:
    kind: KIND
    samples: 32
    ranges:
      policy.slab_shrink_throttle: {min: 1ms, max: 20s}
      policy.slab_shrink_target_objs: {min: 700, max: 9000}
      policy.evacuate: [true, false]
"""


@pytest.mark.parametrize("kind", ["saltelli", "morris"])
def test_sensitivity_finds_what_matters(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("SALib")
    job = make_job(tmp_path, sweep=DESIGN.replace("KIND", kind), replicates=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are equal to another point")
        run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    found = sensitivity(tmp_path / "out", "tainted_end")
    strength = found["total_order" if kind == "saltelli" else "mu_star"].values
    assert abs(strength[2]) < 1e-9 < min(strength[:2])
    code, text, _ = call(["sensitivity", str(tmp_path / "out"), "--json"], capsys, monkeypatch)
    assert code == 0
    assert list(json.loads(text)["parameters"]) == list(job.ranges)
    assert call(["sensitivity", str(tmp_path / "out")], capsys, monkeypatch)[0] == 0


def test_sensitivity_needs_its_design(finished: Path) -> None:
    with pytest.raises(ResultsError, match="no design of kind saltelli or morris"):
        sensitivity(finished)


def test_public_names_open_results() -> None:
    assert spbfast.open_results is open_results
