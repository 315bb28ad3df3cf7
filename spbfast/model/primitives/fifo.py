"""Many queues of small integers in one pool of chunks.

Owns the chunks, every queue's ends and its directory, through which any entry is found by its place. An
entry costs 3 bytes, or 4 where entries from 2^24 on must fit, plus 8 per chunk; a queue of n entries holds at
most (n - 2) / CHUNK + 2 chunks of entries and an empty one none, and likewise for the chunks of its
directory, so a pool made for `entries` entries cannot run out as long as no more are queued in all. Never
looks at what an entry means.
Positions are absolute: chunk * CHUNK + offset. Chunks of a queue are numbered in order of arrival.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import Err
from spbfast.jit.decorators import by_reference, inline_kernel, kernel, prefetch
from spbfast.model.primitives.draws import below

CHUNK_SHIFT = 8
CHUNK = 1 << CHUNK_SHIFT
CHUNK_MASK = CHUNK - 1
NARROW, WIDE = 3, 4  # bytes of an entry


class Q(enum.IntEnum):
    """Columns of `Fifo.queue`."""

    HEAD = 0  # position of the oldest entry
    TAIL = 1  # position after the youngest entry
    LEN = 2
    FIRST = 3  # number of the head chunk
    LAST = 4  # number of the tail chunk


NR_QUEUE = 5
POOL_FREE, POOL_USED, POOL_NR_FREE = 0, 1, 2  # first free chunk or -1; chunks ever used; chunks left
POOL_SWAP, POOL_SWAP_WITH = 3, 4  # positions of a swap that is to come, or -1


@by_reference(inner={"queue": (NR_QUEUE,)})
class Fifo(NamedTuple):
    """Entries by position; free chunks' links; per queue `Q` and the ring of its directory's chunks.

    `data` is uint8 over (positions, 3 or 4): an entry's bytes from the lowest on. Queues are most of the slab
    layer's memory.
    """

    data: np.ndarray
    next: np.ndarray
    queue: np.ndarray
    ring: np.ndarray
    pool: np.ndarray


def _chunks(entries: int, queues: int) -> int:
    return -(-entries // CHUNK) + 2 * queues


def nr_chunks(entries: int, queues: int) -> int:
    """Chunks that hold `entries` entries and the directories of `queues` queues, however spread."""
    chunks = _chunks(entries, queues)
    return chunks + _chunks(chunks, queues)


def make_fifo(entries: int, queues: int, largest: int = (1 << 31) - 1) -> Fifo:
    """Empty queues.

    Parameters
    ----------
    entries : int
        Entries in all queues together that the pool must hold.
    queues : int
        Number of queues.
    largest : int
        The largest entry, which decides the bytes that each takes.

    Raises
    ------
    ValueError
        When positions would not fit 2^31 entries, or entries 31 bits.
    """
    chunks = nr_chunks(entries, queues)
    if chunks * CHUNK >= 1 << 31:
        raise ValueError(f"an object pool of {entries} entries is too large (limit 2^31)")
    if not 0 <= largest < 1 << 31:
        raise ValueError(f"entries of queues must be below 2^31, not up to {largest}")
    # Directories are in `data` too: the numbers of chunks, which the limit above holds below 2^23.
    width = NARROW if largest < 1 << (8 * NARROW) else WIDE
    ring = 1 << (_chunks(_chunks(entries, queues), 1) - 1).bit_length()
    pool = np.array([-1, 0, chunks, -1, -1], np.int64)
    return Fifo(
        data=np.zeros((chunks * CHUNK, width), np.uint8),
        next=np.zeros(chunks, np.int32),
        queue=np.zeros((queues, NR_QUEUE), np.int64),
        ring=np.zeros((queues, ring), np.int32),
        pool=pool,
    )


@inline_kernel
def _entry(fifo, position):
    """The entry at a position."""
    entry = np.int64(fifo.data[position, 0])
    entry |= np.int64(fifo.data[position, 1]) << 8
    entry |= np.int64(fifo.data[position, 2]) << 16
    if fifo.data.shape[1] == WIDE:
        entry |= np.int64(fifo.data[position, 3]) << 24
    return entry


@inline_kernel
def _set_entry(fifo, position, entry):
    fifo.data[position, 0] = entry & 0xFF
    fifo.data[position, 1] = (entry >> 8) & 0xFF
    fifo.data[position, 2] = (entry >> 16) & 0xFF
    if fifo.data.shape[1] == WIDE:
        fifo.data[position, 3] = entry >> 24


@kernel
def _take_chunk(fifo):
    """A chunk off the pool, or -1."""
    chunk = fifo.pool[POOL_FREE]
    if chunk >= 0:
        fifo.pool[POOL_FREE] = fifo.next[chunk]
    elif fifo.pool[POOL_USED] < fifo.next.size:
        chunk = fifo.pool[POOL_USED]
        fifo.pool[POOL_USED] += 1
    else:
        return np.int64(-1)
    fifo.pool[POOL_NR_FREE] -= 1
    return np.int64(chunk)


@kernel
def _put_chunk(fifo, chunk):
    fifo.next[chunk] = fifo.pool[POOL_FREE]
    fifo.pool[POOL_FREE] = chunk
    fifo.pool[POOL_NR_FREE] += 1


@inline_kernel
def _directory(fifo, q, number):
    """Position of the directory entry of chunk `number` of queue q."""
    page = np.int64(fifo.ring[q, (number >> CHUNK_SHIFT) & (fifo.ring.shape[1] - 1)])
    return (page << CHUNK_SHIFT) + (number & CHUNK_MASK)


@kernel
def _add_to_directory(fifo, q, number, chunk):
    """Note that `chunk` is chunk `number` of queue q, in a new directory chunk where one begins."""
    if number & CHUNK_MASK == 0:
        page = _take_chunk(fifo)
        if page < 0:
            return Err.OBJECTS_FULL
        fifo.ring[q, (number >> CHUNK_SHIFT) & (fifo.ring.shape[1] - 1)] = page
    _set_entry(fifo, _directory(fifo, q, number), chunk)
    return Err.OK


@kernel
def _grow_tail(fifo, q):
    """Give queue q a new tail chunk; Err.OBJECTS_FULL if there is none, with nothing changed."""
    queue = fifo.queue[q]
    is_first = queue[Q.LEN] == 0
    number = np.int64(0) if is_first else queue[Q.LAST] + 1
    chunk = _take_chunk(fifo)
    if chunk < 0:
        return Err.OBJECTS_FULL
    if _add_to_directory(fifo, q, number, chunk) != Err.OK:
        _put_chunk(fifo, chunk)
        return Err.OBJECTS_FULL
    queue[Q.LAST] = number
    queue[Q.TAIL] = chunk << CHUNK_SHIFT
    if is_first:
        queue[Q.FIRST] = 0
        queue[Q.HEAD] = queue[Q.TAIL]
    return Err.OK


@kernel
def _drop_head(fifo, q):
    """The head chunk of queue q has been read to its end, or the queue is empty: back to the pool."""
    queue = fifo.queue[q]
    _put_chunk(fifo, (queue[Q.HEAD] - 1) >> CHUNK_SHIFT)
    first = queue[Q.FIRST] + 1
    if queue[Q.LEN] == 0 or first & CHUNK_MASK == 0:
        _put_chunk(fifo, _directory(fifo, q, first - 1) >> CHUNK_SHIFT)
    if queue[Q.LEN] > 0:
        queue[Q.FIRST] = first
        queue[Q.HEAD] = _entry(fifo, _directory(fifo, q, first)) << CHUNK_SHIFT


@inline_kernel
def fifo_len(fifo, q):
    """Entries of queue q."""
    return fifo.queue[q, Q.LEN]


@inline_kernel
def push_tail(fifo, q, entry):
    """Append an entry to queue q. Returns Err.OK or Err.OBJECTS_FULL (then nothing changed)."""
    if fifo.queue[q, Q.LEN] == 0 or fifo.queue[q, Q.TAIL] & CHUNK_MASK == 0:
        if _grow_tail(fifo, q) != Err.OK:
            return Err.OBJECTS_FULL
    tail = fifo.queue[q, Q.TAIL]
    _set_entry(fifo, tail, entry)
    fifo.queue[q, Q.TAIL] = tail + 1
    fifo.queue[q, Q.LEN] += 1
    return Err.OK


@inline_kernel
def pop_head(fifo, q):
    """Remove and return the oldest entry of queue q, which must not be empty."""
    head = fifo.queue[q, Q.HEAD]
    entry = _entry(fifo, head)
    fifo.queue[q, Q.HEAD] = head + 1
    fifo.queue[q, Q.LEN] -= 1
    if (head + 1) & CHUNK_MASK == 0 or fifo.queue[q, Q.LEN] == 0:
        _drop_head(fifo, q)
    return entry


@inline_kernel
def peek_ahead(fifo, q, distance):
    """Entry `distance` places behind the head if it is in the same chunk, else the head's; never empty."""
    head = fifo.queue[q, Q.HEAD]
    ahead = head + distance
    if ahead >> CHUNK_SHIFT != head >> CHUNK_SHIFT or distance >= fifo.queue[q, Q.LEN]:
        ahead = head
    return _entry(fifo, ahead)


