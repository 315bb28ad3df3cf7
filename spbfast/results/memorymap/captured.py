"""Films of running machines: what a capture says of every pageblock, before and after.

Owns the translation from the kernel's page flags to the kinds of tiles. A capture has two moments, and knows
neither labels nor marks by pageblock nor pins; the film says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.constants import MOVABLE, PB_PAGES, RECLAIMABLE, UNMOVABLE, SpbCategory
from spbfast.errors import DumpError
from spbfast.observed import capture_file as container
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.page_classes import NR_PAGE_CLASSES, PageClass
from spbfast.results.memorymap.films import Film, FilmZone
from spbfast.tiles import pageblocks as tiles

PER_SPB = 512
MOST_PAGEBLOCKS = 1 << 23  # 16 TiB
LACKS = (
    "From a capture of a running machine, by /proc/kpageflags. It holds two moments at most, not what was in "
    "between; it does not tell the label or the marks of a pageblock, nor which pages are pinned. Slab pages "
    "are drawn apart, though some of them can be reclaimed and others not. Pages on per-CPU lists look like "
    "other kernel pages. A machine without superpageblocks is cut at multiples of 1 GiB; tainted means that "
    "such an area holds kernel pages. Memory that a zone spans and does not manage (not plugged in, or taken "
    "back by a hypervisor) has pages without flags, as kernel pages have; runs of such pageblocks are left "
    "white, the longest first, up to the number that /proc/zoneinfo tells."
)
SHORTEST_RUN = 8  # pageblocks without any flag that are taken for memory that nobody manages
_ZONE_LINE = re.compile(r"^Node (\d+), zone +(\w+)$|^ +managed +(\d+)$", flags=re.M)
KIND_NAMES = {
    "unmovable": "kernel pages but slab",
    "reclaimable": "slab",
    "unmovable + reclaimable": "slab and other kernel pages",
}
_MOVABLE = [PageClass.ANON, PageClass.HUGE, PageClass.PAGE_CACHE]
_KERNEL = [PageClass.PAGE_TABLE, PageClass.RESERVED, PageClass.OTHER]


def film_of_capture(path: Path) -> Film:
    """The machine of a capture, before and after.

    Raises
    ------
    DumpError
        When the file is damaged, or does not hold what pageblocks contain.
    """
    moments: dict[str, _Moment] = {}
    head: dict[str, Any] = {}
    for tag, data in read_chunks(path):
        if tag == container.HEAD:
            head = json_mapping(path, data)
        elif tag == container.BLOCKS:
            about, counts = _blocks(path, data)
            moments.setdefault(str(about.get("moment")), _Moment()).add(path, about, counts)
        elif tag == container.SNAPSHOT:
            about = json_mapping(path, data)
            moments.setdefault(str(about.get("moment")), _Moment()).managed = _managed(about.get("texts"))
    moments = {name: moment for name, moment in moments.items() if moment.pieces}
    if not moments:
        raise DumpError(
            path,
            0,
            "does not hold what pageblocks contain: capture as root, so that /proc/kpageflags can be read",
        )
    return _film(path, head, list(moments.values()))


class _Moment:
    """What was read of all zones at one moment."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[int, str], list[tuple[int, np.ndarray]]] = {}
        self.managed: dict[tuple[int, str], int] = {}
        self.start_ns = -1

    def add(self, path: Path, about: dict[str, Any], counts: np.ndarray) -> None:
        first, node = about.get("first_pageblock"), about.get("node")
        if not isinstance(first, int) or not isinstance(node, int) or not 0 <= first < MOST_PAGEBLOCKS:
            raise DumpError(path, 0, "pages by pageblock say neither node nor place")
        if about.get("pageblock_pages") != PB_PAGES:
            raise DumpError(
                path, 0, f"its pageblocks have {about.get('pageblock_pages')!r} pages, not {PB_PAGES}"
            )
        self.pieces.setdefault((node, str(about.get("zone"))), []).append((first, counts))
        if self.start_ns < 0:
            self.start_ns = int(about.get("start_ns") or 0)

    def spans(self) -> dict[tuple[int, str], tuple[int, int]]:
        """First pageblock and number of superpageblocks of each zone, by its place in memory."""
        found = {}
        for key, pieces in self.pieces.items():
            first = min(at for at, _ in pieces) // PER_SPB * PER_SPB
            end = max(at + len(counts) for at, counts in pieces)
            found[key] = first, -(-(end - first) // PER_SPB)
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def counts(self, spans: dict[tuple[int, str], tuple[int, int]]) -> np.ndarray:
        """Pages by class of all pageblocks of some spans: int64 [pageblocks, classes]."""
        parts = []
        for key, (first, nr_spb) in spans.items():
            own = np.zeros((nr_spb * PER_SPB, NR_PAGE_CLASSES), np.int64)
            for at, counts in self.pieces.get(key, ()):
                room = own[max(at - first, 0) :][: len(counts)]
                room += counts[: len(room)]
            if key in self.managed:
                _take_unmanaged(own, self.managed[key])
            parts.append(own)
        return np.concatenate(parts)


def _managed(texts: object) -> dict[tuple[int, str], int]:
    """Managed pages of each zone, from the text of /proc/zoneinfo."""
    text = texts.get("/proc/zoneinfo") if isinstance(texts, dict) else None
    found: dict[tuple[int, str], int] = {}
    zone: tuple[int, str] | None = None
    for node, name, managed in _ZONE_LINE.findall(text if isinstance(text, str) else ""):
        if name:
            zone = int(node), name
        elif zone is not None:
            found.setdefault(zone, int(managed))
    return found


def _take_unmanaged(counts: np.ndarray, managed: int) -> None:
    """Count what no flag tells of as absent, in runs of pageblocks that hold nothing else.

    Parameters
    ----------
    counts : ndarray
        int64 [pageblocks, classes] of one zone; changed.
    managed : int
        Pages that the zone manages.
    """
    missing = int(counts.sum() - counts[:, PageClass.RESERVED].sum()) - managed
    blank = np.concatenate([[False], counts[:, PageClass.OTHER] == PB_PAGES, [False]])
    edges = np.flatnonzero(blank[1:] != blank[:-1]).reshape(-1, 2)
    for first, end in sorted(edges.tolist(), key=lambda run: run[0] - run[1]):
        if SHORTEST_RUN <= end - first <= missing // PB_PAGES:
            missing -= (end - first) * PB_PAGES
            counts[first:end, [PageClass.OTHER, PageClass.RESERVED]] = 0, PB_PAGES


def _blocks(path: Path, data: bytes) -> tuple[dict[str, Any], np.ndarray]:
    head, _, rows = data.partition(b"\n")
    if len(rows) % (2 * NR_PAGE_CLASSES):
        raise DumpError(path, 0, "pages by pageblock end in the middle of a pageblock")
    return json_mapping(path, head), np.frombuffer(rows, "<u2").reshape(-1, NR_PAGE_CLASSES).astype(np.int64)


def _film(path: Path, head: dict[str, Any], moments: list[_Moment]) -> Film:
    spans = moments[0].spans()
    zones = [
        FilmZone(f"node {node}, {zone}", first * PB_PAGES, nr_spb, PER_SPB)
        for (node, zone), (first, nr_spb) in spans.items()
    ]
    counts = [moment.counts(spans) for moment in moments]
    spbs = [superpageblock_counts(one) for one in counts]
    columns = {name: np.stack([one[name] for one in spbs]) for name in spbs[0]}
    category = columns["category"]
    gauges = {
        f"spb_{one.name.lower()}": (category == one).sum(axis=1).astype(float)
        for one in (SpbCategory.TAINTED, SpbCategory.CLEAN, SpbCategory.EMPTY)
    }
    gauges["free_pages"] = columns["free_pages"].sum(axis=1).astype(float)
    stranded = np.where(category == SpbCategory.TAINTED, columns["free_pages"], 0)
    gauges["free_pages_stranded_in_tainted"] = stranded.sum(axis=1).astype(float)
    contents = [captured_contents(one) for one in counts]
    return Film(
        title=path.name,
        zones=zones,
        times=np.array([(moment.start_ns - moments[0].start_ns) / 1e9 for moment in moments]),
        what=np.stack([one.what for one in contents]),
        room=np.stack([one.room for one in contents]),
        spbs=columns,
        facts=[(key, str(head[key])) for key in ("kernel", "machine", "taken") if head.get(key)],
        gauges=gauges,
        views=("content", "free", "stranded"),
        notes=[LACKS],
        kind_names=KIND_NAMES,
    )


def captured_contents(counts: np.ndarray) -> tiles.Contents:
    """Pageblocks as tiles show them, from pages by class."""
    known = counts.sum(axis=1)
    what = np.zeros(len(counts), np.uint8)
    for classes, mt in ((_MOVABLE, MOVABLE), (_KERNEL, UNMOVABLE), ([PageClass.SLAB], RECLAIMABLE)):
        what |= np.where(counts[:, classes].sum(axis=1) > 0, 1 << mt, 0).astype(np.uint8)
    room = tiles.room_level(counts[:, PageClass.FREE])
    gone = _is_absent(counts, known)
    what[gone], room[gone] = tiles.NO_MEMORY << tiles.LABEL_SHIFT, 0
    return tiles.Contents(what, room)


def _is_absent(counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pageblocks without a page that the allocator manages."""
    return counts[:, PageClass.RESERVED] >= known


def superpageblock_counts(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of a film's superpageblocks, from pages by class of their pageblocks."""
    own = counts.reshape(-1, PER_SPB, NR_PAGE_CLASSES)
    present = ~_is_absent(own.reshape(-1, NR_PAGE_CLASSES), counts.sum(axis=1)).reshape(-1, PER_SPB)
    kernel = (own[:, :, [*_KERNEL, PageClass.SLAB]].sum(axis=2) > 0) & present
    movable = (own[:, :, _MOVABLE].sum(axis=2) > 0) & present
    free = own[:, :, PageClass.FREE]
    category = np.where(
        kernel.any(axis=1),
        SpbCategory.TAINTED,
        np.where(movable.any(axis=1), SpbCategory.CLEAN, SpbCategory.EMPTY),
    )
    category = np.where(present.any(axis=1), category, -1)
    return {
        "category": category.astype(np.int32),
        "free_pages": free.sum(axis=1).astype(np.int32),
        "free": (free == PB_PAGES).sum(axis=1).astype(np.int32),
    }
