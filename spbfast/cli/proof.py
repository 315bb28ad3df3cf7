"""Verbs that put the simulator to the proof: recorded traces and speed.

Owns `verify` and `bench`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="golden traces", show_default=False)],
) -> None:
    """Replay golden traces and compare every event; exit 0 only if all agree."""
    from spbfast.verify.verdicts import verify_files

    raise typer.Exit(verify_files(files, typer.echo))


@app.command()
def bench(as_json: JsonOpt = False) -> None:
    """Measure speed beside a yardstick of the same run."""
    from spbfast.bench import page_events as bench_module

    raise typer.Exit(bench_module.main(json=as_json) or 0)
