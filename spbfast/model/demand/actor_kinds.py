"""The kinds of actors: the one table that leads from an actor's `kind` to its lowering and its kernels.

Owns the numbers of the kinds and the two branches that call their kernels. To add an actor, write its model
in config/actors.py and a file like population.py here, then name both below. Kinds that are asked every tick
stand first.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from spbfast.jit.decorators import kernel
from spbfast.model.demand.demand_plan import DemandBuilder
from spbfast.model.demand.extent_buffers import boot_extent_buffers, lower_extent_buffers, tick_extent_buffers
from spbfast.model.demand.file_metadata import (
    boot_inodes,
    lower_reclaimable_statics,
    lower_slab_growth,
    tick_walkers,
)
from spbfast.model.demand.gigantic_pages import lower_gigantic_pages, tick_gigantic_pages
from spbfast.model.demand.guests import lower_guests, tick_guest
from spbfast.model.demand.kernel_statics import boot_kernel_statics, lower_kernel_statics
from spbfast.model.demand.kvmalloc_buffers import lower_kvmalloc, tick_kvmalloc
from spbfast.model.demand.lifetime_mixture import lower_allocations, tick_mixture
from spbfast.model.demand.page_cache_load import lower_page_cache, tick_page_cache
from spbfast.model.demand.population import lower_churn, lower_network, tick_population
from spbfast.model.demand.regions import boot_regions, lower_daemons, tick_regions
from spbfast.model.primitives.draws import derive_key
from spbfast.model.state.demand_layout import Ap


class ActorKind(enum.IntEnum):
    """What an entry does."""

    STATICS = 0  # boot: blocks of several orders that stay
    SLAB_STATICS = 1  # boot: inodes
    REGIONS = 2  # boot: 2 MiB regions; then some are freed and touched again
    GUEST = 3  # a virtual machine's life
    CACHE = 4  # folios enter the page cache
    SLAB = 5  # inodes come and go
    POPULATION = 6  # a fixed number of slots, each replaced at random
    NODES = 7  # groups of pages: a growing number, some replaced
    GIGANTIC = 8  # whole superpageblocks, asked for and given back by the clock
    BUFFERS = 9  # a fixed number of kvmalloc buffers, each replaced at random
    MIXTURE = 10  # slots hit at random, by blocks that come and by frees


# By `kind` of the configuration: what its entries are, and what makes them.
LOWERINGS: dict[str, tuple[ActorKind, Callable[[DemandBuilder, Any], None]]] = {
    "kernel_statics": (ActorKind.STATICS, lower_kernel_statics),
    "reclaimable_statics": (ActorKind.SLAB_STATICS, lower_reclaimable_statics),
    "daemons": (ActorKind.REGIONS, lower_daemons),
    "guests": (ActorKind.GUEST, lower_guests),
    "page_cache": (ActorKind.CACHE, lower_page_cache),
    "slab_growth": (ActorKind.SLAB, lower_slab_growth),
    "network": (ActorKind.POPULATION, lower_network),
    "churn": (ActorKind.POPULATION, lower_churn),
    "extent_buffers": (ActorKind.NODES, lower_extent_buffers),
    "gigantic_pages": (ActorKind.GIGANTIC, lower_gigantic_pages),
    "kvmalloc": (ActorKind.BUFFERS, lower_kvmalloc),
    "allocations": (ActorKind.MIXTURE, lower_allocations),
}


@kernel
def tick_entry(actors, a, key, tick, rows, n):
    """Rows of entry `a` in one tick, from row n on; the row after them."""
    kind, p, s = actors.kind[a], actors.param[a], actors.state[a]
    stream = derive_key(key, p[Ap.STREAM])
    if kind == ActorKind.POPULATION:
        return tick_population(p, s, stream, tick, rows, n)
    if kind == ActorKind.GUEST:
        return tick_guest(p, s, key, stream, tick, rows, n)
    if kind == ActorKind.CACHE:
        return tick_page_cache(p, s, actors.table, stream, tick, rows, n)
    if kind == ActorKind.SLAB:
        return tick_walkers(p, s, actors.table, stream, tick, rows, n)
    if kind == ActorKind.NODES:
        return tick_extent_buffers(p, s, stream, tick, rows, n)
    if kind == ActorKind.REGIONS:
        return tick_regions(p, s, stream, tick, rows, n)
    if kind == ActorKind.GIGANTIC:
        return tick_gigantic_pages(p, tick, rows, n)
    if kind == ActorKind.BUFFERS:
        return tick_kvmalloc(p, s, stream, tick, rows, n)
    if kind == ActorKind.MIXTURE:
        return tick_mixture(p, stream, tick, rows, n)
    return n


@kernel
def boot_entry(actors, a, key, step, rows, n):
    """Rows of entry `a` in one boot step, from row n on; the row after them, n when it has all it wants."""
    kind, p, s = actors.kind[a], actors.param[a], actors.state[a]
    stream = derive_key(key, p[Ap.STREAM])
    if kind == ActorKind.STATICS:
        return boot_kernel_statics(p, s, actors.table, stream, step, rows, n)
    if kind == ActorKind.SLAB_STATICS:
        return boot_inodes(p, s, actors.table, stream, step, rows, n)
    if kind == ActorKind.REGIONS:
        return boot_regions(p, s, stream, rows, n)
    if kind == ActorKind.NODES:
        return boot_extent_buffers(p, s, rows, n)
    return n
