"""Sums and indices of free blocks by order, in Python's unbounded integers.

Owns the arithmetic on one row of counts, of any number of orders. A foreign file may print any number.
"""

from __future__ import annotations

from collections.abc import Sequence

from spbfast.freeindex import fragmentation_thousandths, unusable_thousandths


def pages_in(blocks: Sequence[int]) -> int:
    """Pages in blocks by order."""
    return sum(count << order for order, count in enumerate(blocks))


def usable_in(blocks: Sequence[int], order: int) -> int:
    """Pages in blocks of at least an order."""
    return sum(count << o for o, count in enumerate(blocks) if o >= order)


def extfrag_of(blocks: Sequence[int], order: int) -> int:
    """The extfrag index in thousandths: -1000 where a block is large enough, 0 where nothing is free."""
    if not any(blocks):
        return 0
    if usable_in(blocks, order):
        return -1000
    return fragmentation_thousandths(pages_in(blocks), sum(blocks), order)


def unusable_of(blocks: Sequence[int], order: int) -> int:
    """The unusable-free index in thousandths: 1000 where nothing is free."""
    free = pages_in(blocks)
    return unusable_thousandths(free, usable_in(blocks, order)) if free else 1000


def highest_order(blocks: Sequence[int]) -> int:
    """The highest order with a free block, -1 where nothing is free."""
    return max((o for o, count in enumerate(blocks) if count), default=-1)
