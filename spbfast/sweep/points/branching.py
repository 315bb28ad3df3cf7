"""May the points of a sweep with `sweep.branch_at` differ as they do? Errors point at the value or row.

Owns the judgement of everything that changes at the branch: a machine that runs can change its policy, but
not what it is, nor the switches that shape what it has stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from spbfast.config.branch import SHAPING_SWITCHES
from spbfast.config.job import Job
from spbfast.config.units import format_duration
from spbfast.errors import ConfigError, Problem
from spbfast.sweep.points.combinations import PROBLEMS_MAX, VALIDATED_MAX, located
from spbfast.sweep.points.design import DesignPoint, build_design, can_sample
from spbfast.sweep.points.identity import Resolver
from spbfast.text import quote_value


def validate_branch(job: Job) -> None:
    """Judge the points of a job that is not going to be planned, if they are not too many.

    Raises
    ------
    ConfigError
        With every problem found, as planning would raise it.
    """
    if job.scenario.branch is not None and job.nr_points <= VALIDATED_MAX and can_sample(job):
        judge_branch(Resolver(job), build_design(job))


def judge_branch(resolver: Resolver, points: Sequence[DesignPoint]) -> None:
    """Refuse points that cannot continue the machine that all of them share.

    Raises
    ------
    ConfigError
        Naming each key once, with the reason.
    """
    if resolver.job.scenario.branch is None:
        return
    found: dict[str, Problem] = {}
    for point in points:
        for problem in _refusals(resolver, point):
            found.setdefault(problem.path, problem)
        if len(found) > PROBLEMS_MAX:
            break
    if found:
        raise ConfigError(sorted(found.values(), key=lambda p: (p.line, p.col)))


def _refusals(resolver: Resolver, point: DesignPoint) -> Iterator[Problem]:
    for leaf, value in resolver.change(point.values).leaves.items():
        if value == resolver.base.get(leaf) or (why := _why_not(resolver, leaf, value)) is None:
            continue
        key = _key_of(point.values, leaf)
        problem = Problem(str(resolver.job.path), 0, 0, leaf, why)
        if point.baseline:
            yield replace(problem, path=f"sweep.baseline.{key}", message=f"gives {leaf}: {why}")
            continue
        yield located(resolver.job, {key: point.values[key]}, point.row, problem)


def _key_of(values: dict[str, Any], leaf: str) -> str:
    """The swept key that changes a leaf: the longest that it lies below, else one of its section."""
    above = [key for key in values if leaf == key or leaf.startswith(f"{key}.")]
    section = leaf.split(".")[0]
    alike = [key for key in values if key.split(".")[0].split("[")[0] == section]
    return max(above, key=len) if above else (alike or list(values))[-1]


def _why_not(resolver: Resolver, leaf: str, value: Any) -> str | None:
    """Why a leaf of the scenario cannot change at the branch; None if it can."""
    branch = resolver.job.scenario.branch
    assert branch is not None
    section, _, name = leaf.partition(".")
    moment = f"{format_duration(branch.at)} (sweep.branch_at)"
    if section == "duration":
        short = value < branch.at
        return f"{format_duration(value)} ends before the branch at {moment}" if short else None
    if section != "policy":
        return (
            f"cannot differ after {moment}: every point continues the same machine, aged with the file's own "
            f"{section}; only policy and duration can; sweep this key without branch_at"
        )
    if name not in SHAPING_SWITCHES:
        return None
    return (
        f"would become {quote_value(value)} at {moment} in a machine that was aged with "
        f"{quote_value(resolver.base.get(leaf))}, which a machine cannot do while it runs: "
        f"{SHAPING_SWITCHES[name]}; sweep it without branch_at, or age the machine under the other value"
    )
