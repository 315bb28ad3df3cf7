"""Counter-based draws: known values, uniformity, independence of order, compiled as interpreted."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from spbfast.jit.decorators import INTERPRETED, entry_kernel
from spbfast.model.primitives.draws import (
    below,
    chance,
    derive_key,
    draw,
    high_32,
    key_of,
    low_32,
    threshold_32,
)

MASK = (1 << 64) - 1


@entry_kernel
def fill_draws(key, counters, out):
    for i in range(counters.shape[0]):
        x = draw(key, counters[i])
        out[i, 0] = high_32(x)
        out[i, 1] = low_32(x)
        out[i, 2] = below(x, 1000)
        out[i, 3] = chance(x, 1 << 31)
        out[i, 4] = derive_key(key, counters[i])


def drawn(key: int, counters: np.ndarray) -> np.ndarray:
    out = np.zeros((len(counters), 5), np.int64)
    fill_draws(key, counters.astype(np.int64), out)
    return out


def words(out: np.ndarray) -> list[int]:
    return [(int(h) << 32) | int(low) for h, low in out[:, :2]]


def test_known_values_of_splitmix64():
    # The generator's published sequence from state 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert words(drawn(1234567, np.arange(4))) == expected


def test_order_of_draws_does_not_matter():
    counters = np.arange(500)
    assert np.array_equal(drawn(3, counters)[::-1], drawn(3, counters[::-1]))


def test_negative_and_large_counters():
    got = words(drawn(-5, np.array([-1, 1 << 62, -(1 << 62)])))
    assert len(set(got)) == 3
    assert all(0 <= w <= MASK for w in got)


@pytest.mark.parametrize("column", [2, 3])
def test_uniform(column):
    values = drawn(key_of(9, 9), np.arange(4000))[:, column]
    mean, spread = (499.5, 288.7) if column == 2 else (0.5, 0.5)
    assert abs(values.mean() - mean) < 4 * spread / np.sqrt(4000)  # four standard errors


def test_keys_of_streams_differ():
    keys = {key_of(seed, replicate) for seed in range(20) for replicate in range(20)}
    assert len(keys) == 400
    assert len(set(drawn(key_of(1, 1), np.arange(400))[:, 4])) == 400
    assert all(0 <= key < 1 << 63 for key in keys)


def test_threshold_of_a_share():
    assert threshold_32(0.0) == 0
    assert threshold_32(1.0) == 1 << 32


@pytest.mark.skipif(INTERPRETED, reason="compares with this process's compiled kernels")
def test_interpreted_draws_are_the_same():
    code = "from tests.test_draws import drawn, np; print(drawn(77, np.arange(50)).tolist())"
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert run.stdout.strip() == str(drawn(77, np.arange(50)).tolist())
