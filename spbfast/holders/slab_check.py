"""Recount of the slab state: every count, list and queue from what it stands for.

Owns no state and shares no code with the kernels that keep it. Reads the slab's arrays only, and the
zone's slots when given, to see that every slab has its pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.errors import InvariantError
from spbfast.holders.fifo import chunks_of, directory_of, entries_of, free_chunks
from spbfast.holders.slab_layout import (
    ATTACHED0,
    DENTRIES,
    END,
    HELD,
    IN_USE,
    INODES,
    LINK0,
    LIVE_MASK,
    OFF_LIST,
    PINNED,
    PREFERRED,
    At,
    Sc,
    Si,
    Slab,
    St,
)
from spbfast.state.slots import blocks_in


def _expect(what: str, where: str, expected: Any, found: Any) -> None:
    if expected != found:
        raise InvariantError(what, where, expected, found)


def _queue_caches(slab: Slab) -> list[int]:
    """Cache of the objects in each queue, in queue order."""
    attached = [int(c) for c in slab.attached[:, At.CACHE]]
    caches = []
    for inst in slab.inst:
        dentry, inode = int(inst[Si.DENTRY_CACHE]), int(inst[Si.INODE_CACHE])
        caches += [dentry, inode, inode, inode, *attached]
    return caches


def count_live(slab: Slab) -> np.ndarray:
    """Objects per slab as the queues name them: int64 over the slab table."""
    live = np.zeros(slab.state.size, np.int64)
    for q, c in enumerate(_queue_caches(slab)):
        slots = entries_of(slab.fifo, q).astype(np.int64) >> 1
        np.add.at(live, slab.cache[c, Sc.BASE] + slots, 1)
    return live


def _check_queues(slab: Slab) -> None:
    owners = np.zeros(slab.fifo.next.size, np.int64)
    for q in range(len(slab.fifo.queue)):
        np.add.at(owners, chunks_of(slab.fifo, q) + directory_of(slab.fifo, q), 1)
    used = int(slab.fifo.pool[1])
    np.add.at(owners, free_chunks(slab.fifo), 1)
    wrong = np.flatnonzero(owners != (np.arange(owners.size) < used))
    if wrong.size:
        raise InvariantError("chunk in one queue", f"chunk {wrong[0]}", 1, int(owners[wrong[0]]))
    free = owners.size - used + len(free_chunks(slab.fifo))
    _expect("free chunks", "pool", free, int(slab.fifo.pool[2]))


def _check_instances(slab: Slab) -> None:
    per = ATTACHED0 + len(slab.attached)
    lengths = slab.fifo.queue[: len(slab.inst) * per, 2].reshape(-1, per)
    for i, inst in enumerate(slab.inst):
        inodes = int(lengths[i, [PINNED, INODES, HELD]].sum())
        _expect("inodes of an instance", f"instance {i}", inodes, int(inst[Si.NR_INODES]))
        if lengths[i, DENTRIES] == 0 and inst[Si.STEP] == 0 and inst[Si.LEFT] != 0:
            raise InvariantError(
                "dentries outstanding between inodes", f"instance {i}", 0, int(inst[Si.LEFT])
            )
        if lengths[i, DENTRIES] + lengths[i, INODES] > 0:
            _expect(
                "present bit of an instance with unused objects", f"instance {i}", 1, int(slab.present[i])
            )
    _expect("held inodes", "stat", int(lengths[:, HELD].sum()), int(slab.stat[St.NR_HELD]))
    _expect("objects in all queues", "stat", int(lengths.sum()), int(slab.stat[St.NR_OBJECTS]))
    if slab.stat[St.NR_OBJECTS] > slab.stat[St.MAX_OBJECTS]:
        raise InvariantError("objects within the pool", "stat", int(slab.stat[St.MAX_OBJECTS]), lengths.sum())


def _walk(links: np.ndarray, head: int, where: str) -> list[int]:
    slots: list[int] = []
    while head != END:
        if head < LINK0 or len(slots) > links.size:
            raise InvariantError("list ends", where, END, head)
        slots.append(head - LINK0)
        head = int(links[head - LINK0])
    return slots


def _check_lists(row: np.ndarray, state: np.ndarray, links: np.ndarray, back: np.ndarray, where: str) -> None:
    partial = _walk(links, int(row[Sc.HEAD]), f"{where} partial list")
    _expect("partial list backwards", where, partial[::-1], _walk(back, int(row[Sc.TAIL]), where))
    _expect("length of the partial list", where, len(partial), int(row[Sc.NR_PARTIAL]))
    live = state & LIVE_MASK
    room = np.where(state & PREFERRED, row[Sc.OBJECTS], row[Sc.MIN_OBJECTS])
    due = ((state & IN_USE) != 0) & (live < room)
    if row[Sc.CURRENT] >= 0:
        due[row[Sc.CURRENT]] = False
    _expect("slabs on the partial list", where, np.flatnonzero(due).tolist(), sorted(partial))
    empty = [slot for slot in partial if live[slot] == 0]
    _expect("empty slabs kept", where, len(empty), int(row[Sc.KEPT]))
    free = _walk(links, int(row[Sc.FREE]), f"{where} free slots")
    unused = np.flatnonzero((state[: row[Sc.USED_SLOTS]] & IN_USE) == 0).tolist()
    _expect("free slots", where, unused, sorted(free))
    listed = sorted(partial + free)
    _expect("slots with links", where, listed, np.flatnonzero(links != OFF_LIST).tolist())


def _check_cache(slab: Slab, c: int, live: np.ndarray, zone: Any) -> None:
    row, where = slab.cache[c], f"cache {c}"
    part = slice(int(row[Sc.BASE]), int(row[Sc.BASE] + row[Sc.SLOTS]))
    state = slab.state[part].astype(np.int64)
    wrong = np.flatnonzero((state & LIVE_MASK) != live[part])
    if wrong.size:
        slot = int(wrong[0])
        raise InvariantError(
            "objects of a slab", f"{where} slot {slot}", int(live[part][slot]), int(state[slot] & LIVE_MASK)
        )
    used = (state & IN_USE) != 0
    order = np.where(state & PREFERRED, row[Sc.ORDER], row[Sc.MIN_ORDER])
    _expect("objects", where, int(live[part].sum()), int(row[Sc.NR_OBJECTS]))
    _expect(
        "objects allocated less freed", where, int(row[Sc.ALLOCATED] - row[Sc.FREED]), int(row[Sc.NR_OBJECTS])
    )
    _expect("slabs", where, int(used.sum()), int(row[Sc.NR_SLABS]))
    _expect("slab pages", where, int((1 << order[used]).sum()), int(row[Sc.NR_PAGES]))
    room = np.where(state & PREFERRED, row[Sc.OBJECTS], row[Sc.MIN_OBJECTS])
    full = np.flatnonzero(used & ((state & LIVE_MASK) > room))
    _expect("slabs holding more than they can", where, [], full.tolist())
    _check_lists(row, state, slab.next[part], slab.prev[part], where)
    if zone is not None:
        base = int(zone.slots.base[row[Sc.OWNER]])
        pfn = blocks_in(zone.slots, slice(base, base + state.size))
        _expect("slots with pages", where, np.flatnonzero(used).tolist(), np.flatnonzero(pfn >= 0).tolist())
        orders = zone.page.state[pfn[used]] & 0x0F
        _expect("orders of slabs", where, order[used].tolist(), orders.tolist())


def check_slab(slab: Slab, zone: Any = None) -> None:
    """Recompute everything the slab state keeps count of.

    Parameters
    ----------
    slab : Slab
        At rest: no emptied slabs waiting for `free_emptied`.
    zone : Zone, optional
        Whose slots must then hold exactly the slabs' pages.

    Raises
    ------
    InvariantError
        Names the first rule that is broken.
    """
    _expect("emptied slabs waiting", "stat", END, int(slab.stat[St.EMPTIED_HEAD]))
    _check_queues(slab)
    _check_instances(slab)
    live = count_live(slab)
    for c in range(len(slab.cache)):
        _check_cache(slab, c, live, zone)
