"""What the tables of one machine say about its zones, brought together for a judgement.

Owns Evidence: which number is taken from which table, which zones a request may use and in which order, and
which entry of lowmem_reserve counts. What had to be assumed is appended to the caller's list.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from spbfast.errors import DumpError
from spbfast.observed.blockmath import pages_in
from spbfast.observed.gfp import GfpFlags
from spbfast.observed.margins import ZoneNumbers
from spbfast.observed.report_text import LETTERS
from spbfast.observed.values import ZONE_NAMES, Snapshot, ZoneRecord

MAX_JUDGED = 512


class Evidence:
    """The snapshots of one moment, asked about a request with certain flags."""

    def __init__(
        self, file: str, snapshots: Sequence[Snapshot], flags: GfpFlags, assumptions: list[str]
    ) -> None:
        self.file, self.snapshots, self.flags, self.assumptions = file, snapshots, flags, assumptions

    def numbers(self, only: str | None = None) -> list[ZoneNumbers]:
        """The zones that the request may use, in the kernel's order: high to low on each node."""
        merged: dict[tuple[int, str], list[tuple[Snapshot, ZoneRecord]]] = {}
        for snapshot in self.snapshots:
            for record in snapshot.zones:
                merged.setdefault(record.key, []).append((snapshot, record))
        self._say_choice()
        names = {name for _, name in merged}
        if only is not None and only not in names:
            raise DumpError(
                self.file, 0, f"has no zone {only!r}; it has {', '.join(sorted(names)) or 'none'}"
            )
        self._leave_nodes_out(merged)
        top = zone_rank(self.flags.highest_zone)
        wanted = [key for key in merged if (only is None and zone_rank(key[1]) <= top) or key[1] == only]
        wanted.sort(key=lambda key: (key[0], -zone_rank(key[1])))
        if len(wanted) > MAX_JUDGED:
            self.assumptions.append(f"the first {MAX_JUDGED} of {len(wanted)} zones are judged")
        return [self._merge(merged[key], names) for key in wanted[:MAX_JUDGED]]

    def _leave_nodes_out(self, merged: dict[tuple[int, str], list[tuple[Snapshot, ZoneRecord]]]) -> None:
        """Nodes that the request was confined to; atomic requests are not bound by a cpuset."""
        request = self.snapshots[0].request
        if "THISNODE" in self.flags.names:
            self.assumptions.append("__GFP_THISNODE: only one node counts; which one is not told")
        if request is None or not request.nodes or not self.flags.is_blocking:
            return
        others = {key for key in merged if key[0] not in request.nodes}
        if others and len(others) < len(merged):
            nodes = ", ".join(map(str, sorted(request.nodes)))
            self.assumptions.append(f"only node {nodes} counts, by the headline's nodemask or mems_allowed")
            for key in others:
                del merged[key]

    def _say_choice(self) -> None:
        """Where a kind of table comes several times, the first is judged."""
        for kind in dict.fromkeys(s.kind for s in self.snapshots):
            count = sum(s.kind == kind for s in self.snapshots)
            if count > 1:
                self.assumptions.append(f"of {count} tables of {kind} the first is judged")

    def _merge(self, records: list[tuple[Snapshot, ZoneRecord]], names: set[str]) -> ZoneNumbers:
        first = records[0][1]
        self.assumptions += [f"{r.label}: blocks are not used: {r.doubt}" for _, r in records if r.doubt]
        pages: dict[str, int] = {}
        stats: dict[str, int] = {}
        for _, record in records:
            for name, value in record.pages.items():
                pages.setdefault(name, value)
            for name, value in record.stats.items():
                stats.setdefault(name, value)
        lists = next((r for _, r in records if r.free_blocks and not r.doubt), None)
        typed = next((r for _, r in records if r.free_by_type), None)
        reserve = next((r.reserve for _, r in records if r.reserve), ())
        base = ZoneNumbers(
            label=first.label,
            zone=first.zone,
            mark_min=pages.get("min"),
            mark_low=pages.get("low"),
            boost=pages.get("boost", 0),
            reserve=self._reserve(first, reserve, names),
            free_highatomic=self._highatomic(pages, typed),
            free_cma=self._cma(pages, stats, typed),
            blocks=lists.free_blocks if lists else typed.blocks() if typed else (),
            by_type=typed.free_by_type if typed else {},
            letters=_types_of_letters(lists),
            pcp=pages.get("free_pcp", 0),
        )
        return self._with_free(base, pages, bool(lists and lists.capped))

    def _with_free(self, base: ZoneNumbers, pages: dict[str, int], is_capped: bool) -> ZoneNumbers:
        if "free" in pages:
            return replace(base, free=pages["free"], free_source="counter")
        if base.blocks:
            source = "sum of the lists" + (", a lower bound" if is_capped else "")
            return replace(base, free=pages_in(base.blocks), free_source=source)
        return base

    def _highatomic(self, pages: dict[str, int], typed: ZoneRecord | None) -> int | None:
        """Free HighAtomic pages; older reports print only what is reserved, free or not."""
        if "free_highatomic" in pages:
            return pages["free_highatomic"]
        if "reserved_highatomic" in pages:
            return pages["reserved_highatomic"]
        return (
            pages_in(typed.free_by_type["HighAtomic"])
            if typed and "HighAtomic" in typed.free_by_type
            else None
        )

    def _cma(self, pages: dict[str, int], stats: dict[str, int], typed: ZoneRecord | None) -> int | None:
        for found in (pages.get("free_cma"), stats.get("nr_free_cma")):
            if found is not None:
                return found
        return pages_in(typed.free_by_type["CMA"]) if typed and "CMA" in typed.free_by_type else None

    def _reserve(self, record: ZoneRecord, reserve: tuple[int, ...], names: set[str]) -> int | None:
        if not reserve:
            return None
        top = max(self.flags.highest_zone, record.zone, key=zone_rank)
        layouts = zone_layouts(names, len(reserve))
        if not layouts:
            return None
        values = [reserve[_index_of_zone(layout, top)] for layout in layouts]
        if len(set(values)) > 1:
            text = f"lowmem_reserve read as for zones {', '.join(layouts[0])}"
            if text not in self.assumptions:
                self.assumptions.append(text)
        return values[0]


