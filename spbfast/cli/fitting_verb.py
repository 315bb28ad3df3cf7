"""The verb that makes actors of recordings.

Owns `fit`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spbfast.cli.options import JsonOpt, app, check_place
from spbfast.cli.patience import explained_wait

if TYPE_CHECKING:
    from spbfast.fitting.fit_judgement import HalvesJudged
    from spbfast.fitting.fitted_actors import FittedActor, FittedRecording


@app.command("fit")
def fit_command(
    trace: Annotated[
        Path,
        typer.Argument(metavar="TRACE", help="a capture, or a trace as text", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="write the actors as a job in YAML")
    ] = None,
    halves: Annotated[
        bool,
        typer.Option("--halves", help="fit the first half only, simulate it, compare with the second half"),
    ] = False,
    as_json: JsonOpt = False,
) -> None:
    """Make actors of a recording: rates by order, type and holder, lifetimes, and bursts, with intervals.

    Blocks that are held at the end are right-censored; frees of what was handed out before the recording are
    dropped and counted. Where lifetimes cannot be told, bounds are given, and the job says so.
    """
    from spbfast.fitting import fit_recording, job_text, judge_halves, memory_of
    from spbfast.sweep.store.atomic import write_text

    check_place(output, "--output")
    judged = None
    with explained_wait("fitting; a recording of a million events takes some seconds ..."):
        if halves:
            judged = judge_halves(trace)
            fit = judged.fit
        else:
            fit = fit_recording(trace)
        if output is not None:
            write_text(output, job_text(fit, memory_of(trace)))
    if as_json:
        typer.echo(json.dumps(_as_data(fit, judged), indent=1))
        return
    typer.echo(_as_text(fit))
    if judged is not None:
        typer.echo("\n" + _judged_text(judged))
    if output is not None:
        typer.echo(f"\n{output}")


def _as_data(fit: FittedRecording, judged: HalvesJudged | None) -> dict[str, Any]:
    data = {
        "file": str(fit.path),
        "receipt": dataclasses.asdict(fit.receipt),
        "actors": [dataclasses.asdict(actor) for actor in fit.actors],
    }
    if judged is not None:
        data["second_half_from_simulation"] = dataclasses.asdict(judged.simulated)
        data["second_half_from_first_half"] = dataclasses.asdict(judged.halves)
    return dict(_finite(data))


def _finite(value: Any) -> Any:
    """Without numbers that JSON has not: null for what has no upper end."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_text(fit: FittedRecording) -> str:
    from spbfast.text import text_table

    r = fit.receipt
    lines = [
        f"{fit.path}: {r.allocations:,} blocks handed out and {r.frees:,} frees in {r.seconds:.4g} s",
        f"lives: {r.ended:,} ended, {r.censored:,} held at the end (censored), {r.censored_at_gap:,} "
        f"censored at a loss, {r.overwritten:,} handed out again without a free (lifetime not used)",
        f"frees of blocks from before, dropped (truncated): {r.truncated:,}; of parts of blocks: {r.parts:,};"
        f" by compaction, which moved {r.moved:,} of these blocks on: {r.moved_frees:,}",
        f"lost by the recorder: {r.lost:,}; left out: {r.failed:,} requests that got no page, {r.strange:,} "
        f"events that no machine has, {r.other_types:,} of other types, {r.rare:,} blocks of rare kinds",
        *(f"warning: {text}" for text in r.warnings),
    ]
    rows = [row for actor in fit.actors for row in _rows_of(actor)]
    head = ("actor", "blocks/s", "99 %", "share", "99 %", "mean lifetime", "99 %", "off by", "burst on/off")
    return "\n".join(lines) + "\n\n" + text_table(head, rows, left=(0, 8))


def _rows_of(actor: FittedActor) -> list[tuple[str, ...]]:
    """A row for each part of the lifetimes; what holds for all of them stands in the first."""
    from spbfast.fitting.actors_yaml import duration_text, used_parts
    from spbfast.text import format_number

    arrivals, burst = actor.arrivals, actor.burst
    rate = format_number(arrivals.rate), f"{format_number(arrivals.low)}..{format_number(arrivals.high)}"
    off = f"{actor.lifetimes.distance:.3f}" if actor.lifetimes else "-"
    cycle = f"{duration_text(burst.on)}/{duration_text(burst.off)}" if burst else "steady"
    rows = []
    for part in used_parts(actor):
        low, high = duration_text(part.mean_low), duration_text(part.mean_high)
        life = (
            ("not identified", f"at least {low}")
            if part.is_bound
            else (duration_text(part.mean), f"{low}..{high}")
        )
        rows.append((f"{part.share:.4f}", f"{part.share_low:.4f}..{part.share_high:.4f}", *life))
    rows = rows or [("-", "-", "not known", "-")]
    first = (actor.name, *rate, *rows[0], off, cycle)
    return [first, *(("", "", "", *row, "", "") for row in rows[1:])]


def _judged_text(judged: HalvesJudged) -> str:
    from spbfast.text import format_number, text_table

    pairs = (judged.simulated, judged.halves)
    whole = [
        (what, *(f"{getattr(pair, name):.3f}" for pair in pairs))
        for what, name in (
            ("orders", "orders"),
            ("types", "types"),
            ("holders", "holders"),
            ("lifetimes, mean by blocks", "lifetimes"),
            ("blocks a second, ratio", "rate"),
        )
    ]
    near = {kind.name: kind.lifetimes for kind in judged.halves.kinds}
    kinds = [
        (
            kind.name,
            format_number(kind.here),
            format_number(kind.there),
            *("-" if value is None else f"{value:.3f}" for value in (kind.lifetimes, near.get(kind.name))),
        )
        for kind in judged.simulated.kinds
    ]
    head = ("lifetimes by actor", "second half, /s", "simulated, /s", "from simulated", "from first half")
    return (
        "the second half, which the fit has not seen: distances, 0 equal, 1 disjoint\n"
        + text_table(("", "from simulated", "from first half"), whole)
        + "\n\n"
        + text_table(head, kinds)
    )
