"""The values in the text of one Mem-Info report.

Owns ReportText: a scan for the few forms that kernels print (counters of a zone, its reserves, its blocks by
order, facts about the machine), in any order of lines. Sizes of blocks tell the page size.
"""

from __future__ import annotations

import re

from spbfast.observed.blockmath import pages_in
from spbfast.observed.families import MAX_KEYS, Collector, signed
from spbfast.observed.values import MAX_ORDERS, Snapshot, ZoneRecord

_SCAN = re.compile(
    r"""
    (?:Node\s+(?P<node>\d{1,4})\s*,?\s+)?\b(?P<zone>DMA32|DMA|Normal|HighMem|Movable|Device)
        (?: (?P<counters>\s+(?=free:\s?\d)) | (?P<buddy>:\s+(?=\d+\s*[*_x×]\s*\d|empty\b|\d+[kK]B)) )
    | Node\s+(?P<total>\d{1,4})\s+(?=[a-z_]+[:=])
    | (?:lowmem_reserve|protections)\[\]:\s*(?P<reserve>(?:\d{1,20}(?![\d*_x×kK:])\s*)*)
    | (?P<count>\d{1,20})\s*[*_x×]\s*(?P<size>\d{1,12})\s*[kK]B(?:\s*\(\s*(?P<letters>[A-Z]{1,8})\s*\))?
    | =\s*(?P<sum>\d{1,20})\s*[kK]B
    | (?P<key>[A-Za-z_]\w{0,40}(?:\([a-z]+\))?):\s?(?P<value>\d{1,20})(?!\d)(?:\s*(?P<unit>[kK]\s*B\b))?
    | all_unreclaimable\?\s+(?P<unreclaimable>yes|no)\b
    | (?P<number>\d{1,20})\s+(?P<fact>total\ pagecache\ pages|pages\ in\ swap\ cache|pages\ RAM|pages\ of\ RAM
        |pages\ reserved|reserved\ pages|pages\ HighMem/MovableOnly|pages\ of\ HIGHMEM|pages\ cma\ reserved
        |pages\ hwpoisoned|pages\ shared|pages\ non-shared)
    | (?P<joined>\d{2,20})[kK]B(?:\s*\(\s*(?P<joined_letters>[A-Z]{1,8})\s*\))?
    """,
    re.VERBOSE,
)
LETTERS = {
    "U": "Unmovable",
    "M": "Movable",
    "E": "Reclaimable",
    "R": "Reserve",
    "H": "HighAtomic",
    "C": "CMA",
    "I": "Isolate",
}
IMPLAUSIBLE = 1 << 50
PAGE_SIZES_KB = (4, 8, 16, 64)


