"""V10 and V11, who lands in whose pageblocks: pollute and steal matrices, and a recipe that pollutes all.

Owns a random mix of requests on one or two zones with the fallback records of mainline, their 3 x 3 matrices,
and the pollution recipe of the Illuminator authors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.finding import OBSERVED, Experiment, Finding, unchecked, verdict
from spbfast.constants import PB_ORDER, PB_PAGES, RECORD_FIELDS, AllocFlag, C, Mt
from spbfast.zone import Zone

SEED = 7
TYPES = (Mt.UNMOVABLE, Mt.MOVABLE, Mt.RECLAIMABLE)
SHARES = (0.2, 0.65, 0.15)
ORDERS, ORDER_SHARES = (0, 1, 2, 3), (0.85, 0.05, 0.05, 0.05)
FULL = 0.93  # share of the memory that the mix holds
NR_RECORDS = 1 << 20


def recording_zone(size: str, policy: str = "mainline") -> Zone:
    """A zone that keeps the records of mm_page_alloc_extfrag."""
    zone = Zone(size, policy)
    zone.state = zone.state._replace(records=np.zeros((NR_RECORDS, RECORD_FIELDS), np.int64))
    return zone


def matrices(zones: Sequence[Zone]) -> dict[str, list[list[int]]]:
    """Fallbacks by requested type (row) and by the type whose memory was taken (column).

    Returns
    -------
    dict
        claimed: the pageblock changed its type; polluted: those of them whose pageblock was partly in use;
        stolen: a block was taken and its pageblock's type stayed. Each [3][3] in the order of `TYPES`.
    """
    claimed = np.zeros((3, 3), np.int64)
    polluted = np.zeros((3, 3), np.int64)
    stolen = np.zeros((3, 3), np.int64)
    for zone in zones:
        records = zone.state.records[: zone.state.count[C.NR_RECORDS]]
        for order, mt, other, owns in records[:, [4, 5, 6, 7]].tolist():
            claimed[mt, other] += owns
            polluted[mt, other] += owns and order < PB_ORDER
            stolen[mt, other] += not owns
    return {"claimed": claimed.tolist(), "polluted": polluted.tolist(), "stolen": stolen.tolist()}


def mix(sizes: Sequence[str], steps: int, *, nofragment: bool) -> dict[str, Any]:
    """A random mix of requests, the zones tried in turn as a zone list.

    Parameters
    ----------
    sizes : sequence of str
        Zones in the order of the zone list.
    steps : int
        Requests.
    nofragment : bool
        Try all zones with NOFRAGMENT before any without, as mainline does where two zones allow it.

    Returns
    -------
    dict
        events (mm_page_alloc_extfrag), the matrices, and failed requests.
    """
    draws = np.random.default_rng(SEED)
    zones = [recording_zone(size) for size in sizes]
    total = sum(zone.nr_pages for zone in zones)
    tries = (AllocFlag.NOFRAGMENT, 0) if nofragment else (0,)
    kinds = draws.choice(3, steps, p=SHARES).tolist()
    orders = draws.choice(ORDERS, steps, p=ORDER_SHARES).tolist()
    picks = draws.random(2 * steps).tolist()
    held: list[tuple[int, int, int]] = []
    used = failed = 0
    for step in range(steps):
        kind, order = kinds[step], orders[step]
        while used + (1 << order) > FULL * total:
            place = int(picks.pop() * len(held)) if picks else 0
            held[place], held[-1] = held[-1], held[place]
            which, pfn, pages = held.pop()
            zones[which].free(pfn)
            used -= pages
        found = _ask(zones, order, TYPES[kind], tries)
        if found is None:
            failed += 1
            continue
        held.append((*found, 1 << order))
        used += 1 << order
    for zone in zones:
        zone.check()
    events = sum(int(zone.state.count[C.EXTFRAG]) for zone in zones)
    return {"events": events, "failed": failed, **matrices(zones)}


def _ask(zones: Sequence[Zone], order: int, mt: Mt, tries: Sequence[int]) -> tuple[int, int] | None:
    for flags in tries:
        for which, zone in enumerate(zones):
            pfn = zone.alloc(order, mt, flags)
            if pfn >= 0:
                return which, pfn
    return None


def illuminator(size: str, policy: str, taken: int, rounds: int) -> dict[str, Any]:
    """The pollution recipe: unmovable pages of which two a pageblock stay, a hog, in the end page cache.

    Parameters
    ----------
    size : str
        Memory of the zone.
    policy : str
        A preset.
    taken : int
        Unmovable pages of order 0 that a round takes.
    rounds : int
        Rounds.

    Returns
    -------
    dict
        share: pageblocks with an unmovable page, after each round; free_huge: frames of 2 MiB free before
        page cache fills the rest; labelled_movable: share of the polluted pageblocks that are movable by
        label then; tainted: superpageblocks.
    """
    zone = Zone(size, policy)
    kept = np.empty(0, np.int64)
    share = []
    for _ in range(rounds):
        pages = zone.alloc_many(taken, 0, Mt.UNMOVABLE)
        keep, give = two_a_pageblock(pages[pages >= 0])
        kept = np.concatenate([kept, keep])
        zone.free_many(give)
        hog = zone.alloc_many(zone.nr_free_pages(), 0, Mt.MOVABLE)
        zone.free_many(hog[hog >= 0])
        share.append(np.unique(kept // PB_PAGES).size / (zone.nr_pages // PB_PAGES))
    blocks = zone.nr_free_blocks().sum(axis=1)
    labels = zone.pageblock_types()[np.unique(kept // PB_PAGES) - zone.start_pfn // PB_PAGES]
    labelled_movable = round(float((labels == Mt.MOVABLE).mean()), 4)
    for _ in range(2):
        cache = zone.alloc_many(zone.nr_free_pages(), 0, Mt.MOVABLE)
        zone.free_many(cache[cache >= 0])
    zone.check()
    return {
        "share": [round(x, 4) for x in share],
        "free_huge": int(blocks[9] + 2 * blocks[10]),
        "pageblocks": zone.nr_pages // PB_PAGES,
        "tainted": zone.tainted(),
        "labelled_movable": labelled_movable,
    }


def two_a_pageblock(pfns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two pages of each pageblock, and all the others."""
    ordered = np.sort(pfns)
    _, first, nr = np.unique(ordered // PB_PAGES, return_index=True, return_counts=True)
    rank = np.arange(ordered.size) - np.repeat(first, nr)
    return ordered[rank < 2], ordered[rank >= 2]


def run_mix(quick: bool) -> dict[str, Any]:
    """Two zones, with NOFRAGMENT and without."""
    sizes, steps = (("96MiB", "32MiB"), 40_000) if quick else (("768MiB", "256MiB"), 300_000)
    return {name: mix(sizes, steps, nofragment=on) for name, on in (("without", False), ("with", True))}


def run_recipe(quick: bool) -> dict[str, Any]:
    """The recipe under mainline and under the whole series."""
    size, taken, rounds = ("256MiB", 4_000, 25) if quick else ("16GiB", 256_000, 25)
    return {policy: illuminator(size, policy, taken, rounds) for policy in ("mainline", "v1")}


def judge_mix(numbers: Mapping[str, Any]) -> list[Finding]:
    """The sign of NOFRAGMENT, and why the others can't be checked."""
    without, with_ = numbers["without"], numbers["with"]
    fewer = 100 * (1 - with_["events"] / without["events"])
    permanent = {name: _into_movable(n) for name, n in numbers.items()}
    return [
        Finding(
            "mm_page_alloc_extfrag events, fragmentation avoidance on two zones (Gorman, thpfioscale)",
            "94-95 % fewer",
            f"{fewer:.1f} % fewer ({without['events']:,} -> {with_['events']:,})",
            verdict(fewer > 0),
            "NOFRAGMENT and the second zone alone; the published series also boosts watermarks, and its "
            "load is another, so the sign is the check",
        ),
        Finding(
            "unmovable and reclaimable blocks placed in movable pageblocks, of all events",
            "-",
            " ; ".join(
                f"{permanent[name]:,} of {n['events']:,} ({name} NOFRAGMENT)" for name, n in numbers.items()
            ),
            OBSERVED,
            "total events mislead: most go back when their page is freed. The two are told apart, as "
            "Babka's counts are",
        ),
        *_cannot(),
    ]


def _into_movable(numbers: Mapping[str, Any]) -> int:
    return sum(numbers[kind][row][1] for kind in ("polluted", "stolen") for row in (0, 2))


def _cannot() -> list[Finding]:
    current = (
        "the model has the rules of Linux 6.17-6.19 only, which include the change; there is no switch back"
    )
    return [
        unchecked(
            "reliable huge page allocator (Weiner 2025): THP fallback, compaction failures, stalls",
            "-75 %, -69 %, -73 %",
            "defrag_mode is no switch of the mainline preset; the superpageblock presets keep NOFRAGMENT "
            "in the slow path as it does, and more besides, so a comparison would not be of that series",
        ),
        unchecked("migratetype hygiene (Weiner 2023): THP fallback", "783 -> 479", current),
        unchecked(
            "biggest buddy first (Weiner 2025): pollution of unmovable by movable",
            "4841 -> 868 from unmovable, 5278 -> 12568 from reclaimable",
            current + ". The matrices below are of the kind that the check needs",
        ),
        unchecked(
            "stress-highalloc (Babka): events up, unmovable in movable down",
            "25.6 M -> 69.7 M, 69,003 -> 67,684",
            current,
        ),
        unchecked(
            "slab shrink on watermark boost (Gorman): given up because early shrinking cost IO",
            "a regression, no figure",
            "objects that were shrunk too early are not read back",
        ),
    ]


def tables_mix(numbers: Mapping[str, Any]) -> list[str]:
    """The matrices: who asked, by rows; whose memory it was, by columns."""
    lines = []
    texts = {
        "claimed": "Pageblocks claimed (all of it, or at least half free or alike)",
        "polluted": "Of these, pageblocks claimed while part of them was in use",
        "stolen": "Blocks taken from pageblocks that keep their type",
    }
    for name, n in numbers.items():
        for kind, text in texts.items():
            lines += ["", f"{text}, {name} NOFRAGMENT; requests by row, taken from by column:", ""]
            lines += ["| | from unmovable | from movable | from reclaimable |", "|---|---|---|---|"]
            for mt, row in zip(TYPES, n[kind], strict=True):
                cells = " | ".join(
                    "" if other == mt else f"{x:,}" for other, x in zip(TYPES, row, strict=True)
                )
                lines.append(f"| {mt.name.lower()} | {cells} |")
    return lines


def judge_recipe(numbers: Mapping[str, Any]) -> list[Finding]:
    """Nearly every pageblock polluted under mainline; and what the series makes of it."""
    main, series = numbers["mainline"], numbers["v1"]
    return [
        Finding(
            "pageblocks with an unmovable page after the recipe, mainline",
            "nearly every one",
            f"{100 * main['share'][-1]:.1f} % of {main['pageblocks']:,}",
            verdict(main["share"][-1] > 0.9),
            f"{100 * main['share'][0]:.1f} % after the first round: each round takes fresh pageblocks, for "
            f"the hog has claimed the others: {100 * main['labelled_movable']:.0f} % of the polluted ones "
            "are movable by label",
        ),
        Finding(
            "the same under v1",
            "-",
            f"{100 * series['share'][-1]:.1f} %, {series['tainted']} superpageblocks tainted",
            OBSERVED,
            "unmovable requests come back to the tainted superpageblocks",
        ),
        Finding(
            "free huge frames before page cache fills the rest",
            "-",
            f"{main['free_huge']:,} (mainline), {series['free_huge']:,} (v1)",
            OBSERVED,
            "what compaction has to work for, and what it costs in applications, is outside of this "
            "experiment",
        ),
    ]


MATRIX = Experiment(
    "V10",
    "V10: mainline series as directional checks",
    f"{300_000:,} requests (20 % unmovable, 65 % movable, 15 % reclaimable; 85 % of order 0, the rest of "
    f"orders 1-3) on a zone of 768 MiB and one of 256 MiB, {FULL:.0%} of which they hold at random from "
    f"then on; every fallback is recorded. Draws: `numpy.random.default_rng({SEED})`.",
    run_mix,
    judge_mix,
    tables_mix,
)
RECIPE = Experiment(
    "V11",
    "V11: the Illuminator's pollution recipe",
    "16 GiB; 25 rounds of 256,000 unmovable pages of order 0, of which two a pageblock stay, each followed "
    "by a hog that takes all memory in movable pages of order 0 and gives it back; then page cache fills "
    "the rest twice. Published: the recipe of the Illuminator authors (fragmentation-script, first mode).",
    run_recipe,
    judge_recipe,
)
