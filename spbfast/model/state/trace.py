"""Event records and tallies of the allocator: what happened, kept on request.

Owns the kinds of records (tracepoints), the bounded buffers they are written to, and the tally of causes
that counters are made of. allocator/record.py writes both; outputs/tracepoints.py gives records names and
units.
A kind that is off has no buffer and costs one test of `head[ON]` where it would be written.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from spbfast.constants import NR_REQUEST_MT, Mt, Tp
from spbfast.jit.decorators import by_reference

NR_TP = len(Tp)
ALL_TP = (1 << NR_TP) - 1


class Th(enum.IntEnum):
    """Index into `Trace.head`."""

    ON = 0  # bit set of the kinds that are kept
    SEQ = 1  # number of the next record of any kind: the order across kinds
    WALK_EVENT = 2  # event and steps of the walk recorded last: a refill's walks add up in one event
    WALK_VISITED = 3


NR_TH = len(Th)
NR_TRACE_FIELDS = 11  # time (ns), number, zone, then up to eight fields


class Refused(enum.IntEnum):
    """Why try_to_claim_block refused a pageblock."""

    ISOLATE = 0
    CMA = 1
    ZONE_BOUNDARY = 2
    CROSS_TYPE_NOT_FREE = 3
    INSUFFICIENT_COMPAT = 4


class Relax(enum.IntEnum):
    """Steps by which a caller that cannot block relaxes its request."""

    NORETRY_SKIP = 0
    ADD_TAINTED_OK = 1
    DROP_NOFRAGMENT = 2
    NOWARN_LOWER_ORDER = 3


class Cause(enum.IntEnum):
    """What changes memory: `Ev.CAUSE`. FREE is an owner's own request or free."""

    FREE = 0
    PCP_DRAIN = 1
    PCP_RECYCLE = 2  # a page on a per-CPU list goes to a request of another type
    SLAB_FREE = 3
    RECLAIM = 4
    EVACUATION = 5
    DEFRAG = 6
    COMPACTION = 7
    CONTIG = 8


_REQUESTED = tuple(mt.name.lower() for mt in Mt)[:NR_REQUEST_MT]
_PAIRS = tuple((mt, other) for mt in range(NR_REQUEST_MT) for other in range(NR_REQUEST_MT))
# Rows: requested type, columns: type of the list. The diagonal stays 0: own lists are not fallbacks.
STEAL_NAMES = tuple(f"pageblock_steal_{_REQUESTED[a]}_from_{_REQUESTED[b]}" for a, b in _PAIRS)
POLLUTE_NAMES = tuple(f"pageblock_pollute_{_REQUESTED[a]}_from_{_REQUESTED[b]}" for a, b in _PAIRS)
UNTAINT_NAMES = tuple(f"untaints_{cause.name.lower()}" for cause in Cause)
REFUSED_NAMES = tuple(f"spb_claim_refused_{reason.name.lower()}" for reason in Refused)
OTHER_NAMES = ("taints_pcp_recycle", "taints_boot", "spb_alloc_fell_through")

TALLY_NAMES = STEAL_NAMES + POLLUTE_NAMES + UNTAINT_NAMES + REFUSED_NAMES + OTHER_NAMES
NR_TALLY = len(TALLY_NAMES)
TALLY_STEAL = 0
TALLY_POLLUTE = len(STEAL_NAMES)
TALLY_UNTAINT = TALLY_POLLUTE + len(POLLUTE_NAMES)
TALLY_REFUSED = TALLY_UNTAINT + len(UNTAINT_NAMES)
TALLY_TAINT_RECYCLE = TALLY_REFUSED + len(REFUSED_NAMES)
TALLY_TAINT_BOOT = TALLY_TAINT_RECYCLE + 1
TALLY_FELL_THROUGH = TALLY_TAINT_RECYCLE + 2


@by_reference(inner={"rows": (None, NR_TRACE_FIELDS)})
class Trace(NamedTuple):
    """Buffers of records. `clock[0]` is the simulated time in ns, on the node's own clock."""

    head: np.ndarray  # int64 (Th,)
    nr: np.ndarray  # int64 (Tp,): records met, kept or not
    where: np.ndarray  # int64 (Tp,): which buffer a kind has
    rows: np.ndarray  # int64 (buffers, most, fields)
    clock: np.ndarray  # int64
    zone: np.ndarray  # int64 (1,): number of the zone; all zones of a machine share the other arrays


def nr_kinds(mask: int) -> int:
    """Kinds in a bit set."""
    return (mask & ALL_TP).bit_count()


def start_records(trace: Trace, mask: int) -> None:
    """Keep records of the kinds in `mask`, which have buffers, from now on."""
    at = 0
    for kind in Tp:
        if mask >> kind & 1:
            trace.where[kind] = at
            at += 1
    if at > trace.rows.shape[0]:
        raise ValueError(f"{at} kinds of records need as many buffers, there are {trace.rows.shape[0]}")
    trace.head[Th.ON] = mask
