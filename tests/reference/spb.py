"""The allocation ladder of a superpageblock zone, slow and obvious.

Owns the choice of where memory comes from: `smallest` with its named attempts, then `claim` and
`steal`.  What one superpageblock can give is in `spb_take.py`, state and its upkeep in
`spb_state.py`, evacuation, defragmentation and contiguous grabs in `spb_workers.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.reference.highatomic import join_reserve, leave_reserve
from tests.reference.spb_state import Block, Event
from tests.reference.spb_take import BOTH, FRAGMENTS, OTHER_NONMOVABLE, WHOLE, SpbTake
from tests.reference.words import (
    BORROW_MOVABLE,
    BORROW_NONMOVABLE,
    CLAIM_FALLBACK,
    CLAIM_PARTIAL_PAGEBLOCK,
    CLAIM_WHOLE_PAGEBLOCK,
    CLEAN,
    DEFRAG_BEFORE_EMPTY,
    DEFRAG_HIGH_WATER,
    EMPTY,
    EVACUATE_CLAIM,
    EVACUATE_FALLTHROUGH,
    FALLBACKS,
    FLAG_HIGHATOMIC,
    FLAG_NOFRAGMENT,
    FLAG_NON_BLOCK,
    FLAG_OPTIONAL,
    FLAG_TAINTED_OK,
    HALF_PB_ORDER,
    HIGHATOMIC,
    MAX_ORDER,
    MOVABLE,
    MOVABLE_INTO_TAINTED,
    PB_ORDER,
    PB_PAGES,
    REFUSED_OPTIONAL,
    SHRINK_CLAIM,
    SHRINK_FALLTHROUGH,
    SHRINK_HIGH_WATER,
    STEAL_FALLBACK,
    TAINTED,
    TAKE_EMPTY_SUPERPAGEBLOCK,
    TAKE_HIGHATOMIC,
    TAKE_PREFERRED,
)

NEAR_TAINTED = (
    TAKE_PREFERRED,
    CLAIM_WHOLE_PAGEBLOCK,
    CLAIM_PARTIAL_PAGEBLOCK,
    BORROW_NONMOVABLE,
    BORROW_MOVABLE,
)


@dataclass
class Request:
    """One request on its way down the ladder, with what it saw while walking tainted memory."""

    order: int
    mt: int
    flags: int
    saw_pages: bool = False
    saw_free_pb: bool = False
    saw_below: bool = False

    @property
    def nofragment(self) -> bool:
        return bool(self.flags & FLAG_NOFRAGMENT)

    @property
    def tainted_ok(self) -> bool:
        return bool(self.flags & FLAG_TAINTED_OK)

    @property
    def optional(self) -> bool:
        return bool(self.flags & FLAG_OPTIONAL)


class SpbAllocator(SpbTake):
    """Allocation and freeing in a zone that groups pageblocks into superpageblocks."""

    # -- public verbs ---------------------------------------------------------------------------

    def alloc(self, handle: int, order: int, mt: int, flags: int = 0) -> Event:
        """One request; the event tells the page (or -1), the outcome and what was asked of workers."""
        self.event = Event(pfn=-1)
        req = Request(order, mt, flags)
        may_reserve = self.policy.highatomic_reserve and bool(flags & FLAG_HIGHATOMIC)
        may_take = may_reserve or (self.policy.highatomic_reserve and bool(flags & FLAG_NON_BLOCK))
        found = self.take_reserved(order) if may_reserve else None
        if found is None:
            found = self.ladder(req)
        if found is None and may_take:
            found = self.take_reserved(order)
        if found is None:
            return self.event
        pfn, self.event.outcome = found
        self.event.pfn = pfn
        self.hold_block(Block(handle, pfn, order, mt))
        spb = self.lists.spb_of(pfn)
        self.update(spb)
        self.high_water(spb, mt)
        if may_reserve:
            self.reserved.update(join_reserve(self.lists, pfn, order))
            self.update(spb)
        return self.event

    def take_reserved(self, order: int) -> tuple[int, int] | None:
        """Reserved blocks of tainted superpageblocks, fullest first; nothing is claimed for the reserve."""
        for spb in self.walk(TAINTED):
            pfn = self.own(spb, order, HIGHATOMIC)
            if pfn is not None:
                return pfn, TAKE_HIGHATOMIC
        return None

    def unreserve(self, mt: int, *, force: bool) -> bool:
        """Give one pageblock of the reserve back as type `mt`."""
        self.event = Event()
        gone = leave_reserve(self.lists, self.walk(TAINTED), mt, force=force)
        self.reserved.difference_update(gone)
        if gone:
            self.update(gone[0] // self.per_spb)
        return bool(gone)

    def free(self, pfn: int) -> Event:
        """Free the block that a holder has at `pfn`."""
        self.event = Event()
        self.free_block(pfn)
        return self.event

    def ladder(self, req: Request) -> tuple[int, int] | None:
        """Smallest, then refuse an optional request, claim, steal; page and outcome or None."""
        found = self.smallest(req)
        self.record_walk(req, found)
        if found is not None:
            return found
        if self.policy.optional_refusal and req.mt != MOVABLE and req.optional and req.saw_free_pb:
            self.event.outcome = REFUSED_OPTIONAL
            return None
        found = self.claim(req)
        if found is None and not req.nofragment:
            found = self.steal(req)
        return found

    def record_walk(self, req: Request, found: tuple[int, int] | None) -> None:
        """The search short of claim and steal is over: what it took, then how it went."""
        if found is not None:
            on_cpu = int(req.order <= 3 or req.order == PB_ORDER)
            self.record("mm_page_alloc_zone_locked", found[0], req.order, req.mt, on_cpu)
        outcome = 0 if found is None else found[1]
        self.record("spb_alloc_walk", req.order, req.mt, req.flags, outcome, self.event.visited)

    def record_extfrag(self, pfn: int, req: Request, order: int, lender: int) -> None:
        """A claim or a steal was served from the list (order, lender)."""
        changed = int(self.lists.label[self.lists.pb_of(pfn)] == req.mt)
        fields = (req.order, order, req.mt, lender, int(order < PB_ORDER), changed)
        self.record("mm_page_alloc_extfrag", pfn, *fields)

    def high_water(self, spb: int, mt: int) -> None:
        """After a success in tainted memory: ask for shrink and defrag if free pages run low."""
        if mt == MOVABLE or self.event.outcome not in NEAR_TAINTED:
            return
        if self.free_pages(spb) >= self.reserve(spb) * PB_PAGES:
            return
        if self.shrinks_below_high_water():
            self.request(SHRINK_HIGH_WATER)
        if self.policy.defrag_high_water and self.needs_defrag(spb):
            self.request_defrag(spb, DEFRAG_HIGH_WATER)

    def shrinks_below_high_water(self) -> bool:
        """The high-water switch counts only while slab shrink as a whole is on."""
        policy = self.policy
        return policy.shrink_requests and policy.shrink_high_water and policy.trigger_below_high_water

    # -- smallest: the ordered attempts ---------------------------------------------------------

    def smallest(self, req: Request) -> tuple[int, int] | None:
        """All attempts that need no fallback category, in their order; page and outcome."""
        found = self.take_hinted(req) or self.take_preferred(req)
        if found is None and req.mt != MOVABLE:
            found = self.from_tainted(req)
            if found is None:
                self.fall_through(req)
        if found is None:
            found = self.take_empty_superpageblock(req)
        if found is None and req.mt == MOVABLE and self.policy.movable_into_tainted:
            found = self.movable_into_tainted(req)
        return found

    def step(self, category: int, order: int, *types: int) -> Iterable[int]:
        """Search a category for `smallest`; each superpageblock looked at counts as visited."""
        for spb in self.choose(category, order, *types):
            self.event.visited += 1
            yield spb

    def take_hinted(self, req: Request) -> tuple[int, int] | None:
        """The superpageblock remembered for (order, type), if it's still of the preferred category."""
        spb = self.hint.get((req.order, req.mt))
        if not self.policy.preferred_hint or spb is None or self.category(spb) != preferred(req.mt):
            return None
        pfn = self.own(spb, req.order, req.mt)
        return None if pfn is None else (pfn, TAKE_PREFERRED)

    def take_preferred(self, req: Request) -> tuple[int, int] | None:
        """Own lists of clean (movable) or tainted (other) superpageblocks, fullest first.

        Before the take was done per superpageblock there were two sweeps: whole pageblocks of all,
        then fragments of all.  Success is remembered as the hint.
        """
        for part in self.sweeps(req.order):
            least = max(req.order, PB_ORDER) if part == WHOLE else req.order
            for spb in self.step(preferred(req.mt), least, req.mt):
                if req.mt != MOVABLE:
                    self.observe(req, spb)
                pfn = self.own(spb, req.order, req.mt, part)
                if pfn is None:
                    continue
                if self.policy.preferred_hint:
                    self.hint[req.order, req.mt] = spb
                return pfn, TAKE_PREFERRED
        if req.mt != MOVABLE:
            for spb in self.walk(TAINTED):  # bitmaps passed over them
                self.observe(req, spb)
        return None

    def sweeps(self, order: int) -> tuple[str, ...]:
        if self.policy.per_superpageblock_take:
            return (BOTH,)
        return (WHOLE, FRAGMENTS) if order < PB_ORDER else (WHOLE,)

    def observe(self, req: Request, spb: int) -> None:
        """Remember what a walk over tainted memory saw, for later decisions of the same request."""
        req.saw_pages |= self.free_pages(spb) > 0
        req.saw_free_pb |= self.free_pb(spb) > 0
        req.saw_below |= self.free_pb(spb) < self.reserve(spb)

    def from_tainted(self, req: Request) -> tuple[int, int] | None:
        """Claims and borrows in tainted superpageblocks, for requests that would taint others."""
        policy = self.policy
        gated = policy.nofragment_blocks_tainted_claim and req.nofragment and not req.tainted_ok
        small = req.order < PB_ORDER
        if policy.claim_whole_pageblock and not gated:
            found = self.claim_whole_tainted(req)
            if found is not None:
                return found, CLAIM_WHOLE_PAGEBLOCK
        if policy.claim_partial_pageblock and not gated and small:
            found = self.claim_partial_tainted(req)
            if found is not None:
                return found, CLAIM_PARTIAL_PAGEBLOCK
        if policy.borrow_nonmovable and small:
            found = self.borrow(req, OTHER_NONMOVABLE[req.mt])
            if found is not None:
                return found, BORROW_NONMOVABLE
        if policy.borrow_movable and small:
            found = self.borrow(req, MOVABLE)
            if found is not None:
                return found, BORROW_MOVABLE
        return None

    def claim_whole_tainted(self, req: Request) -> int | None:
        for spb in self.step(TAINTED, max(req.order, PB_ORDER), MOVABLE):
            if not self.free_pb(spb):
                continue
            pfn = self.claim_whole(spb, req.order, req.mt)
            if pfn is not None:
                return pfn
        return None

    def claim_partial_tainted(self, req: Request) -> int | None:
        """Largest movable fragment first; only the head block of each order is tried."""
        for spb in self.step(TAINTED, req.order, MOVABLE):
            for c in range(PB_ORDER - 1, req.order - 1, -1):
                head = self.lists.head(spb, c, MOVABLE)
                if head is None:
                    continue
                pfn = self.claim_partial(spb, head, req.order, req.mt)
                if pfn is not None:
                    return pfn
        return None

    def borrow(self, req: Request, lender: int) -> int | None:
        """Take a fragment of another type in tainted memory; no relabel, the remainder stays."""
        for spb in self.step(TAINTED, req.order, lender):
            pfn = self.take_first(spb, range(req.order, PB_ORDER), req.order, lender)
            if pfn is not None:
                return pfn
        return None

    def fall_through(self, req: Request) -> None:
        """Tainted memory had nothing: ask the workers before an empty superpageblock is tainted."""
        policy = self.policy
        tainted = self.walk(TAINTED)
        can_serve = [s for s in tainted if any(self.has_own(s, c, req.mt) for c in range(req.order, 11))]
        saw = (int(req.saw_pages), int(req.saw_free_pb), int(req.saw_below))
        self.record("spb_alloc_fall_through", req.order, req.mt, len(tainted), len(can_serve), *saw)
        if policy.defrag_before_empty:
            for spb in self.walk(TAINTED):
                if self.needs_defrag(spb):
                    self.request_defrag(spb, DEFRAG_BEFORE_EMPTY)
        if not req.saw_below:
            return
        if policy.evacuate_requests:
            self.request(EVACUATE_FALLTHROUGH)
        if policy.shrink_requests and policy.trigger_below_reserve:
            self.request(SHRINK_FALLTHROUGH)

    def take_empty_superpageblock(self, req: Request) -> tuple[int, int] | None:
        """An empty superpageblock; requests that are not movable may be kept away, else claim it."""
        policy = self.policy
        if req.mt != MOVABLE:
            if policy.nofragment_blocks_empty and req.nofragment:
                return None
            if policy.optional_skips_empty and req.optional and req.saw_free_pb:
                return None
        for spb in self.step(EMPTY, max(req.order, PB_ORDER), req.mt, MOVABLE):
            pfn = self.take_whole_from_empty(spb, req)
            if pfn is not None:
                return pfn, TAKE_EMPTY_SUPERPAGEBLOCK
        return None

    def take_whole_from_empty(self, spb: int, req: Request) -> int | None:
        for c in range(max(req.order, PB_ORDER), MAX_ORDER + 1):
            head = self.lists.head(spb, c, req.mt)
            if head is not None:
                return self.lists.take(head, req.order)
            head = self.lists.head(spb, c, MOVABLE)
            if head is not None:
                return self.lists.claim_whole(head, req.order, req.mt)
        return None

    def movable_into_tainted(self, req: Request) -> tuple[int, int] | None:
        """Movable pages into tainted superpageblocks that have more than their reserve."""
        for spb in self.step(TAINTED, req.order, req.mt):
            if self.free_pb(spb) <= self.reserve(spb):
                continue
            pfn = self.own(spb, req.order, req.mt)
            if pfn is not None:
                return pfn, MOVABLE_INTO_TAINTED
        return None

    # -- claim and steal -------------------------------------------------------------------------

    def finder(
        self, category: int, order: int, mt: int, types: tuple[int, ...]
    ) -> tuple[int, int, int] | None:
        """First foreign head block of exactly this order in a category: (spb, block, type).

        Movable requests skip tainted superpageblocks at or below their reserve.
        """
        for spb in self.choose(category, order, *types):
            self.event.visited_fallback += 1
            if mt == MOVABLE and category == TAINTED and self.free_pb(spb) <= self.reserve(spb):
                continue
            for fallback in types:
                head = self.lists.head(spb, order, fallback)
                if head is not None:
                    return spb, head, fallback
        return None

    def claim(self, req: Request) -> tuple[int, int] | None:
        """Turn a foreign pageblock over, category by category, largest blocks first."""
        for position, category in enumerate(categories(req.mt)):
            for c in range(MAX_ORDER, self.lowest_claim(req, position) - 1, -1):
                if req.mt == MOVABLE and c < HALF_PB_ORDER:
                    break
                found = self.finder(category, c, req.mt, FALLBACKS[req.mt])
                if found is None:
                    continue
                if req.mt != MOVABLE and position > 0:
                    self.would_taint()
                pfn = self.claim_found(found[0], found[1], c, req)
                if pfn is not None:
                    self.record_extfrag(pfn, req, c, found[2])
                    return pfn, CLAIM_FALLBACK[position]
        return None

    def has_own(self, spb: int, order: int, mt: int) -> bool:
        """Whether a superpageblock has a free block of exactly this order and type."""
        return self.lists.head(spb, order, mt) is not None

    def lowest_claim(self, req: Request, position: int) -> int:
        """Smallest block order that a claim may start from.

        NOFRAGMENT keeps small requests at whole pageblocks, except in tainted memory for requests
        that are not movable, in a zone of many superpageblocks or with the tainted-ok flag.
        """
        policy = self.policy
        if not req.nofragment or req.order >= PB_ORDER:
            return req.order
        large = 0 <= policy.aggressive_threshold < self.n_spb
        allowed = large or (policy.tainted_ok_flag and req.tainted_ok)
        return req.order if req.mt != MOVABLE and position == 0 and allowed else PB_ORDER

    def would_taint(self) -> None:
        """A claim found its block outside tainted memory; asked for even if it's then refused."""
        if self.policy.evacuate_requests:
            self.request(EVACUATE_CLAIM)
        if self.policy.shrink_requests and self.policy.trigger_would_taint:
            self.request(SHRINK_CLAIM)

    def claim_found(self, spb: int, block: int, found_order: int, req: Request) -> int | None:
        if found_order >= PB_ORDER:
            return self.lists.claim_whole(block, req.order, req.mt)
        return self.claim_partial(spb, block, req.order, req.mt)

    def steal(self, req: Request) -> tuple[int, int] | None:
        """Take one foreign block, smallest that fits, category by category; no relabel."""
        types: tuple[int, ...] = FALLBACKS[req.mt]
        if req.mt != MOVABLE and self.policy.separate_nonmovable:
            types = (MOVABLE,)
        for category in categories(req.mt):
            for c in range(req.order, MAX_ORDER + 1):
                found = self.finder(category, c, req.mt, types)
                if found is not None:
                    pfn = self.lists.take(found[1], req.order)
                    self.record_extfrag(pfn, req, c, found[2])
                    return pfn, STEAL_FALLBACK
        return None


def preferred(mt: int) -> int:
    """The category a type belongs in."""
    return CLEAN if mt == MOVABLE else TAINTED


def categories(mt: int) -> tuple[int, int, int]:
    """Order of categories for claim and steal."""
    return (CLEAN, EMPTY, TAINTED) if mt == MOVABLE else (TAINTED, EMPTY, CLEAN)
