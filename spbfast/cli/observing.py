"""Verbs about running machines: read what a kernel printed, and say why an allocation failed.

Owns `read` and `diagnose`. Never simulates and never writes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import JsonOpt, app

FilesArg = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="dumps or traces of one machine: buddyinfo, zoneinfo, a failure report, a trace ...",
        show_default=False,
    ),
]


@app.command("read")
def read_command(files: FilesArg, as_json: JsonOpt = False) -> None:
    """Read dumps and traces of a running kernel and print what is in them, with a receipt.

    The kind of each file is recognised by its content. Files that are given together are taken for one
    machine; where they contradict each other, the receipt says so.
    """
    from spbfast.observed import read_dumps
    from spbfast.observed.describe import observation_data, observation_text

    observation = read_dumps(files)
    if as_json:
        typer.echo(json.dumps(observation_data(observation), indent=1))
    else:
        typer.echo(observation_text(observation))


@app.command("diagnose")
def diagnose_command(
    files: FilesArg,
    order: Annotated[
        int | None, typer.Option("--order", metavar="N", help="order of the request  [default: the report's]")
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", metavar="NAME", help="judge only zones of this name, e.g. Normal")
    ] = None,
    gfp: Annotated[
        str | None,
        typer.Option("--gfp", metavar="FLAGS", help="e.g. GFP_ATOMIC|__GFP_COMP  [default: the report's]"),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Would this request have succeeded, and why not: the kernel's own check, with the arithmetic.

    Verdicts: succeeds, shortage, fragmentation, reserve, type, unknown, or "does not explain": the request
    would have succeeded at the moment of the dump, which is later than the failure.
    """
    from spbfast.observed import read_dumps
    from spbfast.observed.describe import diagnosis_data, diagnosis_text
    from spbfast.observed.diagnosis import diagnose

    found = diagnose(read_dumps(files), order=order, zone=zone, gfp=gfp)
    if as_json:
        typer.echo(json.dumps([diagnosis_data(d) for d in found], indent=1))
    else:
        typer.echo("\n\n".join(map(diagnosis_text, found)))
