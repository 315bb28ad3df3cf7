"""The reference twin: the written semantics of the allocator as slow, obvious Python.

Owns the meaning of every rule; a change of behaviour starts here.  It never imports the compiled
package, so that the two can only agree by both being right.  `OracleZone` is the door for state
machines; `buddy`, `pcp`, `spb` and `shrink` hold the rules; `replay` runs golden files against them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.reference.buddy import BuddyZone
from tests.reference.invariants import check_buddy, check_spb
from tests.reference.policy import Policy
from tests.reference.spb_state import Event
from tests.reference.spb_workers import SpbZone
from tests.reference.steer import SteeredBuddyZone
from tests.reference.words import MAX_ORDER, PB_PAGES

__all__ = ["Geometry", "OracleZone", "Policy"]


@dataclass(frozen=True)
class Geometry:
    """Shape of a zone: pages of 4 KiB, absolute start pfn, pageblocks in a superpageblock.

    A superpageblock zone begins at an aligned pfn and has whole, evenly many pageblocks; the last
    superpageblock may be short.  Without superpageblocks any start and length will do.
    """

    zone_pages: int
    start_pfn: int = 0
    pageblocks_per_spb: int = 8

    @property
    def n_pageblocks(self) -> int:
        return self.zone_pages // PB_PAGES

    @property
    def n_spb(self) -> int:
        return -(-self.n_pageblocks // self.pageblocks_per_spb)


class OracleZone:
    """One zone of the twin, with blocks named by their relative pfn.

    `policy.superpageblocks` chooses between the mainline buddy level and the superpageblock layer;
    in mainline the workers do nothing and `contig` finds nothing.  `event` tells what the last
    operation did.
    """

    def __init__(
        self, geometry: Geometry, policy: Policy, *, pin_modulus: int = 0, pin_remainder: int = 0
    ) -> None:
        self.geometry = geometry
        self.policy = policy
        self.event = Event()
        self._next_handle = 0
        self._zone: BuddyZone | SpbZone
        if not policy.superpageblocks:
            shape = (geometry.zone_pages, geometry.start_pfn)
            reserve = policy.highatomic_reserve
            self._zone = (
                SteeredBuddyZone(*shape, geometry.pageblocks_per_spb)
                if policy.claim_prefers_tainted
                else BuddyZone(*shape, has_reserve=reserve)
            )
            return
        if geometry.zone_pages % (2 * PB_PAGES) or geometry.start_pfn % (1 << MAX_ORDER):
            raise ValueError("a superpageblock zone has evenly many whole pageblocks from an aligned start")
        self._zone = SpbZone(
            geometry.n_pageblocks,
            geometry.pageblocks_per_spb,
            policy,
            pin_modulus=pin_modulus,
            pin_remainder=pin_remainder,
        )

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle - 1

    def alloc(self, order: int, mt: int, flags: int = 0) -> int:
        """One request; relative pfn or -1."""
        handle = self._handle()
        if isinstance(self._zone, SpbZone):
            self.event = self._zone.alloc(handle, order, mt, flags)
        else:
            self.event = Event(pfn=self._zone.alloc(order, mt, flags))
        return self.event.pfn

    def free(self, pfn: int) -> Event:
        """Free the block held at `pfn`; KeyError if none is."""
        result = self._zone.free(pfn)
        self.event = result or Event()
        return self.event

    def unreserve(self, mt: int, force: bool) -> bool:
        """Give one pageblock of the HIGHATOMIC reserve back as type `mt`; whether one was."""
        done = self._zone.unreserve(mt, force=force)
        self.event = self._zone.event if isinstance(self._zone, SpbZone) else Event()
        return done

    def evacuate(self, order: int, mt: int) -> Event:
        """Move movable blocks out of tainted superpageblocks; `event.moves` has (handle, old, new)."""
        self.event = self._zone.evacuate(order, mt) if isinstance(self._zone, SpbZone) else Event()
        return self.event

    def defrag(self, spb: int) -> Event:
        """Make room in one tainted superpageblock."""
        self.event = self._zone.defrag(spb) if isinstance(self._zone, SpbZone) else Event()
        return self.event

    def compact(self, spb: int, most: int, free_pb_most: int, fragments_least: int) -> Event:
        """Compact inside one clean superpageblock; `event.outcome` is the pageblocks freed."""
        if isinstance(self._zone, SpbZone):
            self.event = self._zone.compact(spb, most, free_pb_most, fragments_least)
        else:
            self.event = Event()
        return self.event

    def contig(self) -> int:
        """Grab a whole superpageblock; its first relative pfn or -1."""
        handle = self._handle()
        self.event = self._zone.contig(handle) if isinstance(self._zone, SpbZone) else Event(pfn=-1)
        return self.event.pfn

    def live(self) -> dict[int, tuple[int, int]]:
        """Held blocks by relative pfn: (order, requested type); (-1, 3) for a grabbed superpageblock."""
        if isinstance(self._zone, BuddyZone):
            return dict(sorted(self._zone.live.items()))
        return {pfn: (block.order, block.mt) for pfn, block in sorted(self._zone.blocks.items())}

    def snapshot(self) -> dict[str, Any]:
        """Plain, comparable data: see the `snapshot` of the zone that the policy chose."""
        return self._zone.snapshot()

    def check(self) -> None:
        """Raise AssertionError if the twin's own bookkeeping is wrong."""
        if isinstance(self._zone, SpbZone):
            check_spb(self._zone)
        else:
            check_buddy(self._zone)
