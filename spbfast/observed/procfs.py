"""Lists of /proc: vmstat, meminfo and slabinfo.

Owns CounterLists and SlabInfoReader. A name that comes again begins a new snapshot, so before and after may
stand in one file.
"""

from __future__ import annotations

import re

from spbfast.observed.cleanup import TextLine
from spbfast.observed.families import Collector, TextFamily, signed
from spbfast.observed.values import CacheRow, Snapshot

_VMSTAT = re.compile(r"^\s*([a-z][a-z0-9_]{2,60})\s+(\d{1,20})\s*$")
_VMSTAT_NAMES = re.compile(
    r"^(?:nr_|pg|psw|compact_|thp_|allocstall|kswapd_|workingset_|unevictable_|numa_|balloon_|swap_|htlb_|drop_"
    r"|oom_kill|slabs_scanned|pageoutrun|zone_reclaim|direct_map|ksm_|cow_ksm|zswp|zswap|vma_lock|kreclaim"
    r"|kcompactd|hugetlb|demote_|promote|memmap_)"
)
_MEMINFO = re.compile(
    r"^\s*(?:Node\s+(\d{1,4})\s+)?([A-Z][A-Za-z0-9_]{2,40}(?:\([a-z]+\))?):\s+(\d{1,20})(?:\s*kB)?\s*$"
)
_MEMINFO_NAMES = re.compile(
    r"^(?:Mem|Buffers|Cached|Swap|Active|Inactive|Slab|SRecl|SUnrecl|Anon|HugePages|Vmalloc|Dirty)"
)
_SLAB_HEAD = re.compile(r"\bslabinfo - version:\s*(\d+\.\d+)|^\s*# ?name\s+<active_objs>")
_SLAB = re.compile(
    r"^\s*([^\s:][^:]{0,80}?)\s+(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s+(\d{1,15})\s*"
    r"(?::\s*(?:tunables\b.*)?)?$"
)
_SLAB_REST = re.compile(r"^\s*(?::|tunables\b|slabdata\b|<|[\d\s:]+$)")


class CounterLists(TextFamily):
    """Reader of vmstat and meminfo."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.tables: dict[str, Snapshot] = {}
        self.last = ""

    def take(self, line: TextLine, follows: bool) -> bool:
        text = line.text
        if match := _VMSTAT.match(text):
            if (follows and self.last == "vmstat") or _VMSTAT_NAMES.match(match[1]):
                self._put("vmstat", line.number, match[1], int(match[2]))
                return True
        elif match := _MEMINFO.match(text):
            if (follows and self.last == "meminfo") or _MEMINFO_NAMES.match(match[2]):
                name = match[2] if match[1] is None else f"Node {match[1]} {match[2]}"
                self._put("meminfo", line.number, name, int(match[3]))
                return True
        return follows and not text.strip()

    def _put(self, kind: str, number: int, name: str, value: int) -> None:
        table = self.tables.get(kind)
        if table is None or name in table.counters:
            table = self.tables[kind] = self.collector.new_snapshot(kind, number)
        if signed(value) < 0:
            text = f"{kind}: {name} is {signed(value)}, printed as {value}"
            self.receipt.say("contradictory", text)
        self.collector.put_counter(table.counters, name, signed(value))
        self.last = kind


class SlabInfoReader(TextFamily):
    """Reader of slabinfo, versions 2.x."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.table: Snapshot | None = None

    def take(self, line: TextLine, follows: bool) -> bool:
        text = line.text
        if match := _SLAB_HEAD.search(text):
            if match[1] or self.table is None or not follows:
                self.table = self.collector.new_snapshot("slabinfo", line.number)
            return True
        whole = ": tunables" in text or ":tunables" in text
        if not follows and not whole:
            return False
        match = _SLAB.match(text)
        if match is None:
            return follows and (not text.strip() or bool(_SLAB_REST.match(text)))
        self._put(line.number, match)
        return True

    def _put(self, number: int, match: re.Match[str]) -> None:
        if self.table is None:
            self.table = self.collector.new_snapshot("slabinfo", number)
        numbers = [int(n) for n in match.groups()[1:]]
        if self.collector.has_room():
            self.table.caches.append(CacheRow(match[1], *numbers))
        if numbers[0] > numbers[1]:
            text = f"slabinfo: {match[1]}: {numbers[0]} objects in use of {numbers[1]}"
            self.receipt.say("contradictory", text)
