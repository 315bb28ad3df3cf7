"""From recorded events to the rows of model/loop/recorded_pages.py, at one of two levels.

Owns the meaning of the kernel's events. *Zone level* is what the buddy lists did: blocks taken
(`mm_page_alloc_zone_locked`, and `mm_page_alloc_extfrag` where a block came from another type), blocks given
back by per-CPU lists (`mm_page_pcpu_drain`) and frees of orders that never rest there. *Request level* is
what callers asked: `mm_page_alloc` and `mm_page_free`. The levels are never mixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spbfast.constants import COSTLY_ORDER, MAX_ORDER, PB_ORDER
from spbfast.model.loop.recorded_pages import (
    NR_PAGE_ROW_FIELDS,
    PAGE_ALLOC,
    PAGE_FREE,
    X_BULK,
    X_CLAIMED,
    X_CPU,
    X_FALLBACK,
    X_MT,
    X_OP,
    X_ORDER,
    X_PFN,
)
from spbfast.observed.event_columns import EventBatch, EventKinds, previous_of_cpu
from spbfast.recordings.past_lists import free_keys

ZONE_LEVEL, REQUEST_LEVEL = "zone", "request"
_HIGHEST_TYPE = 4  # HIGHATOMIC is 3; CMA or ISOLATE 4


@dataclass
class RowCounts:
    """What a recording held besides the rows."""

    rows: int = 0
    lost: int = 0
    failed: int = 0  # requests that got no page
    elsewhere: int = 0  # events of other zones
    strange: int = 0  # an order or a page that no machine has


class RowMaker:
    """Turns batches into rows for one zone.

    Parameters
    ----------
    level : str
        ``zone`` or ``request``.
    start_pfn, pages : int
        The zone's page frames.
    base : int
        Page frame of the simulated zone's page index 0.
    cpus : int
        CPUs of the simulated machine; events of a CPU beyond them go to one of them.

    Attributes
    ----------
    past_lists : ndarray
        Keys of frees of small blocks that went past the per-CPU lists (past_lists.py), sorted.
    """

    def __init__(self, level: str, start_pfn: int, pages: int, base: int, cpus: int = 1 << 16) -> None:
        self.cpus = cpus
        self.past_lists = np.zeros(0, np.int64)
        self.level, self.first, self.end, self.base = level, start_pfn, start_pfn + pages, base
        self.counts = RowCounts()
        self._last_locked: dict[
            int, int
        ] = {}  # CPU -> page of its last zone_locked, if that was its last event

    def rows_of(self, kinds: EventKinds, batch: EventBatch) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a batch and the index of the event that each stands for."""
        self.counts.lost += int(np.maximum(batch.fields[batch.kind == 0, 0], 1).sum())
        if self.level == ZONE_LEVEL:
            before = previous_of_cpu(batch)
            rows, at = self._inside(*self._zone_rows(kinds, batch, before))
            waits = batch.kind[at] == kinds.number("mm_page_free")
            order = _mark_bulk(rows, at, waits, before)
            rows, at = rows[order], at[order]
        else:
            rows, at = self._inside(*self._request_rows(kinds, batch))
        self.counts.rows += len(rows)
        return rows, at

    def _inside(self, rows: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of this zone that make sense, with pages as indices; the others are counted."""
        pfn, order, mt = rows[:, X_PFN], rows[:, X_ORDER], rows[:, X_MT]
        sane = (order >= 0) & (order <= MAX_ORDER) & (mt <= _HIGHEST_TYPE) & (mt >= -1)
        sane &= (mt >= 0) | (rows[:, X_OP] != PAGE_ALLOC)
        sane &= (pfn & ((1 << np.clip(order, 0, MAX_ORDER)) - 1)) == 0
        here = (pfn >= self.first) & (pfn + (1 << np.clip(order, 0, MAX_ORDER)) <= self.end)
        self.counts.strange += int((~sane).sum())
        self.counts.elsewhere += int((sane & ~here).sum())
        keep = sane & here
        rows = rows[keep]
        rows[:, X_PFN] -= self.base
        rows[:, X_CPU] %= self.cpus
        return rows, at[keep]

    def _request_rows(self, kinds: EventKinds, batch: EventBatch) -> tuple[np.ndarray, np.ndarray]:
        allocs = _rows_where(kinds, batch, "mm_page_alloc", PAGE_ALLOC, "order", "migratetype")
        got = allocs[0][:, X_PFN] > 0
        self.counts.failed += int((~got).sum())
        frees = _rows_where(kinds, batch, "mm_page_free", PAGE_FREE, "order", "")
        return _in_order([(allocs[0][got], allocs[1][got]), frees])

    def _zone_rows(
        self, kinds: EventKinds, batch: EventBatch, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        locked = _rows_where(kinds, batch, "mm_page_alloc_zone_locked", PAGE_ALLOC, "order", "migratetype")
        got = locked[0][:, X_PFN] > 0
        drained = _rows_where(kinds, batch, "mm_page_pcpu_drain", PAGE_FREE, "order", "migratetype")
        freed = _rows_where(kinds, batch, "mm_page_free", PAGE_FREE, "order", "")
        past = (freed[0][:, X_ORDER] > COSTLY_ORDER) & (freed[0][:, X_ORDER] != PB_ORDER)
        past |= np.isin(free_keys(batch.time_ns[freed[1]], freed[0][:, X_PFN]), self.past_lists)
        fallen = self._fallbacks(kinds, batch, locked, before)
        return _in_order(
            [(locked[0][got], locked[1][got]), drained, (freed[0][past], freed[1][past]), fallen]
        )

    def _fallbacks(
        self,
        kinds: EventKinds,
        batch: EventBatch,
        locked: tuple[np.ndarray, np.ndarray],
        before: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fallbacks that no other event tells of; those that one does are marked in its row.

        After a claim of part of a pageblock the page is taken from the list like any other, so that its CPU
        tells of it twice in a row.
        """
        rows, at = _rows_where(
            kinds, batch, "mm_page_alloc_extfrag", PAGE_ALLOC, "alloc_order", "alloc_migratetype"
        )
        previous = before[at]
        row_of = np.full(len(batch) + 1, -1, np.int64)  # the last stands for: no event before
        row_of[locked[1]] = np.arange(len(locked[1]))
        mine = row_of[previous]
        told = mine >= 0
        told[told] = locked[0][mine[told], X_PFN] == rows[told, X_PFN]
        for column in (X_CLAIMED, X_FALLBACK):
            locked[0][mine[told], column] = rows[told, column]
        for i in np.flatnonzero(previous < 0).tolist():
            told[i] = self._last_locked.get(int(batch.cpu[at[i]])) == rows[i, X_PFN]
        self._remember_last(batch, kinds.number("mm_page_alloc_zone_locked"))
        return rows[~told], at[~told]

    def _remember_last(self, batch: EventBatch, locked: int) -> None:
        for cpu in np.unique(batch.cpu).tolist():
            last = int(np.flatnonzero(batch.cpu == cpu)[-1])
            is_locked = batch.kind[last] == locked
            self._last_locked[cpu] = int(batch.fields[last, 0]) if is_locked else -1


def _rows_where(
    kinds: EventKinds, batch: EventBatch, name: str, op: int, order: str, mt: str
) -> tuple[np.ndarray, np.ndarray]:
    number = kinds.number(name)
    at = np.flatnonzero(batch.kind == number) if number > 0 else np.zeros(0, np.int64)
    rows = np.zeros((len(at), NR_PAGE_ROW_FIELDS), np.int64)
    if not len(at):
        return rows, at
    fields = kinds.fields[number]
    rows[:, X_OP] = op
    rows[:, X_PFN] = _field(fields, batch, at, "pfn", 0)
    rows[:, X_ORDER] = _field(fields, batch, at, order, 0)
    rows[:, X_MT] = _field(fields, batch, at, mt, -1)
    rows[:, X_CPU] = batch.cpu[at]
    rows[:, X_CLAIMED] = _field(fields, batch, at, "change_ownership", 0)
    rows[:, X_FALLBACK] = _field(fields, batch, at, "fallback_migratetype", -1)
    return rows, at


def _field(fields: tuple[str, ...], batch: EventBatch, at: np.ndarray, name: str, without: int) -> np.ndarray:
    if name not in fields:
        return np.full(len(at), without, np.int64)
    return batch.fields[at, fields.index(name)]


def _in_order(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of several kinds in the order of their events."""
    rows = np.concatenate([rows for rows, _ in parts])
    at = np.concatenate([at for _, at in parts])
    order = np.argsort(at, kind="stable")
    return rows[order], at[order]


def _mark_bulk(rows: np.ndarray, at: np.ndarray, waits: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Mark allocations that belong to the bulk call of the row before; the order in which rows took effect.

    A bulk call is one CPU's equal requests under one hold of the zone's lock: nothing else lies between them
    on that CPU, not even the end of a request. A free that waits for the lock is told before it has it: one
    that falls into another CPU's bulk call took effect after it.
    """
    mine = np.flatnonzero(~waits)
    same = before[at[mine[1:]]] == at[mine[:-1]]
    for column in (X_OP, X_ORDER, X_MT, X_CPU):
        same &= rows[mine[1:], column] == rows[mine[:-1], column]
    request = rows[mine[1:], X_ORDER]
    same &= rows[mine[1:], X_OP] == PAGE_ALLOC
    rows[mine[1:], X_BULK] = same & ((request <= COSTLY_ORDER) | (request == PB_ORDER))
    place = np.arange(len(rows), dtype=np.int64)
    after = np.searchsorted(mine, np.flatnonzero(waits))
    ends = np.append(np.flatnonzero(np.append(rows[mine, X_BULK] == 0, True)), len(mine))
    ends = ends[np.searchsorted(ends, after)]
    place[waits] = np.append(mine, len(rows))[ends]
    return np.lexsort((~waits, place))
