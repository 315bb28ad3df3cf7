"""Observations and diagnoses as text for people and as plain data for programs.

Owns their layout. What is said stands in the objects; nothing is computed here but the width of columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from spbfast.observed.diagnosis import Diagnosis
from spbfast.observed.loading import Observation
from spbfast.observed.meminfo_report import request_words
from spbfast.observed.values import Snapshot, TraceSummary, ZoneRecord
from spbfast.text import text_table

MOST_TABLES, MOST_ROWS = 12, 100
_MARKS = ("free", "min", "low", "high", "managed", "present")


def observation_text(observation: Observation) -> str:
    """What was read: tables in short, then the receipt."""
    parts = [", ".join(observation.files)]
    for snapshot in observation.snapshots[:MOST_TABLES]:
        parts.append(_snapshot_text(snapshot))
    hidden = len(observation.snapshots) - MOST_TABLES
    if hidden > 0:
        parts.append(f"... and {hidden} more tables")
    parts += [_trace_text(trace) for trace in observation.traces]
    parts.append(_receipt_text(observation))
    return "\n\n".join(part for part in parts if part)


def observation_data(observation: Observation) -> Any:
    """The same as plain data for JSON."""
    return _plain(observation)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The verdict, the arithmetic of every zone, and the verdict by order."""
    asked = "no request named" if diagnosis.order is None else f"order {diagnosis.order}"
    lines = [f"{diagnosis.source}: {asked}, {diagnosis.gfp}: {diagnosis.verdict}", diagnosis.sentence]
    lines += [f"assumed: {text}" for text in diagnosis.assumptions]
    for zone in diagnosis.zones:
        lines += ["", f"{zone.label}: {zone.verdict}", *(f"    {step}" for step in zone.steps)]
        if zone.extfrag is not None and zone.unusable is not None:
            lines.append(
                f"    extfrag index {zone.extfrag / 1000:.3f}, unusable-free index {zone.unusable / 1000:.3f}"
            )
    if diagnosis.by_order:
        rows = [(order, verdict) for order, verdict in diagnosis.by_order.items()]
        lines += ["", text_table(("order", "verdict"), rows, left=(1,))]
    return "\n".join(lines)


def diagnosis_data(diagnosis: Diagnosis) -> Any:
    """The same as plain data for JSON."""
    return _plain(diagnosis)


def _snapshot_text(snapshot: Snapshot) -> str:
    title = f"{snapshot.kind}, line {snapshot.line}"
    if snapshot.heading:
        title += f" ({snapshot.heading})"
    if snapshot.request is not None:
        title += f": {request_words(snapshot.request)}"
    if snapshot.counters and not snapshot.zones:
        title += f": {len(snapshot.counters)} counters"
    if snapshot.caches:
        title += f": {len(snapshot.caches)} slab caches"
    tables = [title, _blocks_table(snapshot.zones), _types_table(snapshot), _index_table(snapshot.zones)]
    tables.append(_marks_table(snapshot.zones))
    return "\n".join(t for t in tables if t)


def _blocks_table(zones: Iterable[ZoneRecord]) -> str:
    rows = [(z.label, *_counts(z.free_blocks, z.capped)) for z in zones if z.free_blocks]
    return _order_table(rows)


def _types_table(snapshot: Snapshot) -> str:
    rows = [
        (f"{z.label} {name}", *_counts(row, z.capped_by_type.get(name, frozenset())))
        for z in snapshot.zones
        for name, row in z.free_by_type.items()
        if any(row)
    ]
    blocks = [
        (z.label, *(z.pageblocks.get(name, "-") for name in snapshot.types))
        for z in snapshot.zones
        if z.pageblocks
    ]
    text = _order_table(rows)
    if blocks:
        text += ("\n" if text else "") + text_table(("pageblocks", *snapshot.types), _shortened(blocks))
    return text


def _index_table(zones: Iterable[ZoneRecord]) -> str:
    rows = [(z.label, *(f"{v / 1000:.3f}" for v in z.extfrag or z.unusable)) for z in zones]
    rows = [row for row in rows if len(row) > 1]
    return _order_table(rows, "index") if rows else ""


def _counts(row: tuple[int, ...], capped: frozenset[int]) -> list[str]:
    return [f">{n}" if order in capped else str(n) for order, n in enumerate(row)]


def _order_table(rows: list[tuple[str, ...]], heading: str = "free blocks") -> str:
    if not rows:
        return ""
    rows = _shortened(rows)
    width = max(map(len, rows))
    padded = [(*row, *[""] * (width - len(row))) for row in rows]
    return text_table((heading, *map(str, range(width - 1))), padded)


def _marks_table(zones: Iterable[ZoneRecord]) -> str:
    rows = [(z.label, *(z.pages.get(k, "-") for k in _MARKS), _words(z.reserve)) for z in zones if z.pages]
    return text_table(("pages", *_MARKS, "lowmem_reserve"), _shortened(rows)) if rows else ""


def _shortened(rows: list[Any]) -> list[Any]:
    """The first rows of a long table, and a row that says so."""
    if len(rows) <= MOST_ROWS:
        return rows
    more = f"... {len(rows) - MOST_ROWS} more"
    return [*rows[:MOST_ROWS], (more, *[""] * (len(rows[0]) - 1))]


def _words(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def _trace_text(trace: TraceSummary) -> str:
    title = trace.kind
    if trace.first_ns is not None and trace.last_ns is not None:
        title += f", {(trace.last_ns - trace.first_ns) / 1e9:.6f} s"
    if trace.cpus:
        title += f", {len(trace.cpus)} CPUs"
    rows = []
    for name, count in trace.events.most_common():
        orders = ", ".join(f"{o}: {n}" for o, n in sorted(trace.orders.get(name, {}).items()))
        rows.append((name, count, orders))
    facts = "\n".join(f"{key}: {value}" for key, value in trace.facts.items())
    return "\n".join(
        t for t in (title, text_table(("event", "count", "by order"), rows, left=(0, 2)), facts) if t
    )


def _receipt_text(observation: Observation) -> str:
    lines = ["receipt"]
    lines += [f"  {name}: {value}" for name, value in observation.receipt.facts.items()]
    for heading, texts in observation.receipt.sections():
        lines += [f"  {heading}:", *(f"    {text}" for text in texts)]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Dataclasses as mappings, sets as sorted lists and all keys as text, for JSON."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
