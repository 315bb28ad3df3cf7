"""The `spbfast` command with the fake engine: for tests of scripts that call the command."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """The command line, its sweeps run by tests.fake_engine."""
    from spbfast.cli import main as real_main
    from spbfast.sweep.run import driver

    driver.run_sweep = functools.partial(driver.run_sweep, engine="tests.fake_engine")
    real_main()


def write_command(path: Path) -> Path:
    """An executable file that runs this module from anywhere."""
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -W error -m tests.fake_spbfast "$@"\n'
    )
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    main()
