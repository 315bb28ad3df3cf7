"""One zone with all that belongs to it: what kernels above the allocator are handed as one.

Owns nothing but the grouping. A machine is a tuple of worlds, the zones Normal of its nodes first, then
DMA32.
"""

from __future__ import annotations

from typing import NamedTuple

from spbfast.jit.decorators import by_reference
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.node import Node
from spbfast.model.state.shrink_layout import Shrink
from spbfast.model.state.slab_layout import Slab
from spbfast.model.state.standin_layout import Standins


@by_reference()
class World(NamedTuple):
    """A zone, its node's clock and workers, and the slab caches and shrinkers that live in it."""

    zone: ZoneState
    node: Node
    slab: Slab
    standins: Standins
    shrink: Shrink
