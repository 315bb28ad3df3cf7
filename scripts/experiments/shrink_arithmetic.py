"""The consequences of the shrinkers' arithmetic, each shown by running the worker on caches of known size.

Owns the set-ups; the worker is workers/shrink.py, the one that golden traces decide. Caches are stand-ins
whose objects are all freed when scanned, unless an experiment says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.finding import Experiment, Finding, verdict
from spbfast.constants import DEF_PRIORITY, NS_PER_TICK, PB_PAGES
from spbfast.jit.decorators import entry_kernel
from spbfast.model.state.shrink_layout import KIND_STANDIN, R, W, make_shrink
from spbfast.model.state.slab_layout import no_slab
from spbfast.model.state.standin_layout import SCAN_ALL, SCAN_NONE, SCAN_SHARE, make_standins
from spbfast.model.workers.shrink import begin_shrink, end_shrink, queue_shrink

TARGET_OBJS = PB_PAGES * 4
SUPERBLOCK_BATCH, DEFAULT_BATCH = 1024, 128
SEEKS = 2
THROTTLE_NS = 100 * NS_PER_TICK
SECOND_NS = 1000 * NS_PER_TICK


@entry_kernel
def _run(s, slab, st, requests, every_ns, throttle_ns, target, prio):  # type: ignore[no-untyped-def]
    """Ask for a run every `every_ns`; run at once what is granted."""
    for i in range(requests):
        queue_shrink(s, 0, i * every_ns, throttle_ns)
        begin_shrink(s, slab, st, 0, target, prio, i)
        end_shrink(s, 0)


def shrink(
    objects: Sequence[int],
    *,
    batch: int = SUPERBLOCK_BATCH,
    rule: int = SCAN_ALL,
    share: tuple[int, int] = (1, 1),
    requests: int = 1,
    every_ns: int = THROTTLE_NS,
) -> dict[str, Any]:
    """Requests for slab shrink on one shrinker whose caches hold `objects`, one per memory control group.

    Parameters
    ----------
    objects : sequence of int
        Freeable objects of each group's cache; the first is the root's.
    batch : int
        Of the shrinker.
    rule, share
        What a scan frees: everything, nothing, or a share as (numerator, denominator).
    requests : int
        How often a run is asked for.
    every_ns : int
        Time between two requests; the throttle is 100 ms.

    Returns
    -------
    dict
        runs, passes and last_prio of the last run, scanned and freed over all runs, left (objects per cache),
        first_scan (number of the first run that scanned, from 1, 0 if none did).
    """
    caches = len(objects)
    table = np.array([[1, 1, batch, SEEKS, KIND_STANDIN]])
    s = make_shrink(table, np.ones(caches), np.array([1]), nr_runs=requests, nr_calls=0)
    st = make_standins(np.array([[*share, 100, 1, rule]]), caches, np.zeros(caches, bool), 0)
    st.objects[:] = objects
    s.present[:] = np.asarray(objects) > 0
    _run(s, no_slab(), st, requests, every_ns, THROTTLE_NS, TARGET_OBJS, DEF_PRIORITY)
    runs = s.runs[: s.run[R.NR_RUNS]]
    scanned = np.flatnonzero(runs[:, 5])
    return {
        "runs": int(s.work[0, W.RAN]),
        "passes": int(s.run[R.PASSES]),
        "last_prio": int(s.run[R.LAST_PRIO]),
        "scanned": int(runs[:, 5].sum()),
        "freed": int(runs[:, 4].sum()),
        "left": st.objects[:caches].tolist(),
        "first_scan": int(scanned[0]) + 1 if scanned.size else 0,
    }


def poorly(objects: Sequence[int]) -> dict[str, Any]:
    """One run over caches of which a thousandth of what is scanned can be freed, batch 128."""
    return shrink(objects, rule=SCAN_SHARE, share=(1, 1000), batch=DEFAULT_BATCH)


def run(quick: bool) -> dict[str, Any]:
    """Every consequence; `quick` leaves out nothing, since all take seconds."""
    guests = [300_000] * 18
    return {
        "cold": {
            str(batch): {str(n): shrink([n], batch=batch)["scanned"] for n in (edge - 1, edge)}
            for batch, edge in ((SUPERBLOCK_BATCH, 2_097_152), (DEFAULT_BATCH, 262_144))
        },
        "lasting": {
            str(n): shrink([n], rule=SCAN_NONE, requests=4200)["first_scan"] for n in (1_048_575, 1_048_576)
        },
        "between": {
            str(n): shrink([n], rule=SCAN_NONE, requests=4200)["first_scan"] for n in (1_500_000, 2_000_000)
        },
        "guests": shrink([0, *guests]),
        "one_big": poorly([3_000_000, *[3000] * 200]),
        "no_big": poorly([0, *[3000] * 200]),
        "one_large": shrink([20_000_000]),
        "ceiling": shrink([20_000_000], requests=100, every_ns=SECOND_NS // 100),
    }


def judge(numbers: Mapping[str, Any]) -> list[Finding]:
    """Each consequence of the arithmetic against what the run did."""
    return [
        *_cold(numbers["cold"]),
        *_lasting(numbers["lasting"], numbers["between"]),
        *_ramp(numbers),
        *_large(numbers["one_large"], numbers["ceiling"]),
    ]


def _cold(numbers: Mapping[str, Any]) -> list[Finding]:
    out = []
    for batch, cases in numbers.items():
        (below, nothing), (at, something) = cases.items()
        out.append(
            Finding(
                f"one cold run at priority 12, batch {batch}",
                f"nothing is scanned below {int(at):,} objects",
                f"{int(below):,}: {nothing} scanned; {int(at):,}: {something}",
                verdict(nothing == 0 and something > 0),
                "exact",
            )
        )
    return out


def _lasting(numbers: Mapping[str, int], between: Mapping[str, int]) -> list[Finding]:
    (below, never), (at, run_number) = numbers.items()
    out = [
        Finding(
            "the lasting bound, batch 1024",
            "1,048,575 objects are never scanned; 1,048,576 are from run 4,097 on",
            f"{int(below):,}: {f'run {never:,}' if never else 'never in 4,200 runs'}; {int(at):,}: run "
            f"{run_number:,}",
            verdict(never == 0 and run_number == 4097),
            "exact; at ten runs a second that is 410 s",
        )
    ]
    for objects, first in between.items():
        delta = 2 * (int(objects) >> DEF_PRIORITY)
        expected = (SUPERBLOCK_BATCH - delta) * 4096 / delta
        out.append(
            Finding(
                f"runs until {int(objects):,} objects are scanned, batch 1024",
                f"about (batch - delta) * 4096 / delta = {expected:,.0f}",
                f"{first:,}",
                verdict(abs(first - expected) <= 0.05 * expected + 2),
                "the formula leaves rounding out",
            )
        )
    return out


def _ramp(numbers: Mapping[str, Any]) -> list[Finding]:
    guests, big, small = numbers["guests"], numbers["one_big"], numbers["no_big"]
    shrunk = sum(left < 3000 for left in big["left"][1:])
    untouched = sum(left < 3000 for left in small["left"][1:])
    return [
        Finding(
            "18 guests' groups with 300,000 objects each",
            "they contribute nothing, and the run ends at priority 12",
            f"{guests['scanned']} scanned, {guests['passes']} pass, last priority {guests['last_prio']}",
            verdict(guests["scanned"] == 0 and guests["passes"] == 1 and guests["last_prio"] == 12),
            "a pass that frees nothing ends the run; the ramp never starts",
        ),
        Finding(
            "one cache of 3,000,000 objects with a poor yield beside 200 groups with 3,000",
            "one big cache makes the small ones shrink",
            f"{shrunk} of 200 small ones shrink beside it, {untouched} of 200 without it; {big['passes']} "
            f"passes down to priority {big['last_prio']}",
            verdict(shrunk > 0 and untouched == 0 and big["passes"] > 1),
            "the ramp goes on while each pass frees something, and every cache is visited at every priority",
        ),
    ]


def _large(one: Mapping[str, Any], ceiling: Mapping[str, Any]) -> list[Finding]:
    share = 100 * ceiling["freed"] / 20_000_000
    return [
        Finding(
            "one pass at priority 12 over 20,000,000 objects",
            "scans freeable/2048, about 9.7 k, over the target: one pass",
            f"{one['scanned']:,} scanned in {one['passes']} pass",
            verdict(one["passes"] == 1 and 8_000 <= one["scanned"] <= 10_000),
            "scans come in whole batches of 1,024, so a little less than freeable/2048 = 9,765",
        ),
        Finding(
            "what a large cache loses per second under the 100 ms throttle",
            "ten runs of freeable/2048: 0.49 %",
            f"{ceiling['runs']} runs in one second of requests every 10 ms, {share:.2f} % freed",
            verdict(ceiling["runs"] == 10 and abs(share - 0.49) < 0.03),
            "each run scans whole batches, a little less than its share",
        ),
    ]


EXPERIMENT = Experiment(
    "shrink",
    "The arithmetic of slab shrink",
    "The worker of patch 30 runs on caches of known size: target 2,048 objects, first priority 12, "
    "throttle 100 ms, seeks 2, batch 1024 (superblocks) or 128 (the default). Published: what follows from "
    "do_shrink_slab of mm/shrinker.c and the posted worker.",
    run,
    judge,
)
