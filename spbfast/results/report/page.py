"""From results to report.html.

Owns which points are drawn and what stands on the page; trust.py has what it rests on, exhibits.py failures
and provenance, metrics.py what is judged, tables.py the numbers, figures.py the pictures. The page is written
atomically, that of one directory into it. Never runs a simulation and changes nothing but that file.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import SpbfastError
from spbfast.outputs.variables import VARIABLES
from spbfast.results.caveats import caveats
from spbfast.results.plots import point_labels, point_styles
from spbfast.results.report import exhibits, measures, tables, trust
from spbfast.results.report.exhibits import Exhibit, read_exhibit
from spbfast.results.report.metrics import Judged, judged_metrics, sentence
from spbfast.results.response import responses
from spbfast.results.sentences import finding
from spbfast.results.snippet import snippet
from spbfast.results.together import open_together
from spbfast.sweep.store.atomic import write_text
from spbfast.sweep.store.shards import OK

MAX_LINES = 8
MAX_FAILURES = 20


def _content(
    figures: Any, given: Sequence[Exhibit], ds: xr.Dataset, metrics: Sequence[str]
) -> dict[str, Any]:
    """What the page's template fills in."""
    labels = point_labels(ds)
    shown = choose_points(ds)
    styles = point_styles(ds, shown)
    drawn, names = ds.isel(point=shown).load(), [labels[i] for i in shown]
    judged = judged_metrics(ds, shown, metrics)
    return {
        "title": ", ".join(dict.fromkeys(str(exhibit.facts["name"]) for exhibit in given)),
        "shown": [{"label": labels[i], **figures.swatch(styles[i])} for i in shown],
        "hidden": ds.sizes["point"] - len(shown),
        "sentence": finding(ds),
        "counts": trust.counts(ds),
        "trust": trust.trust(
            ds, sorted({p for exhibit in given for p in exhibit.facts.get("patches_off") or ()})
        ),
        "caveats": caveats(ds),
        "failures": [row for exhibit in given for row in exhibits.failures(exhibit, ds, labels)],
        "max_failures": MAX_FAILURES,
        "metrics": [_metric(figures, ds, drawn, item, labels, styles) for item in judged],
        "effects": tables.effect_rows(judged, labels),
        "control": labels[judged[0].control] if judged else "",
        "figures": _figures(figures, drawn, dict(enumerate(styles.values()))),
        "measures": measures.measure_tables(drawn, names),
        "counters": tables.counter_table(drawn, names),
        "spb_size": ds.attrs.get("superpageblock_size", ""),
        "points": tables.point_rows(ds, labels),
        "throughput": tables.throughput(ds, labels),
        "exhibits": [exhibits.account(exhibit, ds) for exhibit in given],
    }


def _metric(
    figures: Any,
    ds: xr.Dataset,
    drawn: xr.Dataset,
    judged: Judged,
    labels: list[str],
    styles: dict[int, dict[str, Any]],
) -> dict[str, Any]:
    """The section of one metric."""
    curves = [] if judged.is_alike else responses(ds, judged.values)
    return {
        "name": judged.name,
        "title": judged.title,
        "direction": judged.direction,
        "sentence": sentence(judged, labels),
        "figures": figures.metric_panels(drawn, judged, labels, styles, curves),
    }


def _figures(figures: Any, drawn: xr.Dataset, styles: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return {
        "spb": figures.superpageblock_panels(drawn, styles),
        "contig": figures.contiguity_panels(drawn, styles),
        "gigantic": figures.gigantic_panels(drawn, styles),
        "causes": figures.cause_panels(drawn, styles),
        "memory": figures.memory_panels(drawn, styles),
        "flat": [VARIABLES[name].long_name for name in figures.flat_at_zero(drawn)],
    }


def build_report(
    results: str | Path | Sequence[str | Path], target: Path | None = None, metrics: Sequence[str] = ()
) -> Path:
    """Write report.html for a results directory, or one page for several directories and files of runs.

    Parameters
    ----------
    results : path or sequence of path
        Results directories, complete or not, and files that `spbfast run -o` wrote. Of several, the baseline
        is that of the first.
    target : path, optional
        Where to write; by default into the one directory, or report.html in the current one.
    metrics : sequence of str, optional
        Variables without labels besides time, or counters, in the order of the page; by default
        `DEFAULT_METRICS`, without those that stay 0.

    Returns
    -------
    Path
        One self-contained page of a few hundred kilobytes.

    Raises
    ------
    ResultsError
        When there are no results, or a metric does not exist.
    SpbfastError
        When matplotlib is not installed.
    """
    try:
        from spbfast.results.report import figures
    except ImportError as err:
        raise SpbfastError(
            f"the report needs matplotlib ({err}); install it with: pip install 'spbfast[plot]'"
        ) from err
    import jinja2

    paths = [Path(p) for p in ([results] if isinstance(results, str | Path) else results)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs failed and", category=UserWarning)
        ds = open_together(paths)
        given = [read_exhibit(path, ds.attrs if len(paths) == 1 else None) for path in paths]
    loader = jinja2.PackageLoader("spbfast.results.report", "templates")
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    script = env.get_template("page.js").render()
    content = _content(figures, given, ds, metrics) | {
        "snippet": "\n".join(snippet(ds, *paths)),
        "style": env.get_template("page.css").render(),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    final = target or _place_of(given)
    write_text(final, env.get_template("page.html").render(content))
    return final


def _place_of(given: Sequence[Exhibit]) -> Path:
    """Where a page goes that nobody named a place for."""
    store = given[0].store
    return store.report_path if len(given) == 1 and store is not None else Path("report.html")


def choose_points(ds: xr.Dataset) -> list[int]:
    """Points to draw: those with results if few, else the baseline and points spread from best to worst."""
    alive = np.flatnonzero((ds["status"].values == OK).any(axis=1)).tolist()
    if len(alive) <= MAX_LINES:
        return alive
    base = [i for i in alive if ds["is_baseline"].values[i]][:1]
    rest = [i for i in alive if i not in base]
    if "tainted_end" in ds:
        ends = ds["tainted_end"].astype("f8").median("replicate").values
        rest.sort(key=lambda i: (float(ends[i]), i))
    picks = np.linspace(0, len(rest) - 1, MAX_LINES - len(base)).round().astype(int)
    return sorted({*base, *(rest[k] for k in picks.tolist())})
