"""Which inputs decide a result: Sobol indices of a Saltelli design, elementary effects of a Morris design.

Owns the step from a results directory whose sweep has one of these designs to SALib's analysis. Results are
read, never changed.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spbfast.errors import ResultsError
from spbfast.results.analysis import outcomes, when_text
from spbfast.results.open import open_results
from spbfast.sweep.points.design import salib_problem, sample_unit
from spbfast.sweep.points.plan import make_plan
from spbfast.sweep.store.inputs import load_stored
from spbfast.sweep.store.shards import OK, UNNEEDED

SEED = 0
# Ours and SALib's names of what an analysis finds.
COLUMNS = {
    "morris": {name: name for name in ("mu", "mu_star", "mu_star_conf", "sigma")},
    "saltelli": {
        **{"first_order": "S1", "first_order_conf": "S1_conf"},
        **{"total_order": "ST", "total_order_conf": "ST_conf"},
    },
}


def sensitivity(directory: str | Path, metric: str = "spb_tainted", at: str | float = "end") -> xr.Dataset:
    """Sensitivity of a metric to the ranges of a design.

    Parameters
    ----------
    metric, at
        As in `compare`: a variable without labels besides time, and how a series becomes one value. The
        mean over replicates is analysed.

    Returns
    -------
    Dataset
        Along `parameter`: first_order, total_order and their 95 % confidence half widths (saltelli), or
        mu, mu_star, mu_star_conf and sigma (morris).

    Raises
    ------
    ResultsError
        When the sweep has no such design, a run is missing, or SALib is not installed.
    """
    job = load_stored(directory)
    sweep = job.sweep
    design = sweep.design if sweep is not None else None
    if sweep is None or design is None or design.kind not in ("saltelli", "morris"):
        message = "its sweep has no design of kind saltelli or morris; `spbfast init --template sensitivity`"
        raise ResultsError(message, directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = open_results(directory)
        plan = make_plan(job, int(ds.attrs["model_version"]))
        ids = plan.row_ids[bool(sweep.baseline) :]  # the baseline is no row of the design
        values = _values(ds, ids, metric, at, directory)
        if float(np.ptp(values)) == 0:
            raise ResultsError(f"{metric} is {values[0]:g} in every point: nothing decides it", directory)
        found = _analyse(design, values, list(job.ranges), directory)
    when = when_text(ds, metric, at)
    facts = {"metric": metric, "at": str(at), "when": when, "design": design.kind, "points": len(values)}
    out = xr.Dataset(coords={"parameter": list(job.ranges)}, attrs=facts)
    for name, key in COLUMNS[design.kind].items():
        out[name] = ("parameter", np.asarray(found[key], float))
    if design.kind == "saltelli" and design.second_order:
        out["second_order"] = (("parameter", "other"), np.asarray(found["S2"], float))
        out = out.assign_coords(other=list(job.ranges))
    return out


def _analyse(design: Any, values: np.ndarray, names: list[str], directory: str | Path) -> Any:
    """SALib's analysis of one value for each row of the design."""
    try:
        from SALib.analyze import morris, sobol
    except ModuleNotFoundError:
        raise ResultsError("needs SALib; install it with: pip install 'spbfast[sa]'", directory) from None
    problem = salib_problem(names)
    if design.kind == "morris":
        unit = sample_unit(design, len(names))
        return morris.analyze(problem, unit, values, num_levels=design.levels, seed=SEED)
    return sobol.analyze(problem, values, calc_second_order=design.second_order, seed=SEED)


def _values(
    ds: xr.Dataset, ids: list[int], metric: str, at: str | float, directory: str | Path
) -> np.ndarray:
    """The metric of every row of the design, in its order; equal rows share the runs of one point."""
    mean = np.nanmean(outcomes(ds, metric, at), axis=1)
    status = ds["status"].values
    ok = ((status == OK) | (status == UNNEEDED)).all(axis=1)
    place = {int(i, 16): k for k, i in enumerate(ds["point_id"].values.tolist())}
    rows = [place.get(i) for i in ids]
    lacking = sum(r is None or not ok[r] for r in rows)
    if lacking:
        message = f"{lacking} of {len(rows)} points have missing or failed runs; the analysis needs them all"
        raise ResultsError(message, directory)
    return mean[np.array(rows, int)]