def zone_layouts(names: set[str], length: int) -> list[tuple[str, ...]]:
    """Which zones the entries of lowmem_reserve may stand for: the likeliest readings.

    Parameters
    ----------
    names : set of str
        Zones that the file shows; zones without memory have an entry, too, and may not be shown.
    length : int
        Number of entries.
    """
    fitting = [c for c in itertools.combinations(ZONE_NAMES, length) if names & set(ZONE_NAMES) <= set(c)]

    def likelihood(layout: tuple[str, ...]) -> tuple[bool, ...]:
        has = set(layout)
        return (
            "Normal" in has,
            "Movable" in has,
            not ("HighMem" in has and "DMA32" in has) or "HighMem" in names,
            "HighMem" not in has or "HighMem" in names,
            "Device" not in has or len(has) > 4,
        )

    best = max(map(likelihood, fitting), default=())
    return [layout for layout in fitting if likelihood(layout) == best]


def _types_of_letters(record: ZoneRecord | None) -> tuple[tuple[str, ...], ...]:
    """By order, the types behind the letters of a report."""
    words = record.letters if record else ()
    return tuple(tuple(LETTERS.get(letter, letter) for letter in word) for word in words)


def _index_of_zone(layout: tuple[str, ...], top: str) -> int:
    return max((i for i, name in enumerate(layout) if zone_rank(name) <= zone_rank(top)), default=0)


def zone_rank(zone: str) -> int:
    """Where a zone stands in the kernel's order; an unknown one stands with Normal."""
    return ZONE_NAMES.index(zone) if zone in ZONE_NAMES else 2
