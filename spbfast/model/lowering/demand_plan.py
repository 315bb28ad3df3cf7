"""What lowering an actor adds to the demand plan: entries, owners, tables, and amounts per tick.

Owns the numbering of owners and CPUs and the keys of random streams: actors are numbered in file order, one
with several tasks as several, and number i runs on CPU i mod cpus. Streams are keyed by an actor's name, so
that the others' demand does not change with it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from spbfast.config import actors as models
from spbfast.constants import NS_PER_TICK
from spbfast.model.state.demand_layout import MAX_PER_TICK, ONE, Actors, Ap, Kind

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

SECOND = 10**9
TICKS_PER_SECOND = SECOND // NS_PER_TICK
STREAMS_PER_ACTOR = 1 << 16


class DemandPlan(NamedTuple):
    """Demand ready to run, and what it needs.

    Attributes
    ----------
    actors : Actors
        At rest before boot.
    owner_names, owner_slots, owner_mt : tuple
        Of the owners `first_owner`, `first_owner` + 1, ..: name, slots, migratetype asked for.
    rows_cap : int
        Rows that any tick or boot step can need.
    """

    actors: Actors
    owner_names: tuple[str, ...]
    owner_slots: tuple[int, ...]
    owner_mt: tuple[int, ...]
    rows_cap: int


class Plan:
    """Entries, owners and table as they are collected."""

    def __init__(self, scenario: Scenario, first_owner: int) -> None:
        self.scenario = scenario
        self.first_owner = first_owner
        self.kinds: list[int] = []
        self.params: list[dict[int, int]] = []
        self.table: list[int] = []
        self.names: list[str] = []
        self.slots: list[int] = []
        self.mts: list[int] = []
        self.next_cpu = 0
        self.rows = 16

    def owner(self, name: str, slots: int, mt: int) -> int:
        """A new owner's number."""
        self.names.append(name)
        self.slots.append(max(slots, 1))
        self.mts.append(mt)
        return self.first_owner + len(self.names) - 1

    def entry(
        self, kind: Kind, actor: models.Actor, rows: int, *, tasks: int = 1, cpu: int = -1, **values: int
    ) -> None:
        """Add an entry; `values` are columns of Ap in lower case, `rows` the most it may write at once."""
        label = zlib.crc32(actor.label.encode())
        number = sum(p[Ap.STREAM] // STREAMS_PER_ACTOR == label for p in self.params)
        if cpu < 0:
            cpu, self.next_cpu = self.next_cpu, self.next_cpu + tasks
        cpus = self.scenario.machine.cpus
        row = {Ap.ALT_ORDER: -1, Ap.STREAM: label * STREAMS_PER_ACTOR + number, Ap.CPU: cpu % cpus}
        row |= {Ap.TASKS: tasks, Ap.CPUS: cpus}
        self.params.append({int(k): int(v) for k, v in row.items()})
        self.params[-1] |= {int(Ap[name.upper()]): int(value) for name, value in values.items()}
        self.kinds.append(int(kind))
        self.rows += rows

    def add_table(self, values: list[int]) -> dict[str, int]:
        """Append to the table; the two columns that say where."""
        self.table += values
        return {"table": len(self.table) - len(values), "nr_table": len(values)}

    @property
    def chunk(self) -> int:
        """Bytes per actor and boot step."""
        return self.scenario.boot.chunk


def ticks(ns: int) -> int:
    """Whole ticks, rounded up."""
    return -(-ns // NS_PER_TICK)


def per_tick(actor: models.Actor, per_second: float) -> int:
    """Amount per tick in units of 1 / ONE.

    Raises
    ------
    ValueError
        When it is too large.
    """
    if per_second >= MAX_PER_TICK * TICKS_PER_SECOND:
        limit = MAX_PER_TICK * TICKS_PER_SECOND
        raise ValueError(
            f"actors: {actor.label!r} asks for {per_second:.3g} units/s, the limit is {limit}; lower its rate"
        )
    return round(per_second * ONE / TICKS_PER_SECOND)


def most_in_tick(rate: int) -> int:
    """The most units that may fall into a tick."""
    return 2 * rate // ONE + 2


def burst_columns(burst: models.Burst | None) -> tuple[float, dict[str, int]]:
    """By how much the rate is higher while active, and the columns."""
    if burst is None:
        return 1.0, {}
    on, period = ticks(burst.on), ticks(burst.on) + ticks(burst.off)
    return period / on, {"burst_on": on, "burst_period": period}
