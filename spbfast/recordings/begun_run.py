"""A run that begins as a real machine: the start of its zone, with owners for the pages in use.

Owns which pages in use are page cache, and in which order that was read. All others belong to one owner that
keeps them: they can be moved, and nothing frees them.
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
from spbfast.model.state.node import OWNER_COLD, Ca
from spbfast.observed.page_classes import ON_LRU, PageClass
from spbfast.recordings.drawn_start import Draws
from spbfast.recordings.real_start import (
    RealMachine,
    held_pages,
    place_start,
    put_start,
    read_machine_files,
)

if TYPE_CHECKING:
    from spbfast.config.models import Scenario
    from spbfast.model.lowering.lower_machine import Lowered
    from spbfast.observed.real_zone import RealZone

CACHE_STREAM = 0xCAC4E


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
    owners = np.full(len(start.held), len(z.slots.base) - 1, np.int8)
    draws = Draws(key_of(seed, replicate, CACHE_STREAM))
    cached = _page_cache(machine, zone, start.held, run.bases[0], draws)
    cached = cached[: int(z.slots.size[OWNER_COLD])]
    owners[cached] = OWNER_COLD
    others = pages[owners[pages] != OWNER_COLD]
    nr_slots = np.zeros(len(z.slots.base), np.int64)
    put_start(z, start, run.policy, np.concatenate([cached, others]), owners, nr_slots)
    cache = world.node.cache
    cache[2 * OWNER_COLD + Ca.COLD_TAIL] = cache[Ca.COLD_PAGES + OWNER_COLD] = len(cached)


def _page_cache(
    machine: RealMachine, zone: RealZone, held: np.ndarray, base: int, draws: Draws
) -> np.ndarray:
    """Pages of page cache, the one that reclaim takes first in front: by page flags, else as many as told."""
    captured = machine.captured.get((zone.node, zone.name))
    movable = np.flatnonzero(held == Mt.MOVABLE)
    if captured is None:
        nr = min(zone.file_pages or 0, len(movable))
        return movable[draws.chosen(nr, len(movable))] if nr else movable[:0]
    at = movable + base - captured.start_pfn
    inside = (at >= 0) & (at < captured.pages)
    is_cache = np.zeros(len(movable), bool)
    is_cache[inside] = captured.pages_of[at[inside]] == (PageClass.PAGE_CACHE | ON_LRU)
    found = movable[is_cache]
    return found[draws.shuffled(len(found))]
