"""Superblock instances: the dentries, inodes and attached objects of one (superblock, memcg).

Owns `Slab.inst` and the object queues: unused dentries, inodes pinned by them, unused inodes, inodes held
by page cache, and one queue per attached cache. Counts and scans are those of a superblock's shrinker.
Object and slab bookkeeping is in slab.py; which requests bring the slabs is the caller's business.

Model: a new inode gets its attached objects and dentries; a freed dentry that was its inode's last (an
accumulator of dentries_per_inode) releases the oldest pinned inode, unreferenced, to the inode LRU or,
by an accumulator of held_share, to the page cache. Source: super_cache_count, super_cache_scan (fs/super.c).
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import inline_kernel, kernel, prefetch
from spbfast.model.holders.slab import put_object, take_object
from spbfast.model.primitives.draws import chance, draw, high_32
from spbfast.model.primitives.fifo import (
    fifo_len,
    peek_ahead,
    pop_head,
    push_tail,
    settle_shuffle,
    shuffle_tail,
)
from spbfast.model.state.slab_layout import (
    ATTACHED0,
    DENTRIES,
    HELD,
    INODES,
    ONE,
    PINNED,
    REFERENCED,
    At,
    Sc,
    Si,
    St,
)

DONE = -1  # of a growth: everything asked for is there
POOL_FULL = -2  # of a growth: the object pool is used up
AHEAD = 16  # entries between prefetching a slab's state and using it


@inline_kernel
def _queue(slab, inst, which):
    """Number of an instance's queue."""
    return inst * (ATTACHED0 + slab.attached.shape[0]) + which


@inline_kernel
def _push_new(slab, inst, which, slot):
    """A new object joins its queue, referenced and shuffled as its draw says."""
    x = draw(slab.inst[inst, Si.KEY], slab.inst[inst, Si.COUNTER])
    slab.inst[inst, Si.COUNTER] += 1
    entry = slot << 1
    if which == DENTRIES and chance(x, slab.inst[inst, Si.REFERENCED_32]):
        entry |= REFERENCED
    q = _queue(slab, inst, which)
    push_tail(slab.fifo, q, entry)
    slab.stat[St.NR_OBJECTS] += 1
    if high_32(x) < slab.inst[inst, Si.SHUFFLE_32]:
        shuffle_tail(slab.fifo, q, draw(x, 1))


@inline_kernel
def _push_unused_inode(slab, inst, entry):
    """An inode joins the LRU; the memcg's present bit is set as list_lru_add does."""
    push_tail(slab.fifo, _queue(slab, inst, INODES), entry)
    slab.present[inst] = 1


@inline_kernel
def _release_inode(slab, inst, entry):
    """An inode lost its last dentry: to the page cache that holds it, or to the LRU unreferenced."""
    si = slab.inst[inst]
    si[Si.ACC_HELD] += si[Si.HELD_SHARE]
    if si[Si.ACC_HELD] >= ONE:
        si[Si.ACC_HELD] -= ONE
        push_tail(slab.fifo, _queue(slab, inst, HELD), entry)
        slab.stat[St.NR_HELD] += 1
    else:
        _push_unused_inode(slab, inst, entry)


@inline_kernel
def _unpin_inodes(slab, inst):
    """A dentry was freed: release the inodes that this was the last dentry of."""
    si = slab.inst[inst]
    pinned = _queue(slab, inst, PINNED)
    per_inode = max(si[Si.DENTRIES_PER_INODE], ONE)
    si[Si.ACC_RELEASE] += ONE
    while fifo_len(slab.fifo, pinned) > 0 and (
        si[Si.ACC_RELEASE] >= per_inode or fifo_len(slab.fifo, _queue(slab, inst, DENTRIES)) == 0
    ):
        si[Si.ACC_RELEASE] = max(si[Si.ACC_RELEASE] - per_inode, 0)
        _release_inode(slab, inst, pop_head(slab.fifo, pinned))
    if fifo_len(slab.fifo, pinned) == 0:
        si[Si.ACC_RELEASE] = 0


# --- growth ---------------------------------------------------------------------------------------


