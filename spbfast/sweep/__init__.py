"""Sweeps: points x replicates, run in parallel, safe against interruption.

`sweep` is the public entry. points/ says which runs there are, pools/ where they run, store/ where their
results lie, and run/ ties them together. Nothing here looks inside a simulation.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from spbfast.errors import ArgumentError
from spbfast.sweep.points.plan import Plan, make_plan
from spbfast.sweep.run.driver import run_sweep
from spbfast.sweep.run.outcome import SweepOutcome
from spbfast.sweep.run.sweepoptions import SweepOptions
from spbfast.sweep.store.consolidate import consolidate, results_digest
from spbfast.text import quote_value

__all__ = [
    "Plan",
    "SweepOptions",
    "SweepOutcome",
    "consolidate",
    "make_plan",
    "results_digest",
    "run_sweep",
    "sweep",
]


def sweep(job: Any, outdir: str | Path | None = None, **options: Any) -> SweepOutcome:
    """Run, or continue, a sweep.

    Parameters
    ----------
    job : Job or path
        A loaded configuration, or the YAML file.
    outdir : path, optional
        Results directory, ``results/NAME`` by default.
    **options
        The attributes of `SweepOptions`, such as fail_fast, retry_failed, quiet and progress.

    Returns
    -------
    SweepOutcome
        Its `directory` goes to `spbfast.open_results`.

    Raises
    ------
    ConfigError
        When the configuration is invalid.
    ResultsError
        When the directory belongs to another job or cannot be written.
    ArgumentError
        Another type, or an option that does not exist.
    """
    from spbfast.config import Job, load_config

    if isinstance(job, str | Path):
        job = load_config(job)
    if not isinstance(job, Job):
        raise ArgumentError(
            f"needs a job from load_config, or the path of a YAML file; got {quote_value(job)}"
        )
    return run_sweep(job, outdir if outdir is not None else Path("results") / job.name, **options)


class _CallableModule(ModuleType):
    # Importing this package makes `spbfast.sweep` the module; `spbfast.sweep(job)` has to work all the same.
    def __call__(self, job: Any, outdir: str | Path | None = None, **options: Any) -> SweepOutcome:
        return sweep(job, outdir, **options)


sys.modules[__name__].__class__ = _CallableModule
