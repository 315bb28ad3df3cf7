"""The HIGHATOMIC reserve in both twins: whole pageblocks for callers that cannot block.

Owns how many there may be, who takes from them, how a pageblock joins and leaves. A reserved pageblock is
labelled HIGHATOMIC; its superpageblock counts as tainted, whatever else is in it.
"""

from __future__ import annotations

from tests.reference.freelists import FreeLists
from tests.reference.words import (
    HIGHATOMIC,
    MAX_ORDER,
    MOVABLE,
    NR_ORDERS,
    PB_ORDER,
    PB_PAGES,
    RECLAIMABLE,
    UNMOVABLE,
)


def most_reserved(lists: FreeLists) -> int:
    """Pageblocks that may be reserved: 1 % of the zone, rounded up; none below a hundred pageblocks."""
    share = (lists.end - lists.start) // 100
    return 0 if share < PB_PAGES else -(-share // PB_PAGES)


def nr_reserved(lists: FreeLists) -> int:
    return sum(label == HIGHATOMIC for label in lists.label)


def join_reserve(lists: FreeLists, pfn: int, order: int) -> list[int]:
    """Reserve the pageblocks of a block that was just handed out; those that joined."""
    pbs = lists.pbs_of(pfn, order)
    if nr_reserved(lists) >= most_reserved(lists):
        return []
    if lists.label[pbs[0]] not in (UNMOVABLE, MOVABLE, RECLAIMABLE):
        return []
    if order < PB_ORDER:
        if not lists.is_whole(pbs[0]):
            return []
        lists.relabel_partial(pbs[0], HIGHATOMIC)
    for pb in pbs:
        lists.label[pb] = HIGHATOMIC
    return list(pbs)


def leave_reserve(lists: FreeLists, spbs: list[int], mt: int, *, force: bool) -> list[int]:
    """Turn the pageblocks of the smallest reserved free block into `mt`; those that left.

    `spbs` are looked at in this order. The last reserved pageblock stays unless forced.
    """
    if not force and nr_reserved(lists) <= 1:
        return []
    for order in range(NR_ORDERS):
        for spb in spbs:
            head = lists.head(spb, order, HIGHATOMIC)
            if head is None:
                continue
            pbs = lists.pbs_of(head, order)
            if order < PB_ORDER:
                lists.relabel_partial(pbs[0], mt)
                return [pbs[0]]
            lists.unlink(head)
            for pb in pbs:
                lists.label[pb] = mt
            if order == PB_ORDER:
                lists.free_piece(head, order, to_tail=True)  # joins its buddy
            else:
                lists.add(head, order, mt, tail=True)
            return list(pbs)
    return []


def take_smallest_reserved(lists: FreeLists, order: int) -> int | None:
    """Mainline: the smallest reserved block that is large enough."""
    for c in range(order, MAX_ORDER + 1):
        head = lists.head(0, c, HIGHATOMIC)
        if head is not None:
            return lists.take(head, order)
    return None
