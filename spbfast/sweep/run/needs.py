"""How much memory each run needs.

Owns the estimate that decides which runs share a machine. Asking the engine costs milliseconds, so it is
asked once for each combination of the swept values that can matter: the policy takes no memory. Knows nothing
of executors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spbfast.sweep.points.plan import Batch, Plan, Task

# Demand in flight, samples and the dataset of a run, besides its state.
RUN_BYTES = 32 << 20


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
        self._plan, self._state_bytes = plan, state_bytes
        some = plan.sizing_scenarios()
        self.largest = max(map(self._ask, some))
        self._alike = len(some) == 1
        self._known: dict[str, int] = {}

    def _ask(self, scenario: Any) -> int:
        return int(self._state_bytes(scenario)) + RUN_BYTES

    def of(self, batch: Batch) -> int:
        """Bytes that the largest run of a batch takes."""
        return self.largest if self._alike else max(map(self._one, batch.tasks))

    def _one(self, task: Task) -> int:
        key = self._plan.memory_key(self._plan.index_of(task.cell.point_id))
        if key not in self._known:
            self._known[key] = self._ask(task.scenario)
        return self._known[key]
