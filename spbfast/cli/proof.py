"""Verbs that test the simulator itself: recorded traces and speed.

Owns `verify` and `bench`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app


@app.command("verify")
def verify_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="golden traces", show_default=False)],
) -> None:
    """Replay golden traces and compare every event; exit 0 only if all agree."""
    from spbfast.verify.verdicts import verify_files

    raise typer.Exit(verify_files(files, typer.echo))


@app.command("bench")
def bench_command(as_json: JsonOpt = False) -> None:
    """Measure speed beside a yardstick of the same run."""
    from spbfast.bench.suite import run_bench

    raise typer.Exit(run_bench(as_json))
