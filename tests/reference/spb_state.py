"""What a superpageblock zone is: pageblock content, categories, buckets and lists.

Owns the state of the superpageblock layer and the rules that keep it true (`set_content`,
`free_block`, `update`).  It never chooses where memory comes from: the ladder is in `spb.py`, the
workers are in `spb_workers.py`.  All pfns are relative to the zone start.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from tests.reference.freelists import FreeLists, pieces
from tests.reference.policy import Policy
from tests.reference.words import (
    CLEAN,
    DEFRAG_LIST_CHANGE,
    EMPTY,
    FAILED,
    ISOLATED,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
)

NR_BUCKETS = 5
TYPES = (UNMOVABLE, MOVABLE, RECLAIMABLE)


@dataclass
class Block:
    """An allocation that somebody holds.  A whole grabbed superpageblock has `spb` set."""

    handle: int
    pfn: int
    order: int
    mt: int
    spb: int | None = None


@dataclass
class Event:
    """What one operation did; the fields are the columns of the golden files."""

    pfn: int = -2
    outcome: int = FAILED
    visited: int = 0
    visited_fallback: int = 0
    requests: int = 0
    defrag_spbs: set[int] = field(default_factory=set)
    moved: int = 0
    n_same_type: int = 0
    n_pageblocks: int = 0
    n_boosts: int = 0
    moves: list[tuple[int, int, int]] = field(default_factory=list)
    claimed: list[int] = field(default_factory=list)

    @property
    def n_defrag(self) -> int:
        """Different superpageblocks for which any defrag request was raised."""
        return len(self.defrag_spbs)


class SpbState:
    """Pages, pageblocks and superpageblocks of one zone, without any choice of where to allocate."""

    def __init__(
        self,
        n_pageblocks: int,
        pageblocks_per_spb: int,
        policy: Policy,
        *,
        pin_modulus: int = 0,
        pin_remainder: int = 0,
    ) -> None:
        self.policy = policy
        self.per_spb = pageblocks_per_spb
        self.n_pb = n_pageblocks
        self.n_spb = -(-n_pageblocks // pageblocks_per_spb)
        self.pin_modulus = pin_modulus
        self.pin_remainder = pin_remainder
        self.lists = FreeLists(0, n_pageblocks * PB_PAGES, pageblocks_per_spb * PB_PAGES)
        self.used = [[0, 0, 0] for _ in range(n_pageblocks)]
        self.has = [[False] * 3 for _ in range(n_pageblocks)]
        self.content = [[0, 0, 0] for _ in range(self.n_spb)]
        self.isolated = [False] * self.n_spb
        self.reserved: set[int] = set()
        self.blocks: dict[int, Block] = {}
        self.heads: list[set[int]] = [set() for _ in range(n_pageblocks)]
        self.hint: dict[tuple[int, int], int] = {}
        self.event = Event()
        self.records: list[tuple[str, *tuple[int, ...]]] = []
        for pfn in range(0, n_pageblocks * PB_PAGES, 1 << MAX_ORDER):
            self.lists.add(pfn, MAX_ORDER, MOVABLE, tail=True)
        self.place = [(EMPTY, 0)] * self.n_spb
        self.spb_lists: dict[tuple[int, int], OrderedDict[int, None]] = {
            (category, bucket): OrderedDict()
            for category in (EMPTY, CLEAN, TAINTED, ISOLATED)
            for bucket in range(NR_BUCKETS if category in (CLEAN, TAINTED) else 1)
        }
        self.spb_lists[EMPTY, 0].update(dict.fromkeys(range(self.n_spb)))

    # -- facts about one superpageblock ------------------------------------------------------

    def pbs_in(self, spb: int) -> range:
        """Pageblocks of a superpageblock; the last one of the zone may be short."""
        return range(spb * self.per_spb, min((spb + 1) * self.per_spb, self.n_pb))

    def total(self, spb: int) -> int:
        return len(self.pbs_in(spb))

    def is_full_length(self, spb: int) -> bool:
        return self.total(spb) == self.per_spb

    def free_pb(self, spb: int) -> int:
        """Pageblocks covered by free blocks of order >= 9."""
        return self.lists.nr_free_pb[spb]

    def free_pages(self, spb: int) -> int:
        return self.lists.nr_free_pages[spb]

    def category(self, spb: int) -> int:
        """The category of the list the superpageblock is on."""
        return self.place[spb][0]

    def reserve(self, spb: int) -> int:
        """Free pageblocks that movable requests must leave in a tainted superpageblock."""
        policy = self.policy
        if policy.reserve_shift < 0:
            return policy.reserve_floor
        return max(policy.reserve_floor, self.total(spb) >> policy.reserve_shift)

    def needs_defrag(self, spb: int) -> bool:
        """Tainted, with movable content, and short of free pageblocks (or pages)."""
        if self.category(spb) != TAINTED or not self.content[spb][MOVABLE]:
            return False
        if self.policy.defrag_start_at_reserve:
            return self.free_pb(spb) < self.reserve(spb)
        return self.free_pb(spb) <= 1 or self.free_pages(spb) < 2 * PB_PAGES

    def walk(self, category: int) -> list[int]:
        """Superpageblocks of a category as they stand now, fullest bucket first, head to tail."""
        return [
            spb
            for (kind, _), members in sorted(self.spb_lists.items())
            if kind == category
            for spb in members
        ]

    def choose(self, category: int, order: int, *types: int) -> list[int]:
        """What a search for a block of at least `order` of these types looks at, in its order.

        A walk steps on every superpageblock of the category. Bitmaps name, by address, only those that
        have such a block.
        """
        if not self.policy.choose_by_bitmap:
            return self.walk(category)
        return [
            spb
            for spb in range(self.n_spb)
            if self.category(spb) == category
            and any(
                self.lists.head(spb, c, mt) is not None for mt in types for c in range(order, MAX_ORDER + 1)
            )
        ]

    # -- category, bucket, lists -----------------------------------------------------------------

    def _true_place(self, spb: int) -> tuple[int, int]:
        free, total = self.free_pb(spb), self.total(spb)
        if self.isolated[spb]:
            return ISOLATED, 0
        reserved = not self.reserved.isdisjoint(self.pbs_in(spb))
        if free == total and not reserved:
            return EMPTY, 0
        content = self.content[spb]
        tainted = content[UNMOVABLE] + content[RECLAIMABLE] > 0 or reserved
        return (TAINTED if tainted else CLEAN), bucket_of(free, total)

    def update(self, spb: int) -> None:
        """Bring category and bucket up to date, once after each complete elementary step.

        A change moves the superpageblock to the tail of its new list.  On the way to EMPTY its
        labels go back to MOVABLE; a move into a tainted list may ask for defragmentation.
        """
        old, new = self.place[spb], self._true_place(spb)
        if new == old:
            return
        if new[0] == EMPTY and self.policy.relabel_on_empty:
            self._relabel_empty(spb)
        del self.spb_lists[old][spb]
        self.spb_lists[new][spb] = None
        self.place[spb] = new
        if new[0] == TAINTED and self.policy.defrag and self.needs_defrag(spb):
            self.request_defrag(spb, DEFRAG_LIST_CHANGE)

    def _relabel_empty(self, spb: int) -> None:
        """Free blocks with a label other than MOVABLE go, ascending, to the movable list tails."""
        first = spb * self.lists.spb_pages
        last = first + self.total(spb) * PB_PAGES
        for pfn in sorted(pfn for pfn in self.lists.block if first <= pfn < last):
            if self.lists.label[self.lists.pb_of(pfn)] == MOVABLE:
                continue
            order, _ = self.lists.unlink(pfn)
            for pb in self.lists.pbs_of(pfn, order):
                self.lists.label[pb] = MOVABLE
            self.lists.add(pfn, order, MOVABLE, tail=True)

    def request(self, bit: int) -> None:
        """Record a request to a worker; nothing is executed because of it."""
        self.event.requests |= bit

    def request_defrag(self, spb: int, bit: int) -> None:
        self.event.requests |= bit
        self.event.defrag_spbs.add(spb)

    def record(self, kind: str, *fields: int) -> None:
        """An event as the tracepoints tell it: its kind and the fields that the kernel gives them."""
        self.records.append((kind, *fields))

    # -- content and use ---------------------------------------------------------------------------

    def set_content(self, pb: int, mt: int, value: bool) -> None:
        if self.has[pb][mt] != value:
            self.has[pb][mt] = value
            content = self.content[pb // self.per_spb]
            content[mt] += 1 if value else -1
            self.record("spb_pb_taint", pb * PB_PAGES, mt, int(value), int(content[mt] == int(value)))

    def hold_block(self, block: Block) -> None:
        """A block was handed out: note its holder, its used pages and its content bits."""
        self.blocks[block.pfn] = block
        pbs = self.lists.pbs_of(block.pfn, block.order)
        self.heads[pbs[0]].add(block.pfn)
        for pb in pbs:
            self.used[pb][block.mt] += min(1 << block.order, PB_PAGES)
            self.set_content(pb, block.mt, True)

    def free_block(self, pfn: int) -> None:
        """Free a held block under the current labels, then update its superpageblock.

        A pageblock that becomes wholly free loses all content bits; without `sticky_content` a bit
        goes as soon as nothing of its type is left.
        """
        block = self.blocks.pop(pfn)
        self.heads[self.lists.pb_of(pfn)].remove(pfn)
        for pb in self.lists.pbs_of(pfn, block.order):
            self.used[pb][block.mt] -= min(1 << block.order, PB_PAGES)
            if not self.policy.sticky_content and not self.used[pb][block.mt]:
                self.set_content(pb, block.mt, False)
        for piece, order in pieces(pfn, block.order):
            self.free_to_lists(piece, order)
        self.update(self.lists.spb_of(pfn))

    def free_to_lists(self, pfn: int, order: int) -> None:
        """Free one piece under the current label; a pageblock that becomes wholly free is told so."""
        if self.lists.free_piece(pfn, order) >= PB_ORDER:
            self.became_free(self.lists.pb_of(pfn))

    def became_free(self, pb: int) -> None:
        """A pageblock is wholly free: nothing of any type lives in it."""
        for mt in TYPES:
            self.set_content(pb, mt, False)

    # -- what a test looks at -------------------------------------------------------------------

    def position(self, spb: int) -> int:
        """Place of a superpageblock in its list, 0 for the head."""
        return list(self.spb_lists[self.place[spb]]).index(spb)

    def bits(self, pb: int) -> int:
        """Content bits of a pageblock: unmovable 1, movable 2, reclaimable 4; 8 if it is reserved."""
        return sum(1 << mt for mt in TYPES if self.has[pb][mt]) + 8 * (pb in self.reserved)

    def snapshot(self) -> dict[str, Any]:
        """Plain data: lists head to tail, labels, content bits, use, places, hint."""
        return {
            "free": self.lists.snapshot(),
            "label": list(self.lists.label),
            "content": [self.bits(pb) for pb in range(self.n_pb)],
            "used": [list(row) for row in self.used],
            "category": [category for category, _ in self.place],
            "bucket": [bucket for _, bucket in self.place],
            "spb_lists": {place: list(spbs) for place, spbs in sorted(self.spb_lists.items()) if spbs},
            "free_pb": list(self.lists.nr_free_pb),
            "free_pages": list(self.lists.nr_free_pages),
            "hint": dict(sorted(self.hint.items())),
        }


def bucket_of(free: int, total: int) -> int:
    """Fullness bucket: 0 without a free pageblock, then quarters of the superpageblock."""
    if free == 0:
        return 0
    for bucket, quarters in ((1, 1), (2, 2), (3, 3)):
        if 4 * free <= quarters * total:
            return bucket
    return 4
