"""What every pageblock of a zone holds at this moment, as the two bytes of spbfast/tiles/pageblocks.py.

Reads the state, with numpy, and changes nothing; a machine of 247 GiB takes some milliseconds.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import LIST_ISOLATED, NR_REQUEST_MT, PB_PAGES
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.page_state import CODE_PINNED, CODE_SHIFT, STATE_HOLE, states_of
from spbfast.tiles import pageblocks as tiles

_WEIGHTS = 1 << np.arange(NR_REQUEST_MT, dtype=np.uint8)


def absent_pageblocks(z: ZoneState) -> np.ndarray:
    """Pageblocks of the arrays that have no memory: bool [pageblocks]. Holes never come or go."""
    first = np.arange(z.geo.nr_pb) * PB_PAGES
    last = first + PB_PAGES - 1
    return (states_of(z.page, first) == STATE_HOLE) & (states_of(z.page, last) == STATE_HOLE)


def read_contents(z: ZoneState, absent: np.ndarray) -> tiles.Contents:
    """The pageblocks of a zone: types in use, contiguous allocations, pins, labels, free share, marks.

    Parameters
    ----------
    absent : bool [pageblocks]
        From `absent_pageblocks`.
    """
    nr_pb = z.geo.nr_pb
    used = z.pb.used[:nr_pb].astype(np.int64)
    held = (used[:, NR_REQUEST_MT] > 0) | np.repeat(z.spb.list == LIST_ISOLATED, nr_pb // z.geo.nr_spb)
    what = ((used[:, :NR_REQUEST_MT] > 0) @ _WEIGHTS).astype(np.uint8)
    what |= np.where(held, tiles.HELD, 0).astype(np.uint8)
    what |= np.where(pinned_pageblocks(z), tiles.PINNED, 0).astype(np.uint8)
    what |= z.pb.label[:nr_pb].astype(np.uint8) << tiles.LABEL_SHIFT
    room = tiles.room_level(PB_PAGES - used.sum(axis=1))
    room |= (z.pb.bits[:nr_pb].astype(np.uint8) & tiles.TYPES) << tiles.MARK_SHIFT
    what[absent], room[absent] = tiles.NO_MEMORY << tiles.LABEL_SHIFT, 0
    return tiles.Contents(what, room)


def pinned_pageblocks(z: ZoneState) -> np.ndarray:
    """Pageblocks that hold a block which cannot be migrated though it was asked for as movable."""
    nr_spb, nr_pb = z.geo.nr_spb, z.geo.nr_pb
    found = np.zeros((nr_spb, nr_pb // nr_spb), bool)
    spb_pages = z.geo.nr_pages // nr_spb
    for spb in np.flatnonzero(z.spb.pinned[:nr_spb]).tolist():
        states = states_of(z.page, slice(spb * spb_pages, (spb + 1) * spb_pages))
        found[spb] = (states.reshape(-1, PB_PAGES) >> CODE_SHIFT == CODE_PINNED).any(axis=1)
    return found.reshape(nr_pb)
