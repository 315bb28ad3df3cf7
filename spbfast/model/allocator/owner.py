"""Which CPU owns which pageblock, and which of those have fragments to take back.

The only writer of `pb.owner`, of the lists through `pb.next`/`pb.prev` and of `pcp.nr_owned`. A pageblock has
at most one owner. It loses it when it becomes wholly free on the free lists (buddy.py), when it is relabelled
or emptied by migration (resting.py `release_pageblock`). Never touches pages.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import NR_REQUEST_MT, C
from spbfast.jit.decorators import inline_kernel, kernel


@inline_kernel
def fragment_list(z, cpu, mt):
    """Link index of the head of a CPU's list of pageblocks labelled mt that have fragments to take back."""
    return z.geo.nr_pb + cpu * NR_REQUEST_MT + mt


@kernel
def set_owner(z, pb, cpu, mt):
    """A pageblock labelled mt, owned by nobody, becomes a CPU's."""
    z.pb.owner[pb] = cpu + 1
    z.pcp.nr_owned[cpu * NR_REQUEST_MT + mt] += 1
    z.count[C.PCP_OWNED_PAGEBLOCKS] += 1


@kernel
def forget_fragments(z, pb):
    """Take a pageblock off the list of those with fragments to take back, if it is on one."""
    after = np.int64(z.pb.next[pb])
    if after < 0:
        return
    before = np.int64(z.pb.prev[pb])
    z.pb.next[before] = after
    z.pb.prev[after] = before
    z.pb.next[pb] = -1
    z.pb.prev[pb] = -1


@kernel
def note_fragments(z, pb):
    """An owned pageblock has free pages on the free lists: its owner may take them back, oldest first."""
    if z.pb.next[pb] >= 0:
        return
    head = fragment_list(z, np.int64(z.pb.owner[pb]) - 1, np.int64(z.pb.label[pb]))
    last = np.int64(z.pb.prev[head])
    z.pb.next[pb] = head
    z.pb.prev[pb] = last
    z.pb.next[last] = pb
    z.pb.prev[head] = pb


@kernel
def drop_owner(z, pb):
    """An owned pageblock, still labelled as it was claimed, is nobody's any more."""
    forget_fragments(z, pb)
    cpu = np.int64(z.pb.owner[pb]) - 1
    z.pb.owner[pb] = 0
    z.pcp.nr_owned[cpu * NR_REQUEST_MT + z.pb.label[pb]] -= 1
    z.count[C.PCP_OWNED_PAGEBLOCKS] -= 1
