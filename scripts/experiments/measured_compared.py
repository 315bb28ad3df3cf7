"""What of a measured machine is compared: each quantity of a load, simulated, recorded and repeated.

Owns Compared and its rows. Why two of them differ is measured_reasons.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.measured_counts import TYPES

MOST = 0.2  # a difference above this is explained, or said not to be
RATE, COUNTER = "rates a second", "counters a second"
LISTS, TABLE = "lists, means of the half", "pageblocks at the end"
PER_SECOND = (RATE, COUNTER)
PER_CPU = "pages on per-CPU lists"
NR_ORDERS = 11
# What is changed, one thing at a time, in further runs.
KEPT = "memory of the start is kept"
UNLIMITED = "compaction is not limited"
ANY_ORDER = "page cache begins in any order and is reclaimed half from anywhere"


@dataclass(frozen=True)
class Compared:
    """One quantity of one load.

    Attributes
    ----------
    name, group : str
        Group: RATE, COUNTER, LISTS or TABLE.
    runs : tuple of float
        Simulated, by replicate.
    recorded : float
    before : tuple of float
        A rate or counter: that of the recorded first half, in both places. Others: simulated and recorded at
        the start.
    replayed : float or None
        When the recorded requests are repeated from the same start; None where that says nothing.
    """

    name: str
    group: str
    runs: tuple[float, ...]
    recorded: float
    before: tuple[float, float]
    replayed: float | None = None

    @property
    def simulated(self) -> float:
        """Mean of the replicates."""
        return sum(self.runs) / len(self.runs)

    @property
    def ratio(self) -> float:
        """Simulated by recorded; 1 where both are 0."""
        if not self.recorded:
            return 1.0 if not self.simulated else float("inf")
        return self.simulated / self.recorded

    @property
    def differs(self) -> bool:
        """Whether the two are more than `MOST` apart."""
        return not self.is_near(self.simulated)

    def is_near(self, value: float) -> bool:
        """Whether a value is within `MOST` of what was recorded."""
        return abs(value - self.recorded) <= MOST * self.recorded


def compared(load: Mapping[str, Any]) -> list[Compared]:
    """Everything that is compared of a load's numbers."""
    runs = load["simulated"]
    out = []
    again = _repeated(load)
    for name, first in load["first"].items():
        told = again.get("rates", {}).get(name)
        of_runs = tuple(run["rates"][name] for run in runs)
        out.append(Compared(name, RATE, of_runs, load["second"][name], (first, first), told))
    return out + _counters(load) + _lists(load) + _pageblocks(load)


def lists_by_row(listed: Sequence[float]) -> dict[str, float]:
    """Free blocks by order, with pages on per-CPU lists behind them, by the names of rows."""
    free = [float(n) for n in listed[:NR_ORDERS]]
    blocks = {f"free blocks of order {k}": n for k, n in enumerate(free)}
    pages = sum(n * (1 << k) for k, n in enumerate(free))
    return {"free pages": pages, **blocks, PER_CPU: float(listed[NR_ORDERS])}


def _lists(load: Mapping[str, Any]) -> list[Compared]:
    """Lists in the mean of the half; what was recorded of them is the mean of its tenths."""
    runs = [lists_by_row(run["listed"]) for run in load["simulated"]]
    starts = [lists_by_row(_listed_in(told)) for told in (load["simulated"][0]["start"], load["before"])]
    again = _repeated(load).get("listed")
    told = lists_by_row(again) if again else {}
    out = []
    for name in runs[0]:
        tenths = load["tenths"][name]
        before = starts[0][name], starts[1][name]
        of_runs = tuple(run[name] for run in runs)
        out.append(Compared(name, LISTS, of_runs, sum(tenths) / len(tenths), before, told.get(name)))
    return out


def _listed_in(told: Mapping[str, Any]) -> list[float]:
    """Tables of free blocks by type as one list, with pages on per-CPU lists behind it."""
    free = [sum(blocks) for blocks in zip(*(told["free"][mt] for mt in TYPES), strict=True)]
    return [*free, told["per_cpu_pages"]]


def _pageblocks(load: Mapping[str, Any]) -> list[Compared]:
    """Pageblocks by type at the end."""
    again = _repeated(load).get("pageblocks", {})
    return [
        Compared(
            f"pageblocks {mt}",
            TABLE,
            tuple(run["pageblocks"][mt] for run in load["simulated"]),
            load["after"]["pageblocks"][mt],
            (load["simulated"][0]["start"]["pageblocks"][mt], load["before"]["pageblocks"][mt]),
            again.get(mt),
        )
        for mt in TYPES
    ]


def _counters(load: Mapping[str, Any]) -> list[Compared]:
    """Counters of vmstat that both have; none where nobody looked at them by half."""
    first, second = load.get("counted", ({}, {}))
    out = []
    for name in load["simulated"][0].get("counters", {}):
        if name in second:
            of_runs = tuple(run["counters"][name] for run in load["simulated"])
            out.append(Compared(name, COUNTER, of_runs, second[name], (first[name], first[name])))
    return out


def _repeated(load: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recorded requests repeated; empty where compaction moved pages, of which requests do not tell."""
    moved = sum(half.get("pgmigrate_success", 0.0) for half in load.get("counted", ()))
    return {} if moved else load["replayed"]


def value_of(run: Mapping[str, Any], name: str) -> float:
    """A quantity of one run, by the name of its row."""
    if name in run["rates"] or name in run.get("counters", {}):
        return float({**run.get("counters", {}), **run["rates"]}[name])
    if name.startswith("pageblocks"):
        return float(run["pageblocks"][name.rpartition(" ")[2]])
    return lists_by_row(run["listed"])[name]


def shown(value: float) -> str:
    """A number as the page has it."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
