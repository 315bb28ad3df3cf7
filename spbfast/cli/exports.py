"""The verb that writes what there is in other forms.

Owns `export`: results as tables and zarr, the state of memory as the kernel prints it, and page events as
traces.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spbfast.cli.options import app, check_place

_FORMS = ("zarr", "csv", "parquet", "pagetypeinfo", "ftrace", "llfree")


@app.command("export")
def export_command(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="a results directory, or a file of run -o; of --pagetypeinfo: a saved state, a capture, or "
            "dumps of one machine",
            show_default=False,
        ),
    ],
    zarr: Annotated[bool, typer.Option("--zarr", help="the whole dataset as zarr (needs zarr)")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="a table: a row per run")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="the same as Parquet (needs pyarrow)")] = False,
    pagetypeinfo: Annotated[
        bool, typer.Option("--pagetypeinfo", help="free blocks and pageblocks, as the kernel prints them")
    ] = False,
    ftrace: Annotated[
        bool, typer.Option("--ftrace", help="page events of a run as the text of ftrace")
    ] = False,
    llfree: Annotated[bool, typer.Option("--llfree", help="the same as LLFree's binary trace")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="where to  [default: beside the source; or the screen]",
        ),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option("--variable", metavar="NAME", help="only this variable; tables get a row per label"),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", metavar="NAME", help="of --pagetypeinfo and page events: this zone"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="of what dumps leave open", min=0)] = 0,
    replicate: Annotated[int, typer.Option("--replicate", help="which replicate", min=0)] = 0,
) -> None:
    """Write results in another form (--zarr, --csv, --parquet), or memory as the kernel tells it.

    --pagetypeinfo of dumps or a capture is the state that a simulation starts from; of a file of
    run --save-state, the state at that moment. --ftrace and --llfree take a file of
    run -o FILE --records page_events.
    """
    given = zip(_FORMS, (zarr, csv, parquet, pagetypeinfo, ftrace, llfree), strict=True)
    chosen = [name for name, on in given if on]
    if len(chosen) != 1:
        raise typer.BadParameter(
            f"choose one of {', '.join(f'--{name}' for name in _FORMS)}", param_hint="export"
        )
    if pagetypeinfo:
        _write_text(_pagetypeinfo(source, zone, seed, replicate), output)
        return
    if len(source) > 1:
        raise typer.BadParameter(f"--{chosen[0]} takes one directory or file", param_hint="SOURCE")
    if ftrace or llfree:
        _write_events(source[0], chosen[0], output, zone, replicate)
        return
    from spbfast.results.export import export_results

    typer.echo(str(export_results(source[0], chosen[0], output, variable or ())))


def _write_events(source: Path, form: str, output: Path | None, zone: str | None, replicate: int) -> None:
    from spbfast.results.tracefiles import export_events

    check_place(output, "--output")
    target, events = export_events(source, form, output, zone, replicate)
    if events.dropped:
        text = f"{events.dropped:,} later events were dropped by the run; raise output.records_max"
        typer.echo(text, err=True)
    typer.echo(str(target))


def _pagetypeinfo(files: list[Path], zone: str | None, seed: int, replicate: int) -> str:
    from spbfast.recordings.kernel_tables import counts_at_start, counts_of_state, pagetypeinfo_text
    from spbfast.statefile import is_state_file

    if len(files) == 1 and is_state_file(files[0]):
        return pagetypeinfo_text(counts_of_state(files[0], zone))
    counts, types, receipt = counts_at_start(files, zone, seed=seed, replicate=replicate)
    for heading in ("guessed", "contradictory", "lower_bounds"):
        for line in getattr(receipt, heading):
            typer.echo(f"{heading.replace('_', ' ')}: {line}", err=True)
    return pagetypeinfo_text(counts, types)


def _write_text(text: str, output: Path | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    from spbfast.sweep.store.atomic import atomic_file

    check_place(output, "--output")
    with atomic_file(output) as tmp:
        tmp.write_text(text, encoding="utf-8", errors="backslashreplace")
    typer.echo(str(output))
