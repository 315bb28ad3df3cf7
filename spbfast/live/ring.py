"""Pages of the kernel's ring buffer into rows of numbers.

Owns the layout of such a page: time stamp, length, then events with a head of 5 bits of type and 27 bits of
time since the one before (events/header_page and header_event describe it). Which events exist and where
their fields lie comes in as tables, made from what the kernel publishes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spbfast.jit.decorators import entry_kernel, inline_kernel
from spbfast.live.tracefs import RecordedEvent
from spbfast.observed.event_columns import MAX_EVENT_FIELDS

NR_NUMBERS = 1 << 16  # an event's number has 16 bits
R_TIME, R_KIND, R_FIELD0 = range(3)
NR_ROW_FIELDS = R_FIELD0 + MAX_EVENT_FIELDS
F_WORD, F_SIZE, F_SIGNED = range(3)

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DATA_WORD = 4  # the page's head: 64 bits of time, 64 bits of length and flags
_LENGTH = 0x0FFF_FFFF
_MISSED_EVENTS = 0x8000_0000
_MISSED_STORED = 0x4000_0000
_LOW = 0xFFFF_FFFF
_TIME = (1 << 62) - 1  # damaged pages must not overflow


def event_tables(events: Sequence[RecordedEvent]) -> tuple[np.ndarray, np.ndarray]:
    """Tables for `decode_pages`: kind by event number (-1: none), and the fields' places by kind.

    Kinds are numbered from 1, in the order given; 0 stands for lost events.
    """
    kinds = np.full(NR_NUMBERS, -1, np.int64)
    fields = np.zeros((len(events) + 1, MAX_EVENT_FIELDS, 3), np.int64)
    for kind, event in enumerate(events, 1):
        kinds[event.number] = kind
        for i, f in enumerate(event.fields):
            fields[kind, i] = f.offset // 4, f.size, f.is_signed
    return kinds, fields


@inline_kernel
def word_at(words, i):
    """A 32-bit word as a number from 0."""
    return np.int64(words[i]) & _LOW


@inline_kernel
def long_at(words, i):
    """Two words as one signed number."""
    return word_at(words, i) | np.int64(words[i + 1]) << 32


@inline_kernel
def field_at(words, data, place):
    """A field of the event whose data begin at word `data`."""
    at = data + place[F_WORD]
    if place[F_SIZE] == 8:
        return long_at(words, at)
    value = word_at(words, at)
    if place[F_SIGNED]:
        return (value ^ 0x8000_0000) - 0x8000_0000
    return value


@inline_kernel
def put_event(words, data, last, time, kind, fields, row):
    """Write one event into a row; fields that would lie behind word `last` are 0."""
    row[R_TIME] = time
    row[R_KIND] = kind
    for i in range(MAX_EVENT_FIELDS):
        place = fields[kind, i]
        size = place[F_SIZE]
        inside = size > 0 and data + place[F_WORD] + size // 4 <= last
        row[R_FIELD0 + i] = field_at(words, data, place) if inside else 0


@inline_kernel
def put_lost(words, end, length, flags, most, time, row):
    """A row for events that were dropped before this page."""
    row[:] = 0
    row[R_TIME] = time
    if flags & _MISSED_STORED and length % 4 == 0 and end + 2 <= most:
        row[R_FIELD0] = long_at(words, end)


@inline_kernel
def step_over(words, i, last):
    """Type, time difference, first word of data and next event of the event at word i."""
    head = word_at(words, i)
    kind, delta = head & 31, head >> 5
    if 0 < kind < _PADDING:
        return kind, delta, i + 1, i + 1 + kind
    if i + 1 >= last:
        return _PADDING, np.int64(0), last, last
    array = word_at(words, i + 1)
    if kind == 0:
        return kind, delta, i + 2, i + 2 + max(array - 1, 0) // 4
    if kind == _PADDING:
        after = last if delta == 0 else i + 1 + (array + 3) // 4
        return kind, delta, after, max(after, i + 1)
    return kind, delta + (array << 27), i + 2, i + 2


@entry_kernel
def decode_pages(words, nr_pages, page_words, kinds, fields, rows):
    """Decode `nr_pages` pages of one CPU's buffer into `rows`; the number of rows.

    Parameters
    ----------
    words : ndarray
        int32, pages one after the other.
    kinds, fields : ndarray
        From `event_tables`; events of other numbers are left out.
    rows : ndarray
        int64 [n, NR_ROW_FIELDS]; when it is full the rest is left out. A page has at most
        ``page_words // 2 + 1`` events.
    """
    nr = 0
    for page in range(nr_pages):
        begin = page * page_words
        time = long_at(words, begin) & _TIME
        flags = word_at(words, begin + 2)
        length = min(flags & _LENGTH, (page_words - _DATA_WORD) * 4)
        i = begin + _DATA_WORD
        last = i + length // 4
        if flags & _MISSED_EVENTS and nr < rows.shape[0]:
            put_lost(words, last, length, flags, begin + page_words, time, rows[nr])
            nr += 1
        while i < last:
            kind, delta, data, after = step_over(words, i, last)
            if kind == _TIME_STAMP:
                time = delta
            else:
                time = (time + delta) & _TIME
            if kind < _PADDING and data < last and nr < rows.shape[0]:
                number = kinds[word_at(words, data) & 0xFFFF]
                if number > 0:
                    put_event(words, data, last, time, number, fields, rows[nr])
                    nr += 1
            i = after
    return nr
