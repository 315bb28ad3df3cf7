"""Counter-based random numbers: a draw is a pure function of a key and a counter.

Owns the generator (splitmix64's finaliser over key and counter) and the helpers that turn one draw into
a number below n or a yes with some chance. Keeps no state: the caller keeps the counter, so two policies
that consume the same counters meet the same world, in any thread and with kernels interpreted.
Unsigned 64-bit numbers exist in this module only; every helper hands out int64.
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import INTERPRETED, inline_kernel

_GAMMA = 0x9E3779B97F4A7C15
_MUL1 = 0xBF58476D1CE4E5B9
_MUL2 = 0x94D049BB133111EB
_MASK = 0xFFFF_FFFF_FFFF_FFFF
_U1, _UM1, _UM2, _UG, _ULOW = (np.uint64(v) for v in (1, _MUL1, _MUL2, _GAMMA, 0xFFFF_FFFF))
_S27, _S30, _S31, _S32 = (np.uint64(v) for v in (27, 30, 31, 32))
ONE_32 = 1 << 32  # certainty, as a threshold of `chance`


def _draw(key: int, counter: int) -> int:
    x = (int(key) + (int(counter) + 1) * _GAMMA) & _MASK
    x = ((x ^ (x >> 30)) * _MUL1) & _MASK
    x = ((x ^ (x >> 27)) * _MUL2) & _MASK
    return x ^ (x >> 31)


def key_of(*parts: int) -> int:
    """A key, 0 .. 2^63 - 1, from whole numbers such as seed, replicate and actor. Not for kernels."""
    key = 0
    for part in parts:
        key = _draw(_draw(key, part), 0) >> 1
    return key


def draw_many(key: int, first: int, nr: int) -> np.ndarray:
    """The draws of stream `key` at counters first, first + 1, ..: uint64 [nr]. Not for kernels."""
    start = np.uint64((int(key) + (int(first) + 1) * _GAMMA) & _MASK)
    x = start + np.arange(nr, dtype=np.uint64) * _UG
    x = (x ^ (x >> _S30)) * _UM1
    x = (x ^ (x >> _S27)) * _UM2
    return x ^ (x >> _S31)


if INTERPRETED:

    def draw(key: int, counter: int) -> np.uint64:
        """64 random bits of stream `key` at `counter`; both any 64-bit integers."""
        return np.uint64(_draw(key, counter))

else:

    @inline_kernel
    def draw(key, counter):  # type: ignore[misc,no-untyped-def]
        """64 random bits of stream `key` at `counter`; both any 64-bit integers."""
        x = np.uint64(key) + (np.uint64(counter) + _U1) * _UG
        x = (x ^ (x >> _S30)) * _UM1
        x = (x ^ (x >> _S27)) * _UM2
        return x ^ (x >> _S31)


@inline_kernel
def high_32(x):  # type: ignore[no-untyped-def]
    """Upper half of a draw, 0 .. 2^32 - 1."""
    return np.int64(x >> _S32)


@inline_kernel
def low_32(x):  # type: ignore[no-untyped-def]
    """Lower half of a draw, 0 .. 2^32 - 1."""
    return np.int64(x & _ULOW)


@inline_kernel
def below(x, n):  # type: ignore[no-untyped-def]
    """A number 0 .. n-1 from the draw's upper half; 0 < n < 2^31."""
    return (np.int64(x >> _S32) * n) >> 32


@inline_kernel
def chance(x, threshold_32):  # type: ignore[no-untyped-def]
    """Whether the draw's lower half is below the threshold: true with chance threshold / 2^32."""
    return np.int64(x & _ULOW) < threshold_32


@inline_kernel
def derive_key(key, part):  # type: ignore[no-untyped-def]
    """A key for stream number `part` of `key`, as int64 to be stored; `key_of` chains it over its parts."""
    return np.int64(draw(draw(key, part), 0) >> _U1)


def threshold_32(share: float) -> int:
    """The threshold of `chance` for a share 0..1."""
    return round(share * ONE_32)