@inline_kernel
def position_of(fifo, q, place):
    """Position of the entry `place` behind the head of queue q."""
    place += fifo.queue[q, Q.HEAD] & CHUNK_MASK
    at = _directory(fifo, q, fifo.queue[q, Q.FIRST] + (place >> CHUNK_SHIFT))
    return (_entry(fifo, at) << CHUNK_SHIFT) + (place & CHUNK_MASK)


@inline_kernel
def settle_shuffle(fifo):
    """Make the swap that `shuffle_tail` left for later, if one is left."""
    position = fifo.pool[POOL_SWAP]
    if position >= 0:
        youngest = fifo.pool[POOL_SWAP_WITH]
        entry = _entry(fifo, youngest)
        _set_entry(fifo, youngest, _entry(fifo, position))
        _set_entry(fifo, position, entry)
        fifo.pool[POOL_SWAP] = -1


@kernel
def shuffle_tail(fifo, q, x):
    """Let the youngest entry of queue q swap places with one drawn from all of them by the draw x.

    The drawn place is cold: it is only asked for here, and the swap made by the next call or by
    `settle_shuffle`. That must come before anything but `push_tail` touches a queue.
    """
    settle_shuffle(fifo)
    position = position_of(fifo, q, below(x, fifo.queue[q, Q.LEN]))
    prefetch(fifo.data, position * fifo.data.shape[1])
    fifo.pool[POOL_SWAP] = position
    fifo.pool[POOL_SWAP_WITH] = fifo.queue[q, Q.TAIL] - 1
