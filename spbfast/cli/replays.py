"""Verbs that put recordings on a simulated machine.

Owns `replay`. Whether the model agrees with a running kernel is asked by scripts/live.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spbfast.cli.options import JsonOpt, app, check_place
from spbfast.cli.patience import explained_wait

if TYPE_CHECKING:
    from spbfast.recordings.replaying import Replayed


@app.command("replay")
def replay_command(
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE", help="a capture, or a trace as text or of LLFree", show_default=False
        ),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="NAME", help="a preset; may be repeated  [default: mainline]"),
    ] = None,
    level: Annotated[
        str,
        typer.Option("--level", metavar="NAME", help="request: what callers asked; zone: what the lists did"),
    ] = "request",
    zone: Annotated[str, typer.Option("--zone", metavar="NAME", help="zone of a capture")] = "Normal",
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="SIZE", help="memory of the machine  [default: what the trace spans]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="write the results as JSON, too")
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Repeat a recording's page allocations on a simulated machine, under one or several policies.

    A capture made with --pages starts from the machine as it was; any other recording starts from an empty
    zone. Frees of pages that were never seen handed out, and pages handed out twice, are counted and told.
    """
    from spbfast.recordings.page_rows import REQUEST_LEVEL, ZONE_LEVEL
    from spbfast.recordings.replaying import ReplayRequest, replay_file, replayed_data
    from spbfast.sweep.store.atomic import write_json

    if level not in (REQUEST_LEVEL, ZONE_LEVEL):
        raise typer.BadParameter(f"must be request or zone, got {level!r}", param_hint="--level")
    check_place(output, "--output")
    pages = _pages_of(size) if size is not None else None
    names = list(dict.fromkeys(policy or ["mainline"]))
    with explained_wait():
        found = {name: replay_file(ReplayRequest(trace, name, level, zone, pages)) for name in names}
    data = {name: replayed_data(result) for name, result in found.items()}
    if output is not None:
        write_json(output, data)
    typer.echo(json.dumps(data, indent=1) if as_json else _as_text(trace, level, found))


def _pages_of(size: str) -> int:
    from spbfast.config.units import parse_size
    from spbfast.constants import PAGE_SIZE

    try:
        return parse_size(size) // PAGE_SIZE
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--size") from None


def _missing_line(missing: dict[str, float]) -> str:
    """What the recording's own contradictions say of events that it lacks."""
    pairs, missed = int(missing["pairs"]), int(missing["missed"])
    if not missed:
        return ""
    shown = f"{missed:,} of {pairs:,} events follow one of their own kind on the same page"
    if "share" not in missing:
        return f"{shown}: most events are missing"
    share, error = 100 * missing["share"], 100 * missing["share_error"]
    return f"{shown}: about {share:.2g} % (+- {error:.1g}) of events are missing"


def _as_text(trace: Path, level: str, found: dict[str, Replayed]) -> str:
    from spbfast.text import text_table

    first = next(iter(found.values()))
    rows = first.rows
    lines = [
        f"{trace}: {rows.rows:,} events of {level} level, from {first.start}",
        f"left out: {rows.elsewhere:,} of other zones, {rows.failed:,} requests that got no page, "
        f"{rows.strange:,} that no machine has; lost by the recorder: {rows.lost:,}",
        *first.lost_lines,
    ]
    table = [(name, *(f"{r.counts[name]:,}" for r in found.values())) for name in first.counts]
    lines.append(_missing_line(first.missing))
    table += [("pages on per-CPU lists", *(f"{r.per_cpu_pages:,}" for r in found.values()))]
    for mt in first.pageblocks:
        table.append((f"{mt} pageblocks", *(f"{r.pageblocks[mt]:,}" for r in found.values())))
    kinds = dict.fromkeys(kind for r in found.values() for kind in (*r.superpageblocks, *r.fallbacks))
    for kind in kinds:
        values = ({**r.superpageblocks, **r.fallbacks}.get(kind) for r in found.values())
        table.append((kind, *("-" if value is None else f"{value:,}" for value in values)))
    table.append(("seconds", *(f"{r.seconds:.2f}" for r in found.values())))
    parts = ["\n".join(line for line in lines if line), text_table(("", *found), table)]
    for name, result in found.items():
        blocks = [(mt, *counts) for mt, counts in result.free_blocks.items()]
        orders = map(str, range(len(blocks[0]) - 1))
        parts.append(text_table((f"free blocks, {name}", *orders), blocks))
    return "\n\n".join(parts)
