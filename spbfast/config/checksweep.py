"""Are the keys and values that a sweep visits valid? Errors point at the swept key or value.

Owns the checks of the `sweep` section: that paths exist, are part of the simulated scenario and are not
fixed or swept twice, and that each value is valid for its key. The rows of `zip`, `points` and `points_file`
and the ranges of `design` are read here too. Whether values of several keys go together is judged when the
sweep is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spbfast.config import messages, rows
from spbfast.config.models import JobFile, ScenarioFields
from spbfast.config.ranges import Interval, Range, read_range
from spbfast.config.rows import PointsFile, RowTable
from spbfast.config.scalars import judged_with, scalar_at
from spbfast.config.tree import NO_SUCH_PLACE, YamlNode, lookup
from spbfast.config.validate import assign, validate_tree
from spbfast.errors import Problem
from spbfast.text import quote_value, suggest

Confine = Callable[[YamlNode, str, list[Problem]], Path | None]

ROW_SOURCES = ("zip", "points", "points_file", "design")
# Beside its ends, an interval is tried at these shares of its length.
PROBES = np.array([0.25, 0.618])


@dataclass
class SweepParts:
    """What the section holds besides its model.

    Attributes
    ----------
    swept : dict of YamlNode
        By key of the grid and of the ranges, the values or the range as written.
    """

    rows: RowTable | None = None
    ranges: dict[str, Range] = field(default_factory=dict)
    points_file: PointsFile | None = None
    swept: dict[str, YamlNode] = field(default_factory=dict)


def check_sweep(
    tree: YamlNode,
    problems: list[Problem],
    confine: Confine,
    *,
    main: str,
    one_point: bool,
) -> SweepParts:
    """Append what is wrong with the sweep of `tree` to `problems`, which holds the file's own problems."""
    parts = SweepParts()
    section = tree.value["sweep"]
    if not isinstance(section.value, dict):
        return parts
    given = [n for n in ROW_SOURCES if n in section.value and section.value[n].value not in (None, {}, [])]
    _check_sources(section, given, problems)
    before = list(problems)
    if given and not one_point:
        _read_rows(parts, given[0], section.value[given[0]], confine, problems)
    # With a branch, what the file itself says is meant too: it holds until then.
    twice = one_point or "branch_at" in section.value
    checker = _Checker(tree, problems, before, None if twice else main)
    parts.swept |= checker.check_grid(_mapping(section, "grid"))
    if parts.rows is not None:
        checker.check_rows(parts.rows)
    if given[:1] == ["design"] and not one_point:
        parts.ranges = checker.read_ranges(_mapping(section, "design", "ranges"))
        parts.swept |= _mapping(section, "design", "ranges")
    if baseline := _mapping(section, "baseline"):
        checker.check_baseline(baseline, section.value["baseline"])
    return parts


def _check_sources(section: YamlNode, given: list[str], problems: list[Problem]) -> None:
    """A sweep needs points, and only one source of rows."""
    for name in given[1:]:
        message = f"gives the points a second time, after {given[0]!r}; keep one of {', '.join(ROW_SOURCES)}"
        problems.append(section.value[name].problem(f"sweep.{name}", message, at_key=True))
    grid, baseline = section.value.get("grid"), section.value.get("baseline")
    if not (grid and grid.value) and not (baseline and baseline.value) and not given:
        message = "names no point; add e.g. 'grid: {policy.slab_shrink_throttle: [50ms, 100ms]}'"
        problems.append(section.problem("sweep", message, at_key=True))
    kind = _mapping(section, "design").get("kind")
    if grid and grid.value and kind is not None and kind.value in ("saltelli", "morris"):
        message = f"{kind.value} cannot be combined with a grid; make the key one of its ranges"
        problems.append(grid.problem("sweep.grid", message, at_key=True))
    ranges = section.value["design"].value.get("ranges") if _mapping(section, "design") else None
    if given[:1] == ["design"] and ranges is not None and ranges.value == {}:
        problems.append(ranges.problem("sweep.design.ranges", "is empty; give at least one range"))


def _read_rows(
    parts: SweepParts, name: str, node: YamlNode, confine: Confine, problems: list[Problem]
) -> None:
    """The rows of the one source that is given."""
    if name == "points_file":
        if isinstance(node.value, str) and (path := confine(node, "sweep.points_file", problems)):
            parts.rows, parts.points_file = rows.read_points_file(path, str(path), node, problems)
    elif name == "zip" and isinstance(node.value, dict):
        parts.rows = rows.rows_of_zip(node, problems)
    elif name == "points" and isinstance(node.value, list):
        parts.rows = rows.rows_of_list(node)


