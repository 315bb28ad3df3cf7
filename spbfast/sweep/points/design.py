"""Which points a sweep visits.

Owns the step from the `sweep` section to a list of points: the baseline, then the rows of zip, points,
points_file or design, each with every combination of the grid, whose last key changes fastest. Knows nothing
of seeds, files or executors.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from spbfast.config.job import Job
from spbfast.errors import ConfigError

SALIB_KINDS = ("saltelli", "morris")


@dataclass(frozen=True, slots=True)
class DesignPoint:
    """One setting of the swept parameters.

    Attributes
    ----------
    values : dict
        {dotted path: value as written in YAML}; a key that is left out stays as the file has it.
    baseline : bool
        The point that the others are compared with.
    in_grid : bool
        Whether it belongs to the rows and the grid.
    row : int
        Which of the rows it comes from.
    """

    values: dict[str, Any]
    baseline: bool = False
    in_grid: bool = True
    row: int = 0


def build_design(job: Job) -> list[DesignPoint]:
    """The points of a job; without a sweep that is one.

    Raises
    ------
    ConfigError
        When a design needs a package that is not installed.
    """
    sweep = job.sweep
    if sweep is None:
        return [DesignPoint({})]
    rows = _rows(job)
    combos = [
        dict(zip(sweep.grid, values, strict=True)) for values in itertools.product(*sweep.grid.values())
    ]
    points = []
    if sweep.grid or rows is not None:
        numbered = enumerate([{}] if rows is None else rows)
        points = [DesignPoint(row | combo, row=i) for i, row in numbered for combo in combos]
    if sweep.baseline:
        values = {path: sweep.baseline[path] for path in job.swept_paths if path in sweep.baseline}
        points.insert(0, DesignPoint(values, baseline=True, in_grid=False))
    return points or [DesignPoint({})]


def _rows(job: Job) -> list[dict[str, Any]] | None:
    """The rows that are given or drawn, None if there are none."""
    if job.sweep is not None and job.sweep.design is not None:
        unit = sample_unit(job.sweep.design, len(job.ranges))
        columns = [range_.at(unit[:, k]) for k, range_ in enumerate(job.ranges.values())]
        return [dict(zip(job.ranges, row, strict=True)) for row in zip(*columns, strict=True)]
    if job.rows is None:
        return None
    paths = list(job.rows.columns)
    return [{path: row[path] for path in paths if path in row} for row in job.rows.rows]


def can_sample(job: Job) -> bool:
    """Whether what the job's design needs is installed."""
    design = job.sweep.design if job.sweep is not None else None
    return design is None or design.kind not in SALIB_KINDS or find_spec("SALib") is not None


def sample_unit(design: Any, d: int) -> np.ndarray:
    """The rows of a design in [0, 1]^d, the same for the same kind, samples, seed and d.

    `sobol` and `random` are prefixes of one another: more samples keep the old ones.

    Raises
    ------
    ConfigError
        When SALib is needed and not installed.
    """
    if design.kind == "random":
        return np.random.default_rng(design.seed).random((design.samples, d))
    if design.kind in SALIB_KINDS:
        return _salib_sample(design, d)
    from scipy.stats import qmc

    if design.kind == "lhs":
        return qmc.LatinHypercube(d, rng=np.random.default_rng(design.seed)).random(design.samples)
    with warnings.catch_warnings():
        # Any number of points is allowed; docs/sweeps.md says that powers of two are best.
        warnings.filterwarnings("ignore", message="The balance properties of Sobol")
        return qmc.Sobol(d, rng=np.random.default_rng(design.seed)).random(design.samples)


def salib_problem(names: Sequence[str]) -> dict[str, Any]:
    """SALib's description of a unit cube."""
    return {"num_vars": len(names), "names": list(names), "bounds": [[0.0, 1.0]] * len(names)}


def _salib_sample(design: Any, d: int) -> np.ndarray:
    try:
        from SALib.sample import morris, sobol
    except ModuleNotFoundError:
        raise ConfigError(
            f"sweep.design.kind: {design.kind} needs SALib; install it with: pip install 'spbfast[sa]'"
        ) from None
    problem = salib_problem([f"x{i}" for i in range(d)])
    seed = design.seed
    if design.kind == "morris":
        rows = morris.sample(problem, design.samples, num_levels=design.levels, seed=seed)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Cc]onvergence properties.*")
            warnings.filterwarnings("ignore", message="The balance properties of Sobol")
            rows = sobol.sample(
                problem, design.samples, calc_second_order=design.second_order, scramble=True, seed=seed
            )
    return np.asarray(rows, float)
