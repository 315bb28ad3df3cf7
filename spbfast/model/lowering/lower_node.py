"""A node's numbers: watermarks, latencies, costs, zonelist and keys of draws, in the units of `Node.conf`.

Owns the reserve that DMA32 keeps from requests for zone Normal. Builds the node state of a zone at time 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spbfast.config.actors import GiganticPages
from spbfast.constants import NS_PER_TICK, PAGE_SIZE, PB_PAGES
from spbfast.model.demand.demand_rows import DIGEST0
from spbfast.model.primitives.draws import key_of, threshold_32
from spbfast.model.state.node import REFAULT_BUCKETS, N, Node, Now, Pi, make_node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spbfast.config.actors import Pinned
    from spbfast.config.machine import ZoneShape
    from spbfast.config.models import Scenario

RECLAIM_STREAM, PIN_STREAM = 0x2EC1, 0x914

UNLIMITED_ROUNDS = 1 << 40


LOWMEM_RESERVE_RATIO = 256  # sysctl_lowmem_reserve_ratio of DMA32


def lowmem_reserve(scenario: Scenario) -> int:
    """Pages of DMA32 that requests which could use zone Normal leave alone.

    Source: setup_per_zone_lowmem_reserve with the default ratio of 256.
    """
    return scenario.machine.normal_zones()[0].nr_managed // LOWMEM_RESERVE_RATIO


def swap_pages(scenario: Scenario, zone: ZoneShape) -> int:
    """Pages of swap that a zone may fill. Model: each has its share of the swap, by its managed pages."""
    total = sum(z.nr_managed for z in scenario.machine.zones())
    return scenario.machine.swap // PAGE_SIZE * zone.nr_managed // total


def _zonelist(scenario: Scenario, node: int) -> list[tuple[int, int]]:
    """Worlds that serve a node's requests and what is left there: its own zones, then the other nodes'."""
    zones = scenario.machine.zones()
    order = sorted(range(len(zones)), key=lambda i: ((zones[i].node - node) % scenario.machine.nodes, i))
    reserve = lowmem_reserve(scenario)
    return [(i, reserve if i >= scenario.machine.nodes else 0) for i in order]


def _node_conf(scenario: Scenario, zone: ZoneShape, number: int, seed: int, replicate: int) -> dict[int, int]:
    machine, reclaim, workers, cache = (
        scenario.machine,
        scenario.reclaim,
        scenario.workers,
        scenario.pagecache,
    )
    low_mark = machine.watermarks(reclaim.watermark_scale, zone)
    # The first zone's keys are those of a machine with one zone: more nodes do not change its draws.
    stream = (number,) if number else ()
    rounds = reclaim.rounds_max
    rate = reclaim.compact_rate if reclaim.compact_candidates else 0
    conf: dict[Any, int] = {
        N.WMARK_MIN: low_mark[0],
        N.WMARK_LOW: low_mark[1],
        N.WMARK_HIGH: low_mark[2],
        N.ROUNDS_MAX: rounds if isinstance(rounds, int) else UNLIMITED_ROUNDS,
        N.RECLAIM_BATCH: reclaim.batch,
        N.KSWAPD_DELAY: reclaim.kswapd_delay,
        N.KSWAPD_PAGE_COST: reclaim.kswapd_page_cost,
        N.IRQ_DELAY: workers.irq_work_delay,
        N.WQ_DELAY: workers.workqueue_delay,
        N.SHRINK_COUNT_COST: workers.shrink_count_cost,
        N.SHRINK_OBJECT_COST: workers.shrink_object_cost,
        N.MIGRATE_PAGE_COST: workers.migrate_page_cost,
        N.MIGRATE_THP_COST: workers.migrate_thp_cost,
        N.EVAC_POOL: workers.evacuation_descriptors,
        N.DEFRAG_COOLDOWN: workers.defrag_cooldown,
        N.PCP_DECAY: scenario.pcp.decay,
        N.HOT_SHARE: round(cache.hot_share * (1 << 16)),
        N.LRU_MIX_32: threshold_32(cache.lru_mix),
        N.RECLAIM_RUN: cache.reclaim_run,
        N.RECLAIM_KEY: key_of(seed, replicate, RECLAIM_STREAM, *stream),
        N.COMPACT_CANDIDATES: reclaim.compact_candidates,
        N.COMPACT_INTERVAL: 10**9 // rate if rate else 0,
        N.PINNED_32: threshold_32(workers.pinned_share),
        N.PIN_KEY: key_of(seed, replicate, PIN_STREAM, *stream),
        N.SAMPLE_EVERY: scenario.output_every,
        N.NR_CPUS: machine.cpus,
        N.NR_NODES: machine.nodes,
        N.WITHIN_ON: scenario.policy.compact_within_superpageblock,
        N.WITHIN_INTERVAL: workers.compact_within_interval,
        N.WITHIN_FREE_PB: workers.compact_within_free_pageblocks,
        N.WITHIN_FRAGMENTS: workers.compact_within_fragments,
        N.WITHIN_PAGEBLOCKS: workers.compact_within_pageblocks,
        N.WITHIN_COOLDOWN: workers.compact_within_cooldown,
        N.KCOMPACTD_ON: reclaim.kcompactd,
        N.KCOMPACTD_PAGEBLOCKS: reclaim.kcompactd_pageblocks,
        N.KCOMPACTD_PAUSE: reclaim.kcompactd_pause,
        N.CONTIG_RECLAIM_ROUNDS: workers.contig_reclaim_rounds,
        N.REFAULT_SLAB_SHARE: round(scenario.slab.refault_share * (1 << 16)),
        N.REFAULT_SLAB_TICKS: _bucket_ticks(scenario.slab.refault_delay),
        N.REFAULT_FILE_SHARE: round(cache.refault_share * (1 << 16)),
        N.REFAULT_FILE_TICKS: _bucket_ticks(cache.refault_delay),
        N.WAKES_AT_HIGH: reclaim.kswapd_wake == "high",
        N.SUBTRACTS_BARRED: reclaim.barred_free == "subtracted",
        N.SLUB_WAKES: scenario.slab.first_attempt_wakes_kswapd,
        N.HUGE_WAKES: reclaim.huge_faults_wake_kswapd,
        N.COMPACT_ANY_LABEL: reclaim.compact_any_label,
        N.COMPACT_GAP: reclaim.compact_gap,
        N.COMPACT_SCANNERS: reclaim.compaction == "scanners",
        N.SWAP_PAGES: swap_pages(scenario, zone),
        N.SWAPPINESS: reclaim.swappiness,
        N.REFAULT_SWAP_SHARE: round(scenario.swap.refault_share * (1 << 16)),
        N.REFAULT_SWAP_DELAY: scenario.swap.refault_delay,
        N.COLLAPSE_REGIONS: -(-scenario.khugepaged.pages_to_scan // PB_PAGES),
        N.COLLAPSE_SLEEP: scenario.khugepaged.scan_sleep,
        N.COLLAPSE_PAUSE: scenario.khugepaged.alloc_sleep,
        N.COLLAPSE_SWAPPED: scenario.khugepaged.max_ptes_swap,
        N.SHRINK_SLAB: ("none", "classic", "mglru").index(reclaim.shrink_slab),
    }
    return {int(k): int(v) for k, v in conf.items()}


def _bucket_ticks(delay_ns: int) -> int:
    """Ticks of one bucket of a delay line, at least one."""
    return max(1, -(-delay_ns // (REFAULT_BUCKETS * NS_PER_TICK)))


def _fill_pins(node: Node, first_owner: int, owner_pins: Sequence[Pinned | None]) -> None:
    """Long-term pins of the owners from `first_owner` on, where their actors have any."""
    for owner, pinned in enumerate(owner_pins, first_owner):
        if pinned is not None:
            node.pins[owner, Pi.SHARE_32] = threshold_32(pinned.share)
            node.pins[owner, Pi.SHIFT] = (pinned.cluster // PAGE_SIZE).bit_length() - 1


def make_configured_node(
    scenario: Scenario,
    number: int,
    nr_spb: int,
    seed: int,
    replicate: int,
    first_owner: int = 0,
    owner_pins: Sequence[Pinned | None] = (),
    nr_pb: int = 0,
    anon_slots: int = 0,
    paged_owners: Sequence[int] = (),
) -> Node:
    """The node state of zone `number` at time 0, with the scenario's numbers.

    `owner_pins` are those of the owners from `first_owner` on; `anon_slots` have pages that may go to swap;
    khugepaged goes through the memory of `paged_owners`.
    """
    zones = scenario.machine.zones()
    wanted = [actor.count for actor in scenario.actors if isinstance(actor, GiganticPages)]
    pool = scenario.workers.evacuation_descriptors
    refaults = scenario.slab.refault_share > 0 or scenario.pagecache.refault_share > 0
    lines = 1 + scenario.slab.nr_instances if refaults else 0
    nr_pins = first_owner + len(owner_pins) if any(owner_pins) else 0
    swap = swap_pages(scenario, zones[number])
    nr_swap = first_owner + len(owner_pins) if swap else 0
    # No more wait to be touched again than can be in swap.
    touches = min(swap, anon_slots) if scenario.swap.refault_share > 0 else 0
    collapsed = paged_owners if scenario.khugepaged.enabled else ()
    node = make_node(
        nr_spb,
        pool,
        nr_zones=len(zones),
        nr_gigantic=max(sum(wanted), 1),
        refault_lines=lines,
        pin_owners=nr_pins,
        nr_pb=nr_pb,
        swap_owners=nr_swap,
        touches=touches,
        collapsed=collapsed,
    )
    _fill_pins(node, first_owner, owner_pins)
    for index, value in _node_conf(scenario, zones[number], number, seed, replicate).items():
        node.conf[index] = value
    node.zonelist[:] = _zonelist(scenario, zones[number].node)
    node.now[Now.DIGEST] = DIGEST0
    return node
