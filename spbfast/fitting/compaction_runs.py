"""Which frees of a recording are compaction's: a page that is moved is freed where it lay.

Owns the runs that are under way on each CPU, from one batch of events to the next. The new place is handed
out without an event (compaction isolates what is free), so that a moved block cannot be followed.
"""

from __future__ import annotations

import numpy as np

BEGIN, END = "mm_compaction_begin", "mm_compaction_end"


class CompactionRuns:
    """CPUs on which a run of compaction has begun and not ended."""

    def __init__(self) -> None:
        self._running: dict[int, bool] = {}

    def during(self, cpu: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Which of the next events, in the order of their time, came during a run on their CPU.

        Parameters
        ----------
        cpu : ndarray
            int64 [n]
        begins, ends : ndarray
            bool [n]; events that begin or end a run.

        Returns
        -------
        ndarray
            bool [n]
        """
        out = np.zeros(len(cpu), bool)
        marked = begins | ends
        running = {number for number, runs in self._running.items() if runs}
        for number in sorted(running | set(cpu[marked].tolist())):
            rows = np.flatnonzero(cpu == number)
            last = np.maximum.accumulate(np.where(marked[rows], np.arange(len(rows)), -1))
            out[rows] = np.where(last < 0, number in running, begins[rows[last]])
            if len(rows):
                self._running[number] = bool(out[rows[-1]])
        return out
