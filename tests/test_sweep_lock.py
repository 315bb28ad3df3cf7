"""One driver per directory: who holds a lock, who is gone, and clocks that cannot be trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spbfast.errors import ResultsError, StorageError
from spbfast.sweep.store import lock as lock_module
from spbfast.sweep.store.lock import ALIVE, DEAD, SILENT, DirectoryLock, judge

pytestmark = pytest.mark.shell

ELSEWHERE = {"host": "elsewhere", "pid": 1, "key": "x", "world": "elsewhere b n", "started": 7}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.2)


def holder(directory: Path, **traits: Any) -> Path:
    """A lock as another driver would have left it."""
    path = directory / "lock"
    path.write_text(json.dumps({**ELSEWHERE, **traits}))
    return path


def traits_of(pid: int) -> dict[str, Any]:
    return {**lock_module._own_traits(), "pid": pid, "started": lock_module._start_of(pid), "key": "x"}


def make_old(path: Path, seconds: float = 200) -> None:
    long_ago = time.time() - seconds
    os.utime(path, (long_ago, long_ago))


def test_lock_excludes_a_second_driver(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ResultsError, match="in use by process .*--steal-lock"), DirectoryLock(tmp_path):
            pass
        assert (tmp_path / "lock").exists()
    assert not (tmp_path / "lock").exists()


def test_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = "import os; print(os.getpid())"
    dead = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    holder(tmp_path, **{**traits_of(dead), "started": 5})
    with DirectoryLock(tmp_path) as lock:
        assert json.loads((tmp_path / "lock").read_text())["key"] == lock.key
        assert lock.predecessor["pid"] == dead


def test_a_process_id_that_was_given_out_again_is_not_the_holder() -> None:
    assert judge(traits_of(os.getppid()), 1.0) == ALIVE
    assert judge({**traits_of(os.getppid()), "started": 5}, 1.0) == DEAD
    assert judge({**traits_of(os.getpid()), "started": 5}, 1.0) == DEAD


def test_a_stopped_process_keeps_its_lock() -> None:
    assert judge(traits_of(os.getppid()), 1e6) == ALIVE


def test_elsewhere_only_silence_tells() -> None:
    assert judge(ELSEWHERE, 5.0) == ALIVE
    assert judge(ELSEWHERE, 121.0) == SILENT
    assert judge({}, 5.0) == ALIVE
    assert judge({}, 121.0) == SILENT


def test_a_requeued_job_knows_that_its_first_run_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = {**ELSEWHERE, "job": "77", "restart": 0}
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert judge(first, 1.0) == ALIVE
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert judge(first, 1.0) == DEAD
    assert judge({**first, "job": "78"}, 1.0) == ALIVE


def test_a_silent_lock_is_watched_before_it_is_taken(tmp_path: Path) -> None:
    path = holder(tmp_path)
    with pytest.raises(ResultsError, match="on elsewhere"), DirectoryLock(tmp_path):
        pass
    make_old(path)
    with DirectoryLock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_clock_that_jumped_takes_no_lock(tmp_path: Path) -> None:
    path = holder(tmp_path)
    make_old(path)
    beat = threading.Timer(0.1, os.utime, (path,))
    beat.start()
    with pytest.raises(ResultsError, match="in use"), DirectoryLock(tmp_path):
        pass
    beat.join()
    # A lock from the future is not old either.
    make_old(path, -1e6)
    with pytest.raises(ResultsError, match="renewed its lock 0 s ago"), DirectoryLock(tmp_path):
        pass


def test_a_stolen_lock_is_noticed_and_left_alone(tmp_path: Path) -> None:
    lost = threading.Event()
    with DirectoryLock(tmp_path, on_lost=lost.set) as first:
        with DirectoryLock(tmp_path, steal=True) as second:
            assert lost.wait(5)
            assert first.lost
            assert not second.lost
        (tmp_path / "lock").write_text("somebody else's")
    assert (tmp_path / "lock").read_text() == "somebody else's"


def test_parts_of_an_array_exclude_the_whole_and_not_each_other(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path, share="0-of-2"), DirectoryLock(tmp_path, share="1-of-2"):
        with pytest.raises(ResultsError, match="in use"), DirectoryLock(tmp_path):
            pass
        assert not (tmp_path / "lock").exists()
        with pytest.raises(ResultsError, match="in use"), DirectoryLock(tmp_path, share="0-of-2"):
            pass
    with DirectoryLock(tmp_path):
        with pytest.raises(ResultsError, match="in use"), DirectoryLock(tmp_path, share="0-of-2"):
            pass
        assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_unwritable_directories_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="cannot create: Not a directory"),
        DirectoryLock(tmp_path / "file" / "out"),
    ):
        pass
