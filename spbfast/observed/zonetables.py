"""Tables with one row a zone: buddyinfo, pagetypeinfo, and the extfrag and unusable indices of debugfs.

Owns their rows, in any number of orders and types, wrapped or cut. All begin with ``Node N, zone NAME``; what
follows tells them apart. A zone that comes again begins a new snapshot.
"""

from __future__ import annotations

import re

from spbfast.observed.cleanup import TextLine
from spbfast.observed.families import Collector, TextFamily, block_counts, say_cap, say_puzzle
from spbfast.observed.receipt import shown
from spbfast.observed.values import MAX_ORDERS, Snapshot, ZoneRecord

_ROW = re.compile(
    r"\bNode\s+(\d{1,4})\s*,?\s+zone\s+([A-Za-z]\w{0,15})(?:\s*,\s*type\s+([A-Za-z]\w{0,20}))?(.*)$"
)
_BLOCK_ORDER = re.compile(r"\bPage block order\s*:\s*(\d{1,2})\b")
_PER_BLOCK = re.compile(r"\bPages per block\s*:\s*(\d{1,9})\b")
_ORDERS = re.compile(r"\bFree pages count per migrate type at order\b(.*)$")
_TYPES = re.compile(r"\bNumber of (blocks|mixed blocks)(?: type)?\b(.*)$")
_NUMBERS = re.compile(r"^\s*>?\d{1,20}(?:\s+>?\d{1,20})*\s*$")
_INDEX = re.compile(r"-?\d\.\d{3}\b")
_INDEX_ROW = re.compile(r"^\s*-?\d\.\d{3}(?:\s+-?\d\.\d{3})*\s*$")
_WORDS = re.compile(r"^\s*[A-Z][A-Za-z]{2,20}(?:\s+[A-Z][A-Za-z]{2,20})*\s*$")
_ELIDED = re.compile(r"^\s*(?:\.{3,}|…|\[\.\.\.\]|\[snip\])\s*$")


