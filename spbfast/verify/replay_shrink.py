"""Shrink traces: replay a file on the compiled shrinkers, compare everything that it records.

Owns the step from a trace's set-up to stand-in caches, and the comparison of results, runs, calls and final
state. golden.py reads files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import DEF_PRIORITY, NS_PER_TICK, PB_PAGES
from spbfast.jit.decorators import entry_kernel
from spbfast.model.holders.standins import change_standin
from spbfast.model.state.shrink_layout import CALL_COLUMNS, KIND_STANDIN, RUN_COLUMNS, Shrink, T, make_shrink
from spbfast.model.state.slab_layout import no_slab
from spbfast.model.state.standin_layout import SCAN_SECOND_CHANCE, Standins, make_standins
from spbfast.model.workers.shrink import begin_shrink, end_shrink, queue_shrink
from spbfast.verify.differences import array_difference, row_difference

if TYPE_CHECKING:
    from spbfast.verify.golden import Golden

OP_QUEUE, OP_BEGIN, OP_END, OP_OBJS = range(4)
EVENT_COLUMNS = ("op", "time", "node", "shr", "memcg", "count", "ref_num", "ref_den")
END_DIMS = ("shrinker", "memcg", "node")
TARGET_OBJS = PB_PAGES * 4  # SPB_SLAB_SHRINK_TARGET_OBJS


@entry_kernel
def run_shrink_events(s, slab, st, events, results, throttle_ns):  # type: ignore[no-untyped-def]
    """Execute all events; results per event as the trace defines them."""
    for row in range(events.shape[0]):
        op, time, node = events[row, 0], events[row, 1], events[row, 2]
        shr, memcg = events[row, 3], events[row, 4]
        if op == OP_QUEUE:
            results[row] = queue_shrink(s, node, time * NS_PER_TICK, throttle_ns)
        elif op == OP_BEGIN:
            results[row] = begin_shrink(s, slab, st, node, TARGET_OBJS, DEF_PRIORITY, row)
        elif op == OP_END:
            results[row] = end_shrink(s, node)
        else:
            cache = (memcg * s.table.shape[0] + shr) * s.work.shape[0] + node
            count, num, den = events[row, 5], events[row, 6], events[row, 7]
            if change_standin(st, shr, cache, count, num, den) and memcg > 0 and s.table[shr, T.AWARE] != 0:
                s.present[cache] = 1
            results[row] = -1


def _make_state(golden: Golden) -> tuple[Shrink, Standins]:
    nr_shrinkers, nr_memcgs, nr_nodes = (int(golden.meta[k]) for k in ("n_shrinkers", "n_memcgs", "n_nodes"))
    kind = np.full(nr_shrinkers, KIND_STANDIN)
    columns = [golden[f"s_{k}"] for k in ("aware", "numa", "batch", "seeks")]
    shrink = make_shrink(
        np.stack([*columns, kind], axis=1),
        golden["memcg_online"],
        golden["has_wq"],
        nr_runs=len(golden["run_event"]) + 1,
        nr_calls=len(golden["call_run"]) + 1,
    )
    rule = np.stack([golden[f"s_{k}"] for k in ("num", "den", "pct", "crule", "srule")], axis=1)
    queued = golden["s_srule"] == SCAN_SECOND_CHANCE
    per_cache = np.tile(np.repeat(queued, nr_nodes), nr_memcgs)
    added = np.maximum(golden["count"], 0) * queued[np.maximum(golden["shr"], 0)]
    return shrink, make_standins(rule, per_cache.size, per_cache, int(added.sum()))


def replay_shrink(golden: Golden) -> list[str]:
    """Replay a shrink trace and compare all that it records.

    Returns
    -------
    list of str
        The first difference of each kind (result, run row, call row, final objects, backlogs, present
        bits); empty when the replay is identical.
    """
    shrink, standins = _make_state(golden)
    events = np.stack([golden[c] for c in EVENT_COLUMNS], axis=1)
    results = np.full(len(events), -2, np.int64)
    run_shrink_events(
        shrink, no_slab(), standins, events, results, int(golden.meta["throttle_ms"]) * NS_PER_TICK
    )
    found = []
    wrong = np.flatnonzero(results != golden["result"])
    if wrong.size:
        row = int(wrong[0])
        event = ", ".join(f"{c} {v}" for c, v in zip(EVENT_COLUMNS, events[row], strict=True))
        found.append(f"event {row} ({event}): expected result {golden['result'][row]}, found {results[row]}")
    for kind, columns, rows in (
        ("run", RUN_COLUMNS, shrink.runs[: shrink.run[6]]),
        ("call", CALL_COLUMNS, shrink.calls[: shrink.run[7]]),
    ):
        expected = np.stack([golden[f"{kind}_{c}"] for c in columns], axis=1)
        found += row_difference(kind, columns, expected, rows)
    nr_shrinkers, nr_memcgs, nr_nodes = golden["end_objects"].shape
    ends = {"objects": standins.objects, "backlog": shrink.backlog, "bit": shrink.present}
    for name, array in ends.items():
        by_memcg = array.reshape(nr_memcgs, nr_shrinkers, nr_nodes).transpose(1, 0, 2)
        found += array_difference(f"end_{name}", END_DIMS, golden[f"end_{name}"], by_memcg)
    return found
