"""A short run of the fuzz in fuzz_observed.py, in a process of its own: its memory is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz_observed import run

pytestmark = pytest.mark.shell

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_end_in_an_observation_or_one_error(seed: int, tmp_path: Path) -> None:
    assert run(60, seed, keep=tmp_path) == 60


@pytest.mark.slow
def test_hostile_files_cost_neither_time_nor_memory() -> None:
    command = [sys.executable, "-m", "tests.fuzz_observed", "--hostile-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
