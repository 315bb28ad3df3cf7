"""Compiled kernels on disk: whatever became of an entry, the kernel runs, and the user is told once."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from spbfast.cli import doctor
from spbfast.jit import decorators, kernelcache
from spbfast.jit.decorators import INTERPRETED
from tests.damage_tools import DAMAGES
from tests.sweep_tools import ROOT

pytestmark = pytest.mark.skipif(INTERPRETED, reason="there is no machine code in the interpreted pass")

SOURCE = """
from spbfast.jit.decorators import entry_kernel, kernel

@kernel
def doubled(a):
    return 2 * a

@entry_kernel
def add(a, b):
    return doubled(a) + b

@entry_kernel
def subtract(a, b):
    return doubled(a) - b
"""


def load(folder: Path) -> ModuleType:
    """The module of two kernels as a new process would have it: nothing is compiled or loaded yet."""
    path = folder / "planted_entries.py"
    if not path.exists():
        path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("planted_entries", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for kernels that are made from now on."""
    folder = tmp_path / "cache" / "version"
    folder.mkdir(parents=True)
    monkeypatch.setattr(decorators, "CACHE_DIR", folder)
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(folder))
    monkeypatch.setattr(kernelcache, "_said", set())
    return folder


def ran(folder: Path) -> tuple[int, int]:
    """What both kernels return together, and how many of them came from the disk."""
    module = load(folder)
    total = module.add(3, 4) + module.subtract(3, 4)
    return total, sum(sum(k.stats.cache_hits.values()) for k in (module.add, module.subtract))


def entries(place: Path, suffix: str) -> list[Path]:
    return sorted(place.rglob(f"*.add-*{suffix}"))


