"""V13, a measured machine simulated against its own recordings: from the numbers of scripts/measured.

Owns the page: findings, tables, and the sentences on what was fitted. What is compared is
measured_compared.py's, what is said of a difference measured_reasons.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.finding import Experiment, Finding, unchecked, verdict
from experiments.machines import configs
from experiments.measured_compared import (
    COUNTER,
    LISTS,
    PER_SECOND,
    RATE,
    TABLE,
    Compared,
    compared,
    shown,
    value_of,
)
from experiments.measured_reasons import reason

LOADS = {
    "tree": "a build: small files written, compiled to bytecode, packed, read and removed",
    "walk": "a file walk: 4,000 files looked up and read from disk again and again",
    "huge": "a memory hog: anonymous memory, small and huge pages, freed in part and in whole",
    "short": "memory is full of page cache, a file larger than memory is read, a hog asks for huge pages",
    "torn": "the same, where three in ten pages of the cache, here and there, were used again and stay",
}
PUBLISHED = "the kernel's own; within 20 %"
NEVER = ("fallbacks", "compaction runs", "kswapd woken", "direct reclaim")


def run(quick: bool) -> dict[str, Any]:
    """The numbers of the last `scripts/measured run --write`."""
    path = configs().parent / "results" / "studies" / "measured.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """For each load: which rates and which numbers of the tables are within `MOST` of what was recorded."""
    loads = numbers.get("loads")
    if not loads:
        return [unchecked("a measured machine, simulated", PUBLISHED, "scripts/measured has not run")]
    out = []
    for name, load in loads.items():
        for group in (RATE, COUNTER, LISTS, TABLE):
            rows = [row for row in compared(load) if row.group == group and not _is_idle(row)]
            if rows or group == RATE:
                out.append(_finding(f"{group}, load {name}", rows, load))
    idle = [name for name in NEVER if all(_is_idle(_row(load, name)) for load in loads.values())]
    if idle:
        free = min(_row(load, "free pages").recorded for load in loads.values()) * 4096 / (1 << 30)
        why = f"at least {free:.0f} GiB were free: nothing was recorded, and nothing simulated"
        out.append(unchecked(", ".join(idle), PUBLISHED, why))
    return out


def _row(load: Mapping[str, Any], name: str) -> Compared:
    return next(row for row in compared(load) if row.name == name)


def _is_idle(row: Compared) -> bool:
    return row.group in PER_SECOND and not row.recorded and not row.simulated


def _finding(what: str, rows: Sequence[Compared], load: Mapping[str, Any]) -> Finding:
    off = [row for row in rows if row.differs]
    open_ = [row.name for row in off if reason(row, load).startswith("not explained")]
    remark = "; ".join(f"{row.name} {_ratio(row)}" for row in off) or "all are"
    if off:
        remark += f"; not explained: {', '.join(open_) or 'none'}"
    ours = f"{len(rows) - len(off)} of {len(rows)} within 20 %"
    return Finding(what, PUBLISHED, ours, verdict(not off), remark)


def tables(numbers: Mapping[str, Any]) -> list[str]:
    """By load: the comparison, and a sentence on every difference."""
    lines = ["", f"Kernel {numbers['kernel']}."] if "kernel" in numbers else []
    for name, load in numbers.get("loads", {}).items():
        fit = load["fit"]
        lines += [
            "",
            f"**{name}**, {LOADS[name]}. Halves of {load['half_s']:.1f} s; {fit['actors']} actors, "
            f"{len(fit['not_identified'])} of them with lives longer than what was fitted, fitted to "
            f"{fit['blocks']:,} blocks; {fit['lost']:,} events lost. {load.get('other_zones', 0.0):.1%} of "
            "the events were of other zones. Rates are those of the second half." + _of_the_start(fit),
            "",
            "| quantity | simulated | recorded | ratio | first half or start, recorded | requests repeated |",
            "|---|---|---|---|---|---|",
            *(_line(row) for row in compared(load) if row.group != COUNTER or not _is_idle(row)),
            "",
            *(f"- {row.name}, {_ratio(row)}: {reason(row, load)}." for row in compared(load) if row.differs),
            *_checks(load),
        ]
    return lines


def _of_the_start(fit: Mapping[str, Any]) -> str:
    """What the first half told of memory in use at the start, and of page cache."""
    text = "".join(
        f" Of {old['blocks']:,} blocks of order {old['order']} in use at the start ({old['holder']}) the "
        f"first half freed {old['freed']:,}: they live {old['lifetime']:.0f} s more in the mean."
        for old in fit.get("old", [])
    )
    cache = fit.get("cache")
    if cache:
        text += (
            f" Reclaim takes page cache: {cache['rate'] / 1e6:.0f} MB/s come in, {cache['dropped']:.1%} "
            f"of it goes without reclaim, {cache['read_once']:.1%} is not used again"
        )
        mix = cache["lru_mix"]
        text += "." if mix is None else f", and {mix:.1%} of what goes comes from anywhere, not in order."
    return text


def _checks(load: Mapping[str, Any]) -> list[str]:
    """What one change at a time does to the rows that differ, one run each."""
    varied = load.get("varied", {})
    rows = [row for row in compared(load) if row.differs]
    if not varied or not rows:
        return []
    return [
        "",
        "What differs, with one thing changed at a time, a run each:",
        "",
        "| changed | " + " | ".join(row.name for row in rows) + " |",
        "|---" * (len(rows) + 1) + "|",
        "| recorded | " + " | ".join(shown(row.recorded) for row in rows) + " |",
        "| nothing | " + " | ".join(shown(row.runs[0]) for row in rows) + " |",
        *(
            f"| {name} | " + " | ".join(shown(value_of(run, row.name)) for row in rows) + " |"
            for name, run in varied.items()
        ),
    ]


def _line(row: Compared) -> str:
    again = "-" if row.replayed is None else shown(row.replayed)
    cells = [row.name, shown(row.simulated), shown(row.recorded), _ratio(row), shown(row.before[1]), again]
    return "| " + " | ".join(cells) + " |"


def _ratio(row: Compared) -> str:
    if not row.recorded:
        return "both 0" if not row.simulated else "recorded 0"
    return f"{row.ratio:.2f}"


def as_text(name: str, load: Mapping[str, Any]) -> str:
    """A load's comparison for the screen."""
    return "\n".join(tables({"loads": {name: load}}))


