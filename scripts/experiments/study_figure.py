"""The figure of a study: effects with their intervals, one row a point, drawn from the kept numbers alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

from experiments.flagship_figure import STYLE
from experiments.study_numbers import Numbers
from experiments.study_page import Study

CLEAR, UNCLEAR = "#1f5f99", "#8a8a8a"


def fingerprint(study: Study, kept: Mapping[str, Any]) -> str:
    """16 hex digits over the numbers shown; of intervals the last digits are those of a version of SciPy."""
    shown = [
        (label, *(f"{value:.9g}" for value in (e.difference, e.low, e.high)))
        for label, e in study.rows(Numbers(kept))
    ]
    return hashlib.blake2b(json.dumps(shown).encode(), digest_size=8).hexdigest()


def draw(study: Study, kept: Mapping[str, Any]) -> str:
    """The figure as SVG text; the same numbers give the same text."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = study.rows(Numbers(kept))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.27 * len(rows)), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.set_xscale(study.scale)
        if study.scale == "linear":
            axes.axvline(0, color=UNCLEAR, linewidth=1)
        for place, (_, effect) in enumerate(rows):
            color = CLEAR if effect.clear else UNCLEAR
            axes.plot([effect.low, effect.high], [place, place], color=color, linewidth=2)
            axes.plot([effect.difference], [place], "o", color=color, markersize=5)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=study.axis)
        axes.tick_params(axis="y", length=0)
        out = io.StringIO()
        about = {"Date": None, "Title": study.title, "Description": f"numbers {fingerprint(study, kept)}"}
        figure.savefig(out, format="svg", metadata=about)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
