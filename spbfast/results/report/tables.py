"""Numbers and tables of the report, as plain values for the template.

Owns what is counted and how a number is written. Takes datasets, returns strings in dicts and lists; knows
neither files nor markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spbfast.outputs.variables import NEITHER, VARIABLES
from spbfast.results.analysis import at_time, sweep_params
from spbfast.results.report.metrics import Judged, signed_number
from spbfast.sweep.store.shards import OK
from spbfast.text import format_number, format_seconds, format_value

MAX_ROWS = 200


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


def effect_rows(judged: Sequence[Judged], labels: list[str]) -> dict[str, Any]:
    """The table of differences from the control: a column for each metric that tells points apart."""
    apart = [item for item in judged if not item.is_alike and item.effects]
    if not apart:
        return {}
    head = [
        {
            "name": item.title,
            "direction": item.direction if item.direction != NEITHER else "",
            "control": number(float(item.means[item.control])),
        }
        for item in apart
    ]
    rows = [
        {"label": labels[point], "cells": [_difference_cell(item, point) for item in apart]}
        for point in apart[0].effects
    ]
    return {"head": head, "rows": rows}


def _difference_cell(item: Judged, point: int) -> dict[str, str]:
    effect = item.effects[point]
    if effect.pairs == 0:
        return {"text": "no pair", "interval": "", "verdict": ""}
    better = (effect.difference < 0) == item.direction.startswith("lower")
    verdict = "" if not effect.clear or item.direction == NEITHER else ("better" if better else "worse")
    known = np.isfinite(effect.low)
    interval = f"{signed_number(effect.low)} to {signed_number(effect.high)}" if known else ""
    return {"text": signed_number(effect.difference), "interval": interval, "verdict": verdict}


def counter_table(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
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
        row = {"name": str(name), "cells": [number(float(v)) for v in values]}
        (same if len(labels) > 1 and len(set(row["cells"])) == 1 else rows).append(row)
    return {"head": labels, "rows": rows, "same": same, "silent": silent}


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
