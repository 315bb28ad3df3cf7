"""What a sweep has to run: points with identities, cells, batches.

Owns identity and order. A point is identified by the content of its scenario, so results never depend on
its place in a grid; a cell is one replicate of one point and is the unit of work. Never touches files or
executors.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from spbfast.sweep.design import DesignPoint, Param, build_design, describe_params

AUTO_BATCH_S = 5.0
AUTO_BATCH_MAX = 256


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """A point of the design with its identity and resolved scenario."""

    index: int
    point_id: int
    design: DesignPoint
    in_grid: bool
    baseline: bool
    scenario: Any


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One replicate of one point."""

    point_id: int
    replicate: int

    def __str__(self) -> str:
        return f"{self.point_id:016x}:{self.replicate}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The inverse of str()."""
        point, _, replicate = text.partition(":")
        return cls(int(point, 16), int(replicate))


@dataclass(frozen=True, slots=True)
class Task:
    """A cell with all that a worker needs to run it."""

    cell: Cell
    seed: int
    scenario: Any
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that one worker runs in a row and writes into one shard."""

    tasks: tuple[Task, ...]

    @property
    def batch_id(self) -> str:
        """16 hex digits that depend on the cells and attempts alone."""
        text = ",".join(f"{t.cell}@{t.attempt}" for t in self.tasks)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Plan:
    """Everything a sweep shall contain when it is complete."""

    name: str
    points: tuple[PlannedPoint, ...]
    params: tuple[Param, ...]
    replicates: int
    seed: int
    model_version: int
    level: str
    merged: int = 0
    scenarios: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, replicate by replicate, so that an interrupted sweep already spans its grid."""
        return tuple(Cell(p.point_id, r) for r in range(self.replicates) for p in self.points)

    def task(self, cell: Cell, attempt: int = 0) -> Task:
        """What a worker needs for `cell`.

        Replicate k of every point gets the same root seed and k, that is the same random demand: common
        random numbers make the paired differences between points far less noisy than the points.
        """
        return Task(cell, self.seed, self.scenarios[cell.point_id], attempt)


def canonical_json(tree: Any) -> str:
    """One text per value: sorted keys, no blanks, ASCII, no NaN."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def point_identity(canonical: Any, model_version: int) -> int:
    """64-bit identity of a scenario: blake2b of its canonical JSON and the model's version."""
    text = canonical_json({"model_version": model_version, "scenario": canonical})
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def make_plan(job: Any, model_version: int) -> Plan:
    """The plan of a job.

    Parameters
    ----------
    job : Job
        A validated configuration (`spbfast.load_config`).
    model_version : int
        Version of the simulation's behaviour; results of another version are never mixed in.
    """
    design = build_design(job.sweep)
    planned: dict[int, PlannedPoint] = {}
    merged = 0
    for point in design:
        scenario = job.with_values(point.values) if point.values else job.scenario
        key = point_identity(scenario.canonical(), model_version)
        if key in planned:
            old = planned[key]
            merged += 1
            planned[key] = PlannedPoint(
                old.index,
                key,
                DesignPoint({**old.design.values, **point.values}, old.baseline),
                old.in_grid or not point.baseline,
                old.baseline or point.baseline,
                scenario,
            )
            continue
        planned[key] = PlannedPoint(len(planned), key, point, not point.baseline, point.baseline, scenario)
    if merged:
        warnings.warn(
            f"{merged} of {len(design)} points are equal to another point and run once", stacklevel=2
        )
    points = tuple(planned.values())
    params = describe_params([p.design for p in points], [p.scenario for p in points])
    return Plan(
        name=str(job.name),
        points=points,
        params=tuple(params),
        replicates=int(job.replicates),
        seed=int(job.seed),
        model_version=int(model_version),
        level=str(job.output.level),
        merged=merged,
        scenarios={p.point_id: p.scenario for p in points},
    )


def auto_batch_size(mean_cell_s: float, remaining: int, threads: int) -> int:
    """Cells in the next batch: about 5 s of work, but never so many that threads idle at the end."""
    wanted = AUTO_BATCH_MAX if mean_cell_s <= 0 else int(AUTO_BATCH_S / mean_cell_s)
    fair = -(-remaining // (2 * threads))
    return max(1, min(wanted, fair, AUTO_BATCH_MAX))


def pending_cells(plan: Plan, done: Iterable[Cell]) -> list[Cell]:
    """Cells still to run, in order of execution."""
    finished = set(done)
    return [c for c in plan.cells if c not in finished]


def split(tasks: Sequence[Task], size: int) -> list[Batch]:
    """Consecutive batches of at most `size` tasks."""
    return [Batch(tuple(tasks[i : i + size])) for i in range(0, len(tasks), size)]
