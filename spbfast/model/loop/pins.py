"""Which memory is pinned as it is handed out: a drawn share of all, or an actor's own clusters.

Owns the draws. Both are part of the demand, the same under every policy.
"""

from __future__ import annotations

from spbfast.constants import MOVABLE
from spbfast.jit.decorators import inline_kernel, kernel
from spbfast.model.primitives.draws import chance, draw
from spbfast.model.state.node import N, Now, Pi
from spbfast.model.state.page_state import CODE_PINNED

CLUSTER_STREAM = 2  # of the key of pins: draws of clusters, apart from those of blocks
CLUSTER_BITS = 32


@kernel
def is_in_pinned_cluster(node, owner, slot, nr):
    """Whether a pinned cluster has any of the owner's slots from `slot` on.

    Which clusters are pinned is a matter of owner and place alone: they stay so when memory is given back and
    touched again, and under every policy.
    """
    shift = node.pins[owner, Pi.SHIFT]
    for cluster in range(slot >> shift, ((slot + nr - 1) >> shift) + 1):
        x = draw(node.conf[N.PIN_KEY] + CLUSTER_STREAM, (owner << CLUSTER_BITS) + cluster)
        if chance(x, node.pins[owner, Pi.SHARE_32]):
            return True
    return False


@inline_kernel
def has_own_pins(node, owner):
    """Whether an owner's actor says itself what of its memory is pinned."""
    return node.pins.shape[0] > 0 and node.pins[owner, Pi.SHARE_32] >= 0


@inline_kernel
def may_be_pinned(node, mt, owner):
    """Whether any memory that an owner asks for as mt is ever pinned."""
    return mt == MOVABLE and (has_own_pins(node, owner) or node.conf[N.PINNED_32] != 0)


@inline_kernel
def draw_code(node, mt, owner, slot, nr):
    """Code of a block asked for as mt, into nr slots of an owner from `slot` on: pinned or not.

    A drawn share of movable memory is pinned, unless the owner's actor has long-term pins of its own. The
    draw is consumed whether or not the request succeeds: pins are part of the demand.
    """
    if not may_be_pinned(node, mt, owner):
        return mt
    if has_own_pins(node, owner):
        return CODE_PINNED if is_in_pinned_cluster(node, owner, slot, nr) else mt
    node.now[Now.PIN_COUNTER] += 1
    pinned = chance(draw(node.conf[N.PIN_KEY], node.now[Now.PIN_COUNTER]), node.conf[N.PINNED_32])
    return CODE_PINNED if pinned else mt
