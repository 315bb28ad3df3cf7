"""From a results directory to report.html.

Owns which points are drawn and what stands on the page; trust.py has failures and provenance, metrics.py
what is judged, tables.py the numbers, figures.py the pictures. The page is written atomically into the
directory it describes. Never runs a simulation and changes nothing but that file.
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
from spbfast.results.open import open_results
from spbfast.results.plots import point_labels, point_styles
from spbfast.results.report import measures, tables, trust
from spbfast.results.report.metrics import Judged, judged_metrics, sentence
from spbfast.results.response import responses
from spbfast.results.sentences import finding
from spbfast.results.snippet import snippet
from spbfast.sweep.store.atomic import write_text
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.shards import OK

MAX_LINES = 8
MAX_FAILURES = 20


def _content(figures: Any, store: Store, ds: xr.Dataset, metrics: Sequence[str]) -> dict[str, Any]:
    """What the page's template fills in."""
    manifest = store.manifest()
    labels = point_labels(ds)
    shown = choose_points(ds)
    styles = point_styles(ds, shown)
    drawn, names = ds.isel(point=shown).load(), [labels[i] for i in shown]
    judged = judged_metrics(ds, shown, metrics)
    return {
        "title": manifest["name"],
        "shown": [{"label": labels[i], **figures.swatch(styles[i])} for i in shown],
        "hidden": ds.sizes["point"] - len(shown),
        "sentence": finding(ds),
        "counts": trust.counts(ds),
        "trust": trust.trust(ds, manifest),
        "caveats": caveats(ds),
        "failures": trust.failures(store, ds, labels),
        "max_failures": MAX_FAILURES,
        "metrics": [_metric(figures, ds, drawn, item, labels, styles) for item in judged],
        "effects": tables.effect_rows(judged, labels),
        "control": labels[judged[0].control] if judged else "",
        "figures": _figures(figures, drawn, dict(enumerate(styles.values()))),
        "measures": measures.measure_tables(drawn, names),
        "counters": tables.counter_table(drawn, names),
        "points": tables.point_rows(ds, labels),
        "throughput": tables.throughput(ds, labels),
        "config": ds.attrs.get("config_yaml", ""),
        "provenance": trust.provenance(manifest, ds, store),
        "reproduce": trust.reproduce(manifest),
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


def build_report(directory: str | Path, target: Path | None = None, metrics: Sequence[str] = ()) -> Path:
    """Write report.html for a results directory.

    Parameters
    ----------
    directory : path
        A results directory, complete or not.
    target : path, optional
        Where to write instead of into the directory.
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

    store = Store(directory)
    store.manifest()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs failed and", category=UserWarning)
        ds = open_results(directory)
    loader = jinja2.PackageLoader("spbfast.results.report", "templates")
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    script = env.get_template("page.js").render()
    content = _content(figures, store, ds, metrics) | {
        "snippet": "\n".join(snippet(ds, directory)),
        "style": env.get_template("page.css").render(),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    final = target or store.report_path
    write_text(final, env.get_template("page.html").render(content))
    return final


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
