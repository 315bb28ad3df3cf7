"""Names of files that are no text: bytes that no encoding has, wherever names are kept and shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spbfast.results.open import open_results
from spbfast.results.records import write_run
from spbfast.sweep import run_sweep
from spbfast.sweep.run import driver
from spbfast.sweep.store.netcdf import open_as_dataset
from tests.film_tools import made_capture
from tests.page_tools import spbfast
from tests.sweep_tools import ENGINE, ROOT, make_job

pytestmark = pytest.mark.shell

ODD = os.fsdecode(b"r\xc3\xa9sum\xe9\xff")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with such a name, with a job and its results, a capture and a dump that have one, too."""
    base = tmp_path_factory.mktemp("odd") / ODD
    base.mkdir()
    job = make_job(base, replicates=2)
    Path(job.path).rename(base / f"{ODD}.yaml")
    made_capture(base / f"{ODD}.spbcap", "before", "after")
    (base / f"{ODD}.txt").write_text("Node 0, zone   Normal      1      2      3\n")
    return base


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    real = driver.run_sweep
    monkeypatch.setattr(driver, "run_sweep", lambda *args, **rest: real(*args, **rest, engine=ENGINE))
    return home


SWEEP = ["sweep", f"{ODD}.yaml", "-o", f"out{ODD}", "--set", "executor.kind=serial"]
COMMANDS = (
    ["sweep", f"{ODD}.yaml", "-o", f"out{ODD}", "--set", "executor.kind=serial"],
    [
        "sweep",
        f"{ODD}.yaml",
        "-o",
        f"out{ODD}",
        "--set",
        "executor.kind=serial",
        "--set",
        "replicates=3",
        "--no-report",
    ],
    ["status", f"out{ODD}"],
    ["status", f"out{ODD}", "--json"],
    ["ls", "."],
    ["ls", ".", "--json"],
    ["consolidate", f"out{ODD}"],
    ["report", f"out{ODD}"],
    ["plot", f"out{ODD}", "--metric", "tainted_end", "-o", f"{ODD}.png"],
    ["plot", f"out{ODD}", "--metric", "tainted_end", "-o", f"{ODD}.svg"],
    ["compare", f"out{ODD}", "--metric", "tainted_end"],
    ["compare", f"out{ODD}/results.nc", "--metric", "tainted_end"],
    ["watch", f"out{ODD}"],
    ["export", f"out{ODD}", "--csv", "-o", f"{ODD}.csv"],
    ["export", f"out{ODD}", "--parquet", "-o", f"{ODD}.parquet"],
    ["export", f"out{ODD}", "--zarr", "-o", f"{ODD}.zarr"],
    ["resume", f"out{ODD}", "--no-report"],
    ["doctor", f"out{ODD}"],
    ["validate", f"{ODD}.yaml"],
    ["read", f"{ODD}.txt"],
    ["read", f"{ODD}.txt", "--json"],
    ["map", f"{ODD}.spbcap", "-o", f"{ODD}.html"],
    ["map", f"{ODD}.spbcap", "--png", f"{ODD}.png"],
    ["diagnose", f"{ODD}.txt"],
    ["init", f"new{ODD}.yaml"],
)


def test_files_and_directories_with_such_names_do_what_others_do(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in COMMANDS:
        monkeypatch.setattr("sys.argv", ["spbfast", *words])
        code, said = spbfast(words)
        assert "Traceback" not in said, (words, said)
        assert code == 0, (words, said)


WRONG = (
    ["run", ODD],
    ["sweep", f"{ODD}.yaml", "--set", f"name={ODD}"],
    ["validate", f"{ODD}.yaml", "--set", f"{ODD}=1"],
    ["validate", f"{ODD}.yaml", "--set", f"policy={ODD}"],
    ["validate", f"{ODD}.yaml", "--set", f"machine.from={ODD}"],
    ["validate", f"{ODD}.yaml", "--set", f"start.state={ODD}"],
    ["validate", f"{ODD}.yaml", "--set", f"sweep.points_file={ODD}"],
    ["validate", f"{ODD}.yaml", "--set", "sweep={points: [{policy: " + ODD + "}]}"],
    ["explain", ODD],
    ["presets", "--policy", ODD],
    [ODD],
    ["report", "out", f"--{ODD}"],
    ["status", ODD],
    ["compare", ODD],
    ["compare", f"out{ODD}", "--metric", ODD],
    ["compare", f"out{ODD}", "--by", ODD],
    ["compare", f"out{ODD}", "--at", ODD],
    ["plot", f"out{ODD}", "--metric", ODD],
    ["plot", f"out{ODD}", "-o", f"x.{ODD}"],
    ["knee", f"out{ODD}", "--over", ODD],
    ["rerun", f"out{ODD}", ODD],
    ["map", f"out{ODD}", "--point", ODD],
    ["map", f"{ODD}.spbcap", "--png", f"x.{ODD}"],
    ["map", f"{ODD}.spbcap", "--png", "x.png", "--frame", ODD],
    ["replay", ODD],
    ["replay", f"{ODD}.txt", "--policy", ODD],
    ["replay", f"{ODD}.txt", "--size", ODD],
    ["fit", ODD],
    ["fit", f"{ODD}.txt", "-o", f"{ODD}.yaml"],
    ["diagnose", ODD],
    ["verify", ODD],
    ["verify", f"{ODD}.txt"],
    ["records", ODD],
    ["export", f"out{ODD}", "--csv", "--variable", ODD],
    ["init", "x.yaml", "--template", ODD],
    ["doctor", ODD],
    ["bench", "--against", ODD],
)


def test_what_is_kept_says_the_name_as_codes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["spbfast", *SWEEP])
    directory = here / f"out{ODD}"
    assert spbfast(SWEEP)[0] == 0
    known = b"r\xc3\xa9sum\\udce9\\udcff.yaml"
    assert known in (directory / "report.html").read_bytes()
    assert json.loads((directory / "manifest.json").read_text())["config_path"].endswith(f"{ODD}.yaml")
    ds = open_results(directory)
    assert known.decode() in ds.attrs["history"]
    write_run(here / f"{ODD}.nc", ds)
    with open_as_dataset(here / f"{ODD}.nc") as again:
        assert again.sizes == ds.sizes


def test_wrong_words_that_are_no_text_are_told_as_others_are(here: Path) -> None:
    for words in WRONG:
        code, said = spbfast(words)
        assert "Traceback" not in said, (words, said)
        assert "internal error" not in said, (words, said)
        assert code in (2, 4), (words, code, said)


@pytest.mark.parametrize("words", [["export", "--csv"], ["compare", "--metric", "tainted_end"]], ids=" ".join)
def test_names_outside_ascii_in_a_locale_that_has_nothing_else(tmp_path: Path, words: list[str]) -> None:
    home = tmp_path / "\xe9\xb5"
    home.mkdir()
    run_sweep(make_job(home, replicates=1), home / "\xfcber", engine=ENGINE, quiet=True)
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "spbfast.cli", words[0], home / "\xfcber", *words[1:]],
        env={**os.environ, **bare, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
