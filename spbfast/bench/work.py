"""Work done for a page event, counted: accesses to the state, and lines of 64 bytes that they touch.

A clock on a shared machine tells little, these counts are the same everywhere: an algorithm that walks where
it looked up, or a record that no longer fits a line, shows in them. Kernels run interpreted on arrays that
note what is read and written. Run as a module it prints the counts as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.bench.workload import Population
from spbfast.model.state.build import PcpConf

LINE = 64
PAGES = 1 << 14  # 64 MiB
EVENTS = 400
CASES: dict[str, dict[str, Any]] = {
    "churn": {},
    "scattered": {"scattered": True},
    "pcp": {"pcp": PcpConf(batch=8, high_min=16, high_max=64)},
}


class LineTally:
    """Accesses so far, and the lines touched since the last event began."""

    def __init__(self) -> None:
        self.accesses = self.lines = 0
        self._touched: set[tuple[int, int]] = set()

    def note(self, root: int, first: int, nbytes: int) -> None:
        """Count one access to bytes of an array, which is named by a number."""
        self.accesses += 1
        self._touched.update((root, line) for line in range(first // LINE, (first + nbytes - 1) // LINE + 1))

    def end_event(self) -> None:
        """Begin a new event: a line that it touches counts again."""
        self.lines += len(self._touched)
        self._touched.clear()


class Watched(np.ndarray):
    """An array whose single elements and slices are noted when they are read or written."""

    tally: LineTally | None = None
    root = 0
    origin = 0  # address of the root's first byte: where arrays lie in lines must not depend on the heap

    def __array_finalize__(self, other: Any) -> None:
        """Views belong to the array that they show a part of."""
        if isinstance(other, Watched):
            self.tally, self.root, self.origin = other.tally, other.root, other.origin

    def _note(self, key: Any) -> None:
        keys = key if isinstance(key, tuple) else (key,)
        whole = tuple(k if isinstance(k, slice) else slice(int(k), int(k) + 1) for k in keys)
        part = np.ndarray.__getitem__(self.view(np.ndarray), whole)
        if self.tally is not None and part.size:
            first = part.__array_interface__["data"][0]
            span = sum((n - 1) * abs(step) for n, step in zip(part.shape, part.strides, strict=True))
            self.tally.note(self.root, first - self.origin, span + part.itemsize)

    def __getitem__(self, key: Any) -> Any:
        """The same; a part that is an array counts when it is looked into."""
        found = super().__getitem__(key)
        if not isinstance(found, np.ndarray):
            self._note(key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        """The same."""
        self._note(key)
        super().__setitem__(key, value)


def _root_of(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def watched(part: Any, tally: LineTally, roots: dict[int, int] | None = None) -> Any:
    """The same state with all arrays watched; arrays of one table share its lines."""
    roots = {} if roots is None else roots
    if isinstance(part, np.ndarray):
        origin = _root_of(part).__array_interface__["data"][0]
        out = part.view(Watched)
        out.tally, out.origin = tally, origin
        out.root = roots.setdefault(origin, len(roots))
        return out
    if hasattr(part, "_fields"):
        return part._replace(**{name: watched(getattr(part, name), tally, roots) for name in part._fields})
    return part


def count_events(population: Population, nr: int) -> dict[str, float]:
    """Accesses and lines for one page event, over about `nr` of them."""
    tally, plain, events = LineTally(), population.zone, 0
    rows = population.rows(nr)
    population.zone = watched(plain, tally)
    for i in range(rows.size):
        events += population.run(rows[i : i + 1])
        tally.end_event()
    population.zone = plain
    return {
        "events": events,
        "accesses": round(tally.accesses / events, 2),
        "lines": round(tally.lines / events, 2),
    }


def count_work(events: int = EVENTS) -> dict[str, dict[str, float]]:
    """The counts of every case; kernels must be interpreted.

    Raises
    ------
    RuntimeError
        When they are compiled, and would see plain arrays.
    """
    from spbfast.jit.decorators import INTERPRETED

    if not INTERPRETED:
        raise RuntimeError("work is counted with NUMBA_DISABLE_JIT=1")
    return {name: count_events(Population(PAGES, spb_pb=8, **case), events) for name, case in CASES.items()}


def work_of_another_process(run: Callable[..., Any] = subprocess.run) -> dict[str, dict[str, float]] | str:
    """The counts, from a process that interprets the kernels; or why there are none."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    done = run([sys.executable, "-m", "spbfast.bench.work"], env=env, capture_output=True, text=True)
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1]}"
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(count_work(), indent=1))
