"""One zone with all that belongs to it: what kernels above the allocator are handed as one.

Owns nothing but the grouping. A machine is a tuple of worlds, the zones Normal of its nodes first, then
DMA32. Kernels are compiled for one world and for many, not once more for every number of them.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from spbfast.jit.decorators import by_reference, inline_kernel, pick
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


MOST_WORLDS = 5  # the zones Normal of four nodes, and DMA32
Item = TypeVar("Item")


def padded(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """One item per world as kernels take them: a single one, or MOST_WORLDS, the first one repeated.

    The length of a tuple is part of what a kernel is compiled for, and compiling takes most of a minute.
    """
    return items if len(items) == 1 else items + items[:1] * (MOST_WORLDS - len(items))


@inline_kernel
def nr_worlds(worlds):  # type: ignore[no-untyped-def]
    """How many of the worlds are zones of the machine: every zonelist names them all."""
    if len(worlds) == 1:
        return 1
    return pick(worlds, 0).node.zonelist.shape[0]
