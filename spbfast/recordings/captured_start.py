"""The start of a capture with page flags, corrected by the events that came while the flags were read.

Owns which events are asked. What they tell is decided in start_state.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from spbfast.model.loop.recorded_pages import NR_PAGE_ROW_FIELDS
from spbfast.observed.event_columns import EventBatch
from spbfast.observed.receipt import Receipt
from spbfast.observed.values import Snapshot
from spbfast.recordings.event_source import recorded_batches
from spbfast.recordings.page_rows import ZONE_LEVEL, RowMaker
from spbfast.recordings.start_state import CapturedZone, StartState, start_of
from spbfast.recordings.start_types import reclaimable_table, shown_types


def captured_start(
    path: Path, zone: CapturedZone, base: int, nr_pages: int, snapshots: Sequence[Snapshot]
) -> StartState:
    """The zone as it was when its first page was read.

    Parameters
    ----------
    path : Path
    zone : CapturedZone
    base, nr_pages : int
        Page frame of the simulated zone's page index 0, and its number of pages.
    snapshots : sequence of Snapshot
        The capture's tables.
    """
    early = np.concatenate(
        [np.zeros((0, NR_PAGE_ROW_FIELDS), np.int64), *_rows(path, zone, base, zone.end_ns)]
    )
    shown = (shown_types(rows) for rows in _rows(path, zone, base, 1 << 62))
    return start_of(zone, base, nr_pages, early, shown, reclaimable_table(snapshots, zone.name))


def _rows(path: Path, zone: CapturedZone, base: int, end_ns: int) -> Iterator[np.ndarray]:
    """Zone-level rows between the start and a moment: they tell what was free, whatever is replayed."""
    maker = RowMaker(ZONE_LEVEL, zone.start_pfn, zone.pages, base)
    for kinds, batch in recorded_batches(path, Receipt()):
        inside = (batch.time_ns >= zone.start_ns) & (batch.time_ns < end_ns)
        part = EventBatch(batch.time_ns[inside], batch.cpu[inside], batch.kind[inside], batch.fields[inside])
        if len(part):
            yield maker.rows_of(kinds, part)[0]
