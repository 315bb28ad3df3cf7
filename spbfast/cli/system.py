"""Verbs about this installation: compile the kernels, examine everything, print versions.

Owns `warmup`, `doctor` and `version`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app
from spbfast.text import format_seconds

EXIT_ENVIRONMENT = 5


@app.command("warmup")
def warmup_command() -> None:
    """Compile all kernels into the cache, so that the next run of any kind starts at once."""
    from spbfast.entries import compile_entries

    typer.echo("compiling kernels (once per version) ...", err=True)
    seconds = compile_entries(lambda text: typer.echo(f"  {text}", err=True))
    typer.echo(f"ready after {format_seconds(seconds)}")


@app.command("doctor")
def doctor_command(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="a results directory to examine too", show_default=False),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="set DIR right; no sweep may be running there")
    ] = False,
    as_json: JsonOpt = False,
) -> None:
    """Examine installation, machine and a results directory; exit 5 if something is wrong."""
    from spbfast.cli.doctor import BAD, check_installation, worst
    from spbfast.cli.repair import check_directory, repair_directory
    from spbfast.errors import ConfigError

    if repair and directory is None:
        raise ConfigError("--repair needs a results directory: spbfast doctor DIR --repair")
    if repair and directory is not None:
        for line in repair_directory(directory) or ["nothing to repair"]:
            typer.echo(line, err=as_json)
    findings = list(check_installation())
    if directory is not None:
        findings += check_directory(directory)
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in findings]))
    else:
        typer.echo("\n".join(map(str, findings)))
    raise typer.Exit(EXIT_ENVIRONMENT if worst(findings) == BAD else 0)


@app.command("version")
def version_command(as_json: JsonOpt = False) -> None:
    """Print the versions of spbfast and of what its results depend on."""
    from spbfast.cli.doctor import versions

    found = versions()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(f"{k} {v or 'not installed'}" for k, v in found.items()))
