"""The queues of fifo.py as NumPy arrays, for checks and tests: copies, nothing is changed."""

from __future__ import annotations

import numpy as np

from spbfast.model.primitives.fifo import CHUNK_MASK, CHUNK_SHIFT, POOL_FREE, Fifo, Q


def _entries_at(fifo: Fifo, positions: slice | np.ndarray) -> np.ndarray:
    """Entries at some positions: int32, a copy."""
    rows = fifo.data[positions]
    entries = np.zeros(len(rows), np.int32)
    for k in range(rows.shape[1]):
        entries |= rows[:, k].astype(np.int32) << (8 * k)
    return entries


def chunks_of(fifo: Fifo, q: int) -> list[int]:
    """Chunks of queue q in order, without its directory's; none when it is empty."""
    if fifo.queue[q, Q.LEN] == 0:
        return []
    mask = fifo.ring.shape[1] - 1
    numbers = np.arange(int(fifo.queue[q, Q.FIRST]), int(fifo.queue[q, Q.LAST]) + 1)
    pages = fifo.ring[q, (numbers >> CHUNK_SHIFT) & mask].astype(np.int64)
    return [int(chunk) for chunk in _entries_at(fifo, (pages << CHUNK_SHIFT) + (numbers & CHUNK_MASK))]


def directory_of(fifo: Fifo, q: int) -> list[int]:
    """Chunks that hold the directory of queue q."""
    if fifo.queue[q, Q.LEN] == 0:
        return []
    first, last = (int(fifo.queue[q, c]) >> CHUNK_SHIFT for c in (Q.FIRST, Q.LAST))
    return [int(fifo.ring[q, n & (fifo.ring.shape[1] - 1)]) for n in range(first, last + 1)]


def free_chunks(fifo: Fifo) -> list[int]:
    """Chunks given back to the pool."""
    chunks: list[int] = []
    chunk = int(fifo.pool[POOL_FREE])
    while chunk >= 0 and len(chunks) <= fifo.next.size:
        chunks.append(chunk)
        chunk = int(fifo.next[chunk])
    return chunks


def entries_of(fifo: Fifo, q: int) -> np.ndarray:
    """All entries of queue q, oldest first: int32 of its length (a copy).

    Raises
    ------
    ValueError
        When the queue's ends and its length contradict each other.
    """
    length, head, tail = (int(fifo.queue[q, c]) for c in (Q.LEN, Q.HEAD, Q.TAIL))
    chunks = chunks_of(fifo, q)
    if not chunks:
        return np.zeros(0, np.int32)
    if (chunks[0], chunks[-1]) != (head >> CHUNK_SHIFT, (tail - 1) >> CHUNK_SHIFT):
        raise ValueError(f"queue {q} is from {head} to {tail}, its directory says chunks {chunks}")
    parts = [_entries_at(fifo, slice(c << CHUNK_SHIFT, (c + 1) << CHUNK_SHIFT)) for c in chunks]
    entries = np.concatenate(parts)[head & CHUNK_MASK :][:length]
    end = ((head & CHUNK_MASK) + length - 1) & CHUNK_MASK
    if entries.size != length or end != (tail - 1) & CHUNK_MASK:
        raise ValueError(f"queue {q} of {length} entries does not end at {tail}")
    return entries
