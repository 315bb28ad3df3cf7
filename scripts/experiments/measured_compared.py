"""What of a measured machine is compared: each quantity of a load, simulated, recorded and repeated.

Owns Compared and its rows. Why two of them differ is measured_reasons.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.measured_counts import TYPES

MOST = 0.2  # a difference above this is explained, or said not to be
RATE, COUNTER, TABLE = "rates a second", "counters a second", "tables at the end"
PER_SECOND = (RATE, COUNTER)
PER_CPU = "pages on per-CPU lists"
ORDERS = range(11)


@dataclass(frozen=True)
class Compared:
    """One quantity of one load.

    Attributes
    ----------
    name, group : str
        Group: RATE, COUNTER or TABLE.
    runs : tuple of float
        Simulated, by replicate.
    recorded : float
    before : tuple of float
        A rate or counter: that of the recorded first half, in both places. A table's: simulated and recorded
        at the start.
    replayed : tuple of float
        By type, when the recorded requests are repeated from the same start; empty where that says nothing.
    by_type : tuple of float
        The recorded number in the same parts.
    """

    name: str
    group: str
    runs: tuple[float, ...]
    recorded: float
    before: tuple[float, float]
    replayed: tuple[float, ...] = ()
    by_type: tuple[float, ...] = ()

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
        told = (again["rates"][name],) if name in again.get("rates", {}) else ()
        second = load["second"][name]
        of_runs = tuple(run["rates"][name] for run in runs)
        out.append(Compared(name, RATE, of_runs, second, (first, first), told, (second,)))
    out += _counters(load)
    parts = {"free pages": lambda told, mt: sum(n << k for k, n in enumerate(told["free"][mt]))}
    for k in ORDERS:
        parts[f"free blocks of order {k}"] = lambda told, mt, k=k: told["free"][mt][k]
    for name, part in parts.items():
        out.append(_of_tables(name, load, [lambda told, mt=mt, part=part: part(told, mt) for mt in TYPES]))
    for mt in TYPES:
        out.append(_of_tables(f"pageblocks {mt}", load, [lambda told, mt=mt: told["pageblocks"][mt]]))
    out.append(_of_tables(PER_CPU, load, [lambda told: told["per_cpu_pages"]]))
    return out


def _counters(load: Mapping[str, Any]) -> list[Compared]:
    """Counters of vmstat that both have; none where nobody looked at them by half."""
    first, second = load.get("counted", ({}, {}))
    out = []
    for name in load["simulated"][0].get("counters", {}):
        if name in second:
            of_runs = tuple(run["counters"][name] for run in load["simulated"])
            out.append(Compared(name, COUNTER, of_runs, second[name], (first[name], first[name])))
    return out


def _of_tables(name: str, load: Mapping[str, Any], parts: Sequence[Any]) -> Compared:
    """A number of the tables, as the sum of its parts."""

    def of(told: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(part(told) for part in parts)

    starts = sum(of(load["simulated"][0]["start"])), sum(of(load["before"]))
    runs = tuple(sum(of(run)) for run in load["simulated"])
    recorded = of(load["after"])
    again = _repeated(load)
    return Compared(name, TABLE, runs, sum(recorded), starts, of(again) if again else (), recorded)


def _repeated(load: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recorded requests repeated; empty where compaction moved pages, of which requests do not tell."""
    moved = sum(half.get("pgmigrate_success", 0.0) for half in load.get("counted", ()))
    return {} if moved else load["replayed"]


def value_of(run: Mapping[str, Any], name: str) -> float:
    """A quantity of one run, by the name of its row."""
    if name in run["rates"] or name in run.get("counters", {}):
        return float({**run.get("counters", {}), **run["rates"]}[name])
    if name == "free pages":
        return float(sum(n << k for mt in TYPES for k, n in enumerate(run["free"][mt])))
    if name.startswith("free blocks"):
        return float(sum(run["free"][mt][int(name.rpartition(" ")[2])] for mt in TYPES))
    if name.startswith("pageblocks"):
        return float(run["pageblocks"][name.rpartition(" ")[2]])
    return float(run["per_cpu_pages"])


def shown(value: float) -> str:
    """A number as the page has it."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"
