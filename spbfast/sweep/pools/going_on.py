"""A run that goes on from where an earlier start was stopped, and is saved where this one is.

Owns the rule for when a stopped run is worth saving, and what becomes of a state that cannot be continued:
it is set aside and the run begins anew. The files are those of store/halfway.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spbfast.config.models import Scenario
from spbfast.errors import ResultsError, StorageError
from spbfast.sweep.store.directory import quarantine
from spbfast.sweep.store.halfway import HalfwayRun, read_halfway, remove_halfway, save_halfway
from spbfast.sweep.store.origins import sources_here

# Below both, writing a state and reading it again is not worth what it saves: an ordinary sweep of short runs
# writes none, while a run that does not fit into a start's time has taken most of it.
WORTH_S = 60.0
WORTH_SHARE = 0.2


def give_up_after(timeout_s: float | None) -> Callable[[], bool]:
    """Whether more than so many seconds have passed from now on."""
    start = time.perf_counter()
    return lambda: timeout_s is not None and time.perf_counter() - start > timeout_s


def is_worth_saving(spent_s: float, since_start_s: float) -> bool:
    """Whether a stopped run has taken a minute, or a fifth of the time since the sweep started here."""
    return spent_s >= min(WORTH_S, WORTH_SHARE * since_start_s)


class GoingOn:
    """One run, or the part that runs share, over the starts of a sweep.

    Parameters
    ----------
    path : Path
        Its file in halfway/.
    stop : callable
        Whether the sweep is being stopped.
    started : float
        When the sweep started in this process (`time.perf_counter`).
    say : callable
        Told in one line what was set aside, or could not be saved.

    Attributes
    ----------
    before_s : float
        What earlier starts took for what is not repeated.
    """

    def __init__(
        self, path: Path, stop: Callable[[], bool], started: float, say: Callable[[str], None]
    ) -> None:
        self.path, self.before_s = path, 0.0
        self._stop, self._started, self._say = stop, started, say
        self._begun = started
        self._tick = -1

    def run(
        self,
        run: Callable[..., Any],
        whole: Scenario,
        begin: Callable[[], Scenario | None],
        *numbers: int,
        timeout_s: float | None,
        **options: Any,
    ) -> Any:
        """The engine's result; None if the run was stopped before it began.

        Parameters
        ----------
        run : callable
            The engine's run_replicate.
        whole : Scenario
            What a saved state continues.
        begin : callable
            The scenario of a run that begins anew, None if it was stopped.
        *numbers : int
            Seed and replicate.
        timeout_s : float, optional
            Longest time of one run, what earlier starts took included.
        """
        self._begun = time.perf_counter()
        found = self._found()
        options["on_stop"] = self._save
        if found is not None:
            self.before_s, self._tick = found.wall_s, found.tick
            late = give_up_after(None if timeout_s is None else timeout_s - found.wall_s)
            try:
                return run(
                    whole, *numbers, stop=lambda: self._stop() or late(), continued=self.path, **options
                )
            except ResultsError as error:
                self.before_s, self._tick = 0.0, -1
                self._set_aside(error.message)
        scenario = begin()
        if scenario is None:
            return None
        late = give_up_after(timeout_s)
        return run(scenario, *numbers, stop=lambda: self._stop() or late(), **options)

    def end(self) -> None:
        """The result is safe: remove the state."""
        remove_halfway(self.path)

    def _found(self) -> HalfwayRun | None:
        if not self.path.is_file():
            return None
        try:
            found = read_halfway(self.path)
        except ResultsError as error:
            self._set_aside(error.message)
            return None
        if found.sources != sources_here():
            self._set_aside("was made by other sources of the kernels")
            return None
        return found

    def _set_aside(self, why: str) -> None:
        quarantine(self.path)
        self._say(f"set aside {self.path.parent.name}/{self.path.name}, which {why}; its run begins anew")

    def _save(self, state: Any) -> None:
        now = time.perf_counter()
        spent = now - self._begun
        # A run that is stopped for its own time is not to go on.
        if not self._stop() or state.tick <= self._tick:
            return
        if self._tick < 0 and not is_worth_saving(spent, now - self._started):
            return
        try:
            save_halfway(state, self.path, self.before_s + spent)
        except StorageError as error:
            self._say(f"a stopped run could not be saved and will begin anew: {error}")
