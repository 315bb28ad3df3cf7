"""A jump told by a record: the steepest of the flagship study's runs, up to its worst moment.

Owns what is kept of it in results/studies/jump.json and the sentences that say it; `scripts/study --jump`
makes the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.flagship import CONFIG
from experiments.flagship_page import is_jump
from spbfast.config import load_config
from spbfast.constants import Mt
from spbfast.model import engine

KINDS = ("spb_pb_taint", "mm_page_alloc_extfrag", "spb_alloc_fall_through")
SAMPLE_SECONDS = 10  # of the study's own samples
RECORDS = 4_000_000
SET = 1  # `action` of a taint


def steepest(raw: Mapping[str, Mapping[str, Any]]) -> str:
    """The key of the jumping run under superpageblocks that rises most between two samples, or empty."""
    jumping = [key for key, run in raw.items() if "mainline" not in key and is_jump(run)]
    return max(jumping, key=lambda key: int(np.diff(raw[key]["tainted"]).max()), default="")


def record(raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Run the steepest jump again up to its worst sample, with records, and keep what tells it."""
    key = steepest(raw)
    if not key:
        return {}
    case, _, replicate = key.rpartition("|")
    rises = np.diff(raw[key]["tainted"])
    end = SAMPLE_SECONDS * (int(rises.argmax()) + 1)
    job = load_config(CONFIG, [*raw[key]["overrides"], f"duration={end}s", "output.every=1s"], one_point=True)
    result = engine.run_replicate(job.scenario, job.seed, int(replicate), records=KINDS, records_max=RECORDS)
    columns = {kind: found.columns for kind, found in result.records.items()}
    return {"case": case, "replicate": int(replicate), **told(result, columns)}


def told(result: engine.ReplicateResult, columns: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The millisecond in which most superpageblocks are tainted, who asked, and memory just before.

    Parameters
    ----------
    result : ReplicateResult
        Sampled once a second.
    columns : mapping
        Records by kind and column.
    """
    taint = columns["spb_pb_taint"]
    first = (taint["first_or_last"] == 1) & (taint["action"] == SET)
    ticks, counts = np.unique(np.round(taint["time"][first], 3), return_counts=True)
    moment = float(ticks[counts.argmax()])
    asked, through = (columns[kind] for kind in KINDS[1:])
    now, later = (np.round(rows["time"], 3) == moment for rows in (asked, through))
    kinds = Counter(
        zip(asked["alloc_order"][now].tolist(), asked["alloc_migratetype"][now].tolist(), strict=True)
    )
    sample = int(moment)
    series = _counters(result)
    moved = np.flatnonzero(np.diff(series["pgsteal_kswapd"][: sample + 1]))
    quiet_since = int(moved[-1]) + 1 if len(moved) else 0
    return {
        "moment": moment,
        "tainted": int(counts.max()),
        "before": int(result.data["spb_tainted"][sample]),
        "requests": [[order, Mt(mt).name.lower(), nr] for (order, mt), nr in kinds.most_common()],
        "with_block": int(through["n_tainted_with_buddy"][later].max(initial=0)),
        "free": int(result.data["nr_free_pages"][sample]),
        "stranded": int(result.data["free_pages_stranded_in_tainted"][sample]),
        "kswapd_quiet": sample - quiet_since,
        "direct": int(series["pgsteal_direct"][sample] - series["pgsteal_direct"][quiet_since]),
    }


def _counters(result: engine.ReplicateResult) -> dict[str, np.ndarray]:
    return dict(zip(result.coords["counter"].tolist(), result.data["vmstat"], strict=True))


def sentences(found: Mapping[str, Any]) -> list[str]:
    """A jump in words, made from its numbers."""
    if not found:
        return []
    requests = " and ".join(f"{nr} {mt} ones of order {order}" for order, mt, nr in found["requests"])
    served = "none of them" if not found["with_block"] else f"{found['with_block']} of them at most"
    clean = found["free"] - found["stranded"]
    return [
        f"**{found['case']}, replicate {found['replicate']}, recorded.** At {found['moment']:.3f} s "
        f"{found['tainted']} superpageblocks are tainted within one millisecond, by requests that fall "
        f"back: {requests}. Of {found['before']} tainted superpageblocks {served} had a free block of their "
        f"type. Just before, {found['free']:,} pages were free, {found['stranded']:,} of them in tainted "
        f"superpageblocks; all clean ones together had {clean:,}. So request after request found its page "
        f"in another clean superpageblock. kswapd had reclaimed nothing for {found['kswapd_quiet']} s, in "
        f"which requests reclaimed {found['direct']:,} pages themselves.",
        "",
    ]
