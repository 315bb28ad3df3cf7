"""From a results directory to report.html.

Owns which points are drawn, the failures and the provenance; tables.py has the numbers, figures.py the
pictures. The page is written atomically into the directory it describes. Never runs a simulation and
changes nothing but that file.
"""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.config import presets
from spbfast.errors import ResultsError, SpbfastError
from spbfast.outputs.variables import VARIABLES
from spbfast.results.caveats import caveats
from spbfast.results.effects import compare
from spbfast.results.open import open_results
from spbfast.results.plots import point_labels, point_styles
from spbfast.results.report import measures, tables
from spbfast.results.sentences import finding, nothing_differs
from spbfast.results.snippet import snippet
from spbfast.sweep.store.atomic import read_json, write_text
from spbfast.sweep.store.consolidate import results_digest
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.manifest import history_lines
from spbfast.sweep.store.shards import OK, STATUS_NAMES
from spbfast.text import format_ranges, format_seconds

MAX_LINES = 8
MAX_FAILURES = 20


def _content(figures: Any, store: Store, ds: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the page's template fills in."""
    labels = point_labels(ds)
    shown = choose_points(ds)
    styles = point_styles(ds, shown)
    paired = {} if nothing_differs(ds) else paired_tables(ds)
    return {
        "title": manifest["name"],
        "shown": [{"label": labels[i], **_swatch(styles[i])} for i in shown],
        "hidden": ds.sizes["point"] - len(shown),
        "headline": tables.headline(ds, labels),
        "sentence": finding(ds),
        "counts": _counts(ds),
        "left_off": _left_off(manifest),
        "caveats": caveats(ds),
        "failures": failures(store, ds, labels),
        "max_failures": MAX_FAILURES,
        "figures": {
            "spb": figures.superpageblock_panels(ds, styles),
            "contig": figures.contiguity_panels(ds, styles),
            "gigantic": figures.gigantic_panels(ds, styles),
            "causes": figures.cause_panels(ds, styles),
            "memory": figures.memory_panels(ds, styles),
            "flat": [VARIABLES[name].long_name for name in figures.flat_at_zero(ds)],
            "diff": _difference_figure(figures, paired, labels, styles),
        },
        "paired": tables.paired_rows(ds, labels, paired),
        "measures": measures.measure_tables(ds, labels, shown),
        "counters": tables.counter_table(ds, labels, shown),
        "points": tables.point_rows(ds, labels),
        "throughput": tables.throughput(ds, labels),
        "config": ds.attrs.get("config_yaml", ""),
        "provenance": provenance(manifest, ds, store),
        "reproduce": reproduce(manifest),
    }


def build_report(directory: str | Path, target: Path | None = None) -> Path:
    """Write report.html for a results directory.

    Parameters
    ----------
    directory : path
        A results directory, complete or not.
    target : path, optional
        Where to write instead of into the directory.

    Returns
    -------
    Path
        One self-contained page of a few hundred kilobytes.

    Raises
    ------
    ResultsError
        When there are no results.
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
    manifest = store.manifest()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*runs failed and", category=UserWarning)
        ds = open_results(directory)
    content = _content(figures, store, ds, manifest) | {"snippet": "\n".join(snippet(ds, directory))}
    loader = jinja2.PackageLoader("spbfast.results.report", "templates")
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
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


def _swatch(style: dict[str, Any]) -> dict[str, Any]:
    return {"color": style["color"], "dash": "" if style["linestyle"] == "-" else "6 4"}


def _left_off(manifest: dict[str, Any]) -> str:
    """Which modelled patches the policies do without, and why; "" if none."""
    patches = manifest.get("patches_off") or ()
    if not patches:
        return ""
    named = ", ".join(f"{patch:02} ({presets.left_off().get(patch, '')})" for patch in patches)
    return (
        f"Policies of these results do without modelled patches up to their step: {named}. Presets leave "
        f"them off because {presets.WHY_LEFT_OFF}. The presets that end in {presets.FULL} have them."
    )


def _counts(ds: xr.Dataset) -> dict[str, int]:
    status = ds["status"].values
    found = {name: int((status == code).sum()) for code, name in enumerate(STATUS_NAMES)}
    bad = found["failed"] + found["timeout"] + found["lost"]
    return {
        "runs": int(status.size) - found["unneeded"],
        "ok": found["ok"],
        "bad": bad,
        "missing": int(status.size) - found["ok"] - found["unneeded"] - bad,
        "points": ds.sizes["point"],
        "replicates": ds.sizes["replicate"],
    }


def paired_tables(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Comparisons with the baseline by metric; empty without a baseline."""
    found: dict[str, xr.Dataset] = {}
    if not ds["is_baseline"].values.any() or ds.sizes["point"] < 2:
        return found
    for name, _, _ in tables.PAIRED:
        if name in ds.data_vars:
            found[name] = compare(ds, metric=name)
    return found


def _difference_figure(
    figures: Any, paired: dict[str, xr.Dataset], labels: list[str], styles: dict[int, dict[str, Any]]
) -> str:
    table = paired.get("tainted_end")
    if table is None:
        return ""
    usable = np.flatnonzero(np.isfinite(table["difference"].values))[:40]
    if not np.any(table["difference"].values[usable]):
        return ""
    table = table.isel(point=usable)
    return str(figures.difference_plot(table, [labels[int(p)] for p in table["point"].values], styles))


def failures(store: Store, ds: xr.Dataset, labels: list[str]) -> list[dict[str, Any]]:
    """Accounts of runs that are still failed; equal failures of one point share a row."""
    where = {str(p): i for i, p in enumerate(ds["point_id"].values.tolist())}
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for path in sorted(store.failures.glob("*.json")) if store.failures.is_dir() else []:
        try:
            account = read_json(path)
        except ResultsError:
            continue
        i, r = where.get(str(account.get("point_id"))), int(account.get("replicate", -1))
        if i is None or not 0 <= r < ds.sizes["replicate"] or ds["status"].values[i, r] == OK:
            continue
        row = found.setdefault(
            (i, str(account.get("signature"))),
            {**account, "label": labels[i], "file": str(path), "replicates": []},
        )
        row["replicates"].append(r)
    for row in found.values():
        row["replicates"] = format_ranges(sorted(row["replicates"]))
    return [found[key] for key in sorted(found)]


def provenance(manifest: dict[str, Any], ds: xr.Dataset, store: Store) -> list[tuple[str, str]]:
    """What made these results."""
    versions = ", ".join(f"{k} {v}" for k, v in manifest["versions"].items())
    tree = manifest["git_sha"] or "not run from a git tree"
    if manifest["git_sha"] and manifest["git_dirty"]:
        tree += " with uncommitted changes"
    rows = [
        ("created", str(manifest["created"])),
        ("model version", str(manifest["model_version"])),
        ("root seed", str(manifest["root_seed"])),
        ("source tree", tree),
        ("versions", f"Python {manifest['python']}, {versions}"),
        ("machine", f"{manifest['host']}, {manifest['cpu']}"),
        ("configuration", f"{manifest['config_path']}, SHA-256 {ds.attrs.get('config_sha', '')}"),
        ("seeds", "replicate k of every point uses the root seed and k: common random numbers"),
    ]
    rows += [("started again", line) for line in history_lines(manifest)[1:]]
    if "replicates_rule" in ds.attrs:
        reached = f"reached for {int(ds['is_narrow'].sum())} of {ds.sizes['point']} points"
        rows.append(("replicates", f"{ds.attrs['replicates_rule']}; {reached}"))
    if "branch_at_s" in manifest:
        moment = format_seconds(manifest["branch_at_s"])
        text = f"each replicate was aged once under the file's own policy; points differ from {moment} on"
        rows.append(("branch", text))
    if store.results_path.is_file():
        rows.append(("digest of the results", results_digest(store.dir)))
    return rows


def reproduce(manifest: dict[str, Any]) -> str:
    """The command that made these results, or one that does what it did."""
    given = str(manifest["command"])
    if given.startswith("spbfast sweep"):
        return given
    words = ["spbfast", "sweep", str(manifest["config_path"] or "config.yaml")]
    for option, key in (("--set", "overrides"), ("--grid", "grid")):
        words += [word for value in manifest.get(key, ()) for word in (option, str(value))]
    return shlex.join(words)
