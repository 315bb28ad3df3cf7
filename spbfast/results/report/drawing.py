"""One figure of a dataset in a file: what `spbfast plot` makes.

Owns the kinds of figures, their size and legend, and the step to PNG, SVG or PDF. The drawing is in plots.py,
the numbers come from analysis.py, effects.py and response.py.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError, ResultsError, SpbfastError
from spbfast.results.analysis import outcomes
from spbfast.results.effects import compare
from spbfast.results.goodenough import knees
from spbfast.results.plots import (
    ALIKE,
    draw_differences,
    draw_points,
    draw_response,
    draw_series,
    point_labels,
    point_styles,
)
from spbfast.results.report.metrics import control_of, over_time_title, series_of, words_of
from spbfast.results.report.page import choose_points
from spbfast.results.response import Response, find_swept_number, responses
from spbfast.sweep.store.atomic import atomic_file
from spbfast.text import suggest_or_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("time", "points", "differences", "response")
FORMS = ("png", "svg", "pdf")
DPI = 200
UNDATED: dict[str, dict[str, None]] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
WORDS_WIDTH = 110  # letters of a line below a figure
NAMED_MAX = 6  # points in a sentence
ROWS_MAX = 40  # more rows than this have no room for their labels


def draw_figure(ds: xr.Dataset, metric: str, kind: str = "", over: str = "") -> Figure:
    """One metric of a dataset as a matplotlib figure.

    Parameters
    ----------
    ds : Dataset
        From `open_results`.
    metric : str
        A variable without labels besides time, or a counter.
    kind : {"time", "points", "differences", "response"}, optional
        Over time; every run of each point; paired differences from the baseline; against a swept number. By
        default over time where that was recorded, else points.
    over : str, optional
        Of a response: the swept key, such as ``policy.slab_shrink_throttle``; by default the only one.

    Raises
    ------
    QuestionError
        An unknown kind, or a key that no curve can be drawn against.
    ResultsError
        The metric does not exist, or was not recorded over time.
    """
    values = outcomes(ds, metric)
    kind = kind or ("response" if over else "points" if series_of(ds, metric) is None else "time")
    draw = {"time": _time, "points": _points, "differences": _differences, "response": _curve}.get(kind)
    if draw is None:
        raise QuestionError(f"there is no kind {kind!r}{suggest_or_list(kind, KINDS)}")
    return draw(ds, metric, values, over)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure in the form that the file's name ends with; the file appears whole or not at all.

    Equal figures make equal files: neither the time nor a random number is in them.
    """
    import matplotlib as mpl

    path = Path(path)
    form = check_figure_name(path)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "spbfast"}):
        figure.savefig(buffer, format=form, dpi=DPI, metadata=UNDATED[form])
    with atomic_file(path) as scratch:
        scratch.write_bytes(buffer.getvalue())
    return path


def check_figure_name(path: Path) -> str:
    """The form that a file's name asks for.

    Raises
    ------
    QuestionError
        When it is none that can be written.
    """
    form = path.suffix.lower().lstrip(".")
    if form not in FORMS:
        known = ", ".join(f".{name}" for name in FORMS)
        raise QuestionError(f"{path}: a figure's name must end with one of {known}")
    return form


def _figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise SpbfastError(
            f"a plot needs matplotlib ({err}); install it with: pip install 'spbfast[plot]'"
        ) from err
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _say(figure: Figure, title: str) -> None:
    """A title from the figure's left edge on, which the labels of rows leave free."""
    text = figure.suptitle(
        textwrap.fill(title, WORDS_WIDTH - 30), x=0.01, ha="left", fontsize=10, fontweight="bold"
    )
    text.set_parse_math(False)


def _say_below(figure: Figure, words: str) -> None:
    """A sentence below the figure, as small as the numbers."""
    text = figure.supxlabel(textwrap.fill(words, WORDS_WIDTH), x=0.01, ha="left", fontsize=8, color="#444444")
    text.set_parse_math(False)


