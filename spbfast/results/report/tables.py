"""Numbers and tables of the report, as plain values for the template.

Owns what is counted and how a number is written. Takes datasets, returns strings in dicts and lists; knows
neither files nor markup.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from spbfast.outputs.variables import NEITHER, VARIABLES
from spbfast.results.analysis import at_time, sweep_params
from spbfast.results.plots import PAGE
from spbfast.results.sentences import alike, has_gigantic_requests
from spbfast.sweep.store.shards import OK
from spbfast.text import format_number, format_seconds, format_value

MAX_ROWS = 200
GIB_PAGES = (1 << 30) // PAGE
# Metric, divisor and unit of the columns of the paired table; all at the end of the run.
PAIRED = (
    ("tainted_end", 1, ""),
    ("tainted_peak", 1, ""),
    ("contig_1g_obtainable", 1, ""),
    ("free_pages_stranded_in_tainted", GIB_PAGES, "GiB"),
    ("slab_pages", GIB_PAGES, "GiB"),
)
HEADLINE = ("tainted_end", "tainted_peak", "spb_clean", "spb_empty", "contig_1g_obtainable", "contig_1g_held")
_EMPTY = {"text": "", "label": ""}


def _range(values: np.ndarray, divisor: float = 1) -> str:
    """Median and range, for a table cell."""
    own = values[np.isfinite(values)] / divisor
    if len(own) == 0:
        return "no result"
    middle, low, high = (number(float(x)) for x in (np.median(own), own.min(), own.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def number(x: float, digits: int | None = None) -> str:
    """A number with a typographic minus."""
    return format_number(x, digits).replace("-", "\N{MINUS SIGN}")


def headline(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
    """The headline metrics at the end of the run: what they mean, the baseline, the range of the others.

    Where every point has the same values there is no best and no worst, and one column says so.
    """
    names = [n for n in HEADLINE if n != "contig_1g_held" or has_gigantic_requests(ds)]
    ends = {n: at_time(ds[n].astype("f8"), "end") for n in names if n in ds.data_vars}
    base = np.flatnonzero(ds["is_baseline"].values)[:1].tolist()
    apart = [n for n, end in ends.items() if not alike(ds.assign({n: end}), n)]
    columns = [*(["baseline"] if base else []), "best point", "worst point"] if apart else ["every point"]
    rows = []
    for name, end in ends.items():
        var, values = VARIABLES[name], end.transpose("point", "replicate").values
        cells = (
            _best_and_worst(name, values, labels, base) if apart else [{"text": _range(values), "label": ""}]
        )
        rows.append(
            {"name": var.long_name, "meaning": var.meaning, "direction": var.direction, "cells": cells}
        )
    return {"columns": columns, "rows": rows}


def _best_and_worst(
    name: str, values: np.ndarray, labels: list[str], base: list[int]
) -> list[dict[str, str]]:
    """Cells for the baseline, the best and the worst of the other points, by their medians."""
    others = [i for i in range(len(values)) if i not in base and np.isfinite(values[i]).any()]
    middles = {i: float(np.nanmedian(values[i])) for i in others}
    order = sorted(others, key=lambda i: middles[i], reverse=VARIABLES[name].direction.startswith("higher"))
    cells = [{"text": _range(values[i]), "label": ""} for i in base]
    if len(set(middles.values())) <= 1:
        same = {"text": _range(values[order[0]]), "label": "all alike"} if order else _EMPTY
        return [*cells, same, _EMPTY]
    return [*cells, *({"text": _range(values[i]), "label": labels[i]} for i in (order[0], order[-1]))]


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
    """Final counts, median over replicates: counters that tell points apart, others that moved, the rest."""
    if "vmstat" not in ds.data_vars:
        return {}
    final = at_time(ds["vmstat"].astype("f8"), "end").median("replicate").transpose("counter", "point").values
    rows: list[dict[str, Any]] = []
    same: list[dict[str, Any]] = []
    silent: list[str] = []
    for k, name in enumerate(ds["counter"].values.tolist()):
        values = final[k]
        if np.nanmax(np.nan_to_num(values)) == 0:
            silent.append(str(name))
            continue
        row = {"name": str(name), "cells": [number(float(values[i])) for i in shown]}
        (same if len(shown) > 1 and len(set(row["cells"])) == 1 else rows).append(row)
    return {"head": [labels[i] for i in shown], "rows": rows, "same": same, "silent": silent}


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
        identity = str(own["point_id"].item())
        rows.append({"params": params, "ok": ok, "cells": cells, "role": name, "id": identity})
    head = [str(ds[n].attrs.get("config_path", n)) for n in names]
    columns = [VARIABLES[m].long_name for m in metrics]
    return {"params": head, "metrics": columns, "rows": rows, "more": ds.sizes["point"] - len(rows)}


def throughput(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
    """How fast the runs were, and which were slowest."""
    ok = ds["status"].values == OK
    if not ok.any():
        return {}
    wall, events = ds["wall_time"].values, ds["events"].astype("f8").values
    boot = np.nan_to_num(ds["boot_time"].values)
    running = np.maximum(wall - boot, 1e-9)
    rate = float(np.median((events / running)[ok]))
    facts = [
        ("runs", f"{int(ok.sum())}"),
        ("page events in all", f"{events[ok].sum():,.0f}"),
        ("page events per second of one run, without boot", f"{rate:,.0f} (median)"),
        ("time of one run", f"{format_seconds(float(np.median(wall[ok])))} (median)"),
        ("its boot phase", f"{format_seconds(float(np.median(boot[ok])))} (median)"),
        ("computing time in all", format_seconds(float(wall[ok].sum()))),
    ]
    if (seconds := float(ds["time"].max()) if "time" in ds.coords else 0.0) > 0:
        ratio = number(float(np.median(seconds / running[ok])))
        facts.insert(3, ("simulated seconds per second, without boot", f"{ratio} (median)"))
    return {"facts": facts, "slowest": _slowest(wall, ok, labels)}


def _slowest(wall: np.ndarray, ok: np.ndarray, labels: list[str]) -> list[str]:
    """The three runs that took longest."""
    order = np.argsort(np.where(ok, wall, -1), axis=None)[::-1][:3]
    cells = [np.unravel_index(k, wall.shape) for k in order.tolist()]
    return [
        f"{labels[int(i)]}, replicate {int(r)}: {format_seconds(float(wall[i, r]))}"
        for i, r in cells
        if ok[i, r]
    ]
