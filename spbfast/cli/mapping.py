"""The verb that shows memory: `map`, a run as tiles that move.

Owns the choice of what is written and where. Never changes results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from spbfast.cli.options import SetOpt, app
from spbfast.cli.patience import explained_wait

SOURCE_HELP = "a configuration, a results directory, a file of results with superpageblocks, or a capture"
_NUMBER = re.compile(r"-?[0-9]{1,9}")
IMAGE_ENDS = {"--png": ".png", "--gif": ".gif"}


@app.command("map")
def map_command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=SOURCE_HELP, show_default=False)],
    second: Annotated[
        Path | None,
        typer.Argument(metavar="[SECOND]", help="another one, played in step", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="the page  [default: DIR/map.html, NAME-map.html]"
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="ID", help="a sweep's point, or baseline; twice plays two"),
    ] = None,
    replicate: Annotated[int, typer.Option("--replicate", help="which replicate")] = 0,
    set_: SetOpt = None,
    versus: Annotated[
        list[str] | None,
        typer.Option("--versus", metavar="KEY=VALUE", help="play the same with this, too, in step"),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="time between frames, such as 1s")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FILE", help="write one frame as an image instead")
    ] = None,
    gif: Annotated[
        Path | None, typer.Option("--gif", metavar="FILE", help="write a moving image instead")
    ] = None,
    frame: Annotated[
        str | None,
        typer.Option(
            "--frame", metavar="N|TIME", help="of --png: a number or a time such as 30s; default: last"
        ),
    ] = None,
) -> None:
    """Play how memory filled: every superpageblock as a tile of its pageblocks, as one HTML page.

    A configuration is simulated, and so is a point of a results directory, again and to the same bits; the
    machine is looked at on the way. Two are played side by side.
    """
    targets = [path for path in (output, png, gif) if path is not None]
    for name, path in (("--output", output), ("--png", png), ("--gif", gif)):
        _must_be_writable(name, path)
    if frame is not None and png is None:
        raise typer.BadParameter("needs --png FILE", param_hint="--frame")
    if png is not None or gif is not None:
        _need_pillow()
    wishes = _wishes(source, second, point or [], replicate, set_ or [], versus or [], _interval(every))
    if png is not None and frame is not None and _NUMBER.fullmatch(frame):
        wishes[0] = replace(wishes[0], frame=int(frame))
    films = [_filmed(wish, len(wishes), number) for number, wish in enumerate(wishes, 1)]
    if png is not None:
        from spbfast.results.memorymap.stills import write_png

        typer.echo(_written(write_png(films, png, _frame_of(films[0], frame))))
    if gif is not None:
        from spbfast.results.memorymap.stills import write_gif

        typer.echo(_written(write_gif(films, gif, _progress("drawing frame"))))
    if output is not None or not targets:
        from spbfast.results.memorymap.mappage import write_map

        typer.echo(_written(write_map(films, output or _place_of(source, films[0]))))


def _wishes(
    source: Path,
    second: Path | None,
    points: list[str],
    replicate: int,
    overrides: list[str],
    versus: list[str],
    every: int | None,
) -> list[Any]:
    """What to film: one run, or two."""
    from spbfast.results.memorymap.named import Wish

    if len(points) > 2:
        raise typer.BadParameter("may be given twice at most", param_hint="--point")
    if versus and (second is not None or len(points) > 1):
        raise typer.BadParameter("needs one SOURCE; there are two already", param_hint="--versus")
    first = Wish(source, points[0] if points else "", replicate, tuple(overrides), every)
    other = points[1] if len(points) > 1 else ""
    if second is not None:
        return [first, Wish(second, other, replicate, tuple(overrides), every)]
    if other:
        return [first, Wish(source, other, replicate, tuple(overrides), every)]
    if versus:
        return [first, Wish(source, first.point, replicate, (*overrides, *versus), every)]
    return [first]


def _filmed(wish: Any, nr: int, number: int) -> Any:
    from spbfast.results.memorymap.named import film_of

    which = f"run {number} of {nr}: " if nr > 1 else ""
    show = _progress(f"{which}frame")
    with explained_wait() as no_longer:

        def say(done: int, wanted: int) -> None:
            no_longer()
            show(done, wanted)

        return film_of(wish, say)


def _progress(what: str) -> Callable[[int, int], object]:
    """A line on a terminal that is written over and over; nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done, wanted: None

    def say(done: int, wanted: int) -> None:
        end = "\r" if done < wanted else "\r\033[K"
        text = f"{what} {done} of {wanted}" if done < wanted else ""
        typer.echo(f"{text}{end}", nl=False, err=True)

    return say


def _must_be_writable(option: str, path: Path | None) -> None:
    if path is None:
        return
    from spbfast.places import check_writable

    try:
        check_writable(path)
    except OSError as error:
        raise typer.BadParameter(str(error.strerror), param_hint=option) from None
    if option in IMAGE_ENDS and path.suffix.lower() != IMAGE_ENDS[option]:
        raise typer.BadParameter(f"must end in {IMAGE_ENDS[option]}, got {path.name}", param_hint=option)


def _need_pillow() -> None:
    from spbfast.errors import SpbfastError

    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise SpbfastError("images need Pillow; install it with: pip install 'spbfast[plot]'") from error


def _interval(text: str | None) -> int | None:
    """Nanoseconds between frames."""
    if text is None:
        return None
    from spbfast.config.units import parse_duration
    from spbfast.constants import NS_PER_TICK

    try:
        found = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from None
    if found <= 0 or found % NS_PER_TICK:
        raise typer.BadParameter("must be a whole number of milliseconds above 0", param_hint="--every")
    return int(found)


def _frame_of(film: Any, text: str | None) -> int:
    """Number of the frame that `--frame` names: a number, or the frame nearest to a time."""
    if text is None:
        return -1
    if _NUMBER.fullmatch(text):
        return int(text)
    from spbfast.config.units import parse_duration

    try:
        seconds = parse_duration(text) / 1e9
    except ValueError as error:
        raise typer.BadParameter(f"{error}, or the number of a frame", param_hint="--frame") from None
    return int(abs(film.times - seconds).argmin())


def _place_of(source: Path, film: Any) -> Path:
    """Where the page goes by default: into a results directory, or beside the user."""
    if source.is_dir():
        return source / "map.html"
    stem = re.sub(r"[^\w.-]+", "-", source.stem).strip("-.") or "memory"
    return Path(f"{stem}-map.html")


def _written(path: Path) -> str:
    return f"{path}: {path.stat().st_size / 1e6:.1f} MB"
