"""Reads the per-CPU buffers of a tracefs instance in binary and hands out batches in the order of time.

Owns the rounds: every few milliseconds all CPUs are read until their buffers are empty, and what is older
than the round's begin goes out, sorted across CPUs. Memory is bounded by the kernel's buffers: a round never
reads more than they hold. Events that the kernel dropped come out as events of kind 0, where they are
missing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spbfast.errors import LiveError
from spbfast.live.machine_tables import now_ns
from spbfast.live.ring import (
    NR_ROW_FIELDS,
    R_FIELD0,
    R_KIND,
    R_TIME,
    decode_pages,
    event_tables,
)
from spbfast.live.tracefs import RecordedEvent
from spbfast.observed.event_columns import MAX_BATCH, EventBatch

SETTLED_NS = 10_000_000  # an event this old has been written by every CPU
PAGES_AT_ONCE = 64


class CpuBuffer:
    """One CPU's buffer, read page by page without waiting."""

    def __init__(self, instance: Path, cpu: int, page_bytes: int) -> None:
        self.cpu = cpu
        self.nr_bytes = 0
        self._file = os.open(
            instance / f"per_cpu/cpu{cpu}/trace_pipe_raw", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
        memory = bytearray(PAGES_AT_ONCE * page_bytes)
        self.words = np.frombuffer(memory, np.int32)
        self._pages = [
            memoryview(memory)[i * page_bytes : (i + 1) * page_bytes] for i in range(PAGES_AT_ONCE)
        ]

    def read(self) -> int:
        """Fill the memory; the number of whole pages that came."""
        for nr, page in enumerate(self._pages):
            try:
                got = os.readv(self._file, [page])
            except BlockingIOError:
                return nr
            if got == 0:
                return nr
            self.nr_bytes += got
        return len(self._pages)

    def close(self) -> None:
        os.close(self._file)


class Recorder:
    """Turns an instance's buffers into batches.

    Parameters
    ----------
    instance : Path
    cpus : sequence of int
    events : sequence of RecordedEvent
        Kinds are numbered from 1 in this order.
    buffer_kb : int
        Size of one CPU's buffer: the most that a round reads from it.
    """

    def __init__(
        self, instance: Path, cpus: Sequence[int], events: Sequence[RecordedEvent], buffer_kb: int
    ) -> None:
        if sys.byteorder != "little":
            raise LiveError("the ring buffer is read on little-endian machines only")
        page_bytes = _page_bytes(instance)
        self._page_words = page_bytes // 4
        self._kinds, self._fields = event_tables(events)
        self._rows = np.empty((PAGES_AT_ONCE * (self._page_words // 2 + 1), NR_ROW_FIELDS), np.int64)
        self._most = buffer_kb * 1024
        self._held = [np.empty((0, NR_ROW_FIELDS), np.int64) for _ in cpus]
        self._buffers: list[CpuBuffer] = []
        self.nr_events = self.nr_late = 0
        self._written_ns = 0
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            self._buffers += [CpuBuffer(instance, cpu, page_bytes) for cpu in cpus]
            stack.pop_all()

    def close(self) -> None:
        """Let go of the buffers; the instance can be removed then."""
        while self._buffers:
            self._buffers.pop().close()

    def round(self, is_last: bool = False) -> Iterator[EventBatch]:
        """Read what there is, and hand out all that is old enough, or everything."""
        until = now_ns() - SETTLED_NS if not is_last else (1 << 63) - 1
        parts = []
        cpus = []
        for i, buffer in enumerate(self._buffers):
            rows = np.concatenate([self._held[i], *self._read(buffer)])
            ready = int(np.searchsorted(rows[:, R_TIME], until))
            self._held[i] = rows[ready:].copy()
            parts.append(rows[:ready])
            cpus.append(np.full(ready, buffer.cpu, np.int64))
        yield from self._sorted(np.concatenate(parts), np.concatenate(cpus))

    def _read(self, buffer: CpuBuffer) -> Iterator[np.ndarray]:
        end = buffer.nr_bytes + self._most
        while buffer.nr_bytes < end and (nr := buffer.read()):
            rows = decode_pages(buffer.words, nr, self._page_words, self._kinds, self._fields, self._rows)
            yield self._rows[:rows].copy()
            if nr < PAGES_AT_ONCE:
                return

    def _sorted(self, rows: np.ndarray, cpus: np.ndarray) -> Iterator[EventBatch]:
        if not len(rows):
            return
        order = np.argsort(rows[:, R_TIME], kind="stable")
        self.nr_late += int((rows[:, R_TIME] < self._written_ns).sum())
        self._written_ns = max(self._written_ns, int(rows[order[-1], R_TIME]))
        self.nr_events += int((rows[:, R_KIND] > 0).sum())
        for first in range(0, len(order), MAX_BATCH):
            part = order[first : first + MAX_BATCH]
            mine = rows[part]
            yield EventBatch(mine[:, R_TIME], cpus[part], mine[:, R_KIND], mine[:, R_FIELD0:])


def _page_bytes(instance: Path) -> int:
    """Size of a page of the buffer: 4 KiB, or what buffer_subbuf_size_kb says."""
    with contextlib.suppress(OSError, ValueError):
        return int((instance / "buffer_subbuf_size_kb").read_text()) * 1024
    return os.sysconf("SC_PAGE_SIZE")
