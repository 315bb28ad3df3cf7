"""What a reader must know before the numbers: failures, what was left out, and what made the results.

Owns the words of the report's first and last sections. Reads a results directory and a dataset, and changes
nothing.
"""

from __future__ import annotations

import shlex
from typing import Any

import xarray as xr

from spbfast.config import presets
from spbfast.errors import ResultsError
from spbfast.results.effects import FEW_PAIRS
from spbfast.results.report.metrics import control_of
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.consolidate import results_digest
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.manifest import history_lines
from spbfast.sweep.store.shards import OK, STATUS_NAMES
from spbfast.text import format_ranges, format_seconds


def trust(ds: xr.Dataset, manifest: dict[str, Any]) -> list[str]:
    """What the numbers below rest on, in a few sentences."""
    return [text for text in (_pairing(ds), _few(ds), steps_left_off(manifest)) if text]


def _pairing(ds: xr.Dataset) -> str:
    """Whether replicate k met the same demand in every point."""
    ok = ds["status"].transpose("point", "replicate").values == OK
    if ok.any(axis=1).sum() < 2:
        return ""
    demand = ds["demand_digest"].transpose("point", "replicate").values
    own = demand[control_of(ds)]
    apart = (ok & ok[control_of(ds)] & (demand != own)).any(axis=1)
    if not apart.any():
        return "Replicate k met the same demand in every point (equal digests), so differences are paired."
    return (
        f"{int(apart.sum())} of {len(apart)} points met another demand than the control: what is varied "
        "changes the load itself, and differences are those of the machine and the load together."
    )


def _few(ds: xr.Dataset) -> str:
    n = ds.sizes["replicate"]
    if n >= FEW_PAIRS or ds.sizes["point"] < 2:
        return ""
    runs = "One replicate gives" if n == 1 else f"{n} replicates give"
    kind = "no interval" if n == 1 else "intervals that tend to be too narrow"
    return f"{runs} {kind}; more replicates settle close calls."


def steps_left_off(manifest: dict[str, Any]) -> str:
    """Which modelled patches the policies do without, and why; "" if none."""
    patches = manifest.get("patches_off") or ()
    if not patches:
        return ""
    named = ", ".join(f"{patch:02} ({presets.left_off().get(patch, '')})" for patch in patches)
    return (
        f"Policies of these results do without modelled patches up to their step: {named}. Presets leave "
        f"them off because {presets.WHY_LEFT_OFF}. The presets that end in {presets.FULL} have them."
    )


def counts(ds: xr.Dataset) -> dict[str, int]:
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
