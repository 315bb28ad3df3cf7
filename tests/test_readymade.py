"""Ready-made jobs and machines: found by name in a source tree and in an installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spbfast.config import load_config
from spbfast.config.readymade import job_file, ready_made_dir, ready_made_jobs
from spbfast.errors import ConfigError

pytestmark = pytest.mark.shell

ROOT = Path(__file__).resolve().parents[1]
MINE = "extends: base/devvm.yaml\nduration: 1s\n"


def test_every_job_of_the_source_tree_has_a_name() -> None:
    assert ready_made_dir() == ROOT / "configs"
    assert set(ready_made_jobs()) == {p.stem for p in (ROOT / "configs").glob("*.yaml")}
    assert {"quickstart", "devvm-burst", "tiny"} <= set(ready_made_jobs())


def test_a_job_is_found_by_its_name_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("tiny").scenario == load_config(ROOT / "configs" / "tiny.yaml").scenario
    assert load_config("devvm-burst").name == "devvm-burst"


def test_a_file_of_the_users_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("name: mine\n" + MINE, encoding="utf-8")
    assert job_file(Path("tiny")) == Path("tiny")
    assert load_config("tiny").name == "mine"
    assert job_file(Path("tiny.yaml")) == Path("tiny.yaml")  # a file name is never taken for a job's name


def test_a_machine_can_be_extended_from_anywhere(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE, encoding="utf-8")
    theirs = load_config(ROOT / "configs" / "devvm-burst.yaml")
    assert load_config(mine).scenario.machine == theirs.scenario.machine
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "devvm.yaml").write_text("nonsense: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="nonsense"):
        load_config(mine)


@pytest.mark.parametrize("given", ["../pyproject.toml", "base/../../pyproject.toml", "/etc/hostname"])
def test_nothing_else_can_be_extended(tmp_path: Path, given: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {given}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="relative path"):
        load_config(mine)


def test_a_misspelt_name_gets_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such file.*did you mean 'quickstart'"):
        load_config("quikstart")


@pytest.mark.slow
def test_the_wheel_brings_them(tmp_path: Path) -> None:
    """Built and unpacked beside the other packages of this environment, run outside of the source tree."""
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    unpack = [sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)]
    subprocess.run(unpack, check=True)
    (tmp_path / "mine.yaml").write_text(MINE, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(site), "NUMBA_DISABLE_JIT": "1"}

    def spbfast(*args: str) -> str:
        command = [sys.executable, "-m", "spbfast.cli", *args]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import spbfast; print(spbfast.__file__)"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    assert "ok" in spbfast("validate", "devvm-burst", "mine.yaml")
    assert "tainted" in spbfast("run", "tiny", "--set", "duration=50ms", "--set", "replicates=1")
    assert "v1@30" in spbfast("presets")
