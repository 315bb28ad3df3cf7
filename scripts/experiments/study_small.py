"""A study at reduced scale: the two points of its headline, for a shorter time and with fewer replicates."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.machines import configs
from experiments.study_numbers import Numbers, keep
from experiments.study_page import Study
from spbfast.config import load_config
from spbfast.config.job import Job
from spbfast.config.rows import RowTable
from spbfast.config.tree import Source, from_plain
from spbfast.config.units import parse_size
from spbfast.results.effects import Effect
from spbfast.results.open import open_results
from spbfast.sweep.run.driver import run_sweep


def small_job(study: Study, workers: int = 1) -> Job:
    """The study's job with the headline's points alone, each as the file writes it."""
    path = configs() / "studies" / f"{study.name}.yaml"
    job = load_config(path, [f"executor.workers={workers}", *study.small])
    assert job.sweep is not None
    rows = _rows(job)
    table = RowTable("the headline's points", Source(str(path)))
    _, value, control = study.headline
    for settings in (control, value):
        if settings is not None:
            row = _find(rows, settings)
            table.add({key: from_plain(given, table.source) for key, given in row.items()}, 0, 0)
    return replace(job, sweep=job.sweep.model_copy(update={"grid": {}, "baseline": None}), rows=table)


def small_effect(study: Study, folder: Path, workers: int) -> Effect:
    """The headline's effect at reduced scale.

    Raises
    ------
    RuntimeError
        A run failed.
    """
    outcome = run_sweep(small_job(study, workers), folder / "out", quiet=True)
    if outcome.exit_code:
        raise RuntimeError(f"{study.name}: the small sweep ended with exit code {outcome.exit_code}")
    return study.effect(Numbers(keep(open_results(outcome.directory), study.own, study.metrics)))


def _rows(job: Job) -> list[dict[str, Any]]:
    """Every point of the job as keys and values of its file, the baseline first."""
    assert job.sweep is not None
    grid = job.sweep.grid or {}
    rows = job.rows.rows if job.rows is not None else [{}]
    combined = [
        {**row, **dict(zip(grid, values, strict=True))}
        for row in rows
        for values in itertools.product(*grid.values())
    ]
    return [dict(job.sweep.baseline or {}), *combined]


def _find(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The first row with these settings, which are by coordinate."""
    for row in rows:
        named = {key.replace(".", "_"): _plain(value) for key, value in row.items()}
        if all(named.get(name) == value for name, value in settings.items()):
            return dict(row)
    raise KeyError(f"no point of the job has {settings}")


def _plain(value: Any) -> Any:
    """A size as bytes; anything else as it is."""
    is_size = isinstance(value, str) and value.endswith("iB")
    return parse_size(value) if is_size else value
