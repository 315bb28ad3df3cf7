"""A run that begins as a real machine: the start of its zone, with owners for the pages in use.

Owns which pages in use are page cache, on which ring and in which order, and which blocks are those of actors
that free what is in use at the start. All others belong to one owner that keeps them: they can be moved, and
nothing frees them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spbfast.config.realmachine import digest_of_files, job_zone
from spbfast.constants import PB_PAGES, Mt
from spbfast.errors import DumpError
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.build import first_usable
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca
from spbfast.observed.page_classes import ON_ACTIVE, ON_LRU, PageClass
from spbfast.recordings.drawn_start import Draws
from spbfast.recordings.real_start import (
    RealMachine,
    held_pages,
    place_start,
    put_start,
    read_machine_files,
)
from spbfast.recordings.start_blocks import UNKNOWN, blocks_of_actors, in_pageblocks

if TYPE_CHECKING:
    from spbfast.config.models import Scenario
    from spbfast.model.lowering.lower_machine import Lowered
    from spbfast.observed.real_zone import RealZone

CACHE_STREAM, BLOCKS_STREAM = 0xCAC4E, 0xB10C5
NOBODY = -1  # of pages that lie in the block of another one's slot


def begin_as_real(run: Lowered, scenario: Scenario, seed: int, replicate: int) -> None:
    """Put the machine of `machine.from` into an unbooted run, in place of booting its memory.

    Raises
    ------
    DumpError
        When the files are gone, or others than the job was loaded with.
    """
    paths = [Path(name) for name in scenario.machine.files]
    try:
        digest = digest_of_files(paths)
    except OSError as error:
        raise DumpError(error.filename or paths[0], 0, f"cannot be read: {error.strerror}") from None
    if digest != scenario.machine.digest:
        raise DumpError(paths[0], 0, "has changed since the job was loaded; load it again")
    machine = read_machine_files(paths, functools.partial(job_zone, named=scenario.machine.zone))
    zone, world = machine.zones[0], run.world
    z = world.zone
    first = (first_usable(z) - z.geo.lo) // PB_PAGES
    start = place_start(machine, zone, z.geo, run.bases[0], first, run.policy, seed, replicate)
    pages = held_pages(start)
    rest = len(z.slots.base) - 1
    owners = np.full(len(start.held), rest, np.int8)
    bytes_of = _page_bytes(machine, zone, len(start.held), run.bases[0])
    draws = Draws(key_of(seed, replicate, CACHE_STREAM))
    cached = _page_cache(zone, start.held, bytes_of, draws)
    drawn = Draws(key_of(seed, replicate, BLOCKS_STREAM))
    blocks = blocks_of_actors(run.starts, start.held, bytes_of, cached, drawn)
    for slots, heads in blocks:
        owners[(heads[:, None] + np.arange(1 << slots.order)).ravel()] = NOBODY
    cached = cached[owners[cached] == rest]
    if scenario.pagecache.start_order == "pageblocks":
        cached = in_pageblocks(cached)
    is_hot = (bytes_of[cached] & ON_ACTIVE) > 0
    rings = {OWNER_COLD: cached[~is_hot], OWNER_HOT: cached[is_hot]}
    for owner, ring in rings.items():
        rings[owner] = ring[: int(z.slots.size[owner])]
        owners[rings[owner]] = owner
    others = pages[owners[pages] == rest]
    nr_slots = np.zeros(len(z.slots.base), np.int64)
    put_start(z, start, run.policy, np.concatenate([*rings.values(), others]), owners, nr_slots, blocks)
    cache = world.node.cache
    for owner, ring in rings.items():
        cache[2 * owner + Ca.COLD_TAIL] = cache[Ca.COLD_PAGES + owner] = len(ring)


def _page_bytes(machine: RealMachine, zone: RealZone, nr_pages: int, base: int) -> np.ndarray:
    """Each page by its flags: uint8 [pages] as `page_bytes` makes them, `UNKNOWN` without flags."""
    out = np.full(nr_pages, UNKNOWN, np.uint8)
    captured = machine.captured.get((zone.node, zone.name))
    if captured is not None:
        first = captured.start_pfn - base
        out[first : first + captured.pages] = captured.pages_of
    return out


def _page_cache(zone: RealZone, held: np.ndarray, bytes_of: np.ndarray, draws: Draws) -> np.ndarray:
    """Pages of page cache, the one that reclaim takes first in front: by page flags, else as many as told."""
    movable = np.flatnonzero(held == Mt.MOVABLE)
    if (bytes_of == UNKNOWN).all():
        nr = min(zone.file_pages or 0, len(movable))
        return movable[draws.chosen(nr, len(movable))] if nr else movable[:0]
    found = movable[(bytes_of[movable] & ~np.uint8(ON_ACTIVE)) == (PageClass.PAGE_CACHE | ON_LRU)]
    return found[draws.shuffled(len(found))]
