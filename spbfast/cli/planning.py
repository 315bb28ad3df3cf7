"""Verbs before a sweep: what it would cost, and a configuration to begin with.

Owns `init` and the words of `sweep --dry-run`. Writes nothing but the file that `init` is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.options import app
from spbfast.text import text_table


def dry_run(job: Any, outdir: Path, *, as_json: bool, measure: bool) -> None:
    """Print what a sweep would run and what that would cost."""
    from spbfast.sweep.run.estimate import estimate, words

    found = estimate(job, outdir, measure=measure, say=lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(found.as_json()))
        return
    typer.echo("\n".join(words(found)))


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="the file to write", show_default=True)
    ] = Path("sweep.yaml"),
    template: Annotated[
        str | None, typer.Option("--template", metavar="NAME", help="which one; --list shows them")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="list the templates")] = False,
) -> None:
    """Write a commented configuration to begin with."""
    from spbfast.config.templates import template_names, write_template

    if list_:
        typer.echo(text_table((), template_names(), left=(0, 1)))
        return
    written = write_template(path, template or "sweep")
    typer.echo(f"{written}: edit it, then: spbfast validate {written} && spbfast sweep {written} --dry-run")
