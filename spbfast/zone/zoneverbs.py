"""What can be asked of a Zone: pages, their return, and the work that keeps superpageblocks apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.constants import Mt
from spbfast.errors import ZoneError
from spbfast.model.loop import replay
from spbfast.model.lowering.arguments import (
    checked_flags,
    checked_mt,
    checked_number,
    checked_order,
    checked_range,
)
from spbfast.model.state.lookup import must_be_held
from spbfast.model.state.page_state import links_of
from spbfast.text import quote_value
from spbfast.zone.eventrows import alone, event_row
from spbfast.zone.zoneviews import ZoneViews

_CHUNK = 1 << 18  # rows per call of the event loop
_ROW_MAX = 2**31 - 1


class ZoneVerbs(ZoneViews):
    """The operations of a Zone."""

    def alloc(self, order: int = 0, mt: int = Mt.MOVABLE, flags: int = 0, cpu: int = 0) -> int:
        """Allocate 2**order pages on a CPU; the first page frame number, or -1 if there is no block."""
        return int(self.alloc_many(1, order, mt, flags, cpu)[0])

    @alone
    def alloc_many(
        self, n: int, order: int = 0, mt: int = Mt.MOVABLE, flags: int = 0, cpu: int = 0
    ) -> np.ndarray:
        """`n` single requests on a CPU, one after the other.

        Returns
        -------
        ndarray
            int64 [n], page frame numbers in the order of the requests; -1 where one failed.

        Raises
        ------
        ZoneError
            A number below 0 or far above the zone's pages, an order outside 0..10, a migratetype that can't
            be asked for, unknown flags, a CPU that the zone does not have.
        """
        n = checked_number(n, self.nr_pages)
        row = event_row(
            replay.ALLOC,
            order=checked_order(order),
            mt=checked_mt(mt),
            flags=checked_flags(flags),
            arg=self._cpu_of(cpu),
        )
        pfns = np.empty(n, np.int64)
        for first in range(0, n, _CHUNK):
            part = pfns[first : first + _CHUNK]
            part[:] = self._request(row, part.size)
        return pfns

    def free(self, pfn: int, cpu: int = 0) -> None:
        """Free the block that begins at `pfn`, of whatever order it was allocated with, on a CPU.

        Raises
        ------
        ZoneError
            Nothing that was allocated and not yet freed begins there.
        """
        self.free_many([pfn], cpu)

    @alone
    def free_many(self, pfns: Any, cpu: int = 0) -> None:
        """Free blocks on a CPU, one after the other; all are looked at before the first is freed."""
        of_cpu = self._cpu_of(cpu)
        try:
            given = np.asarray(pfns)
        except (ValueError, TypeError):
            raise ZoneError(
                f"page frame numbers are a flat list of integers, got {quote_value(pfns)}"
            ) from None
        if given.size and given.dtype.kind not in "iu":
            raise ZoneError(f"page frame numbers are integers, got {given.dtype}")
        index = given.astype(np.int64).reshape(-1) - self._base
        must_be_held(self.state, self._base, index)
        slots = links_of(self.state.page, index)[1]
        for first in range(0, index.size, _CHUNK):
            part = slots[first : first + _CHUNK]
            events = np.repeat(event_row(replay.FREE, arg=of_cpu)[None, :], part.size, axis=0)
            events[:, replay.E_HANDLE] = part
            self._run(events)
            self._free.give(part)

    # -- workers -----------------------------------------------------------------------------------

    @alone
    def evacuate(self, order: int = 0, mt: int = Mt.UNMOVABLE) -> int:
        """Move movable pages out of the fullest tainted superpageblocks; number of pages moved."""
        row = event_row(replay.EVACUATE, order=checked_order(order), mt=checked_mt(mt))
        if mt == Mt.MOVABLE:
            raise ZoneError("evacuation is for unmovable or reclaimable requests, got mt 1 (movable)")
        return int(self._run(row)[0, replay.R_MOVED])

    @alone
    def defrag(self, spb: int) -> int:
        """Make room in one tainted superpageblock by moving pages out of it; number of pages moved."""
        return int(self._run(event_row(replay.DEFRAG, arg=self._spb_of(spb)))[0, replay.R_MOVED])

    @alone
    def compact(self, spb: int, pageblocks: int = 16, free_pageblocks: int = 1, fragments: int = 1) -> int:
        """Compact inside one clean superpageblock, with `compact_within_superpageblock`; pageblocks freed.

        Parameters
        ----------
        spb : int
            Number of the superpageblock.
        pageblocks : int
            Pageblocks that are tried at most.
        free_pageblocks : int
            Nothing happens where more than these are free.
        fragments : int
            Nor where the free pages outside free pageblocks do not fill this many.

        Raises
        ------
        ZoneError
            There is no such superpageblock.
        """
        row = event_row(
            replay.COMPACT,
            arg=self._spb_of(spb),
            order=checked_range(pageblocks, "pageblocks", 0, _ROW_MAX),
            mt=checked_range(free_pageblocks, "free_pageblocks", 0, _ROW_MAX),
            flags=checked_range(fragments, "fragments", 0, _ROW_MAX),
        )
        return int(self._run(row)[0, replay.R_OUTCOME])

    @alone
    def contig(self) -> int:
        """Allocate one whole superpageblock; its first page frame number or -1. `free` returns it."""
        return int(self._request(event_row(replay.CONTIG, mt=Mt.HIGHATOMIC), 1)[0])

    @alone
    def drain(self, cpu: int | None = None) -> None:
        """Return all pages on the per-CPU lists, of one CPU or of all, to the free lists."""
        self._on_cpus(replay.DRAIN, cpu)

    @alone
    def decay(self, cpu: int | None = None) -> None:
        """Let the limit of the per-CPU lists, of one CPU or of all, decay as the vmstat tick does."""
        self._on_cpus(replay.DECAY, cpu)
