"""V12, mainline's rules against a running kernel: from the numbers that scripts/live writes.

Owns what results/studies/live.json says about the goal. Records nothing itself: that needs root and a machine
whose memory may be filled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from experiments.finding import Experiment, Finding, unchecked, verdict
from experiments.live_page import share_equal
from experiments.machines import configs

GOAL = 0.99
VERDICTS = ("equal", "differs", "start", "untraced")


def run(quick: bool) -> dict[str, Any]:
    """The numbers of the last `scripts/live run --write`."""
    path = configs().parent / "results" / "studies" / "live.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """For each load: the share of pages that the model names."""
    if not numbers.get("loads"):
        return [unchecked("pages handed out by a running kernel", "99 % equal", "scripts/live has not run")]
    return [_finding(name, load["judgement"]) for name, load in numbers["loads"].items()]


def _finding(name: str, judged: Mapping[str, Any]) -> Finding:
    counts = judged["verdicts"]
    known = counts["equal"] + counts["differs"]
    before = judged["until_first"] if judged["until_first"] >= 0 else known
    kinds = judged["differs_by"].items()
    large = sum(n for what, n in kinds if "order 9" in what or "order 10" in what)
    moved = judged["activity"].get("reported_kib", 0) // 1024
    told = (
        f"{large:,} differ on lists of order 9 and 10, where free page reporting moved {moved:,} MiB "
        f"meanwhile and leaves no event; {counts['differs'] - large:,} others are unexplained"
    )
    return Finding(
        f"pages handed out, load {name}",
        "the kernel's own; goal 99 %",
        f"{share_equal(counts)} of {known:,} equal",
        verdict(counts["equal"] >= GOAL * known),
        f"{before:,} before the first that differs; {told}",
    )


def tables(numbers: Mapping[str, Any]) -> list[str]:
    """Verdicts, fallbacks, what left no event, and the lists at the end."""
    lines: list[str] = []
    loads = numbers.get("loads", {})
    if not loads:
        return lines
    lines += ["", f"Kernel {numbers['kernel']}.", ""]
    lines += _table(
        ("load", "events", "lost", *VERDICTS),
        [
            (
                name,
                load["recording"]["events"],
                load["recording"]["lost"],
                *(load["judgement"]["verdicts"].get(k, 0) for k in VERDICTS),
            )
            for name, load in loads.items()
        ],
    )
    lines += ["", "By order of the request, equal and differing:", ""]
    orders = sorted({int(o) for load in loads.values() for o in load["judgement"]["by_order"]})
    rows = []
    for name, load in loads.items():
        by = load["judgement"]["by_order"]
        cells = (by.get(str(o), {}) for o in orders)
        rows.append((name, *(f"{c.get('equal', 0):,} / {c.get('differs', 0):,}" for c in cells)))
    lines += _table(("load", *map(str, orders)), rows)
    lines += ["", "Without an event:", ""]
    lines += _table(
        ("load", "what", "number"),
        [(name, what, n) for name, load in loads.items() for what, n in _unseen(load["judgement"])],
    )
    lines += ["", "Fallbacks recorded, and those of the model that follows the recording:", ""]
    kinds = [
        (name, kind, *(load["judgement"]["extfrag"].get(who, {}).get(kind, 0) for who in ("kernel", "model")))
        for name, load in loads.items()
        for kind in sorted(set().union(*load["judgement"]["extfrag"].values()))
    ]
    lines += _table(("load", "fallback", "kernel", "model"), kinds)
    lines += ["", "Free blocks by order, and pageblocks, when the recording ends:", ""]
    rows = []
    for name, load in loads.items():
        judged = load["judgement"]
        for mt, both in judged["free_blocks"].items():
            for who in ("kernel", "model"):
                rows.append((name, mt, who, *both[who], judged["pageblocks"][mt][who]))
    return lines + _table(("load", "type", "", *map(str, range(11)), "pageblocks"), rows)


def _unseen(judged: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [
        *judged["start"].items(),
        *judged["unseen"].items(),
        *((f"counter {name}", n) for name, n in judged["activity"].items()),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows]
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in cells),
    ]


EXPERIMENT = Experiment(
    "V12",
    "V12: pages handed out by a running kernel",
    "`scripts/live run` fills free memory of a virtual machine until the free lists of zone Normal are "
    "nearly empty, gives scattered runs of pages back, and records a load with all events of the buddy "
    "lists. Mainline's rules then follow the recording event by event, and name the page that they "
    "would have handed out. *start* counts blocks that lay on a list when recording began, in an order "
    "that is published nowhere, and blocks that the rules named wrongly before; *untraced* counts pages "
    "that became free without an event. Neither says anything of the model. Where it differs it takes the "
    "recorded page and goes on, and the page that it named counts as one of unknown place: so each "
    "difference counts once. Types of pageblocks at the start are published as totals only; those that no "
    "event shows are chosen so that the kernel's own table of free blocks comes out.",
    run,
    judge,
    tables,
)
