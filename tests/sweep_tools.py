"""Jobs and a driver in a subprocess for the tests of sweeps, results and report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spbfast.config import load_config

ENGINE = "tests.fake_engine"
ROOT = Path(__file__).resolve().parents[1]

BASE = """\
name: {name}
duration: {duration}
policy: v1@30
seed: {seed}
replicates: {replicates}
"""
GRID = """\
sweep:
  baseline: {policy.slab_shrink: false}
  grid:
    policy.slab_shrink_throttle: [50ms, 500ms]
    policy.slab_shrink_target_objs: [512, 4096]
"""

DRIVER = """\
import sys
from spbfast.config import load_config
from spbfast.sweep import run_sweep
if __name__ == "__main__":
    job = load_config(sys.argv[1], sys.argv[3:])
    sys.exit(run_sweep(job, sys.argv[2], engine="tests.fake_engine").exit_code)
"""


def write_job(
    directory: Path,
    *,
    sweep: str = GRID,
    name: str = "demo",
    duration: str = "12s",
    seed: int = 7,
    replicates: int = 3,
    comment: str = "",
) -> Path:
    """A configuration file for the fake engine."""
    path = directory / "job.yaml"
    text = BASE.format(name=name, duration=duration, seed=seed, replicates=replicates)
    path.write_text(f"# {comment}\n{text}{sweep}")
    return path


def make_job(directory: Path, *overrides: str, **settings: Any) -> Any:
    """The loaded job; serial unless overridden."""
    return load_config(write_job(directory, **settings), ["executor.kind=serial", *overrides])


def driver_command(config: Path, outdir: Path, *overrides: str) -> list[str]:
    """A sweep in a process of its own."""
    script = config.parent / "driver.py"
    script.write_text(DRIVER)
    return [sys.executable, "-W", "error", str(script), str(config), str(outdir), *overrides]
