"""Why a simulated quantity of a measured machine differs from the recorded one.

Owns the checks: every sentence follows from one of the numbers in results/studies/measured.json, and what no
check explains is called not explained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import stdev
from typing import Any

from experiments.measured_compared import (
    ANY_ORDER,
    MOST,
    PER_CPU,
    PER_SECOND,
    RATE,
    UNLIMITED,
    Compared,
    compared,
    shown,
    value_of,
)
from spbfast.constants import PB_ORDER

ERRORS = 3  # standard errors within which two counts, or two means, do not differ
OF_COMPACTION = ("compaction runs", "pgmigrate_success", "fallbacks")
HUGE_GAP = 2 << PB_ORDER  # compact_gap of a huge page
MOST_BATCH = 4  # times, that a round may be larger than a simulated one before it is of another kind
LEAST_TENTHS = 5  # parts whose scatter tells how certain their mean is
AFTER_COMPACTION = ("direct reclaim", "pgscan_direct", "pgsteal_direct", "thp_fault_fallback")
FEWER = 2  # times, that simulated frees come in smaller bulks than recorded ones


def reason(row: Compared, load: Mapping[str, Any]) -> str:
    """What the numbers say of a difference: the first check that holds, or that none does."""
    checks = (
        *(_direct_gap, _limited, _by_chance, _few, _uncertain, _first_half, _older, _drained, _bulk),
        *(_demand, _start, _on_lists, _other_zone, _free_scanner, _varied, _after_compaction, _between),
    )
    return next((text for check in checks if (text := check(row, load))), _not_explained(row, load))


def _by_chance(row: Compared, load: Mapping[str, Any]) -> str:
    low, high = min(row.runs), max(row.runs)
    if low < high and low <= row.recorded <= high:
        return f"runs lie between {shown(low)} and {shown(high)}, and what was recorded lies between them"
    return ""


def _few(row: Compared, load: Mapping[str, Any]) -> str:
    scale = load["half_s"] if row.group in PER_SECOND else 1.0
    mine, theirs = row.simulated * scale, row.recorded * scale
    if abs(mine - theirs) <= ERRORS * (mine + theirs) ** 0.5:
        return f"{shown(mine)} and {shown(theirs)} are too few: independent counts differ as much by chance"
    return ""


def _uncertain(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether the recorded mean is itself that uncertain: batch means, by tenths of the half."""
    tenths = load["tenths"].get(row.name, ())
    if len(tenths) < LEAST_TENTHS:
        return ""
    errors = [stdev(part) ** 2 / len(part) for part in (tenths, row.runs) if len(part) > 1]
    if abs(row.simulated - row.recorded) > ERRORS * math.sqrt(sum(errors)):
        return ""
    return (
        f"tenths of the recorded half have {shown(min(tenths))} to {shown(max(tenths))}: their mean is not "
        "more certain than that"
    )


def _start(row: Compared, load: Mapping[str, Any]) -> str:
    mine, theirs = row.before
    off = mine - theirs
    if row.group in PER_SECOND or row.name == PER_CPU or 2 * abs(off) < abs(row.simulated - row.recorded):
        return ""
    if not row.is_near(row.simulated - off):
        return ""
    return (
        f"the simulation begins with {shown(mine)} where the kernel had {shown(theirs)}, which page flags do "
        "not tell; what came since is alike"
    )


def _first_half(row: Compared, load: Mapping[str, Any]) -> str:
    first = row.before[0]
    if row.group in PER_SECOND and first and abs(row.simulated - first) <= MOST * first:
        return f"the load changed: the half to which the actors were fitted had {shown(first)} a second"
    return ""


def _older(row: Compared, load: Mapping[str, Any]) -> str:
    unit = {"blocks freed": 0, "pages freed": 1}.get(row.name)
    if unit is None:
        return ""
    older = load["older"][1][unit] / load["half_s"]
    if row.is_near(row.simulated + older):
        return f"{shown(older)} a second had been handed out before the recording: no actor frees those"
    return ""


