"""The bounds of a key, as they are declared at its type or its field, in words.

Every number of the configuration has a least and a greatest value; tests/test_bounds.py holds the models to
it, and tries both on the simulator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from spbfast.config.units import formatter_of

_OF_SCHEMA = {"minimum": "ge", "maximum": "le"}
_NAMES = ("ge", "gt", "le", "lt")


class Bounds(NamedTuple):
    """The least and the greatest value of a number, None where there is none; both are allowed."""

    low: float | None
    high: float | None


def bounds_of(info: FieldInfo) -> Bounds:
    """The bounds of a key that holds a number or a quantity, or of the elements of one that holds several."""
    found = list(_constraints(info.metadata, info.annotation))
    lows = [v for name, v in found if name == "ge"] + [_next(v, 1) for name, v in found if name == "gt"]
    highs = [v for name, v in found if name == "le"] + [_next(v, -1) for name, v in found if name == "lt"]
    return Bounds(max(lows, default=None), min(highs, default=None))


def _next(value: float, step: int) -> float:
    return value + step if isinstance(value, int) else value


def bounds_text(info: FieldInfo) -> str:
    """The bounds of a key as a file would write them, such as ``1 to 1024``; empty if it has none."""
    low, high = bounds_of(info)
    write = formatter_of(info.metadata, info.annotation) or _plain
    if low is not None and high is not None:
        return f"{write(low)} to {write(high)}"  # type: ignore[arg-type]
    if high is not None:
        return f"at most {write(high)}"  # type: ignore[arg-type]
    return f"at least {write(low)}" if low is not None else ""  # type: ignore[arg-type]


def _plain(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _constraints(metadata: Iterable[Any], annotation: Any) -> Iterator[tuple[str, float]]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from _constraints(item.metadata, None)
        for form in getattr(item, "json_schema", None) and item.json_schema.get("anyOf") or ():
            yield from ((_OF_SCHEMA[name], value) for name, value in form.items() if name in _OF_SCHEMA)
        for name in _NAMES:
            if (value := getattr(item, name, None)) is not None:
                yield name, value
    for inner in get_args(annotation):
        yield from _constraints(getattr(inner, "__metadata__", ()), inner)
