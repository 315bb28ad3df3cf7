"""Events of any recording as batches: a capture of ours, a trace as text, or LLFree's.

Owns the meaning of the records of LLFree. Batches come in the file's order and in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spbfast.constants import Mt
from spbfast.errors import DumpError
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds, read_batches
from spbfast.observed.llfree import FLAG_MOVABLE, FLAG_RECLAIMABLE, llfree_batches
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.textbatches import TEXT_KINDS, text_batches

_NUMBERS = {name: number for number, name in enumerate(TEXT_KINDS.names)}


def recorded_batches(path: Path, receipt: Receipt) -> Iterator[tuple[EventKinds, EventBatch]]:
    """Batches of events of a capture, of a trace as text, or of LLFree's.

    Raises
    ------
    DumpError
        When the file is none of these, or is damaged.
    """
    kind, encoding = kind_of_file(path)
    if kind == "capture":
        yield from read_batches(path)
        return
    if kind == "llfree":
        yield from _llfree_batches(path)
        return
    if kind != "text":
        raise DumpError(path, 0, f"is no trace with page events but {kind}")
    for batch in text_batches(path, encoding, receipt):
        yield TEXT_KINDS, batch


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