def _mapping(node: YamlNode | None, *keys: str) -> dict[str, YamlNode]:
    """The mapping at some keys below a node, empty if there is none."""
    for key in keys:
        node = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
    return node.value if node is not None and isinstance(node.value, dict) else {}


class _Checker:
    """Checks of keys and of values one by one.

    `known` are the file's own problems, which are not repeated; `main` is the file that may not fix a swept
    key too.
    """

    def __init__(
        self, tree: YamlNode, problems: list[Problem], known: Iterable[Problem], main: str | None
    ) -> None:
        self.tree = replace(tree, value={k: n for k, n in tree.value.items() if k != "sweep"})
        self.problems, self.main = problems, main
        self.known = {(p.path, p.message) for p in known}
        self.seen: set[str] = set()

    def path_is_usable(self, section: str, path: str, node: YamlNode) -> bool:
        """Does the path begin with a section that may be swept?"""
        top = path.split(".")[0]
        allowed = list(ScenarioFields.model_fields)
        if path in ("machine.from", "machine.digest"):
            message = "cannot be swept; a job begins as one machine: write one job for each"
            self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))
            return False
        if top in allowed:
            return True
        if top in JobFile.model_fields:
            message = f"{top!r} is not part of the scenario and cannot be swept; these can: "
            message += ", ".join(allowed)
        else:
            paths = [p for p in messages.all_paths(ScenarioFields) if p.rsplit(".", 1)[-1] == top]
            hint = f"; did you mean {paths[0]!r}?" if paths else suggest(path, allowed)
            hint = hint or suggest(path, list(messages.all_paths(ScenarioFields)))
            message = f"unknown key {path!r}{hint or '; sections: ' + ', '.join(allowed)}"
        self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))
        return False

    def check_fixed(self, section: str, path: str, node: YamlNode) -> None:
        """A key that the file itself, or an override, also fixes: which of the two is meant?"""
        if path in ("duration", "replay.trace"):  # a file must give it; the sweep's values replace that one
            return
        fixed = lookup(self.tree, path) if self.main is not None else None
        if fixed is None or fixed.source.name != self.main and fixed.source.lines:
            return
        where = f"on line {fixed.line}" if fixed.source.lines else f"by {fixed.source.name}"
        message = f"is swept here and also fixed {where}; remove one of them"
        self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))

    def usable(
        self, section: str, nodes: Mapping[str, YamlNode], *, may_be_fixed: Iterable[str] = ()
    ) -> dict[str, YamlNode]:
        """The keys that can be swept; those that are fixed or swept elsewhere too are reported."""
        found = {path: node for path, node in nodes.items() if self.path_is_usable(section, path, node)}
        for path, node in found.items():
            if path not in may_be_fixed:
                self.check_fixed(section, path, node)
            if path in self.seen:
                message = "is swept twice; keep one of them"
                self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))
        self.seen |= found.keys()
        return found

    def check_grid(self, grid: Mapping[str, YamlNode]) -> dict[str, YamlNode]:
        """Every key of the grid and each of its values, alone; returns the usable ones."""
        usable = self.usable("sweep.grid", grid)
        for path, node in usable.items():
            if isinstance(node.value, list):
                self._check_list(path, node)
        return usable

    def _check_list(self, path: str, node: YamlNode) -> None:
        shown = f"sweep.grid.{path}"
        if not node.value:
            self.problems.append(node.problem(shown, "the list is empty; give at least one value"))
        seen: set[str] = set()
        for leaf in node.value:
            plain = leaf.plain()
            if repr(plain) in seen:
                message = f"the value {quote_value(plain)} appears twice"
                self.problems.append(leaf.problem(shown, message))
            seen.add(repr(plain))
        self._check_values(path, node.value, shown, node)

    def check_rows(self, table: RowTable) -> None:
        """Every key of a table of rows and each of its different values, alone."""
        first = {path: nodes[0] for path, nodes in table.columns.items()}
        # Where a row leaves a key out, the file's own value is meant.
        partly = {path for path in first if any(path not in row for row in table.rows)}
        for path in self.usable(table.shown, first, may_be_fixed=partly):
            self._check_values(path, table.columns[path], f"{table.shown}.{path}", None)

    def check_baseline(self, values: Mapping[str, YamlNode], node: YamlNode) -> None:
        """The baseline's values, together."""
        usable = {k: n for k, n in values.items() if self.path_is_usable("sweep.baseline", k, n)}
        if usable:
            self._check_group(usable, "sweep.baseline", node)

    def read_ranges(self, nodes: Mapping[str, YamlNode]) -> dict[str, Range]:
        """The ranges of `design`, each of which is tried at some of its values."""
        found: dict[str, Range] = {}
        for path, node in self.usable("sweep.design.ranges", nodes).items():
            shown = f"sweep.design.ranges.{path}"
            if (problem := self._unknown(path, node, shown)) is not None:
                self.problems.append(problem)
                continue
            read = read_range(node, shown, scalar_at(self.tree, path), self.problems)
            if read is None:
                continue
            found[path] = read
            leaves = node.value
            if isinstance(read, Interval):
                leaves = [node.value["min"], node.value["max"]]
                leaves += [replace(leaves[0], value=value) for value in read.at(PROBES)]
            self._check_values(path, leaves, shown, node)
        return found

    # -- values --------------------------------------------------------------------------------------

    def _check_values(
        self, path: str, nodes: Iterable[YamlNode], shown: str, holder: YamlNode | None
    ) -> None:
        """Each value of one key, alone: for a number or switch its type decides."""
        scalar = scalar_at(self.tree, path)
        if scalar is not None and scalar.kind is str:  # it may be the name of a preset
            scalar = None
        for node in nodes:
            if scalar is not None and scalar.problem(node.plain()) is None:
                continue
            if self._check_group({path: node}, shown, holder or node):
                return

    def _unknown(self, path: str, node: YamlNode, shown: str) -> Problem | None:
        """The problem of a path that leads nowhere, found by writing nothing there."""
        found: list[Problem] = []
        validate_tree(self._with({path: YamlNode(None, node.source)}, found), found)
        for problem in found:
            if problem.message.startswith("unknown key") or NO_SUCH_PLACE in problem.message:
                return node.problem(shown, problem.message, at_key=True)
        return None

    def _with(self, leaves: Mapping[str, YamlNode], found: list[Problem]) -> YamlNode:
        tree = self.tree
        for path in sorted(leaves, key=lambda p: (p.count("."), p)):
            tree = assign(tree, path, leaves[path], found)
        return tree

    def _check_group(self, leaves: Mapping[str, YamlNode], shown: str, holder: YamlNode) -> bool:
        """Check one point; True if its key is unknown, so that other values need not be tried."""
        found: list[Problem] = []
        validate_tree(self._with(leaves, found), found)
        unknown = False
        for problem in found:
            if (problem.path, problem.message) in self.known:
                continue
            unknown |= problem.message.startswith("unknown key") or NO_SUCH_PLACE in problem.message
            if not unknown and _is_judged_later(problem, leaves):
                continue
            self.problems.append(self._relocated(problem, leaves, shown, holder, unknown))
        return unknown

    def _relocated(
        self, problem: Problem, leaves: Mapping[str, YamlNode], shown: str, holder: YamlNode, unknown: bool
    ) -> Problem:
        owner = next((p for p in leaves if problem.path == p or problem.path.startswith(f"{p}.")), None)
        if owner is None:
            at = next(iter(leaves.values())) if len(leaves) == 1 else holder
            return at.problem(shown, f"gives {problem.path}: {problem.message}")
        leaf = leaves[owner]
        path = shown if shown.endswith(f".{owner}") else f"{shown}.{owner}"
        path += problem.path[len(owner) :]
        if unknown:
            at = leaf if leaf.key_line and shown == "sweep.baseline" else holder
            return at.problem(path, problem.message, at_key=True)
        inside = {(n.line, n.col) for n in leaf.walk()}
        if problem.file == leaf.source.name and (problem.line, problem.col) in inside:
            return replace(problem, path=path)
        return leaf.problem(path, problem.message)


def _is_judged_later(problem: Problem, leaves: Mapping[str, YamlNode]) -> bool:
    """Whether a lone value conflicts with another key, which planning judges with all other values."""
    path = next(iter(leaves))
    own = problem.path == path or problem.path.startswith(f"{path}.")
    return len(leaves) == 1 and judged_with(path) is not None and not own
