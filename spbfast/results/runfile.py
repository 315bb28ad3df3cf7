"""The runs of one scenario as a file that explains itself, and as a sweep of one point.

Owns what `spbfast run -o` keeps beside the model's output: facts of each run, the scenario's identity, and
who made the file from what. In the file a run has the dimension replicate alone; `as_sweep` makes it a sweep
of one point, so that everything that reads sweeps reads it, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from spbfast.jit.sources import kernel_hash
from spbfast.outputs.rundata import dataset_of
from spbfast.sweep.points.plan import make_plan
from spbfast.sweep.store.manifest import default_command, make_manifest, origin_attrs
from spbfast.sweep.store.shards import FACTS, OK, STATUS_NAMES


def run_dataset(job: Any, runs: Sequence[Any], model_version: int) -> xr.Dataset:
    """Runs of a job's own point over (replicate, time, ..), with their facts and their provenance."""
    plan = make_plan(job, model_version)
    ds = dataset_of(runs, job.seed, model_version)
    facts = {
        "status": [OK] * len(runs),
        "seed": [plan.seed_of(plan.points[0].point_id)] * len(runs),
        "digest": [int(run.digest, 16) for run in runs],
        "demand_digest": [int(run.demand_digest, 16) for run in runs],
        "events": [run.events for run in runs],
        "wall_time": [run.wall_s for run in runs],
        "boot_time": [run.boot_s for run in runs],
        "source_hash": [kernel_hash()] * len(runs),
    }
    for name, values in facts.items():
        dtype, _, units, long_name = FACTS[name]
        ds[name] = ("replicate", np.array(values, dtype), {"long_name": long_name, "units": units})
    ds["status"].attrs.update(_status_attrs())
    identity = ((), np.uint64(plan.points[0].point_id), {"long_name": "identity of the scenario"})
    ds = ds.assign_coords(point_id=identity)
    manifest = make_manifest(plan, job, default_command())
    ds.attrs.update(
        origin_attrs(manifest, str(job.source_text or "")) | {"title": f"spbfast run {plan.name}"}
    )
    return ds


def _status_attrs() -> dict[str, Any]:
    return {"flag_values": np.arange(len(STATUS_NAMES), dtype="i1"), "flag_meanings": " ".join(STATUS_NAMES)}


def is_run(ds: xr.Dataset) -> bool:
    """Whether a dataset holds runs of one scenario, as `spbfast run -o` writes them."""
    return "point" not in ds.dims and "replicate" in ds.dims and {"digest", "model_version"} <= set(ds.attrs)


def as_sweep(ds: xr.Dataset) -> xr.Dataset:
    """Runs of one scenario as a sweep of one point, its own baseline."""
    if "status" not in ds:  # from before runs kept their facts
        ds = ds.assign(status=("replicate", np.zeros(ds.sizes["replicate"], "i1"), _status_attrs()))
    point_id = np.uint64(ds["point_id"].item()) if "point_id" in ds.variables else np.uint64(0)
    whole = ds.drop_vars("point_id", errors="ignore").expand_dims("point")
    marks: dict[str, Any] = {"point": [0], "is_baseline": ("point", [True]), "in_grid": ("point", [True])}
    whole = whole.assign_coords(point_id=("point", np.array([point_id])), **marks)
    whole.attrs |= {"sweep_params": "", "n_failed": 0, "n_missing": 0, "n_points": 1}
    return whole
