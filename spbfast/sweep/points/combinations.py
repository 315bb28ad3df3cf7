"""Do the values of a point go together? Errors point at the value or at the row.

Owns the judgement of every combination of values that cannot be judged one by one, such as those that decide
whether boot fits into memory. Single values were checked when the configuration was loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spbfast.config.job import Job
from spbfast.config.scalars import judged_with
from spbfast.config.tree import YamlNode
from spbfast.errors import ConfigError, Problem
from spbfast.sweep.points.design import DesignPoint, build_design, can_sample
from spbfast.sweep.points.identity import Resolver
from spbfast.text import quote_value

SHOWN_VALUES = 4
PROBLEMS_MAX = 20
# Above this, `validate` leaves it to planning: a combination takes about half a millisecond.
VALIDATED_MAX = 10_000


def validate_combinations(job: Job) -> None:
    """Judge the combinations of a job that is not going to be planned, if they are not too many.

    Raises
    ------
    ConfigError
        With every problem found, as planning would raise it.
    """
    if job.has_combinations and job.nr_points <= VALIDATED_MAX and can_sample(job):
        judge_combinations(Resolver(job), build_design(job))


def judge_combinations(resolver: Resolver, points: Sequence[DesignPoint]) -> None:
    """Try every different combination of values that are judged together.

    Raises
    ------
    ConfigError
        With each different problem once, at the last of its values, and how often it occurs.
    """
    found: dict[tuple[str, str, str], list[Problem]] = {}
    judged: set[str] = set()
    total: Counter[str] = Counter()
    for point in points:
        for part in resolver.parts(point.values):
            key = json.dumps(part)
            if key in judged:
                continue
            judged.add(key)
            group = judged_with(next(iter(part))) or ""
            total[group] += not point.baseline
            for problem in _problems(resolver, part, point.row):
                found.setdefault((group, *_head(resolver.job, problem)), []).append(problem)
        if len(found) > PROBLEMS_MAX:
            break
    if found:
        problems = [_counted(same, total[group]) for (group, *_), same in found.items()]
        raise ConfigError(sorted(problems, key=lambda p: (p.line, p.col)))


def _head(job: Job, problem: Problem) -> tuple[str, str]:
    """Problems with the same head are reported once: those of a range, and those of one value of a grid."""
    drawn = problem.path.removeprefix("sweep.design.ranges.") in job.ranges
    return problem.path, "" if drawn else problem.message.split(" gives ")[0].split("=")[0]


def _counted(same: Sequence[Problem], total: int) -> Problem:
    """The first of some problems with how many of all combinations have one."""
    if len(same) == 1:
        return same[0]
    more = f" ({len(same)} of {total} combinations are invalid)"
    return replace(same[0], message=same[0].message + more)


def _problems(resolver: Resolver, part: Mapping[str, Any], row: int) -> list[Problem]:
    try:
        resolver.resolved(part)
    except ConfigError as error:
        return [located(resolver.job, part, row, problem) for problem in error.problems]
    return []


def located(job: Job, part: Mapping[str, Any], row: int, problem: Problem) -> Problem:
    """A problem of values together, at the last of them in the grid or the ranges, else at the row."""
    what = f"{problem.path}: {problem.message}" if problem.path else problem.message
    owner = next((path for path in reversed(list(part)) if path in job.swept_nodes), None)
    others = [f"{path}={quote_value(value)}" for path, value in part.items() if path != owner]
    others = others[:SHOWN_VALUES]
    if owner is not None:
        section = "design.ranges" if owner in job.ranges else "grid"
        if others:
            message = f"{quote_value(part[owner])} together with {', '.join(others)} gives {what}"
        else:
            message = problem.message if problem.path == owner else f"gives {what}"
        return _written(job.swept_nodes[owner], part[owner]).problem(f"sweep.{section}.{owner}", message)
    if job.rows is not None:
        return job.rows.problem(row, f"{', '.join(others)} gives {what}")
    return problem


def _written(node: YamlNode, value: Any) -> YamlNode:
    """Where the list of a swept key has a value; a range as a whole."""
    if not isinstance(node.value, list):
        return node
    return next((leaf for leaf in node.value if repr(leaf.plain()) == repr(value)), node)
