"""Demand rows: writing them, how much falls into a tick, and the digest of what was asked.

Owns the layout's only writer and the digest by which two policies are shown to have met the same demand.
Never looks at allocator state. Amounts: an accumulator grows by the rate times a factor drawn uniformly
from [0, 2), so the mean is exact in the long run and a tick varies as bursts of small work do.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import Row
from spbfast.jit.decorators import INTERPRETED, entry_kernel, inline_kernel, kernel
from spbfast.model.primitives.draws import below, draw, low_32
from spbfast.model.state.demand_layout import DRAW_BURST, ONE, ONE_SHIFT, TICK_SHIFT, Ap

_PRIME = 0x100000001B3
_MASK = 0xFFFF_FFFF_FFFF_FFFF
DIGEST0 = 0x4BF29CE484222325


@inline_kernel
def put_row(rows, n, cpu, op, owner, slot, count, order, alt, mt, cls):  # type: ignore[no-untyped-def]
    """Write row n if there is room; n + 1. The caller of all actors compares n with the room."""
    if n < rows.shape[0]:
        rows[n, Row.OP] = op
        rows[n, Row.OWNER] = owner
        rows[n, Row.SLOT] = slot
        rows[n, Row.N] = count
        rows[n, Row.ORDER] = order
        rows[n, Row.ALT_ORDER] = alt
        rows[n, Row.MT] = mt
        rows[n, Row.CLS] = cls
        rows[n, Row.CPU] = cpu
    return n + 1


@kernel
def put_own_row(rows, n, p, op, slot, count):  # type: ignore[no-untyped-def]
    """A row with the owner, order, type and class of the entry."""
    return put_row(
        rows, n, p[Ap.CPU], op, p[Ap.OWNER], slot, count, p[Ap.ORDER], p[Ap.ALT_ORDER], p[Ap.MT], p[Ap.CLS]
    )


@kernel
def nr_due(state, column, rate, x):
    """How many units of `rate` (per tick, times ONE) fall into this tick; `x` is its draw."""
    acc = state[column] + ((rate * (low_32(x) >> 16)) >> 15)
    state[column] = acc & (ONE - 1)
    return acc >> ONE_SHIFT


@inline_kernel
def nr_share(count, share_32, x):  # type: ignore[no-untyped-def]
    """A share of a number, rounded up or down by chance so that the mean is exact."""
    return (count * share_32 + low_32(x)) >> 32


@kernel
def is_idle(p, stream, tick):
    """Whether a bursty entry pauses: each cycle has one active part, at a drawn place."""
    period = p[Ap.BURST_PERIOD]
    if period == 0:
        return False
    start = below(draw(stream, DRAW_BURST + tick // period), period - p[Ap.BURST_ON] + 1)
    return not start <= tick % period < start + p[Ap.BURST_ON]


@inline_kernel
def first_counter(tick):  # type: ignore[no-untyped-def]
    """The first of a tick's 2^20 counters."""
    return np.int64(tick) << TICK_SHIFT


if INTERPRETED:

    def _mix_word(digest, word):  # type: ignore[no-untyped-def]
        x = ((int(digest) ^ int(word)) * _PRIME) & _MASK
        x ^= x >> 29
        return x - (1 << 64) if x >> 63 else x

else:

    @inline_kernel
    def _mix_word(digest, word):  # type: ignore[no-untyped-def]
        x = np.uint64(digest ^ word) * np.uint64(_PRIME)
        return np.int64(x ^ (x >> np.uint64(29)))


@entry_kernel
def fold_rows(digest, rows, n):
    """The digest continued over the first n rows; start with DIGEST0. int64, equal on every machine."""
    for i in range(n):
        where = (np.int64(rows[i, Row.OWNER]) << 32) | np.int64(rows[i, Row.SLOT])
        what = (np.int64(rows[i, Row.OP]) << 56) | (np.int64(rows[i, Row.N]) << 24)
        what |= (np.int64(rows[i, Row.CPU]) << 12) | (np.int64(rows[i, Row.ORDER]) << 8)
        cls = np.int64(rows[i, Row.CLS])
        # Two bits between CPU and N are free; those of the first eight classes keep older digests.
        what |= cls & 0xFF | (cls >> 8) << 22
        digest = _mix_word(_mix_word(digest, where), what)
    return digest
