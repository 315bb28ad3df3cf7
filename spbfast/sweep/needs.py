"""How much memory each run needs.

Owns the estimate that decides which runs share a machine. Asking the engine costs milliseconds, so points
are grouped by the swept values that can matter: the policy takes no memory. Knows nothing of executors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spbfast.sweep.plan import Batch, Plan

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
        self._known: dict[tuple[int, ...], int] = {}
        self._plan = plan
        self._columns = [c for c in plan.design.columns if c.path.split(".")[0] != "policy"]

    def of(self, batch: Batch) -> int:
        """Bytes that the largest run of a batch takes."""
        return max(self._one(t.cell.point_id, t.scenario) for t in batch.tasks)

    def largest(self, plan: Plan) -> int:
        """Bytes of the largest run of a plan; of very many different ones a sample is asked."""
        return max(int(self._ask(s)) for s in plan.sizing_scenarios()) + RUN_BYTES

    def _one(self, point_id: int, scenario: Any) -> int:
        group = self._group(point_id)
        if group not in self._known:
            self._known[group] = int(self._ask(scenario)) + RUN_BYTES
        return self._known[group]

    def _group(self, point_id: int) -> tuple[int, ...]:
        """The swept values that may change a run's memory, by their codes."""
        index = self._plan.index_of(point_id)
        return tuple(int(c.codes[index]) for c in self._columns)
