"""Exhibits: what a report says of each results directory or file that it was made from.

Owns their failures, provenance and the commands that made them. A directory tells these in its manifest, a
file in its attributes. Changes nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from spbfast.errors import ResultsError
from spbfast.results.open import open_results
from spbfast.results.together import FILE
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.consolidate import results_digest
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.manifest import history_lines
from spbfast.sweep.store.shards import OK
from spbfast.text import format_ranges, format_seconds


@dataclass(frozen=True)
class Exhibit:
    """One of the paths that a report shows.

    Attributes
    ----------
    path : Path
        As it was given.
    store : Store or None
        Of a directory.
    facts : mapping
        The manifest, or what a file's attributes tell of it.
    attrs : mapping
        Attributes of its results.
    """

    path: Path
    store: Store | None
    facts: Mapping[str, Any]
    attrs: Mapping[str, Any]


def read_exhibit(path: Path, attrs: Mapping[str, Any] | None = None) -> Exhibit:
    """What a directory or a file says of itself; `attrs` are its results' own, where they are open already.

    Raises
    ------
    ResultsError
        When there are no results.
    """
    if attrs is None:
        with open_results(path) as ds:
            attrs = dict(ds.attrs)
    store = Store(path) if path.is_dir() else None
    return Exhibit(path, store, _facts_of(attrs) if store is None else store.manifest(), attrs)


def _facts_of(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a file under the names of a manifest."""
    versions = {
        name: attrs[f"{name}_version"] for name in ("spbfast", "numba", "numpy") if f"{name}_version" in attrs
    }
    return {
        "name": attrs.get("name", ""),
        "created": attrs.get("created", ""),
        "model_version": attrs.get("model_version", ""),
        "root_seed": attrs.get("root_seed", attrs.get("seed", "")),
        "git_sha": attrs.get("git_sha", ""),
        "git_dirty": attrs.get("git_dirty") == "true",
        "python": attrs.get("python_version", ""),
        "versions": versions,
        "host": attrs.get("hostname", ""),
        "cpu": attrs.get("cpu", ""),
        "command": attrs.get("command", ""),
        "config_path": "",
        "patches_off": [int(patch) for patch in str(attrs.get("patches_left_off", "")).split()],
    }


def failures(exhibit: Exhibit, ds: xr.Dataset, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Accounts of a directory's runs that are still failed; equal failures of one point share a row."""
    if exhibit.store is None or not exhibit.store.failures.is_dir():
        return []
    own = list(range(ds.sizes["point"]))
    if FILE in ds.coords:
        own = [i for i, name in enumerate(ds[FILE].values.tolist()) if name == str(exhibit.path)]
    where = {str(ds["point_id"].values[i]): i for i in own}
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for path in sorted(exhibit.store.failures.glob("*.json")):
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


def account(exhibit: Exhibit, ds: xr.Dataset) -> dict[str, Any]:
    """What the page's last sections say of one exhibit; `ds` holds its points, and may hold others."""
    return {
        "name": str(exhibit.path),
        "config": exhibit.attrs.get("config_yaml", ""),
        "reproduce": reproduce(exhibit.facts),
        "provenance": provenance(exhibit, ds),
    }


def provenance(exhibit: Exhibit, ds: xr.Dataset) -> list[tuple[str, str]]:
    """What made these results."""
    facts = exhibit.facts
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items())
    tree = facts["git_sha"] or "not run from a git tree"
    if facts["git_sha"] and facts["git_dirty"]:
        tree += " with uncommitted changes"
    place = f"{facts['config_path']}, " if facts["config_path"] else ""
    rows = [
        ("created", str(facts["created"])),
        ("model version", str(facts["model_version"])),
        ("root seed", str(facts["root_seed"])),
        ("source tree", tree),
        ("versions", f"Python {facts['python']}, {versions}"),
        ("machine", f"{facts['host']}, {facts['cpu']}"),
        ("configuration", f"{place}SHA-256 {exhibit.attrs.get('config_sha', '')}"),
        ("seeds", "replicate k of every point uses the root seed and k: common random numbers"),
    ]
    if "replicates_rule" in exhibit.attrs and "is_narrow" in ds and FILE not in ds.coords:
        reached = f"reached for {int(ds['is_narrow'].sum())} of {ds.sizes['point']} points"
        rows.append(("replicates", f"{exhibit.attrs['replicates_rule']}; {reached}"))
    if "branch_at_s" in facts:
        moment = format_seconds(facts["branch_at_s"])
        text = f"each replicate was aged once under the file's own policy; points differ from {moment} on"
        rows.append(("branch", text))
    return rows + (_of_directory(exhibit.store, facts) if exhibit.store is not None else [])


def _of_directory(store: Store, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("started again", line) for line in history_lines(manifest)[1:]]
    if store.results_path.is_file():
        rows.append(("digest of the results", results_digest(store.dir)))
    return rows


def reproduce(facts: Mapping[str, Any]) -> str:
    """The command that made these results, or one that does what it did."""
    given = str(facts["command"])
    if given.startswith(("spbfast sweep", "spbfast run")):
        return given
    words = ["spbfast", "sweep", str(facts["config_path"] or "config.yaml")]
    for option, key in (("--set", "overrides"), ("--grid", "grid")):
        words += [word for value in facts.get(key, ()) for word in (option, str(value))]
    return shlex.join(words)
