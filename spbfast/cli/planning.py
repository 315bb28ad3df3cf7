"""The verb that writes a configuration to begin with: `init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import app
from spbfast.text import text_table


@app.command("init")
def init_command(
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