@pytest.mark.parametrize("suffix", [".nbc", ".nbi"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_dropped_and_compiled_anew(
    tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture, kind: str, suffix: str
) -> None:
    assert ran(tmp_path) == (12, 0)
    assert ran(tmp_path) == (12, 2)
    caplog.clear()
    (victim,) = entries(place, suffix)
    DAMAGES[kind](victim, random.Random(4))
    assert ran(tmp_path) == (12, 1)
    assert len(caplog.records) == 1
    assert f"compiled anew: {victim}" in caplog.text
    caplog.clear()
    assert ran(tmp_path) == (12, 2), "the entry was not written again"
    assert not caplog.records


def test_a_cut_or_flipped_entry_is_dropped_wherever_it_is_cut_or_flipped(tmp_path: Path, place: Path) -> None:
    ran(tmp_path)
    rng = random.Random(9)
    for suffix in (".nbc", ".nbi"):
        (victim,) = entries(place, suffix)
        size = victim.stat().st_size
        for at in [*range(0, 40, 7), *(rng.randrange(size) for _ in range(6))]:
            for kind in ("flipped", "cut"):
                content = victim.read_bytes()
                DAMAGES[kind](victim, random.Random(at))
                found = kernelcache.damaged_entries(place)
                assert [e.path for e in found] == [victim], (suffix, kind, at)
                victim.write_bytes(content)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_entry_is_dropped(tmp_path: Path, place: Path) -> None:
    ran(tmp_path)
    entries(place, ".nbi")[0].chmod(0)
    assert ran(tmp_path) == (12, 1)
    assert ran(tmp_path) == (12, 2)


@pytest.mark.parametrize("suffix", [".nbc", ".nbi"])
def test_an_entry_that_cannot_be_read_is_dropped(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    ran(tmp_path)
    (victim,) = entries(place, suffix)
    os.utime(victim, ns=(1, 1))  # tells it from the one that takes its place
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == victim and path.exists() and path.stat().st_mtime_ns == 1:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert ran(tmp_path) == (12, 1)
    monkeypatch.setattr(Path, "read_bytes", real)
    assert ran(tmp_path) == (12, 2)


def test_code_that_cannot_be_loaded_although_it_is_what_was_written_is_dropped(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran(tmp_path)

    def rebuild(*_: Any) -> None:
        raise RuntimeError("LLVM ERROR: Never resolved value found in function")

    with monkeypatch.context() as m:
        m.setattr(kernelcache._OursOnly, "rebuild", rebuild)
        assert ran(tmp_path) == (12, 0)
    assert "Never resolved value" in caplog.text
    assert ran(tmp_path) == (12, 2)


def test_a_folder_of_entries_that_became_a_file_is_made_again(tmp_path: Path, place: Path) -> None:
    ran(tmp_path)
    (folder,) = (p for p in place.iterdir() if p.is_dir())
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    assert ran(tmp_path) == (12, 0)
    assert ran(tmp_path) == (12, 2)


@pytest.mark.parametrize("full", ["open", "replace"])
def test_a_full_disk_costs_compile_time_and_nothing_else(
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    full: str,
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    where = "os.replace" if full == "replace" else "spbfast.jit.kernelcache.CheckedFiles._open_for_write"
    monkeypatch.setattr(where, no_space)
    assert ran(tmp_path) == (12, 0)
    assert len(caplog.records) == 1
    assert "cannot be kept" in caplog.text
    assert "No space left" in caplog.text


def test_a_cache_that_cannot_be_written_is_said_when_something_is_compiled(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decorators, "CACHE_DIR", None)
    monkeypatch.setenv("SPBFAST_CACHE_DIR", "/dev/null/nowhere")
    module = load(tmp_path)
    assert not caplog.records
    assert module.add(3, 4) == 10
    assert len(caplog.records) == 1
    assert "/dev/null/nowhere: Not a directory; set SPBFAST_CACHE_DIR" in caplog.text


@pytest.mark.parametrize(("given", "wanted"), [("~/x", "{home}/x"), ("~", "{home}"), ("/a/~/b", "/a/~/b")])
def test_a_tilde_is_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, wanted: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SPBFAST_CACHE_DIR", given)
    assert kernelcache.cache_candidates() == [Path(wanted.format(home=tmp_path))]


def test_a_relative_place_for_all_caches_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPBFAST_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert kernelcache.cache_candidates()[0] == tmp_path / ".cache" / "spbfast"


def test_a_filled_cache_serves_when_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled = tmp_path / "filled"
    (filled / "folder").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert kernelcache._fault(filled) == ""
    assert kernelcache._fault(tmp_path / "empty") == "cannot be written"


def test_doctor_loads_the_cache_and_tells_of_damaged_entries(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spbfast.model.engine.warmup", lambda: ran(tmp_path) and 1.0)
    assert "empty" in next(doctor._cache()).text
    ran(tmp_path)
    (finding,) = doctor._cache()
    assert (finding.level, "loaded in" in finding.text) == ("ok", True)
    (victim,) = entries(place, ".nbc")
    victim.write_bytes(b"")
    damaged, sizes = doctor._cache()
    assert damaged.level == "warning"
    assert f"1 entries were damaged and have been compiled anew, such as {victim}" in damaged.text
    assert [f.level for f in doctor._cache()] == ["ok"]


def test_doctor_reports_a_cache_that_does_not_load(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warmup() -> float:
        raise RuntimeError("no such symbol")

    ran(tmp_path)
    monkeypatch.setattr("spbfast.model.engine.warmup", warmup)
    (finding,) = doctor.guarded("kernel cache", doctor._cache)
    assert (finding.level, finding.text) == ("problem", "RuntimeError: no such symbol")


@pytest.mark.long
def test_the_command_runs_whatever_became_of_its_cache(tmp_path: Path) -> None:
    """The whole product, with all its entries emptied."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    environ |= {"SPBFAST_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spbfast.cli", "run", "configs/tiny.yaml", "--set", "replicates=1"]
    command += ["--set", "duration=10ms", "--set", "output.every=10ms"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=500, check=False
        )

    first = run()
    assert first.returncode == 0, first.stderr
    files = [p for p in (tmp_path / "cache").rglob("*.nb[ci]") if p.is_file()]
    assert len(files) > 4
    for path in files:
        path.write_bytes(b"")
    second = run()
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    assert second.stderr.count("compiled anew") == 1
    assert kernelcache.damaged_entries(next((tmp_path / "cache").iterdir())) == []
