"""A loaded configuration: the validated scenario with its sweep, output and executor, and its sources."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spbfast.config.executor import Executor
from spbfast.config.models import OutputSpec, Scenario, SweepSpec
from spbfast.config.ranges import Range
from spbfast.config.replicates import ReplicatesSpec
from spbfast.config.rows import PointsFile, RowTable
from spbfast.config.scalars import judged_with
from spbfast.config.tree import Source, YamlNode, from_plain
from spbfast.config.units import format_duration
from spbfast.config.validate import assign, validate_tree
from spbfast.errors import ConfigError, Problem
from spbfast.text import quote_value


@dataclass(frozen=True)
class Job:
    """A loaded configuration.

    Attributes
    ----------
    scenario : Scenario
        The file's own point, without the sweep.
    source_text : str
        The file as written, comments included.
    base_text : str
        The extended file as written, empty if there is none.
    overrides, grid_overrides : tuple of str
        The `--set` and `--grid` arguments.
    rows : RowTable or None
        The points of `zip`, `points` or `points_file`.
    ranges : dict
        The ranges of `design` by their dotted path.
    replicates : int
        Runs of a point, the most where a rule decides.
    growing : ReplicatesSpec or None
        The rule by which a point has enough replicates, if there is one.
    points_file : PointsFile or None
        The file of points as it was read.
    swept_nodes : dict of YamlNode
        The keys of the grid and of the ranges, as written.
    """

    name: str
    seed: int
    replicates: int
    scenario: Scenario
    sweep: SweepSpec | None
    output: OutputSpec
    executor: Executor
    source_text: str
    path: Path
    base_text: str = ""
    growing: ReplicatesSpec | None = None
    overrides: tuple[str, ...] = ()
    grid_overrides: tuple[str, ...] = ()
    rows: RowTable | None = field(default=None, repr=False, compare=False)
    ranges: Mapping[str, Range] = field(default_factory=dict, repr=False, compare=False)
    points_file: PointsFile | None = field(default=None, repr=False, compare=False)
    swept_nodes: Mapping[str, YamlNode] = field(default_factory=dict, repr=False, compare=False)
    tree: YamlNode | None = field(default=None, repr=False, compare=False)

    @property
    def nr_points(self) -> int:
        """Points of the sweep, the baseline included; equal ones are merged only when it is planned."""
        if self.sweep is None:
            return 1
        rows = len(self.rows) if self.rows is not None else 1
        if (design := self.sweep.design) is not None:
            d = len(design.ranges)
            extra = {"saltelli": 2 * d + 2 if design.second_order else d + 2, "morris": d + 1}
            rows = design.samples * extra.get(design.kind, 1)
        has_rows = self.rows is not None or design is not None
        grid = math.prod(len(values) for values in self.sweep.grid.values()) if self.sweep.grid else 1
        nr = rows * grid if has_rows or self.sweep.grid else 0
        return nr + bool(self.sweep.baseline)

    @property
    def remarks(self) -> list[str]:
        """What is allowed and hardly meant."""
        every, duration = self.output.every, self.scenario.duration
        if every <= duration or "every" not in self.output.model_fields_set:
            return []
        return [
            f"output.every, {format_duration(every)}, is longer than the duration, "
            f"{format_duration(duration)}: nothing between its start and its end is recorded"
        ]

    @property
    def swept_paths(self) -> list[str]:
        """Every swept key: those of the rows, of the grid, and what only the baseline sets."""
        if self.sweep is None:
            return []
        rows = [*self.ranges, *(self.rows.columns if self.rows is not None else ())]
        return list(dict.fromkeys([*rows, *self.sweep.grid, *(self.sweep.baseline or {})]))

    @property
    def has_combinations(self) -> bool:
        """Whether the sweep has values that have to be judged together."""
        return any(judged_with(path) for path in self.swept_paths)

    def with_values(self, values: Mapping[str, Any]) -> Scenario:
        """The scenario with some values replaced, validated again.

        Parameters
        ----------
        values : mapping
            Dotted path to value as a file would write it, such as
            ``{"policy.slab_shrink_throttle": "50ms"}``. Shorter paths are applied first.

        Raises
        ------
        ConfigError
            When a path does not exist or a value is invalid.
        """
        # A Dataset is a mapping, too, and no values of a file.
        if not isinstance(values, dict | MappingProxyType) or not all(isinstance(p, str) for p in values):
            raise ConfigError(
                f"values must be a mapping such as {{'duration': '2s'}}, got {quote_value(values)}"
            )
        if self.tree is None:
            raise ConfigError("this job was not loaded from a file, so its values cannot be replaced")
        problems: list[Problem] = []
        tree = self.tree
        for path in sorted(values, key=lambda p: (p.count("."), p)):
            source = Source(f"{self.path}: value {path}={quote_value(values[path])}")
            tree = assign(tree, path, from_plain(values[path], source), problems)
        file = validate_tree(tree, problems)
        if problems or file is None:
            raise ConfigError(problems)
        return file.scenario().model_copy(update={"branch": self.scenario.branch})
