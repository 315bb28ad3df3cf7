"""Actors on their way from models to arrays: entries, owners, tables, and amounts per tick.

Owns the numbering of owners and CPUs and the keys of random streams. Actors are numbered in file order, one
with several tasks as several, and number i runs on CPU i mod cpus. A stream is keyed by its actor's name, so
an actor that comes or goes changes nobody else's demand. What each actor becomes stands beside its kernels.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, NamedTuple

from spbfast.constants import MOVABLE, NS_PER_TICK
from spbfast.model.state.demand_layout import MAX_PER_TICK, ONE, Actors, Ap, StartSlots, make_actors

if TYPE_CHECKING:
    from spbfast.config.actors import Actor, Burst, Pinned
    from spbfast.config.models import Scenario
    from spbfast.config.startblocks import StartBlocks

SECOND = 10**9
TICKS_PER_SECOND = SECOND // NS_PER_TICK
STREAMS_PER_ACTOR = 1 << 16


class DemandPlan(NamedTuple):
    """Demand ready to run, and what it needs.

    Attributes
    ----------
    actors : Actors
        At rest before boot.
    owner_names, owner_slots, owner_mt, owner_pins : tuple
        Of the owners `first_owner`, `first_owner` + 1, ..: name, slots, migratetype asked for, and what the
        actor says of its pins.
    owner_paged : tuple of int
        Owners whose slots are pages of memory: a huge page takes the first of 512.
    rows_cap : int
        Rows that any tick or boot step can need.
    starts : tuple of StartSlots
    """

    actors: Actors
    owner_names: tuple[str, ...]
    owner_slots: tuple[int, ...]
    owner_mt: tuple[int, ...]
    rows_cap: int
    owner_pins: tuple[Pinned | None, ...] = ()
    owner_paged: tuple[int, ...] = ()
    starts: tuple[StartSlots, ...] = ()


class DemandBuilder:
    """Entries, owners and table as they are collected, one actor after the other.

    Parameters
    ----------
    scenario : Scenario
    first_owner : int
        Number of the first owner that is made here.
    """

    def __init__(self, scenario: Scenario, first_owner: int) -> None:
        self.scenario = scenario
        self._first_owner = first_owner
        self._kinds: list[int] = []
        self._params: list[dict[int, int]] = []
        self._table: list[int] = []
        self._names: list[str] = []
        self._slots: list[int] = []
        self._mts: list[int] = []
        self._pins: list[Pinned | None] = []
        self._paged: list[int] = []
        self._starts: list[StartSlots] = []
        self._next_cpu = 0
        self._rows = 16
        self._kind = 0
        self._stream = 0

    def begin(self, kind: int, actor: Actor) -> None:
        """The entries that follow are of this kind and draw from this actor's streams."""
        self._kind = kind
        self._stream = zlib.crc32(actor.label.encode()) * STREAMS_PER_ACTOR

    @property
    def group_stream(self) -> int:
        """The last stream of the actor, for what its entries have in common."""
        return self._stream + STREAMS_PER_ACTOR - 1

    @property
    def chunk(self) -> int:
        """Bytes per actor and boot step."""
        return self.scenario.boot.chunk

    def owner(self, name: str, slots: int, mt: int) -> int:
        """A new owner's number."""
        self._names.append(name)
        self._slots.append(max(slots, 1))
        self._mts.append(mt)
        self._pins.append(None)
        return self._first_owner + len(self._names) - 1

    def memory_owner(self, name: str, pages: int, pinned: Pinned | None) -> int:
        """A new owner of movable memory that has a slot for every page, with its long-term pins."""
        number = self.owner(name, pages, MOVABLE)
        self._pins[-1] = pinned
        self._paged.append(number)
        return number

    def starts_with(self, owner: int, base: int, old: StartBlocks, order: int, mt: int) -> None:
        """Slots from `base` on are for blocks that a captured machine has in use at its start."""
        self._starts.append(StartSlots(owner, base, old.blocks, order, mt, old.holder))

    def take_cpus(self, tasks: int = 1) -> int:
        """The first of as many CPUs in turn."""
        self._next_cpu += tasks
        return self._next_cpu - tasks

    def add_table(self, values: list[int]) -> dict[str, int]:
        """Append to the table; the two columns that say where."""
        self._table += values
        return {"table": len(self._table) - len(values), "nr_table": len(values)}

    def entry(self, rows: int, *, tasks: int = 1, cpu: int = -1, **values: int) -> None:
        """Add an entry; `values` are columns of Ap in lower case, `rows` the most it may write at once."""
        number = sum(self._stream <= p[Ap.STREAM] <= self.group_stream for p in self._params)
        cpus = self.scenario.machine.cpus
        row = {
            Ap.ALT_ORDER: -1,
            Ap.STREAM: self._stream + number,
            Ap.CPU: (self.take_cpus(tasks) if cpu < 0 else cpu) % cpus,
            Ap.TASKS: tasks,
            Ap.CPUS: cpus,
        }
        row |= {Ap[name.upper()]: value for name, value in values.items()}
        self._params.append({int(k): int(v) for k, v in row.items()})
        self._kinds.append(self._kind)
        self._rows += rows

    def finish(self) -> DemandPlan:
        """All that was collected, as arrays."""
        actors = make_actors(self._kinds, self._params, self._table)
        names, slots, mts = tuple(self._names), tuple(self._slots), tuple(self._mts)
        pins, paged = tuple(self._pins), tuple(self._paged)
        return DemandPlan(actors, names, slots, mts, self._rows, pins, paged, tuple(self._starts))


def ticks(ns: int) -> int:
    """Whole ticks, rounded up."""
    return -(-ns // NS_PER_TICK)


def per_tick(actor: Actor, per_second: float) -> int:
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


def burst_columns(burst: Burst | None) -> tuple[float, dict[str, int]]:
    """By how much the rate is higher while active, and the columns."""
    if burst is None:
        return 1.0, {}
    on, period = ticks(burst.on), ticks(burst.on) + ticks(burst.off)
    return period / on, {"burst_on": on, "burst_period": period}
