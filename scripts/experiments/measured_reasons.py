"""Why a simulated quantity of a measured machine differs from the recorded one.

Owns the checks: every sentence follows from one of the numbers in results/studies/measured.json, and what no
check explains is called not explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.measured_compared import MOST, PER_CPU, PER_SECOND, RATE, Compared, compared, shown, value_of

ERRORS = 3  # standard errors within which two counts do not differ
AFTER_COMPACTION = ("direct reclaim", "pgscan_direct", "pgsteal_direct", "thp_fault_fallback")
FEWER = 2  # times, that simulated frees come in smaller bulks than recorded ones


def reason(row: Compared, load: Mapping[str, Any]) -> str:
    """What the numbers say of a difference: the first check that holds, or that none does."""
    checks = (
        *(_by_chance, _few, _first_half, _older, _drained, _bulk, _demand, _start),
        *(_free_scanner, _after_compaction, _varied),
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
    if mine > (1 - MOST) * theirs or row.simulated > row.recorded:
        return ""
    return (
        f"it comes after direct compaction that left no huge page: {shown(theirs)} such a second, "
        f"{shown(mine)} simulated, which itself is not explained"
    )


def _mean(load: Mapping[str, Any], name: str) -> float:
    return float(sum(run["counters"][name] for run in load["simulated"]) / len(load["simulated"]))


def _varied(row: Compared, load: Mapping[str, Any]) -> str:
    for name, run in load.get("varied", {}).items():
        value = value_of(run, row.name)
        if row.is_near(value) and not row.is_near(row.runs[0]):
            return f"where {name} the simulation gives {shown(value)}"
    return ""


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
    pairs = zip(row.replayed, row.by_type, strict=True)
    if not row.replayed or sum(abs(a - b) for a, b in pairs) > MOST * row.recorded:
        return ""
    again = shown(sum(row.replayed))
    text = f"the recorded requests, repeated from the same start, give {again}: it is the demand that differs"
    if row.group == RATE or row.name == PER_CPU:
        return text
    mine, theirs = (_moved(load, who) for who in ("simulated", "after"))
    older = sum(pages for _, pages in load["older"])
    return (
        f"{text}; free pages moved by {theirs:+,.0f}, simulated by {mine:+,.0f}, and {older:,} that had been "
        "handed out before were freed, which no actor does"
    )


def _moved(load: Mapping[str, Any], who: str) -> float:
    """How far free pages moved from the start to the end."""
    row = next(row for row in compared(load) if row.name == "free pages")
    return row.simulated - row.before[0] if who == "simulated" else row.recorded - row.before[1]


def _not_explained(row: Compared, load: Mapping[str, Any]) -> str:
    ends = load.get("compaction_ends", ({}, {}))[1]
    if row.name.startswith("compact_") and sum(ends.values()):
        told = ", ".join(f"{n} {how}" for how, n in ends.items() if n)
        return f"not explained; of the kernel's runs in this half {told}"
    if not row.replayed:
        return "not explained"
    total = sum(row.replayed)
    how = "in all, but of other types" if row.is_near(total) else "and so differ, too"
    return f"not explained; the recorded requests, repeated from the same start, give {shown(total)} {how}"
