"""What identifies a point, and how the values of swept keys become a scenario.

Owns the point id, which is the sum modulo 2^64 of one digest per leaf of the resolved scenario. A point
exchanges the leaves that it changes, so nothing is hashed twice. Two scenarios that differ anywhere differ by
a sum of independent 64-bit digests, which guards against accidents as well as one hash of the whole does (it
is no defence against someone who searches for collisions, and need not be). Never touches files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from spbfast.config.job import Job
from spbfast.config.models import Scenario
from spbfast.config.scalars import Scalar, judged_with, scalar_at
from spbfast.config.tree import split_path

MASK = 2**64 - 1
GONE: Any = object()


def canonical_json(tree: Any) -> str:
    """One text per value: sorted keys, no blanks, ASCII, no NaN."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def leaf_digest(path: str, value: Any) -> int:
    """64-bit digest of one leaf."""
    plain = type(value) is int or type(value) is float
    text = f"{path}={value!r}" if plain else f"{path}={canonical_json(value)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings and lists with its dotted path; empty containers are leaves."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list | tuple) and tree:
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}.{i}")
    else:
        yield path, tree


def point_identity(canonical: Any, model_version: int, seeding: str = "common") -> int:
    """64-bit identity of a scenario under a model version.

    Points with draws of their own are other points than those that share them.
    """
    total = leaf_digest("model_version", model_version)
    if seeding != "common":
        total += leaf_digest("seeding", seeding)
    return (total + sum(leaf_digest(p, v) for p, v in leaves(canonical))) & MASK


@dataclass(frozen=True, slots=True)
class PlannedPoint:
    """A point of the design with its identity.

    Attributes
    ----------
    values : dict
        {dotted path: value as written in YAML}.
    baseline, in_grid : bool
        Whether it is the point that the others are compared with, and one of the rows and the grid.
    """

    point_id: int
    values: dict[str, Any]
    baseline: bool
    in_grid: bool


class Change(NamedTuple):
    """The leaves that values change, GONE for one that vanishes, and what that adds to the identity."""

    leaves: Mapping[str, Any]
    delta: int


class Resolver:
    """From the values of a point to what they change in the job's scenario.

    A number or switch that is judged alone changes its own leaf and nothing else. All other values are
    resolved in full with those that they are judged with, once for each combination.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.base = dict(leaves(job.scenario.canonical()))
        self._digests = {path: leaf_digest(path, value) for path, value in self.base.items()}
        self._scalars: dict[str, Scalar | None] = {}
        self._known: dict[str, Change] = {}
        self._in_full = lru_cache(maxsize=64)(lambda text: job.with_values(json.loads(text)))

    def change(self, values: Mapping[str, Any]) -> Change:
        """What the values of a point change together.

        Raises
        ------
        ConfigError
            When they give no valid scenario.
        """
        changed: dict[str, Any] = {}
        delta = 0
        for part in self.parts(values):
            found = self.resolved(part)
            changed |= found.leaves
            delta += found.delta
        for path, value in values.items():
            if (scalar := self._scalar(path)) is not None:
                delta -= leaf_digest(path, changed[path]) if path in changed else self._digests[path]
                changed[path] = self._canonical(scalar, path, value)
                delta += leaf_digest(path, changed[path])
        return Change(changed, delta)

    def scenario(self, values: Mapping[str, Any]) -> Scenario:
        """The resolved scenario of a point; what points have in common is shared."""
        others = {path: value for path, value in values.items() if self._scalar(path) is None}
        scenario = self._in_full(json.dumps(others)) if others else self.job.scenario
        for path, value in values.items():
            if (scalar := self._scalar(path)) is not None:
                scenario = _replaced(scenario, split_path(path), self._canonical(scalar, path, value))
        return scenario

    def parts(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The values that have to be resolved in full, by what they are judged with."""
        found: dict[str, dict[str, Any]] = {}
        for path, value in values.items():
            if self._scalar(path) is None:
                found.setdefault(judged_with(path) or split_path(path)[0], {})[path] = value
        return list(found.values())

    def _scalar(self, path: str) -> Scalar | None:
        """The type of a key that changes its own leaf and nothing else."""
        if path not in self._scalars:
            alone = self.job.tree is not None and judged_with(path) is None and path in self.base
            self._scalars[path] = scalar_at(self.job.tree, path) if self.job.tree and alone else None
        return self._scalars[path]

    def _canonical(self, scalar: Scalar, path: str, value: Any) -> Any:
        try:
            return scalar.canonical(value)
        except ValueError:
            self.job.with_values({path: value})  # raises with the words for users
            raise

    def resolved(self, part: Mapping[str, Any]) -> Change:
        """What values that are judged together change.

        Raises
        ------
        ConfigError
            When they give no valid scenario.
        """
        key = json.dumps(part)
        if key not in self._known:
            now = dict(leaves(self._in_full(key).canonical()))
            changed = {p: v for p, v in now.items() if p not in self.base or _differs(self.base[p], v)}
            changed |= {p: GONE for p in self.base if p not in now}
            self._known[key] = Change(changed, self._delta(changed))
        return self._known[key]

    def _delta(self, changed: Mapping[str, Any]) -> int:
        gained = sum(leaf_digest(path, value) for path, value in changed.items() if value is not GONE)
        return gained - sum(self._digests[path] for path in changed if path in self._digests)


def _replaced(model: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of nested models with one canonical value replaced; all else is shared."""
    head, rest = path[0], path[1:]
    inner = _replaced(getattr(model, head), rest, value) if rest else value
    return model.model_copy(update={head: inner})


def _differs(a: Any, b: Any) -> bool:
    return type(a) is not type(b) or a != b
