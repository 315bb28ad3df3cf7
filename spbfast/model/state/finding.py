"""What a walker of check_zone found wrong: rule, field, index, expected and found value.

Owns the rules about pages and lists, whose words are in check.py, and the form of a finding. The walkers are
scan_lists.py, scan_pages.py and scan_owned.py. They share no code with the allocator but the decoders of
page_state.py and slots.py, so that a slip there can't hide here, and write nothing but tallies and one
finding. A kernel returns 1 when it found something.
"""

from __future__ import annotations

import enum

from spbfast.jit.decorators import inline_kernel
from spbfast.model.state.layout import FIELDS

UNKNOWN = -(1 << 62)  # expected value that nothing tells
NR_FINDING = 5


class Rule(enum.IntEnum):
    """What can be wrong about pages and lists; the text is in check.py."""

    LINK = 1
    ON_ITS_LIST = 2
    IN_A_BLOCK = 3
    OUTSIDE = 4
    BLOCK_FITS = 5
    TYPE_EXISTS = 6
    LABEL = 7
    MERGED = 8
    OWNER = 9
    SLOT = 10
    SLOT_BACK = 11
    CONTIG = 12
    OWNED = 13
    SWAPPED = 14


# What a finding may name: a field of the table, or a part of a page's record (page_state.py).
RECORD_PARTS = ("page.next", "page.prev", "page.state")
PLACES = (*(field.path for field in FIELDS), *RECORD_PARTS)
NEXT, PREV, STATE = (PLACES.index(path) for path in RECORD_PARTS)
PB_LABEL, SLOTS = PLACES.index("pb.label"), PLACES.index("slots.link")


@inline_kernel
def find(finding, rule, field, index, expected, found):
    """Note what is wrong; 1."""
    finding[0] = rule
    finding[1] = field
    finding[2] = index
    finding[3] = expected
    finding[4] = found
    return 1