@inline_kernel
def _start_inode(slab, inst):
    """Allocate the next inode itself and settle what belongs to it."""
    si = slab.inst[inst]
    slot = take_object(slab, si[Si.INODE_CACHE])
    if slot < 0:
        return si[Si.INODE_CACHE]
    si[Si.AWAITED] -= 1
    si[Si.NR_INODES] += 1
    si[Si.ACC_DENTRY] += si[Si.DENTRIES_PER_INODE]
    si[Si.LEFT] = si[Si.ACC_DENTRY] >> 16
    si[Si.ACC_DENTRY] &= ONE - 1
    for k in range(slab.attached.shape[0]):
        acc = slab.att[inst, k, At.ACC_NEW] + slab.attached[k, At.PER_INODE]
        slab.att[inst, k, At.PENDING] = acc >> 16
        slab.att[inst, k, At.ACC_NEW] = acc & (ONE - 1)
    if si[Si.LEFT] > 0:
        _push_new(slab, inst, PINNED, slot)
    else:
        si[Si.COUNTER] += 1
        slab.stat[St.NR_OBJECTS] += 1
        _release_inode(slab, inst, slot << 1)
    si[Si.STEP] = 1
    return np.int64(DONE)


@inline_kernel
def _add_attached(slab, inst, k):
    """Allocate the inode's objects of attached cache k."""
    c = slab.attached[k, At.CACHE]
    while slab.att[inst, k, At.PENDING] > 0:
        if slab.stat[St.NR_OBJECTS] >= slab.stat[St.MAX_OBJECTS]:
            return np.int64(POOL_FULL)
        slot = take_object(slab, c)
        if slot < 0:
            return c
        slab.att[inst, k, At.PENDING] -= 1
        _push_new(slab, inst, ATTACHED0 + k, slot)
    slab.inst[inst, Si.STEP] += 1
    return np.int64(DONE)


@inline_kernel
def _add_dentries(slab, inst):
    """Allocate the inode's dentries."""
    si = slab.inst[inst]
    while si[Si.LEFT] > 0:
        if slab.stat[St.NR_OBJECTS] >= slab.stat[St.MAX_OBJECTS]:
            return np.int64(POOL_FULL)
        slot = take_object(slab, si[Si.DENTRY_CACHE])
        if slot < 0:
            return si[Si.DENTRY_CACHE]
        si[Si.LEFT] -= 1
        _push_new(slab, inst, DENTRIES, slot)
        slab.present[inst] = 1
    si[Si.STEP] = 0
    return np.int64(DONE)


@inline_kernel
def _grow(slab, inst):
    """What `grow_inodes` does, with a swap of the last object perhaps left to be made."""
    si = slab.inst[inst]
    nr_attached = slab.attached.shape[0]
    while si[Si.AWAITED] > 0 or si[Si.STEP] > 0:
        if si[Si.STEP] == 0:
            if slab.stat[St.NR_OBJECTS] >= slab.stat[St.MAX_OBJECTS]:
                return np.int64(POOL_FULL)
            code = _start_inode(slab, inst)
        elif si[Si.STEP] <= nr_attached:
            code = _add_attached(slab, inst, si[Si.STEP] - 1)
        else:
            code = _add_dentries(slab, inst)
        if code != DONE:
            return code
    return np.int64(DONE)


@kernel
def grow_inodes(slab, inst, nr):
    """Add nr inodes with their dentries and attached objects to what instance inst still has to grow.

    Returns DONE, POOL_FULL, or the number of the cache that needs a slab: then `add_slab` or, if no
    pages were to be had, `skip_object`, and call again with nr = 0 until DONE.
    """
    slab.inst[inst, Si.AWAITED] += nr
    code = _grow(slab, inst)
    settle_shuffle(slab.fifo)
    return code


@kernel
def skip_object(slab, inst):
    """The slab that a growth waits for could not be had: do without the object it was for.

    An inode that is skipped has no dentries and nothing attached. The draw of the object is consumed.
    """
    si = slab.inst[inst]
    step = si[Si.STEP]
    si[Si.COUNTER] += 1
    if step == 0:
        si[Si.AWAITED] -= 1
    elif step <= slab.attached.shape[0]:
        slab.att[inst, step - 1, At.PENDING] -= 1
    else:
        si[Si.LEFT] -= 1


# --- freeing --------------------------------------------------------------------------------------