def _time(ds: xr.Dataset, metric: str, values: np.ndarray, over: str) -> Figure:
    series = series_of(ds, metric)
    if series is None:
        raise ResultsError(f"{metric} was not recorded over time; --kind points draws its ends")
    labels, shown = point_labels(ds), choose_points(ds)
    styles = point_styles(ds, shown)
    figure, ax = _figure()
    draw_series(ax, series, styles, title=over_time_title(metric, words_of(metric)[0]))
    names = [labels[i] for i in styles]
    for text in ax.legend(ax.get_lines(), names, fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)  # a label may contain a dollar sign
    return figure


def _points(ds: xr.Dataset, metric: str, values: np.ndarray, over: str) -> Figure:
    alive = np.flatnonzero(np.isfinite(values).any(axis=1)).tolist()
    if not alive:
        raise ResultsError(f"no run has a result for {metric}")
    points = alive if len(alive) <= ROWS_MAX else choose_points(ds)
    figure, ax = _figure(height=1.2 + 0.27 * len(points))
    styles = point_styles(ds, points) if len(points) <= len(choose_points(ds)) else {}
    labels = point_labels(ds)
    draw_points(ax, values, points, labels, styles)
    _say(figure, words_of(metric)[0])
    without = [labels[i].removeprefix("baseline: ") for i in range(ds.sizes["point"]) if i not in alive]
    if without:
        _say_below(figure, f"No run has a result: {'; '.join(without[:NAMED_MAX])}.")
    return figure


def _differences(ds: xr.Dataset, metric: str, values: np.ndarray, over: str) -> Figure:
    own = ds.assign_coords(is_baseline=("point", np.arange(ds.sizes["point"]) == control_of(ds)))
    table = compare(own, metric=metric)
    known = np.flatnonzero(np.isfinite(table["difference"].values))[:ROWS_MAX]
    if not len(known):
        raise ResultsError(f"no two points have a pair of runs with a result for {metric}")
    table, labels = table.isel(point=known), point_labels(ds)
    figure, ax = _figure(height=1.5 + 0.3 * len(known))
    names = [labels[int(i)] for i in table["point"].values]
    draw_differences(ax, table, names, [str(ALIKE["color"])] * len(names))
    _say(figure, _against(table, labels[control_of(ds)]))
    return figure


def _against(table: xr.Dataset, control: str) -> str:
    pairs = sorted({int(nr) for nr in table["pairs"].values})
    nr = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    return f"against {control.removeprefix('baseline: ')}: means of {nr} pairs, 95 % intervals"


def _curve(ds: xr.Dataset, metric: str, values: np.ndarray, over: str) -> Figure:
    name = find_swept_number(ds, over)
    found = [curve for curve in responses(ds, values) if curve.name == name]
    if not found:
        raise ResultsError(f"{metric} has results at fewer than three values of {name}")
    figure, ax = _figure()
    good, words = _good_enough(ds, metric, name, found[0])
    draw_response(ax, found[0], title=words_of(metric)[0], good=good)
    if words:
        _say_below(figure, words)
    return figure


def _good_enough(
    ds: xr.Dataset, metric: str, name: str, response: Response
) -> tuple[dict[str, np.ndarray], str]:
    """Which values of each line are good enough, and the verdict; nothing where no direction is better."""
    try:
        found = knees(ds, name, metric)
    except QuestionError:
        return {}, ""
    labels = [line.label for line in response.lines]
    by_line = dict(zip(labels, found, strict=True)) if len(labels) == len(found) == 1 else {}
    by_line = by_line or {knee.setting: knee for knee in found if knee.setting in labels}
    good = {
        label: np.isin(response.x, [level.value for level in knee.levels if level.is_good])
        for label, knee in by_line.items()
        if knee.lower is not None or knee.upper is not None
    }
    if len(labels) > 1:
        return good, f"Full dots: good enough, as spbfast knee --over {response.label} says." if good else ""
    return good, next((knee.words for knee in by_line.values()), "")
