"""Is every point of a sweep a valid scenario? Errors point at the swept key or value.

Owns the checks of `sweep.grid` and `sweep.baseline`: that paths exist, are part of the simulated scenario
and are not fixed or swept twice, and that each value is valid for its key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from spbfast.config import messages
from spbfast.config.models import JobFile, ScenarioFields
from spbfast.config.policy import meant_paths
from spbfast.config.tree import NO_SUCH_PLACE, Node, lookup
from spbfast.errors import Problem

Validate = Callable[[Node, list[Problem]], Any]
Assign = Callable[[Node, str, Node, list[Problem]], Node]


def check_sweep(
    tree: Node, problems: list[Problem], validate: Validate, assign: Assign, *, main: str, one_point: bool
) -> None:
    """Append what is wrong with the sweep of `tree` to `problems`, which holds the file's own problems."""
    section = tree.value["sweep"]
    if not isinstance(section.value, dict):
        return
    checker = _Checker(tree, problems, validate, assign)
    grid, baseline = section.value.get("grid"), section.value.get("baseline")
    if not (grid and grid.value) and not (baseline and baseline.value):
        message = "names no point; add e.g. 'grid: {policy.slab_shrink_throttle: [50ms, 100ms]}'"
        problems.append(section.problem("sweep", message, at_key=True))
    if grid is not None and isinstance(grid.value, dict):
        usable = [k for k, n in grid.value.items() if checker.path_is_usable("sweep.grid", k, n)]
        for path in usable:
            if not one_point:
                checker.check_fixed(path, grid.value[path], main)
            checker.check_values(path, grid.value[path])
        checker.check_twice({k: grid.value[k] for k in usable})
    if baseline is not None and isinstance(baseline.value, dict):
        checker.check_baseline(baseline)


class _Checker:
    def __init__(self, tree: Node, problems: list[Problem], validate: Validate, assign: Assign) -> None:
        self.tree = replace(tree, value={k: n for k, n in tree.value.items() if k != "sweep"})
        self.problems, self.validate, self.assign = problems, validate, assign
        self.known = {(p.path, p.message) for p in problems}

    def path_is_usable(self, section: str, path: str, node: Node) -> bool:
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
            hint = f"; did you mean {paths[0]!r}?" if paths else messages.suggest(path, allowed)
            hint = hint or messages.suggest(path, list(messages.all_paths(ScenarioFields)))
            message = f"unknown key {path!r}{hint or '; sections: ' + ', '.join(allowed)}"
        self.problems.append(node.problem(f"{section}.{path}", message, at_key=True))
        return False

    def check_fixed(self, path: str, node: Node, main: str) -> None:
        """A key that the file itself, or an override, also fixes: which of the two is meant?"""
        for meant in sorted(meant_paths(path)):
            fixed = lookup(self.tree, meant)
            if fixed is None or fixed.source.name != main and fixed.source.lines:
                continue
            where = f"on line {fixed.line}" if fixed.source.lines else f"by {fixed.source.name}"
            message = f"is swept here and also fixed {where}; remove one of them"
            self.problems.append(node.problem(f"sweep.grid.{path}", message, at_key=True))
            return

    def check_twice(self, grid: Mapping[str, Node]) -> None:
        """Two grid keys that write the same key of the scenario."""
        seen: dict[str, str] = {}
        for path, node in grid.items():
            for meant in sorted(meant_paths(path)):
                if meant in seen:
                    message = f"sweeps the same key as {seen[meant]!r}; keep one of them"
                    self.problems.append(node.problem(f"sweep.grid.{path}", message, at_key=True))
                    break
                seen[meant] = path

    def check_values(self, path: str, node: Node) -> None:
        """Each value of one grid key, alone."""
        if not isinstance(node.value, list):
            return
        shown = f"sweep.grid.{path}"
        if not node.value:
            self.problems.append(node.problem(shown, "the list is empty; give at least one value"))
        seen: list[Any] = []
        for leaf in node.value:
            if any(leaf.plain() == s and type(leaf.plain()) is type(s) for s in seen):
                message = f"the value {messages.show(leaf.plain())} appears twice"
                self.problems.append(leaf.problem(shown, message))
            seen.append(leaf.plain())
            if self._check_group({path: leaf}, shown, node):
                return

    def check_baseline(self, node: Node) -> None:
        """The baseline's values, together."""
        usable = {k: n for k, n in node.value.items() if self.path_is_usable("sweep.baseline", k, n)}
        if usable:
            self._check_group(usable, "sweep.baseline", node)

    def _check_group(self, leaves: Mapping[str, Node], shown: str, holder: Node) -> bool:
        """Check one point; True if its key is unknown, so that other values need not be tried."""
        found: list[Problem] = []
        tree = self.tree
        for path in sorted(leaves, key=lambda p: (p.count("."), p)):
            tree = self.assign(tree, path, leaves[path], found)
        self.validate(tree, found)
        unknown = False
        for problem in found:
            if (problem.path, problem.message) in self.known:
                continue
            unknown |= problem.message.startswith("unknown key") or NO_SUCH_PLACE in problem.message
            self.problems.append(self._relocated(problem, leaves, shown, holder, unknown))
        return unknown

    def _relocated(
        self, problem: Problem, leaves: Mapping[str, Node], shown: str, holder: Node, unknown: bool
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
