"""Where a replay differs from its file, in words: one line for each kind of array.

Owns the search for the first difference and the text that names its place. Knows neither files nor kernels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

STATISTICS = {
    "ck_stat": ("free pages", "free pages of order >= 9", "free CMA pages", "extfrag records"),
    "ck_pcp_stat": ("count", "high", "alloc_factor", "free_count", "flags"),
}


def array_difference(
    name: str, dims: tuple[str, ...], expected: np.ndarray, found: np.ndarray
) -> Iterator[str]:
    """The first element in which two arrays differ, with its indices by name; nothing if they are equal."""
    if expected.shape != found.shape:
        if expected.ndim != 1 or found.ndim != 1:
            yield f"{name}: expected shape {expected.shape}, found {found.shape}"
            return
        shared = min(expected.size, found.size)
        if np.array_equal(expected[:shared], found[:shared]):
            yield f"{name}: expected {expected.size} elements, found {found.size}"
            return
        expected, found = expected[:shared], found[:shared]
    wrong = np.argwhere(expected != found)
    if not wrong.size:
        return
    at = tuple(int(i) for i in wrong[0])
    place = ", ".join(f"{dim} {i}" for dim, i in zip(dims, at, strict=True))
    if name in STATISTICS:
        place = STATISTICS[name][at[0]]
    yield f"{name}, {place}: expected {int(expected[at])}, found {int(found[at])} ({len(wrong)} differ)"


def row_difference(
    name: str, columns: tuple[str, ...], expected: np.ndarray, found: np.ndarray
) -> Iterator[str]:
    """The first row in which two tables [row, column] differ, with all its columns; or their lengths."""
    shared = min(len(expected), len(found))
    wrong = np.flatnonzero((expected[:shared] != found[:shared]).any(axis=1))
    if wrong.size:
        row = int(wrong[0])
        pairs = zip(columns, expected[row].tolist(), found[row].tolist(), strict=True)
        text = ", ".join(f"{c} {e}" if e == f else f"{c} expected {e} found {f}" for c, e, f in pairs)
        yield f"{name} {row}: {text}"
    elif len(expected) != len(found):
        more = " or more" if len(found) > len(expected) else ""
        yield f"{name}: expected {len(expected)} rows, found {len(found)}{more}"
