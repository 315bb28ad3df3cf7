"""One metric of a sweep that may still be running, read from its shards as they appear.

Owns what is known of each point so far: how its runs ended and the course of the metric. Reads each shard
once, for a shard never changes, takes no lock and writes nothing, so a running sweep does not notice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from spbfast.errors import QuestionError, ResultsError
from spbfast.outputs.variables import VARIABLES
from spbfast.results.plots import point_labels
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.pointtable import PointTable, read_points
from spbfast.sweep.store.shards import FAILED, OK, Shard, read_shard
from spbfast.text import quote_value, suggest_or_list

COLUMNS_KEPT = 32  # to which the course of a run is reduced
COUNTERS = "vmstat"
NAN = float("nan")


@dataclass(slots=True)
class PointSoFar:
    """What is known of one point.

    Attributes
    ----------
    ends : dict of int to float
        By replicate that is done the last value of the metric, NaN where the run has none.
    failed : set of int
        Replicates that failed.
    changed : int
        Number of the last shard that told something of it, 0 before.
    """

    label: str
    ends: dict[int, float] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    changed: int = 0
    _total: np.ndarray = field(default_factory=lambda: np.zeros(COLUMNS_KEPT))
    _nr: int = 0

    def add(self, replicate: int, values: np.ndarray) -> None:
        """Take in a run that is done; `values` is float64, [] or [time], NaN where nothing was simulated."""
        self.failed.discard(replicate)
        known = np.atleast_1d(values)
        known = known[np.isfinite(known)]
        self.ends[replicate] = float(known[-1]) if known.size else NAN
        if known.size:
            at = np.linspace(0, known.size - 1, COLUMNS_KEPT)
            self._total += known[np.round(at).astype(int)]
            self._nr += 1

    def course(self, *, by_replicate: bool = False) -> list[float]:
        """Mean over runs in COLUMNS_KEPT parts of their time; or the last value of each replicate."""
        if by_replicate:
            return [self.ends[r] for r in sorted(self.ends)]
        return (self._total / self._nr).tolist() if self._nr else []

    def known_ends(self) -> np.ndarray:
        """The last values, float64, without NaN."""
        values = np.array(list(self.ends.values()), "f8")
        return values[np.isfinite(values)]


class Unfinished:
    """The points of a results directory and what is known of them; `read` looks for more.

    Parameters
    ----------
    directory : path
    metric : str
        A variable without labels besides time, or a counter.

    Raises
    ------
    QuestionError
        When the metric has labels; `read` raises it when runs are done and have no such metric.
    """

    def __init__(self, directory: str | Path, metric: str) -> None:
        self.metric = metric
        self._store = Store(directory)
        self._known: set[str] = set()
        self._points: dict[int, PointSoFar] = {}
        var = VARIABLES.get(metric)
        labels = [d for d in var.dims if d != "time"] if var is not None else []
        if labels:
            raise QuestionError(
                f"{metric} has values by {', '.join(labels)}; watch one that has a single course"
            )
        self._variable = metric if var is not None else COUNTERS
        self.has_course = "time" in VARIABLES[self._variable].dims
        self.ends_at: set[float] = set()

    @property
    def points(self) -> list[PointSoFar]:
        """In the order of the design; empty as long as the sweep has not written its points."""
        return list(self._points.values())

    def read(self) -> int:
        """Read shards that were not there before; how many. Damaged ones are tried again the next time."""
        if not self._points:
            with contextlib.suppress(ResultsError):
                table = read_points(self._store.points_path)
                ids, labels = table.point_id.tolist(), labels_of(table)
                self._points = {i: PointSoFar(text) for i, text in zip(ids, labels, strict=True)}
        before = len(self._known)
        for path in self._store.shard_paths() if self._points else ():
            if path.stem not in self._known:
                try:
                    shard = read_shard(path, data={self._variable})
                except ResultsError:
                    continue
                self._known.add(path.stem)
                self._take(shard)
        return len(self._known) - before

    def _take(self, shard: Shard) -> None:
        codes = shard.facts["status"].tolist()
        values = self._values(shard) if OK in codes else None
        if values is not None and "time" in shard.coords and self.has_course:
            self.ends_at.add(float(shard.coords["time"][-1]))
        for row, (cell, code) in enumerate(zip(shard.cells, codes, strict=True)):
            point = self._points.get(cell.point_id)
            if point is None or cell.replicate in point.ends:
                continue
            point.changed = len(self._known)
            if code == OK and values is not None:
                point.add(cell.replicate, values[row])
            elif code >= FAILED:
                point.failed.add(cell.replicate)

    def _values(self, shard: Shard) -> np.ndarray:
        """The metric of every run, float64 [cell] or [cell, time], NaN where there is none."""
        counters = [str(c) for c in shard.coords.get("counter", ())]
        is_counter = self.metric in counters
        if self._variable not in shard.data or not (is_counter or self.metric in VARIABLES):
            plain = [n for n in shard.data if set(VARIABLES[n].dims) <= {"time"}]
            hint = suggest_or_list(self.metric, plain + counters)
            raise QuestionError(f"there is no variable or counter {quote_value(self.metric)}{hint}")
        values = shard.data[self._variable]
        if is_counter:
            values = values[:, counters.index(self.metric)]
        fill = VARIABLES[self._variable].fill
        return np.where(values == fill, NAN, values.astype("f8"))

    def span(self, points: Sequence[PointSoFar]) -> tuple[float, float]:
        """The least and the greatest value of these points' courses, NaN where there are none."""
        found = [v for p in points for v in p.course(by_replicate=not self.has_course) if np.isfinite(v)]
        return min(found, default=NAN), max(found, default=NAN)


def labels_of(table: PointTable) -> list[str]:
    """Points by what they set, as the report names them."""
    coords = {
        param.name: ("point", np.array(param.values), {"config_path": param.path, "units": param.units})
        for param in table.params
    }
    marks = {"is_baseline": ("point", table.baseline), "in_grid": ("point", table.in_grid)}
    swept = " ".join(param.name for param in table.params)
    return point_labels(xr.Dataset(coords={**coords, **marks}, attrs={"sweep_params": swept}))
