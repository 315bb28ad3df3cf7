"""What a run recorded, as named arrays: samples of all zones, snapshots, event records, and their digest.

Owns the way from buffers to the variables of the registry. Runs nothing and changes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import NR_ORDERS, Mt, Tp, Tune
from spbfast.model.lowering.lower_machine import Lowered
from spbfast.model.state.build import first_usable
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.node import Now
from spbfast.model.state.sample_layout import NORMAL_GAUGES, OPTIONAL_GAUGES, ZONE_GAUGES, Ga, Samples, Sb
from spbfast.model.state.vmstat import NR_DIGESTED, VM_LATER, VM_NAMES, VM_OPTIONAL, V
from spbfast.outputs.tracepoints import columns_of

if TYPE_CHECKING:
    from spbfast.config.models import Scenario


@dataclass(frozen=True)
class Records:
    """Records of one kind: named columns of equal length, and how many found no room."""

    columns: dict[str, np.ndarray]
    dropped: int


def kept_samples(run: Lowered, samples: tuple[Samples, ...]) -> np.ndarray:
    """Which samples count: a last one at the time of the one before it replaces it."""
    nr = int(run.world.node.now[Now.NR_SAMPLES])
    keep = np.ones(nr, bool)
    keep[:-1] = np.diff(samples[0].time[:nr]) > 0
    return keep


def collect_spbs(run: Lowered, samples: tuple[Samples, ...]) -> dict[str, np.ndarray]:
    """Snapshots of superpageblocks as named arrays over (zone, spb, time), -1 where a zone has fewer."""
    keep = kept_samples(run, samples)
    nr_spb = [world.zone.geo.nr_spb for world in run.worlds]
    found = np.full((len(Sb), len(samples), max(nr_spb), int(keep.sum())), -1, np.int32)
    for zone, one in enumerate(samples):
        found[:, zone, : nr_spb[zone]] = np.moveaxis(one.spb[: len(keep)][keep], 0, -1)
    content = np.where(found[Sb.FREE_PB] < 0, -1, np.zeros((len(Mt), 1, 1, 1), np.int32))
    for column in (Sb.UNMOVABLE, Sb.MOVABLE, Sb.RECLAIMABLE):
        content[Mt[column.name]] = found[column]
    return {
        "n_spb": np.array(nr_spb),
        "spb_category": found[Sb.CATEGORY],
        "spb_free": found[Sb.FREE_PB],
        "spb_free_pages": found[Sb.FREE_PAGES],
        "spb_content": content,
        "spb_pinned_pages": found[Sb.PINNED_PAGES],
    }


def shape_of_zone(zone: ZoneState, base: int) -> dict[str, int]:
    """What one must know of a zone to build it anew: pages, superpageblocks, per-CPU lists.

    Pages before `first_pfn` are holes; `cpus` 0 means no per-CPU lists, whose sizes are 0 then.
    """
    geo, conf = zone.geo, zone.pcp.conf
    has_lists = geo.nr_cpus > 0
    return {
        "start_pfn": int(geo.lo) + base,
        "pages": int(geo.hi - geo.lo),
        "first_pfn": first_usable(zone) + base,
        "spb_pages": 1 << int(geo.spb_shift),
        "cpus": int(geo.nr_cpus),
        "batch": int(conf[Tune.BATCH]) if has_lists else 0,
        "high_min": int(conf[Tune.HIGH_MIN]) if has_lists else 0,
        "high_max": int(conf[Tune.HIGH_MAX]) if has_lists else 0,
    }


def collect_records(run: Lowered, name: str) -> Records:
    """Records of one kind, and how many were dropped."""
    trace, kind = run.world.zone.trace, Tp[name.upper()]
    met = int(trace.nr[kind])
    rows = trace.rows[int(trace.where[kind]), :met]
    return Records(columns_of(name, rows, run.bases), met - len(rows))


def collect_samples(
    run: Lowered, samples: tuple[Samples, ...], scenario: Scenario
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Samples of all zones as named arrays."""
    keep = kept_samples(run, samples)
    nr = len(keep)
    gauges = np.stack([one.gauges[:nr][keep] for one in samples])
    nr_normal = scenario.machine.nodes
    data = {
        ga.name.lower(): gauges[: nr_normal if ga in NORMAL_GAUGES else None, :, ga].sum(axis=0) for ga in Ga
    }
    data |= {f"zone_{ga.name.lower()}": gauges[:, :, ga] for ga in ZONE_GAUGES}
    free = np.stack([one.free_pages[:nr][keep] for one in samples])
    data["free_pages"] = free.sum(axis=0).T.copy()
    data["zone_free_pages"] = free.sum(axis=2)
    data["free_blocks"] = np.sum([one.free_blocks[:nr][keep] for one in samples], axis=0).T.copy()
    normal = samples[:nr_normal]
    data["pageblocks_with_content_bit"] = np.sum([one.content[:nr][keep] for one in normal], axis=0).T.copy()
    data["pageblocks_with_pages_in_use"] = np.sum([one.in_use[:nr][keep] for one in normal], axis=0).T.copy()
    data["vmstat"] = np.sum([one.vm[:nr][keep] for one in samples], axis=0).T.copy()
    coords = {
        "time": samples[0].time[:nr][keep] / 1e9,
        "migratetype": np.array([mt.name.lower() for mt in Mt], dtype=object),
        "order": np.arange(NR_ORDERS),
        "counter": np.array(VM_NAMES, dtype=object),
        "zone": np.array([zone.name for zone in scenario.machine.zones()], dtype=object),
    }
    return data, coords


def ratios(run: Lowered) -> dict[str, np.ndarray]:
    """What follows from counters at the end; NaN where there was nothing to divide by."""
    vm = np.sum([world.node.vm for world in run.worlds], axis=0)
    obtained = int(vm[V.CONTIG_ALLOC_SUCCESS])
    per_page = int(vm[V.CONTIG_PAGES_MIGRATED]) / obtained if obtained else float("nan")
    return {"contig_pages_per_1g": np.array(per_page)}


def _digested_name(name: str) -> str:
    """The name that a variable had when digests were first taken."""
    return name.replace("contig_1g_without_reclaim", "contig_1g_possible")


def digest_of(data: dict[str, np.ndarray]) -> str:
    """16 hex digits over what a run sampled, without the counters that are only reported.

    Counters and gauges of what is off by default count once one of them has moved.
    """
    digest = hashlib.blake2b(digest_size=8)
    optional = {ga.name.lower() for ga in OPTIONAL_GAUGES}
    for name in sorted(data, key=_digested_name):
        values = np.asarray(data[name])
        if name in optional and not values.any():
            continue
        if name == "vmstat":
            early = values[VM_OPTIONAL:VM_LATER]
            moved = early if early.any() else early[:0]
            later = [values[i : i + 1] for i in range(VM_LATER, len(values)) if values[i].any()]
            values = np.concatenate([values[:NR_DIGESTED], moved, *later])
        kind = np.float64 if values.dtype.kind == "f" else np.int64
        digest.update(_digested_name(name).encode() + np.ascontiguousarray(values, kind).tobytes())
    return digest.hexdigest()
