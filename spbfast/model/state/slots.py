"""What is in an owner's slot.

Owns the meaning of `slots.link`: the page index of the block plus one, 0 in an empty slot, -1 in one whose
page is in swap. Empty slots are
zero so that ranges which nobody fills never take memory: owners have more slots than they ever use, caches of
slabs three times as many in the flagship. Owners may have their range in common. Slots are numbered through
the whole pool.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spbfast.jit.decorators import inline_kernel
from spbfast.model.state.layout import Slots

EMPTY_SLOT = -1
# `slots.paged`: how an owner's blocks may split.
PAGED = 1  # it has a slot for every page
RING = 2  # a ring of folios: pages take slots at its young end
SWAPPED = -2  # in place of a block: the slot's page is in swap


@inline_kernel
def block_in(slots, i):
    """Page index of the block in slot i, EMPTY_SLOT or SWAPPED if there is none: both are negative."""
    return np.int64(slots.link[i]) - 1


@inline_kernel
def ring_slot(slots, owner, at):
    """Slot of a place that is counted from a ring's first slot, less than two rounds of it."""
    size = slots.size[owner]
    return at - size if at >= size else at


@inline_kernel
def put_block(slots, i, pfn):
    """Block `pfn` is in slot i from now on; EMPTY_SLOT empties it."""
    slots.link[i] = pfn + 1


def blocks_in(slots: Slots, at: Any = slice(None)) -> np.ndarray:
    """Page index of the block in each of some slots, EMPTY_SLOT or SWAPPED where there is none; int32
    [number of slots]."""
    return slots.link[at] - 1  # type: ignore[no-any-return]
