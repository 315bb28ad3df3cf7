"""The kernel's two fragmentation indices as whole-number arithmetic.

Owns the formulas that /sys/kernel/debug/extfrag prints, in thousandths. They work on plain integers of any
size and on int64 arrays alike; who calls them brings the sums and the special cases.
"""

from __future__ import annotations

from typing import Any


def fragmentation_thousandths(free_pages: Any, nr_blocks: Any, order: int) -> Any:
    """Why a request fails: towards 0 for lack of memory, towards 1000 for fragmentation.

    Parameters
    ----------
    free_pages, nr_blocks : int or ndarray
        Free pages and free blocks of all orders; at least one block.
    order : int
        Order of the request; no free block is large enough for it.

    Notes
    -----
    Source: fragmentation_index of mm/vmstat.c, which prints -1.000 where a block is large enough.
    """
    return 1000 - (1000 + free_pages * 1000 // (1 << order)) // nr_blocks


def unusable_thousandths(free_pages: Any, usable_pages: Any) -> Any:
    """Share of the free memory that a request cannot use.

    Parameters
    ----------
    free_pages, usable_pages : int or ndarray
        Free pages, at least one, and those of them in blocks that are large enough.

    Notes
    -----
    Source: unusable_free_index of mm/vmstat.c, which prints 1.000 where nothing is free.
    """
    return (free_pages - usable_pages) * 1000 // free_pages
