"""Events as columns: how a capture keeps a batch of them, and the batch as arrays.

Owns EventKinds (names and fields of what was recorded), EventBatch and its bytes. A column is kept with the
bytes that its largest value needs, the n-th bytes of all values side by side; times and page frames as
differences from the one before. That alone makes an event of 36 bytes one of about six.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import DumpError
from spbfast.observed.capture_file import EVENTS, HEAD, json_mapping, read_chunks

MAX_EVENT_FIELDS = 8
MAX_BATCH = 1 << 18
MAX_KINDS = 255
_COUNT = struct.Struct("<I")
_COLUMN = struct.Struct("<BB")  # bytes a value; 1 where values are differences, 2 where they are signed
LOST_KIND = "lost"  # the first kind of every capture: events that the kernel's buffer dropped here


@dataclass(frozen=True)
class EventKinds:
    """What a capture can hold: by kind number, the event's name and its fields.

    Attributes
    ----------
    names : tuple of str
        Without the subsystem; number 0 is ``lost``, with one field, ``events`` (0: not known).
    fields : tuple of tuple of str
    """

    names: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]

    def number(self, name: str) -> int:
        """The kind's number, -1 where it was not recorded."""
        return self.names.index(name) if name in self.names else -1

    @classmethod
    def from_head(cls, path: Path, head: dict[str, Any]) -> EventKinds:
        """The kinds that a capture's head names.

        Raises
        ------
        DumpError
            When the head names none, too many, or not by text.
        """
        rows: Any = head.get("events")
        try:
            kinds = cls(
                tuple(str(row["name"])[:60] for row in rows),
                tuple(tuple(str(name)[:40] for name in row["fields"]) for row in rows),
            )
        except (TypeError, KeyError):
            raise DumpError(path, 0, "the capture's head does not list its events") from None
        if not 0 < len(kinds.names) <= MAX_KINDS or max(map(len, kinds.fields)) > MAX_EVENT_FIELDS:
            raise DumpError(path, 0, "the capture's head lists more events or fields than a capture has")
        return kinds


@dataclass
class EventBatch:
    """Events in the order of their time.

    Attributes
    ----------
    time_ns, cpu, kind : ndarray
        int64 [n]; time by the recorder's clock, kind as a number of `EventKinds`.
    fields : ndarray
        int64 [n, MAX_EVENT_FIELDS], values in the order of the kind's fields; 0 beyond them.
    """

    time_ns: np.ndarray
    cpu: np.ndarray
    kind: np.ndarray
    fields: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)


def pack_batch(batch: EventBatch, kinds: EventKinds) -> bytes:
    """A batch as the bytes of a chunk."""
    parts = [_COUNT.pack(len(batch))]
    parts += [_packed(batch.kind), _packed(batch.cpu), _packed(batch.time_ns, as_differences=True)]
    for number in np.unique(batch.kind).tolist():
        rows = np.flatnonzero(batch.kind == number)
        for i, name in enumerate(kinds.fields[number]):
            parts.append(_packed(batch.fields[rows, i], as_differences=name.endswith("pfn")))
    return b"".join(parts)


def unpack_batch(path: Path, data: bytes, kinds: EventKinds) -> EventBatch:
    """The batch in a chunk.

    Raises
    ------
    DumpError
        When the bytes are no batch of these kinds.
    """
    if len(data) < _COUNT.size:
        raise DumpError(path, 0, "a batch of events is too short")
    n = _COUNT.unpack_from(data)[0]
    if n > MAX_BATCH:
        raise DumpError(path, 0, f"a batch has {n} events; a capture has at most {MAX_BATCH}")
    columns = _Columns(path, data, _COUNT.size)
    kind, cpu, time_ns = (columns.take(n) for _ in range(3))
    if n and not 0 <= kind.min() <= kind.max() < len(kinds.names):
        raise DumpError(path, 0, "a batch has an event of a kind that the head does not list")
    fields = np.zeros((n, MAX_EVENT_FIELDS), np.int64)
    for number in np.unique(kind).tolist():
        rows = np.flatnonzero(kind == number)
        for i in range(len(kinds.fields[number])):
            fields[rows, i] = columns.take(len(rows))
    return EventBatch(time_ns, cpu, kind, fields)


def read_batches(path: Path) -> Iterator[tuple[EventKinds, EventBatch]]:
    """The events of a capture, batch by batch, in constant memory.

    Raises
    ------
    DumpError
        When the file is no capture or is damaged.
    """
    kinds = None
    for tag, data in read_chunks(path):
        if tag == HEAD:
            kinds = EventKinds.from_head(path, json_mapping(path, data))
        elif tag == EVENTS:
            if kinds is None:
                raise DumpError(path, 0, "events come before the capture's head")
            yield kinds, unpack_batch(path, data, kinds)


def _packed(values: np.ndarray, as_differences: bool = False) -> bytes:
    if as_differences:
        steps = np.diff(values, prepend=0)
        values = (steps << 1) ^ (steps >> 63)
    is_signed = bool(len(values)) and int(values.min()) < 0
    width = 8 if is_signed else _width(int(values.max(initial=0)))
    planes = values.astype(f"<u{width}").view(np.uint8).reshape(len(values), width).T
    return _COLUMN.pack(width, int(as_differences) | 2 * is_signed) + np.ascontiguousarray(planes).tobytes()


def _width(most: int) -> int:
    return next(width for width in (1, 2, 4, 8) if most < 1 << (8 * width))


class _Columns:
    """Takes one column after the other from a chunk."""

    def __init__(self, path: Path, data: bytes, at: int) -> None:
        self.path, self.data, self.at = path, data, at

    def take(self, n: int) -> np.ndarray:
        if self.at + _COLUMN.size > len(self.data):
            raise DumpError(self.path, 0, "a batch of events ends in the middle")
        width, how = _COLUMN.unpack_from(self.data, self.at)
        begin = self.at + _COLUMN.size
        self.at = begin + n * width
        if width not in (1, 2, 4, 8) or self.at > len(self.data):
            raise DumpError(self.path, 0, "a batch of events ends in the middle")
        planes = np.frombuffer(self.data, np.uint8, n * width, begin).reshape(width, n)
        values = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(n).astype(np.int64)
        if how & 1:
            values = np.cumsum((values >> 1 & 0x7FFF_FFFF_FFFF_FFFF) ^ -(values & 1))
        return values


def previous_of_cpu(batch: EventBatch) -> np.ndarray:
    """Index of the event before on the same CPU, -1 for a CPU's first: int64 [n]."""
    order = np.argsort(batch.cpu, kind="stable")
    out = np.full(len(batch), -1, np.int64)
    same = batch.cpu[order[1:]] == batch.cpu[order[:-1]]
    out[order[1:][same]] = order[:-1][same]
    return out
