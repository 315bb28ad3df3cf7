"""Where a freed page was until the buddy lists handed it out again.

Owns one pass over recorded events that remembers, for each page, the free that nobody has accounted for yet.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import entry_kernel

G_FREED, G_GONE, G_TAKEN = 1, 2, 3  # freed by its owner; left a per-CPU list; handed out by the buddy lists


@entry_kernel
def find_past_lists(pending, rows, first, out):
    """Find frees after which the buddy lists had the page without a word.

    Parameters
    ----------
    pending : ndarray
        int64 [pages], number of the free that may rest on a per-CPU list, -1 for none; kept between calls.
    rows : ndarray
        int64 [n, 3]: G_*, page, order.
    first : int
        Number of the first row.
    out : ndarray
        int64 [n], filled with numbers of rows of this or earlier calls.

    Returns
    -------
    int
        How many were found.
    """
    nr = 0
    for i in range(rows.shape[0]):
        code, page, order = rows[i, 0], rows[i, 1], rows[i, 2]
        if code == G_FREED:
            pending[page] = first + i
            continue
        for p in range(page, page + (1 << order)):
            if pending[p] >= 0 and code == G_TAKEN and nr < out.shape[0]:
                out[nr] = pending[p]
                nr += 1
            pending[p] = np.int64(-1)
    return nr
