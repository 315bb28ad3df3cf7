"""Slab caches and superblock instances as arrays: what they are, and their first, empty state.

Owns the named tuple `Slab`, its columns and the specifications it is built from. Kernels that change it
are in holders/: slab.py (objects and slabs) and inodes.py (dentries and inodes); check_slab.py recounts it.

A slab is named by its slot. All caches share the slots, so that none needs room for its own worst case;
each is an owner of the zone with the same range of `z.slots`, where the slab's pages are found. An instance
is one (superblock, memcg). All tables are zero where nothing was ever used: links count from 2 (0: on no
list, 1: the end), so that large tables cost memory only as they fill. A slab's two links lie side by side:
joining or leaving a list is one cache miss, not two.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spbfast.constants import MAX_ORDER, PAGE_SIZE
from spbfast.jit.decorators import by_reference
from spbfast.model.primitives.draws import threshold_32
from spbfast.model.primitives.fifo import Fifo, make_fifo

LIVE_MASK = 0x1FFF  # bits of `state`: objects in use, then two signs
PREFERRED = 0x2000  # obtained at the preferred order
IN_USE = 0x4000  # the slot has a slab
OFF_LIST, END, LINK0 = 0, 1, 2  # links: on no list, last of it, slot + 2
OF_CPU = -1  # `prev` of a slab that a CPU fills, or that lies on a CPU's partial list
ONE_SHIFT = 16
ONE = 1 << ONE_SHIFT  # fixed point of the accumulators
SLOT_SHIFT = 1  # queue entries are slot << SLOT_SHIFT | REFERENCED, or without
REFERENCED = 1
DENTRIES, PINNED, INODES, HELD, ATTACHED0 = range(5)  # queues of an instance


class Sc(enum.IntEnum):
    """Columns of `Slab.cache`."""

    OWNER = 0
    ORDER = 1  # preferred, then smallest order and the objects per slab at each
    MIN_ORDER = 2
    OBJECTS = 3
    MIN_OBJECTS = 4
    MT = 5
    MIN_PARTIAL = 6
    OBJECT_SIZE = 7
    CPU_SLABS = 8  # slabs that a CPU's partial list may hold, 0: there are no such lists
    HEAD = 9  # partial list, as links
    TAIL = 10
    NR_PARTIAL = 11
    NR_OBJECTS = 12
    NR_SLABS = 13
    NR_PAGES = 14
    KEPT = 15  # empty slabs on the partial list
    ALLOCATED = 16  # objects, cumulative
    FREED = 17
    SLABS_FREED = 18
    PAGES_FREED = 19
    KEPT_TIMES = 20  # times that an emptied slab was kept
    CPU_DRAINS = 21  # times that a CPU's full list went to the partial list


class Sp(enum.IntEnum):
    """Columns of `Slab.cpu`: rows of all caches for each CPU, or once for all CPUs together."""

    CURRENT = 0  # slab that allocations fill, -1 none
    HEAD = 1  # partial list of the CPU, last come first, as links
    NR = 2


class Si(enum.IntEnum):
    """Columns of `Slab.inst`."""

    DENTRY_CACHE = 0
    INODE_CACHE = 1
    KEY = 2  # of its draws
    COUNTER = 3
    REFERENCED_32 = 4  # chance that a new entry is referenced
    SHUFFLE_32 = 5  # chance that it swaps places: 1 - age correlation
    DENTRIES_PER_INODE = 6  # fixed point, as are the accumulators and shares
    HELD_SHARE = 7
    ACC_DENTRY = 8
    ACC_RELEASE = 9
    ACC_HELD = 10
    ACC_DROP = 11
    AWAITED = 12  # inodes asked for and not begun
    STEP = 13  # 0: between inodes; 1..attached: that cache; then its dentries
    LEFT = 14  # dentries that the inode still gets
    NR_INODES = 15
    SCANNED_OUT = 16  # inodes freed by scans, cumulative
    NR_DENTRIES = 17  # made, cumulative; counted if directories have several


class At(enum.IntEnum):
    """Columns of `Slab.attached`, and of the third axis of `Slab.att`."""

    CACHE = 0
    PER_INODE = 1
    ACC_NEW = 0
    ACC_FREE = 1
    PENDING = 2


class St(enum.IntEnum):
    """Index into `Slab.stat`."""

    NR_OBJECTS = 0  # in all queues
    MAX_OBJECTS = 1
    EMPTIED_HEAD = 2  # slabs to be freed, as links
    EMPTIED_TAIL = 3
    VFS_CACHE_PRESSURE = 4  # percent
    HELD_PAGES = 5  # page-cache pages of an inode that it holds
    ACC_PAGES = 6
    NEXT_INST = 7  # whose held inodes go next
    DENTRIES_FREED = 8  # by scans
    INODES_FREED = 9
    SLABS_FREED = 10
    PAGES_FREED = 11
    ROTATED = 12  # referenced entries met by scans
    NR_HELD = 13  # inodes that page cache holds
    FREE_SLOTS = 14  # slots given back, as links
    USED_SLOTS = 15  # slots ever used
    DIRECTORY = 16  # dentries that are found referenced together
    NR_CPUS = 17  # rows of `Slab.cpu` a cache
    CPU_ROW = 18  # first row of the CPU that allocates or frees


@by_reference(
    inner={"cache": (len(Sc),), "cpu": (len(Sp),), "inst": (len(Si),)}, strides={"next": 2, "prev": 2}
)
class Slab(NamedTuple):
    """All caches, slabs, instances and their object queues."""

    cache: np.ndarray
    cpu: np.ndarray
    state: np.ndarray
    next: np.ndarray
    prev: np.ndarray
    inst: np.ndarray
    attached: np.ndarray
    att: np.ndarray
    fifo: Fifo
    present: np.ndarray
    stat: np.ndarray


@dataclass(frozen=True)
class CacheSpec:
    """A slab cache: object size in bytes, preferred and smallest order, migratetype, bounds of its lists."""

    owner: int
    object_size: int
    order: int
    min_order: int
    mt: int
    min_partial: int = 5
    cpu_slabs: int = 0

    def objects(self, order: int) -> int:
        """Objects in a slab of that order."""
        return (PAGE_SIZE << order) // self.object_size


@dataclass(frozen=True)
class InstanceSpec:
    """One (superblock, memcg): caches by number, key of its draws, shares 0..1."""

    dentry_cache: int
    inode_cache: int
    key: int
    referenced: float = 0.0
    age_correlation: float = 1.0
    dentries_per_inode: float = 1.0
    held_share: float = 0.0


def _fill_cache(row: np.ndarray, spec: CacheSpec) -> None:
    if not 0 <= spec.min_order <= spec.order <= MAX_ORDER:
        raise ValueError(f"orders {spec.min_order}..{spec.order} are not within 0..{MAX_ORDER}")
    if spec.objects(spec.min_order) < 1 or spec.objects(spec.order) > LIVE_MASK:
        raise ValueError(
            f"{spec.object_size}-byte objects: a slab must hold 1..{LIVE_MASK}, "
            f"not {spec.objects(spec.min_order)}..{spec.objects(spec.order)}"
        )
    row[Sc.OWNER], row[Sc.ORDER], row[Sc.MIN_ORDER] = spec.owner, spec.order, spec.min_order
    row[Sc.OBJECTS], row[Sc.MIN_OBJECTS] = spec.objects(spec.order), spec.objects(spec.min_order)
    row[Sc.MT], row[Sc.MIN_PARTIAL], row[Sc.OBJECT_SIZE] = spec.mt, spec.min_partial, spec.object_size
    row[Sc.CPU_SLABS], row[Sc.HEAD], row[Sc.TAIL] = spec.cpu_slabs, END, END


def _fill_instance(row: np.ndarray, spec: InstanceSpec) -> None:
    row[Si.DENTRY_CACHE], row[Si.INODE_CACHE], row[Si.KEY] = spec.dentry_cache, spec.inode_cache, spec.key
    row[Si.REFERENCED_32] = threshold_32(spec.referenced)
    row[Si.SHUFFLE_32] = threshold_32(1.0 - spec.age_correlation)
    row[Si.DENTRIES_PER_INODE] = round(spec.dentries_per_inode * ONE)
    row[Si.HELD_SHARE] = round(spec.held_share * ONE)


def _first_stat(
    max_objects: int, vfs_cache_pressure: int, held_pages: int, directory: int, nr_cpus: int
) -> np.ndarray:
    stat = np.zeros(len(St), np.int64)
    stat[St.MAX_OBJECTS], stat[St.VFS_CACHE_PRESSURE] = max_objects, vfs_cache_pressure
    stat[St.HELD_PAGES], stat[St.DIRECTORY], stat[St.NR_CPUS] = held_pages, directory, nr_cpus
    stat[[St.EMPTIED_HEAD, St.EMPTIED_TAIL, St.FREE_SLOTS]] = END
    return stat


def make_slab(
    caches: list[CacheSpec],
    instances: list[InstanceSpec],
    attached: list[tuple[int, float]] | None = None,
    nr_slots: int = 0,
    max_objects: int = 0,
    vfs_cache_pressure: int = 100,
    held_pages: int = 16,
    directory: int = 1,
    nr_cpus: int = 1,
) -> Slab:
    """Empty caches.

    Parameters
    ----------
    caches, instances : list
        In the order of their numbers.
    attached : list of (cache number, objects per inode)
        Objects that come and go with every inode.
    nr_slots : int
        Slabs that all caches together may have at once, 10 bytes each and 4 in the zone.
    max_objects : int
        Objects that may live at once, 3 bytes each, 4 with more than 2^23 slabs.
    vfs_cache_pressure : int
        Percent of the unused objects that a count reports.
    held_pages : int
        Page-cache pages whose reclaim lets go of one inode.
    directory : int
        Dentries in a row that are found referenced together.
    nr_cpus : int
        CPUs that fill slabs of their own; 1: all fill the same one.

    Raises
    ------
    ValueError
        Sizes that the tables cannot hold.
    """
    if not 0 <= nr_slots < 1 << 30:
        raise ValueError(f"slab caches must have fewer than 2^30 slabs, got {nr_slots}")
    attached = attached or []
    cache = np.zeros((len(caches), len(Sc)), np.int64)
    for row, spec in zip(cache, caches, strict=True):
        _fill_cache(row, spec)
    inst = np.zeros((len(instances), len(Si)), np.int64)
    for row, instance in zip(inst, instances, strict=True):
        _fill_instance(row, instance)
    largest = (max(nr_slots, 1) - 1) << SLOT_SHIFT | REFERENCED
    # Two rows at least: numpy calls columns of fewer contiguous, and kernels would be compiled once more.
    links = np.zeros((max(nr_slots, 2), 2), np.int32)
    return Slab(
        cache=cache,
        cpu=np.tile(np.array([[-1, END, 0]]), (len(caches) * nr_cpus, 1)).astype(np.int64),
        state=np.zeros(nr_slots, np.int16),
        next=links[:, 0],
        prev=links[:, 1],
        inst=inst,
        attached=np.array([(c, round(per * ONE)) for c, per in attached], np.int64).reshape(-1, 2),
        att=np.zeros((len(instances), len(attached), 3), np.int64),
        fifo=make_fifo(max_objects, max(1, len(instances) * (ATTACHED0 + len(attached))), largest),
        present=np.zeros(len(instances), np.int8),
        stat=_first_stat(max_objects, vfs_cache_pressure, held_pages, directory, nr_cpus),
    )


def no_slab() -> Slab:
    """Slab state of a machine without slab caches."""
    return make_slab([], [])
