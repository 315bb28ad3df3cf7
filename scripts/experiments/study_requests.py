"""The studies of requests: the search for a superpageblock, gigantic pages, atomic failures.

Owns their words and how their answers are read. Every number of an answer is computed from the kept numbers,
and so is which of its sentences are said.
"""

from __future__ import annotations

from typing import Any

from experiments.study_numbers import AS_FILE, Metric, Numbers, number, sign, told
from experiments.study_page import Answer, Study
from experiments.study_parts import STALLS, TAINTED, Rows, policies, policy
from spbfast.constants import Outcome

VISITS = tuple(f"spb_visited_{outcome.name.lower()}" for outcome in Outcome)
FALLBACKS = tuple(name for name in VISITS if "fallback" in name)
PAGES = ("pgalloc_normal",)
SIZES = {2 << 30: 8, 256 << 20: 64, 16 << 20: 1024}  # superpageblocks of 16 GiB


def _at(policy: str, size: int) -> dict[str, Any]:
    return {"policy": policy, "machine_spb_size": size}


def _search(numbers: Numbers) -> Answer:
    walk = {nr: numbers.mean("visited", **_at("walk", size)) for size, nr in SIZES.items()}
    few, many = min(walk), max(walk)
    growth = numbers.effect("visited", _at("walk", 16 << 20), _at("walk", 2 << 30))
    grows = "grows" if sign(growth) > 0 else "does not grow"
    line = (
        f"For each page allocated the walk visits {number(walk[few])} superpageblocks of {few} and "
        f"{number(walk[many])} of {many:,}: the cost {grows} with their number."
    )
    others = [
        f"{name} {number(numbers.mean('visited', **_at(name, 256 << 20)))} of 64 and "
        f"{number(numbers.mean('visited', **_at(name, 16 << 20)))} of {many:,}"
        for name in ("hint", "bitmap")
    ]
    walking = _at("walk", 256 << 20)
    filling, steady, preferred, fallback = (
        number(numbers.mean(m, **walking)) for m in ("filling", "steady", "preferred", "fallback")
    )
    return Answer(
        line,
        [
            f"The {', the '.join(others)}.",
            f"The walk of {number(walk[64])} with 64: {filling} in the first 20 s, {steady} in the last 20; "
            f"one search of the first rung steps on {preferred}, and {fallback} % of visits are fallback's.",
        ],
    )


def _search_rows(numbers: Numbers) -> Rows:
    rows = []
    for point in numbers.kept["points"]:
        label = f"{point['own']['policy']}, {SIZES[point['own']['machine_spb_size']]:,}"
        if point["varied"] != AS_FILE:
            label += f"; {point['varied']}"
        rows.append((label, numbers.effect("visited", point["own"], None, point["varied"])))
    return rows


SEARCH = Study(
    name="search",
    title="(b) What does searching many lists cost?",
    question="How many superpageblocks does an allocation look at, by walk, by hint and by bitmap?",
    asked=(
        "Vlastimil, on the list in June 2026: what does searching many sets of lists instead of one cost? "
        "Rik van Riel then proposed bitmaps."
    ),
    method=(
        "Version 1 on 16 GiB cut into 8 to 1,024 superpageblocks, choosing by walk, by the hint of patch 38, "
        "or by bitmaps."
    ),
    limits=(
        "Steps are counted, not nanoseconds or lock hold times. Counters tell rungs apart, not orders and "
        "types; `output.records: [spb_alloc_walk]` has those for single runs. "
        "Small superpageblocks have a larger reserve, at least 4 pageblocks."
    ),
    own=("policy", "machine_spb_size"),
    metrics={
        "visited": Metric(VISITS, "superpageblocks visited a page allocated", per=PAGES),
        "filling": Metric(VISITS, "superpageblocks visited a page allocated", per=PAGES, at=20.0),
        "steady": Metric(VISITS, "superpageblocks visited a page allocated", per=PAGES, since=40.0),
        "preferred": Metric(
            ("spb_visited_take_preferred",),
            "superpageblocks a search",
            per=("spb_searched_take_preferred",),
        ),
        "fallback": Metric(FALLBACKS, "% of visits", scale=100.0, per=VISITS),
    },
    headline=("visited", _at("hint", 256 << 20), _at("walk", 256 << 20)),
    answer=_search,
    rows=_search_rows,
    axis="superpageblocks visited a page allocated, by way of choosing and number of superpageblocks",
    scale="log",
)


