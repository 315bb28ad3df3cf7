"""Chunked queues: order, lengths, chunks, exhaustion, and the shuffling swap."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from spbfast.constants import Err
from spbfast.jit.decorators import entry_kernel
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
from spbfast.model.primitives.fifo import (
    CHUNK,
    Q,
    fifo_len,
    make_fifo,
    nr_chunks,
    peek_ahead,
    pop_head,
    push_tail,
    settle_shuffle,
    shuffle_tail,
)
from spbfast.model.primitives.fifo_reading import chunks_of, directory_of, entries_of, free_chunks

PUSH, POP, SHUFFLE, PEEK, LEN = range(5)


@entry_kernel
def run_ops(fifo, ops, results):
    for row in range(ops.shape[0]):
        op, q, value = ops[row, 0], ops[row, 1], ops[row, 2]
        if op == PUSH:
            results[row] = push_tail(fifo, q, value)
        elif op == POP:
            settle_shuffle(fifo)
            results[row] = pop_head(fifo, q)
        elif op == SHUFFLE:
            shuffle_tail(fifo, q, draw(7, value))
        elif op == PEEK:
            results[row] = peek_ahead(fifo, q, value)
        else:
            results[row] = fifo_len(fifo, q)
    settle_shuffle(fifo)


@entry_kernel
def draw_many(key, out):
    for i in range(out.shape[0]):
        x = draw(key, i)
        out[i, 0] = high_32(x)
        out[i, 1] = low_32(x)
        out[i, 2] = below(x, 10)
        out[i, 3] = chance(x, 1 << 30)
        out[i, 4] = derive_key(key, i)


@entry_kernel
def derive_key_twice(a, b):
    return derive_key(derive_key(0, a), b)


def run(fifo, ops):
    results = np.zeros(len(ops), np.int64)
    run_ops(fifo, np.array(ops, np.int64).reshape(-1, 3), results)
    return results.tolist()


@pytest.mark.parametrize("largest", [2**24 - 1, 2**24, 2**31 - 1])
@pytest.mark.parametrize("seed", range(2))
def test_queues_behave_like_deques(seed, largest):
    rng = np.random.default_rng(seed)
    queues, limit = 5, 4 * CHUNK
    fifo = make_fifo(limit, queues, largest)
    twins = [deque() for _ in range(queues)]
    ops, expected = [], []
    for step in range(6000):
        q = int(rng.integers(queues))
        grows = (step // 1000) % 2 == 0
        if sum(map(len, twins)) < limit and (not twins[q] or rng.random() < (0.7 if grows else 0.3)):
            value = int(rng.integers(largest + 1)) if step % 50 else largest
            twins[q].append(value)
            ops.append((PUSH, q, value))
            expected.append(Err.OK)
        elif twins[q]:
            ops.append((POP, q, 0))
            expected.append(twins[q].popleft())
        ops.append((LEN, q, 0))
        expected.append(len(twins[q]))
    assert run(fifo, ops) == expected
    owned = [c for q in range(queues) for c in chunks_of(fifo, q) + directory_of(fifo, q)]
    assert sorted(owned + free_chunks(fifo)) == list(range(fifo.pool[1]))
    for q in range(queues):
        assert entries_of(fifo, q).tolist() == list(twins[q])
        length = len(twins[q])
        assert len(chunks_of(fifo, q)) <= max(0, (length - 2) // CHUNK + 2) if length else True


def test_pool_of_the_promised_size_never_runs_out():
    entries, queues = 3 * CHUNK, 3
    fifo = make_fifo(entries, queues)
    # The worst spread: every queue with one entry in its head chunk and one in its tail chunk.
    ops = []
    for q in range(queues):
        ops += [(PUSH, q, i) for i in range(CHUNK)] + [(POP, q, 0)] * (CHUNK - 1) + [(PUSH, q, 0)]
    assert Err.OBJECTS_FULL not in run(fifo, ops)[-1:]
    left = entries - 2 * queues
    assert run(fifo, [(PUSH, 0, 5)] * left) == [Err.OK] * left


def test_exhausted_pool_is_an_error_code_and_changes_nothing():
    fifo = make_fifo(CHUNK, 1)
    room = (nr_chunks(CHUNK, 1) - 1) * CHUNK  # one chunk is the directory
    results = run(fifo, [(PUSH, 0, i) for i in range(room + 2)])
    assert results == [Err.OK] * room + [Err.OBJECTS_FULL] * 2
    assert fifo.queue[0, Q.LEN] == room
    assert entries_of(fifo, 0).tolist() == list(range(room))
    assert run(fifo, [(POP, 0, 0)] * room) == list(range(room))
    assert fifo.pool[2] == nr_chunks(CHUNK, 1)


@pytest.mark.parametrize(("largest", "width"), [(2**24 - 1, 3), (2**24, 4)])
def test_memory_is_what_the_largest_entry_needs_and_little_more(largest, width):
    fifo = make_fifo(10_000_000, 100, largest)
    assert fifo.data.nbytes >= width * 10_000_000
    assert sum(a.nbytes for a in fifo) < (width + 0.25) * 10_000_000


def test_what_positions_or_entries_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="too large"):
        make_fifo(2**31, 1)
    with pytest.raises(ValueError, match=r"below 2\^31, not up to 2147483648"):
        make_fifo(100, 1, 2**31)


def test_peek_looks_ahead_within_a_chunk():
    fifo = make_fifo(2 * CHUNK, 1)
    run(fifo, [(PUSH, 0, i) for i in range(2 * CHUNK)])
    assert run(fifo, [(PEEK, 0, 16), (PEEK, 0, CHUNK + 1)]) == [16, 0]
    run(fifo, [(POP, 0, 0)] * (2 * CHUNK - 3))
    assert run(fifo, [(PEEK, 0, 2), (PEEK, 0, 3)]) == [2 * CHUNK - 1, 2 * CHUNK - 3]


@pytest.mark.parametrize("count", [1, 2, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_shuffle_permutes(count):
    fifo = make_fifo(count, 1)
    ops = []
    for i in range(count):
        ops += [(PUSH, 0, i), (SHUFFLE, 0, i)]
    run(fifo, ops)
    entries = entries_of(fifo, 0).tolist()
    assert sorted(entries) == list(range(count))
    if count > 2:
        assert entries != list(range(count))


def test_shuffle_meets_old_and_young_places_alike():
    count = 20 * CHUNK
    fifo = make_fifo(count, 1)
    ops = []
    for i in range(count):
        ops += [(PUSH, 0, i), (SHUFFLE, 0, i)]
    run(fifo, ops)
    entries = entries_of(fifo, 0).astype(float)
    # A random permutation: age and place uncorrelated, each half as old as the other on average.
    assert abs(np.corrcoef(entries, np.arange(count))[0, 1]) < 0.05
    assert abs(entries[: count // 2].mean() / entries.mean() - 1) < 0.05


def test_a_swap_made_late_is_the_swap_made_at_once():
    ops = []
    for i in range(900):
        ops += [(PUSH, i % 2, i), (SHUFFLE, i % 2, i)]
    late, at_once = make_fifo(900, 2), make_fifo(900, 2)
    run(late, ops)
    for op in ops:
        run(at_once, [op])
    for q in range(2):
        assert entries_of(late, q).tolist() == entries_of(at_once, q).tolist()


def test_shuffle_while_the_head_moves():
    fifo = make_fifo(4 * CHUNK, 2)
    ops, alive = [], 0
    for i in range(6000):
        ops += [(PUSH, 0, i), (SHUFFLE, 0, i)]
        alive += 1
        if i > 800 and alive > 3 * CHUNK - i % 300:
            ops += [(POP, 0, 0)] * 2
            alive -= 2
    results = run(fifo, ops)
    popped = [r for r, (op, *_) in zip(results, ops, strict=True) if op == POP]
    assert sorted(popped + entries_of(fifo, 0).tolist()) == list(range(6000))


def test_draws_are_the_reference_generator():
    out = np.zeros((3, 5), np.int64)
    draw_many(1234567, out)
    # First outputs of splitmix64 seeded with 1234567, as published with the generator.
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [(int(h) << 32) | int(low) for h, low in out[:, :2]] == words


def test_draws_of_negative_keys_and_helpers():
    out = np.zeros((20_000, 5), np.int64)
    draw_many(-5, out)
    assert set(out[:, 2]) == set(range(10))
    assert abs(out[:, 3].mean() - 0.25) < 0.02
    assert len(np.unique(out[:, 4])) == len(out)
    assert (out[:, 4] >= 0).all()
    assert threshold_32(0.25) == 1 << 30
    assert key_of(-5, 3) == derive_key_twice(-5, 3)
    assert threshold_32(1.0) == 1 << 32


@pytest.mark.compiled
def test_directory_of_more_than_one_chunk():
    count = CHUNK * (CHUNK + 40)
    fifo = make_fifo(count, 1)
    run(fifo, [(PUSH, 0, i) for i in range(count)])
    assert len(directory_of(fifo, 0)) == 2
    assert run(fifo, [(POP, 0, 0)] * (CHUNK * CHUNK)) == list(range(CHUNK * CHUNK))
    assert len(directory_of(fifo, 0)) == 1
    run(fifo, [(PUSH, 0, i) for i in range(CHUNK * CHUNK)])
    assert entries_of(fifo, 0).tolist() == [*range(CHUNK * CHUNK, count), *range(CHUNK * CHUNK)]
    run(fifo, [(SHUFFLE, 0, 3), (PUSH, 0, 7)])
    assert len(entries_of(fifo, 0)) == count + 1


def test_contradicting_ends_are_found():
    fifo = make_fifo(CHUNK * 3, 1)
    run(fifo, [(PUSH, 0, i) for i in range(CHUNK + 9)])
    fifo.queue[0, Q.LEN] -= 1
    with pytest.raises(ValueError, match="does not end"):
        entries_of(fifo, 0)
    fifo.queue[0, Q.TAIL] -= 10
    with pytest.raises(ValueError, match="directory"):
        entries_of(fifo, 0)


def test_exhaustion_while_a_directory_grows_changes_nothing():
    fifo = make_fifo(CHUNK, 1)
    fifo.pool[1] = fifo.next.size - 1  # one chunk left: for the entries, not for their directory
    assert run(fifo, [(PUSH, 0, 4), (LEN, 0, 0)]) == [Err.OBJECTS_FULL, 0]
    assert len(free_chunks(fifo)) == 1
