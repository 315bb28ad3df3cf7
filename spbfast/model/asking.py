"""What requests for 1 GiB pages would get: asked of the machine at its end, or on the way.

Owns how many requests there are and where their answers go. A machine that goes on is put back: its state is
copied, asked, and written back. A machine of copied arrays would not do: kernels are compiled for the strides
that the builder chose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import NS_PER_TICK
from spbfast.model.lowering.lower_machine import Lowered
from spbfast.model.program import contig_obtained
from spbfast.model.saved import state_arrays
from spbfast.model.state.node import Now
from spbfast.model.state.sample_layout import Got1g, Samples
from spbfast.model.state.trace import Th
from spbfast.model.state.vmstat import V

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

MORE_ASKED = 4  # requests on each node beyond the 1 GiB pages that are free


def ask_machine(run: Lowered, nodes: int) -> int:
    """1 GiB pages that requests get now; the machine is used up by asking."""
    obtained = 0
    for number, world in enumerate(run.worlds[:nodes]):
        size = world.zone.slots.size
        if size.any():
            obtained += contig_obtained(run, number, int(size.argmax()), MORE_ASKED)
    return obtained


def ask_and_undo(run: Lowered, samples: tuple[Samples, ...], nodes: int) -> None:
    """Ask the machine, write the answer to the sample taken last, and put everything else back."""
    row = int(run.world.node.now[Now.NR_SAMPLES]) - 1
    arrays = [*state_arrays(run, (), 0, snapshots=False).values(), *_record_heads(run)]
    kept = [array.copy() for array in arrays]
    for head in _record_heads(run):
        head[Th.ON] = 0
    before = _migrated(run)
    obtained = ask_machine(run, nodes)
    moved = _migrated(run) - before
    for array, was in zip(arrays, kept, strict=True):
        array[...] = was
    samples[0].asked[row, Got1g.OBTAINED] = obtained
    samples[0].asked[row, Got1g.MOVED] = moved


def _record_heads(run: Lowered) -> list[np.ndarray]:
    return [world.zone.trace.head for world in run.worlds]


def _migrated(run: Lowered) -> int:
    return sum(int(world.node.vm[V.CONTIG_PAGES_MIGRATED]) for world in run.worlds)


def asking_moments(
    run: Lowered, samples: tuple[Samples, ...], scenario: Scenario
) -> list[tuple[int, Callable[[], object]]]:
    """Ticks at which the machine is asked, just after the sample of that time, and what asks it."""
    every = scenario.ask_1g_every
    if every is None:
        return []
    begin = int(run.world.node.now[Now.TICK])
    ticks = (moment // NS_PER_TICK + 1 for moment in range(0, scenario.duration, every))

    def ask() -> None:
        ask_and_undo(run, samples, scenario.machine.nodes)

    return [(tick, ask) for tick in ticks if tick > begin]


def asked_over_time(samples: tuple[Samples, ...], keep: np.ndarray) -> dict[str, np.ndarray]:
    """The answers as named arrays over time, NaN where nothing was asked.

    Parameters
    ----------
    keep : ndarray of bool
        Which of the samples taken count.
    """
    found = samples[0].asked[: len(keep)][keep]
    return {
        "contig_1g_asked": found[:, Got1g.OBTAINED].copy(),
        "contig_1g_asked_moved": found[:, Got1g.MOVED].copy(),
    }
