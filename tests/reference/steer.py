"""The mainline twin with claims steered to tainted memory (v1 12): one set of lists, but contents are known.

Owns which groups of pageblocks are tainted and the choice of the block that a claim starts from; all else is
`buddy.py`.
"""

from __future__ import annotations

from tests.reference.buddy import BuddyZone
from tests.reference.words import FALLBACKS, MOVABLE, PB_ORDER, PB_PAGES

SCAN_LIMIT = 8


class SteeredBuddyZone(BuddyZone):
    """A mainline zone whose pageblocks form superpageblocks that are tainted or not."""

    def __init__(self, zone_pages: int, zone_start_pfn: int, per_spb: int) -> None:
        self.per_spb = per_spb
        self.nonmovable: set[int] = set()  # pageblocks with such content, now or since they were last free
        super().__init__(zone_pages, zone_start_pfn)

    def spb_of(self, pfn: int) -> int:
        """Superpageblocks are aligned, wherever the zone begins."""
        return pfn // (self.per_spb * PB_PAGES)

    def is_tainted(self, pfn: int) -> bool:
        """Whether a pageblock of the page's superpageblock has unmovable or reclaimable content."""
        return any(self.spb_of(self.lists.pb_start(pb)) == self.spb_of(pfn) for pb in self.nonmovable)

    def claim_candidate(self, order: int, mt: int) -> tuple[int, int] | None:
        """Of the first fallback type with such a block: the first of 8 in tainted memory, else the head.

        Movable requests are not steered.
        """
        found = self.candidate(order, mt)
        if found is None or mt == MOVABLE:
            return found
        fallback = next(t for t in FALLBACKS[mt] if t == found[1])
        for pfn in list(self.lists.lists[0, order, fallback])[:SCAN_LIMIT]:
            if self.is_tainted(pfn):
                return pfn, fallback
        return found

    def hold(self, pfn: int, order: int, mt: int) -> None:
        """As in mainline; the pageblocks' content is noted."""
        super().hold(pfn, order, mt)
        if mt != MOVABLE:
            self.nonmovable.update(self.lists.pbs_of(pfn, order))

    def free(self, pfn: int) -> None:
        """As in mainline; content is forgotten when the pageblock is wholly free."""
        order, _ = self.live[pfn]
        super().free(pfn)
        for pb in self.lists.pbs_of(pfn + self.start, order):
            if self.is_wholly_free(self.lists.pb_start(pb)):
                self.nonmovable.discard(pb)

    def is_wholly_free(self, first: int) -> bool:
        """Whether a free block of at least a pageblock's order covers the pageblock that begins there."""
        orders = {
            pfn: self.lists.block[pfn][0] for pfn in (first, first & ~PB_PAGES) if pfn in self.lists.block
        }
        return orders.get(first, 0) >= PB_ORDER or orders.get(first & ~PB_PAGES, 0) > PB_ORDER
