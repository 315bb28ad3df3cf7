"""Slab caches of file metadata with their shrinkers, the page cache, and swap.

Owns the sections `slab`, `pagecache` and `swap`. Nothing here simulates; spbfast/model/lowering turns the
models into arrays.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from spbfast.config.base import MAX_COUNT, PAGE, Model, Share, TenWeights, key
from spbfast.config.units import Duration, Size, format_size


class SlabCache(Model):
    """One slab cache."""

    name: str = Field(description="name of the cache", pattern=r"^[A-Za-z0-9_-]+$", max_length=40)
    role: Literal["inode", "dentry", "attached"] = Field(
        description="inode and dentry: one cache each; attached: objects that come and go with inodes"
    )
    object_size: Size = Field(description="bytes per object, metadata included", examples=["1136B"])
    order: int = key(0, "preferred order of a slab", "SLUB, by object size and CPUs", ge=0, le=5)
    per_inode: float = key(1.0, "objects per inode; for role attached only", "assumed, 0..8", ge=0.0, le=64.0)
    reclaimable: bool = key(True, "pages are reclaimable; false: unmovable", "mainline SLAB_RECLAIM_ACCOUNT")

    @model_validator(mode="after")
    def _check(self) -> SlabCache:
        if not 8 <= self.object_size <= PAGE << self.order:
            raise ValueError(
                f"object_size: must be 8B..{format_size(PAGE << self.order)} for slabs of order "
                f"{self.order}, got {format_size(self.object_size)}; raise order or lower object_size"
            )
        if self.role != "attached" and not self.reclaimable:
            raise ValueError(f"reclaimable: must be true for the {self.role} cache, which a shrinker frees")
        return self

    @property
    def min_order(self) -> int:
        """The smallest order that holds an object: SLUB's second attempt."""
        return (-(-self.object_size // PAGE) - 1).bit_length()

    def objects(self, order: int) -> int:
        """Objects in a slab of that order."""
        return (PAGE << order) // self.object_size


def _default_caches() -> tuple[SlabCache, ...]:
    small = {"role": "attached", "order": 0}
    return (
        SlabCache(name="btrfs_inode", role="inode", object_size="1136B", order=3),
        SlabCache(name="dentry", role="dentry", object_size="192B", order=0),
        SlabCache(name="extent_map", object_size="144B", per_inode=0.25, **small),
        SlabCache(name="extent_state", object_size="80B", per_inode=0.25, **small),
        SlabCache(name="radix_tree_node", role="attached", object_size="584B", order=1, per_inode=0.1),
        SlabCache(name="kmalloc-512", object_size="512B", per_inode=0.1, reclaimable=False, **small),
    )


class SlabSpec(Model):
    """Slab caches of file metadata, their shrinkers, and how objects age."""

    caches: tuple[SlabCache, ...] = Field(
        default_factory=_default_caches,
        max_length=64,
        description="exactly one inode and one dentry cache, and the caches attached to inodes",
        json_schema_extra={"source": "sizes measured on a small machine; btrfs order as on many-CPU hosts"},
    )
    superblocks: int = key(3, "mounted file systems with a shrinker each", "assumed, 2..4", ge=1, le=64)
    memcgs: int = key(
        22,
        "memory control groups, root included: root, one per guest, a few services",
        "assumed, 1..64",
        ge=1,
        le=1024,
    )
    batch: int = key(
        1024, "least number of objects that a superblock's scan takes", "fs/super.c", ge=1, le=MAX_COUNT
    )
    seeks: int = key(2, "DEFAULT_SEEKS: cost of recreating an object", "mainline", ge=0, le=1024)
    vfs_cache_pressure: int = key(
        100, "percent of the unused objects that a count reports", "mainline default", ge=0, le=1000
    )
    first_attempt_wakes_kswapd: bool = key(
        False,
        "SLUB's first attempt, at the preferred order, wakes kswapd when it fails",
        "mainline: false, allocate_slab clears __GFP_RECLAIM; true is what models up to version 3 had",
    )
    dentries_per_directory: int = key(
        1,
        "dentries made one after the other that are found referenced together, as those of a directory are; "
        "1: each by itself",
        "assumed, 1..1000; DCACHE_REFERENCED is set by lookups, which follow directories",
        ge=1,
        le=1_000_000,
    )
    dentries_per_inode: float = key(1.25, "dentries of each inode", "assumed, 1..2", ge=0.0, le=8.0)
    inodes_held_by_page_cache: Share = key(
        0.3, "share of unused inodes that their page cache keeps off the LRU", "assumed, 0..0.9"
    )
    pages_per_held_inode: int = key(
        16, "page-cache pages whose reclaim releases one inode", "assumed, 1..256", ge=1, le=65_536
    )
    referenced_again: Share = key(
        0.45, "share of objects that the LRU finds referenced and passes once", "flagship: assumed 0.3..0.6"
    )
    age_correlation: Share = key(
        0.9, "1: LRU age follows the slab pages, whole slabs empty; 0: no relation", "assumed, 0..1"
    )
    refault_share: Share = key(
        0.0,
        "share of the inodes freed by shrinking that are looked up again; 0: what was shrunk is never missed",
        "ours: the cost of shrinking too early; vary 0..0.5",
    )
    refault_delay: Duration = key(
        10 * 10**9, "time from the shrink to the next use; resolved to a 64th", "assumed, 1s..60s", gt=0
    )
    min_partial: int = key(
        5, "empty slabs that a cache keeps on its partial list", "SLUB: 5..10", ge=0, le=100
    )
    per_cpu_slabs: bool = key(
        False,
        "each CPU fills a slab of its own in every cache, and keeps slabs with room on a list of its own",
        "mainline does up to 6.18 (sheaves are for other caches there); ours: off, one for all CPUs",
    )
    objects_max: int = key(
        64_000_000,
        "objects that may live at once; bounds the simulator's memory, slabs included",
        "ours",
        ge=1,
        le=2**30,
    )

    @model_validator(mode="after")
    def _check(self) -> SlabSpec:
        for role in ("inode", "dentry"):
            found = [c.name for c in self.caches if c.role == role]
            if len(found) != 1:
                shown = ", ".join(found) or "none"
                raise ValueError(f"caches: exactly one cache must have the role {role}, found {shown}")
        names = [c.name for c in self.caches]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"caches: the name {twice[0]!r} is used twice; names must differ")
        return self

    def cache(self, role: str) -> SlabCache:
        """The inode or the dentry cache."""
        return next(c for c in self.caches if c.role == role)

    @property
    def nr_instances(self) -> int:
        """Shrinker instances; number of (superblock, memcg) = memcg * superblocks + superblock."""
        return self.superblocks * self.memcgs

    @property
    def objects_per_inode(self) -> float:
        """Objects that come with an inode, itself included."""
        return 1.0 + self.dentries_per_inode + sum(c.per_inode for c in self.caches if c.role == "attached")

    @property
    def bytes_per_inode(self) -> float:
        """Slab bytes that come with an inode, packed at preferred orders."""

        def packed(cache: SlabCache) -> float:
            return (PAGE << cache.order) / cache.objects(cache.order)

        total = packed(self.cache("inode")) + self.dentries_per_inode * packed(self.cache("dentry"))
        return total + sum(c.per_inode * packed(c) for c in self.caches if c.role == "attached")


class PageCacheSpec(Model):
    """The page cache's reclaim order and folio sizes."""

    hot_share: Share = key(
        0.3, "share of the cache that is never reclaimed while colder cache remains", "assumed, 0..0.7"
    )
    lru_mix: Share = key(
        0.5, "0: reclaimed in the order of arrival; 1: in an order unrelated to it", "assumed, 0..1"
    )
    reclaim_run: int = key(
        16, "folios of neighbouring age that are reclaimed together", "assumed, 1..256", ge=1, le=256
    )
    refault_share: Share = key(
        0.0,
        "share of the reclaimed pages that are read again; 0: what was reclaimed is never missed",
        "ours: the cost of reclaiming too early; vary 0..0.5",
    )
    refault_delay: Duration = key(
        10 * 10**9, "time from the reclaim to the next read; resolved to a 64th", "assumed, 1s..60s", gt=0
    )
    split_folios: bool = key(
        False,
        "split a folio that has to move and finds no place, and move its pages",
        "mainline splits (migrate_pages_batch on ENOMEM); ours: off, as it was in all that is published",
    )
    busy_factor: float = key(
        1.0,
        "how many times as often as workers.busy_share a migration of page cache fails, under writeback or "
        "being read; at most always",
        "assumed, 0..20; not measured",
        ge=0.0,
        le=1e6,
    )
    start_order: Literal["random", "pageblocks"] = key(
        "random",
        "age of the page cache of machine.from: unrelated to where it lies, or pageblock by pageblock, each "
        "read from its first page to its last",
        "a file read in order lies in runs (V13, load short)",
    )
    folio_weights: TenWeights = key(
        (0.4, 0.1, 0.25, 0.1, 0.15),
        "shares of the cached bytes in folios of order 0, 1, 2, ..; any scale",
        "assumed; large folios from readahead",
    )


class SwapSpec(Model):
    """What becomes of pages in swap; how much there is of it is `machine.swap`."""

    refault_share: Share = key(
        0.0,
        "share of the pages swapped out that are touched again, unless they are freed before; 0: what was "
        "swapped out is never missed",
        "ours: the cost of swapping out too early; vary 0..0.5",
    )
    refault_delay: Duration = key(
        10 * 10**9, "time from the swap-out to the next touch", "assumed, 1s..60s", gt=0
    )
