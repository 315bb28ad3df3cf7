"""The mainline page allocator of one zone at the buddy level, slow and obvious.

Owns boot, the request ladder of mainline and who holds which pages.  Inside it pfns are absolute;
only `snapshot`, the log and the public verbs speak pfns relative to the zone start.  Free lists are
in `freelists.py`, per-CPU lists in `pcp.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.reference.freelists import FreeLists
from tests.reference.highatomic import join_reserve, leave_reserve, take_smallest_reserved
from tests.reference.words import (
    CMA,
    FALLBACKS,
    FLAG_CMA,
    FLAG_HIGHATOMIC,
    FLAG_NOFRAGMENT,
    FLAG_NON_BLOCK,
    HALF_PB_ORDER,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
)


class Mode(Enum):
    """What a bulk call carries from one request to the next."""

    NORMAL = "normal"
    CMA = "cma"
    STEAL = "steal"


@dataclass(frozen=True)
class ExtFrag:
    """One fallback event: what was asked for, what was found, and whether the label followed."""

    pfn: int
    alloc_order: int
    fallback_order: int
    alloc_mt: int
    fallback_mt: int
    change_ownership: int
    fragmenting: int


class BuddyZone:
    """One zone of the mainline allocator without per-CPU lists."""

    def __init__(
        self,
        zone_pages: int,
        zone_start_pfn: int = 0,
        *,
        nr_types: int = 4,
        cma: tuple[int, int] | None = None,
        has_reserve: bool = False,
    ) -> None:
        self.start = zone_start_pfn
        self.has_reserve = has_reserve
        self.nr_types = nr_types
        self.lists = FreeLists(zone_start_pfn, zone_pages)
        self.live: dict[int, tuple[int, int]] = {}
        self.used = [[0, 0, 0] for _ in self.lists.label]
        self.log: list[ExtFrag] = []
        self._boot(cma)

    def _boot(self, cma: tuple[int, int] | None) -> None:
        """Release all memory ascending, to the tails; CMA pageblocks last, one by one, to the head.

        `cma` is (first, count) in pageblocks, counted from the first one wholly in the zone.
        """
        end = self.lists.end
        if cma is None:
            self._release(self.start, end)
            return
        first_whole = -(-self.start // PB_PAGES) * PB_PAGES
        cma_start = first_whole + cma[0] * PB_PAGES
        cma_end = cma_start + cma[1] * PB_PAGES
        self._release(self.start, cma_start)
        self._release(cma_end, end)
        for pfn in range(cma_start, cma_end, PB_PAGES):
            self.lists.label[self.lists.pb_of(pfn)] = CMA
            self.lists.free(pfn, PB_ORDER)

    def _release(self, pfn: int, end: int) -> None:
        while pfn < end:
            order = MAX_ORDER
            while pfn % (1 << order) or pfn + (1 << order) > end:
                order -= 1
            self.lists.free(pfn, order, to_tail=True)
            pfn += 1 << order

    # -- public verbs, relative pfns ---------------------------------------------------------

    def alloc(self, order: int, mt: int, flags: int = 0) -> int:
        """One request on its own; returns the relative pfn or -1.

        With a reserve, who may reserve takes from it first and reserves what it got elsewhere; all who
        cannot block take from it last.
        """
        may_reserve = self.has_reserve and bool(flags & FLAG_HIGHATOMIC)
        may_take = may_reserve or (self.has_reserve and bool(flags & FLAG_NON_BLOCK))
        pfn = take_smallest_reserved(self.lists, order) if may_reserve else None
        if pfn is None:
            pfn, _ = self.request(order, mt, flags, Mode.NORMAL)
        if pfn is None and may_take:
            pfn = take_smallest_reserved(self.lists, order)
        if pfn is None:
            return -1
        if may_reserve:
            join_reserve(self.lists, pfn, order)
        self.hold(pfn, order, mt)
        return pfn - self.start

    def unreserve(self, mt: int, *, force: bool) -> bool:
        """Give one pageblock of the reserve back as type `mt`."""
        return bool(leave_reserve(self.lists, [0], mt, force=force))

    def alloc_bulk(self, order: int, mt: int, flags: int, count: int) -> list[int]:
        """One bulk call of `count` rows; relative pfns, -1 from the first failure on."""
        found = self.bulk(order, mt, flags, count)
        for pfn in found:
            self.hold(pfn, order, mt)
        return [pfn - self.start for pfn in found] + [-1] * (count - len(found))

    def free(self, pfn: int) -> None:
        """Free a held block by its relative pfn."""
        pfn, order, _ = self.release(pfn)
        self.lists.free(pfn, order)

    # -- holders --------------------------------------------------------------------------------

    def hold(self, pfn: int, order: int, mt: int) -> None:
        """The block now belongs to the caller; from here on its movable pages count as LRU."""
        self.live[pfn - self.start] = (order, mt)
        self._use(pfn, order, mt, 1)

    def release(self, relative: int) -> tuple[int, int, int]:
        """The caller gives the block back; it isn't free yet.  Returns (absolute pfn, order, type)."""
        order, mt = self.live.pop(relative)
        self._use(relative + self.start, order, mt, -1)
        return relative + self.start, order, mt

    def _use(self, pfn: int, order: int, mt: int, sign: int) -> None:
        pbs = self.lists.pbs_of(pfn, order)
        for pb in pbs:
            self.used[pb][mt] += sign * (1 << order) // len(pbs)

    # -- the request ladder, absolute pfns ----------------------------------------------------

    def bulk(self, order: int, mt: int, flags: int, count: int) -> list[int]:
        """Requests that share one mode; the first failure ends the call."""
        mode = Mode.NORMAL
        found: list[int] = []
        for _ in range(count):
            pfn, mode = self.request(order, mt, flags, mode)
            if pfn is None:
                break
            found.append(pfn)
        return found

    def request(self, order: int, mt: int, flags: int, mode: Mode) -> tuple[int | None, Mode]:
        """One request: balance CMA, smallest, CMA, claim, steal; returns the page and the new mode.

        A claim resets the mode to NORMAL; after a steal all that follows in the bulk call steals.
        """
        may_use_cma = self.nr_types > CMA and bool(flags & FLAG_CMA)
        if may_use_cma and self.nr_free_cma() > self.lists.nr_free_pages[0] // 2:
            pfn = self.smallest(order, CMA)
            if pfn is not None:
                return pfn, mode
        if mode is Mode.NORMAL:
            pfn = self.smallest(order, mt)
            if pfn is not None:
                return pfn, mode
        if mode is not Mode.STEAL and may_use_cma:
            pfn = self.smallest(order, CMA)
            if pfn is not None:
                return pfn, Mode.CMA
        if mode is not Mode.STEAL:
            pfn = self.claim(order, mt, flags)
            if pfn is not None:
                return pfn, Mode.NORMAL
        if not flags & FLAG_NOFRAGMENT:
            pfn = self.steal(order, mt)
            if pfn is not None:
                return pfn, Mode.STEAL
        return None, mode

    def smallest(self, order: int, mt: int) -> int | None:
        """Head of the first list of this type that has a block large enough; no label changes."""
        for c in range(order, MAX_ORDER + 1):
            head = self.lists.head(0, c, mt)
            if head is not None:
                return self.lists.take(head, order)
        return None

    def candidate(self, order: int, mt: int) -> tuple[int, int] | None:
        """Head block and type of the first fallback type with a block of exactly this order."""
        for fallback in FALLBACKS[mt]:
            head = self.lists.head(0, order, fallback)
            if head is not None:
                return head, fallback
        return None

    def claim_candidate(self, order: int, mt: int) -> tuple[int, int] | None:
        """The block that a claim tries at this order."""
        return self.candidate(order, mt)

    def claim(self, order: int, mt: int, flags: int) -> int | None:
        """Turn a whole foreign pageblock into type `mt`, largest blocks first.

        Only one block is tried at each order.  A movable request gives up below half the pageblock
        *order*; NOFRAGMENT keeps small requests at whole pageblocks.
        """
        lowest = PB_ORDER if flags & FLAG_NOFRAGMENT and order < PB_ORDER else order
        for c in range(MAX_ORDER, lowest - 1, -1):
            if mt == MOVABLE and c < HALF_PB_ORDER:
                return None
            found = self.claim_candidate(c, mt)
            if found is None:
                continue
            block, fallback = found
            if c >= PB_ORDER:
                pfn = self.lists.claim_whole(block, order, mt)
                return self._log(pfn, order, c, mt, fallback)
            if self.claim_partial(block, mt, fallback):
                result = self.smallest(order, mt)
                assert result is not None
                return self._log(result, order, c, mt, fallback)
        return None

    def claim_partial(self, block: int, mt: int, fallback: int) -> bool:
        """Relabel the block's pageblock if at least half of it is free or of a like kind."""
        pb = self.lists.pb_of(block)
        if not self.lists.is_whole(pb):
            return False
        free = sum(1 << order for _, order in self.lists.free_blocks_in(pb))
        if free + self._alike(pb, free, mt, fallback) < PB_PAGES // 2:
            return False
        self.lists.relabel_partial(pb, mt)
        return True

    def _alike(self, pb: int, free: int, mt: int, fallback: int) -> int:
        movable = self.used[pb][MOVABLE]
        if mt == MOVABLE:
            return movable
        return PB_PAGES - free - movable if fallback == MOVABLE else 0

    def steal(self, order: int, mt: int) -> int | None:
        """Take one foreign block, the smallest that fits; no label changes."""
        for c in range(order, MAX_ORDER + 1):
            found = self.candidate(c, mt)
            if found is not None:
                pfn = self.lists.take(found[0], order)
                return self._log(pfn, order, c, mt, found[1])
        return None

    def _log(self, pfn: int, order: int, found_order: int, mt: int, fallback: int) -> int:
        owned = self.lists.label[self.lists.pb_of(pfn)] == mt
        record = ExtFrag(
            pfn - self.start, order, found_order, mt, fallback, int(owned), int(found_order < PB_ORDER)
        )
        self.log.append(record)
        return pfn

    # -- what a test looks at -------------------------------------------------------------------

    def nr_free_cma(self) -> int:
        return self.nr_free(range(MAX_ORDER + 1), CMA)

    def nr_free(self, orders: Iterable[int], mt: int) -> int:
        """Free pages of one type in blocks of the given orders."""
        return sum(len(self.lists.lists.get((0, order, mt), ())) << order for order in orders)

    def snapshot(self) -> dict[str, Any]:
        """Lists head to tail, labels and used pages per pageblock and requested type."""
        return {
            "free": self.lists.snapshot(),
            "label": list(self.lists.label),
            "used": [list(row) for row in self.used],
        }
