"""How much memory each run needs.

Owns the estimate that decides which runs share a machine. Asking the engine costs milliseconds, so it is
asked once where all points need the same, which the plan knows, else once for each combination of the swept
values that can matter: the policy takes no memory. Knows nothing of executors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spbfast.sweep.points.plan import Batch, Plan

# Demand in flight, samples and the dataset of a run, besides its state.
RUN_BYTES = 32 << 20
MOST_KNOWN = 100_000


class Needs:
    """Bytes that the runs of a plan take.

    Parameters
    ----------
    plan : Plan
    state_bytes : callable
        The engine's estimate for a scenario.

    Attributes
    ----------
    largest : int
        Bytes of the plan's largest run; of very many different ones a sample is asked.
    """

    def __init__(self, plan: Plan, state_bytes: Callable[[Any], int]) -> None:
        self._ask = state_bytes
        some = plan.sizing_scenarios()
        self.largest = max(int(state_bytes(s)) for s in some) + RUN_BYTES
        self._alike = len(some) == 1
        self._known: dict[str, int] = {}
        self._plan = plan

    def of(self, batch: Batch) -> int:
        """Bytes that the largest run of a batch takes."""
        if self._alike:
            return self.largest
        return max(self._one(t.cell.point_id, t.scenario) for t in batch.tasks)

    def _one(self, point_id: int, scenario: Any) -> int:
        group = self._plan.memory_key(self._plan.index_of(point_id))
        found = self._known.get(group)
        if found is None:
            found = int(self._ask(scenario)) + RUN_BYTES
            if len(self._known) < MOST_KNOWN:
                self._known[group] = found
        return found
