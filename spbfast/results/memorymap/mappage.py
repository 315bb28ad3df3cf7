"""From films to one self-contained HTML page that plays them.

Owns what the page's script is given. Markup, style and script are in templates/; all text that comes from
users reaches the page as JSON and is set as text. Nothing is loaded from the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.observed.receipt import shown
from spbfast.results.memorymap.films import Film, FilmZone
from spbfast.results.memorymap.lanes import lanes_of
from spbfast.results.memorymap.packing import CHUNK_FRAMES, packed_chunks, packed_columns
from spbfast.sweep.store.atomic import write_text
from spbfast.tiles import pageblocks as tiles

MOST_RUNS = 2
SCRIPTS = (
    "frames",
    "colours",
    "tiles",
    "detail",
    "strip",
    "player",
)  # of templates/, one script in this order
WIDEST = 300  # characters of a user's text


def write_map(films: Sequence[Film], target: Path) -> Path:
    """Write the page.

    Parameters
    ----------
    films : sequence of Film
        One, or two that are played in step.
    target : Path
        The file.

    Raises
    ------
    ResultsError
        For no film, or more than two.
    StorageError
        When the file cannot be written.
    """
    write_text(target, map_page(films))
    return target


def map_page(films: Sequence[Film]) -> str:
    """The page as text."""
    import jinja2

    if not 1 <= len(films) <= MOST_RUNS:
        raise ResultsError(f"a map plays one run or two, not {len(films)}")
    loader = jinja2.PackageLoader("spbfast.results.memorymap", "templates")
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    script = "\n".join(_source(env, f"{name}.js") for name in SCRIPTS)
    title = " and ".join(shown(film.title, WIDEST) for film in films)
    return env.get_template("map.html").render(
        title=title,
        page=page_data(films),
        chunks=[list(packed_chunks(film)) for film in films],
        css=_source(env, "map.css"),
        js=script,
    )


def _source(env: Any, name: str) -> str:
    """The text of a template as it stands: braces in scripts and styles mean nothing here."""
    return str(env.loader.get_source(env, name)[0])


def page_data(films: Sequence[Film]) -> dict[str, Any]:
    """What the script draws from, without the frames."""
    return {
        "kinds": [kind._asdict() for kind in tiles.KINDS],
        "kindOf": tiles.KIND_OF.tolist(),
        "labels": [label._asdict() for label in tiles.LABELS],
        "palest": tiles.PALEST,
        "chunkFrames": CHUNK_FRAMES,
        "runs": [_run_data(film) for film in films],
    }


def _run_data(film: Film) -> dict[str, Any]:
    lanes, silent = lanes_of(film)
    return {
        "title": shown(film.title, WIDEST),
        "facts": [[shown(name), shown(value, WIDEST)] for name, value in film.facts],
        "notes": [shown(note, WIDEST) for note in film.notes],
        "views": list(film.views),
        "kindNames": film.kind_names,
        "zones": [_zone_data(zone) for zone in film.zones],
        "times": [round(float(t), 6) for t in film.times],
        "spbs": packed_columns(film.spbs),
        "lanes": [lane.data() for lane in lanes],
        "silent": silent,
    }


def _zone_data(zone: FilmZone) -> dict[str, Any]:
    columns, rows = tiles.tile_shape(zone.per_spb)
    return {
        "name": shown(zone.name),
        "firstPfn": int(zone.first_pfn),
        "nrSpb": zone.nr_spb,
        "perSpb": zone.per_spb,
        "columns": columns,
        "rows": rows,
    }
