"""Free pages that no movable request may use, and what is left of the free pages without them.

Owns one reading of the watermarks under superpageblocks. The kernel subtracts from the free pages what a
request cannot use: the HIGHATOMIC reserve and CMA (__zone_watermark_unusable_free). Whether pages behind the
reserve of a tainted superpageblock belong to that the series does not say: `reclaim.barred_free` has both.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import LIST_TAINTED, MOVABLE, NR_BUCKETS, C, P
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.allocator.spb import rate_reserve
from spbfast.model.state.node import N


@kernel
def nr_barred(z, policy):
    """Free pages of tainted superpageblocks that are closed to movable requests: at or below their reserve.

    None where the reserve is soft, so that a movable request takes fragments there before it reclaims.
    """
    nr = np.int64(0)
    if z.geo.set_mask == 0 or policy[P.movable_reserve_soft]:
        return nr
    for spb in range(z.geo.nr_spb):
        lst = np.int64(z.spb.list[spb])
        if lst < LIST_TAINTED or lst >= LIST_TAINTED + NR_BUCKETS:
            continue
        reserve = rate_reserve(policy, np.int64(z.spb.total[spb]))
        if z.spb.nr_free_pb[spb] <= reserve or not policy[P.movable_into_tainted]:
            nr += np.int64(z.spb.nr_free_pages[spb])
    return nr


@inline_kernel
def rate_barred(w, policy, mt):
    """What a watermark subtracts from the free pages of a request for type mt; kswapd's type is movable."""
    if mt != MOVABLE or not w.node.conf[N.SUBTRACTS_BARRED]:
        return np.int64(0)
    return nr_barred(w.zone, policy)


@inline_kernel
def nr_free_for_kswapd(w, policy):
    """Free pages that count when kswapd compares them with its marks."""
    count = w.zone.count
    return count[C.FREE_PAGES] - count[C.FREE_HIGHATOMIC] - rate_barred(w, policy, np.int64(MOVABLE))
