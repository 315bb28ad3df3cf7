"""Worker processes that cannot live: scripts without a main guard, and too little memory."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from spbfast.errors import ConfigError, SetupError
from spbfast.sweep.pools.deaths import HOPELESS, NANNIES, TOLD, MemoryDeaths, check_worker_memory
from spbfast.sweep.pools.limits import MIB, PROCESS_BYTES
from spbfast.sweep.pools.local import silence_dask
from spbfast.sweep.pools.mainguard import check_main_guard
from spbfast.sweep.run.driver import run_sweep
from tests.sweep_tools import ENGINE, ROOT, make_job, write_job

pytestmark = pytest.mark.shell

CALL = """\
import sys
from spbfast.config import load_config
from spbfast.sweep import run_sweep
ONE = ["executor={{kind: processes, workers: 1}}"]
{before}run_sweep(load_config(sys.argv[1], ONE), sys.argv[2], quiet=True, engine="tests.fake_engine")
"""


def script(tmp_path: Path, before: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CALL.format(before=before))
    return path


def run_script(path: Path, tmp_path: Path) -> tuple[int, str]:
    job = write_job(tmp_path, replicates=1)
    done = subprocess.run(
        [sys.executable, str(path), str(job), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_which_guard(tmp_path: Path) -> None:
    begin = time.monotonic()
    code, said = run_script(script(tmp_path, ""), tmp_path)
    assert time.monotonic() - begin < 60
    assert code == 1
    assert "mine.py: executor.kind: processes starts this script again" in said
    assert 'if __name__ == "__main__":' in said
    assert said.count("Traceback") == 1  # Python's own, of the error that nobody caught
    code, said = run_script(script(tmp_path, 'if __name__ == "__main__":\n    '), tmp_path)
    assert code == 0, said


def main_module(path: Path | None, spec: str = "") -> ModuleType:
    module = ModuleType("__main__")
    if path is not None:
        module.__file__ = str(path)
    module.__spec__ = SimpleNamespace(name=spec) if spec else None  # type: ignore[assignment]
    return module


def test_which_scripts_have_a_guard(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    for text, good in (
        ("sweep()\n", False),
        ("def main():\n    sweep()\nmain()\n", False),
        ('if __name__ == "__main__":\n    sweep()\n', True),
        ('if "__main__" == __name__ and True:\n    sweep()\n', True),
        ("# if __name__ == '__main__':\nsweep()\n", False),
        ("this is no Python\n", True),
    ):
        path.write_text(text)
        if good:
            check_main_guard(main_module(path))
            continue
        with pytest.raises(ConfigError, match="has no main guard"):
            check_main_guard(main_module(path))
        with pytest.raises(ConfigError, match="has no main guard"):
            check_main_guard(main_module(path, "mine"))
    path.write_text("main()\n")
    check_main_guard(main_module(path, "spbfast.cli.__main__"))  # never imported again
    check_main_guard(main_module(None))  # a notebook, python -c
    check_main_guard(main_module(tmp_path / "gone.py"))


def test_a_worker_needs_memory_before_its_first_run(tmp_path: Path) -> None:
    check_worker_memory(PROCESS_BYTES, 1 << 40, 1)
    with pytest.raises(SetupError, match=r"20 MiB for each of 2 worker processes .* give 1001MiB, fewer"):
        check_worker_memory(20 * MIB, 100 * MIB, 2)
    job = make_job(tmp_path, "executor={kind: processes, workers: 1, memory: 40MiB}")
    begin = time.monotonic()
    with pytest.raises(
        SetupError, match="executor.memory: 40 MiB for each of 1 worker processes is less than"
    ):
        run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    assert time.monotonic() - begin < 20
    threads = make_job(tmp_path, "executor={kind: threads, workers: 1, memory: 40MiB}")
    assert run_sweep(threads, tmp_path / "out", engine=ENGINE, quiet=True).exit_code == 0


def test_deaths_at_the_limit_are_heard_through_the_silence() -> None:
    said: list[str] = []
    deaths = MemoryDeaths(500 * MIB, said.append)
    logger = logging.getLogger(NANNIES)
    with deaths.listening(), silence_dask():
        for number in range(HOPELESS):
            assert deaths.verdict() == ""
            logger.warning(f"Worker tls://x (pid={number}) exceeded 95% memory budget. Restarting...")
            logger.warning("Worker tls://x is slow to terminate; trying again")
    assert said == ["a worker process was killed at its limit of 500 MiB of memory"] * TOLD
    assert "6 worker processes were killed at their limit of 500 MiB" in deaths.verdict()
    logger.warning("Worker tls://x exceeded 95% memory budget. Restarting...")
    assert deaths.seen == HOPELESS
    assert not logger.handlers


@pytest.mark.slow
def test_a_worker_that_dies_at_its_limit_is_told_within_seconds(tmp_path: Path) -> None:
    sweep = "sweep: {grid: {policy.slab_shrink_target_objs: [668]}}\n"
    job = make_job(
        tmp_path, "executor={kind: processes, workers: 1, memory: 600MiB}", sweep=sweep, replicates=1
    )
    begin = time.monotonic()
    outcome = run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True)
    assert time.monotonic() - begin < 120
    assert outcome.n_failed == 1
    log = (tmp_path / "out" / "logs" / "sweep.log").read_text()
    assert "a worker process was killed at its limit of 600 MiB of memory" in log
