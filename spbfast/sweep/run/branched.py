"""A branched sweep's runs: which go first, and when a machine at the branch is needed no more.

Owns the order that has every worker age a machine of its own instead of waiting for another's, and the
removal of states. What a run does with a state is decided in the worker.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from spbfast.sweep.points.plan import Cell, Plan
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.states import forget_failures, remove_state, remove_states, state_path


def ageing_order(cells: Sequence[Cell], width: int, turn: int = 0) -> list[list[Cell]]:
    """Runs in the order in which a branched sweep does them.

    Parameters
    ----------
    width : int
        Runs at a time, which is how many machines are aged before their points are run.
    turn : int
        With which of the replicates to begin: tasks of a job array begin with different ones.

    Returns
    -------
    list of list of Cell
        The first run of a replicate, which ages its machine, alone; and the other runs of each replicate.
    """
    of: dict[int, list[Cell]] = {}
    for cell in cells:
        of.setdefault(cell.replicate, []).append(cell)
    groups = list(of.values())
    begin = turn % max(1, len(groups))
    groups = groups[begin:] + groups[:begin]
    order: list[list[Cell]] = []
    for first in range(0, len(groups), max(1, width)):
        some = groups[first : first + max(1, width)]
        order += [group[:1] for group in some]
        order += [group[1:] for group in some if group[1:]]
    return order


class Branching:
    """What a sweep with a branch does beside other sweeps; without one, nothing."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._left: Counter[int] = Counter()
        self._first: set[Cell] = set()
        self._aged: set[int] = set()
        self._width = 1
        # Another task of an array may have runs of the same replicate.
        self._removes = plan.branch is not None and not store.share and not plan.keeps_states
        self._grows = plan.stop_rule is not None

    def ordered(self, todo: Sequence[Cell], width: int) -> deque[Cell]:
        """The runs to do in the order in which to do them."""
        if self._plan.branch is None:
            return deque(todo)
        turn = int(self._store.share.partition("-")[0] or 0)
        self._width = width
        self._left = Counter(cell.replicate for cell in todo)
        return deque(self._with_first_ones(todo, turn))

    def more(self, todo: Sequence[Cell]) -> list[Cell]:
        """Runs that are added, in the order in which to do them."""
        return self._with_first_ones(todo, 0) if self._plan.branch is not None else list(todo)

    def _with_first_ones(self, todo: Sequence[Cell], turn: int) -> list[Cell]:
        groups = ageing_order(todo, self._width, turn)
        for group in groups:
            if group[0].replicate not in self._aged:
                self._aged.add(group[0].replicate)
                self._first.add(group[0])
        return [cell for group in groups for cell in group]

    def goes_alone(self, cell: Cell) -> bool:
        """Whether a run ages a machine, so that no others should wait behind it."""
        return cell in self._first

    def settle(self, cell: Cell) -> None:
        """A run has ended; with the last one of a replicate its machine goes, unless others may follow."""
        if not self._removes or self._grows:
            return
        self._left[cell.replicate] -= 1
        if self._left[cell.replicate] == 0:
            remove_state(
                state_path(self._store.dir, self._plan.scenario(0), self._plan.model_version, cell.replicate)
            )

    def begin(self, *, retry_failed: bool) -> None:
        """Let what failed before the branch be tried again, if wanted."""
        if retry_failed and not self._store.share:
            forget_failures(self._store.dir)

    def finish(self, missing: int) -> None:
        """Remove all machines when nothing is left to do, those of another branch included."""
        if self._removes and not missing:
            remove_states(self._store.dir)
