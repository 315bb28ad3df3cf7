"""What decides how many replicates a point needs, and what was decided: read from and written to a directory.

Owns decisions.json and the way from journals and shards to the deciding values. The file only repeats what
follows from the results; it is there for readers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.checkedjson import read_checked, write_checked
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.shards import FAILED, OK, TIMEOUT, read_shard, scalars_of

FILE = "decisions.json"
ENDED_BADLY = (FAILED, TIMEOUT)


@dataclass(frozen=True)
class Decisions:
    """What was decided for the points of a directory, in their order.

    Attributes
    ----------
    rule : str
        The rule in words.
    needed : ndarray
        int, replicates that a point needs.
    half_width : ndarray
        Of the interval at the last look; NaN where there was none.
    is_narrow : ndarray
        bool.
    """

    rule: str
    metric: str
    needed: np.ndarray
    half_width: np.ndarray
    is_narrow: np.ndarray


def write_decisions(directory: Path, decided: Mapping[str, Any]) -> None:
    """Keep what was decided."""
    write_checked(directory / FILE, decided)


def read_decisions(directory: Path, ids: np.ndarray, least: int) -> Decisions | None:
    """What was decided for these points; None where every point gets the same number.

    A point that is not named, such as one of a grid that grew, needs `least`.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    found = read_checked(path)
    rows = [found["points"].get(f"{int(i):016x}", {}) for i in ids]
    return Decisions(
        str(found["rule"]),
        str(found["metric"]),
        np.array([row.get("replicates", least) for row in rows], int),
        np.array([row.get("half_width") or math.nan for row in rows], float),
        np.array([bool(row.get("is_narrow")) for row in rows], bool),
    )


def known_values(store: Store, status: Mapping[Cell, int], metric: str) -> dict[Cell, float]:
    """The deciding value of every run that is done, NaN for one that failed."""
    found = {cell: math.nan for cell, code in status.items() if code in ENDED_BADLY}
    read = set()
    for receipt in store.receipts():
        if receipt.get("metric") == metric and len(receipt.get("values", ())) == len(receipt["cells"]):
            read.add(str(receipt["batch"]))
            cells = map(Cell.parse, receipt["cells"])
            found |= {c: float(v) for c, v in zip(cells, receipt["values"], strict=True) if v is not None}
    for path in store.shard_paths():
        if path.stem in read:
            continue
        with contextlib.suppress(ResultsError):
            shard = read_shard(path)
            values = zip(shard.cells, scalars_of(shard, metric), strict=True)
            found |= {cell: value for cell, value in values if value is not None}
    return {cell: value for cell, value in found.items() if status.get(cell) == OK or math.isnan(value)}
