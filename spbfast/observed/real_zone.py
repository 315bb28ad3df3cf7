"""One zone of a running machine in numbers that a simulated one can start from.

Owns which table every number is taken from, what is guessed where none has it, and what is refused because
the model lacks it. Nothing is placed or drawn here; recordings/drawn_start.py does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spbfast.constants import MAX_ZONE_PAGES, NR_ORDERS, PB_ORDER, PB_PAGES
from spbfast.errors import DumpError
from spbfast.observed.blockmath import pages_in
from spbfast.observed.consistency import FOREIGN_ZONES, KNOWN_TYPES, page_size_kb
from spbfast.observed.receipt import Receipt, counted
from spbfast.observed.values import ZONE_NAMES, Snapshot, ZoneRecord

KERNEL_TYPES = ("Unmovable", "Movable", "Reclaimable", "HighAtomic")  # by number
_USUAL_START = {"DMA": 1, "DMA32": 1 << 12, "Normal": 1 << 20}
_BLOCK_TABLES = ("pagetypeinfo", "buddyinfo", "meminfo_report")
_MAX_COUNT = MAX_ZONE_PAGES


@dataclass(frozen=True)
class RealZone:
    """A zone as the tables tell it; pages of 4 KiB, pageblocks of 512.

    Attributes
    ----------
    node : int
    name : str
    start_pfn, pages : int
        First page frame and span.
    managed : int
        Pages that the allocator manages.
    free : dict of str to tuple of int
        Free blocks by type and order.
    pageblocks : dict of str to int
        By type.
    types : tuple of str
        The file's own types, in its order, those that no page has included.
    watermarks : tuple of int or None
        min, low, high in pages; None where no table tells.
    lists : tuple of int or None
        batch, high_min and high_max of the per-CPU lists.
    cpus : int
        CPUs with such lists, 0 where no table tells.
    file_pages : int or None
        Pages of page cache on the LRU lists.
    """

    node: int
    name: str
    start_pfn: int
    pages: int
    managed: int
    free: dict[str, tuple[int, ...]]
    pageblocks: dict[str, int]
    types: tuple[str, ...]
    watermarks: tuple[int, int, int] | None = None
    lists: tuple[int, int, int] | None = None
    cpus: int = 0
    file_pages: int | None = None

    @property
    def label(self) -> str:
        """The zone as people write it."""
        return f"node {self.node} {self.name}"

    @property
    def nr_pageblocks(self) -> int:
        """Pageblocks of all types."""
        return sum(self.pageblocks.values())


def real_zones(
    snapshots: Sequence[Snapshot], file: str, receipt: Receipt, only: tuple[int, str] | None = None
) -> list[RealZone]:
    """Zones of a machine, in the order of the file.

    Parameters
    ----------
    snapshots : sequence of Snapshot
        Of one machine; of a capture, the tables before it are used.
    file : str
        What errors name.
    receipt : Receipt
        Told what is guessed, missing and contradictory.
    only : (int, str), optional
        Node and name of the one zone that is wanted.

    Raises
    ------
    DumpError
        When no table has free blocks, or a zone has what the model lacks.
    """
    moment = [s for s in snapshots if not s.heading.startswith("after")]
    source = next((s for kind in _BLOCK_TABLES for s in moment if s.kind == kind and _has_blocks(s)), None)
    if source is None:
        raise DumpError(
            file, 0, "has no free blocks to start from; give pagetypeinfo, or buddyinfo with zoneinfo"
        )
    receipt.say("read", f"start: free blocks as {source.kind} has them")
    _refuse_shape(moment, source, file)
    records = [z for z in source.zones if any(z.blocks()) or any(z.pageblocks.values())]
    if only is not None:
        records = [z for z in records if z.key == only] or _no_such_zone(records, only, file)
    found = [_RealZoneMaker(moment, source, record, file, receipt).make() for record in records]
    return _with_starts(found, receipt)


def _no_such_zone(records: Sequence[ZoneRecord], wanted: tuple[int, str], file: str) -> list[ZoneRecord]:
    keys = [z.key for z in records]
    known = ", ".join(f"node {node} {name}" for node, name in keys)
    node, name = keys[0] if keys else (0, "DMA32")
    other = name if node == 0 else f"node{node}.{name}"
    hint = f"; a job names one by machine.zone: {other}" if keys else ""
    raise DumpError(file, 0, f"has no zone {wanted[1]} on node {wanted[0]}; it has {known}{hint}")


def _has_blocks(snapshot: Snapshot) -> bool:
    return any(any(zone.blocks()) and not zone.doubt for zone in snapshot.zones)


def _refuse_shape(snapshots: Sequence[Snapshot], source: Snapshot, file: str) -> None:
    """Refuse a machine of another page size, number of orders or pageblock order."""
    page_kb, _ = page_size_kb(snapshots)
    order = next((s.pageblock_order for s in snapshots if s.pageblock_order is not None), PB_ORDER)
    lacks = [f"pages of {page_kb} KiB"] if page_kb != 4 else []
    if source.nr_orders not in (None, NR_ORDERS):
        lacks.append(f"{source.nr_orders} orders (it has {NR_ORDERS})")
    if order != PB_ORDER:
        lacks.append(f"pageblocks of order {order} (its own are of order {PB_ORDER})")
    if lacks:
        raise DumpError(file, source.line, f"cannot be started from: the model lacks {', '.join(lacks)}")


class _RealZoneMaker:
    """Brings together what the tables say of one zone."""

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        source: Snapshot,
        record: ZoneRecord,
        file: str,
        receipt: Receipt,
    ) -> None:
        self.source, self.record, self.file, self.receipt = source, record, file, receipt
        self.label = f"node {record.node or 0} {record.zone}"
        self.others = {
            kind: next((z for s in snapshots if s.kind == kind for z in s.zones if z.key == record.key), None)
            for kind in ("zoneinfo", "buddyinfo", "pagetypeinfo", "meminfo_report")
        }

    def make(self) -> RealZone:
        record, numbers = self.record, self._numbers()
        if record.zone in FOREIGN_ZONES or record.zone not in ZONE_NAMES:
            raise self._error(f"the model lacks zone {record.zone}")
        free = self._free_blocks()
        pageblocks = self._pageblocks(free, numbers)
        nr = sum(pageblocks.values()) * PB_PAGES
        if nr > MAX_ZONE_PAGES:
            raise self._error(f"it has {nr:,} pages, and a simulated zone {MAX_ZONE_PAGES:,} at most")
        managed = numbers.get("managed", 0) or numbers.get("present", 0)
        if not managed:
            managed = nr
            self.receipt.say("guessed", f"{self.label}: all pages of its pageblocks are managed")
        managed = min(managed, nr)
        free_pages = sum(pages_in(row) for row in free.values())
        if free_pages > managed:
            raise self._error(
                f"{free_pages:,} pages are in free blocks and {managed:,} are managed; the tables are of "
                "different moments or machines"
            )
        return RealZone(
            node=record.node or 0,
            name=record.zone,
            start_pfn=self._start_pfn(),
            pages=numbers.get("spanned", nr),
            managed=managed,
            free=free,
            pageblocks=pageblocks,
            types=self.source.types or KERNEL_TYPES[:3],
            watermarks=self._watermarks(numbers),
            lists=self._lists(),
            cpus=len(self._zoneinfo().pcp),
            file_pages=self._file_pages(),
        )

    def _error(self, text: str) -> DumpError:
        return DumpError(self.file, self.record.line, f"cannot start from {self.label}: {text}")

    def _zoneinfo(self) -> ZoneRecord:
        return self.others["zoneinfo"] or ZoneRecord(self.record.node, self.record.zone)

    def _numbers(self) -> dict[str, int]:
        """Sizes and watermarks, those of zoneinfo before those of a report."""
        report = self.others["meminfo_report"]
        pages = (dict(report.pages) if report is not None else {}) | self._zoneinfo().pages
        return {name: value for name, value in pages.items() if 0 <= value <= _MAX_COUNT}

    # -- free blocks -------------------------------------------------------------------------------

    def _free_blocks(self) -> dict[str, tuple[int, ...]]:
        record = self.record
        if not record.free_by_type:
            self.receipt.say("guessed", f"{self.label}: all free blocks are Movable: no types are told")
            return {"Movable": self._whole_row("Movable", record.free_blocks, record.capped)}
        found = {}
        for name, row in record.free_by_type.items():
            if name in KNOWN_TYPES:
                found[name] = self._whole_row(name, row, record.capped_by_type.get(name, frozenset()))
            elif any(row) or record.pageblocks.get(name, 0):
                raise self._error(f"the model lacks type {name}")
        self._fill_capped(found)
        return found

    def _whole_row(self, name: str, row: tuple[int, ...], capped: frozenset[int]) -> tuple[int, ...]:
        if len(row) != NR_ORDERS:
            raise self._error(f"the row {name} has {len(row)} of {NR_ORDERS} orders; it is cut")
        if max(row) > _MAX_COUNT:
            raise self._error(f"{max(row):,} free blocks of one order are more than a zone has pages")
        return row

    def _fill_capped(self, found: dict[str, tuple[int, ...]]) -> None:
        """Where one type's count of an order is capped, buddyinfo's total tells it."""
        totals = self.others["buddyinfo"]
        for order in range(NR_ORDERS):
            capped = [n for n in found if order in self.record.capped_by_type.get(n, frozenset())]
            if not capped:
                continue
            known = sum(row[order] for name, row in found.items() if name not in capped)
            row = totals.free_blocks if totals is not None and not totals.capped else ()
            rest = row[order] - known if len(row) == NR_ORDERS else -1
            if len(capped) == 1 and rest >= found[capped[0]][order]:
                self._put(found, capped[0], order, rest)
                text = f"{self.label} {capped[0]}: order {order} capped; {rest:,} by buddyinfo's total"
                self.receipt.say("read", text)

    @staticmethod
    def _put(found: dict[str, tuple[int, ...]], name: str, order: int, count: int) -> None:
        found[name] = (*found[name][:order], count, *found[name][order + 1 :])

    # -- pageblocks --------------------------------------------------------------------------------

    def _pageblocks(self, free: dict[str, tuple[int, ...]], numbers: dict[str, int]) -> dict[str, int]:
        table = self.others["pagetypeinfo"]
        told = dict(table.pageblocks) if table is not None else {}
        for name in [n for n in told if n not in KNOWN_TYPES]:
            if told.pop(name):
                raise self._error(f"the model lacks type {name}")
        if told:
            return self._roomy(told, free)
        size = numbers.get("present", 0) or numbers.get("managed", 0) or numbers.get("spanned", 0)
        nr = -(-size // PB_PAGES) if size else sum(pageblocks_needed(row) for row in free.values())
        self.receipt.say(
            "guessed",
            f"{self.label}: {counted(nr, 'pageblock')}, Movable but for those that free blocks of other "
            "types need: no table has pageblocks by type",
        )
        found = {name: pageblocks_needed(row) for name, row in free.items() if name != "Movable"}
        found["Movable"] = max(nr - sum(found.values()), 0)
        return self._roomy({name: found.get(name, 0) for name in KERNEL_TYPES}, free)

    def _roomy(self, pageblocks: dict[str, int], free: dict[str, tuple[int, ...]]) -> dict[str, int]:
        """Pageblocks with room for the free blocks of every type; what is short comes from the others."""
        out = {name: pageblocks.get(name, 0) for name in dict.fromkeys([*pageblocks, *free])}
        spare = {name: out[name] - pageblocks_needed(free.get(name, ())) for name in out}
        for name in [n for n in spare if spare[n] < 0]:
            short = -spare[name]
            giver = max(spare, key=lambda other: spare[other])
            if spare[giver] < short:
                raise self._error(
                    f"its free blocks do not fit into its {sum(out.values()):,} pageblocks; the tables are "
                    "of different moments, or counts are wrong"
                )
            for which, change in ((name, short), (giver, -short)):
                out[which] += change
                spare[which] += change
            self.receipt.say(
                "contradictory",
                f"{self.label}: free blocks of type {name} need {counted(out[name], 'pageblock')}, and it "
                f"has {out[name] - short:,}; {short:,} of {giver} are taken for {name}",
            )
        return out

    # -- numbers -----------------------------------------------------------------------------------

    def _start_pfn(self) -> int:
        start = self._zoneinfo().stats.get("start_pfn")
        return start if start is not None and 0 <= start < 1 << 39 else -1

    def _watermarks(self, numbers: dict[str, int]) -> tuple[int, int, int] | None:
        if {"min", "low", "high"} <= numbers.keys():
            boost = self._zoneinfo().pages.get("boost", 0)
            if not 0 < boost <= numbers["min"]:
                return numbers["min"], numbers["low"], numbers["high"]
            # min_wmark_pages and its like, which are printed, have the boost in them.
            self.receipt.say("left_out", f"{self.label}: watermark boost of {boost:,} pages")
            return numbers["min"] - boost, numbers["low"] - boost, numbers["high"] - boost
        self.receipt.say("missing", f"{self.label}: watermarks (zoneinfo)")
        return None

    def _lists(self) -> tuple[int, int, int] | None:
        limits = self._zoneinfo().pcp[0].values if self._zoneinfo().pcp else {}
        batch, high = limits.get("batch", 0), limits.get("high", 0)
        low, top = limits.get("high_min", high), limits.get("high_max", high)
        if 0 < batch <= 1 << 24 and 0 <= low <= top <= 1 << 24:
            return batch, low, top
        self.receipt.say("missing", f"{self.label}: limits of per-CPU lists (zoneinfo)")
        return None

    def _file_pages(self) -> int | None:
        stats = self._zoneinfo().stats
        names = ("nr_zone_inactive_file", "nr_zone_active_file")
        if all(0 <= stats.get(name, -1) <= _MAX_COUNT for name in names):
            return sum(stats[name] for name in names)
        return None


def pageblocks_needed(row: Sequence[int]) -> int:
    """The fewest pageblocks of one type in which free blocks lie so that no two of them would merge.

    An order-9 block's buddy is not wholly free, and of two halves of a pageblock at most one is.
    """
    if not row:
        return 0
    small = 0
    for order in range(PB_ORDER):
        above = sum(row[j] << (j - 1 - order) for j in range(order + 1, PB_ORDER))
        small = max(small, -(-(row[order] + above) // (1 << (PB_ORDER - 1 - order))))
    return small + row[PB_ORDER] + 2 * row[PB_ORDER + 1]


def _with_starts(zones: list[RealZone], receipt: Receipt) -> list[RealZone]:
    """Zones with a first page frame each; what no table has is the usual one, or behind the zone before."""
    out: list[RealZone] = []
    for zone in zones:
        start = zone.start_pfn
        if start < 0:
            start = _USUAL_START.get(zone.name, 1 << 20)
            before = [z.start_pfn + max(z.pages, z.nr_pageblocks * PB_PAGES) for z in out]
            start = max([start, *before])
            receipt.say("guessed", f"{zone.label}: begins at page frame {start:#x}: no table has start_pfn")
        out.append(replace(zone, start_pfn=start))
    return out
