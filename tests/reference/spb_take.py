"""Taking a block inside one superpageblock: own lists, whole and partial claims.

Owns what a single superpageblock can give to a request.  It never chooses the superpageblock; that is
the ladder's business in `spb.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.reference.spb_state import SpbState
from tests.reference.words import (
    BOOST,
    EVACUATE_CLAIMED,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
)

WHOLE, FRAGMENTS, BOTH = "whole", "fragments", "both"
CROSS_TYPE_NOT_FREE, INSUFFICIENT_COMPAT = 3, 4
OTHER_NONMOVABLE = {UNMOVABLE: RECLAIMABLE, RECLAIMABLE: UNMOVABLE}


class SpbTake(SpbState):
    """The zone's state with the ways to take a block from one superpageblock."""

    def own(self, spb: int, order: int, mt: int, part: str = BOTH) -> int | None:
        """Take from the type's own lists: a whole pageblock (order >= 9) or fragments.

        With both parts, whole pageblocks come first by default: an own one is broken before
        fragments of the same superpageblock are used.
        """
        whole = range(max(order, PB_ORDER), MAX_ORDER + 1)
        fragments = range(order, PB_ORDER)
        if part == WHOLE:
            orders = [*whole]
        elif part == FRAGMENTS:
            orders = [*fragments]
        elif self.policy.whole_pageblock_first:
            orders = [*whole, *fragments]
        else:
            orders = [*fragments, *whole]
        return self.take_first(spb, orders, order, mt)

    def take_first(self, spb: int, orders: Iterable[int], order: int, mt: int) -> int | None:
        """Take the head of the first list of this type, in the given orders, that has a block."""
        for c in orders:
            head = self.lists.head(spb, c, mt)
            if head is not None:
                return self.lists.take(head, order)
        return None

    def claim_whole(self, spb: int, order: int, mt: int) -> int | None:
        """Claim the head of the movable lists of order 9 and 10: one or two pageblocks relabelled."""
        for c in range(max(order, PB_ORDER), MAX_ORDER + 1):
            head = self.lists.head(spb, c, MOVABLE)
            if head is not None:
                return self.lists.claim_whole(head, order, mt)
        return None

    def claim_partial(self, spb: int, block: int, order: int, mt: int) -> int | None:
        """Relabel the pageblock of a free block of order < 9, or refuse.

        Refused: an unmovable pageblock for a reclaimable request and the reverse, if they are kept
        apart (optionally also by content); less than half free or alike, unless the request is not
        movable, the superpageblock is tainted and the half is not asked for there. The attempt alone
        asks for higher watermarks, if they are boosted at all.
        """
        policy = self.policy
        if policy.watermark_boost:
            self.request(BOOST)
            self.event.n_boosts += 1
        pb = self.lists.pb_of(block)
        label = self.lists.label[pb]
        if mt != MOVABLE and policy.separate_nonmovable:
            stale = policy.separate_by_content and self.has[pb][OTHER_NONMOVABLE[mt]]
            if label != MOVABLE or stale:
                self.record("spb_claim_block_refused", block, mt, label, CROSS_TYPE_NOT_FREE)
                return None
        half_waived = mt != MOVABLE and self.category(spb) == TAINTED and not policy.tainted_claim_needs_half
        if not half_waived and not self._is_half_alike(pb, label, mt):
            self.record("spb_claim_block_refused", block, mt, label, INSUFFICIENT_COMPAT)
            return None
        whole = self.give_up(pb)
        if whole is not None:
            return self.lists.claim_whole(whole, order, mt)
        self.lists.relabel_partial(pb, mt)
        if policy.claim_evacuation and mt != MOVABLE and label == MOVABLE and self.used[pb][MOVABLE]:
            self.request(EVACUATE_CLAIMED)
            self.event.claimed.append(pb)
        return self.take_first(spb, range(order, MAX_ORDER + 1), order, mt)

    def give_up(self, pb: int) -> int | None:
        """A pageblock is about to be relabelled or emptied; the whole free block it has become, if so.

        Nothing to do where CPUs own no pageblocks.
        """
        return None

    def _is_half_alike(self, pb: int, label: int, mt: int) -> bool:
        free = sum(1 << order for _, order in self.lists.free_blocks_in(pb))
        movable = self.used[pb][MOVABLE]
        if mt == MOVABLE:
            alike = movable
        else:
            alike = PB_PAGES - free - movable if label == MOVABLE else 0
        return free + alike >= PB_PAGES // 2
