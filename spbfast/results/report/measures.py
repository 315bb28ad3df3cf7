"""Tables of the report about causes: what tainted and un-tainted, how far searches go, what shrinking gains.

Owns which counters stand together and what is derived from them. A table whose counters never moved is left
out. Takes datasets, returns plain values for the template.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from spbfast.results.analysis import at_time
from spbfast.results.report.tables import number

REQUESTED = ("unmovable", "movable", "reclaimable")


def finals(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Final counts of every counter, median over replicates, by point."""
    if "vmstat" not in ds.data_vars:
        return {}
    end = at_time(ds["vmstat"].astype("f8"), "end").median("replicate").transpose("counter", "point").values
    names = [str(name) for name in ds["counter"].values]
    return {name: np.nan_to_num(end[k]) for k, name in enumerate(names)}


def _rows(found: dict[str, np.ndarray], names: list[str], prefix: str) -> list[dict[str, Any]]:
    """Counters that moved, without the beginning that their names share."""
    rows = []
    for name in names:
        if found[name].any():
            label = name.removeprefix(prefix).replace("_", " ")
            rows.append({"name": label, "cells": [number(float(v)) for v in found[name]]})
    return rows


def cause_tables(found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Taints by what served the request, un-taints by what freed the last page."""
    callers = ("taints_by_atomic", "taints_by_optional", "taints_by_blocking")
    named = ("taints_pcp_recycle", "taints_boot", *callers)
    rungs = [n for n in found if n.startswith("taints_") and n not in named]
    tables = {
        "taints": _rows(found, rungs, "taints_"),
        "callers": _rows(found, [n for n in callers if n in found], "taints_by_"),
        "untaints": _rows(found, [n for n in found if n.startswith("untaints_")], "untaints_"),
    }
    return tables if any(tables.values()) else {}


def gigantic_requests(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Requests for gigantic pages: how many were served, and why the others were not."""
    names = ("contig_alloc_success", "contig_alloc_fail", "contig_withdrawn")
    if not any(found[name].any() for name in names if name in found):
        return []
    labels = {
        "contig_alloc_success": "served",
        "contig_alloc_fail": "failed",
        "contig_fail_no_candidate": "failed: unmovable or reclaimable pages in every one left",
        "contig_fail_no_room": "failed: no place for what had to move",
        "contig_fail_pinned": "failed: a pinned page",
        "contig_fail_busy": "failed: a page that stayed busy",
        "contig_withdrawn": "withdrawn before their turn",
    }
    shown = [(name, label) for name, label in labels.items() if name in found and found[name].any()]
    return [{"name": label, "cells": [number(float(v)) for v in found[name]]} for name, label in shown]


def visits(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Superpageblocks stepped on per search, by rung."""
    rows = []
    for name in found:
        rung = name.removeprefix("spb_searched_")
        visited = found.get(f"spb_visited_{rung}")
        if rung == name or visited is None or not found[name].any():
            continue
        cells = [
            f"{number(float(v / s), 2)} of {number(float(s))}" if s else "none"
            for v, s in zip(visited, found[name], strict=True)
        ]
        rows.append({"name": rung.replace("_", " "), "cells": cells})
    return rows


def shrink_runs(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What one run of the shrink worker did, on average."""
    ran = found.get("spb_slab_shrink_ran")
    if ran is None or not ran.any():
        return []
    rows = [{"name": "runs", "cells": [number(float(v)) for v in ran]}]
    parts = (
        ("spb_slab_shrink_scanned", "objects scanned a run"),
        ("spb_slab_shrink_freed", "objects freed a run"),
        ("spb_slab_shrink_pages", "slab pages freed a run"),
        ("spb_slab_shrink_pageblocks", "pageblocks freed a run"),
        ("spb_slab_shrink_no_progress", "share of runs that freed nothing"),
        ("workingset_refault_slab", "inodes looked up again a run"),
    )
    for name, label in parts:
        if name in found and found[name].any():
            cells = [number(float(v / r), 2) if r else "none" for v, r in zip(found[name], ran, strict=True)]
            rows.append({"name": label, "cells": cells})
    return rows


def sticky(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Content bits against pages in use at the end, by type; superpageblocks tainted by bits alone."""
    if "pageblocks_with_content_bit" not in ds.data_vars:
        return []
    rows = []
    for mt in REQUESTED:
        parts = []
        for name in ("pageblocks_with_content_bit", "pageblocks_with_pages_in_use"):
            da = ds[name].sel(migratetype=mt).astype("f8")
            end = at_time(da, "end").median("replicate").values
            parts.append(np.nan_to_num(end))
        if parts[0].any():
            cells = [f"{number(float(u))} of {number(float(b))}" for b, u in zip(*parts, strict=True)]
            rows.append({"name": f"{mt} pageblocks that hold such pages, of those marked", "cells": cells})
    stale = at_time(ds["spb_tainted_by_stale_bits"].astype("f8"), "end").median("replicate").values
    if rows:
        cells = [number(float(v)) for v in np.nan_to_num(stale)]
        rows.append({"name": "superpageblocks tainted by stale marks alone", "cells": cells})
    return rows


def _table(head: list[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows with their header; one column where all columns are equal, {} without rows."""
    if not rows:
        return {}
    if len(head) > 1 and all(len(set(row["cells"])) == 1 for row in rows):
        return {"head": ["every point"], "rows": [{**row, "cells": row["cells"][:1]} for row in rows]}
    return {"head": head, "rows": rows}


def fallback_matrices(found: dict[str, np.ndarray], labels: list[str]) -> list[dict[str, Any]]:
    """Pageblocks that requests of one type took from another's lists, by point: whole or in part.

    Whole ones were relabelled (pageblock_steal), the others got a foreign page (pageblock_pollute).
    """
    matrices = []
    for k, label in enumerate(labels):
        kinds = []
        for kind in ("steal", "pollute"):
            cells = [
                [float(found.get(f"pageblock_{kind}_{a}_from_{b}", np.zeros(k + 1))[k]) for b in REQUESTED]
                for a in REQUESTED
            ]
            kinds.append(_shaded(kind, cells))
        if any(kind["total"] for kind in kinds):
            matrices.append({"label": label, "kinds": kinds})
    return matrices


def _shaded(kind: str, cells: list[list[float]]) -> dict[str, Any]:
    """A matrix with the share of its largest cell in each, for the depth of its colour."""
    most = max(map(max, cells)) or 1
    rows = [
        {
            "name": name,
            "cells": [{"text": number(value), "share": round(100 * value / most)} for value in row],
        }
        for name, row in zip(REQUESTED, cells, strict=True)
    ]
    return {"kind": kind, "rows": rows, "total": sum(map(sum, cells))}


def evacuation(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What moving pages out of tainted superpageblocks did, and what it cost."""
    labels = {
        "spb_evac_ran": "evacuations that ran",
        "spb_evac_pages": "pages moved by them",
        "spb_evac_no_candidate": "evacuations without a candidate",
        "spb_defrag_ran": "defrag work items that ran",
        "spb_defrag_pages": "pages moved by them",
        "spb_compact_pages": "pages moved by compaction inside clean superpageblocks",
        "pgmigrate_success": "pages migrated in all",
        "pgmigrate_fail": "pages that could not be migrated",
        "migrate_ns": "time spent migrating (s)",
    }
    rows = []
    for name, label in labels.items():
        if name in found and found[name].any():
            scale = 1e9 if name.endswith("_ns") else 1.0
            rows.append({"name": label, "cells": [number(float(v / scale)) for v in found[name]]})
    return rows


def measure_tables(ds: xr.Dataset, labels: list[str]) -> dict[str, Any]:
    """All tables of this module, for the points of `ds`; {} where nothing ever moved."""
    found, head = finals(ds), labels
    return {
        "causes": {name: _table(head, rows) for name, rows in cause_tables(found).items()},
        "gigantic": _table(head, gigantic_requests(found)),
        "visits": _table(head, visits(found)),
        "shrink": _table(head, shrink_runs(found)),
        "evacuation": _table(head, evacuation(found)),
        "matrices": fallback_matrices(found, labels),
        "sticky": _table(head, sticky(ds)),
    }