EXPERIMENT = Experiment(
    "V13",
    "V13: a measured machine simulated against its own recordings",
    "`scripts/measured run` records a virtual machine of 2 CPUs and 24 GiB, with other work beside the "
    "load, under five loads, with page flags, tables before and after, counters of vmstat by half, and "
    "all events of allocation, free, fallback, compaction and reclaim; one recording of each, those with "
    "full memory for 60 s, when their hog has grown, the others for 24 s. `spbfast fit` makes actors of "
    "the first half's events in zone Normal, and of the second takes only what pages held at the end, to "
    "tell holders apart; nothing is set by hand. Both halves are simulated under mainline, with the "
    "model's defaults, from the captured start, three times with other draws, and the second half is "
    "compared: it was not fitted. Free lists are means of that half, looked at ten times a second, "
    "simulated 40 times in all. Anonymous memory, huge pages and page cache that were in use at the start "
    "are freed at the rate at which the first half freed them. Where reclaim took page cache, that enters "
    "at the first half's rate and goes by reclaim alone, active pages last, others pageblock by "
    "pageblock; elsewhere it is blocks with lifetimes. *Requests repeated* is a replay of the recorded "
    "requests from the same start, in which per-CPU limits decay each second: where that gives what was "
    "recorded, the rules do, and a difference is one of demand; it is left out where compaction moved "
    "pages, of which requests do not tell. Counters of vmstat are the whole node's, and the simulation "
    "has zone Normal alone. What the actors do not say: slab and page tables of the start are never "
    "freed; pages that lie on per-CPU lists at the start count as in use; lives end one by one at random, "
    "where the kernel frees a file or a process at once. `configs/base/measured-vm.yaml` has the build's "
    "actors. The checks behind the remarks were chosen after the figures had been seen: a remark names "
    "the first that agrees with the data, which does not prove it the cause.",
    run,
    judge,
    tables,
)
