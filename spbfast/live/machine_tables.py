"""The tables of the running kernel at one moment: /proc, settings, and what every pageblock holds.

Owns which files are read. Each is read at once and kept as the text that it is; what may not be read is named
with the reason. Names of hosts, users, tasks and files are in none of them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.observed.page_classes import count_classes, page_bytes

TABLES = ("pagetypeinfo", "buddyinfo", "zoneinfo", "vmstat", "meminfo", "slabinfo")
SETTING_FOLDERS = (
    "/proc/sys/vm",
    "/sys/kernel/mm/transparent_hugepage",
    "/sys/module/page_reporting/parameters",
)
MAX_TEXT = 1 << 22
MAX_SETTING = 1 << 16  # a sysctl refuses to be read into 4 MiB or more: ENOMEM
PAGES_AT_ONCE = 1 << 18
_ZONE = re.compile(r"Node (\d+), zone\s+(\w+)$")


@dataclass
class MachineTables:
    """What was read at one moment; times by the recorder's clock, in ns; `read_ns`: when each was read."""

    moment: str
    start_ns: int = 0
    end_ns: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    read_ns: dict[str, int] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """As plain data for the capture."""
        return dict(vars(self))


@dataclass(frozen=True)
class ZoneSpan:
    """Page frames of a zone, holes included."""

    node: int
    zone: str
    start_pfn: int
    pages: int


@dataclass(frozen=True)
class PagePiece:
    """Bytes of consecutive pages, as `page_bytes` makes them, and when their flags were read."""

    span: ZoneSpan
    first_pfn: int
    start_ns: int
    end_ns: int
    pages: np.ndarray


def now_ns() -> int:
    """The clock that stamps events and tables."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def read_machine(moment: str) -> MachineTables:
    """All tables, one right after the other, the free lists first."""
    out = MachineTables(moment, now_ns())
    for name in TABLES:
        _read_into(out.texts, out.refused, f"/proc/{name}")
        out.read_ns[f"/proc/{name}"] = now_ns()
    out.end_ns = now_ns()
    for folder in map(Path, SETTING_FOLDERS):
        for path in sorted(p for p in folder.glob("*") if p.is_file()):
            _read_into(out.settings, out.refused, str(path), MAX_SETTING)
    return out


def _read_into(texts: dict[str, str], refused: dict[str, str], path: str, limit: int = MAX_TEXT) -> None:
    try:
        with open(path, "rb") as file:
            texts[path] = file.read(limit).decode("utf-8", "replace")
    except OSError as error:
        # Some settings can be written only; that is no loss.
        if os.access(path, os.R_OK) or path.startswith("/proc/") and "/sys/" not in path:
            refused[path] = error.strerror or "unreadable"


def zone_spans(zoneinfo: str) -> list[ZoneSpan]:
    """Zones that have pages, from the text of /proc/zoneinfo."""
    found = []
    node, zone, pages = 0, "", 0
    for line in zoneinfo.splitlines():
        if match := _ZONE.match(line):
            node, zone, pages = int(match[1]), match[2], 0
        name, _, value = line.strip().partition(" ")
        if name == "spanned":
            pages = int(value)
        elif name == "start_pfn:" and pages:
            found.append(ZoneSpan(node, zone, int(value), pages))
    return found


def read_pages(spans: list[ZoneSpan]) -> Iterator[PagePiece]:
    """The page flags of all zones, piece by piece.

    Raises
    ------
    OSError
        When /proc/kpageflags may not be read.
    """
    with open("/proc/kpageflags", "rb", buffering=0) as file:
        for span in spans:
            first, end = span.start_pfn, span.start_pfn + span.pages
            while first < end:
                start = now_ns()
                file.seek(8 * first)
                flags = np.frombuffer(file.read(8 * min(PAGES_AT_ONCE, end - first)), np.uint64)
                if not len(flags):
                    break
                yield PagePiece(span, first, start, now_ns(), page_bytes(flags))
                first += len(flags)


def count_by_pageblock(piece: PagePiece, pageblock_pages: int) -> tuple[int, np.ndarray]:
    """First pageblock's number and int64 [pageblocks, classes] of a piece; blocks at its edges count."""
    first = -piece.first_pfn % pageblock_pages
    parts = (piece.pages[:first], piece.pages[first:])
    counts = [count_classes(part, pageblock_pages) for part in parts if len(part)]
    return piece.first_pfn // pageblock_pages, np.concatenate(counts)
