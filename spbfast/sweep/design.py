"""Which points a sweep visits.

Owns the step from the `sweep` section (baseline, grid) to an ordered list of {dotted path: raw value} and
the choice of how a swept value is shown as a coordinate. Knows nothing of seeds, files or executors; other
kinds of design only have to produce the same list.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spbfast.config.units import parse_duration, parse_rate, parse_size
from spbfast.variables import COORDS, VARIABLES

# Names that results.nc uses for other things.
_TAKEN = frozenset(
    "point replicate point_id is_baseline in_grid".split()
    + "status seed digest demand_digest events wall_time boot_time".split()
)


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


@dataclass(frozen=True, slots=True)
class Param:
    """A swept parameter as a coordinate: one plain value per point, and their unit."""

    name: str
    path: str
    units: str
    values: tuple[Any, ...]


def build_design(sweep: Any) -> list[DesignPoint]:
    """The points of a sweep section, baseline first, then the grid with its last key fastest.

    A job without a sweep is one point. The order is that of the file, so it is stable.
    """
    if sweep is None:
        return [DesignPoint()]
    points = []
    if sweep.baseline:
        points.append(DesignPoint(dict(sweep.baseline), baseline=True))
    grid = sweep.grid or {}
    if grid or not points:
        for combo in itertools.product(*grid.values()):
            points.append(DesignPoint(dict(zip(grid, combo, strict=True))))
    return points


def swept_paths(points: Sequence[DesignPoint]) -> list[str]:
    """Dotted paths set by any point, grid paths before those only the baseline sets."""
    ordered = sorted(points, key=lambda p: p.baseline)
    return list(dict.fromkeys(path for p in ordered for path in p.values))


def coord_name(path: str) -> str:
    """Name of a parameter in datasets: the dots of its path become underscores."""
    name = path.replace(".", "_").replace("-", "_").replace("[", "_").replace("]", "")
    return f"param_{name}" if name in VARIABLES or name in COORDS or name in _TAKEN else name


def lookup(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested mappings and lists, None where there is none."""
    node: Any = tree
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return None
    return node


def describe_params(points: Sequence[DesignPoint], scenarios: Sequence[Any]) -> list[Param]:
    """Swept parameters as coordinates, in SI units.

    Points that do not set a parameter show its resolved value, so that a baseline can be read like any
    other point.
    """
    trees = [s.canonical() for s in scenarios]
    params = []
    for path in swept_paths(points):
        raw = [p.values[path] for p in points if path in p.values]
        units, scale = _unit_of(raw)
        values = []
        for point, scenario, tree in zip(points, scenarios, trees, strict=True):
            found = lookup(tree, path)
            if found is None or isinstance(found, Mapping):
                given = point.values.get(path)
                found = _named(scenario, path, found) if given is None else _plain(given, units)
            values.append(_shown(found, scale))
        params.append(Param(coord_name(path), path, units, _uniform(values)))
    return params


def _named(scenario: Any, path: str, found: Any) -> Any:
    """A value that the canonical form spells out but the scenario has a word for, such as a preset."""
    node = scenario
    for part in path.split("."):
        node = getattr(node, part, None)
    return found if node is None else getattr(node, "preset", found if found is not None else node)


_UNITS = (
    ("s", 1e9, parse_duration),
    ("byte", 1, parse_size),
    ("byte s-1", 1, parse_rate),
)


def _unit_of(raw: Sequence[Any]) -> tuple[str, float]:
    """Unit of a parameter from the way its values are written, and what divides the resolved integers."""
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


def _uniform(values: list[Any]) -> tuple[Any, ...]:
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
