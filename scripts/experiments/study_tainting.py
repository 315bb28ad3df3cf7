"""The studies of how much gets tainted: shrink, each patch, the reserve, small machines, healing.

Owns their words and how their answers are read. Every number of an answer is computed from the kept numbers,
and so is which of its sentences are said.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from experiments.study_numbers import AS_FILE, VARIED, Metric, Numbers, number, sign, told
from experiments.study_page import Answer, Contrast, Study
from experiments.study_parts import SLAB_GB, STALLS, TAINTED, Rows, policies, policy
from spbfast.results.effects import effect_of
from spbfast.results.goodenough import knees

# (a) The changes in the order of how little they change of what was posted.
CHANGES = {
    "target-x4": "a target of 8,192 objects instead of 2,048",
    "priority-9": "a first pass at priority 9 instead of 12",
    "priority-8": "a first pass at priority 8 instead of 12",
    "priority-6": "a first pass at priority 6 instead of 12",
    "high-water-priority-9": "the trigger of patch 32 and a first pass at priority 9",
    "v1@32": "patch 32 whole: its trigger and no throttle",
    "v1@32-priority-9": "patch 32 whole and a first pass at priority 9",
}


ENOUGH = 0.25  # of the count without shrink
JUDGED_TOGETHER = 1 - 0.05 / len(CHANGES)  # Bonferroni: one of many changes is clear by chance


def _effective(numbers: Numbers) -> list[str]:
    """The changes that clearly lower the count by a quarter or more, the smallest change first."""
    off = numbers.values("tainted", policy="shrink-off")

    def is_effective(name: str) -> bool:
        effect = effect_of("tainted", off, numbers.values("tainted", policy=name), JUDGED_TOGETHER)
        return effect.high < 0 and effect.difference <= -ENOUGH * effect.control

    return [name for name in CHANGES if is_effective(name)]


def _strongest(numbers: Numbers) -> str:
    return min(CHANGES, key=lambda name: numbers.mean("tainted", policy=name))


def _best_changes(numbers: Numbers) -> list[Contrast]:
    """The smallest effective change and the strongest one."""
    names = dict.fromkeys([*_effective(numbers)[:1], _strongest(numbers)])
    return [("tainted", policy(name), policy("shrink-off")) for name in names]


def _shrink(numbers: Numbers) -> Answer:
    off = policy("shrink-off")
    posted = numbers.effect("tainted", policy("v1@30"), off)
    works = _effective(numbers)
    said = "As posted it lowers the count" if sign(posted) < 0 else "As posted it does not lower the count"
    ran, freed = (number(numbers.mean(m, policy="v1@30")) for m in ("ran", "freed"))
    least = f"the smallest change tried that does is {CHANGES[works[0]]}" if works else "no change tried does"
    costs = [
        f"`{name}`: {told(numbers.effect('slab', policy(name), off), 'GB of slab')}, "
        f"{number(numbers.mean('refaults', policy=name))} objects read back."
        for name in dict.fromkeys([*works[:1], _strongest(numbers)])
    ]
    return Answer(f"{said}; {least}.", [f"As posted it ran {ran} times and freed {freed} objects.", *costs])


SHRINK = Study(
    name="shrink",
    title="(a) Is slab shrink as posted effective?",
    question=(
        "Does the shrink of patch 30 keep superpageblocks clean, and what is the smallest change that does?"
    ),
    asked="It follows from the changelog of patch 30, which gives no count with shrink.",
    method=(
        "Effective is a clear fall by a quarter, all changes judged together. A fifth of the inodes freed is "
        "looked up again."
    ),
    limits=(
        "With superpageblocks of 256 MiB shrink has four times the occasions per byte: what fails here has "
        "less of a chance on the large machine. No key for: going on without progress, a target in pages, "
        "aiming at nearly empty pageblocks."
    ),
    own=("policy",),
    metrics={
        "tainted": TAINTED,
        "slab": SLAB_GB,
        "ran": Metric(("spb_slab_shrink_ran",), "runs"),
        "freed": Metric(("spb_slab_shrink_freed",), "objects"),
        "refaults": Metric(("workingset_refault_slab",), "objects"),
    },
    headline=("tainted", policy("v1@30"), policy("shrink-off")),
    answer=_shrink,
    rows=lambda numbers: policies(numbers, "tainted", "shrink-off"),
    axis="tainted superpageblocks at the end, minus those without shrink",
    others=_best_changes,
)


def _worth(numbers: Numbers) -> Answer:
    without = [name for name in numbers.own("policy") if name.startswith("without-")]
    effects = {name: numbers.effect("tainted", policy(name), policy("v1-full")) for name in without}
    needed = sorted((n for n in without if sign(effects[n]) > 0), key=lambda n: -effects[n].difference)
    harmful = sorted((n for n in without if sign(effects[n]) < 0), key=lambda n: effects[n].difference)
    neither = len(without) - len(needed) - len(harmful)
    line = (
        f"Of {len(without)} changes, {len(needed)} keep superpageblocks clean, {len(harmful)} taint more, "
        f"and {neither} do neither in {numbers.replicates} pairs."
    )

    def shown(names: list[str]) -> str:
        return ", ".join(f"`{n.removeprefix('without-')}` {told(effects[n])}" for n in names[:4])

    details = [f"Worth most, by what leaving it out adds: {shown(needed)}."] if needed else []
    details += [f"Better left out: {shown(harmful)}."] if harmful else []
    return Answer(line, details)


WORTH = Study(
    name="worth",
    title="(d) Which patches are worth keeping?",
    question=(
        "Which of the series' changes alter how much gets tainted, when all else that is modelled is there?"
    ),
    asked="Rik van Riel: are free lists per gigabyte desirable at all, or is another approach better?",
    method=(
        "Everything modelled (`v1-full`) without one of nine changes at a time, and the lists alone "
        "(`v1@15`). The ladder of plain steps, with intervals, is in docs/series.md."
    ),
    limits=(
        "Worth is judged by tainted superpageblocks of one workload alone, not by 1 GiB pages, stalls or "
        "time. One in twenty comparisons is clear by chance. Patches whose actor is not there, such as "
        "kvmalloc's, are left out."
    ),
    own=("policy",),
    metrics={"tainted": TAINTED, "stalls": STALLS, "failed": Metric(("alloc_failed_optional",), "requests")},
    headline=("tainted", policy("v1-full"), policy("v1@15")),
    answer=_worth,
    rows=lambda numbers: policies(numbers, "tainted", "v1-full"),
    axis="tainted superpageblocks at the end, minus those of v1-full",
)


BARRED = VARIED["reclaim_barred_free", "subtracted"]


def _floor(nr: int) -> dict[str, Any]:
    return {"policy_reserve_floor": nr}


def _knee_of_reserve(ds: xr.Dataset) -> list[str]:
    """What `spbfast knee` says of the points where nothing else is varied."""
    rows = [
        i
        for i in range(ds.sizes["point"])
        if float(ds["workers_pinned_share"][i]) == 0.0
        and str(ds["reclaim_barred_free"].values[i]) == "counted"
    ]
    return [knee.words for knee in knees(ds.isel(point=rows), "policy_reserve_floor", "spb_tainted")]


def _reserve(numbers: Numbers) -> Answer:
    floors = numbers.own("policy_reserve_floor")
    means = {nr: numbers.mean("tainted", policy_reserve_floor=nr) for nr in floors}
    posted = numbers.effect("tainted", _floor(4), _floor(0))
    largest = numbers.effect("tainted", _floor(max(floors)), _floor(4))
    words = {-1: "clearly fewer", 0: "not clearly fewer", 1: "clearly more"}
    line = (
        f"A reserve of 4 pageblocks, 3 %, taints {words[sign(posted)]} superpageblocks than none; one of "
        f"{max(floors)}, 25 %, {words[sign(largest)]} than one of 4."
    )
    stranded = numbers.effect("stranded", _floor(max(floors)), _floor(0))
    return Answer(
        line,
        [
            "Tainted by reserve: " + ", ".join(f"{nr}: {number(mean)}" for nr, mean in means.items()) + ".",
            *numbers.kept["extra"],
            f"Subtracting barred pages from the watermarks takes a reserve of 4 from {number(means[4])} to "
            f"{number(numbers.mean('tainted', BARRED, policy_reserve_floor=4))} tainted and from "
            f"{number(numbers.mean('stalls', policy_reserve_floor=4))} to "
            f"{number(numbers.mean('stalls', BARRED, policy_reserve_floor=4))} direct-reclaim stalls.",
            f"Free memory inside tainted superpageblocks, {max(floors)} minus 0: {told(stranded, 'MB')}.",
        ],
    )


def _reserve_rows(numbers: Numbers) -> Rows:
    rows = [
        (f"{nr} pageblocks", numbers.effect("tainted", _floor(nr), _floor(0)))
        for nr in numbers.own("policy_reserve_floor")
        if nr
    ]
    return rows + [
        (f"4 pageblocks; {varied}", numbers.effect("tainted", _floor(4), _floor(0), varied))
        for varied in numbers.varied
    ]


RESERVE = Study(
    name="reserve",
    title="(e) How large should the reserve be?",
    question="How many pageblocks should a tainted superpageblock keep for unmovable memory?",
    asked=(
        "Not asked in the thread as far as known; patch 24 raised the reserve from 4 to 16 of 512 pageblocks."
    ),
    method=(
        "Patch 30 with reserves of 0 to 32 of 128 pageblocks; 1 and 4 are the shares before and after patch "
        "24."
    ),
    limits=(
        "What the reserve costs a workload, reclaim of its page cache, is only counted as stranded memory. "
        "Slab grows through the whole run, so this is a burst, not a steady state."
    ),
    own=("policy_reserve_floor",),
    metrics={
        "tainted": TAINTED,
        "stranded": Metric(("free_pages_stranded_in_tainted",), "MB", scale=4096 / 1e6),
        "stalls": STALLS,
    },
    headline=("tainted", _floor(4), _floor(0)),
    answer=_reserve,
    rows=_reserve_rows,
    axis="tainted superpageblocks at the end, minus those without a reserve",
    extra=_knee_of_reserve,
)


GIB = 1 << 30


def _on(policy: str, gib: int) -> dict[str, Any]:
    return {"policy": policy, "machine_memory": gib * GIB}


def _small(numbers: Numbers) -> Answer:
    sizes = sorted(size // GIB for size in numbers.own("machine_memory"))
    share = {
        name: {gib: numbers.mean("share", **_on(name, gib)) for gib in sizes} for name in ("mainline", "v1")
    }
    shown = {
        name: ", ".join(f"{number(value)} % of {gib} GiB" for gib, value in by.items())
        for name, by in share.items()
    }
    helps = [gib for gib in sizes if sign(numbers.effect("share", _on("v1", gib), _on("mainline", gib))) < 0]
    failed = numbers.effect("failed", _on("v1", 8), _on("mainline", 8))
    packs = numbers.effect("share", _on("v1-packs-always", 8), _on("v1", 8))
    where = f"on {', '.join(map(str, helps))} GiB" if helps else "on none of these sizes"
    line = (
        f"Version 1 taints a smaller share than mainline {where}; on 8 GiB it taints "
        f"{number(share['v1'][8])} %."
    )
    return Answer(
        line,
        [
            f"Version 1: {shown['v1']}. Mainline: {shown['mainline']}.",
            f"Packing on 8 GiB too, as above 8 superpageblocks: {told(packs, 'points')}.",
            f"Blocking requests that fail on 8 GiB, `v1` minus mainline: {told(failed)}.",
        ],
    )


def _small_rows(numbers: Numbers) -> Rows:
    points = sorted(
        numbers.kept["points"], key=lambda p: (p["varied"] != AS_FILE, p["own"]["machine_memory"])
    )
    return [
        (
            f"{p['own']['policy']}, {p['own']['machine_memory'] // GIB} GiB"
            + ("" if p["varied"] == AS_FILE else f"; {p['varied']}"),
            numbers.effect("share", p["own"], None, p["varied"]),
        )
        for p in points
    ]


SMALL = Study(
    name="small",
    title="(g) What happens on small machines?",
    question="What do superpageblocks of 1 GiB do for machines of 8 to 64 GiB?",
    asked=(
        "Not asked in the thread as far as known; the series packs only in zones of more than 8 "
        "superpageblocks."
    ),
    method=(
        "The burst on 8, 16, 32 and 64 GiB with superpageblocks of 1 GiB, demand in proportion; version 1, "
        "version 1 that packs from the first superpageblock on, and mainline."
    ),
    limits=(
        "A laptop of 8 GiB does not run eighteen small guests: the shares are the developer machine's. One "
        "superpageblock of 8 is 12.5 percentage points."
    ),
    own=("policy", "machine_memory"),
    metrics={
        "share": Metric(
            ("spb_tainted",),
            "percentage points of tainted superpageblocks",
            scale=100.0,
            per=("spb_tainted", "spb_clean", "spb_empty", "spb_isolated"),
        ),
        "failed": Metric(("alloc_failed_blocking",), "failed blocking requests"),
        "fallback": Metric(("thp_fault_fallback",), "huge faults that fell back"),
    },
    headline=("share", _on("v1", 8), _on("mainline", 8)),
    answer=_small,
    rows=_small_rows,
    axis="tainted superpageblocks at the end, % of all",
)


AFTER = 50.0  # s: the burst is over and the last guest is gone


def _heal(numbers: Numbers) -> Answer:
    names = numbers.own("policy")
    peak, end = ({n: numbers.mean(m, policy=n) for n in names} for m in ("peak", "end"))
    change = numbers.effect("healed", policy("v1"), None)
    stale = number(numbers.mean("stale", policy="v1"))
    said = {
        -1: "Version 1 heals, in part",
        0: "Version 1 does not heal as far as these pairs can tell",
        1: "Version 1 goes on tainting after the burst",
    }
    line = (
        f"{said[sign(change)]}: {number(peak['v1'])} tainted at the peak, {number(end['v1'])} at the end, "
        "100 s after the last guest."
    )
    slab = numbers.effect("slab", policy("v1"), None)
    others = ", ".join(f"`{n}` {told(numbers.effect('healed', policy(n), None))}" for n in names if n != "v1")
    return Answer(
        line,
        [
            f"Change after the burst: {others}.",
            f"Slab meanwhile: {told(slab, 'MB')}. Tainted by stale content bits alone at the end: {stale}.",
        ],
    )


def _heal_rows(numbers: Numbers) -> Rows:
    return [
        (
            p["own"]["policy"] + ("" if p["varied"] == AS_FILE else f"; {p['varied']}"),
            numbers.effect("healed", p["own"], None, p["varied"]),
        )
        for p in numbers.kept["points"]
    ]


HEAL = Study(
    name="heal",
    title="(h) Does tainting ever heal after the burst?",
    question=(
        "Once guests have gone and inodes are no longer opened, do tainted superpageblocks become clean "
        "again?"
    ),
    asked=(
        "Not asked in the thread as far as known. LWN notes that one unmovable pageblock spoils a gigabyte; "
        "the changelog speaks of a plateau."
    ),
    method=(
        "Within 40 s caches fill to 3.8 million objects and every guest has its one life; then files are "
        "read and a little memory churns. The change is from 50 s to the end, 150 s."
    ),
    limits=(
        "No actor stops opening inodes: the table of objects ends their growth, so what a shrink frees is "
        "opened again, and where shrink works the burst goes on. A hundred seconds are not a night, and "
        "nobody drops caches."
    ),
    own=("policy",),
    metrics={
        "healed": Metric(("spb_tainted",), "tainted superpageblocks of 64", since=AFTER),
        "peak": Metric(("spb_tainted",), "tainted superpageblocks of 64", at="peak"),
        "end": TAINTED,
        "stale": Metric(("spb_tainted_by_stale_bits",), "superpageblocks"),
        "slab": Metric(("slab_pages",), "MB of slab", scale=4096 / 1e6, since=AFTER),
    },
    headline=("healed", policy("v1"), None),
    answer=_heal,
    rows=_heal_rows,
    axis="change of tainted superpageblocks from the end of the burst on",
)