class ReportText:
    """Scanner of one report's text; a zone that comes twice begins a second snapshot."""

    def __init__(self, collector: Collector, line: int) -> None:
        self.collector, self.receipt, self.line = collector, collector.receipt, line
        self.found: list[Snapshot] = []
        self.sizes: dict[int, dict[int, tuple[int, str]]] = {}  # id(zone) -> size in kB -> count, letters
        self.joined: dict[int, list[tuple[str, str]]] = {}  # id(zone) -> digits without asterisk, letters
        self.waiting: dict[tuple[int, str], list[ZoneRecord]] = {}  # zones whose blocks have not come yet
        self.zone: ZoneRecord | None = None
        self.row: ZoneRecord | None = None
        self.node = ""

    def snapshots(self, text: str) -> list[Snapshot]:
        """The reports in a text; usually one."""
        for match in _SCAN.finditer(text):
            self._take(match)
        for snapshot in self.found:
            self._finish(snapshot)
        return self.found

    def _take(self, match: re.Match[str]) -> None:
        if match["zone"]:
            self._begin(match)
        elif match["total"]:
            self.node, self.zone, self.row = f"node {match['total']} ", None, None
        elif match["reserve"] is not None:
            self._put_reserve(match["reserve"])
        elif match["count"]:
            self._put_count(int(match["count"]), int(match["size"]), match["letters"] or "")
        elif match["sum"]:
            if self.row is not None:
                self.row.printed_kb = int(match["sum"])
            self.row = None
        elif match["key"]:
            self._put_value(match["key"], int(match["value"]), bool(match["unit"]))
        elif match["joined"] and self.row is not None:
            word = (match["joined"], match["joined_letters"] or "")
            self.joined.setdefault(id(self.row), []).append(word)
        elif match["fact"]:
            self.collector.put_counter(self._current().counters, match["fact"], int(match["number"]))

    def _current(self) -> Snapshot:
        if not self.found:
            self.found.append(self.collector.new_snapshot("meminfo_report", self.line))
        return self.found[-1]

    def _begin(self, match: re.Match[str]) -> None:
        node = None if match["node"] is None else int(match["node"])
        name, is_counters = match["zone"], match["counters"] is not None
        self.node = ""
        if is_counters:
            self.zone, self.row = self._counters_of(node, name), None
        else:
            self.zone, self.row = None, self._row_of(node, name)

    def _counters_of(self, node: int | None, name: str) -> ZoneRecord:
        """The zone whose counters begin: a zone that has some already begins another report."""
        zone = self._current().zone_at(node, name)
        if zone is None or zone.kilobytes:
            zone = self._new_zone(node, name, fresh=zone is not None)
            self.waiting.setdefault(zone.key, []).append(zone)
        return zone

    def _row_of(self, node: int | None, name: str) -> ZoneRecord:
        """The zone that a row of blocks belongs to: the earliest without one, as reports may interleave."""
        waiting = self.waiting.get((node or 0, name))
        if waiting:
            return waiting.pop(0)
        known = self._current().zone_at(node, name)
        return self._new_zone(node, name, fresh=known is not None)

    def _new_zone(self, node: int | None, name: str, fresh: bool) -> ZoneRecord:
        if fresh:
            self.found.append(self.collector.new_snapshot("meminfo_report", self.line))
        return self.collector.new_zone(self._current(), node, name, self.line)

    def _put_reserve(self, text: str) -> None:
        values = [int(n) for n in text.split()[:16]]
        zone = self.zone
        if zone is None or zone.reserve:
            return
        if any(v > IMPLAUSIBLE for v in values):
            self.receipt.say(
                "contradictory", f"{zone.label}: lowmem_reserve {max(values)} is beyond any memory"
            )
            return
        zone.reserve = tuple(values)
        self.zone = None

    def _put_count(self, count: int, size: int, letters: str) -> None:
        if self.row is None:
            return
        sizes = self.sizes.setdefault(id(self.row), {})
        if len(sizes) < MAX_ORDERS and size not in sizes:
            sizes[size] = (count, letters)

    def _put_value(self, key: str, value: int, has_unit: bool) -> None:
        if self.zone is not None:
            if has_unit and len(self.zone.kilobytes) < MAX_KEYS:
                self.zone.kilobytes.setdefault(key, value)
            elif key == "pages_scanned":
                self.zone.stats[key] = value
            return
        counters = self._current().counters
        name = self.node + key
        if name not in counters:
            self.collector.put_counter(counters, name, signed(value))

    def _finish(self, snapshot: Snapshot) -> None:
        self._split_joined(snapshot)
        sizes = [s for z in snapshot.zones for s in self.sizes.get(id(z), {})]
        snapshot.page_kb = min(sizes, default=0) or None
        page_kb = snapshot.page_kb or self._guess_page_size(snapshot)
        snapshot.nr_orders = max((size // page_kb).bit_length() for size in sizes) if sizes else None
        letters: set[str] = set()
        for zone in snapshot.zones:
            letters |= self._finish_row(zone, page_kb, snapshot.nr_orders or 0)
            self._finish_pages(zone, page_kb)
        self._check_reserves(snapshot)
        snapshot.types = tuple(name for letter, name in LETTERS.items() if letter in letters)
        unknown = letters - set(LETTERS)
        if unknown:
            self.receipt.say("left_out", f"unknown letters of migrate types: {', '.join(sorted(unknown))}")
        if not sizes and snapshot.zones:
            self.receipt.say("missing", f"line {snapshot.line}: Mem-Info without free blocks by order")

    def _split_joined(self, snapshot: Snapshot) -> None:
        """Rows without asterisks, '14kB 38kB' for 1*4kB 3*8kB: sizes tell where to split."""
        for zone in snapshot.zones:
            words = self.joined.get(id(zone), [])
            known = self.sizes.get(id(zone), {})
            if len(words) < 3 or len(words) > MAX_ORDERS:
                continue
            for page_kb in PAGE_SIZES_KB:
                found = _split_at_sizes(words, page_kb)
                if found and all(size >= page_kb << len(words) for size in known):
                    self.sizes[id(zone)] = found | known
                    self.receipt.say(
                        "guessed", f"{zone.label}: asterisks are gone; counts split by block size"
                    )
                    break

    def _guess_page_size(self, snapshot: Snapshot) -> int:
        values = [v for z in snapshot.zones for v in z.kilobytes.values()]
        page_kb = 64 if values and any(values) and all(v % 64 == 0 for v in values) else 4
        if snapshot.zones:
            self.receipt.say("guessed", f"pages of {page_kb} KiB: the report shows no block sizes")
        return page_kb

    def _finish_row(self, zone: ZoneRecord, page_kb: int, nr_orders: int) -> set[str]:
        """Blocks by order from blocks by size; the letters seen."""
        sizes = self.sizes.get(id(zone))
        if not sizes:
            return set()
        by_order = {(size // page_kb).bit_length() - 1: pair for size, pair in sizes.items()}
        odd = [size for size in sizes if size != page_kb << ((size // page_kb).bit_length() - 1)]
        if odd or max(by_order) >= MAX_ORDERS:
            self.receipt.say(
                "contradictory", f"{zone.label}: blocks of {max(sizes)} kB beside pages of {page_kb} kB"
            )
            by_order = {o: pair for o, pair in by_order.items() if o < MAX_ORDERS}
        top = max(by_order) + 1
        zone.free_blocks = tuple(by_order.get(o, (0, ""))[0] for o in range(top))
        if any(letters for _, letters in by_order.values()):
            zone.letters = tuple(by_order.get(o, (0, ""))[1] for o in range(top))
        if len(by_order) < nr_orders:
            self.receipt.say(
                "missing", f"{zone.label}: {len(by_order)} of {nr_orders} orders, the row is cut"
            )
        self._check_sum(zone, page_kb)
        return set("".join(zone.letters))

    def _check_sum(self, zone: ZoneRecord, page_kb: int) -> None:
        total = sum(count << order for order, count in enumerate(zone.free_blocks)) * page_kb
        if zone.printed_kb is None:
            self.receipt.say("missing", f"{zone.label}: no sum behind the blocks; the row may be cut")
        elif zone.printed_kb != total:
            zone.doubt = f"they add up to {total:,} kB, the kernel printed {zone.printed_kb:,} kB"
            self.receipt.say("contradictory", f"{zone.label}: free blocks are garbled: {zone.doubt}")

    def _finish_pages(self, zone: ZoneRecord, page_kb: int) -> None:
        for key, value in zone.kilobytes.items():
            kilobytes = signed(value)
            if abs(kilobytes) > IMPLAUSIBLE:
                text = f"{zone.label}: {key} {value} kB is beyond any memory and not used"
                self.receipt.say("contradictory", text)
                continue
            if kilobytes < 0:
                text = f"{zone.label}: {key} is {kilobytes} kB, printed as {value}"
                self.receipt.say("contradictory", text)
            zone.pages[key] = kilobytes // page_kb
        self._check_size(zone)

    def _check_reserves(self, snapshot: Snapshot) -> None:
        """One kernel has as many entries for every zone; fewer are what another CPU's lines left."""
        longest = max((len(z.reserve) for z in snapshot.zones), default=0)
        for zone in snapshot.zones:
            if 0 < len(zone.reserve) < longest:
                text = f"{zone.label}: lowmem_reserve has {len(zone.reserve)} of {longest} entries, it is cut"
                self.receipt.say("missing", text)
                zone.reserve = ()

    def _check_size(self, zone: ZoneRecord) -> None:
        """More free pages than the zone has: numbers of two lines that stand in each other."""
        lists, present = pages_in(zone.free_blocks), zone.pages.get("present", 0)
        if lists > present > 0:
            zone.doubt = f"{lists:,} free pages of {present:,}"
            self.receipt.say("contradictory", f"{zone.label}: free blocks are garbled: {zone.doubt}")


def _split_at_sizes(words: list[tuple[str, str]], page_kb: int) -> dict[int, tuple[int, str]] | None:
    """Counts by size from digits that hold both; None where they do not fit pages of this size."""
    found = {}
    for order, (digits, letters) in enumerate(words):
        size = str(page_kb << order)
        count = digits.removesuffix(size)
        if count == digits or not count:
            return None
        found[int(size)] = (int(count), letters)
    return found
