"""Is every point of a sweep a valid scenario? Errors point at the swept key or value.

Owns the checks of the `sweep` section: that paths exist, are part of the simulated scenario and are not
fixed or swept twice, that each value is valid for its key, and that values which have to be judged together
go together. The rows of `zip`, `points` and `points_file` and the ranges of `design` are read here too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spbfast.config import messages, rows
from spbfast.config.coupling import groups, scalar_at
from spbfast.config.models import JobFile, ScenarioFields
from spbfast.config.ranges import Range, Span, read_range
from spbfast.config.rows import PointsFile, RowTable
from spbfast.config.tree import NO_SUCH_PLACE, YamlNode, lookup
from spbfast.config.validate import assign, validate_tree
from spbfast.errors import Problem
from spbfast.text import quote_value, suggest

Confine = Callable[[YamlNode, str, list[Problem]], Path | None]

# Combinations judged when a file is loaded (about half a millisecond each); more are judged when planning.
COMBINATIONS_MAX = 2000
SHOWN_VALUES = 4
ROW_SOURCES = ("zip", "points", "points_file", "design")


@dataclass
class SweepParts:
    """What the section holds besides its model."""

    rows: RowTable | None = None
    ranges: dict[str, Range] = field(default_factory=dict)
    points_file: PointsFile | None = None


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
    checker = _Checker(tree, problems)
    given = [n for n in ROW_SOURCES if n in section.value and section.value[n].value not in (None, {}, [])]
    for name in given[1:]:
        message = f"gives the points a second time, after {given[0]!r}; keep one of {', '.join(ROW_SOURCES)}"
        problems.append(section.value[name].problem(f"sweep.{name}", message, at_key=True))
    grid, baseline = section.value.get("grid"), section.value.get("baseline")
    if not (grid and grid.value) and not (baseline and baseline.value) and not given:
        message = "names no point; add e.g. 'grid: {policy.slab_shrink_throttle: [50ms, 100ms]}'"
        problems.append(section.problem("sweep", message, at_key=True))
    swept: dict[str, YamlNode] = {}
    checker.joint = _joint_paths(section)
    if grid is not None and isinstance(grid.value, dict):
        swept = checker.check_grid(grid, None if one_point else main)
    if given and not one_point:
        parts = checker.read_rows(given[0], section.value[given[0]], confine, main, swept)
    if baseline is not None and isinstance(baseline.value, dict):
        checker.check_baseline(baseline)
    design = section.value.get("design")
    if design is not None and grid is not None and grid.value and isinstance(design.value, dict):
        kind = design.value.get("kind")
        if kind is not None and kind.value in ("saltelli", "morris"):
            message = f"{kind.value} cannot be combined with a grid; make the key one of its ranges"
            problems.append(grid.problem("sweep.grid", message, at_key=True))
    if len(problems) == checker.known_count and not one_point:
        checker.check_together(swept, parts.rows)
    return parts


class _Checker:
    def __init__(self, tree: YamlNode, problems: list[Problem]) -> None:
        self.tree = replace(tree, value={k: n for k, n in tree.value.items() if k != "sweep"})
        self.problems = problems
        self.known = {(p.path, p.message) for p in problems}
        self.known_count = len(problems)
        self.joint: frozenset[str] = frozenset()

    def path_is_usable(self, section: str, path: str, node: YamlNode) -> bool:
        """Does the path begin with a section that may be swept?"""
        top = path.split(".")[0]
        allowed = list(ScenarioFields.model_fields)
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

    def check_fixed(self, section: str, path: str, node: YamlNode, main: str) -> None:
        """A key that the file itself, or an override, also fixes: which of the two is meant?"""
        fixed = lookup(self.tree, path)
        if fixed is None or fixed.source.name != main and fixed.source.lines:
            return
        where = f"on line {fixed.line}" if fixed.source.lines else f"by {fixed.source.name}"
        message = f"is swept here and also fixed {where}; remove one of them"
        self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))

    def check_twice(self, swept: Iterable[tuple[str, str, YamlNode]]) -> None:
        """Two swept keys that write the same key of the scenario."""
        seen: set[str] = set()
        for section, path, node in swept:
            if path in seen:
                message = "is swept twice; keep one of them"
                self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))
            seen.add(path)

    def check_grid(self, grid: YamlNode, main: str | None) -> dict[str, YamlNode]:
        """Every key of the grid and each of its values, alone; returns the usable ones."""
        usable = {k: n for k, n in grid.value.items() if self.path_is_usable("sweep.grid", k, n)}
        for path, node in usable.items():
            if main is not None:
                self.check_fixed("sweep.grid", path, node, main)
            self.check_values(path, node)
        self.check_twice([("sweep.grid", k, n) for k, n in usable.items()])
        return usable

    def check_values(self, path: str, node: YamlNode) -> None:
        """Each value of one grid key, alone."""
        if not isinstance(node.value, list):
            return
        shown = f"sweep.grid.{path}"
        if not node.value:
            self.problems.append(node.problem(shown, "the list is empty; give at least one value"))
        seen: set[Any] = set()
        for leaf in node.value:
            plain = leaf.plain()
            key = (type(plain), repr(plain))
            if key in seen:
                message = f"the value {quote_value(plain)} appears twice"
                self.problems.append(leaf.problem(shown, message))
            seen.add(key)
            if self._check_group({path: leaf}, shown, node):
                return

    def check_baseline(self, node: YamlNode) -> None:
        """The baseline's values, together."""
        usable = {k: n for k, n in node.value.items() if self.path_is_usable("sweep.baseline", k, n)}
        if usable:
            self._check_group(usable, "sweep.baseline", node)

    # -- rows and ranges -----------------------------------------------------------------------------

    def read_rows(
        self, name: str, node: YamlNode, confine: Confine, main: str, swept: Mapping[str, YamlNode]
    ) -> SweepParts:
        """The rows or ranges of the one source that is given."""
        parts = SweepParts()
        if name == "design":
            parts.ranges = self._read_ranges(node, main, swept)
        elif name == "points_file":
            if isinstance(node.value, str) and (path := confine(node, "sweep.points_file", self.problems)):
                parts.rows, parts.points_file = rows.read_points_file(path, str(path), node, self.problems)
        elif name == "zip" and isinstance(node.value, dict):
            parts.rows = rows.rows_of_zip(node, self.problems)
        elif name == "points" and isinstance(node.value, list):
            parts.rows = rows.rows_of_list(node)
        if parts.rows is not None:
            together = groups([*parts.rows.columns, *swept])
            self.joint |= {p for group in together if len(group) > 1 for p in group}
            self._check_rows(parts.rows, main, swept)
        return parts

    def _check_rows(self, table: RowTable, main: str, swept: Mapping[str, YamlNode]) -> None:
        """Every key of a table of rows and each of its different values, alone."""
        usable = []
        for path, column in table.columns.items():
            if not column.nodes or not self.path_is_usable(table.shown, path, column.nodes[0]):
                continue
            usable.append((table.shown, path, column.nodes[0]))
            if rows.UNSET not in column.codes:  # else the file's value is what the other rows have
                self.check_fixed(table.shown, path, column.nodes[0], main)
            scalar = scalar_at(self.tree, path)
            for node in column.nodes:
                if scalar is not None and len(column.nodes) > 1 and scalar.problem(node.plain()) is None:
                    continue
                if self._check_group({path: node}, f"{table.shown}.{path}", node):
                    break
        self.check_twice([*(("sweep.grid", k, n) for k, n in swept.items()), *usable])

    def _read_ranges(self, node: YamlNode, main: str, swept: Mapping[str, YamlNode]) -> dict[str, Range]:
        """The ranges of `design`; both ends of each have to be valid."""
        found: dict[str, Range] = {}
        inner = node.value.get("ranges") if isinstance(node.value, dict) else None
        if inner is None or not isinstance(inner.value, dict):
            return found
        if not inner.value:
            self.problems.append(inner.problem("sweep.design.ranges", "is empty; give at least one range"))
        usable = []
        for path, range_node in inner.value.items():
            if not self.path_is_usable("sweep.design.ranges", path, range_node):
                continue
            usable.append(("sweep.design.ranges", path, range_node))
            self.check_fixed("sweep.design.ranges", path, range_node, main)
            shown = f"sweep.design.ranges.{path}"
            scalar = scalar_at(self.tree, path)
            if lookup_problem := self._unknown(path, range_node, shown):
                self.problems.append(lookup_problem)
                continue
            read = read_range(range_node, shown, scalar, self.problems)
            if read is None:
                continue
            found[path] = read
            if isinstance(read, Span):
                leaves = [range_node.value["min"], range_node.value["max"]]
                leaves += [replace(leaves[0], value=read.value(u)) for u in (0.25, 0.618)]
            else:
                leaves = list(range_node.value)
            for leaf in leaves:
                if self._check_group({path: leaf}, shown, range_node):
                    break
        self.check_twice([*(("sweep.grid", k, n) for k, n in swept.items()), *usable])
        return found

    def _unknown(self, path: str, node: YamlNode, shown: str) -> Problem | None:
        """The problem of a path that leads nowhere, found by writing nothing there."""
        found: list[Problem] = []
        validate_tree(self._with({path: YamlNode(None, node.source)}, found), found)
        for problem in found:
            if problem.message.startswith("unknown key") or NO_SUCH_PLACE in problem.message:
                return node.problem(shown, problem.message, at_key=True)
        return None

    # -- values together -----------------------------------------------------------------------------

    def check_together(self, grid: Mapping[str, YamlNode], table: RowTable | None) -> None:
        """Every combination of values that cannot be judged one by one, as far as there are not too many."""
        columns = list(table.columns) if table is not None else []
        for group in groups([*columns, *grid]):
            if len(group) < 2:
                continue
            grid_paths = [p for p in group if p in grid]
            row_paths = [p for p in group if p not in grid]
            row_codes = _different_rows(table, row_paths)
            sizes = [len(grid[p].value) for p in grid_paths]
            if len(row_codes) * math.prod(sizes) > COMBINATIONS_MAX:
                continue
            self._check_combinations(grid, table, grid_paths, row_paths, row_codes)

    def _check_combinations(
        self,
        grid: Mapping[str, YamlNode],
        table: RowTable | None,
        grid_paths: Sequence[str],
        row_paths: Sequence[str],
        row_codes: Mapping[tuple[int, ...], int],
    ) -> None:
        """Report each different message once, at the last of its values, with how often it occurs."""
        found: dict[tuple[str, str], tuple[Problem, int]] = {}
        total = 0
        for (codes, row), combo in itertools.product(
            row_codes.items(), itertools.product(*(grid[p].value for p in grid_paths))
        ):
            total += 1
            leaves = dict(zip(grid_paths, combo, strict=True))
            if table is not None:
                nodes = ((p, table.columns[p].nodes, c) for p, c in zip(row_paths, codes, strict=True))
                leaves |= {p: n[c] for p, n, c in nodes if c >= 0}
            for problem in self._problems_together(leaves, grid_paths, table, row):
                head = (problem.path, problem.message.split(" gives ")[0].split("=")[0])
                old = found.get(head)
                found[head] = (old[0] if old else problem, old[1] + 1 if old else 1)
        for problem, times in found.values():
            more = f" ({times} of {total} combinations are invalid)" if times > 1 else ""
            self.problems.append(replace(problem, message=problem.message + more))

    def _problems_together(
        self, leaves: Mapping[str, YamlNode], grid_paths: Sequence[str], table: RowTable | None, row: int
    ) -> list[Problem]:
        found: list[Problem] = []
        validate_tree(self._with(leaves, found), found)
        out = []
        for problem in found:
            if (problem.path, problem.message) in self.known:
                continue
            shown = list(leaves.items())
            owner = next((p for p in reversed(list(leaves)) if p in grid_paths), "")
            others = ", ".join(f"{p}={quote_value(n.plain())}" for p, n in shown[:SHOWN_VALUES] if p != owner)
            what = f"{problem.path}: {problem.message}" if problem.path else problem.message
            if owner:
                own = quote_value(leaves[owner].plain())
                message = f"{own} together with {others} gives {what}"
                out.append(leaves[owner].problem(f"sweep.grid.{owner}", message))
            elif table is not None:
                out.append(table.problem(row, f"{others} gives {what}"))
        return out

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
            if not unknown and self._may_go_with_others(problem, leaves):
                continue
            self.problems.append(self._relocated(problem, leaves, shown, holder, unknown))
        return unknown

    def _may_go_with_others(self, problem: Problem, leaves: Mapping[str, YamlNode]) -> bool:
        """Whether a value that is wrong beside the file's own may be right beside other swept ones."""
        if len(leaves) != 1:
            return False
        ((path, leaf),) = leaves.items()
        if path not in self.joint:
            return False
        scalar = scalar_at(self.tree, path)
        own = problem.path == path or problem.path.startswith(f"{path}.")
        return not own or (scalar is not None and scalar.problem(leaf.plain()) is None)

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


def _joint_paths(section: YamlNode) -> frozenset[str]:
    """Swept paths whose values are judged together with those of another swept path."""
    paths: list[str] = []
    for name in ("grid", "zip", "points"):
        node = section.value.get(name)
        for holder in node.value if node is not None and isinstance(node.value, list) else [node]:
            if holder is not None and isinstance(holder.value, dict):
                paths += holder.value
    design = section.value.get("design")
    ranges = design.value.get("ranges") if design is not None and isinstance(design.value, dict) else None
    if ranges is not None and isinstance(ranges.value, dict):
        paths += ranges.value
    return frozenset(p for group in groups(paths) if len(group) > 1 for p in group)


def _different_rows(table: RowTable | None, paths: Sequence[str]) -> dict[tuple[int, ...], int]:
    """The different combinations of codes in some columns, with the first row of each."""
    if table is None or not paths:
        return {(): 0}
    found: dict[tuple[int, ...], int] = {}
    for row, codes in enumerate(zip(*(table.columns[p].codes for p in paths), strict=True)):
        found.setdefault(codes, row)
    return found
