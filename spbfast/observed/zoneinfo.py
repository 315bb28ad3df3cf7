"""/proc/zoneinfo of any kernel since 2.6: watermarks, reserves, per-CPU limits and counters of every zone.

Owns ZoneInfoReader. A zone begins with ``Node N, zone NAME`` alone on its line and lasts until a line that
zoneinfo does not have.
"""

from __future__ import annotations

import re

from spbfast.observed.cleanup import TextLine, without_prefix
from spbfast.observed.families import MAX_KEYS, Collector, TextFamily, signed
from spbfast.observed.values import PerCpuLimits, Snapshot, ZoneRecord

_ZONE = re.compile(r"\bNode\s+(\d{1,4})\s*,\s+zone\s+([A-Za-z]\w{0,15})\s*$")
_FREE = re.compile(r"^\s*pages\s+free\s+(\d{1,20})\s*$")
_RESERVE = re.compile(r"^\s*protection:\s*\(([\d\s,]*)\)?")
_COLON = re.compile(r"^\s*([a-z][\w ]{0,40}?):\s*(-?\d{1,20})\s*$")
_PLAIN = re.compile(r"^\s*([a-z]\w{0,60})\s+(-?\d{1,20})(?:\s+\(a: \d+ i: \d+\))?\s*$")
_NAMELESS = re.compile(r"^\s*\d{1,20}\s*$")
_MARKS = {
    "min",
    "low",
    "high",
    "boost",
    "promo",
    "spanned",
    "present",
    "managed",
    "cma",
    "scanned",
    "reserved_highatomic",
    "free_highatomic",
}


class ZoneInfoReader(TextFamily):
    """Reader of zoneinfo."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(collector)
        self.table: Snapshot | None = None
        self.zone: ZoneRecord | None = None
        self.part = ""  # per-node, pages, pagesets, end
        self.is_indented = True

    def take(self, line: TextLine, follows: bool) -> bool:
        match = _ZONE.search(line.text) if "zone" in line.text else None
        if match:
            self._begin_zone(line.number, int(match[1]), match[2])
            return True
        if self.zone is None:
            return False
        if self._take_inside(line, self.zone):
            return True
        bare = TextLine(line.number, without_prefix(line.text))
        if self._take_inside(bare, self.zone):
            return True
        self.zone = None
        return False

    def _begin_zone(self, number: int, node: int, name: str) -> None:
        table = self.table
        if table is None or table.zone_at(node, name):
            table = self.table = self.collector.new_snapshot("zoneinfo", number)
        self.zone = self.collector.new_zone(table, node, name, number)
        self.part = "pages"

    def _take_inside(self, line: TextLine, zone: ZoneRecord) -> bool:
        text = line.text
        stripped = text.strip()
        if not stripped:
            return True
        if stripped in ("per-node stats", "pagesets"):
            self.part = stripped.removesuffix(" stats")
            return True
        if match := _FREE.match(text):
            zone.pages["free"] = int(match[1])
            self.is_indented = text[:1].isspace()
            self.part = "pages"
            return True
        if match := _RESERVE.match(text):
            zone.reserve = tuple(int(n[:20]) for n in re.findall(r"\d+", match[1])[:16])
            return True
        return self._take_named(line, zone)

    def _take_named(self, line: TextLine, zone: ZoneRecord) -> bool:
        if match := _COLON.match(line.text):
            return self._take_colon(zone, match[1], int(match[2]))
        if match := _PLAIN.match(line.text):
            # A counter in the first column is vmstat's, which follows.
            if self.is_indented and not line.text[:1].isspace():
                return False
            self._put(zone, match[1], signed(int(match[2])))
            return True
        if _NAMELESS.match(line.text):
            self.receipt.say("left_out", f"line {line.number}: a number without a name")
            return True
        return False

    def _take_colon(self, zone: ZoneRecord, name: str, value: int) -> bool:
        if name == "cpu":
            self.part = "pagesets"
            if self.collector.has_room():
                zone.pcp.append(PerCpuLimits(value))
        elif self.part == "pagesets" and zone.pcp and name != "vm stats threshold" and " " not in name:
            if name in ("start_pfn", "inactive_ratio", "all_unreclaimable", "node_unreclaimable"):
                self.part = "end"
                zone.stats[name] = value
            elif len(zone.pcp[-1].values) < MAX_KEYS:
                zone.pcp[-1].values[name] = value
        else:
            self.collector.put_counter(zone.stats, name, signed(value))
        return True

    def _put(self, zone: ZoneRecord, name: str, value: int) -> None:
        if value < 0:
            self.receipt.say("contradictory", f"zoneinfo: {zone.label}: {name} is {value}, below zero")
        if self.part == "per-node":
            self.collector.put_counter(zone.node_stats, name, value)
        elif name in _MARKS and not name.startswith("nr_"):
            zone.pages[name] = value
        else:
            self.collector.put_counter(zone.stats, name, value)
