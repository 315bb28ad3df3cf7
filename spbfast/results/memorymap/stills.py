"""Images of films: one frame as PNG, all of them as a moving GIF.

Owns the drawing with Pillow: title, tiles by content, legend, clock. The page (mappage.py) has further
colours and moves at will.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from spbfast.constants import SpbCategory
from spbfast.observed.receipt import shown
from spbfast.results.memorymap.films import Film, check_frame
from spbfast.sweep.store.atomic import atomic_file
from spbfast.text import format_number
from spbfast.tiles import pageblocks as tiles

WIDTH, MARGIN, GAP, FRAME = 1280, 24, 4, 2
MOST_GIF_FRAMES, GIF_MS = 120, 80
INK, SOFT, PAPER = (27, 31, 36), (91, 101, 112), (255, 255, 255)
_FRAMES = {SpbCategory.TAINTED: (194, 65, 12)}
_PLAIN_FRAME = (216, 221, 227)
_LINE = 22


def _colours() -> np.ndarray:
    """Colour of every pair of bytes: uint8 [what, level, 3]."""
    table = np.zeros((256, tiles.ALL_FREE + 1, 3), np.uint8)
    for what in range(256):
        for level in range(tiles.ALL_FREE + 1):
            kind = int(tiles.KIND_OF[what])
            table[what, level] = PAPER if kind == tiles.ABSENT_KIND else tiles.shade(kind, level)
    return table


def write_png(films: Sequence[Film], target: Path, frame: int = -1) -> Path:
    """Write one frame of one film, or of two side by side at the same time.

    Parameters
    ----------
    frame : int
        Of the first film; negative ones count from the end.

    Raises
    ------
    QuestionError
        When there is no such frame.
    StorageError
        When the file cannot be written.
    """
    nr = films[0].nr_frames
    check_frame(frame, nr)
    data = io.BytesIO()
    _drawn(films, frame % nr, _colours()).save(data, "PNG", optimize=True)
    return _write(target, data)


def write_gif(
    films: Sequence[Film], target: Path, say: Callable[[int, int], object] = lambda done, wanted: None
) -> Path:
    """Write a moving image of at most `MOST_GIF_FRAMES` frames; raises as `write_png` does."""
    nr = films[0].nr_frames
    chosen = np.unique(np.linspace(0, nr - 1, min(nr, MOST_GIF_FRAMES)).round().astype(int)).tolist()
    colours = _colours()
    images: list[Image.Image] = []
    for frame in chosen:
        drawn = _drawn(films, frame, colours)
        # One palette for all frames: what did not change stays the same and costs nothing.
        images.append(drawn.quantize(palette=images[0]) if images else drawn.quantize(128))
        say(len(images), len(chosen))
    data = io.BytesIO()
    pauses = [GIF_MS] * (len(images) - 1) + [20 * GIF_MS]
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=pauses, loop=0)
    return _write(target, data)


def _write(target: Path, data: io.BytesIO) -> Path:
    with atomic_file(target) as tmp:
        tmp.write_bytes(data.getvalue())
    return target


def _drawn(films: Sequence[Film], frame: int, colours: np.ndarray) -> Image.Image:
    """A frame of the first film and what others show at that time, side by side."""
    width = WIDTH // len(films)
    time = films[0].times[frame]
    parts = [_draw(film, int(np.abs(film.times - time).argmin()), width, colours) for film in films]
    whole = Image.new("RGB", (width * len(parts), max(part.height for part in parts)), PAPER)
    for i, part in enumerate(parts):
        whole.paste(part, (i * width, 0))
    return whole


def draw_frame(film: Film, frame: int, width: int = WIDTH) -> Image.Image:
    """One frame of a film, with title, clock and legend."""
    return _draw(film, frame, width, _colours())


def _draw(film: Film, frame: int, width: int, colours: np.ndarray) -> Image.Image:
    places, height = _places(film, width - 2 * MARGIN)
    top = MARGIN + 62
    image = Image.new("RGB", (width, top + height + 2 * _LINE + MARGIN), PAPER)
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, MARGIN - 6), _short(film.title, width), INK, _font(22))
    pen.text((MARGIN, MARGIN + 24), _subtitle(film, frame), SOFT, _font(15))
    rgb = colours[film.what[frame], film.room[frame] & tiles.ALL_FREE]
    categories = film.spbs["category"][frame].tolist()
    first = 0
    for (x, y, cell, columns, rows, per_spb), category in zip(places, categories, strict=True):
        own = np.full((rows * columns, 3), 255, np.uint8)
        own[:per_spb] = rgb[first : first + per_spb]
        tile = Image.fromarray(own.reshape(rows, columns, 3)).resize(
            (columns * cell, rows * cell), Image.Resampling.NEAREST
        )
        x, y = MARGIN + x, top + y
        box = (x, y, x + tile.width + 2 * FRAME - 1, y + tile.height + 2 * FRAME - 1)
        pen.rectangle(box, outline=_FRAMES.get(category, _PLAIN_FRAME), width=FRAME)
        image.paste(tile, (x + FRAME, y + FRAME))
        first += per_spb
    _draw_legend(pen, film, frame, (MARGIN, top + height + 8), width)
    return image


def _places(film: Film, width: int) -> tuple[list[tuple[int, int, int, int, int, int]], int]:
    """Place, cell size and shape of every tile; the height that they take. Cells as large as look well."""
    for cell in range(24, 0, -1):
        places, y, fits = [], 0, True
        for zone in film.zones:
            columns, rows = tiles.tile_shape(zone.per_spb)
            wide, high = columns * cell + 2 * FRAME + GAP, rows * cell + 2 * FRAME + GAP
            across = max(1, (width + GAP) // wide)
            fits = fits and wide - GAP <= width
            places += [
                (i % across * wide, y + i // across * high, cell, columns, rows, zone.per_spb)
                for i in range(zone.nr_spb)
            ]
            y += -(-zone.nr_spb // across) * high + GAP
        if (fits and y <= width * 0.62) or cell == 1:
            break
    return places, y


def _subtitle(film: Film, frame: int) -> str:
    tainted = int((film.spbs["category"][frame] == SpbCategory.TAINTED).sum())
    time = format_number(float(film.times[frame]), 1 if film.times[-1] < 1000 else 0)
    end = format_number(float(film.times[-1]))
    return f"{time} s of {end} s: {tainted} of {film.nr_spb} superpageblocks tainted"


def _short(title: str, width: int) -> str:
    return shown(title, max(20, (width - 2 * MARGIN) // 11))


def _draw_legend(
    pen: ImageDraw.ImageDraw, film: Film, frame: int, place: tuple[int, int], width: int
) -> None:
    """The kinds that occur, in one line or two."""
    x, y = place
    counts = np.bincount(tiles.KIND_OF[film.what[frame]], minlength=len(tiles.KINDS))
    for kind, nr in enumerate(counts.tolist()):
        if not nr or kind == tiles.ABSENT_KIND:
            continue
        name = tiles.KINDS[kind].name
        text = f"{film.kind_names.get(name, name)} {nr:,}"
        length = int(pen.textlength(text, _font(14)))
        if x > place[0] and x + length + 20 > width - MARGIN:
            x, y = place[0], y + _LINE
        pen.rectangle((x, y + 3, x + 12, y + 15), fill=tiles.shade(kind, 0), outline=_PLAIN_FRAME)
        pen.text((x + 18, y), text, INK, _font(14))
        x += length + 40


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
