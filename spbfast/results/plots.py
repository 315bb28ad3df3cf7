"""Figures: a dataset and axes in, the axes out.

Owns colours, labels of points and the drawing of bands and intervals. Never opens files and never uses
pyplot, so that it works in threads and leaves the user's figures alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from spbfast.outputs.variables import VARIABLES
from spbfast.results.analysis import band, sweep_params
from spbfast.text import format_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from spbfast.results.response import Response

# Okabe and Ito's palette, which the common forms of colour blindness can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288")
BASELINE = "#666666"
PAGE = 4096
MAX_CORNERS = 160
TITLE_WIDTH = 40  # letters
LINE_WIDTH = 1.6  # points
TICKS_MAX = 5  # more values have no room for their names below a panel
LOG_FROM = 20  # a swept number that spans more than this is drawn on a logarithmic axis


def short_names(names: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """A short label per parameter: the last part of its path, longer where that is not unique."""
    out = {}
    for name, path in zip(names, paths, strict=True):
        parts = path.split(".")
        tails = [".".join(parts[-k:]) for k in range(1, len(parts) + 1)]
        out[name] = next((t for t in tails if sum(f".{p}".endswith(f".{t}") for p in paths) == 1), path)
    return out


def _without_common_words(short: dict[str, str]) -> dict[str, str]:
    """Labels without the words that all of them begin with."""
    words = [text.split("_") for text in short.values()]
    k = 0
    while len(words) > 1 and all(len(w) > k + 1 for w in words) and len({w[k] for w in words}) == 1:
        k += 1
    return {name: " ".join(text.split("_")[k:]) for name, text in short.items()}


def param_words(ds: xr.Dataset, names: Sequence[str]) -> dict[str, str]:
    """Short words for parameters that stand together, without what all of them begin with."""
    short = short_names(names, [str(ds[n].attrs.get("config_path", n)) for n in names])
    return _without_common_words(short)


def point_labels(ds: xr.Dataset) -> list[str]:
    """One label per point: what it sets, without what all points share."""
    names = sweep_params(ds)
    short = short_names(names, [str(ds[n].attrs.get("config_path", n)) for n in names])
    grid = ds["in_grid"].values
    varied = [n for n in names if grid.sum() == 1 or len({str(v) for v in ds[n].values[grid].tolist()}) > 1]
    apart = {n: short[n].replace("_", " ") for n in names if n not in varied}
    inner = _without_common_words({n: short[n] for n in varied})
    shown = {n: _values_as_text(ds[n]) for n in names}
    baseline = ds["is_baseline"].values
    labels = []
    for i in range(ds.sizes["point"]):
        own = inner if grid[i] else apart or inner
        text = ", ".join(f"{label} {shown[n][i]}" for n, label in own.items())
        if baseline[i]:
            text = f"baseline: {text}" if text else "baseline"
        labels.append(text or f"point {i}")
    return labels


def _values_as_text(da: xr.DataArray) -> list[str]:
    """A parameter's values for people; a grid has few of them, however many points."""
    units, values = str(da.attrs.get("units", "")), da.values.tolist()
    known = {value: format_value(value, units) for value in set(values)}
    return [known[value] for value in values]


# One line for all points, where they are the same.
ALIKE = {"color": "#222222", "linestyle": "-", "zorder": 3.0}


