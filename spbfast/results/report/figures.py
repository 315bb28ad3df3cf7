"""Figures of the report as inline SVG, a panel each, so that a page can lay them out for its width.

Owns the choice of panels, and the step from a figure to markup without addresses or scripts, whose colours
are the page's. The drawing is in results/plots.py. Panels whose variable was not recorded are left out.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from spbfast.outputs.variables import VARIABLES
from spbfast.results.plots import (
    ALIKE,
    BASELINE,
    PAGE,
    PALETTE,
    draw_points,
    draw_response,
    draw_series,
)
from spbfast.results.report.metrics import Judged, over_time_title, series_of
from spbfast.results.response import Response
from spbfast.results.sentences import alike, has_gigantic_requests

GIB, MIB = float(1 << 30), float(1 << 20)
PIXELS_PER_INCH = 100
PANEL_WIDTH, PANEL_HEIGHT = 3.75, 2.9
SUPERPAGEBLOCKS = ("spb_clean", "spb_empty")
CONTIGUITY = ("contig_1g_without_reclaim", "contig_1g_now")
MEMORY = (
    *("slab_pages", "slab_cached_bytes", "free_pages"),
    *("free_pages_stranded_in_tainted", "pagecache_pages", "pcp_pages"),
)
# Colours of a drawing and the page's name for each, so that the page can have a dark form.
THEME = {
    **{color.lower(): f"var(--c{k})" for k, color in enumerate(PALETTE)},
    **{BASELINE: "var(--base)", "#222222": "var(--ink)", "#444444": "var(--soft)"},
    **{"#999999": "var(--axis)", "#e4e4e4": "var(--grid)"},
}


def to_svg(figure: Figure, key: str, name: str = "") -> str:
    """A figure as markup: a panel with its <svg> element.

    `key` keeps the ids of several figures on a page apart; `name` is what a reader's copy of it is called.
    """
    buffer = io.StringIO()
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "font.family": "sans-serif",
        "path.simplify_threshold": 0.5,
    }
    with mpl.rc_context(settings):
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    # Ids are unique within a figure only, and references would go to the first figure of the page.
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{key}-", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: THEME.get(found[0], found[0]), text)
    said = html.escape(name, quote=True)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{said}" style="max-width: {width}px" ', 1)
    return f'<div class="panel" data-name="{key}">{text}</div>'


def swatch(style: dict[str, Any]) -> dict[str, str]:
    """What a legend on the page needs of a line's style."""
    return {"color": THEME[style["color"].lower()], "dash": "" if style["linestyle"] == "-" else "6 4"}


def _axes(height: float = PANEL_HEIGHT, left: float = 0.5) -> tuple[Figure, Any]:
    """A panel's figure; fixed margins, since an automatic layout costs a third of the time of a page."""
    figure = Figure(figsize=(PANEL_WIDTH, height))
    margins = {
        "left": left / PANEL_WIDTH,
        "right": 1 - 0.15 / PANEL_WIDTH,
        "bottom": 0.47 / height,
        "top": 1 - 0.42 / height,
    }
    return figure, figure.subplots(gridspec_kw=margins)


Panel = tuple[xr.DataArray, float, str]


def _as_recorded(ds: xr.Dataset, name: str) -> Panel:
    return ds[name], 1.0, VARIABLES[name].long_name


def panels(
    ds: xr.Dataset,
    names: tuple[str, ...],
    styles: dict[int, dict[str, Any]],
    key: str,
    prepare: Callable[[xr.Dataset, str], Panel] = _as_recorded,
) -> str:
    """Panels over time, one a variable; "" when none was recorded."""
    found = [n for n in names if _is_drawn(ds, n) and not _is_flat(ds, n)]
    return "".join(_over_time(*prepare(ds, n), styles, f"{key}-{n}", alike(ds, n)) for n in found)


def _over_time(
    da: xr.DataArray, scale: float, title: str, styles: dict[int, dict[str, Any]], key: str, same: bool
) -> str:
    figure, ax = _axes()
    same = same and len(styles) > 1
    title = f"{title}, the same in all points" if same else title
    draw_series(ax, da, {min(styles): ALIKE} if same else styles, scale=scale, title=title)
    return to_svg(figure, key, title)


