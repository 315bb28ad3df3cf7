"""How swept keys are shown: one coordinate per key, in SI units, with a value for every point.

Owns names, units and the choice of one type per coordinate. Points that do not set a key show its resolved
value, so that a baseline can be read like any other point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spbfast.config.coupling import scalar_at
from spbfast.config.tree import YamlNode, split_path
from spbfast.config.tree import lookup as lookup_node
from spbfast.config.units import parse_duration, parse_rate, parse_size
from spbfast.outputs.variables import COORDS, VARIABLES
from spbfast.sweep.points.design import Column, Drawn
from spbfast.sweep.points.identity import GONE, Group, Resolver

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


def describe_params(resolver: Resolver) -> list[Param]:
    """Swept parameters as coordinates; those that only the baseline sets come last."""
    columns = resolver.design.columns
    in_grid = resolver.design.in_grid
    ordered = sorted(columns, key=lambda c: not bool((c.codes[in_grid] >= 0).any()))
    return [_param(resolver, column) for column in ordered]


def _param(resolver: Resolver, column: Column) -> Param:
    group = resolver.group_of[column.path]
    units, scale = _unit_of(resolver, column)
    if group.changed is None:
        shown = _scalar_values(resolver, group, column)
    else:
        leaf = leaf_name(resolver.job.tree, column.path)
        at = group.columns.index(column)
        shown = [_value(resolver, group, k, at, leaf, units) for k in range(len(group.codes))]
    used = np.unique(group.combo_of)
    scaled = [_shown(v, scale) for v in shown]
    uniform = dict(zip(used.tolist(), _uniform([scaled[k] for k in used.tolist()]), strict=True))
    values = tuple(uniform[k] for k in group.combo_of.tolist())
    return Param(coord_name(column.path), column.path, units, values)


def _scalar_values(resolver: Resolver, group: Group, column: Column) -> list[Any]:
    assert group.scalar is not None
    return [resolver.base[group.leaf], *resolver.canonical_values(column, group.scalar)]


def _value(resolver: Resolver, group: Group, k: int, at: int, leaf: str, units: str) -> Any:
    """A key's value in one combination: resolved where it is a leaf, else as it was given."""
    assert group.changed is not None
    code = int(group.codes[k][at])
    found = group.changed[k].get(leaf, resolver.base.get(leaf))
    if found is GONE:
        return None
    if found is not None:
        return found
    column = group.columns[at]
    if code >= 0:
        return _plain(column.values[code], units)
    return _named(resolver.job.scenario, column.path)


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


def _unit_of(resolver: Resolver, column: Column) -> tuple[str, float]:
    """Unit of a parameter, by its type or the way it is written, and what divides its integers."""
    tree = resolver.job.tree
    scalar = scalar_at(tree, column.path) if tree is not None else None
    if scalar is not None:
        return _OF_SCALAR.get(scalar.unit, ("", 1))
    raw = [] if isinstance(column.values, Drawn) else list(column.values)
    texts = [v for v in raw if isinstance(v, str)]
    if not texts or len(texts) != len(raw):
        return "", 1
    for units, scale, parse in _UNITS:
        try:
            for text in texts:
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
