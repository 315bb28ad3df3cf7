"""Replicates that are added while a sweep runs: which runs are known to be needed.

Owns the values that decide, and what follows from them for every point. Which runs are made depends on their
results alone: a run is only started once all that could make it unnecessary are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError
from spbfast.sweep.points.plan import Cell, Plan, make_plan
from spbfast.sweep.points.stopping import StopRule, StopVerdict
from spbfast.sweep.store.decisions import known_values, write_decisions
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.inputs import load_stored


class Growth:
    """The runs of a plan with a rule, as far as they are known.

    Parameters
    ----------
    plan : Plan
    rule : StopRule
    known : dict
        The deciding value of every run that is done, NaN for one that failed.
    shard_of : (int, int), optional
        Only the i-th of n parts of the points.

    Raises
    ------
    ConfigError
        When a part would have to wait for another.
    """

    def __init__(
        self,
        plan: Plan,
        rule: StopRule,
        known: Mapping[Cell, float],
        shard_of: tuple[int, int] | None = None,
    ) -> None:
        if rule.is_paired and shard_of is not None:
            raise ConfigError(
                "--shard-of: replicates.until.of is difference, so every part would wait for the one that "
                "has the baseline; use of: point, or leave --shard-of out"
            )
        self._plan, self._rule = plan, rule
        first, step = shard_of or (0, 1)
        self._ours = range(first, len(plan.points), step)
        self._values: list[list[float | None]] = [[None] * plan.replicates for _ in plan.points]
        self._baseline = next((i for i, p in enumerate(plan.points) if p.baseline), 0)
        for cell, value in known.items():
            self._put(cell, value)
        self.needed = [rule.spec.min] * len(plan.points)
        self._update(self._ours)

    def _put(self, cell: Cell, value: float) -> int | None:
        """Enter a value; the place of its point, None if it is not of this plan."""
        try:
            at = self._plan.index_of(cell.point_id)
        except KeyError:
            return None
        if cell.replicate >= self._plan.replicates:
            return None
        self._values[at][cell.replicate] = value
        return at

    def verdict(self, at: int) -> StopVerdict:
        """What is known of a point's replicates; a baseline of pairs needs as many as any other point."""
        if not self._rule.is_paired:
            return self._rule.judge(self._values[at])
        if at != self._baseline:
            return self._rule.judge(self._differences(at))
        others = [self.needed[i] for i in range(len(self.needed)) if i != at]
        return StopVerdict(max(others, default=self._rule.spec.min), is_final=True)

    def _differences(self, at: int) -> list[float | None]:
        pairs = zip(self._values[at], self._values[self._baseline], strict=True)
        return [None if a is None or b is None else a - b for a, b in pairs]

    def _update(self, places: Iterable[int]) -> None:
        for at in places:
            self.needed[at] = max(self.needed[at], self.verdict(at).replicates)
        if self._rule.is_paired:
            self.needed[self._baseline] = max(self.needed)

    def cells(self) -> list[Cell]:
        """The runs that are known to be needed, replicate by replicate."""
        most = max((self.needed[at] for at in self._ours), default=0)
        points = self._plan.points
        return [
            Cell(points[at].point_id, replicate)
            for replicate in range(most)
            for at in self._ours
            if replicate < self.needed[at]
        ]

    def take(self, cell: Cell, value: float) -> list[Cell]:
        """A run has ended; the runs that are needed now and were not before."""
        at = self._put(cell, value)
        if at is None:
            return []
        before = list(self.needed)
        self._update(self._ours if self._rule.is_paired and at == self._baseline else (at,))
        return [
            Cell(self._plan.points[i].point_id, replicate)
            for i in sorted({*self._ours, self._baseline} if self._rule.is_paired else self._ours)
            for replicate in range(before[i], self.needed[i])
        ]

    def summary(self) -> str:
        """How many points have got narrow intervals, for people."""
        verdicts = [
            self.verdict(at) for at in self._ours if not (self._rule.is_paired and at == self._baseline)
        ]
        narrow = sum(verdict.is_narrow for verdict in verdicts)
        return f"{self._rule.words()}; reached for {narrow} of {len(verdicts)}"

    def decided(self) -> dict[str, Any]:
        """What was decided, for the results."""
        verdicts = [self.verdict(at) for at in range(len(self._plan.points))]
        return {
            "rule": self._rule.words(),
            "metric": self._rule.metric,
            "points": {
                f"{point.point_id:016x}": {
                    "replicates": needed,
                    "half_width": verdict.half_width if math.isfinite(verdict.half_width) else None,
                    "is_narrow": verdict.is_narrow,
                }
                for point, needed, verdict in zip(self._plan.points, self.needed, verdicts, strict=True)
            },
        }


def decide_again(directory: Path) -> None:
    """Write what the results of a directory decide, where a rule does: tasks of an array see only their own.

    Raises
    ------
    ResultsError
        When it is not a results directory that can be continued.
    """
    store = Store(directory)
    manifest = store.manifest()
    if "replicates_min" not in manifest:
        return
    plan = make_plan(load_stored(directory), int(manifest["model_version"]))
    if (rule := plan.stop_rule) is not None:
        status, _ = store.scan()
        write_decisions(store.dir, Growth(plan, rule, known_values(store, status, rule.metric)).decided())