def _on_lists(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether a list of free blocks is off by fewer pages than lay on CPUs' lists at the start."""
    if not row.name.startswith("free blocks"):
        return ""
    pages = abs(row.simulated - row.recorded) * (1 << int(row.name.rpartition(" ")[2]))
    at_start = load["before"]["per_cpu_pages"]
    if pages > at_start:
        return ""
    return (
        f"{shown(pages)} pages; {at_start:,} lay on per-CPU lists when recording began, which page flags "
        "do not tell from pages in use: the simulation begins with empty lists and fills them from the "
        "smallest blocks"
    )


def _other_zone(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether kswapd stops short of the zone's high mark, as it may where it serves another zone, too."""
    marks = load["before"].get("marks")
    if row.name != "kswapd woken" or not marks or not row.simulated or not row.recorded:
        return ""
    gap = marks["high"] - marks["low"]
    mine = _mean(load, "pgsteal_kswapd") / row.simulated
    theirs = load["counted"][1].get("pgsteal_kswapd", 0.0) / row.recorded
    if theirs >= (1 - MOST) * gap or abs(mine - gap) > MOST * gap:
        return ""
    return (
        f"the kernel's kswapd took {shown(theirs)} pages each time, simulated {shown(mine)}, and the zone's "
        f"low and high marks lie {gap:,} apart: the kernel's serves zone DMA32, too, and sleeps when either "
        "zone is above its high mark (pgdat_balanced)"
    )


def _free_scanner(row: Compared, load: Mapping[str, Any]) -> str:
    if row.name != "compact_free_scanned":
        return ""
    mine, theirs = _mean(load, "pgmigrate_success"), load["counted"][1].get("pgmigrate_success", 0.0)
    if not theirs or abs(row.simulated - mine) > MOST * mine:
        return ""
    return (
        "the model has no scanner that looks for free pages, lists name them: it counts the "
        f"{shown(mine)} places that pages move to; the kernel looked at {row.recorded / theirs:.0f} pages "
        "for each that it moved"
    )


def _after_compaction(row: Compared, load: Mapping[str, Any]) -> str:
    if row.name not in AFTER_COMPACTION or "counted" not in load:
        return ""
    theirs = load["counted"][1].get("compact_fail", 0.0)
    mine = _mean(load, "compact_stall") - _mean(load, "compact_success")
    if mine >= (1 - MOST) * theirs or row.simulated > row.recorded:
        return ""
    return (
        f"not explained; it comes after direct compaction that left no huge page: {shown(theirs)} such a "
        f"second, {shown(mine)} simulated"
    )


def _mean(load: Mapping[str, Any], name: str) -> float:
    return float(sum(run["counters"][name] for run in load["simulated"]) / len(load["simulated"]))


def _varied(row: Compared, load: Mapping[str, Any]) -> str:
    for name, run in load.get("varied", {}).items():
        value = value_of(run, row.name)
        if row.is_near(value) and not row.is_near(row.runs[0]):
            return f"where {name} the simulation gives {shown(value)}"
    return ""


def _direct_gap(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether the kernel's rounds of direct reclaim are those of compact_gap, and simulated ones are not."""
    stalls = (
        load["second"]["direct reclaim"],
        sum(run["rates"]["direct reclaim"] for run in load["simulated"]),
    )
    if row.name not in ("pgscan_direct", "pgsteal_direct") or not all(stalls):
        return ""
    theirs, mine = row.recorded / stalls[0], sum(row.runs) / stalls[1]
    if not MOST_BATCH * mine < theirs <= (1 + MOST) * HUGE_GAP:
        return ""
    return (
        f"the kernel took {shown(theirs)} pages each time, up to the {HUGE_GAP:,} that leave room to compact "
        f"(compact_gap), simulated {shown(mine)}: `reclaim.compact_gap` is off"
    )


def _limited(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether direct compaction fails in the simulation alone, and not where it is not limited."""
    is_of_it = row.name.startswith("compact_") or row.name in (*AFTER_COMPACTION, *OF_COMPACTION)
    other = load.get("varied", {}).get(UNLIMITED)
    if not is_of_it or not other:
        return ""
    theirs, free = _success(load["counted"][1]), _success(other["counters"])
    mine = _success({name: _mean(load, name) for name in ("compact_stall", "compact_success")})
    if theirs is None or mine is None or free is None or mine >= theirs - MOST or abs(free - theirs) > MOST:
        return ""
    return (
        f"of direct compactions {theirs:.0%} left a huge page, simulated {mine:.0%}, and {free:.0%} where "
        "compaction is not limited (`reclaim.compact_candidates`, `compact_rate`)"
    )


def _success(counters: Mapping[str, float]) -> float | None:
    """Share of direct compactions that left a block."""
    stalls = counters.get("compact_stall", 0.0)
    return counters.get("compact_success", 0.0) / stalls if stalls else None


def _between(row: Compared, load: Mapping[str, Any]) -> str:
    """Whether the order of the page cache, which nobody knows, decides it."""
    other = load.get("varied", {}).get(ANY_ORDER)
    if not other:
        return ""
    value = value_of(other, row.name)
    if not min(value, row.simulated) <= row.recorded <= max(value, row.simulated):
        return ""
    return (
        f"it follows the order of the page cache, which is not known: where that {ANY_ORDER[11:]} the "
        f"simulation gives {shown(value)}, and what was recorded lies between"
    )


def _drained(row: Compared, load: Mapping[str, Any]) -> str:
    number = row.name.rpartition(" ")[2]
    if not row.name.startswith("free blocks") or not load["drained"][int(number)]:
        return ""
    drained = load["drained"][int(number)]
    if row.is_near(row.simulated + drained):
        return (
            f"{shown(drained)} left per-CPU lists where they lay when recording began: nothing tells them "
            "from pages in use, which no actor frees"
        )
    return ""


def _bulk(row: Compared, load: Mapping[str, Any]) -> str:
    mine = sum(run["given_back"] for run in load["simulated"]) / len(load["simulated"])
    theirs = load["given_back"]
    if row.name != PER_CPU or row.simulated > row.recorded or FEWER * mine > theirs:
        return ""
    return (
        f"in the busiest 10 ms {shown(theirs)} pages came back beyond those handed out, simulated "
        f"{shown(mine)}: lives of actors end one by one, those of a file or a process at once, which is "
        "what fills the lists"
    )


def _demand(row: Compared, load: Mapping[str, Any]) -> str:
    if row.replayed is None or not row.is_near(row.replayed):
        return ""
    again = shown(row.replayed)
    text = f"the recorded requests, repeated from the same start, give {again}: it is the demand that differs"
    if row.group == RATE or row.name == PER_CPU:
        return text
    mine, theirs = (_moved(load, who) for who in ("simulated", "recorded"))
    older = sum(pages for _, pages in load["older"])
    return (
        f"{text}; free pages moved by {theirs:+,.0f}, simulated by {mine:+,.0f}, and {older:,} that had been "
        "handed out before were freed, which no actor does"
    )


def _moved(load: Mapping[str, Any], who: str) -> float:
    """How far free pages moved from the start to the mean of the half."""
    row = next(row for row in compared(load) if row.name == "free pages")
    return row.simulated - row.before[0] if who == "simulated" else row.recorded - row.before[1]


def _not_explained(row: Compared, load: Mapping[str, Any]) -> str:
    ends = load.get("compaction_ends", ({}, {}))[1]
    if row.name.startswith("compact_") and sum(ends.values()):
        told = ", ".join(f"{n} {how}" for how, n in ends.items() if n)
        return f"not explained; of the kernel's runs in this half {told}"
    if row.replayed is None:
        return "not explained"
    again = shown(row.replayed)
    return (
        f"not explained; the recorded requests, repeated from the same start, give {again} and so differ, too"
    )
