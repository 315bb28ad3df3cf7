"""The picture of the flagship study: docs/_static/flagship.svg, drawn from the raw numbers alone.

Left the count of tainted superpageblocks over the burst, with slab shrink and without, beside the published
one and the steepest run that jumps; right what the last count hangs on. `scripts/study --page` draws it anew;
the file says which numbers it was drawn from, so that a test can tell.
"""

from __future__ import annotations

import hashlib
import io
import json
import statistics
from collections.abc import Mapping
from typing import Any

from experiments.flagship_page import OFF as CONTROL
from experiments.flagship_page import ON as POSTED
from experiments.flagship_page import PUBLISHED_BOOT, PUBLISHED_END, bars, ends, of
from experiments.jump import steepest

JUMPING, JUMP_LINE = "the steepest jump", "#8a8a8a"
SECONDS = 10  # between two samples of the raw numbers
INPUTS = 6  # bars of the right half
OFF, ON, PUBLISHED, BAR = "#1f5f99", "#d9822b", "#444444", "#9bb8d3"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "spbfast",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def numbers(raw: Mapping[str, dict]) -> dict[str, Any]:
    """All that the picture shows."""
    curves = {name: [run["tainted"] for run in of(raw, name)] for name in (CONTROL, POSTED)}
    if key := steepest(raw):
        curves[JUMPING] = [raw[key]["tainted"]]
    return {"curves": curves, "bars": bars(raw)[:INPUTS]}


def fingerprint(raw: Mapping[str, dict]) -> str:
    """16 hex digits over the numbers shown."""
    text = json.dumps([numbers(raw), PUBLISHED_BOOT, PUBLISHED_END])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _median(runs: list[list[int]]) -> list[int]:
    return [sorted(column)[len(column) // 2] for column in zip(*runs, strict=True)]


def _draw_burst(axes: Any, curves: Mapping[str, list[list[int]]]) -> None:
    """Medians over replicates, and the range without shrink."""
    off, on = curves[CONTROL], curves[POSTED]
    time = [SECONDS * i for i in range(len(off[0]))]
    low, high = zip(*((min(c), max(c)) for c in zip(*off, strict=True)), strict=True)
    axes.fill_between(time, low, high, color=OFF, alpha=0.2, linewidth=0)
    axes.plot(time, _median(off), color=OFF, linewidth=2.4, label="simulated, shrink off")
    axes.plot(time, _median(on), color=ON, linewidth=1.4, dashes=(4, 3), label="simulated, shrink on")
    for jumping in curves.get(JUMPING, []):
        axes.plot(time, jumping, color=JUMP_LINE, linewidth=1.2, label="the steepest run that jumps")
    axes.plot(
        [0, time[-1]],
        [PUBLISHED_BOOT, PUBLISHED_END],
        "D",
        color=PUBLISHED,
        markersize=6,
        clip_on=False,
        label="published, shrink off: 8 and 85",
    )
    axes.set(xlabel="seconds of the burst", ylim=(0, 160), xlim=(0, time[-1]), xticks=range(0, 481, 120))
    axes.set_title("tainted superpageblocks, of 238", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.99))


def _draw_inputs(axes: Any, found: list[tuple[str, float, float]], base: float) -> None:
    """One bar an input, from the least to the greatest median of the last count."""
    for row, (_, low, high) in enumerate(found):
        axes.barh(row, high - low, left=low, color=BAR, height=0.6)
    span = (-0.5, len(found) - 0.5)
    axes.plot([base, base], span, color=ON, linewidth=1.4, dashes=(4, 3))
    axes.plot([PUBLISHED_END, PUBLISHED_END], span, color=PUBLISHED, linewidth=1, linestyle=":")
    axes.annotate(f"as configured: {base:g}", (base, -0.55), ha="left", va="bottom", color=ON)
    axes.annotate(f"published: {PUBLISHED_END}", (PUBLISHED_END, -0.55), ha="left", va="bottom")
    axes.set_yticks(range(len(found)), [name for name, _, _ in found])
    axes.set(xlim=(20, 120), ylim=(len(found) - 0.5, -1.1), xlabel="tainted at the end, shrink on")
    axes.set_title("one input varied at a time, medians", loc="left", fontsize=10)
    axes.tick_params(axis="y", length=0)


def draw(raw: Mapping[str, dict]) -> str:
    """The picture as SVG text; the same numbers give the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = numbers(raw)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.6), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_burst(left, shown["curves"])
        _draw_inputs(right, shown["bars"], statistics.median(ends(of(raw, POSTED))))
        out = io.StringIO()
        about = {"Date": None, "Title": "The flagship burst", "Description": f"numbers {fingerprint(raw)}"}
        figure.savefig(out, format="svg", metadata=about)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
