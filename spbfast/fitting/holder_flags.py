"""Who asked for a block, as far as the request's flags tell: files, slab caches, anonymous memory, others.

Owns the rules and the bits of flags as numbers. The kernel prints no owner with an allocation. Its callers
differ by flags, though: the page cache asks with __GFP_WRITE, or for readahead with NORETRY and NOWARN, or
for a block device without HIGHMEM; SLUB asks with COMP, NORETRY and NOWARN; faults of anonymous memory with
ZERO. What a capture says of pages that were still held at its end goes before a rule (page_lives.py).

Source: filemap.h, mm/readahead.c, mm/slub.c (allocate_slab, alloc_slab_page), include/linux/gfp_types.h,
Linux 4.20 to 6.19.
"""

from __future__ import annotations

import enum
import re

from spbfast.constants import MOVABLE, PB_ORDER, RECLAIMABLE
from spbfast.observed.gfp import decode_gfp, kernel_tuple
from spbfast.observed.page_classes import PageClass

# ___GFP_* since 4.20, those that tell callers apart.
_BITS = {
    0x02: "HIGHMEM",
    0x08: "MOVABLE",
    0x10: "RECLAIMABLE",
    0x100: "ZERO",
    0x1000: "WRITE",
    0x2000: "NOWARN",
    0x8000: "NOFAIL",
    0x10000: "NORETRY",
    0x40000: "COMP",
    0x400000: "ACCOUNT",
}
NUMBERS_SINCE = (4, 20)
_NUMBER = re.compile("0x[0-9a-fA-F]{1,16}")


class Holder(enum.IntEnum):
    """Who holds a block."""

    ANON = 0
    HUGE = 1
    PAGE_CACHE = 2
    SLAB = 3
    PAGE_TABLE = 4
    OTHER = 5


NAMES = tuple(holder.name.lower() for holder in Holder)
OF_PAGE_CLASS = {
    PageClass.ANON: Holder.ANON,
    PageClass.HUGE: Holder.HUGE,
    PageClass.PAGE_CACHE: Holder.PAGE_CACHE,
    PageClass.SLAB: Holder.SLAB,
    PageClass.PAGE_TABLE: Holder.PAGE_TABLE,
}


def flag_names(flags: int | str, kernel: str) -> frozenset[str] | None:
    """Flags without ``__GFP_``; None where they are a number whose meaning this kernel's version hides.

    Parameters
    ----------
    flags : int or str
        As the event has them: the number, or what the kernel prints for it.
    kernel : str
        Version of the kernel, empty if unknown: numbers are then read as since 4.20.
    """
    if isinstance(flags, str) and not _NUMBER.fullmatch(flags):
        return decode_gfp(flags).names
    value = int(flags, 16) if isinstance(flags, str) else flags
    version = kernel_tuple(kernel)
    if value < 0 or (version is not None and version < NUMBERS_SINCE):
        return None
    return frozenset(name for bit, name in _BITS.items() if value & bit)


def holder_of(flags: frozenset[str] | None, order: int, mt: int) -> Holder:
    """Who asked, by the rules above; OTHER where no rule says."""
    if flags is None:
        return Holder.OTHER
    is_quiet = {"NORETRY", "NOWARN"} <= flags
    if mt == MOVABLE:
        return _movable_holder(flags, order, is_quiet)
    if mt == RECLAIMABLE or (is_quiet and "COMP" in flags):
        return Holder.SLAB
    if "NOFAIL" in flags:
        return Holder.PAGE_CACHE
    return Holder.PAGE_TABLE if {"ZERO", "ACCOUNT"} <= flags and order <= 1 else Holder.OTHER


def _movable_holder(flags: frozenset[str], order: int, is_quiet: bool) -> Holder:
    if "WRITE" in flags or "HIGHMEM" not in flags:
        return Holder.PAGE_CACHE
    if order >= PB_ORDER:
        return Holder.HUGE
    return Holder.PAGE_CACHE if is_quiet and "ZERO" not in flags else Holder.ANON
