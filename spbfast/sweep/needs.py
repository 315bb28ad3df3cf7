"""How much memory each run needs.

Owns the estimate that decides which runs share a machine. Asking the engine costs milliseconds, so points
are grouped by the swept values that can matter: the policy takes no memory. Knows nothing of executors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spbfast.sweep.plan import Batch, Cell, Plan

MOST_GROUPS = 1000
# Demand in flight, samples and the dataset of a run, besides its state.
RUN_BYTES = 32 << 20


class Needs:
    """Bytes that the runs of a plan take.

    Parameters
    ----------
    plan : Plan
    state_bytes : callable
        The engine's estimate for a scenario.
    """

    def __init__(self, plan: Plan, state_bytes: Callable[[Any], int]) -> None:
        self._ask = state_bytes
        self._known: dict[tuple[Any, ...], int] = {}
        self._group = {p.point_id: _group(p.design.values) for p in plan.points}

    def of(self, batch: Batch) -> int:
        """Bytes that the largest run of a batch takes."""
        return max(self._one(t.cell.point_id, t.scenario) for t in batch.tasks)

    def largest(self, plan: Plan) -> int:
        """Bytes of the largest run of a plan; of very many different ones a sample is asked."""
        seen: dict[tuple[Any, ...], Any] = {}
        for point in plan.points:
            seen.setdefault(self._group[point.point_id], point)
        some = list(seen.values())
        step = -(-len(some) // MOST_GROUPS)
        return max(self._one(p.point_id, plan.task(Cell(p.point_id, 0)).scenario) for p in some[::step])

    def _one(self, point_id: int, scenario: Any) -> int:
        group = self._group[point_id]
        if group not in self._known:
            self._known[group] = int(self._ask(scenario)) + RUN_BYTES
        return self._known[group]


def _group(values: dict[str, Any]) -> tuple[Any, ...]:
    """The swept values that may change a run's memory."""
    return tuple((k, repr(v)) for k, v in sorted(values.items()) if k.split(".")[0] != "policy")
