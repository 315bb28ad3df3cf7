"""Recount of the slab state: every count, list and queue from what it stands for.

Owns no state and shares no code with the kernels that keep it. Reads the slab's arrays only, and the
zone's slots when given, to see that every slab has its pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spbfast.errors import InvariantError
from spbfast.model.primitives.fifo_reading import chunks_of, directory_of, entries_of, free_chunks
from spbfast.model.state.page_state import ORDER_NIBBLE, links_of, states_of
from spbfast.model.state.slab_layout import (
    ATTACHED0,
    DENTRIES,
    END,
    HELD,
    IN_USE,
    INODES,
    LINK0,
    LIVE_MASK,
    OF_CPU,
    OFF_LIST,
    PINNED,
    PREFERRED,
    SLOT_SHIFT,
    At,
    Sc,
    Si,
    Slab,
    Sp,
    St,
)
from spbfast.model.state.slots import blocks_in


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
    for q in range(len(slab.fifo.queue)):
        slots = entries_of(slab.fifo, q).astype(np.int64) >> SLOT_SHIFT
        np.add.at(live, slots, 1)
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
        if not LINK0 <= head < LINK0 + links.size or len(slots) > links.size:
            raise InvariantError("list ends", where, END, head)
        slots.append(head - LINK0)
        head = int(links[head - LINK0])
    return slots


def _partial_list(slab: Slab, c: int) -> list[int]:
    row, where = slab.cache[c], f"cache {c}"
    partial = _walk(slab.next, int(row[Sc.HEAD]), f"{where} partial list")
    _expect("partial list backwards", where, partial[::-1], _walk(slab.prev, int(row[Sc.TAIL]), where))
    _expect("length of the partial list", where, len(partial), int(row[Sc.NR_PARTIAL]))
    return partial


def _cpu_rows(slab: Slab, c: int) -> np.ndarray:
    return slab.cpu[c :: len(slab.cache)]


def _cpu_lists(slab: Slab, c: int) -> list[int]:
    """Slots on the partial lists of all CPUs; each is as long as its count says and its cache allows."""
    slots: list[int] = []
    for cpu, own in enumerate(_cpu_rows(slab, c)):
        where = f"cache {c} CPU {cpu}"
        found = _walk(slab.next, int(own[Sp.HEAD]), f"{where} partial list")
        _expect("length of a CPU's partial list", where, len(found), int(own[Sp.NR]))
        most = int(slab.cache[c, Sc.CPU_SLABS])
        if len(found) > most:
            raise InvariantError("longest list of a CPU", where, most, len(found))
        slots += found
    return slots


def _slots_named(slab: Slab, partial: list[list[int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Cache and slots by queue, by list of partial slabs, and by what is being filled (-1: nothing)."""
    for q, c in enumerate(_queue_caches(slab)):
        yield c, entries_of(slab.fifo, q) >> SLOT_SHIFT
    for c, slots in enumerate(partial):
        yield c, np.array(slots, np.int64)
    for c in range(len(slab.cache)):
        yield c, np.array(_cpu_lists(slab, c), np.int64)
        yield c, _cpu_rows(slab, c)[:, Sp.CURRENT]


def _caches_of_slabs(slab: Slab, partial: list[list[int]]) -> np.ndarray:
    """Cache of every slab by the queues of its objects, its list, or its being filled; -1 of none."""
    found = np.full(slab.state.size, -1)
    for c, slots in _slots_named(slab, partial):
        slots = slots[slots >= 0]
        others = slots[(found[slots] >= 0) & (found[slots] != c)]
        if others.size:
            raise InvariantError("slabs of one cache", f"slot {others[0]}", c, int(found[others[0]]))
        found[slots] = c
    return found


def _expect_same(what: str, expected: list[int], found: list[int]) -> None:
    """Two ascending lists of slots are equal, or the lowest slot that only one of them has."""
    if expected != found:
        slot = min(set(expected) ^ set(found))
        raise InvariantError(what, f"slot {slot}", slot in expected, slot in found)


def _expect_values(what: str, slots: np.ndarray, expected: np.ndarray, found: np.ndarray) -> None:
    """A value of each of these slots, or the first slot where it is another."""
    wrong = np.flatnonzero(expected != found)
    if wrong.size:
        at = int(wrong[0])
        raise InvariantError(what, f"slot {slots[at]}", int(expected[at]), int(found[at]))


