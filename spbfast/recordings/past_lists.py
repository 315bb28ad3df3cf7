"""Frees of small blocks that went past the per-CPU lists, told by what happens to the page next.

The kernel says `mm_page_free` of every page, and `mm_page_pcpu_drain` when one leaves a per-CPU list for the
buddy lists. Where it cannot lock its lists, as in an interrupt, it frees to the buddy lists at once and says
no more. A page that the buddy lists hand out again, and that in between neither left a per-CPU list nor was
handed out from one, was freed like that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spbfast.constants import COSTLY_ORDER, PB_ORDER
from spbfast.model.loop.page_passage import G_FREED, G_GONE, G_TAKEN, find_past_lists
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches

_CODES = {
    "mm_page_alloc": G_GONE,
    "mm_page_pcpu_drain": G_GONE,
    "mm_page_alloc_zone_locked": G_TAKEN,
    "mm_page_alloc_extfrag": G_TAKEN,
    "mm_page_free": G_FREED,
}


def free_keys(time_ns: np.ndarray, pfn: np.ndarray) -> np.ndarray:
    """A number that names a free event: its time and the low bits of its page."""
    return (time_ns << 6) | (pfn & 63)


def past_lists(path: Path, start_pfn: int, pages: int) -> np.ndarray:
    """Keys of the frees in a zone that went past the per-CPU lists: int64, sorted.

    None are found where callers' allocations were not recorded: they cannot be told then.
    """
    pending = np.full(pages, -1, np.int64)
    keys, found = [], []
    first = 0
    for kinds, batch in read_batches(path):
        if kinds.number("mm_page_alloc") < 0:
            return np.zeros(0, np.int64)
        rows, mine = _passage(kinds, batch, start_pfn, pages)
        keys.append(mine)
        out = np.full(len(rows), -1, np.int64)
        nr = find_past_lists(pending, rows, first, out)
        found.append(out[:nr].copy())
        first += len(rows)
    if not keys:
        return np.zeros(0, np.int64)
    return np.sort(np.concatenate(keys)[np.concatenate(found)])


def _passage(
    kinds: EventKinds, batch: EventBatch, start_pfn: int, pages: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of code, page and order in the order of time, and their keys."""
    code = np.zeros(len(kinds.names), np.int64)
    column = np.zeros(len(kinds.names), np.int64)
    for name, value in _CODES.items():
        number = kinds.number(name)
        if number > 0 and "pfn" in kinds.fields[number]:
            code[number] = value
            order = "alloc_order" if "alloc_order" in kinds.fields[number] else "order"
            column[number] = kinds.fields[number].index(order)
    pfn = batch.fields[:, 0]
    order = batch.fields[np.arange(len(batch)), column[batch.kind]]
    of_event = code[batch.kind]
    rests = (order <= COSTLY_ORDER) | (order == PB_ORDER)
    keep = (of_event > 0) & (order >= 0) & (order <= 10) & (rests | (of_event != G_FREED))
    keep &= (pfn >= start_pfn) & (pfn + (1 << np.clip(order, 0, 10)) <= start_pfn + pages)
    rows = np.stack([of_event[keep], pfn[keep] - start_pfn, order[keep]], axis=1)
    return rows, free_keys(batch.time_ns[keep], pfn[keep])
