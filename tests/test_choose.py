"""Choosing a superpageblock by lists or by bitmaps: where a page comes from, and what was looked at."""

from __future__ import annotations

import pytest

from spbfast.constants import WALK_SEARCHED, WALK_VISITED, C, Mt, Outcome
from spbfast.zone import Zone

PLAIN = {"preset": "v1@45", "preferred_hint": False, "reserve_floor": 0, "reserve_shift": -1}
U, M, R = int(Mt.UNMOVABLE), int(Mt.MOVABLE), int(Mt.RECLAIMABLE)


@pytest.mark.parametrize(
    ("before", "mt", "by_walk", "by_bitmap", "visited"),
    [
        # The fullest of the clean ones against the first one with a free pageblock.
        ("M... MMM. ....", M, "M... MMMM ....", "MM.. MMM. ....", (1, 1)),
        # A walk steps on full ones, bitmaps do not name them.
        ("MMMM MMMM M...", M, "MMMM MMMM MM..", "MMMM MMMM MM..", (3, 1)),
        # Nothing clean serves: a walk went past all of them before the empty one.
        ("MMMM MMMM ....", M, "MMMM MMMM ..M.", "MMMM MMMM ..M.", (3, 1)),
        # Unmovable pages into the tainted ones, likewise; claims look for movable pageblocks.
        ("UM.. UMM. ....", U, "UM.. UMMU ....", "UMU. UMM. ....", (3, 1)),
    ],
)
def test_where_it_comes_from(
    before: str, mt: int, by_walk: str, by_bitmap: str, visited: tuple[int, int]
) -> None:
    for by, after, looked in ((False, by_walk, visited[0]), (True, by_bitmap, visited[1])):
        zone = Zone.from_picture(before, {**PLAIN, "choose_by_bitmap": by})
        assert zone.alloc(9, mt) >= 0
        assert zone.picture() == after
        assert zone.last.visited == looked
        zone.check()


def test_visits_are_counted_by_rung() -> None:
    zone = Zone.from_picture("MMMM MMMM ....", PLAIN)
    zone.state.walks[:] = 0
    zone.alloc(0, M)
    searched, visited = zone.state.walks[WALK_SEARCHED], zone.state.walks[WALK_VISITED]
    assert (searched[Outcome.TAKE_PREFERRED], visited[Outcome.TAKE_PREFERRED]) == (1, 2)
    assert (searched[Outcome.TAKE_EMPTY_SUPERPAGEBLOCK], visited[Outcome.TAKE_EMPTY_SUPERPAGEBLOCK]) == (1, 1)
    assert visited.sum() == zone.last.visited


def test_hints_are_counted_and_visit_nothing() -> None:
    zone = Zone.from_picture("M... M...", {**PLAIN, "preferred_hint": True})
    zone.alloc(0, M)
    before = int(zone.state.count[C.HINTS_USED])
    zone.alloc(0, M)
    assert zone.state.count[C.HINTS_USED] == before + 1
    assert zone.last.visited == 0


# --- claims steered to tainted memory, on one set of lists (v1 12) ----------------------------------


def _steered(on: bool) -> Zone:
    """Four superpageblocks of four pageblocks; only the last is tainted, and all have a free pageblock."""
    zone = Zone("32MiB", {"preset": "mainline", "claim_prefers_tainted": on}, spb_size="8MiB", start_pfn=0)
    everything = zone.alloc_many(16, 9, M)
    zone.free(everything[12])
    zone.alloc(9, U)
    zone.free_many(everything[[8, 4, 14, 0]])  # heads of lists: what was freed last comes first
    return zone


def test_a_claim_prefers_a_tainted_superpageblock() -> None:
    for on, taints in ((False, 2), (True, 1)):
        zone = _steered(on)
        assert zone.tainted() == 1
        assert zone.alloc(0, R) >= 0
        assert zone.tainted() == taints
        zone.check()


def test_movable_claims_are_not_steered() -> None:
    zones = [_steered(on) for on in (False, True)]
    for zone in zones:
        zone.alloc_many(4, 9, M)
    assert zones[0].picture() == zones[1].picture()