class ZoneTables(TextFamily):
    """Reader of buddyinfo, pagetypeinfo and the two indices."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.table: Snapshot | None = None
        self.section = ""  # which part of pagetypeinfo: free, blocks, mixed blocks
        self.row: ZoneRecord | None = None
        self.row_kind = ""
        self.row_type = ""

    def take(self, line: TextLine, follows: bool) -> bool:
        text = line.text
        if "Node" in text:
            match = _ROW.search(text)
            if match:
                return self._take_row(line, match)
        if "age" in text or "Number of" in text:
            if self._take_header(line):
                return True
        return follows and self._take_continuation(text)

    def finish(self) -> None:
        for snapshot in self.collector.snapshots:
            if snapshot.kind == "pagetypeinfo":
                self._check_pagetypeinfo(snapshot)
            elif snapshot.kind == "buddyinfo":
                snapshot.nr_orders = max((len(z.free_blocks) for z in snapshot.zones), default=0)
                self._say_short_rows(snapshot)
        self._name_indices()

    def _take_header(self, line: TextLine) -> bool:
        text = line.text
        if match := _BLOCK_ORDER.search(text):
            self._pagetypeinfo(line.number, fresh=self.section != "").pageblock_order = int(match[1])
            self.section = ""
        elif match := _PER_BLOCK.search(text):
            self._check_per_block(line.number, int(match[1]))
        elif match := _ORDERS.search(text):
            orders = block_counts(match[1])[0]
            self._pagetypeinfo(line.number).nr_orders = len(orders) or None
            self.section = "free"
        elif match := _TYPES.search(text):
            table = self._pagetypeinfo(line.number)
            table.types = tuple(match[2].split())[:MAX_ORDERS] or table.types
            self.section = match[1]
        else:
            return False
        self.row, self.row_kind = None, "header"
        return True

    def _check_per_block(self, number: int, pages: int) -> None:
        table = self._pagetypeinfo(number)
        order = table.pageblock_order
        if order is not None and pages != 1 << order:
            text = f"line {number}: {pages} pages per block beside page block order {order}"
            self.receipt.say("contradictory", text)
        elif order is None and pages and pages & (pages - 1) == 0:
            table.pageblock_order = pages.bit_length() - 1

    def _pagetypeinfo(self, number: int, fresh: bool = False) -> Snapshot:
        """The pagetypeinfo being read; `fresh` where a header may begin another one."""
        table = self.table
        if table is None or table.kind != "pagetypeinfo":
            table = self.table = self.collector.new_snapshot("pagetypeinfo", number)
            self.section = ""
        return table

    def _take_row(self, line: TextLine, match: re.Match[str]) -> bool:
        node, zone, type_name, rest = int(match[1]), match[2], match[3], match[4]
        self.row = None
        if type_name:
            return self._take_type_row(line.number, node, zone, type_name, rest)
        if not rest.strip():
            return False
        if _INDEX.search(rest):
            return self._take_index(line.number, node, zone, rest)
        counts, capped, left = block_counts(rest)
        if not counts:
            return False
        if left:
            say_puzzle(self.receipt, f"line {line.number}", left)
        table = self.table
        if self.section in ("blocks", "mixed blocks") and table and len(counts) <= len(table.types):
            return self._take_pageblocks(line.number, node, zone, counts)
        return self._take_buddy_row(line.number, node, zone, counts, capped)

    def _take_buddy_row(
        self, number: int, node: int, zone: str, counts: tuple[int, ...], capped: frozenset[int]
    ) -> bool:
        table = self.table
        if table is None or table.kind != "buddyinfo" or table.zone_at(node, zone):
            table = self.table = self.collector.new_snapshot("buddyinfo", number)
            self.section = ""
        self.row = self.collector.new_zone(table, node, zone, number)
        self.row_kind = "buddy"
        self._put_blocks(self.row, counts, capped)
        return True

    def _put_blocks(self, row: ZoneRecord, counts: tuple[int, ...], capped: frozenset[int]) -> None:
        first = len(row.free_blocks)
        row.free_blocks = (*row.free_blocks, *counts)[:MAX_ORDERS]
        if capped:
            row.capped |= {o + first for o in capped if o + first < MAX_ORDERS}
            say_cap(self.receipt, row.label, counts[min(capped)], row.capped)

    def _take_type_row(self, number: int, node: int, zone: str, type_name: str, rest: str) -> bool:
        table = self._pagetypeinfo(number)
        record = table.zone_at(node, zone)
        if record is not None and (type_name in record.free_by_type or record.pageblocks):
            self.table = None
            table = self._pagetypeinfo(number)
            record = None
        if record is None:
            record = self.collector.new_zone(table, node, zone, number)
        counts, capped, left = block_counts(rest)
        if left:
            say_puzzle(self.receipt, f"line {number}", left)
        self.section = "free"
        self.row, self.row_kind, self.row_type = record, "type", type_name
        if len(record.free_by_type) < MAX_ORDERS:
            record.free_by_type[type_name] = ()
            self._put_type_blocks(record, counts, capped)
        return True

    def _put_type_blocks(self, row: ZoneRecord, counts: tuple[int, ...], capped: frozenset[int]) -> None:
        old = row.free_by_type.get(self.row_type, ())
        row.free_by_type[self.row_type] = (*old, *counts)[:MAX_ORDERS]
        if capped:
            orders = frozenset(o + len(old) for o in capped if o + len(old) < MAX_ORDERS)
            orders |= row.capped_by_type.get(self.row_type, frozenset())
            row.capped_by_type[self.row_type] = orders
            say_cap(self.receipt, f"{row.label} {self.row_type}", counts[min(capped)], orders)

    def _take_pageblocks(self, number: int, node: int, zone: str, counts: tuple[int, ...]) -> bool:
        table = self._pagetypeinfo(number)
        mixed = self.section == "mixed blocks"
        record = table.zone_at(node, zone)
        if record is not None and (record.mixed_pageblocks if mixed else record.pageblocks):
            types, section = table.types, self.section
            self.table = None
            table = self._pagetypeinfo(number)
            table.types, self.section, record = types, section, None
        if record is None:
            record = self.collector.new_zone(table, node, zone, number)
        self.row, self.row_kind = record, "mixed" if mixed else "blocks"
        self._put_pageblocks(record, counts)
        return True

    def _put_pageblocks(self, record: ZoneRecord, counts: tuple[int, ...]) -> None:
        assert self.table is not None
        blocks = record.mixed_pageblocks if self.row_kind == "mixed" else record.pageblocks
        names = self.table.types[len(blocks) :]
        blocks.update(zip(names, counts, strict=False))

    def _take_index(self, number: int, node: int, zone: str, rest: str) -> bool:
        table = self.table
        if table is None or table.kind != "index" or table.zone_at(node, zone):
            table = self.table = self.collector.new_snapshot("index", number)
            self.section = ""
        self.row = self.collector.new_zone(table, node, zone, number)
        self.row_kind = "index"
        self._put_index(self.row, rest)
        return True

    def _put_index(self, row: ZoneRecord, text: str) -> None:
        values = [round(float(word) * 1000) for word in _INDEX.findall(text)]
        row.extfrag = (*row.extfrag, *values)[:MAX_ORDERS]

    def _take_continuation(self, text: str) -> bool:
        """A wrapped row's rest, a blank line, or '...' where the file leaves rows out."""
        if not text.strip():
            return True
        if _ELIDED.match(text):
            self.receipt.say("missing", "rows left out by whoever posted it ('...')")
            return True
        if self.row_kind == "header":
            return self._take_header_rest(text)
        if self.row is None:
            return False
        if self.row_kind == "index" and _INDEX_ROW.match(text):
            self._put_index(self.row, text)
        elif self.row_kind != "index" and _NUMBERS.match(text):
            self._put_rest(self.row, text)
        else:
            return False
        self.receipt.say("repaired", "wrapped rows joined")
        return True

    def _put_rest(self, row: ZoneRecord, text: str) -> None:
        counts, capped, _ = block_counts(text)
        if self.row_kind == "buddy":
            self._put_blocks(row, counts, capped)
        elif self.row_kind == "type":
            self._put_type_blocks(row, counts, capped)
        else:
            self._put_pageblocks(row, counts)

    def _take_header_rest(self, text: str) -> bool:
        table = self.table
        if table is None:
            return False
        if self.section == "free" and _NUMBERS.match(text):
            table.nr_orders = (table.nr_orders or 0) + len(text.split())
        elif self.section != "free" and self.section and _WORDS.match(text):
            table.types = (*table.types, *text.split())[:MAX_ORDERS]
        else:
            return False
        self.receipt.say("repaired", "wrapped rows joined")
        return True

    def _check_pagetypeinfo(self, snapshot: Snapshot) -> None:
        seen = [t for z in snapshot.zones for t in z.free_by_type]
        snapshot.types = tuple(dict.fromkeys([*seen, *snapshot.types]))
        lengths = [len(row) for z in snapshot.zones for row in z.free_by_type.values()]
        if lengths:
            snapshot.nr_orders = min(max([*lengths, snapshot.nr_orders or 0]), MAX_ORDERS)
        else:
            self.receipt.say("missing", "pagetypeinfo: no free blocks by type")
        if not any(z.pageblocks for z in snapshot.zones):
            self.receipt.say("missing", "pagetypeinfo: no number of pageblocks by type")
        if snapshot.pageblock_order is None:
            self.receipt.say("missing", "pagetypeinfo: no line 'Page block order'")
        self._say_short_rows(snapshot)

    def _say_short_rows(self, snapshot: Snapshot) -> None:
        """Rows with fewer numbers than the others: cut off."""
        for zone in snapshot.zones:
            rows = {"": zone.free_blocks} if zone.free_blocks else dict(zone.free_by_type)
            for name, row in rows.items():
                if len(row) < (snapshot.nr_orders or 0):
                    where = f"{zone.label} {name}".strip()
                    text = (
                        f"{snapshot.kind}: {where}: {len(row)} of {snapshot.nr_orders} orders, the row is cut"
                    )
                    self.receipt.say("missing", text)
            if 0 < len(zone.pageblocks) < len(snapshot.types) and zone.free_by_type:
                text = f"{zone.label}: pageblocks of {len(zone.pageblocks)} of {len(snapshot.types)} types"
                self.receipt.say("missing", text + ", the row is cut")

    def _name_indices(self) -> None:
        """Which of the two indices a table holds: by the title above it, else by its values."""
        for snapshot in self.collector.snapshots:
            if snapshot.kind != "index":
                continue
            snapshot.nr_orders = max((len(z.extfrag) for z in snapshot.zones), default=0)
            snapshot.kind = self._index_kind(snapshot)
            if snapshot.kind == "unusable_index":
                for zone in snapshot.zones:
                    zone.unusable, zone.extfrag = zone.extfrag, ()

    def _index_kind(self, snapshot: Snapshot) -> str:
        if "unusable" in snapshot.heading:
            return "unusable_index"
        if "extfrag" in snapshot.heading:
            return "extfrag_index"
        rows = [z.extfrag for z in snapshot.zones]
        if any(value < 0 for row in rows for value in row):
            return "extfrag_index"
        kind = "unusable_index" if all(list(r) == sorted(r) for r in rows) else "extfrag_index"
        self.receipt.say("guessed", f"line {snapshot.line}: index without a title taken for {shown(kind)}")
        return kind