def _check_slots(slab: Slab, cache_of: np.ndarray, partial: list[list[int]]) -> None:
    used = (slab.state & IN_USE) != 0
    slabs = np.flatnonzero(cache_of >= 0).tolist()
    _expect_same("a slot in use belongs to a cache", slabs, np.flatnonzero(used).tolist())
    _expect_same("a slot without a slab has no state", [], np.flatnonzero((slab.state != 0) & ~used).tolist())
    nr = int(slab.stat[St.USED_SLOTS])
    _expect_same("slots in use are below the number ever used", [], (nr + np.flatnonzero(used[nr:])).tolist())
    free = _walk(slab.next, int(slab.stat[St.FREE_SLOTS]), "free slots")
    _expect_same("free slots", np.flatnonzero(~used[:nr]).tolist(), sorted(free))
    of_cpus = [slot for c in range(len(slab.cache)) for slot in _cpu_lists(slab, c)]
    listed = sorted(free + of_cpus + [slot for slots in partial for slot in slots])
    _expect_same("slots with links", listed, np.flatnonzero(slab.next != OFF_LIST).tolist())
    current = slab.cpu[:, Sp.CURRENT]
    held = sorted(of_cpus + current[current >= 0].tolist())
    _expect_same("slabs that CPUs hold", held, np.flatnonzero(slab.prev == OF_CPU).tolist())


def _check_cache(slab: Slab, c: int, live: np.ndarray, mine: np.ndarray, partial: list[int]) -> None:
    """Counts of cache c, whose slabs are in the slots `mine`, ascending."""
    row, where = slab.cache[c], f"cache {c}"
    state = slab.state[mine].astype(np.int64)
    held = state & LIVE_MASK
    _expect_values("objects of slabs", mine, live[mine], held)
    _expect("objects", where, int(held.sum()), int(row[Sc.NR_OBJECTS]))
    _expect(
        "objects allocated less freed", where, int(row[Sc.ALLOCATED] - row[Sc.FREED]), int(row[Sc.NR_OBJECTS])
    )
    _expect("slabs", where, mine.size, int(row[Sc.NR_SLABS]))
    _expect("slab pages", where, int((1 << _orders(row, state)).sum()), int(row[Sc.NR_PAGES]))
    room = np.where(state & PREFERRED, row[Sc.OBJECTS], row[Sc.MIN_OBJECTS])
    _expect("slabs holding more than they can", where, [], mine[held > room].tolist())
    due = mine[(held < room) & (slab.prev[mine] != OF_CPU)]
    _expect("slabs on the partial list", where, due.tolist(), sorted(partial))
    empty = np.count_nonzero(slab.state[np.array(partial, np.int64)] & LIVE_MASK == 0)
    _expect("empty slabs kept", where, empty, int(row[Sc.KEPT]))


def _orders(row: np.ndarray, state: np.ndarray) -> np.ndarray:
    return np.where(state & PREFERRED, row[Sc.ORDER], row[Sc.MIN_ORDER])


def _check_pages(slab: Slab, cache_of: np.ndarray, zone: Any) -> None:
    """The caches have one range of slots; a slab's block has its order and owner, other slots have none."""
    owners = slab.cache[:, Sc.OWNER]
    ranges = {(int(zone.slots.base[o]), int(zone.slots.size[o])) for o in owners}
    start = int(zone.slots.base[owners[0]])
    _expect("the caches' range of slots", "zone", {(start, slab.state.size)}, ranges)
    pfn = blocks_in(zone.slots, slice(start, start + slab.state.size))
    _expect_same(
        "slots with pages", np.flatnonzero(cache_of >= 0).tolist(), np.flatnonzero(pfn >= 0).tolist()
    )
    for c, row in enumerate(slab.cache):
        mine = np.flatnonzero(cache_of == c)
        orders = states_of(zone.page, pfn[mine]) & ORDER_NIBBLE
        _expect_values("orders of slabs", mine, _orders(row, slab.state[mine]), orders)
        found = np.unique(links_of(zone.page, pfn[mine])[0]).tolist()
        _expect("owners of slabs", f"cache {c}", [int(row[Sc.OWNER])] if mine.size else [], found)


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
    partial = [_partial_list(slab, c) for c in range(len(slab.cache))]
    cache_of = _caches_of_slabs(slab, partial)
    _check_slots(slab, cache_of, partial)
    live = count_live(slab)
    for c in range(len(slab.cache)):
        _check_cache(slab, c, live, np.flatnonzero(cache_of == c), partial[c])
    if zone is not None and len(slab.cache):
        _check_pages(slab, cache_of, zone)
