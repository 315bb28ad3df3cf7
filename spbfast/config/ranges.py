"""Ranges that designs draw from: `{min, max, scale, step}` or a list of choices.

Owns the shape of a range, its checks with places, and the map from [0, 1] to values. A method of sampling
in sweep/points/design.py draws the numbers in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from spbfast.config.scalars import Scalar
from spbfast.config.tree import YamlNode
from spbfast.config.units import parse_duration, parse_rate, parse_size
from spbfast.errors import Problem
from spbfast.text import quote_value, suggest

KEYS = ("min", "max", "scale", "step")
SCALES = ("linear", "log")
EXAMPLE = "{min: 10ms, max: 1s, scale: log}"
TICK = 1_000_000
MOST = 2**63


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high` in canonical units (ns, bytes), `step` apart unless that is 0."""

    scalar: Scalar
    low: float
    high: float
    log: bool
    step: float

    def at(self, unit: np.ndarray) -> list[Any]:
        """The values at numbers in [0, 1], as a file would write them."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            numbers = np.exp(low + unit * (high - low))
        else:
            numbers = self.low + unit * (self.high - self.low)
        if self.step:
            numbers = self.low + np.round((numbers - self.low) / self.step) * self.step
        numbers = np.clip(numbers, self.low, self.high)
        if self.scalar.kind is int:
            numbers = np.rint(numbers).astype(np.int64)
        return [self.scalar.text(number) for number in numbers.tolist()]


@dataclass(frozen=True)
class Choices:
    """A list of values, each with the same share of [0, 1]."""

    choices: tuple[Any, ...]

    def at(self, unit: np.ndarray) -> list[Any]:
        """The values at numbers in [0, 1]."""
        last = len(self.choices) - 1
        return [self.choices[min(k, last)] for k in (unit * len(self.choices)).astype(np.int32).tolist()]


Range = Interval | Choices


def read_range(node: YamlNode, shown: str, scalar: Scalar | None, problems: list[Problem]) -> Range | None:
    """The range that a node writes, None after appending what is wrong with it."""
    if isinstance(node.value, list):
        if len(node.value) < 2:
            problems.append(node.problem(shown, "needs at least two choices, e.g. [true, false]"))
            return None
        return Choices(tuple(node.plain()))
    if not isinstance(node.value, dict):
        message = f"must be a range such as {EXAMPLE} or a list of choices, got {quote_value(node.plain())}"
        problems.append(node.problem(shown, message))
        return None
    before = len(problems)
    for key, inner in node.value.items():
        if key not in KEYS:
            message = f"unknown key {key!r}{suggest(key, KEYS) or '; known keys: ' + ', '.join(KEYS)}"
            problems.append(inner.problem(f"{shown}.{key}", message, at_key=True))
    for key in ("min", "max"):
        if key not in node.value:
            problems.append(node.problem(shown, f"the key {key!r} is required and missing, e.g. {EXAMPLE}"))
    if scalar is None or scalar.kind not in (int, float):
        problems.append(node.problem(shown, "is no number, so it has no range; give a list of choices"))
    if len(problems) > before or scalar is None:
        return None
    return _read_interval(node, shown, scalar, problems)


def _read_interval(node: YamlNode, shown: str, scalar: Scalar, problems: list[Problem]) -> Interval | None:
    before = len(problems)
    scale = node.value.get("scale")
    if scale is not None and scale.value not in SCALES:
        message = f"must be one of {', '.join(SCALES)}; got {quote_value(scale.plain())}"
        problems.append(scale.problem(f"{shown}.scale", message))
    ends: list[float] = []
    for key in ("min", "max"):
        inner = node.value[key]
        found = None if isinstance(inner.value, dict | list) else scalar.problem(inner.plain())
        if isinstance(inner.value, dict | list):
            found = f"must be one value, got {quote_value(inner.plain())}"
        if found:
            problems.append(inner.problem(f"{shown}.{key}", found))
        else:
            ends.append(scalar.canonical(inner.plain()))
    step = _read_step(node.value.get("step"), f"{shown}.step", scalar, problems)
    if len(problems) > before:
        return None
    log = scale is not None and scale.value == "log"
    low, high = ends
    if not low < high:
        problems.append(node.value["max"].problem(f"{shown}.max", "must be greater than min"))
    elif log and low <= 0:
        problems.append(node.value["min"].problem(f"{shown}.min", "must be greater than 0 on a log scale"))
    return Interval(scalar, low, high, log, step) if len(problems) == before else None


def _read_step(node: YamlNode | None, shown: str, scalar: Scalar, problems: list[Problem]) -> float:
    """The step in canonical units, 0 for none; durations that must be whole ticks get one by themselves."""
    if node is None:
        tick = scalar.unit == "ns" and scalar.problem("1500us") is not None and scalar.problem("1ms") is None
        return TICK if tick else 0
    parse = {"ns": parse_duration, "B": parse_size, "B/s": parse_rate}.get(scalar.unit)
    try:
        value = parse(node.plain()) if parse else node.plain()
    except ValueError as error:
        problems.append(node.problem(shown, str(error)))
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST:
        given = quote_value(node.plain())
        problems.append(node.problem(shown, f"must be greater than 0 and less than 2^63, got {given}"))
        return 0
    return value
