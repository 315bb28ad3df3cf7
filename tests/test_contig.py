"""Contiguous allocation of whole superpageblocks: empty ones first, then the emptiest clean one."""

from __future__ import annotations

import pytest

from spbfast.constants import Outcome
from spbfast.zone import Zone

LOOSE = {"preset": "v1@45", "reserve_floor": 0, "reserve_shift": -1}
START = 0x100000
PAGES = 4 * 512


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("UM.. MM.. ....", "UM.. MM.. ####", Outcome.CONTIG_EMPTY),
        ("MM.. M... MMM.", "MM.. #### MMM.", Outcome.CONTIG_EMPTIED),
        ("U... M... UU..", None, Outcome.NO_PAGE),
        ("MMMM MMMM MMMM", None, Outcome.NO_PAGE),
        ("UU.. RR.. UR..", None, Outcome.NO_PAGE),
    ],
)
def test_where_it_comes_from(before: str, after: str | None, outcome: Outcome) -> None:
    zone = Zone.from_picture(before, LOOSE)
    pfn = zone.contig()
    assert zone.last.outcome == outcome
    if after is None:
        assert pfn == -1
        assert zone.picture() == before
    else:
        assert (pfn - START) % PAGES == 0
        held = zone.picture().split().index("####")
        assert held == after.split().index("####")
        assert zone.superpageblocks().category[held] == "isolated"
    zone.check()


def test_it_comes_back_whole() -> None:
    zone = Zone.from_picture("UM.. .... ....", LOOSE)
    before = zone.nr_free_pages()
    first, second = zone.contig(), zone.contig()
    assert {first, second} == {START + PAGES, START + 2 * PAGES}
    assert zone.contig() == -1
    assert zone.nr_free_pages() == before - 2 * PAGES
    zone.check()
    zone.free_many([second, first])
    assert zone.nr_free_pages() == before
    assert zone.picture() == "UM.. .... ...."
    zone.check()


@pytest.mark.compiled
def test_nothing_is_allocated_inside_a_held_one() -> None:
    zone = Zone.from_picture("MM.. ....", LOOSE)
    first = zone.contig()
    pfns = zone.alloc_many(5000, 0, 0)
    got = pfns[pfns >= 0]
    assert got.size
    assert not ((got >= first) & (got < first + PAGES)).any()
    zone.check()


def test_a_short_superpageblock_never_qualifies() -> None:
    zone = Zone.from_picture("MMMM ..", LOOSE)
    assert zone.contig() == -1
    zone.check()


def test_candidates_are_bounded() -> None:
    """A migration that fails ends its candidate; further ones are tried up to the bound."""
    for most, outcome in ((0, Outcome.NO_PAGE), (1, Outcome.CONTIG_EMPTIED)):
        zone = Zone.from_picture("M... MM.. MM..", {**LOOSE, "contig_max_candidates": most})
        zone.contig()
        assert zone.last.outcome == outcome
        assert zone.last.visited == most
        zone.check()


def test_switched_off() -> None:
    zone = Zone.from_picture(".... ....", {**LOOSE, "contig": False})
    assert zone.contig() == -1
