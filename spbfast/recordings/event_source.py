"""Events of any recording as batches: a capture of ours, a trace as text, or LLFree's.

Owns the step from single events of text to columns. Batches come in the file's order and in constant memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spbfast.constants import Mt
from spbfast.errors import DumpError
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds, read_batches
from spbfast.observed.llfree import FLAG_MOVABLE, FLAG_RECLAIMABLE, llfree_batches
from spbfast.observed.loading import read_events
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.tracetext import TraceEvent

_AT_ONCE = 1 << 15
_MASK = (1 << 63) - 1
_NO_TIME = -1  # of events that are printed without one
TEXT_KINDS = EventKinds(
    (
        "lost",
        "mm_page_alloc",
        "mm_page_free",
        "mm_page_alloc_zone_locked",
        "mm_page_pcpu_drain",
        "mm_page_alloc_extfrag",
    ),
    (
        ("events",),
        ("pfn", "order", "migratetype"),
        ("pfn", "order"),
        ("pfn", "order", "migratetype"),
        ("pfn", "order", "migratetype"),
        ("pfn", "alloc_order", "alloc_migratetype", "fallback_migratetype", "change_ownership"),
    ),
)
_NUMBERS = {name: number for number, name in enumerate(TEXT_KINDS.names)}


def recorded_batches(path: Path, receipt: Receipt) -> Iterator[tuple[EventKinds, EventBatch]]:
    """Batches of events of a capture, of a trace as text, or of LLFree's.

    Raises
    ------
    DumpError
        When the file is none of these, or is damaged.
    """
    kind, _ = kind_of_file(path)
    if kind == "capture":
        yield from read_batches(path)
        return
    if kind == "llfree":
        yield from _llfree_batches(path)
        return
    if kind != "text":
        raise DumpError(path, 0, f"is no trace with page events but {kind}")
    events = (event for event in read_events(path, receipt) if event.name in _NUMBERS)
    while part := list(itertools.islice(events, _AT_ONCE)):
        yield TEXT_KINDS, _as_batch(part)


def _llfree_batches(path: Path) -> Iterator[tuple[EventKinds, EventBatch]]:
    """LLFree's records in the order of time; two of its flag bits tell the migrate type."""
    alloc, free = _NUMBERS["mm_page_alloc"], _NUMBERS["mm_page_free"]
    for part in llfree_batches(path):
        fields = np.zeros((len(part), MAX_EVENT_FIELDS), np.int64)
        fields[:, 0], fields[:, 1] = part["pfn"], part["order"]
        movable = (part["flags"] & FLAG_MOVABLE) != 0
        reclaimable = (part["flags"] & FLAG_RECLAIMABLE) != 0
        is_alloc = part["is_alloc"] != 0
        types = np.where(movable, int(Mt.MOVABLE), np.where(reclaimable, int(Mt.RECLAIMABLE), 0))
        fields[:, 2] = np.where(is_alloc, types, 0)
        kind = np.where(is_alloc, alloc, free)
        yield TEXT_KINDS, EventBatch(part["time_us"] * 1000, part["cpu"], kind, fields)


def _as_batch(events: list[TraceEvent]) -> EventBatch:
    n = len(events)
    fields = np.zeros((n, MAX_EVENT_FIELDS), np.int64)
    kind = np.array([_NUMBERS[event.name] for event in events], np.int64)
    for i, event in enumerate(events):
        for j, name in enumerate(TEXT_KINDS.fields[kind[i]]):
            value = event.fields.get(name, 0 if name == "order" else -1)
            fields[i, j] = min(value, _MASK) if isinstance(value, int) else -1
    time_ns = np.array([min(_NO_TIME if e.time_ns is None else e.time_ns, _MASK) for e in events], np.int64)
    cpu = np.array([min(event.cpu or 0, 1 << 16) for event in events], np.int64)
    return EventBatch(time_ns, cpu, kind, fields)
