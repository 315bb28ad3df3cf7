"""Many queues of int32 entries in one pool of chunks.

Owns the chunks, their links and every queue's ends. An entry costs 4 bytes plus 4 bytes per chunk; a
queue of n entries holds at most (n - 2) / CHUNK + 2 chunks and an empty one none, so a pool of
`nr_chunks(entries, queues)` chunks cannot run out as long as no more than `entries` are queued in all.
Never looks at what an entry means. Positions are absolute: chunk * CHUNK + offset.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast._jit import inline_kernel, kernel
from spbfast.constants import Err
from spbfast.holders.draws import below, draw

CHUNK_SHIFT = 8
CHUNK = 1 << CHUNK_SHIFT
CHUNK_MASK = CHUNK - 1
OK, FULL = int(Err.OK), int(Err.OBJECTS_FULL)


class Q(enum.IntEnum):
    """Columns of `Fifo.queue`."""

    HEAD = 0  # position of the oldest entry
    TAIL = 1  # position after the youngest entry
    LEN = 2
    CURSOR = 3  # chunk that the next shuffled entry swaps with, -1: start at the head


NR_QUEUE = 4
POOL_FREE, POOL_USED, POOL_NR_FREE = 0, 1, 2  # first free chunk or -1; chunks ever used; chunks left


class Fifo(NamedTuple):
    """Entries by position; per chunk the next one of its queue or of the free chunks; per queue `Q`."""

    data: np.ndarray
    next: np.ndarray
    queue: np.ndarray
    pool: np.ndarray


def nr_chunks(entries: int, queues: int) -> int:
    """Chunks that hold `entries` entries in `queues` queues however they are spread."""
    return -(-entries // CHUNK) + 2 * queues


def make_fifo(entries: int, queues: int) -> Fifo:
    """Empty queues.

    Parameters
    ----------
    entries : int
        Entries in all queues together that the pool must hold.
    queues : int
        Number of queues.

    Raises
    ------
    ValueError
        When positions would not fit 2^31 entries.
    """
    chunks = nr_chunks(entries, queues)
    if chunks * CHUNK >= 1 << 31:
        raise ValueError(f"an object pool of {entries} entries is too large (limit 2^31)")
    queue = np.zeros((queues, NR_QUEUE), np.int64)
    queue[:, Q.CURSOR] = -1
    pool = np.array([-1, 0, chunks], np.int64)
    return Fifo(np.zeros(chunks * CHUNK, np.int32), np.full(chunks, -1, np.int32), queue, pool)


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
    fifo.next[chunk] = -1
    return np.int64(chunk)


@kernel
def _put_chunk(fifo, chunk):
    fifo.next[chunk] = fifo.pool[POOL_FREE]
    fifo.pool[POOL_FREE] = chunk
    fifo.pool[POOL_NR_FREE] += 1


@kernel
def _grow_tail(fifo, q):
    """Give queue q a new tail chunk; Err.OBJECTS_FULL if there is none."""
    chunk = _take_chunk(fifo)
    if chunk < 0:
        return FULL
    queue = fifo.queue[q]
    if queue[Q.LEN] == 0:
        queue[Q.HEAD] = chunk << CHUNK_SHIFT
    else:
        fifo.next[(queue[Q.TAIL] - 1) >> CHUNK_SHIFT] = chunk
    queue[Q.TAIL] = chunk << CHUNK_SHIFT
    return OK


@kernel
def _drop_head(fifo, q):
    """The head chunk of queue q has been read to its end, or the queue is empty: back to the pool."""
    queue = fifo.queue[q]
    old = (queue[Q.HEAD] - 1) >> CHUNK_SHIFT
    if queue[Q.LEN] > 0:
        queue[Q.HEAD] = np.int64(fifo.next[old]) << CHUNK_SHIFT
    if queue[Q.CURSOR] == old:
        queue[Q.CURSOR] = -1
    _put_chunk(fifo, old)


@inline_kernel
def fifo_len(fifo, q):
    """Entries of queue q."""
    return fifo.queue[q, Q.LEN]


@inline_kernel
def push_tail(fifo, q, entry):
    """Append an entry to queue q. Returns Err.OK or Err.OBJECTS_FULL (then nothing changed)."""
    if fifo.queue[q, Q.LEN] == 0 or fifo.queue[q, Q.TAIL] & CHUNK_MASK == 0:
        if _grow_tail(fifo, q) != OK:
            return FULL
    tail = fifo.queue[q, Q.TAIL]
    fifo.data[tail] = entry
    fifo.queue[q, Q.TAIL] = tail + 1
    fifo.queue[q, Q.LEN] += 1
    return OK


@inline_kernel
def pop_head(fifo, q):
    """Remove and return the oldest entry of queue q, which must not be empty."""
    head = fifo.queue[q, Q.HEAD]
    entry = np.int64(fifo.data[head])
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
    return np.int64(fifo.data[ahead])


@kernel
def _near_position(fifo, q, place):
    """Position of the entry `place` behind the head, which lies in the first two chunks."""
    head = fifo.queue[q, Q.HEAD]
    left = CHUNK - (head & CHUNK_MASK)
    if place < left:
        return head + place
    return (np.int64(fifo.next[head >> CHUNK_SHIFT]) << CHUNK_SHIFT) + place - left


@kernel
def _cursor_position(fifo, q, x):
    """Position of a random entry of the cursor's chunk; the cursor moves on to the next chunk.

    Model: the chunk goes round, the place in it is drawn. Queues are links, so that an entry drawn
    evenly over all of them could not be found; in the long run every entry is met equally often.
    Two end chunks are partly filled: a place outside the queue means that the next chunk is tried.
    """
    queue = fifo.queue[q]
    head, tail = queue[Q.HEAD], queue[Q.TAIL]
    chunk = queue[Q.CURSOR]
    last = (tail - 1) >> CHUNK_SHIFT
    offset = below(x, CHUNK)
    while True:
        if chunk < 0:
            chunk = head >> CHUNK_SHIFT
        position = (chunk << CHUNK_SHIFT) + offset
        is_in = chunk != last or position < tail
        if chunk == head >> CHUNK_SHIFT and position < head:
            is_in = False
        chunk = np.int64(-1) if chunk == last else np.int64(fifo.next[chunk])
        if is_in:
            queue[Q.CURSOR] = chunk
            return position


@kernel
def shuffle_tail(fifo, q, x):
    """Let the youngest entry of queue q swap places with one drawn from all of them by the draw x."""
    count = fifo.queue[q, Q.LEN]
    if count <= CHUNK + 1:
        position = _near_position(fifo, q, below(x, count))
    else:
        position = _cursor_position(fifo, q, draw(x, 0))
    youngest = fifo.queue[q, Q.TAIL] - 1
    entry = fifo.data[youngest]
    fifo.data[youngest] = fifo.data[position]
    fifo.data[position] = entry


def entries_of(fifo: Fifo, q: int) -> np.ndarray:
    """All entries of queue q, oldest first: int32 of its length (a copy)."""
    head, tail, length = (int(fifo.queue[q, c]) for c in (Q.HEAD, Q.TAIL, Q.LEN))
    parts = []
    left = length
    while left > 0:
        stop = min(((head >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT, head + left)
        parts.append(fifo.data[head:stop])
        left -= stop - head
        head = int(fifo.next[(stop - 1) >> CHUNK_SHIFT]) << CHUNK_SHIFT if left else stop
    if length and head != tail:
        raise ValueError(f"queue {q} ends at {head}, its tail is {tail}")
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def chunks_of(fifo: Fifo, q: int) -> list[int]:
    """Chunks of queue q in order; of the free chunks for q = -1."""
    chunks = []
    if q < 0:
        chunk, last = int(fifo.pool[POOL_FREE]), -1
    elif fifo.queue[q, Q.LEN] == 0:
        return chunks
    else:
        chunk = int(fifo.queue[q, Q.HEAD]) >> CHUNK_SHIFT
        last = (int(fifo.queue[q, Q.TAIL]) - 1) >> CHUNK_SHIFT
    while chunk >= 0 and len(chunks) <= fifo.next.size:
        chunks.append(chunk)
        chunk = -1 if chunk == last else int(fifo.next[chunk])
    return chunks