def point_styles(ds: xr.Dataset, points: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Line colour and dash of each point; the baseline is grey and dashed."""
    styles, k = {}, 0
    for i in points:
        if ds["is_baseline"].values[i]:
            styles[i] = {"color": BASELINE, "linestyle": (0, (5, 3)), "zorder": 2.0}
        else:
            dash = "-" if k < len(PALETTE) else ":"
            styles[i] = {"color": PALETTE[k % len(PALETTE)], "linestyle": dash, "zorder": 3.0}
            k += 1
    return styles


def draw_series(
    ax: Axes, da: xr.DataArray, styles: dict[int, dict[str, Any]], *, scale: float = 1.0, title: str = ""
) -> Axes:
    """Median over replicates against time for some points, with a band from the 5th to the 95th percentile.

    Parameters
    ----------
    da : DataArray
        Dimensions point, replicate, time.
    styles : dict
        Points to draw and how (`point_styles`).
    scale : float
        Values are divided by it.
    """
    from matplotlib.ticker import MaxNLocator  # labels of points are wanted without matplotlib, too

    bands = {i: band(da.isel(point=i)) for i in styles}
    widths = _line_widths([found["median"].values for found in bands.values()])
    for (i, style), width in zip(styles.items(), widths, strict=True):
        own, found = da.isel(point=i), bands[i]
        t = own["time"].values
        ax.plot(t, found["median"].values / scale, linewidth=width, **style)
        if own.sizes["replicate"] > 1:
            # A band needs no more corners than the panel has pixels; lines are simplified when drawn.
            thin = slice(None, None, -(-len(t) // MAX_CORNERS))
            low, high = (found[q].values[thin] / scale for q in ("p5", "p95"))
            ax.fill_between(t[thin], low, high, color=style["color"], alpha=0.13, linewidth=0, zorder=1)
    ax.set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", fontsize=10, fontweight="bold")
    ax.set_xlabel("simulated time (s)")
    _finish(ax)
    if scale == 1:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    return ax


def _line_widths(lines: Sequence[np.ndarray]) -> list[float]:
    """Points; a line that others lie upon for most of its length is wider, so that it shows on both sides."""
    above = [
        sum(bool(np.mean(line == later) > 0.5) for later in lines[k + 1 :]) for k, line in enumerate(lines)
    ]
    return [LINE_WIDTH + 2 * min(nr, 3) for nr in above]


def draw_points(
    ax: Axes,
    values: np.ndarray,
    points: Sequence[int],
    labels: Sequence[str],
    styles: dict[int, dict[str, Any]],
    *,
    title: str = "",
) -> Axes:
    """A row a point: each replicate as a pale dot, their mean as a full one.

    Parameters
    ----------
    values : ndarray
        float64 [point, replicate]; NaN where a run has no result.
    points : sequence of int
        Which, from top to bottom.
    styles : dict
        Points whose colour is known from elsewhere on the page (`point_styles`); others are dark.
    """
    from matplotlib.ticker import MaxNLocator

    y = np.arange(len(points))[::-1]
    for at, i in zip(y.tolist(), points, strict=True):
        own = values[i][np.isfinite(values[i])]
        color = styles[i]["color"] if i in styles else ALIKE["color"]
        ax.plot(own, np.full(len(own), at), "o", color=color, markersize=4, alpha=0.35, markeredgewidth=0)
        ax.plot(own.mean(), at, "o", color=color, markersize=6.5)
    ax.set_yticks(y)
    _set_plain_labels(ax, [shorten(labels[i]) for i in points])
    ax.set_ylim(-0.7, len(points) - 0.3)
    left = -ax.get_position().x0 / ax.get_position().width  # the labels' edge, not that of the axes
    ax.set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", x=left, fontsize=10, fontweight="bold")
    _finish(ax)
    ax.grid(axis="y", visible=False)
    low, high = np.nanmin(values[list(points)]), np.nanmax(values[list(points)])
    pad = 0.06 * (high - low) or 1
    ax.set_xlim(-0.03 * high if 0 <= low <= 0.6 * high else low - pad, high + pad)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5))
    return ax


def shorten(label: str, width: int = 28) -> str:
    """A label that fits beside a panel."""
    return label if len(label) <= width else f"{label[: width - 3]}..."


def _set_plain_labels(ax: Axes, labels: Sequence[str]) -> None:
    """Labels of the vertical axis; one may contain a dollar sign, which must not start a formula."""
    for text, name in zip(ax.set_yticklabels(labels), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def draw_response(
    ax: Axes, response: Response, *, title: str = "", good: Mapping[str, np.ndarray] | None = None
) -> Axes:
    """A metric against a swept number: a line for each setting of the rest, or a mean with its band.

    Parameters
    ----------
    good : mapping, optional
        bool [x] by a line's label: which values are good enough (`goodenough.knees`). They get full dots,
        the others hollow ones.
    """
    for k, line in enumerate(response.lines):
        color = PALETTE[k % len(PALETTE)]
        ax.plot(response.x, line.mean, "-o", color=color, linewidth=1.6, markersize=4, label=line.label)
        poor = ~(good or {}).get(line.label, np.ones(len(response.x), bool))
        ax.plot(response.x[poor], line.mean[poor], "o", color="white", markeredgecolor=color, markersize=5)
        ax.fill_between(response.x, line.low, line.high, color=color, alpha=0.13, linewidth=0, zorder=1)
    if np.isfinite(response.control):
        ax.axhline(response.control, color=BASELINE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    ax.set_title(textwrap.fill(title, TITLE_WIDTH), loc="left", fontsize=10, fontweight="bold")
    ax.set_xlabel(f"{response.label} ({response.units})" if response.units else response.label)
    if response.x[0] > 0 and response.x[-1] / response.x[0] > LOG_FROM:
        ax.set_xscale("log")
        _tick_what_was_swept(ax, response)
    _finish(ax)
    if len(response.lines) > 1:
        for text in ax.legend(fontsize=8, frameon=False).get_texts():
            text.set_parse_math(False)
    ax.margins(x=0.03)
    return ax


def _tick_what_was_swept(ax: Axes, response: Response) -> None:
    """On a logarithmic axis, few values with their units instead of powers of ten."""
    if len(response.x) <= TICKS_MAX:
        ax.set_xticks(response.x, [format_value(v, response.units) for v in response.x.tolist()])
        ax.set_xticks([], minor=True)
        ax.set_xlabel(response.label)


def draw_differences(ax: Axes, table: xr.Dataset, labels: Sequence[str], colors: Sequence[str]) -> Axes:
    """One dot per point for a paired difference, with its interval; the table comes from `compare`."""
    y = np.arange(len(labels))[::-1]
    for k, name in enumerate(labels):
        low, high = table["ci_low"].values[k], table["ci_high"].values[k]
        ax.plot([low, high], [y[k]] * 2, color=colors[k], linewidth=2.2, solid_capstyle="round")
        ax.plot(table["difference"].values[k], y[k], "o", color=colors[k], markersize=6, label=name)
    ax.axvline(0, color=BASELINE, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
    ax.set_yticks(y)
    _set_plain_labels(ax, labels)
    ax.set_ylim(-0.7, len(labels) - 0.3)
    var = VARIABLES.get(str(table.attrs.get("metric")))
    words = f"change in {var.long_name} ({var.direction})" if var else "change"
    ax.set_xlabel(words)
    _finish(ax)
    ax.grid(axis="y", visible=False)
    return ax


def _finish(ax: Axes) -> None:
    """The common look: two spines, light grid, small ticks."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#999999")
    ax.grid(color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8.5, colors="#444444")
    ax.xaxis.label.set_fontsize(9)
    ax.yaxis.label.set_fontsize(9)