@inline_kernel
def _free_inode(slab, inst, slot):
    """Free an inode and what is attached to it."""
    slab.inst[inst, Si.NR_INODES] -= 1
    slab.stat[St.NR_OBJECTS] -= 1
    put_object(slab, slab.inst[inst, Si.INODE_CACHE], slot)
    for k in range(slab.attached.shape[0]):
        acc = slab.att[inst, k, At.ACC_FREE] + slab.attached[k, At.PER_INODE]
        slab.att[inst, k, At.ACC_FREE] = acc & (ONE - 1)
        q = _queue(slab, inst, ATTACHED0 + k)
        for _ in range(min(acc >> 16, fifo_len(slab.fifo, q))):
            put_object(slab, slab.attached[k, At.CACHE], pop_head(slab.fifo, q) >> 1)
            slab.stat[St.NR_OBJECTS] -= 1


@kernel
def _prune_dentries(slab, inst, nr):
    """Walk nr dentries from the old end, giving referenced ones a second chance. Returns the freed ones."""
    q = _queue(slab, inst, DENTRIES)
    c = slab.inst[inst, Si.DENTRY_CACHE]
    freed = 0
    for _ in range(nr):
        prefetch(slab.state, peek_ahead(slab.fifo, q, AHEAD) >> 1)
        entry = pop_head(slab.fifo, q)
        if entry & REFERENCED:
            push_tail(slab.fifo, q, entry ^ REFERENCED)
            continue
        put_object(slab, c, entry >> 1)
        freed += 1
        _unpin_inodes(slab, inst)
    slab.stat[St.NR_OBJECTS] -= freed
    slab.stat[St.DENTRIES_FREED] += freed
    slab.stat[St.ROTATED] += nr - freed
    return freed


@kernel
def _prune_inodes(slab, inst, nr):
    """As `_prune_dentries`, for unused inodes and what is attached to them."""
    q = _queue(slab, inst, INODES)
    freed = 0
    for _ in range(nr):
        prefetch(slab.state, peek_ahead(slab.fifo, q, AHEAD) >> 1)
        entry = pop_head(slab.fifo, q)
        if entry & REFERENCED:
            push_tail(slab.fifo, q, entry ^ REFERENCED)
            continue
        _free_inode(slab, inst, entry >> 1)
        freed += 1
    slab.stat[St.INODES_FREED] += freed
    slab.inst[inst, Si.SCANNED_OUT] += freed
    slab.stat[St.ROTATED] += nr - freed
    return freed


@kernel
def count_objects(slab, inst):
    """What the superblock's shrinker reports: -1 (SHRINK_EMPTY) without unused objects, else the
    unused dentries and inodes scaled by vfs_cache_pressure."""
    total = fifo_len(slab.fifo, _queue(slab, inst, DENTRIES)) + fifo_len(
        slab.fifo, _queue(slab, inst, INODES)
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
    dentries = fifo_len(slab.fifo, _queue(slab, inst, DENTRIES))
    inodes = fifo_len(slab.fifo, _queue(slab, inst, INODES))
    total = max(dentries + inodes, 1)
    freed = _prune_dentries(slab, inst, min(nr * dentries // total + 1, dentries))
    left = min(nr * inodes // total + 1, fifo_len(slab.fifo, _queue(slab, inst, INODES)))
    return np.int64(freed + _prune_inodes(slab, inst, left))


@kernel
def _drop_oldest(slab, inst):
    """Unlink the oldest inode: an unused one, else one that page cache holds, else a pinned one with
    its dentries. Returns whether there was one."""
    si = slab.inst[inst]
    which = INODES
    if fifo_len(slab.fifo, _queue(slab, inst, which)) == 0:
        which = HELD
        if fifo_len(slab.fifo, _queue(slab, inst, which)) == 0:
            which = PINNED
    q = _queue(slab, inst, which)
    if fifo_len(slab.fifo, q) == 0:
        return False
    _free_inode(slab, inst, pop_head(slab.fifo, q) >> 1)
    if which == HELD:
        slab.stat[St.NR_HELD] -= 1
    if which == PINNED:
        si[Si.ACC_DROP] += max(si[Si.DENTRIES_PER_INODE], ONE)
        dentries = _queue(slab, inst, DENTRIES)
        gone = min(si[Si.ACC_DROP] >> 16, fifo_len(slab.fifo, dentries))
        si[Si.ACC_DROP] &= ONE - 1
        for _ in range(gone):
            put_object(slab, si[Si.DENTRY_CACHE], pop_head(slab.fifo, dentries) >> 1)
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
    q = _queue(slab, inst, HELD)
    nr = min(nr, fifo_len(slab.fifo, q))
    for _ in range(nr):
        _push_unused_inode(slab, inst, pop_head(slab.fifo, q))
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
            total += fifo_len(slab.fifo, _queue(slab, inst, which)) * size
    return total
