"""Actor models to the arrays of demand/layout.py, with the owners and slots that they need.

Owns how rates become amounts per tick, how memory becomes slots, and which CPU an actor runs on: actors
are numbered in file order, one with several tasks as several, and number i runs on CPU i mod cpus.
Random streams are keyed by an actor's name, so that the others' demand does not change with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from spbfast.config import actors as models
from spbfast.constants import (
    CLS_BLOCKING,
    CLS_EXTENT_BUFFER,
    CLS_HIGH,
    CLS_KSWAPD,
    CLS_KVMALLOC,
    CLS_NORETRY,
    CLS_NOWARN,
    MOVABLE,
    NS_PER_TICK,
    PAGE_SIZE,
    PB_PAGES,
    RECLAIMABLE,
    UNMOVABLE,
)
from spbfast.demand.layout import MAX_PER_TICK, ONE, Actors, Ap, Kind, make_actors
from spbfast.holders.draws import threshold_32

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

SECOND = 10**9
TICKS_PER_SECOND = SECOND // NS_PER_TICK
CLS_USER = CLS_BLOCKING | CLS_KSWAPD
CLS_READAHEAD = CLS_USER | CLS_NORETRY | CLS_NOWARN
CLS_ATOMIC = CLS_HIGH | CLS_KSWAPD | CLS_NOWARN
# kmalloc_gfp_adjust: the large attempt of kvmalloc neither reclaims nor warns.
CLS_LARGE = CLS_KVMALLOC | CLS_KSWAPD | CLS_NOWARN
PAGE_CACHE_OWNER = 0
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


class _Plan:
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


def lower_actors(scenario: Scenario, first_owner: int) -> DemandPlan:
    """The demand of a scenario.

    Parameters
    ----------
    scenario : Scenario
        Its sections machine, boot, slab, pagecache and actors are read.
    first_owner : int
        Number of the first owner made here; 0 is the page cache, the slab caches have their own.

    Raises
    ------
    ValueError
        When a rate is too high for one tick.
    """
    plan = _Plan(scenario, first_owner)
    for actor in scenario.actors:
        if actor.enabled:
            _LOWER[type(actor)](plan, actor)
    arrays = make_actors(plan.kinds, plan.params, plan.table)
    return DemandPlan(arrays, tuple(plan.names), tuple(plan.slots), tuple(plan.mts), plan.rows)


def _ticks(ns: int) -> int:
    """Whole ticks, rounded up."""
    return -(-ns // NS_PER_TICK)


def _per_tick(actor: models.Actor, per_second: float) -> int:
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


def _most(rate: int) -> int:
    """The most units that may fall into a tick."""
    return 2 * rate // ONE + 2


def _burst(burst: models.Burst | None) -> tuple[float, dict[str, int]]:
    """By how much the rate is higher while active, and the columns."""
    if burst is None:
        return 1.0, {}
    on, period = _ticks(burst.on), _ticks(burst.on) + _ticks(burst.off)
    return period / on, {"burst_on": on, "burst_period": period}


def _statics(plan: _Plan, actor: models.KernelStatics) -> None:
    pages, scale = actor.total // PAGE_SIZE, sum(actor.order_weights)
    blocks = [int(pages * w / scale) >> order for order, w in enumerate(actor.order_weights)]
    plan.entry(
        Kind.STATICS,
        actor,
        1,
        owner=plan.owner(actor.label, sum(blocks), UNMOVABLE),
        mt=UNMOVABLE,
        cls=CLS_USER,
        boot_units=sum(blocks),
        boot_chunk=max(plan.chunk // PAGE_SIZE, 1),
        **plan.add_table(blocks),
    )


def _instance_table(plan: _Plan, skew: float) -> dict[str, int]:
    """Cumulative weights of the shrinker instances, in 2^-32."""
    slab = plan.scenario.slab
    weights = [(memcg + 1) ** -skew for memcg in range(slab.memcgs) for _ in range(slab.superblocks)]
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return plan.add_table([threshold_32(s / sums[-1]) for s in sums])


def _slab_statics(plan: _Plan, actor: models.ReclaimableStatics) -> None:
    per_inode = plan.scenario.slab.bytes_per_inode
    plan.entry(
        Kind.SLAB_STATICS,
        actor,
        1,
        mt=RECLAIMABLE,
        cls=CLS_USER,
        boot_units=int(actor.total / per_inode),
        boot_chunk=max(int(plan.chunk / per_inode), 1),
        **_instance_table(plan, actor.memcg_skew),
    )


def _daemons(plan: _Plan, actor: models.Daemons) -> None:
    regions = actor.memory // models.REGION
    rewrite = _per_tick(actor, actor.churn_per_second * regions)
    chunk = max(plan.chunk // models.REGION, 1)
    plan.entry(
        Kind.REGIONS,
        actor,
        max(2 * _most(rewrite), chunk),
        owner=plan.owner(actor.label, regions * PB_PAGES, MOVABLE),
        units=regions,
        mt=MOVABLE,
        cls=CLS_USER,
        thp_32=threshold_32(actor.thp_share),
        rewrite=rewrite,
        boot_units=regions,
        boot_chunk=chunk,
    )


def _guests(plan: _Plan, actor: models.Guests) -> None:
    regions = actor.memory // models.REGION
    touch = _per_tick(actor, actor.touch_rate / PAGE_SIZE)
    rewrite = _per_tick(actor, actor.rewrite_per_second * regions)
    balloon = _per_tick(actor, actor.balloon_per_second * regions)
    buffers = -(-actor.buffers // PAGE_SIZE)
    common = {
        "units": regions,
        "mt": MOVABLE,
        "cls": CLS_USER,
        "rate": touch,
        "thp_32": threshold_32(actor.thp_share),
        "rewrite": rewrite,
        "balloon": balloon,
        "balloon_lag": round(actor.balloon_per_second * regions * actor.balloon_time / SECOND),
        "side_per_region": actor.page_tables_per_region,
        "buffers": buffers,
        "start": _ticks(actor.start),
        "spacing": _ticks(actor.spacing_min),
        "spacing_span": _ticks(actor.spacing_max) - _ticks(actor.spacing_min),
        "restart": _ticks(actor.restart_min) if actor.restart else 0,
        "restart_span": _ticks(actor.restart_max) - _ticks(actor.restart_min),
        "pause": _ticks(actor.restart_pause),
        "group_stream": zlib.crc32(actor.label.encode()) * STREAMS_PER_ACTOR + STREAMS_PER_ACTOR - 1,
    }
    rows = 4 * (_most(touch) // PB_PAGES + 2) + 2 * _most(rewrite) + 3 * _most(balloon) + 2
    side = regions * actor.page_tables_per_region + buffers
    for number in range(actor.count):
        name = f"{actor.label}[{number}]"
        owner = plan.owner(name, regions * PB_PAGES, MOVABLE)
        side_owner = plan.owner(f"{name}.host", side, UNMOVABLE)
        plan.entry(Kind.GUEST, actor, rows, owner=owner, side_owner=side_owner, number=number, **common)


def _page_cache(plan: _Plan, actor: models.PageCacheLoad) -> None:
    factor, burst = _burst(actor.burst)
    rate = _per_tick(actor, factor * actor.rate / PAGE_SIZE)
    weights = actor.folio_weights or plan.scenario.pagecache.folio_weights
    shares = [round(ONE * w / sum(weights)) for w in weights]
    plan.entry(
        Kind.CACHE,
        actor,
        2 * len(shares) + 1,
        owner=PAGE_CACHE_OWNER,
        mt=MOVABLE,
        cls=CLS_READAHEAD,
        rate=rate,
        once_32=threshold_32(actor.read_once),
        drop_32=threshold_32(actor.dropped),
        **burst,
        **plan.add_table(shares),
    )


def _slab_growth(plan: _Plan, actor: models.SlabGrowth) -> None:
    factor, burst = _burst(actor.burst)
    plan.entry(
        Kind.SLAB,
        actor,
        2 * actor.walkers,
        mt=RECLAIMABLE,
        cls=CLS_USER,
        rate=_per_tick(actor, factor * actor.rate / plan.scenario.slab.bytes_per_inode),
        drop_32=threshold_32(actor.unlinked),
        walkers=actor.walkers,
        walk_ticks=_ticks(actor.walk_time),
        **burst,
        **_instance_table(plan, actor.memcg_skew),
    )


def _populations(
    plan: _Plan,
    actor: models.Network | models.Churn,
    owner_name: str,
    mt: int,
    cls: int,
    parts: list[tuple[float, int, int]],
    cpu: int,
) -> None:
    """Populations (per second, mean lifetime in ns, order) that share an owner and the actor's CPUs."""
    sizes = [max(round(rate * life / SECOND), 1) for rate, life, _ in parts]
    owner, base = plan.owner(owner_name, sum(sizes), mt), 0
    for (per_second, _, order), size in zip(parts, sizes, strict=True):
        rate = _per_tick(actor, per_second)
        plan.entry(
            Kind.POPULATION,
            actor,
            _most(rate),
            tasks=actor.tasks,
            cpu=cpu,
            owner=owner,
            base=base,
            units=size,
            order=order,
            alt_order=0 if order else -1,
            mt=mt,
            cls=cls | CLS_NORETRY if order else cls,
            rate=rate,
        )
        base += size


