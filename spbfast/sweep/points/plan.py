"""What a sweep has to run: points with identities, cells, batches.

Owns identity and order. A point is identified by the content of its scenario, so results never depend on
its place in a grid; a cell is one replicate of one point and is the unit of work. Points, cells and
scenarios come into being when they are asked for: a plan is a few arrays. Never touches files or executors.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np

from spbfast.sweep.points.design import Design, DesignPoint, build_design
from spbfast.sweep.points.identity import Resolver
from spbfast.sweep.points.params import Param, describe_params

AUTO_BATCH_S = 5.0
AUTO_BATCH_MAX = 256
SIZING_MAX = 256


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """A point of the design with its identity; its scenario is resolved on demand."""

    index: int
    point_id: int
    design: DesignPoint
    in_grid: bool
    baseline: bool
    resolver: Resolver = field(repr=False, compare=False)

    @property
    def scenario(self) -> Any:
        """The resolved scenario."""
        return self.resolver.scenario(self.index)


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


class Points(Sequence[PlannedPoint]):
    """The points of a plan, made when they are asked for."""

    def __init__(self, design: Design, ids: np.ndarray, resolver: Resolver) -> None:
        self._design, self._ids, self._resolver = design, ids, resolver

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> PlannedPoint: ...
    @overload
    def __getitem__(self, index: slice) -> list[PlannedPoint]: ...
    def __getitem__(self, index: int | slice) -> PlannedPoint | list[PlannedPoint]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        marks = self._design
        return PlannedPoint(
            i,
            int(self._ids[i]),
            marks[i],
            bool(marks.in_grid[i]),
            bool(marks.baseline[i]),
            self._resolver,
        )


class Cells(Sequence[Cell]):
    """All cells of a plan, replicate by replicate, so that an interrupted sweep already spans its grid."""

    def __init__(self, ids: np.ndarray, replicates: int) -> None:
        self._ids, self._replicates = ids, replicates

    def __len__(self) -> int:
        return len(self._ids) * self._replicates

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        replicate, point = divmod(range(len(self))[index], len(self._ids))
        return Cell(int(self._ids[point]), replicate)

    def __iter__(self) -> Iterator[Cell]:
        for replicate in range(self._replicates):
            for point in self._ids:
                yield Cell(int(point), replicate)


@dataclass(frozen=True)
class Plan:
    """Everything a sweep shall contain when it is complete.

    Attributes
    ----------
    ids : ndarray of uint64
        Identity of every point, in the order of the design.
    row_ids : ndarray of uint64
        The same before equal points were merged.
    """

    name: str
    design: Design
    ids: np.ndarray
    row_ids: np.ndarray
    resolver: Resolver
    params: tuple[Param, ...]
    replicates: int
    seed: int
    seeding: str
    model_version: int
    level: str
    merged: int = 0

    @property
    def points(self) -> Points:
        """The points, one by one."""
        return Points(self.design, self.ids, self.resolver)

    @property
    def cells(self) -> Cells:
        """All cells, replicate by replicate."""
        return Cells(self.ids, self.replicates)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.ids, kind="stable")
        return self.ids[order], order

    def index_of(self, point_id: int) -> int:
        """Place of a point.

        Raises
        ------
        KeyError
            When the plan has no such point.
        """
        ids, order = self._sorted
        at = int(np.searchsorted(ids, np.uint64(point_id)))
        if at == len(ids) or int(ids[at]) != point_id:
            raise KeyError(f"{point_id:016x}")
        return int(order[at])

    def seed_of(self, point_id: int) -> int:
        """Root seed of a point's runs.

        With common seeding replicate k of every point gets the same root seed and k, that is the same random
        demand: common random numbers make the paired differences between points far less noisy than the
        points. With independent seeding the seed follows from the root seed and the point's identity.
        """
        if self.seeding == "common":
            return self.seed
        words = np.random.SeedSequence(self.seed, spawn_key=(point_id >> 32, point_id & 0xFFFF_FFFF))
        return int(words.generate_state(1, np.uint64)[0]) >> 1

    def task(self, cell: Cell, attempt: int = 0) -> Task:
        """What a worker needs for `cell`."""
        scenario = self.resolver.scenario(self.index_of(cell.point_id))
        return Task(cell, self.seed_of(cell.point_id), scenario, attempt)

    def sizing_scenarios(self) -> list[Any]:
        """Scenarios whose need of memory covers the plan's.

        Policies do not change what a run allocates, so points that differ in nothing else count once;
        of more than 256 others those with the least and the greatest value of each key, and a spread.
        """
        rest = [c for c in self.design.columns if not c.path.startswith(("policy", "duration"))]
        if not rest:
            return [self.points[0].scenario]
        _, first = np.unique(np.stack([c.codes for c in rest], axis=1), axis=0, return_index=True)
        if len(first) > SIZING_MAX:
            ends = [f(p.values) for p in self.params if isinstance(p.values[0], int | float) for f in _ENDS]
            spread = first[np.linspace(0, len(first) - 1, SIZING_MAX // 2).astype(int)]
            first = np.unique(np.concatenate([spread, np.array(ends, np.int64)]))
        return [self.resolver.scenario(int(i)) for i in first]


_ENDS = (np.argmin, np.argmax)


def make_plan(job: Any, model_version: int) -> Plan:
    """The plan of a job.

    Parameters
    ----------
    job : Job
        A validated configuration (`spbfast.load_config`).
    model_version : int
        Version of the simulation's behaviour; results of another version are never mixed in.

    Raises
    ------
    ConfigError
        When values give no valid scenario together.
    """
    design = build_design(job)
    resolver = Resolver(job, design, model_version)
    row_ids = resolver.ids()
    ids, first, point_of = np.unique(row_ids, return_index=True, return_inverse=True)
    merged = len(row_ids) - len(ids)
    if merged:
        warnings.warn(
            f"{merged} of {len(row_ids)} points are equal to another point and run once", stacklevel=2
        )
        design, ids = _merge(design, row_ids, first, point_of)
        resolver = Resolver(job, design, model_version)
    else:
        ids = row_ids
    return Plan(
        name=str(job.name),
        design=design,
        ids=ids,
        row_ids=row_ids,
        resolver=resolver,
        params=tuple(describe_params(resolver)),
        replicates=int(job.replicates),
        seed=int(job.seed),
        seeding=str(job.sweep.seeding) if job.sweep is not None else "common",
        model_version=int(model_version),
        level=str(job.output.level),
        merged=merged,
    )


def _merge(
    design: Design, row_ids: np.ndarray, first: np.ndarray, point_of: np.ndarray
) -> tuple[Design, np.ndarray]:
    """The design with equal points merged into the first of them, which takes over their marks."""
    marks = []
    for column in (design.baseline, design.in_grid):
        found = np.zeros(len(first), bool)
        np.logical_or.at(found, point_of, column)
        marks.append(found)
    order = np.argsort(first)
    rows = first[order]
    return design.take(rows, marks[0][order], marks[1][order]), row_ids[rows]


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
