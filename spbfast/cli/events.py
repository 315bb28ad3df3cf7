"""The verb that prints event records.

Owns `records`, and the reading of the option `run --records`. Reads files only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spbfast.cli.options import app

if TYPE_CHECKING:
    from spbfast.config.job import Job


@app.command("records")
def records_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="written by `run -o FILE --records ...`")],
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="only this kind; may be repeated")
    ] = None,
    head: Annotated[
        int | None, typer.Option("--head", metavar="N", min=0, help="only the first N records")
    ] = None,
) -> None:
    """Print event records in the format of the kernel's trace files, in order of time."""
    from spbfast.results.records import lines_of, read_records

    found = read_records(file, kind or ())
    for line in lines_of(found, head):
        typer.echo(line)
    for name, columns in found.items():
        if columns["dropped"]:
            kept = len(columns["seq"])
            typer.echo(
                f"{name}: {kept} records kept, {columns['dropped']} later ones dropped; "
                "raise output.records_max",
                err=True,
            )


def wanted_records(job: Job, given: str | None, output: Path | None) -> tuple[str, ...]:
    """Kinds of records that a run keeps: those of `--records`, else those of the configuration."""
    from spbfast.outputs.tracepoints import check_names

    names = job.output.records
    if given is not None:
        try:
            names = check_names(tuple(name.strip() for name in given.split(",") if name.strip()))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--records") from None
    if names and output is None:
        if given is not None:
            raise typer.BadParameter("records go to the file of -o FILE; give one", param_hint="--records")
        typer.echo("output.records: nothing is recorded without -o FILE", err=True)
        return ()
    return names
