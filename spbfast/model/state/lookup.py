"""Whether a caller may free the block at a page, and if not, why.

Owns the wording of the answer. Reads page states only; a page index counts from the zone's aligned base.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import MAX_ORDER
from spbfast.errors import ZoneError
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.page_state import (
    CODE_CONTIG,
    CODE_OWNED,
    CODE_PCP,
    CODE_SHIFT,
    ORDER_NIBBLE,
    states_of,
)


def must_be_held(z: ZoneState, base: int, index: np.ndarray) -> None:
    """Raise ZoneError for the first page index that no held block begins at, or that is named twice.

    `base` is the absolute pfn of page index 0; `index` is int64, one-dimensional.
    """
    geo = z.geo
    outside = (index < geo.lo) | (index >= geo.hi)
    if outside.any():
        pfn = int(index[np.argmax(outside)]) + base
        raise ZoneError(f"pfn {pfn:#x} is outside the zone, {geo.lo + base:#x}..{geo.hi - 1 + base:#x}")
    state = states_of(z.page, index)
    code = state >> CODE_SHIFT
    inside_grab = (code == CODE_CONTIG) & (index & ((1 << geo.spb_shift) - 1) != 0)
    wrong = (state < 0) | (state & ORDER_NIBBLE > MAX_ORDER) | (code >= CODE_OWNED) | inside_grab
    if wrong.any():
        raise ZoneError(describe_not_held(z, base, int(index[np.argmax(wrong)])))
    _, firsts = np.unique(index, return_index=True)
    if firsts.size < index.size:
        again = np.ones(index.size, bool)
        again[firsts] = False
        raise ZoneError(f"pfn {int(index[np.argmax(again)]) + base:#x} is named twice")


def describe_not_held(z: ZoneState, base: int, index: int) -> str:
    """Why no held block begins at a page of the zone."""
    pfn = f"pfn {index + base:#x}"
    for order in range(MAX_ORDER + 1):
        head = index & -(1 << order)
        state = int(states_of(z.page, [head])[0])
        on_cpu = state >> CODE_SHIFT in (CODE_OWNED, CODE_PCP) and state & ORDER_NIBBLE != ORDER_NIBBLE
        if on_cpu or not order <= state & ORDER_NIBBLE <= MAX_ORDER:
            if on_cpu and head == index:
                return f"{pfn} is free, on a per-CPU list (freed twice?)"
            continue
        if state < 0:
            return f"{pfn} is free (freed twice?)"
        if state >> CODE_SHIFT == CODE_CONTIG:
            first = (index >> z.geo.spb_shift << z.geo.spb_shift) + base
            return f"{pfn} is inside a contiguous allocation; free its first page, {first:#x}"
        return f"{pfn} does not begin a block; {head + base:#x} does"
    return f"{pfn} does not begin a block (freed twice?)"
