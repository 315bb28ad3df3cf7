"""State machines at length: `python -m tests.long_machine [STEPS] [PROCESSES]` runs so many steps.

A step is one operation made by the compiled zone and by its slow twin, after which their states are
compared and `check_zone` runs. Geometry, policy and operations are drawn anew for every 80 steps; three of
four examples go to the superpageblock zone, the others to zones whose CPUs own pageblocks. Seeds are
1, 2, 3, .., so a run can be repeated; a difference ends it with hypothesis' shortest example.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.test_owned import OwnedMachine
from tests.test_statemachine import QUICK, ZoneMachine

EXAMPLES = 25  # of one seed
STEPS = 80  # of one example


def counted(machine: type, counts: list[int]) -> type:
    """The machine, which counts its steps."""

    class Counted(machine):
        def check_invariants(self, *args, **kwargs) -> None:
            counts[0] += 1
            super().check_invariants(*args, **kwargs)

    Counted.__name__ = machine.__name__
    return Counted


def run_seed(number: int) -> int:
    """All examples of one seed; steps made."""
    counts = [0]
    machine = counted(OwnedMachine if number % 4 == 0 else ZoneMachine, counts)
    much = settings(QUICK, max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=False)
    run_state_machine_as_test(seed(number)(machine), settings=much)
    return counts[0]


def main(steps: int = 1_000_000, processes: int = 2) -> None:
    """Run seeds until there were enough steps."""
    start = time.perf_counter()
    done = number = told = 0
    with ProcessPoolExecutor(processes) as pool:
        running = set()
        while done < steps:
            while len(running) < 2 * processes:
                number += 1
                running.add(pool.submit(run_seed, number))
            future = next(as_completed(running))
            running.remove(future)
            done += future.result()
            if done - told >= 20_000:
                told = done
                print(f"{done} steps, {time.perf_counter() - start:.0f} s, no difference", flush=True)
        for future in running:
            done += future.result()
    print(f"{done} steps of {number} seeds, {time.perf_counter() - start:.0f} s: no difference")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
