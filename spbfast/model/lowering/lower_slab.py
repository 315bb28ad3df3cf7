"""Slab section of a configuration to the arrays of state/slab_layout.py and state/shrink_layout.py.

Owns sizes: how many objects the pool must hold and how many slabs the caches may have together. Caches become
owners `owner0`, `owner0` + 1, .. in the order of the configuration; instance number memcg * superblocks +
superblock is both the demand's and the shrinkers' name of a (superblock, memcg).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spbfast.constants import PAGE_SIZE, RECLAIMABLE, UNMOVABLE
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.shrink_layout import KIND_SUPERBLOCK, Shrink, make_shrink
from spbfast.model.state.slab_layout import CacheSpec, InstanceSpec, Slab, make_slab
from spbfast.model.state.standin_layout import Standins, no_standins

if TYPE_CHECKING:
    from spbfast.config.caches import SlabCache, SlabSpec

SLAB_STREAM = 0x51AB  # part of the draw keys: no actor's number
# Slabs that may exist, in units of those that all objects fill at their preferred orders. The flagship's runs
# came to 0.96 at most, under mainline with two dentries an inode; more is for slabs half empty or small.
SLABS_PER_FULL = 1.5
# Objects that a CPU's partial lists hold free, by least size of an object.
CPU_PARTIAL = ((PAGE_SIZE, 6), (1024, 24), (256, 52), (0, 120))
MANY_PAGES = 1 << 16  # zones up to this size may be nothing but slabs


class LoweredSlab(NamedTuple):
    """State of the slab layer, and of all shrinkers."""

    slab: Slab
    shrink: Shrink
    standins: Standins


def max_objects(config: SlabSpec, nr_pages: int) -> int:
    """Objects that can live at once: the configured bound, or what fits the memory if that is less."""
    fits = nr_pages * PAGE_SIZE / config.bytes_per_inode * config.objects_per_inode
    return min(config.objects_max, int(fits * 1.05) + 4096)


def cpu_slabs(cache: SlabCache) -> int:
    """Slabs of the longest partial list of a CPU, which are taken to be half full.

    Source: set_cpu_partial and slub_set_cpu_partial (mm/slub.c, Linux 6.18).
    """
    objects = next(nr for size, nr in CPU_PARTIAL if cache.object_size >= size)
    return -(-2 * objects // cache.objects(cache.order))


def cache_specs(config: SlabSpec, owner0: int) -> list[CacheSpec]:
    """Caches in the order of their numbers."""
    return [
        CacheSpec(
            owner=owner0 + number,
            object_size=cache.object_size,
            order=cache.order,
            min_order=min(cache.min_order, cache.order),
            mt=RECLAIMABLE if cache.reclaimable else UNMOVABLE,
            min_partial=config.min_partial,
            cpu_slabs=cpu_slabs(cache) if config.per_cpu_slabs else 0,
        )
        for number, cache in enumerate(config.caches)
    ]


def nr_slots(config: SlabSpec, nr_pages: int) -> int:
    """Slabs that all caches together may have at once; growth beyond is counted as beyond the object pool."""
    inodes = max_objects(config, nr_pages) / config.objects_per_inode
    per_inode = {"inode": 1.0, "dentry": config.dentries_per_inode}
    full = sum(
        inodes * per_inode.get(cache.role, cache.per_inode) / cache.objects(cache.order)
        for cache in config.caches
    )
    return min(max(int(SLABS_PER_FULL * full) + 1024, MANY_PAGES), nr_pages)


def _instances(config: SlabSpec, seed: int, replicate: int) -> list[InstanceSpec]:
    roles = [cache.role for cache in config.caches]
    return [
        InstanceSpec(
            dentry_cache=roles.index("dentry"),
            inode_cache=roles.index("inode"),
            key=key_of(seed, replicate, SLAB_STREAM, number),
            referenced=config.referenced_again,
            age_correlation=config.age_correlation,
            dentries_per_inode=config.dentries_per_inode,
            held_share=config.inodes_held_by_page_cache,
        )
        for number in range(config.nr_instances)
    ]


def _superblock_shrinkers(config: SlabSpec) -> list[list[int]]:
    """Rows of `Shrink.table`, one a superblock; caches have the numbers of the instances."""
    stride = config.superblocks
    return [[1, 1, config.batch, config.seeks, KIND_SUPERBLOCK, first, stride] for first in range(stride)]


def lower_slab(
    config: SlabSpec,
    nr_pages: int,
    owner0: int,
    seed: int = 0,
    replicate: int = 0,
    nr_runs: int = 0,
    nr_calls: int = 0,
    cpus: int = 1,
) -> LoweredSlab:
    """Empty slab caches and shrinkers of a configuration.

    Parameters
    ----------
    config : SlabSpec
        The `slab` section.
    nr_pages : int
        Pages of the zone, which bound the tables.
    owner0 : int
        Owner number of the first cache.
    seed, replicate : int
        Key the draws of references and age.
    nr_runs, nr_calls : int
        Rows kept of shrink runs and calls, none by default.
    cpus : int
        Of the machine; they count where each fills slabs of its own.

    Raises
    ------
    ValueError
        When slabs would hold more objects than the table can count, or the pool is too large.
    """
    attached = [(i, c.per_inode) for i, c in enumerate(config.caches) if c.role == "attached"]
    slab = make_slab(
        cache_specs(config, owner0),
        _instances(config, seed, replicate),
        attached,
        nr_slots=nr_slots(config, nr_pages),
        max_objects=max_objects(config, nr_pages),
        vfs_cache_pressure=config.vfs_cache_pressure,
        held_pages=config.pages_per_held_inode,
        directory=config.dentries_per_directory,
        nr_cpus=cpus if config.per_cpu_slabs else 1,
    )
    rows = _superblock_shrinkers(config)
    shrink = make_shrink(
        np.array(rows), np.ones(config.memcgs), np.ones(1), nr_runs=nr_runs, nr_calls=nr_calls
    )
    # The slab sets the bits that the shrinkers read.
    return LoweredSlab(slab._replace(present=shrink.present), shrink, no_standins())
