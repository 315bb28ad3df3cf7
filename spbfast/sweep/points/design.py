"""Which points a sweep visits.

Owns the step from the `sweep` section to a table of points: one column per swept key, with its different
values and a code per point, so that a million points take a few arrays. Knows nothing of seeds, files or
executors. Order: the baseline, then the rows of zip, points, points_file or design, each with every
combination of the grid, whose last key is fastest.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spbfast.config.ranges import Choices, Range, Span
from spbfast.errors import ConfigError

UNSET = -1


@dataclass(frozen=True, slots=True)
class DesignPoint:
    """One setting of the swept parameters.

    Attributes
    ----------
    values : dict
        {dotted path: value as written in YAML}.
    baseline : bool
        The point that the others are compared with.
    """

    values: dict[str, Any] = field(default_factory=dict)
    baseline: bool = False


class Drawn(Sequence[Any]):
    """Values that a design drew from a span, kept as numbers and written as a file would on demand.

    `extra` holds values that did not come from the span, such as the baseline's.
    """

    def __init__(self, span: Span, numbers: np.ndarray, extra: Sequence[Any] = ()) -> None:
        self.span, self.numbers, self.extra = span, numbers, tuple(extra)

    def __len__(self) -> int:
        return len(self.numbers) + len(self.extra)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self.numbers):
            return self.extra[index - len(self.numbers)]
        return self.span.scalar.text(self.numbers[index].item())


@dataclass(frozen=True)
class Column:
    """One swept key.

    Attributes
    ----------
    values : sequence
        Its different values, as written in YAML.
    codes : ndarray of int32
        Per point the index into `values`; -1 where the point leaves the key as the file has it.
    """

    path: str
    values: Sequence[Any]
    codes: np.ndarray


@dataclass(frozen=True)
class Design:
    """All points of a sweep, in order.

    Attributes
    ----------
    baseline, in_grid : ndarray of bool
        Per point: compared with; belongs to the rows and the grid.
    unit : ndarray or None
        The numbers in [0, 1] that a sampled design drew, one row per row of the design (float64).
    """

    size: int
    columns: tuple[Column, ...]
    baseline: np.ndarray
    in_grid: np.ndarray
    unit: np.ndarray | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> DesignPoint:
        if not 0 <= index < self.size:
            raise IndexError(index)
        values = {c.path: c.values[int(c.codes[index])] for c in self.columns if c.codes[index] >= 0}
        return DesignPoint(values, bool(self.baseline[index]))

    def __iter__(self) -> Iterator[DesignPoint]:
        return (self[i] for i in range(self.size))

    def take(self, rows: np.ndarray, baseline: np.ndarray, in_grid: np.ndarray) -> Design:
        """The design of some of the points, with new marks."""
        columns = tuple(Column(c.path, c.values, c.codes[rows]) for c in self.columns)
        return Design(len(rows), columns, baseline, in_grid, self.unit)


def build_design(job: Any) -> Design:
    """The points of a job; without a sweep that is one.

    Raises
    ------
    ConfigError
        When a design needs a package that is not installed.
    """
    sweep = job.sweep
    if sweep is None:
        return Design(1, (), np.zeros(1, bool), np.ones(1, bool))
    columns, rows, unit = _row_columns(job)
    grid = dict(sweep.grid or {})
    combos = math.prod(len(v) for v in grid.values())
    has_points = bool(grid) or job.rows is not None or sweep.design is not None
    size = rows * combos if has_points else 0
    columns = {p: (v, np.repeat(codes, combos)) for p, (v, codes) in columns.items()}
    inner = combos
    for path, values in grid.items():
        inner //= max(1, len(values))
        pattern = np.repeat(np.arange(len(values), dtype=np.int32), inner)
        columns[path] = (values, np.tile(pattern, size // max(1, len(pattern))))
    marks = (np.zeros(size, bool), np.ones(size, bool))
    if sweep.baseline or not size:
        columns = _with_baseline(columns, dict(sweep.baseline or {}), size)
        marks = (np.append(bool(sweep.baseline), marks[0]), np.append(not sweep.baseline, marks[1]))
        size += 1
    table = tuple(Column(p, v, c) for p, (v, c) in columns.items())
    return Design(size, table, *marks, unit)


Columns = dict[str, tuple[Sequence[Any], np.ndarray]]


def _with_baseline(columns: Columns, baseline: dict[str, Any], size: int) -> Columns:
    """Put the baseline in front."""
    out: Columns = {}
    for path, (values, codes) in columns.items():
        first = UNSET
        if path in baseline:
            values, first = _index_of(values, baseline[path])
        out[path] = (values, np.append(np.int32(first), codes))
    for path, value in baseline.items():
        if path not in out:
            codes = np.full(size + 1, UNSET, np.int32)
            codes[0] = 0
            out[path] = ([value], codes)
    return out


def _index_of(values: Sequence[Any], value: Any) -> tuple[Sequence[Any], int]:
    """The place of a value among others, appended if it is not there; true and 1 are not the same."""
    if isinstance(values, Drawn):
        return Drawn(values.span, values.numbers, [*values.extra, value]), len(values)
    for i, other in enumerate(values):
        if type(other) is type(value) and other == value:
            return values, i
    return [*values, value], len(values)


def _row_columns(job: Any) -> tuple[Columns, int, np.ndarray | None]:
    """Columns of the rows that are given or drawn; one row without columns if there are none."""
    if job.sweep.design is not None:
        unit = sample_unit(job.sweep.design, len(job.ranges))
        return {p: _draw(r, unit[:, k]) for k, (p, r) in enumerate(job.ranges.items())}, len(unit), unit
    if job.rows is not None:
        given = job.rows.columns.items()
        return {p: (c.values, np.array(c.codes, np.int32)) for p, c in given}, len(job.rows), None
    return {}, 1, None


def _draw(span: Range, unit: np.ndarray) -> tuple[Sequence[Any], np.ndarray]:
    """The different values at numbers in [0, 1], and a code for each."""
    if isinstance(span, Choices):
        codes = np.minimum((unit * len(span.values)).astype(np.int32), len(span.values) - 1)
        return span.values, codes
    if span.log:
        low, high = math.log(span.low), math.log(span.high)
        numbers = np.exp(low + unit * (high - low))
    else:
        numbers = span.low + unit * (span.high - span.low)
    if span.step:
        numbers = span.low + np.round((numbers - span.low) / span.step) * span.step
    numbers = np.clip(numbers, span.low, span.high)
    if span.scalar.kind is int:
        numbers = np.rint(numbers).astype(np.int64)
    different, codes = np.unique(numbers, return_inverse=True)
    return Drawn(span, different), codes.astype(np.int32)


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
    if design.kind in ("saltelli", "morris"):
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
    seed = design.seed % 2**32
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
