"""What a sweep has to run: points with identities, cells, batches.

Owns identity and order. A point is identified by the content of its scenario, so results never depend on
its place in a grid; a cell is one replicate of one point and is the unit of work. Never touches files or
executors.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from spbfast.config.branch import Branch
from spbfast.config.job import Job
from spbfast.config.models import Scenario
from spbfast.config.tree import split_path
from spbfast.sweep.points.branching import judge_branch
from spbfast.sweep.points.combinations import judge_combinations
from spbfast.sweep.points.design import DesignPoint, build_design
from spbfast.sweep.points.identity import MASK, PlannedPoint, Resolver, point_identity
from spbfast.sweep.points.params import Param, describe_params
from spbfast.sweep.points.stopping import StopRule

AUTO_BATCH_S = 5.0
AUTO_BATCH_MAX = 256
SIZING_MAX = 256


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
    scenario: Scenario
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
    """Everything a sweep shall contain when it is complete.

    Attributes
    ----------
    row_ids : list of int
        Identity of every point of the design, before equal points were merged.
    """

    name: str
    resolver: Resolver
    points: list[PlannedPoint]
    row_ids: list[int]
    params: list[Param]
    replicates: int
    seed: int
    seeding: str
    model_version: int
    level: str

    @property
    def branch(self) -> Branch | None:
        """Where the points leave the run that they share, if they share one."""
        return self.resolver.job.scenario.branch

    @property
    def keeps_states(self) -> bool:
        """Whether the machines at the branch stay when all points are done."""
        sweep = self.resolver.job.sweep
        return sweep is not None and sweep.keep_states

    @property
    def stop_rule(self) -> StopRule | None:
        """When a point has enough replicates, if that is decided by results."""
        spec = self.resolver.job.growing
        return None if spec is None else StopRule(spec)

    @property
    def nr_least(self) -> int:
        """Runs that the sweep has at least."""
        spec = self.resolver.job.growing
        return len(self.points) * (self.replicates if spec is None else spec.min)

    @property
    def merged(self) -> int:
        """Points of the design that are equal to another one."""
        return len(self.row_ids) - len(self.points)

    @cached_property
    def ids(self) -> np.ndarray:
        """Identity of every point (uint64)."""
        return np.array([p.point_id for p in self.points], np.uint64)

    @property
    def nr_cells(self) -> int:
        """Runs of the whole sweep, the most where a rule decides."""
        return len(self.points) * self.replicates

    def cells(self, first: int = 0, step: int = 1) -> list[Cell]:
        """Every `step`-th cell, replicate by replicate: an interrupted sweep already spans its grid."""
        n = len(self.points)
        return [Cell(self.points[i % n].point_id, i // n) for i in range(first, self.nr_cells, step)]

    @cached_property
    def _index(self) -> dict[int, int]:
        return {p.point_id: i for i, p in enumerate(self.points)}

    def index_of(self, point_id: int) -> int:
        """Place of a point.

        Raises
        ------
        KeyError
            When the plan has no such point.
        """
        return self._index[point_id]

    def scenario(self, index: int) -> Scenario:
        """The resolved scenario of a point."""
        return self.resolver.scenario(self.points[index].values)

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
        scenario = self.scenario(self.index_of(cell.point_id))
        return Task(cell, self.seed_of(cell.point_id), scenario, attempt)

    def memory_key(self, index: int) -> str:
        """Equal for points whose runs need the same memory: neither policy nor duration changes that."""
        values = self.points[index].values.items()
        return repr([(path, v) for path, v in values if split_path(path)[0] not in ("policy", "duration")])

    def sizing_scenarios(self) -> list[Scenario]:
        """Scenarios whose need of memory covers the plan's.

        Of more than 256 different ones those with the least and the greatest value of each key, and a spread.
        """
        first: dict[str, int] = {}
        for index in range(len(self.points)):
            first.setdefault(self.memory_key(index), index)
        chosen = list(first.values())
        if len(chosen) > SIZING_MAX:
            ends = [f(p.values) for p in self.params if isinstance(p.values[0], int | float) for f in ENDS]
            spread = np.linspace(0, len(chosen) - 1, SIZING_MAX // 2).astype(int)
            chosen = sorted({*(chosen[i] for i in spread), *map(int, ends)})
        return [self.scenario(index) for index in chosen]


ENDS = (np.argmin, np.argmax)


def make_plan(job: Job, model_version: int) -> Plan:
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
    resolver = Resolver(job)
    judge_combinations(resolver, design)
    judge_branch(resolver, design)
    seeding = job.sweep.seeding if job.sweep is not None else "common"
    base_id = point_identity(job.scenario.canonical(), model_version, seeding)
    row_ids = [(base_id + resolver.change(p.values).delta) & MASK for p in design]
    points = _merged(design, row_ids)
    if len(points) < len(design):
        equal = f"{len(design) - len(points)} of {len(design)} points are equal to another point"
        warnings.warn(f"{equal} and run once", stacklevel=2)
    return Plan(
        name=job.name,
        resolver=resolver,
        points=points,
        row_ids=row_ids,
        params=describe_params(resolver, points),
        replicates=job.replicates,
        seed=job.seed,
        seeding=seeding,
        model_version=model_version,
        level=job.output.level,
    )


def _merged(design: Sequence[DesignPoint], ids: Sequence[int]) -> list[PlannedPoint]:
    """The points with equal ones merged into the first of them, which takes over their marks."""
    found: dict[int, PlannedPoint] = {}
    for point, point_id in zip(design, ids, strict=True):
        same = found.get(point_id)
        if same is None:
            found[point_id] = PlannedPoint(point_id, point.values, point.baseline, point.in_grid)
        else:
            baseline, in_grid = same.baseline or point.baseline, same.in_grid or point.in_grid
            found[point_id] = replace(same, baseline=baseline, in_grid=in_grid)
    return list(found.values())


def auto_batch_size(mean_cell_s: float, remaining: int, threads: int) -> int:
    """Cells in the next batch: about 5 s of work, but never so many that threads idle at the end."""
    wanted = AUTO_BATCH_MAX if mean_cell_s <= 0 else int(AUTO_BATCH_S / mean_cell_s)
    fair = -(-remaining // (2 * threads))
    return max(1, min(wanted, fair, AUTO_BATCH_MAX))


def split(tasks: Sequence[Task], size: int) -> list[Batch]:
    """Consecutive batches of at most `size` tasks."""
    return [Batch(tuple(tasks[i : i + size])) for i in range(0, len(tasks), size)]
