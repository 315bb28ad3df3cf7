"""Figures of the report as inline SVG.

Owns the choice of panels, and the step from a figure to markup without addresses or scripts. The drawing is
in results/plots.py. Panels whose variable was not recorded are left out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import xarray as xr
from matplotlib.figure import Figure

from spbfast.outputs.variables import VARIABLES
from spbfast.results.plots import ALIKE, PAGE, draw_differences, draw_series
from spbfast.results.sentences import alike, has_gigantic_requests

GIB, MIB = float(1 << 30), float(1 << 20)
PIXELS_PER_INCH = 100
PANEL_WIDTH = 3.75
# Points that have no line elsewhere on the page must not borrow another's colour.
NOT_DRAWN = "#222222"
SUPERPAGEBLOCKS = ("spb_tainted", "spb_clean", "spb_empty")
CONTIGUITY = ("contig_1g_possible", "contig_1g_now")
MEMORY = (
    *("slab_pages", "slab_cached_bytes", "free_pages"),
    *("free_pages_stranded_in_tainted", "pagecache_pages", "pcp_pages"),
)


def to_svg(figure: Figure, key: str) -> str:
    """A figure as an <svg> element; `key` keeps the ids of several figures on a page apart."""
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
    return text.replace("<svg ", f'<svg role="img" style="max-width: {width}px" ', 1)


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
    """A row of panels over time, one a variable; "" when none was recorded."""
    found = [n for n in names if _is_drawn(ds, n) and not _is_flat(ds, n)]
    if not found:
        return ""
    width, height = PANEL_WIDTH * len(found), 2.9
    # Fixed margins: an automatic layout costs a third of the time that a page takes.
    margins = {
        "left": 0.5 / width,
        "right": 1 - 0.15 / width,
        "bottom": 0.47 / height,
        "top": 1 - 0.42 / height,
    }
    inner = (width - 0.65 - 0.55 * (len(found) - 1)) / len(found)
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, len(found), squeeze=False, gridspec_kw={**margins, "wspace": 0.55 / inner})[0]
    for ax, name in zip(axes, found, strict=True):
        da, scale, title = prepare(ds, name)
        same = len(styles) > 1 and alike(ds, name)
        title = f"{title}, the same in all points" if same else title
        draw_series(ax, da, {min(styles): ALIKE} if same else styles, scale=scale, title=title)
    return to_svg(figure, key)


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
    """Tainted, clean and empty superpageblocks."""
    return panels(ds, SUPERPAGEBLOCKS, styles, "spb")


def contiguity_panels(ds: xr.Dataset, styles: dict[int, dict[str, Any]]) -> str:
    """1 GiB pages that are free or obtainable."""
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
    """1 GiB pages held, and requests for them that were served and that failed; "" where none was made."""
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
    rows = {"mem1": MEMORY[:3], "mem2": MEMORY[3:]}
    return "".join(panels(ds, names, styles, key, _as_memory) for key, names in rows.items())


def difference_plot(table: xr.Dataset, labels: list[str], styles: dict[int, dict[str, Any]]) -> str:
    """Dots and intervals of a comparison."""
    drawn = {i: str(style["color"]) for i, style in styles.items()}
    colors = [drawn.get(int(p), NOT_DRAWN) for p in table["point"].values]
    figure = Figure(figsize=(8.4, 0.9 + 0.34 * len(labels)), layout="constrained")
    draw_differences(figure.subplots(), table, labels, colors)
    return to_svg(figure, "diff")
