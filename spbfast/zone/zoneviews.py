"""Looking at a Zone: counts, lists, tables, pictures, and whether the state contradicts itself.

Changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.constants import (
    NR_MT,
    NR_ORDERS,
    NR_REQUEST_MT,
    PAGE_SIZE,
    PB_PAGES,
    C,
    Mt,
    Outcome,
    Req,
    SpbCategory,
)
from spbfast.model.lowering.arguments import checked_order, checked_range
from spbfast.model.state import picture as pictures
from spbfast.model.state.check import check_zone
from spbfast.model.state.contents import absent_pageblocks, read_contents
from spbfast.model.state.walk import read_lists, read_places
from spbfast.tiles.markup import tiles_html
from spbfast.zone.eventrows import Event, ZoneRows, alone

if TYPE_CHECKING:
    import pandas as pd


class ZoneViews(ZoneRows):
    """What a Zone tells of itself."""

    @property
    @alone
    def last(self) -> Event:
        """What the last single operation, or the last of many, did."""
        _, outcome, visited, visited_fallback, tainted, requests, _, moved, _, _ = self._last.tolist()
        rung = outcome if outcome < len(Outcome) else 0  # pageblocks freed, of a compaction
        return Event(Outcome(rung), visited, visited_fallback, tainted, Req(requests), moved)

    @alone
    def nr_free_pages(self) -> int:
        """Pages on the free lists; those on per-CPU lists are not among them."""
        return int(self.state.count[C.FREE_PAGES])

    @alone
    def nr_free_blocks(self) -> np.ndarray:
        """Number of free blocks: int64 [order, migratetype], over all superpageblocks."""
        nr = self.state.area.nr.reshape(-1, NR_ORDERS, NR_MT)
        return nr.sum(axis=0, dtype=np.int64)[:, : self.state.geo.nr_mt]

    @alone
    def free_list(self, order: int, mt: int, spb: int | None = None) -> np.ndarray:
        """Page frame numbers on a free list, head first: int64.

        With superpageblocks every one has its own list: `spb` names one; without it they follow each other.
        """
        kind = checked_range(mt, "mt", 0, self.state.geo.nr_mt - 1)
        nr_sets = self.state.area.mask.size // NR_MT
        parts = []
        for set_ in range(nr_sets) if spb is None else (checked_range(spb, "spb", 0, nr_sets - 1),):
            head = self.state.geo.list0 + (set_ * NR_ORDERS + checked_order(order)) * NR_MT + kind
            parts.append(read_lists(self.state, head, 1)[2])
        return np.concatenate(parts) + self.start_pfn

    @alone
    def pageblock_types(self) -> np.ndarray:
        """Migratetype of every pageblock: int8, first the one that holds the zone's first page."""
        geo = self.state.geo
        return self.state.pb.label[geo.lo // PB_PAGES : -(-geo.hi // PB_PAGES)].copy()

    @alone
    def superpageblocks(self) -> pd.DataFrame:
        """One row a superpageblock: where it is listed, what is free in it, what lives in it.

        Columns: start_pfn; category; bucket (fullness, 0 = full); position on its list; pageblocks,
        free_pageblocks, free_pages; for each type, content_* (pageblocks with the content bit) and used_*
        (pages in use).
        """
        import pandas as pd

        z = self.state
        category, bucket, position = read_places(z)
        names = np.array([c.name.lower() for c in SpbCategory])
        used = z.pb.used[:, :NR_REQUEST_MT].reshape(z.geo.nr_spb, -1, NR_REQUEST_MT).sum(axis=1)
        columns: dict[str, Any] = {
            "start_pfn": (np.arange(z.geo.nr_spb) << z.geo.spb_shift) + self._base,
            "category": names[category],
            "bucket": bucket,
            "position": position,
            "pageblocks": z.spb.total.copy(),
            "free_pageblocks": z.spb.nr_free_pb.copy(),
            "free_pages": z.spb.nr_free_pages.copy(),
        }
        for mt in range(NR_REQUEST_MT):
            columns[f"content_{Mt(mt).name.lower()}"] = z.spb.content[:, mt].copy()
        for mt in range(NR_REQUEST_MT):
            columns[f"used_{Mt(mt).name.lower()}"] = used[:, mt]
        return pd.DataFrame(columns, index=pd.RangeIndex(z.geo.nr_spb, name="spb"))

    @alone
    def tainted(self) -> int:
        """Number of tainted superpageblocks."""
        return int(self.state.count[C.TAINTED_SPBS])

    @alone
    def picture(self) -> pictures.Picture:
        """One letter a pageblock, superpageblocks apart: a string of the letters and nothing else.

        Printed, it fits the terminal and says what its letters mean; where a superpageblock is longer than a
        line, a letter stands for several pageblocks.
        """
        return pictures.picture(self.state)

    @alone
    def _repr_html_(self) -> str:
        """The zone as tiles, one a superpageblock, with a legend: what a notebook shows."""
        contents = read_contents(self.state, absent_pageblocks(self.state))
        category = read_places(self.state)[0].tolist()
        free = self.state.spb.nr_free_pages.tolist()
        free_pb = self.state.spb.nr_free_pb.tolist()
        titles = []
        for spb, code in enumerate(category):
            name = SpbCategory(code).name.lower() if code >= 0 else "without memory"
            pfn = (spb << self.state.geo.spb_shift) + self._base
            titles.append(
                f"superpageblock {spb}, pfn {pfn:#x}: {name}, {free[spb]:,} pages free, "
                f"{free_pb[spb]} pageblocks wholly free"
            )
        note = (
            "A cell is a pageblock of 2 MiB, by the pages in use in it; the more of it is free, the paler. "
            "Red frame: tainted; broken frame: empty."
        )
        return tiles_html(contents, category, titles, repr(self)[1:-1], note)

    @alone
    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        check_zone(self.state, self.policy)

    @alone
    def __repr__(self) -> str:
        free = self.nr_free_pages() * PAGE_SIZE / 2**20
        size = self.nr_pages * PAGE_SIZE / 2**20
        return f"<Zone {size:g} MiB at pfn {self.start_pfn:#x}, {free:g} MiB free, {self.tainted()} tainted>"
