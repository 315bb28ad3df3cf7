"""A Zone's state as plain arrays and back: what copying and pickling need.

A state is not copied array by array: some share memory (a page's record and its halves), and
kernels are compiled for that. A zone of the same shape is built, and the contents are copied into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from spbfast.model.state.build import ZoneSpec, build_zone
from spbfast.model.state.layout import ZoneState


def arrays_of(part: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every array of a state with its name."""
    if isinstance(part, np.ndarray):
        yield path, part
    for name in getattr(part, "_fields", ()):
        yield from arrays_of(getattr(part, name), f"{path}.{name}" if path else name)


def packed_state(state: ZoneState) -> dict[str, np.ndarray]:
    """The contents of a state, in arrays of their own."""
    return {path: array.copy() for path, array in arrays_of(state)}


def unpacked_state(spec: ZoneSpec, contents: dict[str, np.ndarray]) -> ZoneState:
    """A state of that shape with those contents."""
    state = with_slots(build_zone(spec)[0], contents["slots.link"].size)
    for path, array in arrays_of(state):
        array[...] = contents[path]
    return state


def with_slots(state: ZoneState, nr: int) -> ZoneState:
    """The state with a pool of at least so many slots, which holds what the old one did."""
    old = state.slots
    if nr <= old.link.size:
        return state
    link = np.zeros(nr, np.int32)
    link[: old.link.size] = old.link
    return state._replace(slots=old._replace(link=link, size=np.array([nr])))
