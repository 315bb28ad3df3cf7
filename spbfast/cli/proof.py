"""Verbs that test the simulator itself: recorded traces and speed.

Owns `verify` and `bench`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app, check_place


@app.command("verify")
def verify_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="golden traces", show_default=False)],
) -> None:
    """Replay golden traces and compare every event; exit 0 only if all agree."""
    from spbfast.verify.verdicts import verify_files

    raise typer.Exit(verify_files(files, typer.echo))


@app.command("bench")
def bench_command(
    as_json: JsonOpt = False,
    full: Annotated[
        bool, typer.Option("--full", help="everything, which takes minutes and some 6 GB of memory")
    ] = False,
    only: Annotated[
        str | None, typer.Option("--only", metavar="GROUP", help="one group of figures, such as churn")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="keep the figures here, for --against")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="print ratios to figures saved on this machine"),
    ] = None,
) -> None:
    """Measure speed beside a yardstick of the same run; ends within 90 s unless --full is given."""
    from spbfast.bench.compared import read_stored
    from spbfast.bench.suite import run_bench

    check_place(save, "--save")
    stored = read_stored(against) if against is not None else None
    try:
        code = run_bench(
            as_json, only, full=full, save=_writer(save) if save is not None else None, against=stored
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from None
    raise typer.Exit(code)


def _writer(path: Path) -> Callable[[str], None]:
    from spbfast.sweep.store.atomic import write_text

    return lambda text: write_text(path, text)
