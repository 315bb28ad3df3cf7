"""Words and numbers that all parts of the reference twin share.

Owns the migratetypes, orders, request flags and outcome codes of the written semantics, and the
hash with which golden files fingerprint an ordered list.  It never imports the package under test:
a wrong constant there must show up as a difference, not as agreement.
"""

from __future__ import annotations

from collections.abc import Iterable

UNMOVABLE, MOVABLE, RECLAIMABLE, HIGHATOMIC, CMA = range(5)

MAX_ORDER = 10
NR_ORDERS = MAX_ORDER + 1
PB_ORDER = 9
PB_PAGES = 1 << PB_ORDER
HALF_PB_ORDER = PB_ORDER // 2

FLAG_CMA = 0x80
FLAG_NOFRAGMENT = 0x100
FLAG_TAINTED_OK = 0x1000
FLAG_OPTIONAL = 0x2000
FLAG_NON_BLOCK = 0x4000
FLAG_HIGHATOMIC = 0x8000

FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}

EMPTY, CLEAN, TAINTED, ISOLATED = range(4)

# Outcomes of an allocation, in the order of the ladder.
FAILED = 0
TAKE_PREFERRED = 1
CLAIM_WHOLE_PAGEBLOCK = 2
CLAIM_PARTIAL_PAGEBLOCK = 3
BORROW_NONMOVABLE = 4
TAKE_EMPTY_SUPERPAGEBLOCK = 5
MOVABLE_INTO_TAINTED = 6
BORROW_MOVABLE = 8
CLAIM_FALLBACK = (9, 10, 11)
STEAL_FALLBACK = 12
REFUSED_OPTIONAL = 13
CONTIG_EMPTY = 14
CONTIG_EMPTIED = 15
TAKE_HIGHATOMIC = 16

# Bits of an event's requests to the workers.
EVACUATE_FALLTHROUGH = 1
EVACUATE_CLAIM = 2
SHRINK_FALLTHROUGH = 4
SHRINK_CLAIM = 8
SHRINK_HIGH_WATER = 16
SHRINK_AFTER_EVACUATION = 32
DEFRAG_LIST_CHANGE = 64
DEFRAG_HIGH_WATER = 128
DEFRAG_BEFORE_EMPTY = 256
EVACUATE_CLAIMED = 512
BOOST = 1024


def list_hash(pfns: Iterable[int]) -> int:
    """Fingerprint of an ordered list of zone-relative pfns, head first (64 bits)."""
    value = 0xCBF29CE484222325
    for pfn in pfns:
        value = ((value ^ pfn) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
