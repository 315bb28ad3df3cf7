"""The study of what reclaim sees: free pages that no movable request may use, and kswapd.

Owns its words and how its answer is read. Every number of the answer is computed from the kept numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.study_numbers import AS_FILE, Metric, Numbers, number, sign, told
from experiments.study_page import Answer, Study
from experiments.study_parts import STALLS, TAINTED, Rows

COUNTED = {"policy": "v1@30", "reclaim_barred_free": "counted"}
SUBTRACTED = COUNTED | {"reclaim_barred_free": "subtracted"}
SOFT = COUNTED | {"policy": "v1@30-soft"}
MAINLINE = COUNTED | {"policy": "mainline"}


def _starve(numbers: Numbers) -> Answer:
    def mean(metric: str, own: Mapping[str, Any]) -> str:
        return number(numbers.mean(metric, **own))

    starves = sign(numbers.effect("stalls", COUNTED, SUBTRACTED)) > 0
    said = "let kswapd sleep while requests stall" if starves else "cost no stalls that are told from chance"
    line = (
        f"Counted as free, barred pages {said}: {mean('stalls', COUNTED)} direct-reclaim stalls, against "
        f"{mean('stalls', SUBTRACTED)} where the watermarks subtract them."
    )
    by_kswapd = [100 * numbers.mean("by_kswapd", **own) for own in (COUNTED, SUBTRACTED)]
    return Answer(
        line,
        [
            f"kswapd reclaims {by_kswapd[0]:.0f} % of what is reclaimed with them counted, "
            f"{by_kswapd[1]:.0f} % with them subtracted.",
            f"Counting them changes tainted superpageblocks by "
            f"{told(numbers.effect('tainted', COUNTED, SUBTRACTED))}, huge pages that fall back by "
            f"{told(numbers.effect('fallback', COUNTED, SUBTRACTED))}.",
            f"A soft reserve, which lends movable fragments before direct reclaim, ends at "
            f"{mean('stalls', SOFT)} stalls, mainline, which bars nothing, at {mean('stalls', MAINLINE)}.",
            f"Free in tainted superpageblocks at the end: {mean('stranded', COUNTED)} MB counted, "
            f"{mean('stranded', SUBTRACTED)} MB subtracted.",
        ],
    )


def _rows(numbers: Numbers) -> Rows:
    counted = [
        ("counted" if varied == AS_FILE else f"counted; {varied}", COUNTED, varied)
        for varied in (AS_FILE, *numbers.varied)
    ]
    others = [("soft reserve", SOFT, AS_FILE), ("mainline", MAINLINE, AS_FILE)]
    return [
        (label, numbers.effect("stalls", own, SUBTRACTED, varied))
        for label, own, varied in (*counted, *others)
    ]


STARVE = Study(
    name="starve",
    title="(i) Do pages that nobody may use let kswapd sleep?",
    question=(
        "A hard reserve bars movable requests from the last free pageblocks of tainted superpageblocks. If "
        "the watermarks count those pages as free, does kswapd sleep while requests stall?"
    ),
    asked=(
        "Not asked in the thread as far as known; mainline subtracts what a request cannot use "
        "(`__zone_watermark_unusable_free`), and the series' texts do not say whether this is among it."
    ),
    method="Patch 30, barred pages counted as free and subtracted; beside it a soft reserve, and mainline.",
    limits=(
        "Requests here do not wait for each other, so a stall costs the simulated program nothing. Slab "
        "grows through the whole run. Small superpageblocks bar more in proportion."
    ),
    own=("policy", "reclaim_barred_free"),
    metrics={
        "stalls": STALLS,
        "by_kswapd": Metric(("pgsteal_kswapd",), "", per=("pgsteal_kswapd", "pgsteal_direct")),
        "tainted": TAINTED,
        "fallback": Metric(("thp_fault_fallback",), "huge pages"),
        "stranded": Metric(("free_pages_stranded_in_tainted",), "MB", scale=4096 / 1e6),
    },
    headline=("stalls", COUNTED, SUBTRACTED),
    answer=_starve,
    rows=_rows,
    axis="direct-reclaim stalls, minus those of v1@30 with barred pages subtracted",
)
