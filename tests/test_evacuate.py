"""Evacuation and defragmentation in pictures: what moves, where to, and what it stops at."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, Mt, Req
from spbfast.model.state.page_state import states_of
from spbfast.zone import Zone

LOOSE = {"preset": "v1@45", "reserve_floor": 0, "reserve_shift": -1}


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        ("UM.. MM.. ....", "U... MMmm ....", 1),
        ("UMMM M... ....", "U... MMMM ....", 3),
        ("UMMM MMMM ....", "U... MMMM MMmm", 3),
        ("UMMM MMMM MMMM", "UMMM MMMM MMMM", 0),
        ("MMM. MM.. ....", "MMM. MM.. ....", 0),
        ("UUU. RR.. M...", "UUU. RR.. M...", 0),
        ("T... M... ....", "u... Mmm. ....", 0.5),
    ],
)
def test_movable_pages_leave_tainted_superpageblocks(before: str, after: str, moved: float) -> None:
    zone = Zone.from_picture(before, LOOSE)
    assert zone.evacuate(0, Mt.UNMOVABLE) == moved * PB_PAGES
    assert zone.last.moved == moved * PB_PAGES
    assert zone.picture() == after
    zone.check()


def held_heads(zone: Zone) -> np.ndarray:
    """Page frames at which blocks in use begin."""
    state = states_of(zone.state.page, slice(zone.state.geo.nr_pages))
    return np.flatnonzero((state >= 0) & (state & 15 <= 10)) + zone._base


def test_moves_follow_their_owners() -> None:
    """After an evacuation every block is freed by its new name, and nothing is lost."""
    zone = Zone.from_picture("UMMM M... ....", LOOSE)
    held = held_heads(zone)
    zone.evacuate(0, Mt.UNMOVABLE)
    now = held_heads(zone)
    assert now.size == held.size
    assert set(now.tolist()) != set(held.tolist())
    zone.free_many(now)
    zone.check()
    assert zone.nr_free_pages() == zone.nr_pages


def test_budgets_bound_an_evacuation() -> None:
    for nr_spb, nr_pb, moved in ((1, 1, 1), (1, 2, 2), (2, 1, 2), (0, 9, 0), (9, 0, 0), (9, 9, 4)):
        policy = {**LOOSE, "evacuate_max_superpageblocks": nr_spb, "evacuate_max_pageblocks": nr_pb}
        zone = Zone.from_picture("UMM. UMM. .... ....", policy)
        assert zone.evacuate(0, Mt.UNMOVABLE) == moved * PB_PAGES, (nr_spb, nr_pb)
        zone.check()


def test_label_decides_unless_any_will_do() -> None:
    for any_label, moved in ((False, 0), (True, PB_PAGES // 2)):
        zone = Zone.from_picture("T... M... ....", {**LOOSE, "evacuate_any_label": any_label})
        assert zone.pageblock_types()[0] == Mt.UNMOVABLE
        assert zone.evacuate(0, Mt.RECLAIMABLE) == moved
    zone = Zone.from_picture("T... M... ....", {**LOOSE, "evacuate_any_label": False})
    assert zone.evacuate(0, Mt.UNMOVABLE) == PB_PAGES // 2  # the requester's own type goes first


def test_evacuation_asks_for_a_shrink_only_with_slab_shrink() -> None:
    for switch in (True, False):
        zone = Zone.from_picture("UM.. ....", {**LOOSE, "slab_shrink": switch})
        zone.evacuate()
        assert bool(zone.last.requests & Req.SHRINK_AFTER_EVACUATION) is switch


def test_switched_off_it_does_nothing() -> None:
    zone = Zone.from_picture("UM.. ....", {**LOOSE, "evacuate": False, "defrag": False})
    assert zone.evacuate() == 0
    assert zone.defrag(0) == 0
    assert zone.last.requests == 0
    assert zone.picture() == "UM.. ...."


def test_defrag_stops_at_the_reserve() -> None:
    for floor, moved in ((1, 2), (2, 3)):
        policy = {"preset": "v1@45", "reserve_floor": floor, "reserve_shift": -1}
        zone = Zone.from_picture("UMMM MM.. ....", policy)
        assert zone.defrag(0) == moved * PB_PAGES
        assert zone.superpageblocks().free_pageblocks[0] == moved
        zone.check()


def test_defrag_leaves_clean_superpageblocks_alone() -> None:
    zone = Zone.from_picture("UMMM MMM. ....", LOOSE)
    assert zone.defrag(1) == zone.defrag(2) == 0
