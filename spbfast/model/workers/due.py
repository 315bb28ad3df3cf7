"""Running what is due: evacuation, slab shrink, defragmentation, compaction, kswapd, per-CPU decay.

Owns the order of work: by time, then by queue number. An item that took time does not start again before that
time is over; different items run side by side. What an item does and costs stands in its own file.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MOVABLE
from spbfast.jit.decorators import kernel
from spbfast.model.allocator.pcp import decay
from spbfast.model.allocator.rmqueue import begin_event
from spbfast.model.state.node import NEVER, N, Now, Wk
from spbfast.model.workers.claimed import run_claimed
from spbfast.model.workers.compact import run_kcompactd
from spbfast.model.workers.compact_within import run_within
from spbfast.model.workers.compact_zone import forget_skips_when_asleep
from spbfast.model.workers.defer import defer_requests
from spbfast.model.workers.defrag import run_defrag
from spbfast.model.workers.evacuate import run_evacuate
from spbfast.model.workers.gigantic import run_contig
from spbfast.model.workers.kswapd import run_kswapd
from spbfast.model.workers.shrink_run import run_shrink, run_shrink_end


@kernel
def run_pcp_decay(w, policy):
    """Let every CPU's lists decay, as the vmstat tick does."""
    z, node = w.zone, w.node
    begin_event(z, 0)
    for cpu in range(z.geo.nr_cpus):
        decay(z, policy, cpu)
    node.due[Wk.PCP_DECAY] = node.now[Now.NS] + node.conf[N.PCP_DECAY]
    defer_requests(w, policy, MOVABLE)


@kernel
def find_due(node, until_ns):
    """Work item that is due first, not after `until_ns`, or -1; ties by queue number."""
    item = -1
    for i in range(node.due.shape[0]):
        if node.due[i] <= until_ns and (item < 0 or node.due[i] < node.due[item]):
            item = i
    return item


@kernel
def run_later_item(w, policy, item):
    """The items that most runs never have."""
    if item == Wk.CLAIMED:
        run_claimed(w, policy)
        defer_requests(w, policy, MOVABLE)
    elif item == Wk.WITHIN:
        run_within(w, policy)
    elif item == Wk.KCOMPACTD:
        run_kcompactd(w, policy)
    else:
        run_contig(w, policy)


@kernel
def run_due_work(w, policy, until_ns):
    """Run all work due up to a time, in order; the clock follows."""
    node = w.node
    while True:
        item = find_due(node, until_ns)
        if item < 0:
            break
        node.now[Now.NS] = max(node.now[Now.NS], node.due[item])
        if item == Wk.SHRINK_END:
            run_shrink_end(w)
        elif item == Wk.EVACUATE:
            run_evacuate(w, policy)
        elif item == Wk.SHRINK:
            run_shrink(w, policy)
        elif item == Wk.DEFRAG:
            run_defrag(w, policy)
        elif item == Wk.KSWAPD:
            begin_event(w.zone, 0)
            run_kswapd(w, policy)
            if node.due[Wk.KSWAPD] == NEVER:
                forget_skips_when_asleep(w)
            defer_requests(w, policy, MOVABLE)
        elif item == Wk.PCP_DECAY:
            run_pcp_decay(w, policy)
        else:
            run_later_item(w, policy, item)
    node.now[Now.NS] = max(node.now[Now.NS], np.int64(until_ns))
