"""How swept keys are shown: one coordinate per key, in SI units, with a value for every point.

Owns names, units and the choice of one type per coordinate. Points that do not set a key show its resolved
value, so that a baseline can be read like any other point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spbfast.config.job import Job
from spbfast.config.scalars import scalar_at
from spbfast.config.tree import YamlNode, split_path
from spbfast.config.tree import lookup as lookup_node
from spbfast.config.units import parse_duration, parse_rate, parse_size
from spbfast.outputs.variables import COORDS, VARIABLES
from spbfast.sweep.points.identity import GONE, PlannedPoint, Resolver

# Names that results.nc uses for other things.
_TAKEN = frozenset(
    "point replicate point_id is_baseline in_grid".split()
    + "status seed digest demand_digest events wall_time boot_time".split()
)
_UNITS = (("s", 1e9, parse_duration), ("byte", 1, parse_size), ("byte s-1", 1, parse_rate))
_OF_SCALAR = {"ns": ("s", 1e9), "B": ("byte", 1), "B/s": ("byte s-1", 1)}


@dataclass(frozen=True, slots=True)
class Param:
    """A swept parameter as a coordinate: one plain value per point, and their unit."""

    name: str
    path: str
    units: str
    values: tuple[Any, ...]


def coord_name(path: str) -> str:
    """Name of a parameter in datasets: the dots of its path become underscores."""
    name = path.replace(".", "_").replace("-", "_").replace("[", "_").replace("]", "")
    return f"param_{name}" if name in VARIABLES or name in COORDS or name in _TAKEN else name


def describe_params(resolver: Resolver, points: Sequence[PlannedPoint]) -> list[Param]:
    """Swept parameters as coordinates; those that only the baseline sets come last."""
    keys = [_Key(resolver, path, points) for path in resolver.job.swept_paths]
    values: list[list[Any]] = [[] for _ in keys]
    for point in points:
        changed = resolver.change(point.values).leaves
        for key, column in zip(keys, values, strict=True):
            column.append(key.shown(point.values, changed))
    found = [
        Param(coord_name(key.path), key.path, key.units, _uniform(column))
        for key, column in zip(keys, values, strict=True)
    ]
    in_grid = {path for point in points if point.in_grid for path in point.values}
    return sorted(found, key=lambda param: param.path not in in_grid)


class _Key:
    """A swept key: the leaf of the canonical form that it writes, its unit, and what divides its integers."""

    def __init__(self, resolver: Resolver, path: str, points: Sequence[PlannedPoint]) -> None:
        self.resolver, self.path = resolver, path
        self.leaf = leaf_name(resolver.job.tree, path)
        self.units, self.scale = _unit_of(resolver.job, path, points)

    def shown(self, given: Mapping[str, Any], changed: Mapping[str, Any]) -> Any:
        """The key's value in one point: resolved where it is a leaf, else as it was given."""
        found = changed.get(self.leaf, self.resolver.base.get(self.leaf))
        if found is GONE:
            return None
        if found is None and self.path in given:
            found = _plain(given[self.path], self.units)
        elif found is None:
            found = _named(self.resolver.job.scenario, self.path)
        return _shown(found, self.scale)


def leaf_name(tree: YamlNode | None, path: str) -> str:
    """The leaf of the canonical form that a path writes; elements of lists by their number."""
    if tree is None:
        return path
    done: list[str] = []
    node: YamlNode | None = tree
    for step in split_path(path):
        below = lookup_node(node, step) if node is not None and node.value else None
        if below is not None and node is not None and isinstance(node.value, list):
            step = str(next(i for i, item in enumerate(node.value) if item is below))
        done.append(step)
        node = below
    return ".".join(done)


def _named(scenario: Any, path: str) -> Any:
    """A value that the canonical form spells out but the scenario has a word for, such as a preset."""
    node = scenario
    for part in path.split("."):
        node = getattr(node, part, None)
    return getattr(node, "preset", node)


def _unit_of(job: Job, path: str, points: Sequence[PlannedPoint]) -> tuple[str, float]:
    """Unit of a parameter, by its type or the way it is written, and what divides its integers."""
    scalar = scalar_at(job.tree, path) if job.tree is not None else None
    if scalar is not None:
        return _OF_SCALAR.get(scalar.unit, ("", 1))
    given = [point.values[path] for point in points if path in point.values]
    if not given or not all(isinstance(value, str) for value in given):
        return "", 1
    for units, scale, parse in _UNITS:
        try:
            for text in set(given):
                parse(text)
        except ValueError:
            continue
        return units, scale
    return "", 1


def _plain(value: Any, units: str) -> Any:
    for name, _, parse in _UNITS:
        if name == units:
            return parse(value)
    return value


def _shown(value: Any, scale: float) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    if scale != 1 and isinstance(value, int | float) and not isinstance(value, bool):
        return value / scale
    return value


def _uniform(values: Sequence[Any]) -> tuple[Any, ...]:
    """One type for the whole coordinate: bool, int, float (None is NaN), else text."""
    known = [v for v in values if v is not None]
    if known and all(isinstance(v, bool) for v in known) and len(known) == len(values):
        return tuple(values)
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    if known and numeric:
        if len(known) == len(values) and all(isinstance(v, int) for v in known):
            return tuple(values)
        return tuple(float("nan") if v is None else float(v) for v in values)
    return tuple("" if v is None else _text(v) for v in values)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
