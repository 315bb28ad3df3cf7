"""Pages of the kernel's ring buffer, built by hand here, decoded by the kernel of live/ring.py."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from spbfast.live.ring import NR_ROW_FIELDS, R_FIELD0, R_KIND, R_TIME, decode_pages, event_tables
from spbfast.live.tracefs import RecordedEvent, RecordedField

PAGE = 4096
ALLOC = RecordedEvent(
    700,
    "kmem",
    "mm_page_alloc",
    (
        RecordedField("pfn", 8, 8, False),
        RecordedField("order", 16, 4, False),
        RecordedField("migratetype", 20, 4, True),
    ),
)
FREE = RecordedEvent(
    701, "kmem", "mm_page_free", (RecordedField("pfn", 8, 8, False), RecordedField("order", 16, 4, False))
)
MISSED, STORED = 1 << 31, 1 << 30


def alloc_data(pfn: int, order: int, mt: int) -> bytes:
    return struct.pack("<HBBiQIi", 700, 0, 0, 99, pfn, order, mt)


def free_data(pfn: int, order: int) -> bytes:
    return struct.pack("<HBBiQII", 701, 0, 0, 99, pfn, order, 0)


def event(data: bytes, delta: int = 1) -> bytes:
    return struct.pack("<I", len(data) // 4 | delta << 5) + data


def page(body: bytes, time: int = 1000, flags: int = 0, behind: bytes = b"") -> bytes:
    head = struct.pack("<QQ", time, len(body) | flags)
    return (head + body + behind).ljust(PAGE, b"\0")


def decode(data: bytes, room: int = 5000) -> list[list[int]]:
    kinds, fields = event_tables([ALLOC, FREE])
    rows = np.empty((room, NR_ROW_FIELDS), np.int64)
    words = np.frombuffer(data, np.int32)
    nr = decode_pages(words, len(data) // PAGE, PAGE // 4, kinds, fields, rows)
    return rows[:nr, : R_FIELD0 + 3].tolist()


def test_events_with_times_and_signs() -> None:
    data = page(event(alloc_data(1 << 40, 3, -1), 5) + event(free_data(77, 9), 6), time=1 << 45)
    assert decode(data) == [[(1 << 45) + 5, 1, 1 << 40, 3, -1], [(1 << 45) + 11, 2, 77, 9, 0]]


def test_time_extends_stamps_and_padding() -> None:
    extend = struct.pack("<II", 30 | 7 << 5, 3)
    stamp = struct.pack("<II", 31 | 9 << 5, 1 << 10)
    discarded = struct.pack("<II", 29 | 2 << 5, 8) + bytes(4)
    body = (
        extend + event(free_data(1, 0)) + discarded + event(free_data(2, 0)) + stamp + event(free_data(3, 0))
    )
    times = [row[R_TIME] for row in decode(page(body))]
    first = 1000 + (3 << 27) + 7 + 1
    assert times == [first, first + 3, (1 << 37) + 9 + 1]


def test_long_events_and_those_of_other_numbers_are_stepped_over() -> None:
    long = struct.pack("<II", 0 | 4 << 5, 4 + 200) + struct.pack("<H", 999) + bytes(198)
    rows = decode(page(long + event(free_data(5, 1))))
    assert rows == [[1005, 2, 5, 1, 0]]


def test_the_end_of_a_page_is_its_end() -> None:
    end = struct.pack("<I", 29)
    assert decode(page(event(free_data(5, 1)) + end + event(free_data(6, 1)))) == [[1001, 2, 5, 1, 0]]


@pytest.mark.parametrize(("stored", "count"), [(STORED, 1234), (0, 0)])
def test_lost_events_stand_before_the_page(stored: int, count: int) -> None:
    data = page(event(free_data(5, 1)), flags=MISSED | stored, behind=struct.pack("<Q", 1234))
    assert decode(data) == [[1000, 0, count, 0, 0], [1001, 2, 5, 1, 0]]


def test_pages_follow_each_other_with_their_own_times() -> None:
    data = page(event(free_data(1, 0)), time=10) + page(event(free_data(2, 0)), time=500)
    assert [row[:3] for row in decode(data)] == [[11, 2, 1], [501, 2, 2]]


def test_rows_that_are_full_stay_so() -> None:
    assert len(decode(page(event(free_data(1, 0)) * 20), room=7)) == 7


@pytest.mark.parametrize("seed", range(20))
def test_damaged_pages_end(seed: int) -> None:
    """Whatever the bytes are, decoding ends inside the page and makes no more rows than fit."""
    rng = np.random.default_rng(seed)
    data = bytearray(rng.integers(0, 256, 4 * PAGE, np.uint8).tobytes())
    struct.pack_into("<H", data, 20, 700)
    assert len(decode(bytes(data))) <= 4 * (PAGE // 8 + 1)
    assert all(row[R_KIND] in (0, 1, 2) for row in decode(bytes(data)))
