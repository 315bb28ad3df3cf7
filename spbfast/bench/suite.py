"""What `spbfast bench` prints: every figure beside a yardstick of the same run.

Owns the order of the groups, their lines for people and the keys of `--json`; measuring is in page_events.py
and whole_runs.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from spbfast.bench.page_events import SIZES, bench_churn, bench_p18, bench_pcp, bench_ranges
from spbfast.bench.whole_runs import (
    bench_compile,
    bench_flagship,
    bench_start,
    bench_threads,
    compile_all,
    rounded,
)
from spbfast.bench.workload import Clocked
from spbfast.text import format_bytes


def _measure_churn(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {"yardstick_ns": {}, "churn_ns": {}, "scattered_ns": {}}
    labels = ("4GiB",) if quick else tuple(SIZES)
    for scattered, label in [(False, label) for label in labels] + [(True, labels[-1])]:
        one = bench_churn(label, quick, scattered)
        ns, yardstick = one["ns"], one["yardstick"]
        found["yardstick_ns"].setdefault(label, rounded(yardstick.median))
        found["scattered_ns" if scattered else "churn_ns"][label] = rounded(ns.median)
        name = "scattered" if scattered else "churn"
        say(
            f"{name:<9} {label:<7} {ns.median:7.1f} ns a page event, best {ns.best:5.1f}; "
            f"{ns.median / yardstick.median:.2f} of the yardstick: {yardstick.median:.0f} ns a load "
            f"over {format_bytes(one['state_bytes'])}"
        )
    return found


def _measure_pcp(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    pcp = bench_pcp(quick)
    say(f"pcp       4GiB    {pcp.median:7.1f} ns a page event, best {pcp.best:5.1f}")
    return {"pcp_ns": rounded(pcp.median)}


def _measure_ranges(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    ranges = bench_ranges(quick)
    for nr, ns in ranges.items():
        say(f"range     {nr:<7} {1e3 / ns.median:7.0f} million pages a second, best {1e3 / ns.best:.0f}")
    return {f"range{nr}_mpages_per_s": rounded(1e3 / ns.median) for nr, ns in ranges.items()}


def _measure_p18(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    p18 = bench_p18(quick)
    say(f"p18               {p18.median:7.1f} ns an event" if isinstance(p18, Clocked) else f"p18: {p18}")
    return {"p18_ns": rounded(p18.median) if isinstance(p18, Clocked) else None}


def _measure_flagship(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    flagship = bench_flagship(quick)
    if isinstance(flagship, str):
        say(f"flagship      {flagship}")
        return {"flagship": None}
    events, wall_s = flagship["page_events"] / 1e6, flagship["wall_s"]
    say(
        f"flagship      {flagship['simulated_s']:.0f} simulated s, {events:.0f} million page events "
        f"in {wall_s:.1f} s, {flagship['boot_s']:.1f} s of it boot"
    )
    phases = ", ".join(f"{name} {ns:.1f}" for name, ns in flagship["ns_by_phase"].items())
    say(f"              ns a page event: {phases}")
    taken, asked = flagship["resident_bytes"], flagship["state_bytes"]
    say(f"              memory: {format_bytes(taken)} taken, tables of {format_bytes(asked)} asked for")
    return {"flagship": flagship}


def _measure_start(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    start = bench_start(quick)
    say(f"start         {start if isinstance(start, str) else f'{start:.1f} s to the first event'}")
    return {"start_s": rounded(start) if isinstance(start, float) else None}


def _measure_threads(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    two = bench_threads(quick)
    if isinstance(two, str):
        say(f"threads       {two}")
        return {"threads": None}
    say(f"threads       two do {two['runs']:.2f} times one's runs, {two['yardstick']:.2f} times one's loads")
    return {"threads": {name: rounded(value) for name, value in two.items()}}


def _measure_compile(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    cold = bench_compile(quick)
    say(f"compile       {cold if isinstance(cold, str) else f'{cold:.1f} s cold'}")
    return {"compile_s": rounded(cold) if isinstance(cold, float) else None}


MEASURES = {
    "churn": _measure_churn,
    "pcp": _measure_pcp,
    "ranges": _measure_ranges,
    "p18": _measure_p18,
    "flagship": _measure_flagship,
    "start": _measure_start,
    "threads": _measure_threads,
    "compile": _measure_compile,
}
GROUPS = tuple(MEASURES)


def run_bench(as_json: bool = False, only: str | None = None, quick: bool = False) -> int:
    """Measure and print; exit code.

    Parameters
    ----------
    as_json : bool
        Print one JSON object and nothing else on stdout: the medians.
    only : str, optional
        One of GROUPS instead of all.
    quick : bool
        Small and short, to see that it runs: 4 GiB, no flagship, no cold compilation.

    Raises
    ------
    ValueError
        `only` names no group.
    """
    if only is not None and only not in GROUPS:
        raise ValueError(f"unknown group {only!r}; there are {', '.join(GROUPS)}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    print(f"load {load:.2f} on {os.cpu_count()} CPUs at the start; compiling if need be ...", file=sys.stderr)
    compile_all()
    found: dict[str, Any] = {}
    for group in (only,) if only else GROUPS:
        found |= MEASURES[group](quick, lambda line: None if as_json else print(line, flush=True))
    found["load"] = rounded(load)
    if as_json:
        print(json.dumps(found, indent=1))
    return 0
