"""Verbs that record this machine.

Owns `capture`. What it writes is read by `read`, `diagnose` and `replay`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spbfast.cli.options import JsonOpt, QuietOpt, app, check_place

if TYPE_CHECKING:
    from spbfast.live.capture import CaptureResult


@app.command("capture", context_settings={"allow_interspersed_args": False})
def capture_command(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND ...]", help="run while events are recorded", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="file to write  [default: capture-TIME.spbcap]"),
    ] = None,
    trace: Annotated[
        str | None,
        typer.Option("--trace", metavar="TIME", help="record page events for so long, e.g. 30s"),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(
            "--events",
            metavar="LIST",
            help="zone, request, compaction, reclaim, or kmem:mm_page_alloc ...  [default: all four groups]",
        ),
    ] = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="keep what every page holds, not only counts by pageblock")
    ] = False,
    keep_command: Annotated[
        bool, typer.Option("--keep-command", help="write the command line into the file")
    ] = False,
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="recording ends when the file has this size")
    ] = "4GiB",
    quiet: QuietOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Record this machine into one file: its memory tables and, with --trace or a command, its page events.

    Events need root and tracefs. They are read from a tracefs instance that is made for it and removed on
    every exit. Names of tasks and command lines are not recorded. Without root the tables that everybody may
    read are recorded, and what is missing is said.
    """
    from spbfast.live import CaptureRequest, capture
    from spbfast.live.capture import GROUPS
    from spbfast.sweep.store.atomic import write_failed

    path = output or Path(time.strftime("capture-%Y%m%d-%H%M%S.spbcap"))
    request = CaptureRequest(
        path,
        seconds=_quantity(trace, "--trace") / 1e9 if trace is not None else None,
        command=command or (),
        events=[name.strip() for name in events.split(",")] if events else tuple(GROUPS),
        keep_pages=pages,
        keep_command=keep_command,
        most_bytes=_quantity(max_size, "--max-size"),
    )
    check_place(path, "--output")
    shows = sys.stderr.isatty() and not quiet
    tell = (lambda line: typer.echo(f"\r{line} ", err=True, nl=False)) if shows else None
    try:
        result = capture(request, tell)
    except OSError as error:
        raise write_failed(error, path) from error
    if shows and result.events:
        typer.echo("", err=True)
    if as_json:
        typer.echo(json.dumps({"file": str(path), **vars(result)}, indent=1))
    else:
        typer.echo(str(path) if quiet else _summary(path, result))
    if result.exit_code:
        raise typer.Exit(3)


def _quantity(text: str, option: str) -> int:
    from spbfast.config.units import parse_duration, parse_size

    try:
        return parse_duration(text) if option == "--trace" else parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _summary(path: Path, result: CaptureResult) -> str:
    from spbfast.text import format_bytes

    lines = [f"{path}: {format_bytes(path.stat().st_size)}"]
    if result.seconds:
        rate = result.events / result.seconds
        lines.append(
            f"{result.events:,} events in {result.seconds:.1f} s ({rate:,.0f}/s), {result.lost:,} lost, "
            f"{result.cpu_seconds:.2f} s of processor time"
        )
    if result.exit_code:
        lines.append(f"the command ended with exit code {result.exit_code}")
    lines += [f"missing: {sentence}" for sentence in result.missing]
    return "\n".join(lines)
