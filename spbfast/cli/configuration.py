"""Verbs about configurations: check them, explain their keys, print their schema.

Owns `validate`, `schema`, `presets` and `explain`. Nothing here imports the simulator.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spbfast.cli.options import JsonOpt, SetOpt, app, tell_remarks
from spbfast.text import text_table

if TYPE_CHECKING:
    from spbfast.config.job import Job


@app.command("validate")
def validate_command(
    configs: Annotated[
        list[Path], typer.Argument(metavar="CFG...", help="configurations", show_default=False)
    ],
    set_: SetOpt = None,
) -> None:
    """Check configurations; print every error with file, line and column."""
    from spbfast.config import load_config
    from spbfast.config.units import format_size
    from spbfast.errors import ConfigError

    failed = False
    for path in configs:
        try:
            job = load_config(path, set_ or ())
            tell_remarks(job)
            if job.has_combinations or job.scenario.branch is not None:
                _validate_combinations(job)
        except ConfigError as error:
            failed = True
            typer.echo(str(error), err=True)
        else:
            points = job.nr_points
            memory = job.scenario.machine.memory
            shown = f"memory {format_size(memory)} = {memory / 2**30:.6g} GiB"
            least = f"{job.growing.min} to " if job.growing is not None else ""
            typer.echo(f"{path}: ok ({points} points, {least}{job.replicates} replicates, {shown})")
    raise typer.Exit(ConfigError.exit_code if failed else 0)


def _validate_combinations(job: Job) -> None:
    from spbfast.sweep.points.branching import validate_branch  # planning takes a second to import
    from spbfast.sweep.points.combinations import validate_combinations

    validate_combinations(job)
    validate_branch(job)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of configurations, for editors."""
    from spbfast.config.schema import schema_text

    typer.echo(schema_text(), nl=False)


@app.command("presets")
def presets_command(
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option("--diff", metavar="A B", help="only the switches in which two presets differ"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="also the switches that are the same in every preset")
    ] = False,
    steps: Annotated[bool, typer.Option("--steps", help="what each preset changes, a line each")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Show the policy presets: which switch has which value at which step of the series."""
    from spbfast.config import presets, showpresets

    if diff is not None:
        shown = showpresets.difference_data(*diff) if as_json else showpresets.difference_text(*diff)
    elif steps:
        changes = presets.preset_steps()
        shown = dict(changes) if as_json else _steps_text(changes)
    elif as_json:
        shown = showpresets.matrix_data(everything=everything)
    else:
        shown = showpresets.matrix_text(shutil.get_terminal_size().columns, everything=everything)
    typer.echo(json.dumps(shown, indent=1) if as_json else shown)


def _steps_text(changes: list[tuple[str, str]]) -> str:
    from spbfast.config import presets

    full, half = (text_table((), rows, left=(0, 1)) for rows in (presets.full_steps(), presets.half_steps()))
    steps = text_table((), changes, left=(0, 1))
    return f"{steps}\n\nwith everything modelled up to a step:\n{full}\n\nwith patch 42 acting:\n{half}"


@app.command("explain")
def explain_command(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORD]",
            help="e.g. policy.slab_shrink, or a kind: keys, metrics, counters, rungs, errors",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Explain a configuration key, a metric, a counter, a rung of the ladder, an error or an exit code.

    Says meaning, unit, direction, values by preset, the kernel's name, source and certainty.
    """
    from spbfast.config import explained

    rows = explained.listing("keys" if key is None else key)
    typer.echo(explained.explain(str(key)) if rows is None else text_table((), rows, left=(0, 1)))
