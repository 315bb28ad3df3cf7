"""What a run asks of its machine, as verbs of one compiled program.

LLVM optimises an entry kernel together with all that it calls. Booting, simulating and asking for 1 GiB pages
each hold the whole allocator: as entries of their own, each would have it compiled once more.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from spbfast.constants import Err
from spbfast.jit.decorators import entry_kernel, pick
from spbfast.model.loop.step import boot_page_cache, boot_steps, finish_run, run_steps
from spbfast.model.workers.gigantic import ask_for_contig


class Verb(IntEnum):
    """What to do, and what the numbers of `run_verb` mean for it."""

    BOOT_DEMAND = 0  # boot-time demand of steps a..b-1
    BOOT_PAGE_CACHE = 1  # up to a folios of page cache in one world, until b free pages are left
    SIMULATE = 2  # ticks up to b
    FINISH = 3  # what is due at the end, and the last sample
    ASK_FOR_CONTIG = 4  # 1 GiB pages for owner a in one world, b requests beyond those that are free


@entry_kernel
def run_verb(verb, worlds, policy, actors, rows, key, chances, samples, number, a, b):
    """Do one of `Verb`; `number` is the world's, for verbs that are for one. Returns (a count or an error
    code, whether there is nothing left to do)."""
    if verb == Verb.BOOT_DEMAND:
        return boot_steps(worlds, policy, actors, rows, key, a, b)
    if verb == Verb.BOOT_PAGE_CACHE:
        return Err.OK, boot_page_cache(pick(worlds, number), policy, key, chances, a, b)
    if verb == Verb.SIMULATE:
        return run_steps(worlds, policy, actors, rows, key, samples, b), True
    if verb == Verb.FINISH:
        finish_run(worlds, policy, samples)
        return Err.OK, True
    return ask_for_contig(pick(worlds, number), policy, a, np.int64(0), b), True
