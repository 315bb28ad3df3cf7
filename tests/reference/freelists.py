"""Ordered free lists, pageblock labels, split and merge: the ground both twins stand on.

Owns the free blocks of one zone and the rules of the buddy system.  The mainline twin has one set of
lists, the superpageblock twin one set for each superpageblock.  All pfns are absolute, but for
`relative` and `snapshot`.
"""

from __future__ import annotations

from collections import OrderedDict

from tests.reference.words import CMA, HIGHATOMIC, MAX_ORDER, MOVABLE, PB_ORDER, PB_PAGES

NEVER_MERGED_ACROSS = (HIGHATOMIC, CMA)


class FreeLists:
    """Ordered free lists per (superpageblock, order, migratetype), labels, split and merge.

    A free block of order < 10 sits on the list of its pageblock's label; an order-10 block covers
    two pageblocks, which then have the same label.
    """

    def __init__(self, start: int, pages: int, spb_pages: int | None = None) -> None:
        self.start = start
        self.end = start + pages
        self.spb_pages = spb_pages or pages
        self.first_pb = start >> PB_ORDER
        self.label = [MOVABLE] * (((self.end - 1) >> PB_ORDER) - self.first_pb + 1)
        self.block: dict[int, tuple[int, int]] = {}
        self.lists: dict[tuple[int, int, int], OrderedDict[int, None]] = {}
        nr_spb = -(-pages // self.spb_pages)
        self.nr_free_pages = [0] * nr_spb
        self.nr_free_pb = [0] * nr_spb

    def spb_of(self, pfn: int) -> int:
        return (pfn - self.start) // self.spb_pages

    def pb_of(self, pfn: int) -> int:
        """Index of a page's pageblock; 0 is the one that contains the zone start."""
        return (pfn >> PB_ORDER) - self.first_pb

    def pbs_of(self, pfn: int, order: int) -> range:
        """All pageblocks that a block touches: one, or two for order 10."""
        return range(self.pb_of(pfn), self.pb_of(pfn + (1 << order) - 1) + 1)

    def pb_start(self, pb: int) -> int:
        return (pb + self.first_pb) << PB_ORDER

    def is_whole(self, pb: int) -> bool:
        """Whether the pageblock lies wholly within the zone."""
        first = self.pb_start(pb)
        return self.start <= first and first + PB_PAGES <= self.end

    def add(self, pfn: int, order: int, mt: int, *, tail: bool = False) -> None:
        spb = self.spb_of(pfn)
        area = self.lists.setdefault((spb, order, mt), OrderedDict())
        area[pfn] = None
        if not tail:
            area.move_to_end(pfn, last=False)
        self.block[pfn] = (order, mt)
        self._count(spb, order, 1)

    def unlink(self, pfn: int) -> tuple[int, int]:
        """Take a free block off its list; returns its order and the list's type."""
        order, mt = self.block.pop(pfn)
        spb = self.spb_of(pfn)
        del self.lists[spb, order, mt][pfn]
        self._count(spb, order, -1)
        return order, mt

    def _count(self, spb: int, order: int, sign: int) -> None:
        self.nr_free_pages[spb] += sign << order
        if order >= PB_ORDER:
            self.nr_free_pb[spb] += sign << (order - PB_ORDER)

    def head(self, spb: int, order: int, mt: int) -> int | None:
        area = self.lists.get((spb, order, mt))
        return next(iter(area)) if area else None

    def free_piece(self, pfn: int, order: int, *, to_tail: bool = False) -> int:
        """Free one piece of order <= 9 under its pageblock's label; returns the order it merged to.

        Merging: the buddy must head a free block of exactly this order.  From order 9 on the buddy
        is another pageblock: no merge across HIGHATOMIC or CMA, else the buddy's pageblock takes
        the label of the block being freed.  The result goes to the tail if asked to, or if its
        parent is likely to merge soon, else to the head.
        """
        mt = self.label[self.pb_of(pfn)]
        while order < MAX_ORDER:
            buddy = pfn ^ (1 << order)
            if self.block.get(buddy, (None,))[0] != order:
                break
            if order >= PB_ORDER:
                buddy_mt = self.label[self.pb_of(buddy)]
                if buddy_mt != mt and (buddy_mt in NEVER_MERGED_ACROSS or mt in NEVER_MERGED_ACROSS):
                    break
            self.unlink(buddy)
            if order >= PB_ORDER:
                self.label[self.pb_of(buddy)] = mt
            pfn = min(pfn, buddy)
            order += 1
        self.add(pfn, order, mt, tail=to_tail or self.is_merge_likely(pfn, order))
        return order

    def is_merge_likely(self, pfn: int, order: int) -> bool:
        """Whether the buddy of the would-be parent is free, so that the parent may merge on."""
        if order > MAX_ORDER - 2:
            return False
        parent = pfn & ~(1 << order)
        parent_buddy = parent ^ (1 << (order + 1))
        is_free = self.block.get(parent_buddy, (None,))[0] == order + 1
        return is_free and self.start <= parent < self.end

    def free(self, pfn: int, order: int, *, to_tail: bool = False) -> None:
        """Free a block; order 10 as two order-9 pieces, low one first."""
        for piece, piece_order in pieces(pfn, order):
            self.free_piece(piece, piece_order, to_tail=to_tail)

    def hand_out(self, pfn: int, order: int, wanted: int, mt: int) -> int:
        """Split an unlinked block: keep the lowest 2**wanted pages, upper halves to the list heads."""
        for half in range(order - 1, wanted - 1, -1):
            self.add(pfn + (1 << half), half, mt)
        return pfn

    def take(self, pfn: int, wanted: int) -> int:
        """Take a free block under the type of its own list; the remainder stays on that type."""
        order, mt = self.unlink(pfn)
        return self.hand_out(pfn, order, wanted, mt)

    def claim_whole(self, pfn: int, wanted: int, mt: int) -> int:
        """Turn the one or two whole pageblocks of a free block of order >= 9 into type `mt`."""
        order, _ = self.unlink(pfn)
        for pb in self.pbs_of(pfn, order):
            self.label[pb] = mt
        return self.hand_out(pfn, order, wanted, mt)

    def free_blocks_in(self, pb: int) -> list[tuple[int, int]]:
        """Free blocks (pfn, order) of order < 9 in a pageblock, ascending."""
        found = []
        pfn = max(self.pb_start(pb), self.start)
        end = min(self.pb_start(pb) + PB_PAGES, self.end)
        while pfn < end:
            if pfn in self.block:
                order = self.block[pfn][0]
                found.append((pfn, order))
                pfn += 1 << order
            else:
                pfn += 1
        return found

    def relabel_partial(self, pb: int, mt: int) -> None:
        """Move a pageblock's free blocks, ascending, to the list tails of `mt`, and label it so."""
        for pfn, order in self.free_blocks_in(pb):
            self.unlink(pfn)
            self.add(pfn, order, mt, tail=True)
        self.label[pb] = mt

    def relative(self, spb: int, order: int, mt: int) -> list[int]:
        """One list, head to tail, as pfns relative to the zone start."""
        return [pfn - self.start for pfn in self.lists.get((spb, order, mt), ())]

    def snapshot(self) -> dict[tuple[int, int, int], list[int]]:
        """Every list that is not empty, head to tail, in relative pfns."""
        return {key: self.relative(*key) for key in sorted(self.lists) if self.lists[key]}


def pieces(pfn: int, order: int) -> list[tuple[int, int]]:
    """The pieces in which a block is freed: two order-9 pieces for order 10, else itself."""
    if order < MAX_ORDER:
        return [(pfn, order)]
    return [(pfn, PB_ORDER), (pfn + PB_PAGES, PB_ORDER)]
