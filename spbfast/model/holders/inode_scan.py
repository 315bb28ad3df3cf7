"""How inodes, dentries and attached objects are freed: by scans, by unlink, by page-cache reclaim.

Owns the counts and scans of a superblock's shrinker. The queues and their growth are in inodes.py. Slabs that
become empty are chained: the caller must come to `free_emptied` (slab.py).
Source: super_cache_count, super_cache_scan (fs/super.c).
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import inline_kernel, kernel, prefetch
from spbfast.model.holders.inodes import instance_queue, push_unused_inode, unpin_inodes
from spbfast.model.holders.slab import put_object
from spbfast.model.primitives.fifo import fifo_len, peek_ahead, pop_head, push_tail
from spbfast.model.state.slab_layout import (
    ATTACHED0,
    DENTRIES,
    HELD,
    INODES,
    ONE,
    ONE_SHIFT,
    PINNED,
    REFERENCED,
    SLOT_SHIFT,
    At,
    Sc,
    Si,
    St,
)

AHEAD = 16  # entries between prefetching a slab's state and using it


@inline_kernel
def _free_inode(slab, inst, slot):
    """Free an inode and what is attached to it."""
    slab.inst[inst, Si.NR_INODES] -= 1
    slab.stat[St.NR_OBJECTS] -= 1
    put_object(slab, slab.inst[inst, Si.INODE_CACHE], slot)
    for k in range(slab.attached.shape[0]):
        acc = slab.att[inst, k, At.ACC_FREE] + slab.attached[k, At.PER_INODE]
        slab.att[inst, k, At.ACC_FREE] = acc & (ONE - 1)
        q = instance_queue(slab, inst, ATTACHED0 + k)
        for _ in range(min(acc >> ONE_SHIFT, fifo_len(slab.fifo, q))):
            put_object(slab, slab.attached[k, At.CACHE], pop_head(slab.fifo, q) >> SLOT_SHIFT)
            slab.stat[St.NR_OBJECTS] -= 1


@kernel
def _prune_dentries(slab, inst, nr):
    """Walk nr dentries from the old end, giving referenced ones a second chance. Returns the freed ones."""
    q = instance_queue(slab, inst, DENTRIES)
    c = slab.inst[inst, Si.DENTRY_CACHE]
    freed = 0
    for _ in range(nr):
        prefetch(slab.state, peek_ahead(slab.fifo, q, AHEAD) >> SLOT_SHIFT)
        entry = pop_head(slab.fifo, q)
        if entry & REFERENCED:
            push_tail(slab.fifo, q, entry ^ REFERENCED)
            continue
        put_object(slab, c, entry >> SLOT_SHIFT)
        freed += 1
        unpin_inodes(slab, inst)
    slab.stat[St.NR_OBJECTS] -= freed
    slab.stat[St.DENTRIES_FREED] += freed
    slab.stat[St.ROTATED] += nr - freed
    return freed


@kernel
def _prune_inodes(slab, inst, nr):
    """As `_prune_dentries`, for unused inodes and what is attached to them."""
    q = instance_queue(slab, inst, INODES)
    freed = 0
    for _ in range(nr):
        prefetch(slab.state, peek_ahead(slab.fifo, q, AHEAD) >> SLOT_SHIFT)
        entry = pop_head(slab.fifo, q)
        if entry & REFERENCED:
            push_tail(slab.fifo, q, entry ^ REFERENCED)
            continue
        _free_inode(slab, inst, entry >> SLOT_SHIFT)
        freed += 1
    slab.stat[St.INODES_FREED] += freed
    slab.inst[inst, Si.SCANNED_OUT] += freed
    slab.stat[St.ROTATED] += nr - freed
    return freed


@kernel
def count_objects(slab, inst):
    """What the superblock's shrinker reports: -1 (SHRINK_EMPTY) without unused objects, else the
    unused dentries and inodes scaled by vfs_cache_pressure."""
    total = fifo_len(slab.fifo, instance_queue(slab, inst, DENTRIES)) + fifo_len(
        slab.fifo, instance_queue(slab, inst, INODES)
    )
    if total == 0:
        return np.int64(-1)
    return total * slab.stat[St.VFS_CACHE_PRESSURE] // 100


@kernel
def scan_objects(slab, inst, nr):
    """Scan nr objects, dentries first, then inodes, pro rata to their numbers. Returns the freed ones.

    Each share is one more than its part, as the kernel always scans at least one of either. The caller
    must come to `free_emptied`.
    """
    dentries = fifo_len(slab.fifo, instance_queue(slab, inst, DENTRIES))
    inodes = fifo_len(slab.fifo, instance_queue(slab, inst, INODES))
    total = max(dentries + inodes, 1)
    freed = _prune_dentries(slab, inst, min(nr * dentries // total + 1, dentries))
    left = min(nr * inodes // total + 1, fifo_len(slab.fifo, instance_queue(slab, inst, INODES)))
    return np.int64(freed + _prune_inodes(slab, inst, left))


@kernel
def _drop_oldest(slab, inst):
    """Unlink the oldest inode: an unused one, else one that page cache holds, else a pinned one with
    its dentries. Returns whether there was one."""
    si = slab.inst[inst]
    which = INODES
    if fifo_len(slab.fifo, instance_queue(slab, inst, which)) == 0:
        which = HELD
        if fifo_len(slab.fifo, instance_queue(slab, inst, which)) == 0:
            which = PINNED
    q = instance_queue(slab, inst, which)
    if fifo_len(slab.fifo, q) == 0:
        return False
    _free_inode(slab, inst, pop_head(slab.fifo, q) >> SLOT_SHIFT)
    if which == HELD:
        slab.stat[St.NR_HELD] -= 1
    if which == PINNED:
        si[Si.ACC_DROP] += max(si[Si.DENTRIES_PER_INODE], ONE)
        dentries = instance_queue(slab, inst, DENTRIES)
        gone = min(si[Si.ACC_DROP] >> ONE_SHIFT, fifo_len(slab.fifo, dentries))
        si[Si.ACC_DROP] &= ONE - 1
        for _ in range(gone):
            put_object(slab, si[Si.DENTRY_CACHE], pop_head(slab.fifo, dentries) >> SLOT_SHIFT)
        slab.stat[St.NR_OBJECTS] -= gone
    return True


@kernel
def drop_inodes(slab, inst, nr):
    """Unlink the nr oldest inodes of an instance, or all it has. Returns how many went.

    The caller must come to `free_emptied`.
    """
    gone = 0
    while gone < nr and _drop_oldest(slab, inst):
        gone += 1
    return gone


@kernel
def release_held(slab, inst, nr):
    """The page cache of the nr oldest held inodes is gone: they join the LRU. Returns how many did."""
    q = instance_queue(slab, inst, HELD)
    nr = min(nr, fifo_len(slab.fifo, q))
    for _ in range(nr):
        push_unused_inode(slab, inst, pop_head(slab.fifo, q))
    slab.stat[St.NR_HELD] -= nr
    return nr


@kernel
def page_cache_reclaimed(slab, pages):
    """Page cache was reclaimed: one held inode per `held_pages` pages goes to its LRU, instances in turn."""
    stat = slab.stat
    stat[St.ACC_PAGES] += pages
    while stat[St.ACC_PAGES] >= stat[St.HELD_PAGES] and stat[St.NR_HELD] > 0:
        inst = stat[St.NEXT_INST]
        stat[St.NEXT_INST] = (inst + 1) % slab.inst.shape[0]
        stat[St.ACC_PAGES] -= release_held(slab, inst, 1) * stat[St.HELD_PAGES]
    stat[St.ACC_PAGES] %= stat[St.HELD_PAGES]


@kernel
def freeable_bytes(slab):
    """Bytes of the unused dentries and inodes, which shrinkers could free."""
    total = np.int64(0)
    for inst in range(slab.inst.shape[0]):
        si = slab.inst[inst]
        for which, column in ((DENTRIES, Si.DENTRY_CACHE), (INODES, Si.INODE_CACHE)):
            size = slab.cache[si[column], Sc.OBJECT_SIZE]
            total += fifo_len(slab.fifo, instance_queue(slab, inst, which)) * size
    return total
