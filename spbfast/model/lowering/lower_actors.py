"""Actor models to the arrays of state/demand_layout.py, with the owners and slots that they need.

Owns what each kind of actor becomes: its memory as slots, its rates as amounts per tick.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    PAGE_SIZE,
    PB_PAGES,
    RECLAIMABLE,
    UNMOVABLE,
)
from spbfast.model.lowering.demand_plan import (
    SECOND,
    STREAMS_PER_ACTOR,
    DemandPlan,
    Plan,
    burst_columns,
    most_in_tick,
    per_tick,
    ticks,
)
from spbfast.model.primitives.draws import threshold_32
from spbfast.model.state.demand_layout import ONE, Kind, make_actors

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

CLS_USER = CLS_BLOCKING | CLS_KSWAPD
CLS_READAHEAD = CLS_USER | CLS_NORETRY | CLS_NOWARN
CLS_ATOMIC = CLS_HIGH | CLS_KSWAPD | CLS_NOWARN
# kmalloc_gfp_adjust: the large attempt of kvmalloc neither reclaims nor warns.
CLS_LARGE = CLS_KVMALLOC | CLS_KSWAPD | CLS_NOWARN
PAGE_CACHE_OWNER = 0


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
    plan = Plan(scenario, first_owner)
    for actor in scenario.actors:
        if actor.enabled:
            _LOWER[type(actor)](plan, actor)
    arrays = make_actors(plan.kinds, plan.params, plan.table)
    return DemandPlan(arrays, tuple(plan.names), tuple(plan.slots), tuple(plan.mts), plan.rows)


def _statics(plan: Plan, actor: models.KernelStatics) -> None:
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


def _instance_table(plan: Plan, skew: float) -> dict[str, int]:
    """Cumulative weights of the shrinker instances, in 2^-32."""
    slab = plan.scenario.slab
    weights = [(memcg + 1) ** -skew for memcg in range(slab.memcgs) for _ in range(slab.superblocks)]
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return plan.add_table([threshold_32(s / sums[-1]) for s in sums])


def _slab_statics(plan: Plan, actor: models.ReclaimableStatics) -> None:
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


def _daemons(plan: Plan, actor: models.Daemons) -> None:
    regions = actor.memory // models.REGION
    rewrite = per_tick(actor, actor.churn_per_second * regions)
    chunk = max(plan.chunk // models.REGION, 1)
    plan.entry(
        Kind.REGIONS,
        actor,
        max(2 * most_in_tick(rewrite), chunk),
        owner=plan.owner(actor.label, regions * PB_PAGES, MOVABLE),
        units=regions,
        mt=MOVABLE,
        cls=CLS_USER,
        thp_32=threshold_32(actor.thp_share),
        rewrite=rewrite,
        boot_units=regions,
        boot_chunk=chunk,
    )


def _guests(plan: Plan, actor: models.Guests) -> None:
    regions = actor.memory // models.REGION
    touch = per_tick(actor, actor.touch_rate / PAGE_SIZE)
    rewrite = per_tick(actor, actor.rewrite_per_second * regions)
    balloon = per_tick(actor, actor.balloon_per_second * regions)
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
        "start": ticks(actor.start),
        "spacing": ticks(actor.spacing_min),
        "spacing_span": ticks(actor.spacing_max) - ticks(actor.spacing_min),
        "restart": ticks(actor.restart_min) if actor.restart else 0,
        "restart_span": ticks(actor.restart_max) - ticks(actor.restart_min),
        "pause": ticks(actor.restart_pause),
        "group_stream": zlib.crc32(actor.label.encode()) * STREAMS_PER_ACTOR + STREAMS_PER_ACTOR - 1,
    }
    rows = (
        4 * (most_in_tick(touch) // PB_PAGES + 2) + 2 * most_in_tick(rewrite) + 3 * most_in_tick(balloon) + 2
    )
    side = regions * actor.page_tables_per_region + buffers
    for number in range(actor.count):
        name = f"{actor.label}[{number}]"
        owner = plan.owner(name, regions * PB_PAGES, MOVABLE)
        side_owner = plan.owner(f"{name}.host", side, UNMOVABLE)
        plan.entry(Kind.GUEST, actor, rows, owner=owner, side_owner=side_owner, number=number, **common)


def _page_cache(plan: Plan, actor: models.PageCacheLoad) -> None:
    factor, burst = burst_columns(actor.burst)
    rate = per_tick(actor, factor * actor.rate / PAGE_SIZE)
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


def _slab_growth(plan: Plan, actor: models.SlabGrowth) -> None:
    factor, burst = burst_columns(actor.burst)
    plan.entry(
        Kind.SLAB,
        actor,
        2 * actor.walkers,
        mt=RECLAIMABLE,
        cls=CLS_USER,
        rate=per_tick(actor, factor * actor.rate / plan.scenario.slab.bytes_per_inode),
        drop_32=threshold_32(actor.unlinked),
        walkers=actor.walkers,
        walk_ticks=ticks(actor.walk_time),
        **burst,
        **_instance_table(plan, actor.memcg_skew),
    )


def _populations(
    plan: Plan,
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
        rate = per_tick(actor, per_second)
        plan.entry(
            Kind.POPULATION,
            actor,
            most_in_tick(rate),
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


def _take_cpus(plan: Plan, tasks: int) -> int:
    plan.next_cpu += tasks
    return plan.next_cpu - tasks


def _network(plan: Plan, actor: models.Network) -> None:
    rates = {
        2: actor.rate * (1 - actor.order3_share),
        3: actor.rate * actor.order3_share,
        0: actor.rate * actor.order0_factor,
    }
    parts = [(rate, actor.lifetime, order) for order, rate in rates.items()]
    _populations(plan, actor, actor.label, UNMOVABLE, CLS_ATOMIC, parts, _take_cpus(plan, actor.tasks))


def _churn(plan: Plan, actor: models.Churn) -> None:
    cpu, scale = _take_cpus(plan, actor.tasks), sum(actor.shares)
    for name, mt, share in (
        ("movable", MOVABLE, actor.movable),
        ("unmovable", UNMOVABLE, 1 - actor.movable),
    ):
        rates = [actor.rate * share * part / scale for part in actor.shares]
        parts = [(rate, life, 0) for rate, life in zip(rates, actor.lifetimes, strict=True)]
        _populations(plan, actor, f"{actor.label}.{name}", mt, CLS_USER, parts, cpu)


def _extent_buffers(plan: Plan, actor: models.ExtentBuffers) -> None:
    node = actor.pages_per_node * PAGE_SIZE
    nodes = actor.total // node
    mt = MOVABLE if actor.movable else UNMOVABLE
    churn = per_tick(actor, actor.churn_per_second)
    plan.entry(
        Kind.NODES,
        actor,
        1 + 2 * most_in_tick(churn * nodes),
        owner=plan.owner(actor.label, nodes * actor.pages_per_node, mt),
        units=nodes,
        mt=mt,
        cls=CLS_USER | CLS_EXTENT_BUFFER,
        rate=per_tick(actor, actor.growth / node),
        rewrite=churn,
        group=actor.pages_per_node,
        boot_units=actor.at_boot // node,
        boot_chunk=max(plan.chunk // node, 1),
    )


def _gigantic_pages(plan: Plan, actor: models.GiganticPages) -> None:
    plan.entry(
        Kind.GIGANTIC,
        actor,
        2 * actor.count,
        owner=plan.owner(actor.label, actor.count, MOVABLE),
        units=actor.count,
        mt=MOVABLE,
        cls=CLS_USER,
        start=ticks(actor.start),
        spacing=ticks(actor.interval),
        restart=ticks(actor.hold),
        pause=ticks(actor.pause),
    )


def _kvmalloc(plan: Plan, actor: models.Kvmalloc) -> None:
    scale, parts, slots = sum(actor.order_weights), [], 0
    for order, weight in enumerate(actor.order_weights, start=1):
        if weight:
            per_second = actor.rate * weight / scale
            units = max(round(per_second * actor.lifetime / SECOND), 1)
            # The pages of the fallback, and a page table for each 2 MiB of them.
            stride = (1 << order) + -(-(1 << order) // PB_PAGES)
            parts.append((order, per_tick(actor, per_second), slots, units, stride))
            slots += units * stride
    owner, cpu = plan.owner(actor.label, slots, UNMOVABLE), _take_cpus(plan, 1)
    for order, rate, base, units, stride in parts:
        plan.entry(
            Kind.BUFFERS,
            actor,
            2 * most_in_tick(rate),
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


_LOWER: dict[type[models.Actor], Callable[[Plan, Any], None]] = {
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
