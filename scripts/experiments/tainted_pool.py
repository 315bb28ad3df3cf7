"""V6 and V7, what a full tainted pool can still serve: the half rule, and free pages of the other type.

Owns the building of both states by real requests on a Zone, and what is asked of them then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.finding import DIFFERS, Experiment, Finding, verdict
from spbfast.constants import PB_PAGES, AllocFlag, Mt, Outcome
from spbfast.zone import Zone

SEED = 1
NR_TAINTED = 8
FREE_MOVABLE = 21_000
PUBLISHED_FAILS, PUBLISHED_CLAIMS = 29_182, 29_228


def full_pool(policy: Any, spb_size: str, nr_tainted: int, nr_free: int, nr_empty: int = 1) -> Zone:
    """Tainted superpageblocks without a free pageblock but with free movable pages, beside empty ones.

    Everything is filled with movable pages; one pageblock of each superpageblock to be tainted becomes
    unmovable; then `nr_free` random movable pages of the tainted ones, and all of the others, are freed.
    """
    one = Zone(spb_size, policy, spb_size=spb_size).nr_pages
    nr_spb = nr_tainted + nr_empty
    zone = Zone(one * 4096 * nr_spb, policy, spb_size=spb_size)
    pages = np.sort(zone.alloc_many(zone.nr_pages, 0, Mt.MOVABLE)).reshape(nr_spb, one)
    draws = np.random.default_rng(SEED)
    rest = []
    for spb in range(nr_tainted):
        zone.free_many(pages[spb, :PB_PAGES])
        zone.alloc(9, Mt.UNMOVABLE)
        rest.append(pages[spb, PB_PAGES:])
    zone.free_many(draws.choice(np.concatenate(rest), nr_free, replace=False))
    if nr_empty:
        zone.free_many(pages[nr_tainted:].ravel())
    return zone


def half_rule(needs_half: bool, spb_size: str, nr_free: int) -> dict[str, Any]:
    """Unmovable single pages asked of such a pool: how many find none, and what is tainted to serve them."""
    policy = {"preset": "v1@24", "tainted_claim_needs_half": needs_half}
    requests = nr_free * 9 // 10
    shut = full_pool(policy, spb_size, NR_TAINTED, nr_free, nr_empty=0)
    free_pb = int(shut.superpageblocks().free_pageblocks.sum())
    got = shut.alloc_many(requests, 0, Mt.UNMOVABLE, AllocFlag.NOFRAGMENT)
    open_ = full_pool(policy, spb_size, NR_TAINTED, nr_free)
    before = open_.tainted()
    open_.alloc(0, Mt.UNMOVABLE)
    first = Outcome(open_.last.outcome).name.lower()
    open_.alloc_many(requests - 1, 0, Mt.UNMOVABLE)
    for zone in (shut, open_):
        zone.check()
    return {
        "free_pageblocks": free_pb,
        "free_pages": nr_free,
        "requests": requests,
        "failed": int((got < 0).sum()),
        "tainted_before": before,
        "tainted_after": open_.tainted(),
        "first_outcome": first,
    }


def stranding(preset: str, spb_size: str, nr_free: int) -> dict[str, Any]:
    """One superpageblock full of unmovable pages, `nr_free` of them freed at random; then reclaimable "
    "requests."""
    one = Zone(spb_size, preset, spb_size=spb_size).nr_pages
    zone = Zone(one * 4096 * 4, preset, spb_size=spb_size)
    pages = zone.alloc_many(one, 0, Mt.UNMOVABLE)
    zone.free_many(np.random.default_rng(SEED).choice(pages, nr_free, replace=False))
    on_list = int((zone.nr_free_blocks()[:, Mt.RECLAIMABLE]).sum())
    before = zone.tainted()
    zone.alloc(0, Mt.RECLAIMABLE)
    first = Outcome(zone.last.outcome).name.lower()
    zone.alloc_many(nr_free // 2, 0, Mt.RECLAIMABLE)
    zone.check()
    return {
        "free_in_tainted": nr_free,
        "reclaimable_blocks_before": on_list,
        "tainted_before": before,
        "tainted_after": zone.tainted(),
        "first_outcome": first,
    }


def run_claims(quick: bool) -> dict[str, Any]:
    """The same pool with the half rule and without."""
    spb, free = ("64MiB", 1300) if quick else ("1GiB", FREE_MOVABLE)
    return {name: half_rule(on, spb, free) for name, on in (("with", True), ("without", False))}


def run_stranding(quick: bool) -> dict[str, Any]:
    """The same superpageblock before and after patch 31."""
    spb, free = ("64MiB", 5400) if quick else ("1GiB", 87_000)
    return {preset: stranding(preset, spb, free) for preset in ("v1@30", "v1@31")}


def judge_claims(numbers: Mapping[str, Any]) -> list[Finding]:
    """The rule makes nearly all fail; without it failures vanish."""
    on, off = numbers["with"], numbers["without"]
    share = 100 * on["failed"] / on["requests"]
    return [
        Finding(
            "unmovable requests that the pool refuses, half rule on",
            f"{PUBLISHED_FAILS} of {PUBLISHED_CLAIMS} claims (99.84 %)",
            f"{on['failed']} of {on['requests']} requests ({share:.2f} %)",
            verdict(share >= 99),
            "here the free pages are spread evenly, so that no pageblock has half of its pages free; 46 of "
            "the published claims found one that had",
        ),
        Finding(
            "the same with the half rule off",
            "failures vanish",
            f"{off['failed']} of {off['requests']} requests",
            verdict(off["failed"] == 0),
            "partial claims serve every request from the same free pages",
        ),
        Finding(
            "tainted superpageblocks when an empty one is at hand",
            "taints with the rule, none without",
            f"{on['tainted_before']} -> {on['tainted_after']} with, {off['tainted_before']} -> "
            f"{off['tainted_after']} without",
            verdict(
                on["tainted_after"] > on["tainted_before"] and off["tainted_after"] == off["tainted_before"]
            ),
            f"the first request ends in `{on['first_outcome']}` with the rule, in `{off['first_outcome']}` "
            "without",
        ),
    ]


def judge_stranding(numbers: Mapping[str, Any]) -> list[Finding]:
    """Without borrowing the reclaimable request taints, with it none does."""
    before, after = numbers["v1@30"], numbers["v1@31"]
    remark = (
        f"the first request ends in `{before['first_outcome']}` before patch 31, in "
        f"`{after['first_outcome']}` after it"
    )
    holds = (
        before["tainted_after"] > before["tainted_before"]
        and after["tainted_after"] == after["tainted_before"]
    )
    wrong = [n for n in numbers.values() if n["reclaimable_blocks_before"] or n["tainted_before"] != 1]
    shown = " ; ".join(
        f"{n['tainted_before']} -> {n['tainted_after']} ({name})" for name, n in numbers.items()
    )
    return [
        Finding(
            f"{before['free_in_tainted']:,} free pages in one tainted superpageblock, none on the "
            "reclaimable lists",
            "a taint before patch 31, none after",
            shown,
            DIFFERS if wrong else verdict(holds),
            remark,
        )
    ]


CLAIMS = Experiment(
    "V6",
    "V6: the half rule in a full tainted pool",
    f"{NR_TAINTED} tainted superpageblocks of 1 GiB without a free pageblock hold {FREE_MOVABLE:,} free "
    "movable pages at random places; unmovable requests of order 0 are asked of them under `v1@24` with "
    "`tainted_claim_needs_half` on and off: once with NOFRAGMENT and everything else full, once with an "
    "empty superpageblock beside them. Published: the text of patch 25.",
    run_claims,
    judge_claims,
)
STRANDING = Experiment(
    "V7",
    "V7: free pages of the other type",
    "A superpageblock is filled with unmovable pages of order 0 and 87,000 of them are freed at random, so "
    "that no pageblock becomes free; then reclaimable pages are asked for, half as many as are free. "
    "Published: the text of patch 31.",
    run_stranding,
    judge_stranding,
)
