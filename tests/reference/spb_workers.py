"""Evacuation, defragmentation and contiguous grabs of a superpageblock zone, run synchronously.

Owns what moves or isolates memory that somebody holds.  Nothing here runs because of a request
bit: each verb is an operation of its own.  `SpbZone` is the whole superpageblock twin.
"""

from __future__ import annotations

from tests.reference.spb import SpbAllocator
from tests.reference.spb_state import Block, Event
from tests.reference.words import (
    CLEAN,
    CONTIG_EMPTIED,
    CONTIG_EMPTY,
    EMPTY,
    MAX_ORDER,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    SHRINK_AFTER_EVACUATION,
    TAINTED,
)

CONTIG_MT = 3


class SpbZone(SpbAllocator):
    """One zone with superpageblocks: allocation ladder, frees and workers."""

    # -- moving one block -------------------------------------------------------------------------

    def target(self, order: int, source: int) -> int | None:
        """A new place for a movable block: clean superpageblocks, then empty; never the source."""
        for part in self.sweeps(order):
            for spb in self.choose(CLEAN, order, MOVABLE):
                pfn = None if spb == source else self.own(spb, order, MOVABLE, part)
                if pfn is not None:
                    return pfn
        for spb in self.choose(EMPTY, max(order, PB_ORDER), MOVABLE):
            if spb == source:
                continue
            pfn = self.take_first(spb, range(max(order, PB_ORDER), MAX_ORDER + 1), order, MOVABLE)
            if pfn is not None:
                return pfn
        return None

    def migrate(self, block: Block) -> bool:
        """Move one held block; False if there is no place for it."""
        old = block.pfn
        pfn = self.target(block.order, self.lists.spb_of(old))
        if pfn is None:
            return False
        self.move(block, pfn)
        return True

    def move(self, block: Block, pfn: int) -> None:
        """A held block's pages go to a place that was taken for them."""
        old = block.pfn
        self.hold_block(Block(block.handle, pfn, block.order, MOVABLE))
        self.update(self.lists.spb_of(pfn))
        self.free_block(old)
        self.event.moves.append((block.handle, old, pfn))
        self.event.moved += 1 << block.order

    def is_pinned(self, block: Block) -> bool:
        return self.pin_modulus > 0 and block.handle % self.pin_modulus == self.pin_remainder

    def evacuate_pageblock(self, pb: int) -> None:
        """Move what is movable out of a pageblock, ascending, up to the first failure.

        If no movable page is left in it, its movable content bit goes.
        """
        self.give_up(pb)
        self.update(pb // self.per_spb)
        for pfn in sorted(self.heads[pb]):
            block = self.blocks[pfn]
            if block.mt == MOVABLE and not self.is_pinned(block) and not self.migrate(block):
                break
        if not self.used[pb][MOVABLE] and self.has[pb][MOVABLE]:
            self.set_content(pb, MOVABLE, False)
            self.update(pb // self.per_spb)

    # -- evacuate --------------------------------------------------------------------------------

    def evacuate(self, order: int, mt: int) -> Event:
        """Make room for `mt` in tainted superpageblocks; `order` only goes into the record.

        Candidates are fixed at the start, each with a budget of pageblock attempts: first (if so
        set) pageblocks labelled `mt`, then those labelled movable (or any).
        """
        self.event = Event()
        policy = self.policy
        if not policy.evacuate:
            return self.event
        with_movable = [spb for spb in self.walk(TAINTED) if self.content[spb][MOVABLE]]
        candidates = with_movable[: policy.evacuate_max_superpageblocks]
        budget = dict.fromkeys(candidates, policy.evacuate_max_pageblocks)
        attempted: set[int] = set()
        if policy.evacuate_same_type_first:
            for spb in candidates:
                self.event.n_same_type += self._evacuate_phase(spb, budget, attempted, mt)
        label = None if policy.evacuate_any_label else MOVABLE
        for spb in candidates:
            self.event.n_pageblocks += self._evacuate_phase(spb, budget, attempted, label)
        if policy.shrink_requests and policy.trigger_after_evacuation:
            self.request(SHRINK_AFTER_EVACUATION)
        self.event.outcome = int(self.event.moved > 0)
        attempts = (self.event.n_same_type, self.event.n_pageblocks)
        self.record("spb_evacuate_for_order_done", order, mt, *attempts, self.event.outcome)
        return self.event

    def _evacuate_phase(
        self, spb: int, budget: dict[int, int], attempted: set[int], label: int | None
    ) -> int:
        """Attempts on the pageblocks of one candidate, ascending; label None means any."""
        attempts = 0
        for pb in self.pbs_in(spb):
            if budget[spb] == 0:
                break
            if pb in attempted or not self.has[pb][MOVABLE]:
                continue
            if label is not None and self.lists.label[pb] != label:
                continue
            attempted.add(pb)
            budget[spb] -= 1
            attempts += 1
            self.evacuate_pageblock(pb)
        return attempts

    # -- defrag -----------------------------------------------------------------------------------

    def defrag(self, spb: int) -> Event:
        """Move movable blocks out of one tainted superpageblock until it has room again."""
        self.event = Event()
        if not self.policy.defrag or not self.needs_defrag(spb):
            return self.event
        for pb in self.pbs_in(spb):
            if self.is_defragged(spb):
                break
            if self.has[pb][MOVABLE]:
                self.event.n_pageblocks += 1
                self.evacuate_pageblock(pb)
        self.event.outcome = int(self.event.moved > 0)
        return self.event

    def is_defragged(self, spb: int) -> bool:
        if self.policy.defrag_start_at_reserve:
            return self.free_pb(spb) > self.reserve(spb)
        return self.free_pb(spb) >= 2 or self.free_pages(spb) >= 3 * PB_PAGES

    # -- compaction inside a clean superpageblock -------------------------------------------------

    def fragments(self, spb: int) -> int:
        """Free pages outside free pageblocks."""
        return self.free_pages(spb) - self.free_pb(spb) * PB_PAGES

    def compact(self, spb: int, most: int, free_pb_most: int, fragments_least: int) -> Event:
        """Empty the emptiest pageblocks of a clean superpageblock into its fullest ones.

        It begins with few free pageblocks and many fragments and goes on while the fragments last, on
        `most` pageblocks at most, each once. Each place is looked for behind the last one found in the
        same pageblock; a pageblock without one is passed over from then on.
        """
        self.event = Event()
        needed = self.category(spb) == CLEAN and self.free_pb(spb) <= free_pb_most
        if not self.policy.compact_within_superpageblock or not needed:
            return self.event
        self._passed_over: set[int] = set()
        self._target, self._cursor = -1, 0
        while self.event.n_pageblocks < most and self.fragments(spb) >= fragments_least * PB_PAGES:
            sources = [pb for pb in self.pbs_in(spb) if 0 < self.used[pb][MOVABLE] < PB_PAGES]
            sources = [pb for pb in sources if pb not in self._passed_over]
            if not sources:
                break
            source = min(sources, key=lambda pb: self.used[pb][MOVABLE])
            self._passed_over.add(source)
            self.event.n_pageblocks += 1
            self.event.outcome += self._empty_into_fullest(spb, source)
        return self.event

    def _empty_into_fullest(self, spb: int, source: int) -> int:
        for pfn in sorted(self.heads[source]):
            block = self.blocks[pfn]
            place = None if self.is_pinned(block) else self._place_within(spb, source, block.order)
            if place is None:
                return 0
            self.move(block, place)
        return int(not self.used[source][MOVABLE])

    def _place_within(self, spb: int, source: int, order: int) -> int | None:
        while True:
            if self._target in (-1, source):
                targets = [pb for pb in self.pbs_in(spb) if 0 < self.used[pb][MOVABLE] < PB_PAGES]
                targets = [pb for pb in targets if pb != source and pb not in self._passed_over]
                targets = [pb for pb in targets if self.lists.label[pb] == MOVABLE]
                if not targets:
                    return None
                self._target = max(targets, key=lambda pb: self.used[pb][MOVABLE])
                self._cursor = self.lists.pb_start(self._target)
            for pfn, free_order in self.lists.free_blocks_in(self._target):
                if pfn >= self._cursor and free_order >= order:
                    self._cursor = pfn + (1 << order)
                    return self.lists.take(pfn, order)
            self._passed_over.add(self._target)
            self._target = -1

    # -- contig -----------------------------------------------------------------------------------

    def contig(self, handle: int) -> Event:
        """One whole superpageblock: an empty one, else the emptiest clean one that can be emptied."""
        self.event = Event(pfn=-1)
        if not self.policy.contig:
            return self.event
        for spb in self.walk(EMPTY):
            if self.is_full_length(spb):
                return self._grab(spb, handle, CONTIG_EMPTY)
        for spb in self.contig_candidates():
            self.event.visited += 1
            if self.empty_out(spb):
                return self._grab(spb, handle, CONTIG_EMPTIED)
        return self.event

    def contig_candidates(self) -> list[int]:
        """Clean superpageblocks of full length, emptiest bucket first, each head to tail."""
        emptiest_first = [
            spb
            for (category, _), spbs in sorted(self.spb_lists.items(), reverse=True)
            if category == CLEAN
            for spb in spbs
            if self.is_full_length(spb)
        ]
        return emptiest_first[: self.policy.contig_max_candidates]

    def empty_out(self, spb: int) -> bool:
        """Move all blocks out, ascending; a pinned block or a failed move ends it, moves stay."""
        for pb in self.pbs_in(spb):
            self.give_up(pb)
            self.update(spb)
            for pfn in sorted(self.heads[pb]):
                block = self.blocks[pfn]
                if self.is_pinned(block) or not self.migrate(block):
                    return False
        self.drain_cpus()
        return self.free_pb(spb) == self.total(spb)

    def drain_cpus(self) -> None:
        """All pages on per-CPU lists go back to the free lists; here there are none."""

    def _grab(self, spb: int, handle: int, outcome: int) -> Event:
        """Unlink all free blocks; the pages count as nobody's use and set no content bits."""
        first = spb * self.lists.spb_pages
        last = first + self.lists.spb_pages
        for pfn in sorted(pfn for pfn in self.lists.block if first <= pfn < last):
            self.lists.unlink(pfn)
        self.isolated[spb] = True
        self.update(spb)
        self.blocks[first] = Block(handle, first, -1, CONTIG_MT, spb)
        self.event.pfn = first
        self.event.outcome = outcome
        return self.event

    def free(self, pfn: int) -> Event:
        """Free a held block; a grabbed superpageblock goes back pageblock by pageblock."""
        spb = self.blocks[pfn].spb
        if spb is None:
            return super().free(pfn)
        self.event = Event()
        del self.blocks[pfn]
        for pb in self.pbs_in(spb):
            self.lists.free_piece(self.lists.pb_start(pb), PB_ORDER)
        self.isolated[spb] = False
        self.update(spb)
        return self.event
