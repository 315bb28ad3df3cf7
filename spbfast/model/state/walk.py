"""Read-only walks over circular lists, for comparison, inspection and hashing.

Owns no state and writes none: pages, lengths and fingerprints of lists go to arrays of the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import (
    LIST_EMPTY,
    LIST_ISOLATED,
    LIST_TAINTED,
    NR_MT,
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_STRANDS,
    SpbCategory,
)
from spbfast.jit.decorators import entry_kernel

if TYPE_CHECKING:
    from spbfast.model.state.layout import ZoneState
from spbfast.model.state.page_state import next_of

_LOW = 0xFFFFFFFF
_FNV_PRIME_LOW = 0x1B3  # the prime is 2**40 + 0x1b3
_FNV_START_HIGH = 0xCBF29CE4
_FNV_START_LOW = 0x84222325


@entry_kernel
def walk_lists(page, head0, first, known, lo, cursors, lengths, high, low, pfns):
    """Walk len(lengths) lists whose strands' heads follow each other from link `head0`, head to tail.

    A list has len(cursors) strands, one if it is an ordinary one, begins on strand `first` and has `known`
    blocks (pcplist.py); -1: it is circular and ends at its head.
    Pages relative to `lo` go to `pfns`, list after list, as far as it has room; the FNV-1a hash of each
    list goes to (`high`, `low`), its two 32-bit halves: 64-bit products would differ interpreted.
    """
    nr = 0
    nr_strands = cursors.shape[0]
    for i in range(lengths.shape[0]):
        head = head0 + i * nr_strands
        for s in range(nr_strands):
            cursors[s] = next_of(page, head + s)
        s = np.int64(first[i])
        a = _FNV_START_HIGH
        b = _FNV_START_LOW
        before = nr
        while nr - before != known[i] and (known[i] >= 0 or cursors[s] != head + s) and nr - before < head0:
            relative = cursors[s] - lo
            if nr < pfns.shape[0]:
                pfns[nr] = relative
            nr += 1
            b ^= relative & _LOW
            product = b * _FNV_PRIME_LOW
            a = (a * _FNV_PRIME_LOW + (product >> 32) + (b << 8)) & _LOW
            b = product & _LOW
            cursors[s] = next_of(page, cursors[s])
            s = s + 1 if s + 1 < nr_strands else 0
        lengths[i] = nr - before
        high[i] = a
        low[i] = b


def _read(
    z: ZoneState, head0: int, first: np.ndarray, known: np.ndarray, nr_strands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contents of lists as `walk_lists` tells them, with room for all pages."""
    nr = first.size
    cursors = np.zeros(nr_strands, np.int64)
    lengths = np.zeros(nr, np.int64)
    halves = np.zeros((2, nr), np.int64)
    pfns = np.zeros(1 << 10, np.int64)
    while True:
        walk_lists(z.page, head0, first, known, z.geo.lo, cursors, lengths, halves[0], halves[1], pfns)
        total = int(lengths.sum())
        if total <= pfns.size:
            break
        pfns = np.zeros(total, np.int64)
    hashes = (halves[0].astype(np.uint64) << np.uint64(32)) | halves[1].astype(np.uint64)
    return lengths, hashes, pfns[:total]


def read_lists(z: ZoneState, head0: int, nr: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contents of `nr` lists whose heads follow each other from link `head0`.

    Returns
    -------
    (lengths, hashes, pfns)
        int64 [nr]; uint64 [nr], FNV-1a over the zone-relative pfns, head to tail; int64 pages of all lists,
        concatenated, relative to the zone start.
    """
    return _read(z, head0, np.zeros(nr, np.int8), np.full(nr, -1, np.int32), 1)


def nr_sets(z: ZoneState) -> int:
    """Sets of free lists: one a superpageblock, or one for the zone in mainline mode."""
    return z.area.mask.size // NR_MT


def read_free_lists(z: ZoneState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Free lists of all sets: lengths and hashes as [sets, orders, migratetypes], pages concatenated."""
    shape = (nr_sets(z), NR_ORDERS, NR_MT)
    lengths, hashes, pfns = read_lists(z, z.geo.list0, int(np.prod(shape)))
    return lengths.reshape(shape), hashes.reshape(shape), pfns


def read_pcp_lists(z: ZoneState, cpu: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The per-CPU lists of one CPU: lengths, hashes, pages concatenated."""
    own = slice(cpu * NR_PCP_LISTS, (cpu + 1) * NR_PCP_LISTS)
    return _read(z, z.geo.pcp0 + own.start * NR_STRANDS, z.pcp.first[own], z.pcp.nr[own], NR_STRANDS)


def spb_lists(z: ZoneState) -> list[list[int]]:
    """Members of every superpageblock list, head to tail."""
    out = []
    for lst in range(z.index.live.shape[0]):
        bits = np.unpackbits(z.index.live[lst].view(np.uint8), bitorder="little")
        out.append(z.index.spb[lst][np.flatnonzero(bits)].tolist())
    return out


def read_places(z: ZoneState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Category, bucket and position of every superpageblock, by the lists themselves; -1: on none."""
    category, bucket, pos = (np.full(z.geo.nr_spb, -1) for _ in range(3))
    for lst, members in enumerate(spb_lists(z)):
        if lst == LIST_EMPTY:
            place = int(SpbCategory.EMPTY), 0
        elif lst == LIST_ISOLATED:
            place = int(SpbCategory.ISOLATED), 0
        elif lst >= LIST_TAINTED:
            place = int(SpbCategory.TAINTED), lst - LIST_TAINTED
        else:
            place = int(SpbCategory.CLEAN), lst
        category[members], bucket[members] = place
        pos[members] = np.arange(len(members))
    return category, bucket, pos
