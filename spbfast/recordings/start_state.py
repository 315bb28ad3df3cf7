"""The zone as it was when a capture began: which pages were free, in which blocks, of which type.

Owns what is exact and what is guessed. Which pages were free follows from the page flags and from the events
that came while they were read; free blocks follow from free pages, because the kernel always merges buddies.
Types of pageblocks are start_types.py's. The order of the lists at that moment is not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.constants import MAX_ORDER, MAX_ZONE_PAGES, PB_ORDER, PB_PAGES, Mt
from spbfast.errors import DumpError
from spbfast.model.loop.recorded_pages import PAGE_ALLOC, X_OP, X_ORDER, X_PFN
from spbfast.observed import capture_file as container
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.page_classes import ON_LRU, PageClass
from spbfast.recordings.start_types import ReclaimableTable, managed_pageblocks, pageblock_types

UNMANAGED = -1  # in use, and not by anybody who could free it


@dataclass
class CapturedZone:
    """One zone of a capture at one moment.

    Attributes
    ----------
    name : str
    start_pfn, pages : int
    pages_of : ndarray
        uint8 [pages], as `page_bytes` makes them; `RESERVED` where the capture has none.
    start_ns, end_ns : int
        When the first page was read, and the last.
    node : int
    """

    name: str
    start_pfn: int
    pages: int
    pages_of: np.ndarray
    start_ns: int
    end_ns: int
    node: int = 0


@dataclass
class StartState:
    """Free blocks, held pages and types at the start, by page index of the simulated zone.

    Attributes
    ----------
    blocks : ndarray
        int64 [n, 2], page and order, ascending.
    held : ndarray
        int8 [pages], type that each page is taken to have been asked for as, -1 where it is not held.
    labels : ndarray
        int8 [pageblocks].
    managed : ndarray
        bool [pageblocks], whether a pageblock holds anything of a known class.
    guessed : int
        Of those, pageblocks whose type no event shows.
    """

    blocks: np.ndarray
    held: np.ndarray
    labels: np.ndarray
    managed: np.ndarray
    guessed: int = 0


def captured_zones(path: Path, moment: str = "before") -> list[CapturedZone]:
    """Zones whose pages a capture holds, those recorded with ``--pages``.

    Raises
    ------
    DumpError
        When the file is damaged.
    """
    parts: dict[tuple[int, str], list[tuple[dict[str, int], np.ndarray]]] = {}
    for tag, data in read_chunks(path):
        if tag != container.PAGES:
            continue
        head, _, body = data.partition(b"\n")
        about = json_mapping(path, head)
        if about.get("moment") == moment:
            key = _number(path, about, "node"), str(about.get("zone"))
            numbers = {name: _number(path, about, name) for name in ("first_pfn", "start_ns", "end_ns")}
            parts.setdefault(key, []).append((numbers, np.frombuffer(body, np.uint8)))
    return [_joined(path, node, name, found) for (node, name), found in parts.items()]


def _number(path: Path, about: dict[str, object], name: str) -> int:
    value = about.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise DumpError(path, 0, f"pages of the capture have no {name}")
    return value


def _joined(path: Path, node: int, name: str, parts: list[tuple[dict[str, int], np.ndarray]]) -> CapturedZone:
    first = min(about["first_pfn"] for about, _ in parts)
    nr = max(about["first_pfn"] + len(pages) for about, pages in parts) - first
    if nr > MAX_ZONE_PAGES:
        raise DumpError(path, 0, f"zone {name} of the capture has {nr} pages; the limit is {MAX_ZONE_PAGES}")
    out = np.full(nr, PageClass.RESERVED, np.uint8)
    for about, pages in parts:
        at = about["first_pfn"] - first
        out[at : at + len(pages)] = pages
    start = min(about["start_ns"] for about, _ in parts)
    end = max(about["end_ns"] for about, _ in parts)
    return CapturedZone(name, first, nr, out, start, end, node)


def start_of(
    zone: CapturedZone,
    base: int,
    nr_pages: int,
    early: np.ndarray,
    shown: Iterator[tuple[np.ndarray, np.ndarray]],
    table: ReclaimableTable | None = None,
) -> StartState:
    """The start of a replay.

    Parameters
    ----------
    zone : CapturedZone
    base, nr_pages : int
        Page frame of the simulated zone's page index 0, and its number of pages.
    early : ndarray
        Rows of events between `zone.start_ns` and `zone.end_ns`: they tell of pages read later.
    shown : iterator of (pageblock, type)
        Types that events show, in the order of time.
    table : ReclaimableTable, optional
        The kernel's own table.
    """
    first = zone.start_pfn - base
    of_page = np.full(nr_pages, PageClass.RESERVED, np.uint8)
    of_page[first : first + zone.pages] = zone.pages_of
    is_free = (of_page & 0x0F) == PageClass.FREE
    _correct(is_free, early)
    labels, nr_shown = pageblock_types(of_page, is_free, shown, table)
    held = np.where(is_free, -1, _asked_as(of_page, labels)).astype(np.int8)
    held[(of_page & 0x0F) == PageClass.RESERVED] = UNMANAGED
    held[is_free] = UNMANAGED
    managed = managed_pageblocks(of_page)
    guessed = max(int(managed.sum()) - nr_shown, 0)
    return StartState(free_blocks(is_free, labels), held, labels, managed, guessed)


def _correct(is_free: np.ndarray, early: np.ndarray) -> None:
    """The first event of a page after the start tells what it was at the start."""
    size = np.int64(1) << early[:, X_ORDER]
    pages = np.repeat(early[:, X_PFN], size) + _within(size)
    was_free = np.repeat(early[:, X_OP] == PAGE_ALLOC, size)
    is_free[pages[::-1]] = was_free[::-1]


def _within(size: np.ndarray) -> np.ndarray:
    """0, 1, .. size-1 for each size, one after the other."""
    ends = np.cumsum(size)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - size, size)


def _asked_as(of_page: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Types that pages in use were asked for as: movable where on an LRU list, else as the label says."""
    kinds = of_page & 0x0F
    movable = (of_page & ON_LRU > 0) | np.isin(kinds, (PageClass.ANON, PageClass.HUGE, PageClass.PAGE_CACHE))
    others = np.where(labels == Mt.RECLAIMABLE, int(Mt.RECLAIMABLE), int(Mt.UNMOVABLE))
    return np.where(movable, int(Mt.MOVABLE), np.repeat(others, PB_PAGES))


def free_blocks(is_free: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Free pages as the blocks that the kernel has them in: int64 [n, 2] of page and order, ascending.

    Two pageblocks of different types make one block only where neither is HIGHATOMIC.
    """
    rows = []
    level = is_free
    for order in range(MAX_ORDER + 1):
        pairs = level[0::2] & level[1::2] & (order < MAX_ORDER)
        if order == PB_ORDER:
            two = labels.reshape(-1, 2)
            pairs &= (two[:, 0] == two[:, 1]) | (two < Mt.HIGHATOMIC).all(axis=1)
        alone = level & ~np.repeat(pairs, 2)
        heads = np.flatnonzero(alone) << order
        rows.append(np.stack([heads, np.full(len(heads), order)], axis=1))
        level = pairs
    found = np.concatenate(rows).astype(np.int64)
    return found[np.argsort(found[:, 0], kind="stable")]
