"""What the report says: numbers, tables and words from a results directory.

Owns the content of report.html. The page is written atomically into the directory it describes. Never runs
a simulation and changes nothing but that file.
"""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import ResultsError, SpbfastError
from spbfast.plots import PAGE, format_value, point_labels, point_styles
from spbfast.results import at_time, compare, open_results, sweep_params
from spbfast.sweep.consolidate import results_digest
from spbfast.sweep.files import read_json, write_text
from spbfast.sweep.progress import format_seconds
from spbfast.sweep.shards import OK, STATUS_NAMES
from spbfast.sweep.store import Store
from spbfast.variables import NEITHER, VARIABLES

MAX_LINES = 8
MAX_ROWS = 200
MAX_FAILURES = 20
GIB_PAGES = (1 << 30) // PAGE
# Metric, divisor and unit of the columns of the paired table; all at the end of the run.
PAIRED = (
    ("tainted_end", 1, ""),
    ("tainted_peak", 1, ""),
    ("contig_1g_possible", 1, ""),
    ("free_pages_stranded_in_tainted", GIB_PAGES, "GiB"),
    ("slab_pages", GIB_PAGES, "GiB"),
)


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
        from spbfast.report import figures
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
    labels = point_labels(ds)
    shown = choose_points(ds)
    styles = point_styles(ds, shown)
    paired = paired_tables(ds)
    content = {
        "title": manifest["name"],
        "shown": [{"label": labels[i], **_swatch(styles[i])} for i in shown],
        "hidden": ds.sizes["point"] - len(shown),
        "headline": headline(ds, labels, paired),
        "sentence": sentence(ds, labels, paired),
        "counts": _counts(ds),
        "failures": failures(store, ds, labels),
        "max_failures": MAX_FAILURES,
        "figures": {
            "spb": figures.superpageblocks(ds, styles),
            "contig": figures.contiguity(ds, styles),
            "memory": figures.memory(ds, styles),
            "diff": _difference_figure(figures, paired, labels, styles),
        },
        "paired": paired_rows(ds, labels, paired),
        "counters": counter_table(ds, labels, shown),
        "points": point_rows(ds, labels),
        "throughput": throughput(ds, labels),
        "config": ds.attrs.get("config_yaml", ""),
        "provenance": provenance(manifest, ds, store),
        "reproduce": reproduce(manifest),
        "open_path": repr(str(directory)),
    }
    loader = jinja2.PackageLoader("spbfast.report", "templates")
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    final = target or store.dir / "report.html"
    write_text(final, env.get_template("page.html").render(content))
    return final


def choose_points(ds: xr.Dataset) -> list[int]:
    """Points to draw: all if few, else the baseline and points spread over the order of their outcome."""
    n = ds.sizes["point"]
    if n <= MAX_LINES:
        return list(range(n))
    base = np.flatnonzero(ds["is_baseline"].values)[:1].tolist()
    rest = [i for i in range(n) if i not in base]
    if "tainted_end" in ds:
        ends = ds["tainted_end"].astype("f8").median("replicate").fillna(np.inf).values
        rest.sort(key=lambda i: (float(ends[i]), i))
    picks = np.linspace(0, len(rest) - 1, MAX_LINES - len(base)).round().astype(int)
    return sorted({*base, *(rest[k] for k in picks.tolist())})


def _swatch(style: dict[str, Any]) -> dict[str, Any]:
    return {"color": style["color"], "dash": "" if style["linestyle"] == "-" else "6 4"}


def _counts(ds: xr.Dataset) -> dict[str, int]:
    status = ds["status"].values
    found = {name: int((status == code).sum()) for code, name in enumerate(STATUS_NAMES)}
    bad = found["failed"] + found["timeout"] + found["lost"]
    return {
        "runs": int(status.size),
        "ok": found["ok"],
        "bad": bad,
        "missing": int(status.size) - found["ok"] - bad,
        "points": ds.sizes["point"],
        "replicates": ds.sizes["replicate"],
    }


