"""Superblock instances: dentries, inodes and attached objects of one (superblock, memcg), and their growth.

Owns `Slab.inst` and the object queues: unused dentries, inodes pinned by them, unused inodes, inodes held
by page cache, and one queue per attached cache. What frees them is in inode_scan.py, object and slab
bookkeeping in slab.py; callers request the pages of slabs.

Model: a new inode gets its attached objects and dentries; a freed dentry that was its inode's last (an
accumulator of dentries_per_inode) releases the oldest pinned inode, unreferenced, to the inode LRU or,
by an accumulator of held_share, to the page cache.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.holders.slab import take_object
from spbfast.model.primitives.draws import chance, draw, high_32
from spbfast.model.primitives.fifo import (
    fifo_len,
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
    ONE_SHIFT,
    PINNED,
    REFERENCED,
    SLOT_SHIFT,
    At,
    Si,
    St,
)

DONE = -1  # of a growth: everything asked for is there
POOL_FULL = -2  # of a growth: the object pool is used up
DIRECTORY_STREAM = 1  # of an instance's key: draws of directories, apart from those of objects


@inline_kernel
def instance_queue(slab, inst, which):
    """Number of an instance's queue."""
    return inst * (ATTACHED0 + slab.attached.shape[0]) + which


@kernel
def draw_directory(slab, inst):
    """The draw of the directory that the next dentry is in."""
    si = slab.inst[inst]
    directory = si[Si.NR_DENTRIES] // slab.stat[St.DIRECTORY]
    si[Si.NR_DENTRIES] += 1
    return draw(si[Si.KEY] + DIRECTORY_STREAM, directory)


@inline_kernel
def is_referenced(slab, inst, x):
    """Whether a new dentry, whose own draw is x, will be found referenced by the first scan that meets it."""
    y = x if slab.stat[St.DIRECTORY] == 1 else draw_directory(slab, inst)
    return chance(y, slab.inst[inst, Si.REFERENCED_32])


@inline_kernel
def _push_new(slab, inst, which, slot):
    """A new object joins its queue, referenced and shuffled as its draw says."""
    x = draw(slab.inst[inst, Si.KEY], slab.inst[inst, Si.COUNTER])
    slab.inst[inst, Si.COUNTER] += 1
    entry = slot << SLOT_SHIFT
    if which == DENTRIES and is_referenced(slab, inst, x):
        entry |= REFERENCED
    q = instance_queue(slab, inst, which)
    push_tail(slab.fifo, q, entry)
    slab.stat[St.NR_OBJECTS] += 1
    if high_32(x) < slab.inst[inst, Si.SHUFFLE_32]:
        shuffle_tail(slab.fifo, q, draw(x, 1))


@inline_kernel
def push_unused_inode(slab, inst, entry):
    """An inode joins the LRU; the memcg's present bit is set as list_lru_add does."""
    push_tail(slab.fifo, instance_queue(slab, inst, INODES), entry)
    slab.present[inst] = 1


@inline_kernel
def _release_inode(slab, inst, entry):
    """An inode lost its last dentry: to the page cache that holds it, or to the LRU unreferenced."""
    si = slab.inst[inst]
    si[Si.ACC_HELD] += si[Si.HELD_SHARE]
    if si[Si.ACC_HELD] >= ONE:
        si[Si.ACC_HELD] -= ONE
        push_tail(slab.fifo, instance_queue(slab, inst, HELD), entry)
        slab.stat[St.NR_HELD] += 1
    else:
        push_unused_inode(slab, inst, entry)


@inline_kernel
def unpin_inodes(slab, inst):
    """A dentry was freed: release the inodes that this was the last dentry of."""
    si = slab.inst[inst]
    pinned = instance_queue(slab, inst, PINNED)
    per_inode = max(si[Si.DENTRIES_PER_INODE], ONE)
    si[Si.ACC_RELEASE] += ONE
    while fifo_len(slab.fifo, pinned) > 0 and (
        si[Si.ACC_RELEASE] >= per_inode or fifo_len(slab.fifo, instance_queue(slab, inst, DENTRIES)) == 0
    ):
        si[Si.ACC_RELEASE] = max(si[Si.ACC_RELEASE] - per_inode, 0)
        _release_inode(slab, inst, pop_head(slab.fifo, pinned))
    if fifo_len(slab.fifo, pinned) == 0:
        si[Si.ACC_RELEASE] = 0


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
    si[Si.LEFT] = si[Si.ACC_DENTRY] >> ONE_SHIFT
    si[Si.ACC_DENTRY] &= ONE - 1
    for k in range(slab.attached.shape[0]):
        acc = slab.att[inst, k, At.ACC_NEW] + slab.attached[k, At.PER_INODE]
        slab.att[inst, k, At.PENDING] = acc >> ONE_SHIFT
        slab.att[inst, k, At.ACC_NEW] = acc & (ONE - 1)
    if si[Si.LEFT] > 0:
        _push_new(slab, inst, PINNED, slot)
    else:
        si[Si.COUNTER] += 1
        slab.stat[St.NR_OBJECTS] += 1
        _release_inode(slab, inst, slot << SLOT_SHIFT)
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

    Returns DONE, POOL_FULL, or the number of the cache that needs a slab: then call `add_slab` or,
    without pages for one, `skip_object`, and this again with nr = 0 until DONE.
    """
    slab.inst[inst, Si.AWAITED] += nr
    code = _grow(slab, inst)
    settle_shuffle(slab.fifo)
    return code


@kernel
def skip_object(slab, inst):
    """There are no pages for the slab that a growth waits for: skip the object.

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
