"""Tables with a header line: compactsnoop of BCC, and the counters of LLFree's benchmarks.

Owns ColumnReader. A header that is known opens a table; rows with as many columns belong to it.
"""

from __future__ import annotations

import re

from spbfast.observed.cleanup import TextLine
from spbfast.observed.families import Collector, TextFamily
from spbfast.observed.receipt import shown
from spbfast.observed.values import Snapshot, TraceSummary

_SNOOP = re.compile(r"^\s*(?:TIME\(s\)\s+)?COMM\s+T?G?PID\s+NODE\s+ZONE\s+ORDER\s+MODE\b")
_OPS = ("op", "order", "count", "bulk")
_SERIES = ("order", "threads", "iter", "allocs", "small", "huge")
_CSV = {_OPS, _SERIES}
_OP_NAMES = {"a": "kernel_alloc", "u": "user_alloc", "f": "free"}


class ColumnReader(TextFamily):
    """Reader of compactsnoop and LLFree CSV."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.header: tuple[str, ...] = ()
        self.table: Snapshot | None = None
        self.summary: TraceSummary | None = None
        self.statuses: dict[str, int] = {}

    def take(self, line: TextLine, follows: bool) -> bool:
        text = line.text.strip()
        if _SNOOP.match(text):
            self.header = tuple(text.split())
            self.summary = TraceSummary("compactsnoop", line.number, str(self.collector.path))
            self.collector.traces.append(self.summary)
            return True
        names = (
            tuple(w.strip().strip('"') for w in text.split(",")) if "," in text and len(text) < 200 else ()
        )
        if names in _CSV:
            self.header, self.summary = names, None
            self.table = self.collector.new_snapshot("counters", line.number)
            return True
        if not follows or not self.header:
            return False
        return not text or (self._take_snoop(line, text) if self.summary else self._take_csv(line, names))

    def _take_snoop(self, line: TextLine, text: str) -> bool:
        words = text.rsplit(None, len(self.header) - 1)
        row = dict(zip(self.header, words, strict=False))
        if len(words) != len(self.header) or not row.get("ORDER", "").isdigit():
            return False
        assert self.summary is not None
        order = int(row["ORDER"][:4])
        self.summary.count(f"compaction {shown(row.get('STATUS', '?'), 30)}"[:40], order)
        return True

    def _take_csv(self, line: TextLine, words: tuple[str, ...]) -> bool:
        if len(words) != len(self.header) or self.table is None:
            return False
        row = dict(zip(self.header, words, strict=True))
        numbers = {k: v for k, v in row.items() if k != "op"}
        if not all(v.isascii() and v.isdigit() and len(v) <= 20 for v in numbers.values()):
            return False
        if self.header == _OPS:
            self._put_ops(row)
        else:
            self._put_series(row)
        return True

    def _put_ops(self, row: dict[str, str]) -> None:
        assert self.table is not None
        name = f"{_OP_NAMES.get(row['op'], shown(row['op'], 20))}_order{row['order']}"
        self.collector.put_counter(self.table.counters, name, int(row["count"]))
        if row["bulk"].strip("0"):
            self.collector.put_counter(self.table.counters, f"{name}_bulk", int(row["bulk"]))

    def _put_series(self, row: dict[str, str]) -> None:
        """A series of thousands of rows: how many, and the last one."""
        assert self.table is not None
        counters = self.table.counters
        counters["rows"] = counters.get("rows", 0) + 1
        counters.update({name: int(value) for name, value in row.items()})