def _take_cpus(plan: _Plan, tasks: int) -> int:
    plan.next_cpu += tasks
    return plan.next_cpu - tasks


def _network(plan: _Plan, actor: models.Network) -> None:
    rates = {
        2: actor.rate * (1 - actor.order3_share),
        3: actor.rate * actor.order3_share,
        0: actor.rate * actor.order0_factor,
    }
    parts = [(rate, actor.lifetime, order) for order, rate in rates.items()]
    _populations(plan, actor, actor.label, UNMOVABLE, CLS_ATOMIC, parts, _take_cpus(plan, actor.tasks))


def _churn(plan: _Plan, actor: models.Churn) -> None:
    cpu, scale = _take_cpus(plan, actor.tasks), sum(actor.shares)
    for name, mt, share in (
        ("movable", MOVABLE, actor.movable),
        ("unmovable", UNMOVABLE, 1 - actor.movable),
    ):
        rates = [actor.rate * share * part / scale for part in actor.shares]
        parts = [(rate, life, 0) for rate, life in zip(rates, actor.lifetimes, strict=True)]
        _populations(plan, actor, f"{actor.label}.{name}", mt, CLS_USER, parts, cpu)


def _extent_buffers(plan: _Plan, actor: models.ExtentBuffers) -> None:
    node = actor.pages_per_node * PAGE_SIZE
    nodes = actor.total // node
    mt = MOVABLE if actor.movable else UNMOVABLE
    churn = _per_tick(actor, actor.churn_per_second)
    plan.entry(
        Kind.NODES,
        actor,
        1 + 2 * _most(churn * nodes),
        owner=plan.owner(actor.label, nodes * actor.pages_per_node, mt),
        units=nodes,
        mt=mt,
        cls=CLS_USER | CLS_EXTENT_BUFFER,
        rate=_per_tick(actor, actor.growth / node),
        rewrite=churn,
        group=actor.pages_per_node,
        boot_units=actor.at_boot // node,
        boot_chunk=max(plan.chunk // node, 1),
    )


def _gigantic_pages(plan: _Plan, actor: models.GiganticPages) -> None:
    plan.entry(
        Kind.GIGANTIC,
        actor,
        2 * actor.count,
        owner=plan.owner(actor.label, actor.count, MOVABLE),
        units=actor.count,
        mt=MOVABLE,
        cls=CLS_USER,
        start=_ticks(actor.start),
        spacing=_ticks(actor.interval),
        restart=_ticks(actor.hold),
        pause=_ticks(actor.pause),
    )


def _kvmalloc(plan: _Plan, actor: models.Kvmalloc) -> None:
    scale, parts, slots = sum(actor.order_weights), [], 0
    for order, weight in enumerate(actor.order_weights, start=1):
        if weight:
            per_second = actor.rate * weight / scale
            units = max(round(per_second * actor.lifetime / SECOND), 1)
            # The pages of the fallback, and a page table for each 2 MiB of them.
            stride = (1 << order) + -(-(1 << order) // PB_PAGES)
            parts.append((order, _per_tick(actor, per_second), slots, units, stride))
            slots += units * stride
    owner, cpu = plan.owner(actor.label, slots, UNMOVABLE), _take_cpus(plan, 1)
    for order, rate, base, units, stride in parts:
        plan.entry(
            Kind.BUFFERS,
            actor,
            2 * _most(rate),
            cpu=cpu,
            owner=owner,
            base=base,
            units=units,
            order=order,
            mt=UNMOVABLE,
            cls=CLS_LARGE,
            rate=rate,
            group=stride,
        )


_LOWER: dict[type[models.Actor], Callable[[_Plan, Any], None]] = {
    models.KernelStatics: _statics,
    models.ReclaimableStatics: _slab_statics,
    models.Daemons: _daemons,
    models.Guests: _guests,
    models.PageCacheLoad: _page_cache,
    models.SlabGrowth: _slab_growth,
    models.Network: _network,
    models.Churn: _churn,
    models.ExtentBuffers: _extent_buffers,
    models.GiganticPages: _gigantic_pages,
    models.Kvmalloc: _kvmalloc,
}
