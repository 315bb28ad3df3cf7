"""Machine sections of a scenario to a zone's shape and a node's configuration.

Owns the numbering of owners (page-cache rings, slab caches, actors), the sizes of their slot ranges, the
zonelists and the units of `Node.conf`. Builds a `World` for every zone, unbooted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spbfast.constants import NR_ORDERS, PAGE_SIZE, PB_PAGES, Noise, Tune
from spbfast.model.demand.demand_plan import DemandPlan
from spbfast.model.lowering.lower_actors import lower_actors
from spbfast.model.lowering.lower_node import make_configured_node
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.lowering.lower_slab import lower_slab, nr_slots
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.build import PcpConf, ZoneSpec, build_zone, nbytes_of
from spbfast.model.state.demand_layout import Actors, StartSlots
from spbfast.model.state.node import FIRST_SLAB_OWNER, OWNER_COLD, OWNER_HOT
from spbfast.model.state.shrink_layout import no_shrink
from spbfast.model.state.slab_layout import no_slab
from spbfast.model.state.standin_layout import no_standins
from spbfast.model.state.world import World

if TYPE_CHECKING:
    from spbfast.config.caches import SlabSpec
    from spbfast.config.machine import ZoneShape
    from spbfast.config.models import Scenario

BOOT_STREAM = 0xB007

RING_SLACK = 1.12  # large folios may fall back to single pages


class Lowered(NamedTuple):
    """A scenario as arrays: its worlds (one a zone), its policy, its demand, and the keys of its draws."""

    worlds: tuple[World, ...]
    policy: np.ndarray
    actors: Actors
    rows: np.ndarray
    key: int
    boot_key: int
    folio_chances: np.ndarray
    bases: tuple[int, ...]  # absolute pfn of each zone's first page index
    starts: tuple[StartSlots, ...] = ()

    @property
    def world(self) -> World:
        """The first node's zone Normal: all there is in most machines."""
        return self.worlds[0]


def _folio_weights(scenario: Scenario) -> list[tuple[float, ...]]:
    given = [getattr(actor, "folio_weights", None) for actor in scenario.actors]
    return [scenario.pagecache.folio_weights, *(w for w in given if w is not None)]


def _folios_per_page(weights: tuple[float, ...]) -> float:
    return sum(w / (1 << order) for order, w in enumerate(weights)) / sum(weights)


def _ring_slots(scenario: Scenario, zone: ZoneShape) -> tuple[int, int]:
    """Slots of a zone's cold and hot ring."""
    densest = max(_folios_per_page(weights) for weights in _folio_weights(scenario))
    folios = zone.nr_managed * min(densest * RING_SLACK, 1.0)
    hot = scenario.pagecache.hot_share
    return int(folios * (1 - hot)) + 1024, int(folios * hot) + 1024


def folio_chances(weights: tuple[float, ...]) -> np.ndarray:
    """Chances of folio orders out of 2^31, summed up; weights are shares of the bytes.

    Returns
    -------
    ndarray
        int64 [len(weights)].
    """
    folios = np.array([w / (1 << order) for order, w in enumerate(weights)])
    return np.round(np.cumsum(folios) / folios.sum() * (1 << 31)).astype(np.int64)