def metric_panels(
    drawn: xr.Dataset,
    judged: Judged,
    labels: list[str],
    styles: dict[int, dict[str, Any]],
    responses: list[Response],
) -> str:
    """What the page draws of a metric: each point, over time, and against each swept number.

    `drawn` holds the points of `styles` alone, in that order.
    """
    parts = []
    if not judged.is_alike and len(judged.effects):
        parts.append(_points_panel(judged, labels, styles))
    series = series_of(drawn, judged.name)
    if series is not None and bool((series.fillna(0) != 0).any()):
        own = drawn[["status"]].assign({judged.name: series})
        title, same = over_time_title(judged.name, judged.title), alike(own, judged.name)
        rows = dict(enumerate(styles.values()))
        parts.append(_over_time(series, 1.0, title, rows, f"time-{judged.name}", same))
    for response in responses:
        figure, ax = _axes()
        draw_response(ax, response, title=f"{judged.title}, by {response.label}")
        parts.append(
            to_svg(figure, f"by-{judged.name}-{response.name}", f"{judged.title} by {response.label}")
        )
    return "".join(parts)


def _points_panel(judged: Judged, labels: list[str], styles: dict[int, dict[str, Any]]) -> str:
    """Every point's replicates and mean; where there are too many points, the drawn ones."""
    points = sorted({judged.control, *judged.effects})
    points = [i for i in points if np.isfinite(judged.values[i]).any()]
    longest = max(len(labels[i]) for i in points)
    figure, ax = _axes(0.95 + 0.27 * len(points), left=min(0.35 + 0.062 * min(longest, 26), 2.0))
    draw_points(ax, judged.values, points, labels, styles, title=judged.title)
    return to_svg(figure, f"points-{judged.name}", f"{judged.title} by point")


def _is_drawn(ds: xr.Dataset, name: str) -> bool:
    return name in ds.data_vars and "time" in ds[name].dims


def _is_flat(ds: xr.Dataset, name: str) -> bool:
    """Whether a panel would be nothing but its axis."""
    return not bool((ds[name].fillna(0) != 0).any())


def flat_at_zero(ds: xr.Dataset) -> list[str]:
    """Variables that have a place on the page and are 0 throughout, for which no panel is drawn."""
    return [n for n in (*SUPERPAGEBLOCKS, *CONTIGUITY, *MEMORY) if _is_drawn(ds, n) and _is_flat(ds, n)]


def _as_memory(ds: xr.Dataset, name: str) -> Panel:
    """Pages or bytes in the unit that suits their size; migrate types added up."""
    da, title = ds[name], VARIABLES[name].long_name
    if "migratetype" in da.dims:
        da, title = da.sum("migratetype", skipna=False), title.replace(" by migrate type", "")
    size = 1 if VARIABLES[name].units == "byte" else PAGE
    unit, label = (GIB, "GiB") if float(da.max()) * size >= GIB / 2 else (MIB, "MiB")
    return da, unit / size, f"{title} ({label})"


def superpageblock_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """Clean and empty superpageblocks; tainted ones are a metric."""
    return panels(ds, SUPERPAGEBLOCKS, styles, "spb")


def contiguity_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """gigantic pages that are free or obtainable."""
    return panels(ds, CONTIGUITY, styles, "contig")


def cause_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """Taints, un-taints and stale taint over time; "" where nothing was ever tainted."""
    if "vmstat" not in ds.data_vars or "spb_tainted_by_stale_bits" not in ds.data_vars:
        return ""
    counters = {str(name) for name in ds["counter"].values}
    if not {"taints", "untaints"} <= counters or not float(ds["vmstat"].sel(counter="taints").max()):
        return ""
    own = ds[["spb_tainted_by_stale_bits", "status"]]
    for name in ("taints", "untaints"):
        own[name] = ds["vmstat"].sel(counter=name, drop=True)
    titles = {"taints": "superpageblocks tainted so far", "untaints": "superpageblocks un-tainted so far"}

    def prepare(part: xr.Dataset, name: str) -> Panel:
        return part[name], 1.0, titles.get(name) or VARIABLES[name].long_name

    return panels(own, ("taints", "untaints", "spb_tainted_by_stale_bits"), styles, "causes", prepare)


def gigantic_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """gigantic pages held, and requests for them that were served and that failed; "" where none was made."""
    if not has_gigantic_requests(ds):
        return ""
    own = ds[["contig_1g_held", "status"]]
    titles = {"contig_alloc_success": "requests served so far", "contig_alloc_fail": "requests failed so far"}
    for name in titles:
        own[name] = ds["vmstat"].sel(counter=name, drop=True)

    def prepare(part: xr.Dataset, name: str) -> Panel:
        return part[name], 1.0, titles.get(name) or VARIABLES[name].long_name

    return panels(own, ("contig_1g_held", *titles), styles, "gigantic", prepare)


def memory_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """Slab, reclaimable objects and free memory."""
    return panels(ds, MEMORY, styles, "memory", _as_memory)
