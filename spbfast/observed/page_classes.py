"""What a page holds, by the flags that the kernel publishes in /proc/kpageflags.

Owns the classes, their order and the bits. A page is in the first class that its flags allow.
"""

from __future__ import annotations

import enum

import numpy as np

# Bits of /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
_LRU, _ACTIVE, _SLAB, _BUDDY, _ANON, _SWAPBACKED = 5, 6, 7, 10, 12, 14
_HUGETLB, _HWPOISON, _NOPAGE, _THP, _OFFLINE, _PGTABLE = 17, 19, 20, 22, 23, 26
_MMAP = 11
_RESERVED = 32


class PageClass(enum.IntEnum):
    """What a page holds."""

    FREE = 0  # on the free lists; pages on per-CPU lists are OTHER
    ANON = 1
    HUGE = 2  # transparent huge pages of anonymous memory, and hugetlb
    PAGE_CACHE = 3  # files, and shared memory
    SLAB = 4
    PAGE_TABLE = 5
    RESERVED = 6  # reserved, absent, offline or poisoned
    OTHER = 7


NR_PAGE_CLASSES = len(PageClass)
ON_LRU = 0x10  # beside the class in the byte of a page
ON_ACTIVE = 0x20  # on an active list: used again of late


def _has(flags: np.ndarray, *bits: int) -> np.ndarray:
    mask = np.uint64(sum(1 << bit for bit in bits))
    return (flags & mask) != 0


def page_bytes(flags: np.ndarray) -> np.ndarray:
    """Class of each page and its LRU list: uint8, `PageClass` with `ON_LRU` and `ON_ACTIVE`."""
    out = np.full(len(flags), PageClass.OTHER, np.uint8)
    lru, anon = _has(flags, _LRU), _has(flags, _ANON)
    out[lru | _has(flags, _MMAP, _SWAPBACKED)] = PageClass.PAGE_CACHE
    out[anon] = PageClass.ANON
    out[anon & _has(flags, _THP)] = PageClass.HUGE
    out[_has(flags, _HUGETLB)] = PageClass.HUGE
    out[_has(flags, _PGTABLE)] = PageClass.PAGE_TABLE
    out[_has(flags, _SLAB)] = PageClass.SLAB
    out[_has(flags, _RESERVED, _HWPOISON, _NOPAGE, _OFFLINE)] = PageClass.RESERVED
    out[_has(flags, _BUDDY)] = PageClass.FREE
    out[lru] |= ON_LRU
    out[lru & _has(flags, _ACTIVE)] |= ON_ACTIVE
    return out


def count_classes(pages: np.ndarray, pageblock_pages: int) -> np.ndarray:
    """Pages of each class by pageblock: int64 [pageblocks, NR_PAGE_CLASSES]; a last short block counts."""
    nr = -(-len(pages) // pageblock_pages)
    block = np.repeat(np.arange(nr), pageblock_pages)[: len(pages)]
    both = block * NR_PAGE_CLASSES + (pages & 0x0F)
    return np.bincount(both, minlength=nr * NR_PAGE_CLASSES).reshape(nr, NR_PAGE_CLASSES)