def spec_of_zone(
    scenario: Scenario, zone: ZoneShape, plan: DemandPlan, trace_mask: int = 0, trace_rows: int = 0
) -> ZoneSpec:
    """Shape of one of the scenario's zones, with buffers for event records of the kinds in `trace_mask`."""
    machine = scenario.machine
    pcp = None
    if scenario.pcp.enabled:
        low = machine.watermarks(scenario.reclaim.watermark_scale, zone)[1]
        cpus = max(machine.cpus // machine.nodes, 1)
        pcp = PcpConf(*scenario.pcp.sizes(zone.nr_managed, cpus, low))
    slab_owners = range(FIRST_SLAB_OWNER, first_demand_owner(scenario))
    rings = _ring_slots(scenario, zone)
    # A real machine's page cache begins in single pages, and one more owner has all else that is in use.
    real = (zone.nr_pages,) if machine.files else ()
    if real:
        rings = (rings[0] + zone.nr_pages, rings[1] + zone.nr_pages)
    slab_slots = [nr_slots(_node_slab(scenario), zone.nr_pages)] * len(slab_owners)
    return ZoneSpec(
        zone_pages=zone.nr_pages,
        start_pfn=zone.start_pfn,
        spb_pb=machine.spb_size // (PB_PAGES * PAGE_SIZE),
        superpageblocks=scenario.policy.superpageblocks,
        nr_cpus=machine.cpus if pcp else 0,
        pcp=pcp,
        reserved_pages=zone.nr_reserved,
        owner_slots=(*rings, *slab_slots, *plan.owner_slots, *real),
        sharing=slab_owners,
        paged=plan.owner_paged if scenario.workers.split_folios else (),
        anon=plan.owner_paged if scenario.machine.swap else (),
        split_rings=(OWNER_COLD, OWNER_HOT) if scenario.pagecache.split_folios else (),
        trace_mask=trace_mask,
        trace_rows=trace_rows,
    )


def _node_slab(scenario: Scenario) -> SlabSpec:
    """The slab section as one node's share of it."""
    slab = scenario.slab
    nodes = scenario.machine.nodes
    return slab if nodes == 1 else slab.model_copy(update={"objects_max": -(-slab.objects_max // nodes)})


def first_demand_owner(scenario: Scenario) -> int:
    """Number of the first owner that is an actor's."""
    return FIRST_SLAB_OWNER + len(scenario.slab.caches)


def _fill_noise(noise: np.ndarray, scenario: Scenario) -> None:
    """Shares of migrations that fail; page cache has one of its own if that differs."""
    share, factor = scenario.workers.busy_share, scenario.pagecache.busy_factor
    noise[Noise.BUSY_SHARE] = round(share * (1 << 16))
    if factor != 1.0:
        noise[Noise.CACHE_APART] = 1
        noise[Noise.CACHE_SHARE] = round(min(share * factor, 1.0) * (1 << 16))


def _world(
    scenario: Scenario, number: int, plan: DemandPlan, seed: int, replicate: int, trace: tuple[int, int]
) -> tuple[World, int]:
    """Zone `number` with all that works on it, unbooted; and its base pfn. `trace`: mask, rows of records."""
    shape = scenario.machine.zones()[number]
    zone, base = build_zone(spec_of_zone(scenario, shape, plan, *trace))
    _fill_noise(zone.noise, scenario)
    if scenario.pcp.shrink_below_high:
        marks = scenario.machine.watermarks(scenario.reclaim.watermark_scale, shape)
        zone.pcp.conf[Tune.MARK_HIGH] = marks[2]
    first = first_demand_owner(scenario)
    anon_slots = int(zone.slots.size[zone.slots.anon != 0].sum())
    node = make_configured_node(
        scenario,
        number,
        zone.geo.nr_spb,
        seed,
        replicate,
        first_owner=first,
        owner_pins=plan.owner_pins,
        nr_pb=int(zone.geo.nr_pb),
        anon_slots=anon_slots,
        paged_owners=plan.owner_paged,
    )
    # Records bear the node's time; the allocator knows no node.
    zone.trace.zone[0] = number
    trace_on_clock = zone.trace._replace(clock=node.now)
    # Migration may split a folio of the page cache, whose rings are the node's.
    zone = zone._replace(trace=trace_on_clock, slots=zone.slots._replace(rings=node.cache))
    if number < scenario.machine.nodes:
        # Nodes hold different files: the draws of each are its own.
        stream = key_of(seed, number) if number else seed
        slab = lower_slab(
            *(_node_slab(scenario), shape.nr_pages, FIRST_SLAB_OWNER, stream, replicate),
            cpus=scenario.machine.cpus,
        )
        return World(zone, node, slab.slab, slab.standins, slab.shrink), base
    return World(zone, node, no_slab(), no_standins(), no_shrink()), base


def _share_trace(worlds: list[tuple[World, int]]) -> tuple[World, ...]:
    """All zones write their records to the buffers of the first, numbered in one order."""
    first = worlds[0][0].zone.trace
    out = []
    for world, _ in worlds:
        own = world.zone.trace
        trace = first._replace(clock=own.clock, zone=own.zone)
        out.append(world._replace(zone=world.zone._replace(trace=trace)))
    return tuple(out)


def lower_scenario(
    scenario: Scenario, seed: int, replicate: int, *, trace_mask: int = 0, trace_rows: int = 0
) -> Lowered:
    """Everything that a run needs, allocated and unbooted.

    `trace_mask` and `trace_rows` give event records buffers; `start_records` begins to fill them.

    Raises
    ------
    ValueError
        Sizes or rates beyond what the tables can hold.
    """
    plan = lower_actors(scenario, first_demand_owner(scenario))
    weights = scenario.pagecache.folio_weights
    if len(weights) > NR_ORDERS:
        raise ValueError(f"pagecache.folio_weights has {len(weights)} orders, at most {NR_ORDERS} exist")
    worlds = []
    for number in range(len(scenario.machine.zones())):
        trace = (0, 0) if number else (trace_mask, trace_rows)
        worlds.append(_world(scenario, number, plan, seed, replicate, trace))
    return Lowered(
        worlds=_share_trace(worlds),
        policy=policy_array(scenario.policy),
        actors=plan.actors,
        rows=np.zeros((plan.rows_cap, 9), np.int32),
        key=key_of(seed, replicate),
        boot_key=key_of(seed, replicate, BOOT_STREAM),
        folio_chances=folio_chances(weights),
        bases=tuple(base for _, base in worlds),
        starts=plan.starts,
    )


def state_nbytes(scenario: Scenario) -> dict[str, int]:
    """Bytes of state that a run will allocate: pages, slots, slab, and the rest; all zones together."""
    plan = lower_actors(scenario, first_demand_owner(scenario))
    out = dict.fromkeys(("pages", "slots", "slab", "other"), 0)
    for number, shape in enumerate(scenario.machine.zones()):
        fields = nbytes_of(spec_of_zone(scenario, shape, plan))
        pages = sum(n for path, n in fields.items() if path.startswith("page."))
        out["pages"] += pages
        out["slots"] += fields["slots.link"]
        out["other"] += sum(fields.values()) - pages - fields["slots.link"]
        if number < scenario.machine.nodes:
            cpus = scenario.machine.cpus
            slab = lower_slab(_node_slab(scenario), shape.nr_pages, FIRST_SLAB_OWNER, cpus=cpus)
            out["slab"] += _tuple_nbytes(slab.slab) + _tuple_nbytes(slab.shrink)
    return out


def _tuple_nbytes(part: Any) -> int:
    if isinstance(part, np.ndarray):
        return int(part.nbytes)
    return sum(_tuple_nbytes(p) for p in part) if isinstance(part, tuple) else 0
