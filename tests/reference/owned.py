"""CPUs that own pageblocks, in front of a superpageblock zone: slow and obvious (patches v1 02, 13, 22, 28).

Owns who owns what, what rests with which CPU, the four phases of a refill and where freed pages go. How much
a refill asks for and from which count on pages go back is the classic `Pcp`'s. docs/model.md says which of
these rules are the texts' and which are ours.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.reference.pcp import PCP_ORDERS, Pcp, pcp_index
from tests.reference.policy import Policy
from tests.reference.spb import Request
from tests.reference.spb_state import TYPES, Block, Event
from tests.reference.spb_workers import SpbZone
from tests.reference.words import (
    CLEAN,
    FLAG_NOFRAGMENT,
    MOVABLE,
    PB_ORDER,
    PB_PAGES,
    TAINTED,
    TAKE_PREFERRED,
)


@dataclass
class Rest:
    """A block at rest: with whom, on the list of which type, accounted as what, as an owner's or not."""

    cpu: OwnedCpu
    order: int
    listed: int
    mt: int
    owned: bool


class OwnedCpu(Pcp):
    """One CPU's lists as a buddy system; `drain` and `decay` are the parts of `Pcp` that differ."""

    zone: OwnedZone  # type: ignore[assignment]

    def __init__(self, zone: OwnedZone, number: int, **tunables: int) -> None:
        super().__init__(zone, **tunables)  # type: ignore[arg-type]
        self.number = number
        self.rest: dict[tuple[int, int], deque[int]] = {
            (order, mt): deque() for order in range(PB_ORDER + 1) for mt in TYPES
        }
        self.returning: dict[int, OrderedDict[int, None]] = {mt: OrderedDict() for mt in TYPES}

    def fitting(self, order: int, mt: int) -> int | None:
        """The smallest order that serves a request."""
        return next((c for c in range(order, PB_ORDER + 1) if self.rest[c, mt]), None)

    def drain(self, nr: int, index: int) -> None:
        """About `nr` pages go back, largest blocks first, each order beginning with the type of a list."""
        nr = min(nr, self.count)
        first = index % 3
        for order in range(PB_ORDER, -1, -1):
            for mt in ((first + k) % 3 for k in range(3)):
                while nr > 0 and self.rest[order, mt]:
                    pfn = self.rest[order, mt][-1]
                    self.zone.give_back(pfn)
                    self.zone.update(self.zone.lists.spb_of(pfn))
                    nr -= 1 << order

    def decay(self) -> None:
        if self.high > self.high_min:
            self.high = max(
                self.count - (self.batch << self.scale_max), self.high - (self.high >> 3), self.high_min
            )
            self.high = min(self.high, self.high_max)
        self._drain_batches(self.count - self.high, 0)


