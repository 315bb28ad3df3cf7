"""Memory as text: one letter a pageblock, superpageblocks apart; for humans and for tests.

Owns the letters and what is said of them. `.` is free, `M`, `U`, `R` hold movable, unmovable or reclaimable
pages, `T` movable and one other type, `X` unmovable and reclaimable; small letters have free pages left. `#`
belongs to a contiguous allocation, `-` has no memory. Letters go by content bits, as the allocator does.
A picture is a string of the letters; printed, it fits the terminal and says what the letters in it mean.
`Zone.from_picture` builds a zone from a picture, which takes requests.
"""

from __future__ import annotations

import shutil

import numpy as np

from spbfast.constants import LIST_ISOLATED, MOVABLE, NR_REQUEST_MT, PB_PAGES, RECLAIMABLE, UNMOVABLE
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.page_state import STATE_HOLE, states_of
from spbfast.text import quote_value

_U, _M, _R = 1 << UNMOVABLE, 1 << MOVABLE, 1 << RECLAIMABLE
# Letter of a pageblock by its content bits; no bits: free, or edges of the zone that nothing used yet.
_LETTERS = {0: ".", _U: "U", _M: "M", _R: "R", _U | _M: "T", _R | _M: "T", _U | _R: "X", _U | _M | _R: "X"}
# How `Zone.from_picture` makes a pageblock out of four movable blocks of order 7, by capital and small
# letter: how many of the four to free at first, what to request in their place, and how many of the
# blocks then there, the last ones first, to free at the end.
Stroke = tuple[int, tuple[tuple[int, int], ...], int]
STROKES: dict[str, tuple[Stroke, Stroke]] = {
    ".": ((0, (), 4), (0, (), 4)),
    "M": ((0, (), 0), (0, (), 2)),
    "U": ((4, ((9, UNMOVABLE),), 0), (4, ((8, UNMOVABLE), (8, UNMOVABLE)), 1)),
    "R": ((4, ((9, RECLAIMABLE),), 0), (4, ((8, RECLAIMABLE), (8, RECLAIMABLE)), 1)),
    "T": ((2, ((8, UNMOVABLE),), 0), (2, ((8, UNMOVABLE),), 1)),
    "X": (
        (4, ((8, UNMOVABLE), (8, RECLAIMABLE)), 0),
        (4, ((8, UNMOVABLE), (7, RECLAIMABLE), (7, RECLAIMABLE)), 1),
    ),
}
BUILDABLE = ".MURTXmurtx"
MAX_COLUMNS = 110  # longer pictures have a line for each superpageblock
MEANINGS = {
    ".": "free",
    "M": "movable",
    "U": "unmovable",
    "R": "reclaimable",
    "T": "movable beside one of them",
    "X": "unmovable and reclaimable",
    "#": "contiguous allocation",
    "-": "no memory",
    "?": "unknown",
}
_TYPES_OF = {".": 0, "M": _M, "U": _U, "R": _R, "T": _U | _M, "X": _U | _R}


class Picture(str):
    """The letters of a zone; as a string they are nothing else, printed they come with their meaning."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.fitted(shutil.get_terminal_size().columns)

    def __repr__(self) -> str:
        return str(self)

    def fitted(self, columns: int) -> str:
        """The picture in lines of at most `columns`, and below what its letters mean.

        Where a superpageblock has more pageblocks than a line has room, a letter stands for several.
        """
        groups = self.split()
        width = max(columns, 20)
        each = 1
        while -(-len(max(groups, key=len)) // each) > width:
            each *= 2
        lines = _filled([_condensed(group, each) for group in groups], width)
        return "\n".join([*lines, "", *_filled(_meanings(lines, each), width, ", ")])


def _filled(words: list[str], width: int, gap: str = " ") -> list[str]:
    """Words in as few lines as they fit, in their order."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + len(gap) + len(word) <= width:
            lines[-1] += gap + word
        else:
            lines.append(word)
    return lines


def _condensed(group: str, each: int) -> str:
    """One letter for so many pageblocks."""
    if each == 1:
        return group
    return "".join(_letter_for(group[i : i + each]) for i in range(0, len(group), each))


def _letter_for(letters: str) -> str:
    """The letter of several pageblocks together: all that is in them, small if any has free pages."""
    present = letters.replace("-", "") or "-"
    if len(set(present)) == 1:
        return present[0]
    if not set(present.upper()) <= set(_TYPES_OF):
        return max(present, key=present.count)
    types = 0
    for letter in present.upper():
        types |= _TYPES_OF[letter]
    return _LETTERS[types].lower()


def _meanings(lines: list[str], each: int) -> list[str]:
    """What the letters of some lines mean, those that occur alone."""
    seen = set("".join(lines)) - {" "}
    told = [f"{letter} {text}" for letter, text in MEANINGS.items() if {letter, letter.lower()} & seen]
    small = ["small letters have free pages"] if any(letter.islower() for letter in seen) else []
    return [*told, *small, f"a letter is {each} pageblocks" if each > 1 else "a letter is a pageblock"]


def pageblock_letters(z: ZoneState) -> list[str]:
    """The letter of every pageblock of the arrays, those without memory included."""
    nr_pb, geo = z.geo.nr_pb, z.geo
    first = np.arange(nr_pb) * PB_PAGES
    pages = np.minimum(first + PB_PAGES, geo.hi) - np.maximum(first, geo.lo)
    used = z.pb.used[:, :NR_REQUEST_MT].sum(axis=1, dtype=np.int64)
    hole = (states_of(z.page, first) == STATE_HOLE) & (states_of(z.page, first + PB_PAGES - 1) == STATE_HOLE)
    held = np.repeat(z.spb.list == LIST_ISOLATED, nr_pb // geo.nr_spb)
    out = []
    for pb in range(nr_pb):
        letter = _LETTERS.get(int(z.pb.bits[pb]) & (_U | _M | _R), "?")
        if used[pb] < pages[pb]:
            letter = letter.lower()
        out.append("-" if hole[pb] else "#" if held[pb] else letter)
    return out


def picture(z: ZoneState) -> Picture:
    """Text picture of a zone, e.g. ``MMMM.... UM...... ........``."""
    letters = pageblock_letters(z)
    per_spb = z.geo.nr_pb // z.geo.nr_spb
    groups = ["".join(letters[i : i + per_spb]) for i in range(0, len(letters), per_spb)]
    groups[-1] = groups[-1].rstrip("-")
    text = " ".join(groups)
    return Picture(text if len(text) <= MAX_COLUMNS else "\n".join(groups))


def parse_picture(text: str) -> list[str]:
    """The superpageblocks of a picture, each a string of letters.

    Raises
    ------
    ValueError
        Unknown letters, or superpageblocks of lengths that no zone has.
    """
    if not isinstance(text, str):
        raise ValueError(f"a picture is text such as 'UM.. ....', got {quote_value(text)}")
    groups = text.split()
    if not groups:
        raise ValueError("an empty picture")
    for letter in "".join(groups):
        if letter not in BUILDABLE:
            raise ValueError(f"a pageblock can't be made {letter!r}; letters are {BUILDABLE}")
    length = len(groups[0])
    if length < 2 or length & (length - 1):
        raise ValueError(f"a superpageblock has a power of two of pageblocks, at least 2, not {length}")
    for i, group in enumerate(groups):
        last = i == len(groups) - 1
        if len(group) != length and not (last and len(group) < length):
            raise ValueError(f"superpageblock {i} has {len(group)} pageblocks, the first one {length}")
        if len(group) % 2:
            raise ValueError(f"superpageblock {i} has {len(group)} pageblocks; it must be an even number")
    return groups
