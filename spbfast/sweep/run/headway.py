"""Whether a start of a sweep gained anything: a run that ended, or a state from which the next start goes on.

Owns the count of starts in a row that gained nothing, kept in status.json, and what is said of them. One may
have compiled kernels all the time; a second one shows that the time does not suffice, and a batch system
should not go on requeueing.
"""

from __future__ import annotations

import contextlib

from spbfast.errors import ResultsError
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.halfway import halfway_files
from spbfast.sweep.store.states import FOLDER
from spbfast.text import format_seconds

KEY = "fruitless"
FRUITLESS_STARTS = 2
EXIT_FRUITLESS = 76


class Headway:
    """What a start finds and leaves.

    Parameters
    ----------
    store : Store
        Its directory, as it is before the start does anything.

    Attributes
    ----------
    fruitless : int
        Starts in a row that gained nothing, up to the one before this.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks = self._marked()
        self.fruitless = 0
        with contextlib.suppress(ResultsError, AttributeError, TypeError, ValueError):
            self.fruitless = int(read_json(store.status_path).get(KEY, 0))

    def _marked(self) -> set[tuple[str, int]]:
        """Names and times of states; a new one is a gain, whoever made it."""
        found = set()
        for path in (*halfway_files(self._store.dir), *(self._store.dir / FOLDER).glob("*.state")):
            with contextlib.suppress(OSError):
                found.add((path.name, path.stat().st_mtime_ns))
        return found

    def judge(self, *, out_of_time: bool, nr_new: int) -> None:
        """The start has ended, by its time limit or otherwise, with so many new runs."""
        gained = nr_new > 0 or bool(self._marked() - self._marks)
        self.fruitless = self.fruitless + 1 if out_of_time and not gained else 0

    @property
    def is_hopeless(self) -> bool:
        """Whether the next start will gain nothing either."""
        return self.fruitless >= FRUITLESS_STARTS

    def words(self, seconds: float) -> list[str]:
        """What a user should know of a start that took so long and gained nothing."""
        if not self.fruitless:
            return []
        first = (
            f"this start gained nothing in {format_seconds(seconds)}: no run ended, and none came far enough "
            "to be saved, which takes the kernels, the boot of the machine and writing its state"
        )
        if not self.is_hopeless:
            return [f"{first}; the next one finds the kernels compiled"]
        return [
            f"{first}; nor did {self.fruitless - 1} before it. Give it more time: it ends with code "
            f"{EXIT_FRUITLESS}, so that nothing starts it again"
        ]
