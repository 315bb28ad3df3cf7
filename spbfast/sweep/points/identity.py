"""What a point is: its identity, and how values of swept keys become scenarios.

Owns the point id and the resolution of a design's values. The id is the sum modulo 2^64 of one digest per
leaf of the resolved scenario, so the base is hashed once and a point only exchanges the leaves that it
changes: identities of a million points take vector additions. Two scenarios that differ anywhere differ by
a sum of independent 64-bit digests, which is as good as one hash of the whole against accidents (it is no
defence against someone who searches for collisions, and need not be). Never touches files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spbfast.config.coupling import Scalar, groups, is_free, scalar_at
from spbfast.config.tree import split_path
from spbfast.sweep.points.design import Column, Design, Drawn

MASK = 2**64 - 1
GONE: Any = object()
# Values of one key beyond which each is judged by its type alone; some are resolved in full to compare.
ONE_BY_ONE = 64
RECENT = 64


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


@dataclass
class Group:
    """Swept keys that have to be resolved together.

    Attributes
    ----------
    combo_of : ndarray of int64
        Per point the index of its combination of values.
    codes : ndarray of int32
        Per combination the code of each column.
    delta : ndarray of uint64
        Per combination what it adds to the identity of the base.
    changed : list of dict, or None
        Per combination the leaves that differ from the base; None for a lone key with many values.
    scalar, leaf : Scalar, str
        Type and leaf of a lone free key that changes this leaf and nothing else.
    """

    columns: tuple[Column, ...]
    combo_of: np.ndarray
    codes: np.ndarray
    delta: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    changed: list[dict[str, Any]] | None = None
    scalar: Scalar | None = None
    leaf: str = ""


class Resolver:
    """From the points of a design to identities and scenarios.

    Raises
    ------
    ConfigError
        On creation, when a value, or values together, give no valid scenario.
    """

    def __init__(self, job: Any, design: Design, model_version: int) -> None:
        self.job, self.design = job, design
        self._recent: dict[str, Any] = {}
        self.base = dict(leaves(job.scenario.canonical()))
        seeding = job.sweep.seeding if job.sweep is not None else "common"
        self.base_id = point_identity(job.scenario.canonical(), model_version, seeding)
        columns = {c.path: c for c in design.columns}
        self.groups = [self._group([columns[p] for p in paths]) for paths in groups(columns)]
        self.group_of = {c.path: g for g in self.groups for c in g.columns}

    def ids(self) -> np.ndarray:
        """Identity of every point (uint64)."""
        total = np.full(len(self.design), self.base_id, np.uint64)
        for group in self.groups:
            total += group.delta[group.combo_of]
        return total

    def scenario(self, index: int) -> Any:
        """The resolved scenario of a point; parts that points share are shared."""
        single, others = {}, {}
        for group in self.groups:
            for column in group.columns:
                code = int(column.codes[index])
                if code >= 0 and group.scalar is not None:
                    single[group.leaf] = group.scalar.canonical(column.values[code])
                elif code >= 0:
                    others[column.path] = column.values[code]
        scenario = self._resolved(others)
        for leaf, value in single.items():
            scenario = _replaced(scenario, split_path(leaf), value)
        return scenario

    def _resolved(self, values: dict[str, Any]) -> Any:
        """The scenario with some values, from the last few that were resolved in full."""
        if not values:
            return self.job.scenario
        key = repr(values)
        if key not in self._recent:
            if len(self._recent) >= RECENT:
                self._recent.pop(next(iter(self._recent)))
            self._recent[key] = self.job.with_values(values)
        return self._recent[key]

    # -- values to leaves ----------------------------------------------------------------------------

    def _group(self, columns: Sequence[Column]) -> Group:
        if len(columns) == 1:
            codes = np.arange(-1, len(columns[0].values), dtype=np.int32)[:, None]
            group = Group(tuple(columns), columns[0].codes.astype(np.int64) + 1, codes)
            group.scalar = self._type_of(columns[0])
            group.leaf = columns[0].path
        else:
            combo_of, codes = _combinations([c.codes for c in columns])
            group = Group(tuple(columns), combo_of, codes)
        many = group.scalar is not None and len(group.codes) > ONE_BY_ONE
        n = len(group.codes)
        tried = sorted({1, 2, n // 3, n // 2, n - 1}) if many else _used(group).tolist()
        changed = {k: self._changed(group, k) for k in tried}
        if group.scalar is not None and not all(self._as_expected(group, k, c) for k, c in changed.items()):
            group.scalar = None
        if many and group.scalar is not None:
            group.delta = self._scalar_deltas(group, group.scalar)
            return group
        if many:
            changed = {k: self._changed(group, k) for k in _used(group).tolist()}
        group.changed = [changed.get(k, {}) for k in range(n)]
        group.delta = np.array([self._delta(c) for c in group.changed], np.uint64)
        return group

    def _type_of(self, column: Column) -> Scalar | None:
        """The type of a free key whose canonical value may be all that it changes."""
        if self.job.tree is None or not is_free(split_path(column.path)[0]):
            return None
        return scalar_at(self.job.tree, column.path) if column.path in self.base else None

    def _as_expected(self, group: Group, k: int, changed: Mapping[str, Any]) -> bool:
        """Whether a combination of a lone key changes its own leaf to its canonical value and no other."""
        code = int(group.codes[k][0])
        if code < 0:
            return not changed
        value = group.columns[0].values[code]
        if group.scalar is None or group.scalar.problem(value) is not None:
            return False
        expected = group.scalar.canonical(value)
        own = self.base[group.leaf]
        return dict(changed) == ({group.leaf: expected} if _differs(own, expected) else {})

    def _scalar_deltas(self, group: Group, scalar: Scalar) -> np.ndarray:
        column = group.columns[0]
        leaf = column.path
        own = leaf_digest(leaf, self.base[leaf])
        out = np.zeros(len(group.codes), np.uint64)
        for k, value in enumerate(self.canonical_values(column, scalar)):
            out[k + 1] = (leaf_digest(leaf, value) - own) & MASK
        return out

    def canonical_values(self, column: Column, scalar: Scalar) -> Iterator[Any]:
        """A column's values in canonical form."""
        values: Iterable[Any] = column.values
        if isinstance(column.values, Drawn):
            # Numbers between two valid ends are valid; only what did not come from the span is read.
            yield from column.values.numbers.tolist()
            values = column.values.extra
        for value in values:
            try:
                yield scalar.canonical(value)
            except ValueError:
                self.job.with_values({column.path: value})  # raises with the words for users
                raise

    def _changed(self, group: Group, k: int) -> dict[str, Any]:
        """The leaves that a combination changes; GONE marks one that vanishes."""
        values = {
            c.path: c.values[int(code)]
            for c, code in zip(group.columns, group.codes[k], strict=True)
            if code >= 0
        }
        if not values:
            return {}
        now = dict(leaves(self.job.with_values(values).canonical()))
        changed = {p: v for p, v in now.items() if p not in self.base or _differs(self.base[p], v)}
        return changed | {p: GONE for p in self.base if p not in now}

    def _delta(self, changed: Mapping[str, Any]) -> int:
        """What replacing these leaves adds to the identity."""
        total = 0
        for path, value in changed.items():
            if path in self.base:
                total -= leaf_digest(path, self.base[path])
            if value is not GONE:
                total += leaf_digest(path, value)
        return total & MASK


def _differs(a: Any, b: Any) -> bool:
    return type(a) is not type(b) or a != b


def _used(group: Group) -> np.ndarray:
    """The combinations that some point has."""
    return np.unique(group.combo_of)


def _replaced(model: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of nested models with one canonical value replaced; all else is shared."""
    head, rest = path[0], path[1:]
    inner = _replaced(getattr(model, head), rest, value) if rest else value
    return model.model_copy(update={head: inner})


def _combinations(codes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of some columns of codes, and for each point which of them it has."""
    key = np.zeros(len(codes[0]), np.int64)
    for column in codes:
        key = key * (int(column.max(initial=0)) + 2) + (column + 1)
        # Renumbered after every column, so that the product never overflows.
        _, key = np.unique(key, return_inverse=True)
    _, first, combo_of = np.unique(key, return_index=True, return_inverse=True)
    return combo_of.astype(np.int64), np.stack([c[first] for c in codes], axis=1)