def paired_tables(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Comparisons with the baseline by metric; empty without a baseline."""
    tables: dict[str, xr.Dataset] = {}
    if not ds["is_baseline"].values.any() or ds.sizes["point"] < 2:
        return tables
    for name, _, _ in PAIRED:
        if name in ds.data_vars:
            tables[name] = compare(ds, metric=name)
    return tables


def _range(values: np.ndarray, divisor: float = 1) -> str:
    """Median and range, for a table cell."""
    own = values[np.isfinite(values)] / divisor
    if len(own) == 0:
        return "no result"
    middle, low, high = (number(float(x)) for x in (np.median(own), own.min(), own.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def number(x: float, digits: int | None = None) -> str:
    """A number for people: `digits` decimals, or as many as it needs up to three figures."""
    if not np.isfinite(x):
        return "none"
    if digits is not None:
        text = f"{x:,.{digits}f}"
    elif x == round(x) or abs(x) >= 1000:
        text = f"{x:,.0f}"
    else:
        text = f"{x:.3g}" if abs(x) < 100 else f"{x:.1f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else text.lstrip("-")


def headline(ds: xr.Dataset, labels: list[str], paired: dict[str, xr.Dataset]) -> list[dict[str, str]]:
    """The headline metrics at the end of the run: what they mean, the baseline, the range of the others."""
    base = np.flatnonzero(ds["is_baseline"].values)[:1].tolist()
    rows = []
    for name in ("tainted_end", "tainted_peak", "spb_clean", "spb_empty", "contig_1g_possible"):
        if name not in ds.data_vars:
            continue
        var = VARIABLES[name]
        values = at_time(ds[name].astype("f8"), "end").transpose("point", "replicate").values
        others = [i for i in range(ds.sizes["point"]) if i not in base]
        middles = {i: float(np.nanmedian(values[i])) for i in others if np.isfinite(values[i]).any()}
        alike = len(set(middles.values())) == 1
        order = sorted(middles, key=lambda i: middles[i], reverse=var.direction.startswith("higher"))
        rows.append(
            {
                "name": var.long_name,
                "meaning": var.meaning,
                "direction": var.direction,
                "baseline": _range(values[base[0]]) if base else "",
                "best": _range(values[order[0]]) if order else "",
                "best_label": ("all alike" if alike else labels[order[0]]) if order else "",
                "worst": _range(values[order[-1]]) if order and not alike else "",
                "worst_label": labels[order[-1]] if order and not alike else "",
            }
        )
    return rows


def sentence(ds: xr.Dataset, labels: list[str], paired: dict[str, xr.Dataset]) -> str:
    """The finding in one sentence, or why there is none."""
    table = paired.get("tainted_end")
    if table is None:
        return "This sweep has no baseline, so there is nothing to compare with."
    usable = np.isfinite(table["difference"].values)
    if not usable.any():
        return "No point has a run that can be paired with the baseline."
    k = int(np.nanargmin(np.where(usable, table["difference"].values, np.nan)))
    row = {n: float(table[n].values[k]) for n in ("control", "value", "difference", "ci_low", "ci_high")}
    n = int(table["pairs"].values[k])
    change = "fewer" if row["difference"] < 0 else "more"
    best = labels[int(table["point"].values[k])]
    text = (
        f"The point with the fewest tainted superpageblocks at the end ({best}) has {number(row['value'])} "
        f"on average, {number(abs(row['difference']))} {change} than the baseline's {number(row['control'])}"
    )
    if np.isfinite(row["ci_low"]):
        text += (
            f"; 95 % interval of the change {number(row['ci_low'])} to {number(row['ci_high'])}, {n} pairs"
        )
        if row["ci_low"] <= 0 <= row["ci_high"]:
            text += ", which includes no change"
    else:
        text += f"; {n} pair, too few for an interval"
    return text + "."


def _difference_figure(
    figures: Any, paired: dict[str, xr.Dataset], labels: list[str], styles: dict[int, dict[str, Any]]
) -> str:
    table = paired.get("tainted_end")
    if table is None:
        return ""
    usable = np.flatnonzero(np.isfinite(table["difference"].values))[:40]
    if len(usable) == 0:
        return ""
    table = table.isel(point=usable)
    return str(figures.differences(table, [labels[int(p)] for p in table["point"].values], styles))


def paired_rows(ds: xr.Dataset, labels: list[str], paired: dict[str, xr.Dataset]) -> dict[str, Any]:
    """The table of paired differences: header with the baseline's values, one row a point."""
    columns = [(n, d, u) for n, d, u in PAIRED if n in paired]
    if not columns:
        return {}
    head = []
    for name, divisor, unit in columns:
        control = paired[name]["control"].values
        known = control[np.isfinite(control)]
        head.append(
            {
                "name": VARIABLES[name].long_name + (f", {unit}" if unit else ""),
                "direction": VARIABLES[name].direction if VARIABLES[name].direction != NEITHER else "",
                "baseline": number(float(known[0]) / divisor, 1) if len(known) else "none",
            }
        )
    rows = []
    first = next(iter(paired.values()))
    for k, point in enumerate(first["point"].values.tolist()[:MAX_ROWS]):
        cells = [_difference_cell(paired[n], k, d, VARIABLES[n].direction) for n, d, _ in columns]
        rows.append({"label": labels[point], "pairs": int(first["pairs"].values[k]), "cells": cells})
    return {"head": head, "rows": rows, "few": ds.sizes["replicate"] < 10}


def _difference_cell(table: xr.Dataset, k: int, divisor: float, direction: str) -> dict[str, str]:
    diff, low, high = (float(table[n].values[k]) / divisor for n in ("difference", "ci_low", "ci_high"))
    if not np.isfinite(diff):
        return {"text": "no pairs", "interval": "", "verdict": ""}
    sign = "+" if diff > 0 else ""
    clear = np.isfinite(low) and (low > 0 or high < 0)
    better = (diff < 0) == direction.startswith("lower")
    verdict = "" if not clear or direction.startswith("neither") else ("better" if better else "worse")
    interval = f"{number(low, 1)} to {number(high, 1)}" if np.isfinite(low) else ""
    return {"text": sign + number(diff, 1), "interval": interval, "verdict": verdict}


def counter_table(ds: xr.Dataset, labels: list[str], shown: list[int]) -> dict[str, Any]:
    """Final counts, median over replicates, of every counter that ever moved."""
    if "vmstat" not in ds.data_vars:
        return {}
    final = at_time(ds["vmstat"].astype("f8"), "end").median("replicate").transpose("counter", "point").values
    rows, silent = [], []
    for k, name in enumerate(ds["counter"].values.tolist()):
        values = final[k]
        if np.nanmax(np.nan_to_num(values)) == 0:
            silent.append(str(name))
            continue
        rows.append({"name": str(name), "cells": [number(float(values[i])) for i in shown]})
    return {"head": [labels[i] for i in shown], "rows": rows, "silent": silent}


def point_rows(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
    """Every point: parameters, runs, end state, identity."""
    names = sweep_params(ds)
    metrics = [n for n in ("tainted_end", "tainted_peak") if n in ds.data_vars]
    rows = []
    for i in range(min(ds.sizes["point"], MAX_ROWS)):
        own = ds.isel(point=i)
        params = [format_value(own[n].item(), str(ds[n].attrs.get("units", ""))) for n in names]
        ok = int((own["status"].values == OK).sum())
        cells = [_range(own[m].astype("f8").values) for m in metrics]
        name = "baseline" if own["is_baseline"].item() else ""
        identity = f"{int(own['point_id'].item()):016x}"
        rows.append({"params": params, "ok": ok, "cells": cells, "role": name, "id": identity})
    head = [str(ds[n].attrs.get("config_path", n)) for n in names]
    columns = [VARIABLES[m].long_name for m in metrics]
    return {"params": head, "metrics": columns, "rows": rows, "more": ds.sizes["point"] - len(rows)}


def failures(store: Store, ds: xr.Dataset, labels: list[str]) -> list[dict[str, Any]]:
    """Accounts of failed runs, as far as they are still failed."""
    where = {f"{int(p):016x}": i for i, p in enumerate(ds["point_id"].values.tolist())}
    found = []
    for path in sorted(store.failures.glob("*.json")) if store.failures.is_dir() else []:
        try:
            account = read_json(path)
        except ResultsError:
            continue
        i, r = where.get(str(account.get("point_id"))), int(account.get("replicate", -1))
        if i is None or not 0 <= r < ds.sizes["replicate"] or ds["status"].values[i, r] == OK:
            continue
        found.append({**account, "label": labels[i], "file": str(path)})
    return found


def throughput(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
    """How fast the runs were, and which were slowest."""
    ok = ds["status"].values == OK
    wall, events = ds["wall_time"].values, ds["events"].astype("f8").values
    boot = np.nan_to_num(ds["boot_time"].values)
    if not ok.any():
        return {}
    running = np.maximum(wall - boot, 1e-9)
    seconds = float(ds["time"].max()) if "time" in ds.coords else 0.0
    order = np.argsort(np.where(ok, wall, -1), axis=None)[::-1][:3]
    slowest = [np.unravel_index(k, wall.shape) for k in order.tolist()]
    facts = [
        ("runs", f"{int(ok.sum())}"),
        ("page events in all", f"{events[ok].sum():,.0f}"),
        (
            "page events per second of one run, boot left out",
            f"{np.median((events / running)[ok]):,.0f} (median)",
        ),
        ("time of one run", f"{format_seconds(float(np.median(wall[ok])))} (median)"),
        ("boot phase of it", f"{format_seconds(float(np.median(boot[ok])))} (median)"),
        ("computing time in all", format_seconds(float(wall[ok].sum()))),
    ]
    if seconds > 0:
        ratio = float(np.median(seconds / running[ok]))
        facts.insert(3, ("simulated seconds per second, boot left out", f"{number(ratio)} (median)"))
    return {
        "facts": facts,
        "slowest": [
            f"{labels[int(i)]}, replicate {int(r)}: {format_seconds(float(wall[i, r]))}"
            for i, r in slowest
            if ok[i, r]
        ],
    }


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
    if store.results_path.is_file():
        rows.append(("digest of the results", results_digest(store.dir)))
    return rows


def reproduce(manifest: dict[str, Any]) -> str:
    """The command that made these results."""
    given = str(manifest["command"])
    if given.startswith("spbfast sweep"):
        return given
    return shlex.join(["spbfast", "sweep", str(manifest["config_path"] or "config.yaml")])
