"""What `spbfast bench` prints: every figure beside a yardstick of the same run.

Owns the order of the groups, which of them fit into the time of a short bench, their lines for people and the
keys of `--json`; measuring is in page_events.py, whole_runs.py and work.py.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import spbfast
from spbfast.bench.compared import ratios_to, stored_text
from spbfast.bench.page_events import SIZES, bench_churn, bench_p18, bench_pcp, bench_ranges
from spbfast.bench.progressline import ProgressLine
from spbfast.bench.whole_runs import (
    bench_compile,
    bench_flagship,
    bench_start,
    bench_threads,
    compile_all,
    rounded,
)
from spbfast.bench.work import work_of_another_process
from spbfast.bench.workload import Clocked
from spbfast.text import format_bytes, text_table

LIMIT_S = 90.0
SHORT_S = 120  # simulated seconds of the flagship in a short bench
NO_TIME = f"left out, it would end after {LIMIT_S:.0f} s; --full measures it"
# Seconds that a part takes, and what comes after it in a short bench.
NEEDED_S = {"churn 32GiB": 45, "churn 247GiB": 50, "scattered 247GiB": 45}


@dataclass(frozen=True)
class Effort:
    """How much is measured: little to see that it runs, what fits into the limit, or everything."""

    quick: bool
    full: bool
    begin: float = field(default_factory=time.monotonic)

    def has_time_for(self, what: str) -> bool:
        """Whether a part, and all that must come after it, ends within the limit."""
        return self.full or time.monotonic() - self.begin + NEEDED_S.get(what, 0) <= LIMIT_S


def _measure_churn(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    found: dict[str, Any] = {"yardstick_ns": {}, "churn_ns": {}, "scattered_ns": {}}
    labels = ("4GiB",) if effort.quick else tuple(SIZES)
    for scattered, label in [(False, label) for label in labels] + [(True, labels[-1])]:
        name = "scattered" if scattered else "churn"
        if not effort.has_time_for(f"{name} {label}"):
            say(f"{name:<9} {label:<7} {NO_TIME}")
            continue
        one = bench_churn(label, effort.quick, scattered)
        ns, yardstick = one["ns"], one["yardstick"]
        found["yardstick_ns"].setdefault(label, rounded(yardstick.median))
        found["scattered_ns" if scattered else "churn_ns"][label] = rounded(ns.median)
        say(
            f"{name:<9} {label:<7} {ns.median:7.1f} ns a page event, best {ns.best:5.1f}; "
            f"{ns.median / yardstick.median:.2f} of the yardstick: {yardstick.median:.0f} ns a load "
            f"over {format_bytes(one['state_bytes'])}"
        )
    return found


def _measure_pcp(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    pcp = bench_pcp(effort.quick)
    say(f"pcp       4GiB    {pcp.median:7.1f} ns a page event, best {pcp.best:5.1f}")
    return {"pcp_ns": rounded(pcp.median)}


def _measure_ranges(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    ranges = bench_ranges(effort.quick)
    for nr, ns in ranges.items():
        say(f"range     {nr:<7} {1e3 / ns.median:7.0f} million pages a second, best {1e3 / ns.best:.0f}")
    return {f"range{nr}_mpages_per_s": rounded(1e3 / ns.median) for nr, ns in ranges.items()}


def _measure_p18(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    p18 = bench_p18(effort.quick)
    say(f"p18               {p18.median:7.1f} ns an event" if isinstance(p18, Clocked) else f"p18: {p18}")
    return {"p18_ns": rounded(p18.median) if isinstance(p18, Clocked) else None}


def _measure_flagship(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    flagship = bench_flagship(effort.quick) if effort.full else bench_flagship(False, SHORT_S)
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


def _measure_start(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    start = bench_start(effort.quick)
    say(f"start         {start if isinstance(start, str) else f'{start:.1f} s to the first event'}")
    return {"start_s": rounded(start) if isinstance(start, float) else None}


def _measure_threads(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    two = bench_threads(effort.quick)
    if isinstance(two, str):
        say(f"threads       {two}")
        return {"threads": None}
    say(f"threads       two do {two['runs']:.2f} times one's runs, {two['yardstick']:.2f} times one's loads")
    return {"threads": {name: rounded(value) for name, value in two.items()}}


def _measure_compile(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    cold = bench_compile(effort.quick)
    say(f"compile       {cold if isinstance(cold, str) else f'{cold:.1f} s cold'}")
    return {"compile_s": rounded(cold) if isinstance(cold, float) else None}


def _measure_work(effort: Effort, say: Callable[[str], None]) -> dict[str, Any]:
    work = work_of_another_process()
    if isinstance(work, str):
        say(f"work          {work}")
        return {"work": None}
    for name, counts in work.items():
        say(
            f"work      {name:<9} {counts['lines']:5.1f} lines of 64 bytes touched by a page event, "
            f"{counts['accesses']:.1f} accesses"
        )
    return {"work": work}


MEASURES = {
    "churn": _measure_churn,
    "pcp": _measure_pcp,
    "ranges": _measure_ranges,
    "p18": _measure_p18,
    "flagship": _measure_flagship,
    "start": _measure_start,
    "work": _measure_work,
    "threads": _measure_threads,
    "compile": _measure_compile,
}
GROUPS = tuple(MEASURES)
ONLY_IN_FULL = ("p18", "threads", "compile")


def run_bench(
    as_json: bool = False,
    only: str | None = None,
    quick: bool = False,
    *,
    full: bool = False,
    save: Callable[[str], object] | None = None,
    against: Mapping[str, Any] | None = None,
) -> int:
    """Measure and print; exit code.

    Parameters
    ----------
    as_json : bool
        Print one JSON object and nothing else on stdout: the medians.
    only : str, optional
        One of GROUPS instead of all, whatever time it takes.
    quick : bool
        Small and short, to see that it runs: 4 GiB, no flagship, no cold compilation.
    full : bool
        All groups, and the whole flagship; otherwise what ends within LIMIT_S.
    save : callable, optional
        Called with the text to keep of it (compared.py).
    against : mapping, optional
        Figures to print ratios to.

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
    effort = Effort(quick, full or quick or only is not None)
    groups = (only,) if only else [g for g in GROUPS if effort.full or g not in ONLY_IN_FULL]
    found = _measured(groups, effort, as_json)
    found["load"] = rounded(load)
    if save is not None:
        save(stored_text(found, spbfast.__version__))
    ratios = ratios_to(against, found) if against is not None else {}
    if as_json:
        print(json.dumps(found | ({"against": ratios} if against is not None else {}), indent=1))
    elif against is not None:
        print("\n".join(["", *_ratio_lines(ratios)]))
    return 0


def _measured(groups: Iterable[str], effort: Effort, as_json: bool) -> dict[str, Any]:
    """The figures of some groups, their lines printed as they come."""
    found: dict[str, Any] = {}
    with ProgressLine(tuple(groups), sys.stderr) as line:

        def say(text: str) -> None:
            if not as_json:
                line.print_above(text)

        for group in line.groups:
            line.begin(group)
            found |= MEASURES[group](effort, say)
    return found


def _ratio_lines(ratios: Mapping[str, tuple[float, float, float]]) -> list[str]:
    if not ratios:
        return ["no figure is in both"]
    rows = [
        (name, f"{then:.4g}", f"{now:.4g}", f"{ratio:.2f}") for name, (then, now, ratio) in ratios.items()
    ]
    return [text_table(("figure", "stored", "now", "ratio"), rows), "a ratio below 1 is better than stored"]
