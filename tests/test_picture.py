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


def test_a_printed_picture_says_what_its_letters_mean_and_fits() -> None:
    zone = Zone.from_picture("MMMM.... UM...... TtMMrr..")
    shown = zone.picture().fitted(40)
    assert max(map(len, shown.splitlines())) <= 40
    for text in (". free", "M movable", "U unmovable", "R reclaimable", "small letters have free pages"):
        assert text in shown
    assert "X " not in shown, "letters that do not occur are not explained"
    assert str(zone.picture()).startswith("MMMM....")
    assert zone.picture().split()[0] == "MMMM....", "as a string it is the letters alone"


def test_a_letter_stands_for_several_pageblocks_where_lines_are_short() -> None:
    zone = Zone("2GiB")
    zone.alloc(9)
    zone.alloc(0, mt=0)
    lines = zone.picture().fitted(80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "a letter is 8 pageblocks" in lines[-1]
    assert {lines[0][0], lines[1][0]} == {"m", "u"}
