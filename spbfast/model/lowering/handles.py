"""Which slots of a Zone's one owner hold no block: a stack that grows with the pool of slots."""

from __future__ import annotations

import numpy as np


class FreeSlots:
    """A stack of free slots; the slot that was freed last is taken first."""

    def __init__(self, nr: int) -> None:
        self._stack = np.arange(nr)[::-1].copy()
        self.nr = nr

    def copy(self) -> FreeSlots:
        """A stack of the same slots."""
        other = FreeSlots(0)
        other._stack, other.nr = self._stack.copy(), self.nr
        return other

    def take(self, n: int) -> np.ndarray:
        """The `n` slots on top, the topmost first; there must be as many."""
        self.nr -= n
        return self._stack[self.nr : self.nr + n][::-1].copy()

    def give(self, slots: np.ndarray) -> None:
        """Put slots back, the last one on top."""
        self._stack[self.nr : self.nr + slots.size] = slots
        self.nr += slots.size

    def grow(self, old_size: int, size: int) -> None:
        """Add the slots old_size..size-1 of a larger pool, the lowest on top."""
        stack = np.empty(size, np.int64)
        stack[: self.nr] = self._stack[: self.nr]
        self._stack = stack
        self.give(np.arange(size - 1, old_size - 1, -1))
