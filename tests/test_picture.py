"""Pictures of memory: what a zone looks like, and zones made to look like a picture."""

from __future__ import annotations

import pytest

from spbfast.errors import ZoneError
from spbfast.model.state.picture import picture
from spbfast.zone import Zone

PICTURES = (
    "MMMM.... UM...... ........",
    "UURR .... MmMm urUR",
    "TtXx .... MMMM ....",
    ".. .. ..",
    "MM UU RR XX TT mm uu rr xx tt ..",
    "MMMMMMMM UUMM",
)


@pytest.mark.parametrize("policy", ["v1@30", "v1@15", "v2", "mainline"])
@pytest.mark.parametrize("text", PICTURES)
def test_zone_looks_like_its_picture(text: str, policy: str) -> None:
    zone = Zone.from_picture(text, policy)
    assert zone.picture() == picture(zone.state) == text
    zone.check()


def test_categories_follow_from_the_picture() -> None:
    zone = Zone.from_picture("MMMM.... UM...... ........ RMMMMMMM")
    table = zone.superpageblocks()
    assert table.category.tolist() == ["clean", "tainted", "empty", "tainted"]
    assert table.bucket.tolist() == [2, 3, 0, 0]
    assert zone.tainted() == 2


def test_small_letters_have_room() -> None:
    zone = Zone.from_picture("MmUu ....")
    used = zone.state.pb.used[:4, :3].sum(axis=1).tolist()
    assert used == [512, 256, 512, 256]


def test_holes_and_grabbed_memory() -> None:
    zone = Zone("12MiB", "mainline", spb_size="8MiB", start_pfn=0x100000 + 1024)
    assert zone.picture() == "--.. ...."
    zone = Zone.from_picture(".... U...")
    zone.contig()
    assert zone.picture() == "#### U..."


def test_long_pictures_have_a_line_a_superpageblock() -> None:
    zone = Zone("2GiB")
    assert zone.picture().splitlines() == ["." * 512] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty picture"),
        ("MM?M", r"a pageblock can't be made '\?'"),
        ("M#..", "a pageblock can't be made '#'"),
        ("MMM", "a power of two of pageblocks, at least 2, not 3"),
        ("MMMM MM MMMM", "superpageblock 1 has 2 pageblocks, the first one 4"),
        ("MMMM MMM", "superpageblock 1 has 3 pageblocks; it must be an even number"),
        ("MM MMMM", "superpageblock 1 has 4 pageblocks, the first one 2"),
    ],
)
def test_pictures_of_nothing(text: str, message: str) -> None:
    with pytest.raises(ZoneError, match=message):
        Zone.from_picture(text)
