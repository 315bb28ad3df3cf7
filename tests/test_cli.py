"""The command line: start-up cost, wrong words, exit codes, plain errors."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spbfast import cli
from spbfast.errors import InvariantError, ResultsError, SimulationError, TraceError

pytestmark = pytest.mark.shell

HEAVY = ("numba", "xarray", "dask", "distributed", "scipy", "pandas", "matplotlib", "netCDF4")


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spbfast.cli", *args], capture_output=True, text=True, cwd=cwd, check=False
    )


def call(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.main(args)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text("duration: 10s\nsweep: {grid: {policy.slab_shrink: [true, false]}}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"], ["schema"], ["explain"], ["presets"]])
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom spbfast import cli\n"
        f"try:\n    cli.main({words!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"bad = [m for m in {HEAVY!r} if m in sys.modules]\nassert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_is_quick() -> None:
    best = 9.0
    for _ in range(4):
        # Processor time: a machine that is busy with something else must not fail this.
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.5


def test_validate_imports_nothing_heavy(good: Path) -> None:
    code = (
        f"import sys\nfrom spbfast.config import load_config\nload_config({str(good)!r})\n"
        f"assert not [m for m in {HEAVY!r} if m in sys.modules]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_verb_gets_a_suggestion() -> None:
    done = run("swep")
    assert done.returncode == 2
    assert "Did you mean 'sweep'?" in done.stderr


def test_wrong_configuration_is_exit_2_without_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("duration: 10\n", encoding="utf-8")
    for verb in ("run", "sweep", "validate"):
        done = run(verb, "bad.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("bad.yaml:1:11: error: duration: 10 has no unit")
        assert "Traceback" not in done.stderr
    assert "no such file" in run("run", "none.yaml", cwd=tmp_path).stderr


def test_validate_counts_points(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["validate", str(good)], capsys)
    assert code == 0
    assert out.startswith(f"{good}: ok (2 points, 1 replicates, memory ")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ResultsError("belongs to another sweep", "results/x"), 4, "spbfast: error: results/x: belongs"),
        (SimulationError(3, "out of slots", step=9, seed=1), 3, "spbfast: error: out of slots (code 3"),
        (TraceError("no meta array", "a.npz", event=4), 2, "spbfast: error: a.npz: event 4: no meta"),
        (InvariantError("free pages", "spb 3", 4, 5), 1, "spbfast: error: free pages at spb 3: expected 4"),
    ],
)
def test_known_errors_are_one_line(
    error: Exception,
    code: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    got, _, err = call([], capsys)
    assert got == code
    assert err.startswith(text)
    assert err.count("\n") == 1


def test_unknown_errors_ask_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(cli, "app", fail)
    code, _, err = call([], capsys)
    assert code == 1
    assert "ZeroDivisionError: oops" in err
    assert "please report" in err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", fail)
    assert call([], capsys)[0] == 130


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep whose runs come from the fake engine; the working directory is its folder."""
    from tests import fake_engine

    path = tmp_path / "job.yaml"
    path.write_text(
        "duration: 4s\nreplicates: 2\nexecutor: {kind: serial}\nsweep:\n"
        "  baseline: {policy.slab_shrink: false}\n  grid: {policy.slab_shrink_target_objs: [512, 2048]}\n",
        encoding="utf-8",
    )
    monkeypatch.setitem(sys.modules, "spbfast.model.engine", fake_engine)
    monkeypatch.chdir(tmp_path)
    return path


def test_sweep_ends_with_a_report_and_a_snippet_that_works(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(["sweep", "job.yaml"], capsys)
    assert code == 0, err
    report, _, *snippet = out.splitlines()
    assert Path(report.removeprefix("report: ")).is_file()
    assert len(snippet) == 3
    exec("\n".join(line.strip() for line in snippet), {})
    assert "policy_slab_shrink_target_objs" in capsys.readouterr().out
    code, out, err = call(["sweep", "job.yaml", "--quiet"], capsys)
    assert (code, out.count("\n"), err) == (0, 1, "")
    code, out, _ = call(["compare", "results/job", "--at", "mean"], capsys)
    assert code == 0
    assert "95 % interval" in out
    assert call(["compare", "results/job", "--at", "noon"], capsys)[0] == 2
    assert call(["report", "results/job"], capsys)[0] == 0


def test_failed_points_are_exit_3(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "sweep",
        "job.yaml",
        "-o",
        "out",
        "--grid",
        "policy.slab_shrink_target_objs=666,512",
        "--no-report",
    ]
    assert call(words, capsys)[0] == 3
    code, _, err = call(["sweep", "job.yaml", "-o", "out", "--set", "seed=5"], capsys)
    assert code == 4
    assert "Traceback" not in err


def test_run_prints_a_summary_and_keeps_the_dataset(
    job: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import xarray as xr

    def run_replicate(scenario: object, seed: int, replicate: int, **options: object) -> SimpleNamespace:
        data = {"spb_tainted": np.array([1, (8, 9, 30)[replicate]]), "vmstat": np.array([[0, 5 + replicate]])}
        coords = {"time": np.array([0.0, 1.0]), "counter": np.array(["pgalloc_normal"], object)}
        facts = {"digest": "0", "demand_digest": "0", "events": 1, "wall_s": 0.1, "boot_s": 0.1}
        return SimpleNamespace(data=data, coords=coords, records={}, **facts)

    monkeypatch.setattr(sys.modules["spbfast.model.engine"], "run_replicate", run_replicate)
    words = ["run", "job.yaml", "-o", "one.nc", "--set", "policy.slab_shrink=false", "--set", "replicates=3"]
    code, out, err = call(words, capsys)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert ["spb_tainted", "8", "9", "30"] in rows
    assert ["vmstat.pgalloc_normal", "5", "6", "7"] in rows
    assert rows[-1] == ["one.nc"]
    assert xr.load_dataset("one.nc").spb_tainted.shape == (3, 2)
    assert call(["run", "job.yaml", "-o", "nowhere/one.nc"], capsys)[0] == 2


def test_version_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["version", "--json"], capsys)
    assert code == 0
    assert json.loads(out)["spbfast"] == cli.__version__
    code, out, _ = call(["explain", "policy.slab_shrink_throttle"], capsys)
    assert code == 0
    assert "v1@32" in out
    code, _, err = call(["explain", "policy.slab_shrik"], capsys)
    assert code == 2
    assert "did you mean" in err


def test_presets_show_the_ladder(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["presets", "--steps"], capsys)
    assert code == 0
    assert "v1@30     slab_shrink on" in out.splitlines()
