"""Sets of small numbers as arrays of 64-bit words, number 0 in the lowest bit of the first.

Owns where a number's bit is. What a set means is said where it is kept (state/layout.py).
"""

from __future__ import annotations

import numpy as np

from spbfast.jit.decorators import ctz, inline_kernel

WORD_SHIFT = 6
WORD_MASK = (1 << WORD_SHIFT) - 1


@inline_kernel
def word_of(number):
    """The word that holds a number's bit."""
    return number >> WORD_SHIFT


@inline_kernel
def bit_of(number):
    """A number's bit within its word."""
    return np.int64(1) << (number & WORD_MASK)


@inline_kernel
def nr_words(numbers):
    """Words that hold the bits of 0..numbers-1."""
    return (numbers + WORD_MASK) >> WORD_SHIFT


@inline_kernel
def bits_from(number):
    """The bits of a number and of all greater ones in its word."""
    return np.int64(-1) << (number & WORD_MASK)


@inline_kernel
def bits_below(number):
    """The bits of all lesser numbers in a number's word."""
    return ~(np.int64(-1) << (number & WORD_MASK))


@inline_kernel
def first_in(word, bits):
    """The least number in `bits`, which are not 0, of a word."""
    return (word << WORD_SHIFT) + ctz(bits)
