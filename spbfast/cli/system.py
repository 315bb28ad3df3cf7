"""Verbs about this installation: compile the kernels, examine it, print versions.

Owns `warmup`, `doctor` and `version`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app

EXIT_ENVIRONMENT = 5


@app.command()
def warmup() -> None:
    """Compile all kernels into the cache, so that the next run starts at once."""
    from spbfast.model.engine import warmup as compile_all

    typer.echo("compiling kernels (once per version) ...", err=True)
    typer.echo(f"ready after {compile_all():.1f} s")


@app.command()
def doctor(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="a results directory to examine too", show_default=False),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="set DIR right; needs that nothing runs there")
    ] = False,
    as_json: JsonOpt = False,
) -> None:
    """Examine installation, machine and a results directory; exit 5 if something is wrong."""
    from spbfast.cli import doctor as examination
    from spbfast.errors import ConfigError

    if repair and directory is None:
        raise ConfigError("--repair needs a results directory: spbfast doctor DIR --repair")
    if repair and directory is not None:
        for line in examination.repair_directory(directory) or ["nothing to repair"]:
            typer.echo(line, err=as_json)
    findings = list(examination.check_installation())
    if directory is not None:
        findings += examination.check_directory(directory)
    if as_json:
        typer.echo(json.dumps([asdict(f) for f in findings]))
    else:
        typer.echo("\n".join(map(str, findings)))
    raise typer.Exit(EXIT_ENVIRONMENT if examination.worst(findings) == examination.BAD else 0)


@app.command()
def version(as_json: JsonOpt = False) -> None:
    """Print the versions of spbfast and of what its results depend on."""
    from spbfast.cli.doctor import versions

    found = versions()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo("\n".join(f"{k} {v or 'not installed'}" for k, v in found.items()))
