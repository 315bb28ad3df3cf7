"""The comparison with a running kernel as text and as plain numbers.

Owns their layout. All that is said follows from the numbers of `spbfast.recordings.judging`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spbfast.recordings.judging import Judgement
from spbfast.text import text_table


def as_numbers(judgement: Judgement) -> dict[str, Any]:
    """A judgement as plain data for JSON."""
    data = dict(vars(judgement))
    data["rows"] = vars(judgement.rows)
    data["by_order"] = {str(order): dict(counts) for order, counts in sorted(judgement.by_order.items())}
    data["extfrag"] = {who: dict(sorted(kinds.items())) for who, kinds in judgement.extfrag.items()}
    for name in ("verdicts", "differs_by"):
        data[name] = dict(data[name])
    return data


def share_equal(verdicts: Mapping[str, int]) -> str:
    """Share of the allocations that can be judged whose page is the one that mainline names."""
    known = verdicts.get("equal", 0) + verdicts.get("differs", 0)
    return f"{100 * verdicts.get('equal', 0) / known:.3f} %" if known else "-"


def judgement_text(n: Mapping[str, Any]) -> str:
    """A judgement for people."""
    names = ("equal", "differs", "start", "untraced")
    rows = [("all", *(f"{n['verdicts'].get(k, 0):,}" for k in names), share_equal(n["verdicts"]))]
    for order, counts in n["by_order"].items():
        rows.append((f"order {order}", *(f"{counts.get(k, 0):,}" for k in names), share_equal(counts)))
    first = "none differs" if n["until_first"] < 0 else f"{n['until_first']:,} before the first that differs"
    parts = [text_table(("allocations", *names, "equal of known"), rows), first]
    parts += [f"differs: {what}: {count:,}" for what, count in n["differs_by"].items()]
    parts += [f"without an event: {what}: {count:,}" for what, count in n["unseen"].items()]
    parts += [f"start: {what}: {count:,}" for what, count in n["start"].items()]
    parts += [f"counter {what}: {count:,}" for what, count in n["activity"].items() if count]
    rows = []
    for kind in sorted(n["extfrag"].get("kernel", {}) | n["extfrag"].get("model", {})):
        rows.append((kind, *(n["extfrag"].get(who, {}).get(kind, 0) for who in ("kernel", "model"))))
    if rows:
        parts.append(text_table(("fallbacks", "kernel", "model"), rows))
    rows = []
    for name, both in n["free_blocks"].items():
        rows += [(f"{name} {who}", *both[who]) for who in ("kernel", "model") if both[who]]
    if rows:
        width = max(map(len, rows))
        rows = [(*row, *[""] * (width - len(row))) for row in rows]
        parts.append(text_table(("free blocks", *map(str, range(width - 1))), rows))
    rows = [(name, both["kernel"], both["model"]) for name, both in n["pageblocks"].items()]
    parts.append(text_table(("pageblocks", "kernel", "model"), rows))
    return "\n".join(parts)
