"""Deferral of compaction after failures: each doubles the requests that pass before the next try, up to 64.

Owns the columns COMPACT_CONSIDERED, COMPACT_DEFER_SHIFT and COMPACT_ORDER_FAILED of `Node.now`. Source:
mm/compaction.c, compaction_deferred, defer_compaction, compaction_defer_reset, compaction_restarting.
"""

from __future__ import annotations

from spbfast.jit.decorators import kernel
from spbfast.model.state.node import Now

MAX_DEFER_SHIFT = 6  # COMPACT_MAX_DEFER_SHIFT


@kernel
def is_deferred(node, order):
    """Whether compaction failed lately for this order or a lower one; counts the request."""
    now = node.now
    if order < now[Now.COMPACT_ORDER_FAILED]:
        return False
    limit = 1 << now[Now.COMPACT_DEFER_SHIFT]
    now[Now.COMPACT_CONSIDERED] = min(now[Now.COMPACT_CONSIDERED] + 1, limit)
    return now[Now.COMPACT_CONSIDERED] < limit


@kernel
def defer_compaction(node, order):
    """Compaction failed: let twice as many requests pass before the next try."""
    now = node.now
    now[Now.COMPACT_CONSIDERED] = 0
    now[Now.COMPACT_DEFER_SHIFT] = min(now[Now.COMPACT_DEFER_SHIFT] + 1, MAX_DEFER_SHIFT)
    now[Now.COMPACT_ORDER_FAILED] = min(now[Now.COMPACT_ORDER_FAILED], order)


@kernel
def reset_deferral(node, order):
    """Compaction served a request: it works again for this order (compaction_defer_reset)."""
    now = node.now
    now[Now.COMPACT_CONSIDERED] = 0
    now[Now.COMPACT_DEFER_SHIFT] = 0
    now[Now.COMPACT_ORDER_FAILED] = max(now[Now.COMPACT_ORDER_FAILED], order + 1)


@kernel
def raise_order_failed(node, order):
    """A run made a block of an order: only higher orders count as failed from now on."""
    now = node.now
    now[Now.COMPACT_ORDER_FAILED] = max(now[Now.COMPACT_ORDER_FAILED], order + 1)


@kernel
def is_restarting(node, order):
    """Whether compaction is tried again after the longest deferral (compaction_restarting)."""
    now = node.now
    if order < now[Now.COMPACT_ORDER_FAILED]:
        return False
    shift = now[Now.COMPACT_DEFER_SHIFT]
    return shift == MAX_DEFER_SHIFT and now[Now.COMPACT_CONSIDERED] >= 1 << shift
