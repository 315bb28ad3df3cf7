"""Per-CPU page lists of one CPU over the mainline buddy level, slow and obvious.

Owns the 14 lists and the scalars that tune them (count, high, alloc_factor, free_count, flags).
Blocks that rest here are allocated as far as the buddy level is concerned, belong to nobody and are
never LRU.  All divisions and shifts floor.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tests.reference.buddy import BuddyZone, Mode
from tests.reference.words import CMA, HIGHATOMIC, MOVABLE, PB_ORDER

NR_PCP_LISTS = 14
PCP_ORDERS = (0, 1, 2, 3, PB_ORDER)
PREV_FREE_HIGH_ORDER = 1
FREE_HIGH_BATCH = 2


def pcp_index(order: int, mt: int) -> int:
    """List of an order and type: three types for orders 0..3, movable or not for order 9."""
    if order == PB_ORDER:
        return 13 if mt == MOVABLE else 12
    return 3 * order + mt


def pcp_order(index: int) -> int:
    return PB_ORDER if index >= 12 else index // 3


class Pcp:
    """One CPU's page lists in front of a `BuddyZone`."""

    def __init__(
        self,
        zone: BuddyZone,
        *,
        batch: int,
        high_min: int,
        high_max: int,
        flags: int = 0,
        batch_scale_max: int = 5,
    ) -> None:
        self.zone = zone
        self.batch = batch
        self.high_min = high_min
        self.high_max = high_max
        self.scale_max = batch_scale_max
        self.count = 0
        self.high = high_min
        self.alloc_factor = 0
        self.free_count = 0
        self.flags = flags
        self.drained: list[tuple[int, int]] = []
        self.lists: list[deque[int]] = [deque() for _ in range(NR_PCP_LISTS)]

    # -- public verbs, relative pfns ---------------------------------------------------------

    def alloc(self, order: int, mt: int, flags: int = 0) -> int:
        """One request; orders without a list go straight to the buddy level."""
        if order not in PCP_ORDERS:
            return self.zone.alloc(order, mt, flags)
        self.free_count >>= 1
        pages = self.lists[pcp_index(order, mt)]
        if not pages:
            self._refill(pages, order, mt, flags)
        if pages:
            pfn = pages.popleft()
            self.count -= 1 << order
        else:
            found, _ = self.zone.request(order, mt, flags, Mode.NORMAL)
            if found is None:
                return -1
            pfn = found
        self.zone.hold(pfn, order, mt)
        return pfn - self.zone.start

    def free(self, relative: int) -> None:
        """Free a held block by its relative pfn, to the head of the list of its label."""
        pfn, order, _ = self.zone.release(relative)
        if order not in PCP_ORDERS:
            self.zone.lists.free(pfn, order)
            return
        mt = self.zone.lists.label[self.zone.lists.pb_of(pfn)]
        if mt in (CMA, HIGHATOMIC):
            mt = MOVABLE
        index = pcp_index(order, mt)
        self.alloc_factor >>= 1
        self.lists[index].appendleft(pfn)
        self.count += 1 << order
        free_high = self._is_free_high(order)
        if self.free_count < self.batch << self.scale_max:
            self.free_count += 1 << order
        limit = self._limit(free_high)
        if self.count >= limit:
            self._drain_batches(self._nr_to_free(free_high, limit), index)

    def drain_all(self) -> None:
        """Give everything back to the buddy level."""
        while self.count > 0:
            self.drain(min(self.count, self.batch << self.scale_max), 0)

    def decay(self) -> None:
        """Lower `high` towards its minimum and give back what exceeds it."""
        if self.high > self.high_min:
            self.high = max(
                self.count - (self.batch << self.scale_max), self.high - (self.high >> 3), self.high_min
            )
        self._drain_batches(self.count - self.high, 0)

    # -- tuning ---------------------------------------------------------------------------------

    def _clamp(self, high: int) -> int:
        return min(max(high, self.high_min), self.high_max)

    def _refill(self, pages: deque[int], order: int, mt: int, flags: int) -> None:
        found = self.zone.bulk(order, mt, flags, self._nr_to_refill(order))
        pages.extend(found)
        self.count += len(found) << order

    def _nr_to_refill(self, order: int) -> int:
        """Blocks to fetch: a batch, doubled at each refill of order 0 that no free interrupts."""
        self.high = self._clamp(self.high)
        if self.high < self.batch:
            return 1
        nr = self.batch if order > 0 else self.batch << self.alloc_factor
        if self.high_min != self.high_max:
            self.high = min(self.high + nr, self.high_max)
        if order == 0:
            room = max(self.high - self.count - self.batch, self.batch)
            if nr <= room and self.alloc_factor < self.scale_max:
                self.alloc_factor += 1
            nr = min(nr, room)
        return max(nr >> order, 2) if nr > 1 else nr

    def _is_free_high(self, order: int) -> bool:
        """Whether a run of high-order frees should empty the lists."""
        if not 1 <= order <= 3:
            self.flags &= ~PREV_FREE_HIGH_ORDER
            return False
        free_high = (
            self.free_count >= self.batch + self.high_min // 2
            and bool(self.flags & PREV_FREE_HIGH_ORDER)
            and (not self.flags & FREE_HIGH_BATCH or self.count >= self.batch)
        )
        self.flags |= PREV_FREE_HIGH_ORDER
        return free_high

    def _limit(self, free_high: bool) -> int:
        """Page count from which on a free gives pages back."""
        self.high = self._clamp(self.high)
        if self.high == 0:
            return 0
        if free_high:
            self.high = max(self.high - (self.batch << self.scale_max), self.high_min)
            return 0
        limit = self.high
        if self.high_min != self.high_max and self.count >= limit and limit < self.free_count + self.batch:
            self.high = self._clamp(self.free_count + self.batch)
        return limit

    def _nr_to_free(self, free_high: bool, limit: int) -> int:
        if free_high:
            return min(self.count, self.batch << self.scale_max)
        if limit < self.batch:
            return 1
        return min(max(self.free_count, self.batch), limit - self.batch)

    # -- giving back --------------------------------------------------------------------------

    def _drain_batches(self, nr: int, index: int) -> None:
        while nr > 0 and self.count > 0:
            part = min(nr, self.batch)
            self.drain(part, index)
            nr -= part

    def drain(self, nr: int, index: int) -> None:
        """Free `nr` pages from list tails, round robin, beginning with list `index`."""
        nr = min(nr, self.count)
        index -= 1
        while nr > 0:
            index = (index + 1) % NR_PCP_LISTS
            while not self.lists[index]:
                index = (index + 1) % NR_PCP_LISTS
            order = pcp_order(index)
            while nr > 0 and self.lists[index]:
                pfn = self.lists[index].pop()
                self.drained.append((pfn - self.zone.start, order))
                self.zone.lists.free(pfn, order)
                nr -= 1 << order
                self.count -= 1 << order

    # -- what a test looks at -------------------------------------------------------------------

    def stat(self) -> tuple[int, int, int, int, int]:
        """Count, high, alloc_factor, free_count, flags."""
        return self.count, self.high, self.alloc_factor, self.free_count, self.flags

    def snapshot(self) -> dict[str, Any]:
        """The zone's snapshot with the lists, head to tail, and the scalars."""
        start = self.zone.start
        return {
            **self.zone.snapshot(),
            "pcp_lists": [[pfn - start for pfn in pages] for pages in self.lists],
            "pcp_stat": list(self.stat()),
        }
