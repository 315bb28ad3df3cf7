"""The verb that looks on while a sweep runs.

Owns `watch`: the lines of a frame and when the next one is drawn. What is known of the runs comes from
results/unfinished.py and from the view behind `status`. Writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spbfast.cli.directories import failure_lines
from spbfast.cli.options import DirArg, app
from spbfast.text import (
    BLOCKS,
    PLAIN_BLOCKS,
    format_number,
    format_seconds,
    format_share,
    printable,
    quote_value,
    sparkline,
    text_table,
)

if TYPE_CHECKING:
    from spbfast.results.unfinished import PointSoFar, Unfinished
    from spbfast.sweep.store.view import DirectoryState

GOING_ON = ("running", "silent")
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.2, 3600.0
SHARE_OF_CORE = 0.1  # that looking may take, however large the sweep is
WITHOUT_END = 1000  # points shown where nobody scrolls
GAP = 2  # between columns
NARROW = 80  # columns; a narrower terminal has no room for courses
LABEL_MIN = 16  # letters of a point that are always shown
LINES_A_FAILURE = 8  # a screen of 24 lines names three
BASE = "baseline: "
HEAD, BAD, DIM = "bold", "red", "dim"

Line = tuple[str, str]  # text and style


@app.command("watch")
def watch_command(
    directory: DirArg,
    metric: Annotated[
        str, typer.Option("--metric", help="a variable without labels, or a counter")
    ] = "spb_tainted",
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="between two looks, in seconds or with a unit")
    ] = "2s",
    once: Annotated[bool, typer.Option("--once", help="one look, then the end")] = False,
) -> None:
    """Show a metric of every point while the sweep runs, its progress and its failures; ends with the sweep.

    Reads finished runs only, takes no lock and changes nothing. Where standard output is no terminal, prints
    what there is and ends. Control-C ends the watching, not the sweep.
    """
    pause = _seconds(interval)
    frames = _looks(directory, metric)
    if once or not sys.stdout.isatty():
        found, unfinished, under_way = next(frames)
        lines = frame_lines(found, unfinished, under_way, None, None, sys.stdout.encoding)
        typer.echo("\n".join(text for text, _ in lines))
        return
    _show_live(frames, pause)


def _seconds(text: str) -> float:
    from spbfast.config.units import parse_duration

    for read in (float, lambda given: parse_duration(given) / 1e9):
        try:
            seconds = float(read(text))
        except ValueError:
            continue
        if INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
            return seconds
    bounds = f"{INTERVAL_MIN_S:g}s to {INTERVAL_MAX_S:g}s"
    raise typer.BadParameter(
        f"must be a time from {bounds}; got {quote_value(text)}", param_hint="--interval"
    )


def _looks(directory: Path, metric: str) -> Iterator[tuple[DirectoryState, Unfinished, int]]:
    """The sweep as it stands at each call, the last time when it has ended."""
    from spbfast.results.unfinished import Unfinished
    from spbfast.sweep.store.notes import read_notes
    from spbfast.sweep.store.view import look

    unfinished = Unfinished(directory, metric)
    while True:
        found = look(directory)  # before the shards: what has ended by now has written them all
        unfinished.read()
        on = found.state in GOING_ON
        under_way = len({n.cell for n in read_notes(Path(directory) / "running")}) if on else 0
        yield found, unfinished, under_way
        if not on:
            return


def _show_live(frames: Iterator[tuple[DirectoryState, Unfinished, int]], pause: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console, encoding = Console(file=sys.stdout, highlight=False), sys.stdout.encoding
    begin = None  # the first look reads what later ones know, so its cost says nothing of theirs
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for found, unfinished, under_way in frames:
            width, height = console.size
            lines = frame_lines(found, unfinished, under_way, width, height - 1, encoding)
            shown = [Text(text, style, no_wrap=True, overflow="ellipsis") for text, style in lines]
            live.update(Group(*shown), refresh=True)
            if found.state in GOING_ON:
                spent = 0.0 if begin is None else time.process_time() - begin
                time.sleep(max(pause, spent / SHARE_OF_CORE))
                begin = time.process_time()


def frame_lines(
    found: DirectoryState,
    unfinished: Unfinished,
    under_way: int,
    width: int | None,
    height: int | None,
    encoding: str | None = None,
) -> list[Line]:
    """What is shown of a sweep, line by line, with the style of each.

    Parameters
    ----------
    width, height : int or None
        Of the terminal in characters; None where text goes into a file, which has every point up to 1000.
    encoding : str, optional
        Of standard output: courses are drawn in characters that it has.
    """
    head = [*_head(found, under_way), *_what(unfinished)]
    if height is not None:
        found = replace(found, failures=found.failures[: max(1, height // LINES_A_FAILURE)])
    tail: list[Line] = [(text, BAD if text.startswith("  failed") else "") for text in failure_lines(found)]
    room = WITHOUT_END if height is None else max(1, height - len(head) - len(tail) - 2)
    points = unfinished.points
    shown = _most_telling(points, room)
    if len(shown) < len(points):
        tail.insert(0, (f"  {len(points) - len(shown)} more points; shown are those that changed last", DIM))
    return [*head, *_table(unfinished, shown, found.replicates, width, encoding), *tail]


def _head(found: DirectoryState, under_way: int) -> list[Line]:
    done = found.ok + found.failed
    parts = [f"{done} of {found.runs} runs done ({format_share(done, found.runs)})", f"{found.failed} failed"]
    if under_way:
        parts.append(f"{under_way} running")
    if found.eta_s is not None:
        parts.append(f"about {format_seconds(found.eta_s)} left")
    lines = [(f"{printable(found.name)}: {found.state}, {', '.join(parts)}", HEAD)]
    if found.state == "silent":
        lines.append((f"  {found.driver} has not been heard of for two minutes", BAD))
    return lines


def _what(unfinished: Unfinished) -> list[Line]:
    """What the columns show."""
    from spbfast.outputs.counters import counter_docs
    from spbfast.outputs.variables import NEITHER, VARIABLES

    if not unfinished.points:
        return [("  the sweep has not written its points yet", DIM)]
    low, high = unfinished.span(unfinished.points)
    doc = VARIABLES.get(unfinished.metric) or counter_docs().get(unfinished.metric)
    direction = f" ({doc.direction})" if doc is not None and doc.direction != NEITHER else ""
    name = unfinished.metric + direction
    if low != low:
        return [(f"  {name}: no run is done yet", DIM)]
    if not unfinished.has_course:
        over = "replicate by replicate"
    elif len(unfinished.ends_at) == 1:
        over = f"mean of the runs done, from 0 to {next(iter(unfinished.ends_at)):g} s"
    else:
        over = "mean of the runs done, each over its own time"
    scale = f"from {format_number(low)} to {format_number(high)}"
    return [(f"  {name}: {over}, drawn {scale}" if low < high else f"  {name}: {over}, always {scale}", DIM)]


def _most_telling(points: list[PointSoFar], room: int) -> list[PointSoFar]:
    """As many points as there is room for: those that changed last, in the order of the design."""
    if len(points) <= room:
        return points
    order = sorted(range(len(points)), key=lambda i: -points[i].changed)
    return [points[i] for i in sorted(order[:room])]


def _table(
    unfinished: Unfinished, points: list[PointSoFar], replicates: int, width: int | None, encoding: str | None
) -> list[Line]:
    ramp = BLOCKS if _has(encoding, BLOCKS) else PLAIN_BLOCKS
    low, high = unfinished.span(unfinished.points)
    if width is not None and width < NARROW:
        ramp, low, high = "", 0.0, 0.0  # rather the numbers
    header = ("done", "failed", "course", "end", "least..most")
    cells = [_cells(unfinished, point, replicates, (low, high, ramp)) for point in points]
    others = [line.rstrip() for line in text_table(header, cells, left=(2,)).splitlines()]
    labels = [printable(point.label) for point in points]
    if width is not None:
        longest = max(LABEL_MIN, width - GAP - max(map(len, others)) - GAP)
        if max(map(len, labels), default=0) > longest:
            labels = _telling_apart(labels)
        labels = [_without_middle(label, longest) for label in labels]
    text = text_table((), zip(["point", *labels], others, strict=True), left=(0, 1))
    styles = [DIM, *(BAD if point.failed else "" for point in points)]
    return [("  " + line, style) for line, style in zip(text.splitlines(), styles, strict=True)]


def _cells(
    unfinished: Unfinished, point: PointSoFar, replicates: int, scale: tuple[float, float, str]
) -> list[str]:
    ends = point.known_ends()
    course, values = "", ["", ""]
    if ends.size:
        course = sparkline(point.course(by_replicate=not unfinished.has_course), *scale) if scale[2] else ""
        values = [format_number(ends.mean()), f"{format_number(ends.min())}..{format_number(ends.max())}"]
    done = f"{len(point.ends) + len(point.failed)}/{replicates}"
    return [done, str(len(point.failed) or ""), course, *values]


def _telling_apart(labels: list[str]) -> list[str]:
    """Labels without the parts that more than half of them have; as they are where two would become equal."""
    parts = [label.removeprefix(BASE).split(", ") for label in labels]
    shared = {
        part for part, nr in Counter(p for own in parts for p in set(own)).items() if 2 * nr > len(labels)
    }
    kept = [", ".join(part for part in own if part not in shared) or own[0] for own in parts]
    if len(set(kept)) < len(set(labels)):
        return labels
    return [BASE * label.startswith(BASE) + short for label, short in zip(labels, kept, strict=True)]


def _without_middle(text: str, longest: int) -> str:
    """A label that fits; neighbours differ at its end as often as at its beginning."""
    kept = longest - len("...")
    return text if len(text) <= longest else f"{text[: kept - kept // 2]}...{text[-(kept // 2) :]}"


def _has(encoding: str | None, text: str) -> bool:
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
