"""Do the numbers agree? Between tables, between counter and lists, between published and computed indices.

Owns the checks that fill a receipt's `contradictory`, and the facts about the machine: page size, orders,
types, and what a simulated machine lacks of them. Every contradiction names all its numbers and where each
stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spbfast.constants import NR_ORDERS, PB_ORDER
from spbfast.observed.blockmath import extfrag_of, pages_in, unusable_of
from spbfast.observed.receipt import Receipt, counted
from spbfast.observed.values import MAX_ORDERS, Snapshot, TraceSummary, ZoneRecord

KNOWN_TYPES = {"Unmovable", "Movable", "Reclaimable", "HighAtomic"}
FOREIGN_ZONES = {"HighMem", "Movable", "Device"}
_MAYBE = "read at different moments, or a balloon counts otherwise"
DRIFT = 0.01  # counters are kept per CPU and lag behind the lists
PAGE_SIZES_KB = (4, 8, 16, 32, 64)


def check_snapshots(snapshots: Sequence[Snapshot], receipt: Receipt) -> None:
    """All checks between snapshots of one machine."""
    compare_sources(snapshots, receipt)
    compare_indices(snapshots, receipt)
    compare_sums(snapshots, receipt)
    for snapshot in snapshots:
        if snapshot.kind == "meminfo_report":
            _check_report(snapshot, receipt)


def free_pages_by_source(snapshots: Sequence[Snapshot]) -> dict[tuple[int, str], dict[str, int]]:
    """Free pages of every zone as each kind of table tells it; where a kind comes again, its first table.

    Returns
    -------
    dict
        (node, zone) -> source -> pages. Tables with capped or cut rows are no source.
    """
    found: dict[tuple[int, str], dict[str, int]] = {}
    for snapshot in snapshots:
        for zone in snapshot.zones:
            pages = _free_in(snapshot, zone)
            if pages is not None:
                found.setdefault(zone.key, {}).setdefault(snapshot.kind, pages)
    return found


def _free_in(snapshot: Snapshot, zone: ZoneRecord) -> int | None:
    if snapshot.kind in ("zoneinfo", "meminfo_report"):
        return zone.pages.get("free")
    if zone.is_lower_bound() or not zone.blocks():
        return None
    rows = zone.free_by_type.values() if zone.free_by_type else [zone.free_blocks]
    if any(len(row) < (snapshot.nr_orders or 0) for row in rows):
        return None
    if zone.free_by_type and len(zone.free_by_type) < len(snapshot.types):
        return None
    return pages_in(zone.blocks())


def compare_sources(snapshots: Sequence[Snapshot], receipt: Receipt) -> None:
    """Name zones whose free pages differ from table to table."""
    for (node, name), sources in free_pages_by_source(snapshots).items():
        if len(set(sources.values())) < 2:
            continue
        told = ", ".join(f"{pages:,} ({kind})" for kind, pages in sources.items())
        receipt.say(
            "contradictory",
            f"node {node} {name}: free pages {told}: the tables were read at different moments, "
            f"or on different machines; taken is {source_taken(sources)} for the counter",
        )


def source_taken(sources: dict[str, int]) -> str:
    """The table whose free pages count: the counter that the kernel itself checks, where there is one."""
    order = ("meminfo_report", "zoneinfo", "buddyinfo", "pagetypeinfo")
    return next((kind for kind in order if kind in sources), next(iter(sources)))


def compare_indices(snapshots: Sequence[Snapshot], receipt: Receipt) -> None:
    """Published indices against those that the counts give, to the last digit."""
    checks: list[tuple[str, str, Callable[[Sequence[int], int], int]]] = [
        ("extfrag_index", "extfrag", extfrag_of),
        ("unusable_index", "unusable", unusable_of),
    ]
    for kind, field, formula in checks:
        tables = [s for s in snapshots if s.kind == kind]
        if not tables:
            continue
        counts = next((s for s in snapshots if s.kind in ("buddyinfo", "pagetypeinfo")), None)
        if counts is None:
            receipt.say("missing", f"{kind}: no free blocks to compute it from")
            continue
        for table in tables:
            _compare_index(table, field, counts, formula, receipt)


def _compare_index(
    table: Snapshot,
    field: str,
    counts: Snapshot,
    formula: Callable[[Sequence[int], int], int],
    receipt: Receipt,
) -> None:
    equal, total, first = 0, 0, ""
    sources = {z.key: z for z in counts.zones}
    for zone in table.zones:
        source = sources.get(zone.key)
        if source is None or not source.blocks():
            continue
        for order, published in enumerate(getattr(zone, field)):
            computed = formula(source.blocks(), order)
            total += 1
            equal += computed == published
            if computed != published and not first:
                both = f"{published / 1000:.3f} published, {computed / 1000:.3f} computed"
                first = f"{zone.label} order {order}: {both}"
    if first:
        receipt.say(
            "contradictory",
            f"{table.kind}: {total - equal} of {total} values differ from those of {counts.kind} ({first}): "
            "read at different moments",
        )
    elif total:
        receipt.say(
            "read", f"{table.kind}: all {total} published values equal those computed from {counts.kind}"
        )


def compare_sums(snapshots: Sequence[Snapshot], receipt: Receipt) -> None:
    """The free pages of all zones against MemFree and nr_free_pages."""
    zones = next((s for s in snapshots if s.kind == "zoneinfo"), None)
    if zones is None:
        return
    total = sum(z.pages.get("free", 0) for z in zones.zones)
    vmstat = next((s for s in snapshots if s.kind == "vmstat" and "nr_free_pages" in s.counters), None)
    meminfo = next((s for s in snapshots if s.kind == "meminfo" and "MemFree" in s.counters), None)
    if vmstat and _differs(vmstat.counters["nr_free_pages"], total):
        told = f"{vmstat.counters['nr_free_pages']:,} (vmstat), {total:,} (sum of zoneinfo)"
        receipt.say("contradictory", f"free pages of the machine {told}: {_MAYBE}")
    page_kb, _ = page_size_kb(snapshots)
    if meminfo and _differs(meminfo.counters["MemFree"], total * page_kb):
        told = f"{meminfo.counters['MemFree']:,} kB (meminfo), {total * page_kb:,} kB (sum of zoneinfo)"
        receipt.say("contradictory", f"free memory {told}: {_MAYBE}")


def _differs(a: int, b: int) -> bool:
    return abs(a - b) > DRIFT * max(a, b, 1)


def _check_report(snapshot: Snapshot, receipt: Receipt) -> None:
    page_kb = snapshot.page_kb or 4
    for zone in snapshot.zones:
        free = zone.pages.get("free")
        if free is None or not zone.free_blocks:
            continue
        lists = pages_in(zone.free_blocks)
        if not _differs(free, lists):
            continue
        isolated = any("I" in letters for letters in zone.letters)
        why = (
            "isolated pages are on the lists and not in the counter"
            if isolated
            else "they were read one by one"
        )
        told = f"{free * page_kb:,} kB by the counter, {lists * page_kb:,} kB on the lists"
        receipt.say("contradictory", f"line {snapshot.line}: {zone.label}: free {told}: {why}")
    _check_total(snapshot, receipt)


def _check_total(snapshot: Snapshot, receipt: Receipt) -> None:
    total = sum(z.pages.get("free", 0) for z in snapshot.zones)
    told = snapshot.counters.get("free")
    if told is None or not snapshot.zones:
        return
    if total < told and _differs(total, told):
        text = f"line {snapshot.line}: zones add up to {total:,} free pages of {told:,}: zones are missing"
        receipt.say("missing", text)
    elif _differs(total, told):
        text = f"line {snapshot.line}: free pages {told:,} (whole machine), {total:,} (sum of zones)"
        receipt.say("contradictory", text)


def page_size_kb(snapshots: Sequence[Snapshot]) -> tuple[int, str]:
    """Page size in kB and how it is known: told, from meminfo beside zoneinfo, or assumed.

    Pages that are present tell the same as managed ones, or neither is believed: on machines whose memory
    comes as it is needed the latter can be a fraction of MemTotal.
    """
    told = {s.page_kb for s in snapshots if s.page_kb}
    if told:
        return min(told), "from the sizes of blocks or the head of the capture"
    meminfo = next((s for s in snapshots if s.kind == "meminfo" and "MemTotal" in s.counters), None)
    zones = next((s for s in snapshots if s.kind == "zoneinfo"), None)
    if meminfo and zones:
        sizes = {
            _nearest_size(meminfo.counters["MemTotal"], zones, key) for key in ("managed", "present")
        } - {0}
        if len(sizes) == 1:
            return sizes.pop(), "from MemTotal and the pages of zoneinfo"
    return 4, "assumed"


def _nearest_size(total_kb: int, zones: Snapshot, key: str) -> int:
    """Page size in kB that makes these pages of all zones nearly as much as MemTotal; 0 if none does."""
    pages = sum(zone.pages.get(key, 0) for zone in zones.zones)
    ratio = total_kb / pages if pages > 0 else 0.0
    nearest = min(PAGE_SIZES_KB, key=lambda kb: abs(kb - ratio))
    return nearest if abs(nearest - ratio) < 0.2 * nearest else 0


def say_facts(snapshots: Sequence[Snapshot], traces: Sequence[TraceSummary], receipt: Receipt) -> None:
    """Put what the files say about the machine into a receipt, and what the model lacks of it."""
    _say_found(snapshots, traces, receipt)
    orders = {s.nr_orders for s in snapshots if s.nr_orders}
    if orders:
        receipt.facts["orders"] = " and ".join(f"{n} (0..{n - 1})" for n in sorted(orders))
    if any(s.zones for s in snapshots):
        page_kb, how = page_size_kb(snapshots)
        receipt.facts["page size"] = f"{page_kb} KiB, {how}"
        if how == "assumed" and any(s.zones and s.kind != "meminfo_report" for s in snapshots):
            receipt.say("guessed", "pages of 4 KiB: the file does not tell the page size")
        if page_kb != 4:
            receipt.say("model_lacks", f"pages of {page_kb} KiB")
    pageblock = {s.pageblock_order for s in snapshots if s.pageblock_order is not None}
    if pageblock:
        receipt.facts["pageblock order"] = " and ".join(str(o) for o in sorted(pageblock))
    _say_types(snapshots, receipt)
    for order in sorted(pageblock - {PB_ORDER}):
        receipt.say("model_lacks", f"pageblocks of order {order}")
    for count in sorted(orders - {NR_ORDERS}):
        receipt.say("model_lacks", f"{count} orders")
    foreign = {z.zone for s in snapshots for z in s.zones if z.zone in FOREIGN_ZONES and _has_pages(z)}
    for name in sorted(foreign):
        receipt.say("model_lacks", f"zone {name}")


def _has_pages(zone: ZoneRecord) -> bool:
    return any(zone.blocks()) or zone.pages.get("present", 0) > 0 or zone.pages.get("free", 0) > 0


def _say_found(snapshots: Sequence[Snapshot], traces: Sequence[TraceSummary], receipt: Receipt) -> None:
    kinds: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        kinds.setdefault(snapshot.kind, []).append(snapshot)
    for kind, found in kinds.items():
        zones = sum(len(s.zones) for s in found)
        parts = [f"{len(found)} x {kind}" if len(found) > 1 else kind]
        parts += [counted(zones, "zone")] if zones else []
        counters = sum(len(s.counters) for s in found)
        parts += [counted(counters, "counter")] if counters and not zones else []
        caches = sum(len(s.caches) for s in found)
        parts += [counted(caches, "slab cache")] if caches else []
        receipt.say("read", ", ".join(parts))
    for trace in traces:
        total = counted(sum(trace.events.values()), "event")
        receipt.say("read", f"{trace.kind}: {total} of {counted(len(trace.events), 'kind')}")


def _say_types(snapshots: Sequence[Snapshot], receipt: Receipt) -> None:
    names = list(dict.fromkeys(t for s in snapshots for t in s.types))[:MAX_ORDERS]
    if not names:
        return
    receipt.facts["types"] = ", ".join(names)
    letters = {letter for s in snapshots for z in s.zones for word in z.letters for letter in word}
    for name in names:
        if name in KNOWN_TYPES:
            continue
        used = any(
            any(z.free_by_type.get(name, ())) or z.pageblocks.get(name, 0) for s in snapshots for z in s.zones
        )
        if used or (letters and any(s.kind == "meminfo_report" and name in s.types for s in snapshots)):
            receipt.say("model_lacks", f"type {name}")
        else:
            receipt.say("left_out", f"type {name}: no page and no pageblock of it")