class OwnedZone(SpbZone):
    """A superpageblock zone whose CPUs own pageblocks."""

    def __init__(
        self, n_pageblocks: int, pageblocks_per_spb: int, policy: Policy, cpus: int, **tunables: int
    ) -> None:
        super().__init__(n_pageblocks, pageblocks_per_spb, policy)
        self.cpus = [OwnedCpu(self, number, **tunables) for number in range(cpus)]
        self.owner: dict[int, OwnedCpu] = {}
        self.resting: dict[int, Rest] = {}

    # -- accounting ------------------------------------------------------------------------------

    def count(self, pfn: int, order: int, mt: int) -> None:
        """Pages came into use as type mt."""
        pb = self.lists.pb_of(pfn)
        self.used[pb][mt] += 1 << order
        self.set_content(pb, mt, True)

    def uncount(self, pfn: int, order: int, mt: int) -> None:
        """Pages ceased to be in use as type mt."""
        pb = self.lists.pb_of(pfn)
        self.used[pb][mt] -= 1 << order
        if not self.policy.sticky_content and not self.used[pb][mt]:
            self.set_content(pb, mt, False)

    def recount(self, pfn: int, order: int, old: int, new: int) -> None:
        """Pages change their type; the superpageblock finds its place."""
        if old != new:
            self.uncount(pfn, order, old)
            self.count(pfn, order, new)
            self.update(self.lists.spb_of(pfn))

    def settle_taken(self, pfn: int, order: int, mt: int, outcome: int) -> None:
        """What follows from a block taken off the free lists."""
        self.count(pfn, order, mt)
        spb = self.lists.spb_of(pfn)
        self.update(spb)
        self.event.outcome = outcome
        self.high_water(spb, mt)

    # -- owners ----------------------------------------------------------------------------------

    def own_pb(self, pb: int, cpu: OwnedCpu) -> None:
        assert pb not in self.owner, "a pageblock has at most one owner"
        self.owner[pb] = cpu

    def disown(self, pb: int) -> None:
        cpu = self.owner.pop(pb, None)
        if cpu is not None:
            for pbs in cpu.returning.values():
                pbs.pop(pb, None)

    def note_fragments(self, pb: int) -> None:
        """Free pages of a pageblock are on the free lists: its owner may take them back, oldest first."""
        if pb in self.owner:
            self.owner[pb].returning[self.lists.label[pb]].setdefault(pb)

    def became_free(self, pb: int) -> None:
        super().became_free(pb)
        self.disown(pb)

    def give_up(self, pb: int) -> int | None:
        """The owner gives back what rests of a pageblock, and the pageblock; the whole block it became."""
        if pb not in self.owner:
            return None
        first = self.lists.pb_start(pb)
        here = [p for p, r in self.resting.items() if r.owned and first <= p < first + PB_PAGES]
        for pfn in sorted(here):
            self.give_back(pfn)
        self.disown(pb)
        for order in (PB_ORDER, PB_ORDER + 1):
            head = first >> order << order
            if self.lists.block.get(head, (None,))[0] == order:
                return head
        return None

    # -- resting ---------------------------------------------------------------------------------

    def put(self, pfn: int, rest: Rest, *, tail: bool = False) -> None:
        self.resting[pfn] = rest
        area = rest.cpu.rest[rest.order, rest.listed]
        (area.append if tail else area.appendleft)(pfn)
        rest.cpu.count += 1 << rest.order

    def pull(self, pfn: int) -> Rest:
        rest = self.resting.pop(pfn)
        rest.cpu.rest[rest.order, rest.listed].remove(pfn)
        rest.cpu.count -= 1 << rest.order
        return rest

    def rest_owned(self, pfn: int, order: int) -> None:
        """A block counted as its pageblock's label rests with the owner, merged with what rests there."""
        pb = self.lists.pb_of(pfn)
        label = self.lists.label[pb]
        while order < PB_ORDER:
            buddy = self.resting.get(pfn ^ (1 << order))
            if buddy is None or not buddy.owned or buddy.order != order:
                break
            self.pull(pfn ^ (1 << order))
            pfn = min(pfn, pfn ^ (1 << order))
            order += 1
        self.put(pfn, Rest(self.owner[pb], order, label, label, True))

    def give_back(self, pfn: int) -> None:
        """A resting block returns to the free lists; the superpageblock's place is the caller's business."""
        rest = self.pull(pfn)
        self.uncount(pfn, rest.order, rest.mt)
        self.free_to_lists(pfn, rest.order)
        self.note_fragments(self.lists.pb_of(pfn))

    def take_resting(self, cpu: OwnedCpu, order: int, mt: int) -> int | None:
        """The head of the smallest list that serves; upper halves rest on."""
        high = cpu.fitting(order, mt)
        if high is None:
            return None
        pfn = cpu.rest[high, mt][0]
        rest = self.pull(pfn)
        for half in range(high - 1, order - 1, -1):
            self.put(pfn + (1 << half), Rest(cpu, half, mt, rest.mt, rest.owned))
        self.recount(pfn, order, rest.mt, mt)
        return pfn

    # -- allocation --------------------------------------------------------------------------------

    def alloc(self, handle: int, order: int, mt: int, flags: int = 0, cpu: int = 0) -> Event:
        """One request on a CPU."""
        if order not in PCP_ORDERS:
            return super().alloc(handle, order, mt, flags)
        self.event = Event(pfn=-1)
        on = self.cpus[cpu]
        on.free_count >>= 1
        pfn = self.take_resting(on, order, mt)
        if pfn is None:
            self.refill(on, order, mt, flags, on._nr_to_refill(order) << order)
            pfn = self.take_resting(on, order, mt)
        alone = order == PB_ORDER or (self.policy.bulk_nofragment and not flags & FLAG_NOFRAGMENT)
        if pfn is None and alone:
            pfn = self.request_one(self.ladder, order, mt, flags)
        if pfn is not None:
            self.event.pfn = pfn
            self.blocks[pfn] = Block(handle, pfn, order, mt)
            self.heads[self.lists.pb_of(pfn)].add(pfn)
        return self.event

    def request_one(
        self, ladder: Callable[[Request], tuple[int, int] | None], order: int, mt: int, flags: int
    ) -> int | None:
        """One block off the free lists, counted."""
        found = ladder(Request(order, mt, flags))
        if found is None:
            return None
        self.settle_taken(found[0], order, mt, found[1])
        return found[0]

    def within_tainted(self, req: Request) -> tuple[int, int] | None:
        """The tainted pool alone: own lists, then claims and borrows."""
        return self.take_hinted(req) or self.take_preferred(req) or self.from_tainted(req)

    def whole_movable(self, req: Request) -> tuple[int, int] | None:
        """The fullest clean superpageblock with a free pageblock, then the ladder's further rungs."""
        for spb in self.walk(CLEAN):
            pfn = self.own(spb, PB_ORDER, MOVABLE)
            if pfn is not None:
                return pfn, TAKE_PREFERRED
        found = self.take_empty_superpageblock(req)
        if found is None and self.policy.movable_into_tainted:
            found = self.movable_into_tainted(req)
        return found

    def refill(self, cpu: OwnedCpu, order: int, mt: int, flags: int, wanted: int) -> None:
        """Four phases; the later ones go on while pages are short or none serves the request."""
        if self.policy.bulk_nofragment:
            flags |= FLAG_NOFRAGMENT
        before = cpu.count

        def short() -> bool:
            return cpu.count - before < wanted or cpu.fitting(order, mt) is None

        while cpu.count - before < wanted and cpu.returning[mt]:
            self.take_back(next(iter(cpu.returning[mt])))
        while short() and self.claim_pageblock(cpu, mt, flags):
            pass
        if mt != MOVABLE and self.policy.pcp_adopts_partial:
            while short() and self.adopt(cpu, order, mt):
                pass
        if order < PB_ORDER and short():
            self.fill_plainly(cpu, order, mt, flags, max((wanted - (cpu.count - before)) >> order, 1))

    def take_back(self, pb: int) -> None:
        """All free pages of an owned pageblock come back from the free lists."""
        del self.owner[pb].returning[self.lists.label[pb]][pb]
        for pfn, order in self.lists.free_blocks_in(pb):
            self.lists.unlink(pfn)
            self.count(pfn, order, self.lists.label[pb])
            self.rest_owned(pfn, order)
        self.update(pb // self.per_spb)

    def claim_pageblock(self, cpu: OwnedCpu, mt: int, flags: int) -> bool:
        """One whole pageblock becomes the CPU's."""
        ladder = self.smallest
        if mt == MOVABLE and self.policy.bulk_nofragment:
            ladder = self.whole_movable
        elif mt != MOVABLE and self.policy.pcp_stays_in_tainted:
            ladder = self.within_tainted
        pfn = self.request_one(ladder, PB_ORDER, mt, flags)
        if pfn is None:
            return False
        self.own_pb(self.lists.pb_of(pfn), cpu)
        self.rest_owned(pfn, PB_ORDER)
        return True

    def adopt(self, cpu: OwnedCpu, order: int, mt: int) -> bool:
        """A partly free pageblock in the tainted pool, of the type and nobody's, becomes the CPU's."""
        for spb in self.walk(TAINTED):
            for c in range(order, PB_ORDER):
                pfn = self.lists.head(spb, c, mt)
                if pfn is None or self.lists.pb_of(pfn) in self.owner:
                    continue
                self.lists.unlink(pfn)
                self.settle_taken(pfn, c, mt, TAKE_PREFERRED)
                self.own_pb(self.lists.pb_of(pfn), cpu)
                self.note_fragments(self.lists.pb_of(pfn))
                self.rest_owned(pfn, c)
                return True
        return False

    def fill_plainly(self, cpu: OwnedCpu, order: int, mt: int, flags: int, nr: int) -> None:
        """Blocks one by one; where unmovable ones stay in the tainted pool, only the first may leave it."""
        if mt != MOVABLE and self.policy.pcp_stays_in_tainted:
            self._fill(cpu, self.within_tainted, order, mt, flags, nr)
            if cpu.fitting(order, mt) is not None:
                return
            nr = 1
        self._fill(cpu, self.ladder, order, mt, flags, nr)

    def _fill(
        self,
        cpu: OwnedCpu,
        ladder: Callable[[Request], tuple[int, int] | None],
        order: int,
        mt: int,
        flags: int,
        nr: int,
    ) -> None:
        for _ in range(nr):
            pfn = self.request_one(ladder, order, mt, flags)
            if pfn is None:
                return
            self.put(pfn, Rest(cpu, order, mt, mt, False), tail=True)

    # -- freeing -----------------------------------------------------------------------------------

    def free(self, pfn: int, cpu: int = 0) -> Event:
        """Free a held block on a CPU: to its pageblock's owner, else to that CPU."""
        block = self.blocks[pfn]
        pb = self.lists.pb_of(pfn)
        if block.order not in PCP_ORDERS:
            if block.spb is None:
                self.note_fragments(pb)
            return super().free(pfn)
        self.event = Event()
        del self.blocks[pfn]
        self.heads[pb].remove(pfn)
        label = self.lists.label[pb]
        if block.order == PB_ORDER and pb not in self.owner:
            if block.mt != label:
                self.uncount(pfn, PB_ORDER, block.mt)
                self.free_to_lists(pfn, PB_ORDER)
                self.update(self.lists.spb_of(pfn))
                return self.event
            self.own_pb(pb, self.cpus[cpu])
        to = self.owner.get(pb)
        if to is not None:
            self.recount(pfn, block.order, block.mt, label)
            self.rest_owned(pfn, block.order)
        else:
            to = self.cpus[cpu]
            self.put(pfn, Rest(to, block.order, label, block.mt, False))
        self._limit(to, block.order, label)
        return self.event

    def _limit(self, cpu: OwnedCpu, order: int, label: int) -> None:
        """Count the free, and give pages back if there are too many; mirrors the end of `Pcp.free`."""
        cpu.alloc_factor >>= 1
        free_high = cpu._is_free_high(order)
        if cpu.free_count < cpu.batch << cpu.scale_max:
            cpu.free_count += 1 << order
        limit = cpu._limit(free_high)
        if cpu.count >= limit:
            cpu._drain_batches(cpu._nr_to_free(free_high, limit), pcp_index(order, label))

    # -- verbs -------------------------------------------------------------------------------------

    def drain_cpus(self) -> None:
        for cpu in self.cpus:
            cpu.drain_all()

    def drain(self) -> None:
        self.event = Event()
        self.drain_cpus()

    def decay(self) -> None:
        self.event = Event()
        for cpu in self.cpus:
            cpu.decay()

    def snapshot(self) -> dict[str, Any]:
        """The zone's snapshot with owners, what rests, what may be taken back, and the scalars."""
        return super().snapshot() | {
            "owner": [self.owner[pb].number if pb in self.owner else -1 for pb in range(self.n_pb)],
            "rest": {
                (cpu.number, order, mt): list(pfns)
                for cpu in self.cpus
                for (order, mt), pfns in sorted(cpu.rest.items())
                if pfns
            },
            "returning": {
                (cpu.number, mt): list(pbs) for cpu in self.cpus for mt, pbs in cpu.returning.items() if pbs
            },
            "pcp_stat": [list(cpu.stat()) for cpu in self.cpus],
        }