def _gigantic(numbers: Numbers) -> Answer:
    names = numbers.own("policy")
    got = {name: numbers.mean("got", policy=name) for name in names}
    most = max(got, key=lambda name: got[name])
    first = next((name for name in names if got[name] >= 0.9 * got[most] and got[name] > 0), most)
    line = (
        f"Of 13 asked for, mainline gets {number(got['mainline'])}, version 1 {number(got['v1'])}, version 2 "
        f"{number(got['v2'])}; `{first}` is the first step within 10 % of the most, {number(got[most])}."
    )
    moved, stalls = (
        ", ".join(f"`{name}` {number(numbers.mean(m, policy=name))}" for name in ("mainline", "v1", "v2"))
        for m in ("moved", "stalls")
    )
    reasons = {r: numbers.mean(r, policy="v2") for r in ("no_candidate", "no_room", "pinned", "busy")}
    worst = max(reasons, key=lambda r: reasons[r])
    each = ", ".join(
        f"`{name}` {number(numbers.mean('moved', policy=name) / got[name])}"
        for name in ("v1@21", "v1", "v2")
        if got[name]
    )
    details = [
        f"Small pages moved for each gigantic one: {each}; in all: {moved}.",
        f"Direct-reclaim stalls: {stalls}.",
    ]
    if reasons[worst] >= 1:
        details.append(f"Version 2 fails mostly for `{worst}`, {number(reasons[worst])} times a run.")
    return Answer(line, details)


GIGANTIC = Study(
    name="gigantic",
    title="(c) How many 1 GiB pages are obtained, and at what cost?",
    question=(
        "How many gigantic pages does a machine in use hand out, by step of the series, and what is moved?"
    ),
    asked=(
        "Rik van Riel, on the list: how to balance low compaction overhead against high orders everywhere; "
        "gigabyte pages are what the series is for."
    ),
    method=(
        "During the burst 13 of 64 superpageblocks are asked for, one every 4 s from 10 s on, and kept: the "
        "share of 50 of 238."
    ),
    limits=(
        "A gigantic page here is a superpageblock of 256 MiB, a quarter of 1 GiB: one pinned page spoils "
        "less, and less has to move for it. Pins are the weakest input. Mainline is alloc_contig_pages, "
        "simplified."
    ),
    own=("policy",),
    metrics={
        "got": Metric(("contig_alloc_success",), "gigantic pages of 13"),
        "moved": Metric(("contig_pages_migrated",), "pages"),
        "stalls": STALLS,
        "tainted": TAINTED,
        **{
            r: Metric((f"contig_fail_{r}",), "requests")
            for r in ("no_candidate", "no_room", "pinned", "busy")
        },
    },
    headline=("got", policy("v2"), policy("mainline")),
    answer=_gigantic,
    rows=lambda numbers: policies(numbers, "got", "mainline"),
    axis="gigantic pages obtained, of 13, minus those of mainline",
)


def _atomic(numbers: Numbers) -> Answer:
    seconds = numbers.kept["seconds_simulated"]
    rate = {name: numbers.mean("failed", policy=name) / seconds for name in numbers.own("policy")}
    line = (
        f"Without gates {number(rate['no-gates'])} requests a second of orders 1 to 3 fail, with those of "
        f"version 1 {number(rate['v1'])}, of version 2 {number(rate['v2'])}."
    )
    alone = [
        f"{words} alone adds {told(numbers.effect('failed', policy(name), policy('no-gates')))}"
        for name, words in (("refusal-only", "Patch 29"), ("noretry-only", "patch 33"))
    ]
    taints = numbers.effect("tainted", policy("v1"), policy("no-gates"))
    single = number(numbers.mean("failed0", policy="v1") / seconds)
    return Answer(
        line,
        [
            f"{', '.join(alone)} failures a run. Single pages: {single} a second fail under version 1.",
            f"The gates change tainted superpageblocks by {told(taints)}.",
        ],
    )


ATOMIC = Study(
    name="atomic",
    title="(f) Do refusal gates make atomic requests fail?",
    question=(
        "How often do requests that cannot wait fail at network rates under the gates of patches 29 and 33?"
    ),
    asked=(
        "Stoakes, in review: the cheap-fallback gate builds in guesses about workloads; a "
        "separate thread of May 2026 reports failing atomic allocations under defrag_mode."
    ),
    method=(
        "3,000 order-2 and order-3 buffers and 30,000 single pages a second, as measured with memtier, on the"
        " small machine: fifteen times its share."
    ),
    limits="A failed buffer of order 2 or 3 costs a network driver a fallback to single pages, which is not "
    "modelled; failures are counted, not lost packets.",
    own=("policy",),
    metrics={
        "failed": Metric(("alloc_failed_nonblock_order1_3",), "failed requests of orders 1 to 3 a run"),
        "failed0": Metric(("alloc_failed_nonblock_order0",), "failed requests for single pages a run"),
        "refused": Metric(("spb_highorder_refused",), "refusals a run"),
        "tainted": TAINTED,
    },
    headline=("failed", policy("v1"), policy("no-gates")),
    answer=_atomic,
    rows=lambda numbers: policies(numbers, "failed", "no-gates"),
    axis="failed requests of orders 1 to 3 a run, minus those without gates",
)
