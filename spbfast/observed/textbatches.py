"""Page events of a trace as text, as columns: many lines at a stroke where they have the usual form.

Owns the usual form of the events that a replay needs, and the choice piece by piece: a piece of the file in
which every line has it is read by one search; any other goes line by line through the readers that know
wrapped lines, comments, losses and all other forms (tracetext.py). Both give the same events.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from spbfast.observed.cleanup import cleaned_lines, is_quoted_printable
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds
from spbfast.observed.loading import SAMPLE_LINES, read_events
from spbfast.observed.receipt import Receipt
from spbfast.observed.textlines import LINE_LIMIT, check_length, open_regular
from spbfast.observed.tracetext import TraceEvent, TraceEvents

PIECE = 1 << 16
AT_ONCE = 1 << 15
_MASK = (1 << 63) - 1
_NO_TIME = -1  # of events that are printed without one
TEXT_KINDS = EventKinds(
    (
        "lost",
        "mm_page_alloc",
        "mm_page_free",
        "mm_page_alloc_zone_locked",
        "mm_page_pcpu_drain",
        "mm_page_alloc_extfrag",
    ),
    (
        ("events",),
        ("pfn", "order", "migratetype"),
        ("pfn", "order"),
        ("pfn", "order", "migratetype"),
        ("pfn", "order", "migratetype"),
        ("pfn", "alloc_order", "alloc_migratetype", "fallback_migratetype", "change_ownership"),
    ),
)
_NUMBERS = {name: number for number, name in enumerate(TEXT_KINDS.names)}
_SKIPPED = 255  # a free that is told under its own name, too
_OF_NAME = {name.encode(): number for name, number in _NUMBERS.items()} | {b"mm_page_free_batched": _SKIPPED}
_LINE = re.compile(
    rb"^[ \t]*[^=\[\]\n]{0,40}-\d{1,10}[ \t]+\[(\d{1,5})\](?:[ \t]+[.\w#]{4,6})?[ \t]+(\d{1,9})\.(\d{6}): "
    rb"(mm_page_(?:alloc|free|alloc_zone_locked|pcpu_drain|free_batched|alloc_extfrag)): "
    rb"page=[^\s=()]+ pfn=(0x[0-9a-f]{1,15}|\d{1,18}) (?:alloc_)?order=(\d{1,3})"
    rb"(?: fallback_order=\d{1,3}(?: pageblock_order=\d{1,3})?)?"
    rb"(?: (?:alloc_)?migratetype=(\d{1,3}))?"
    rb"(?: fallback_migratetype=(\d{1,3}) fragmenting=\d change_ownership=(\d)"
    rb"| gfp_flags=[^\s=()]+| percpu_refill=\d| cold=\d)? {0,8}$",
    re.M,
)


def text_batches(path: Path, encoding: str, receipt: Receipt) -> Iterator[EventBatch]:
    """Events of `TEXT_KINDS` in the order of the file, `AT_ONCE` and a few more at a time.

    Raises
    ------
    DumpError
        When the file cannot be opened or breaks a limit.
    """
    wrapped = encoding != "utf-8" or _is_wrapped(path)
    parts = _one_by_one(read_events(path, receipt)) if wrapped else _piecewise(path, receipt)
    held: list[EventBatch] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= AT_ONCE:
            yield _joined(held)
            held = []
    if held:
        yield _joined(held)


def _joined(parts: list[EventBatch]) -> EventBatch:
    columns = zip(*((b.time_ns, b.cpu, b.kind, b.fields) for b in parts), strict=True)
    return EventBatch(*(np.concatenate(column) for column in columns))


def _piecewise(path: Path, receipt: Receipt) -> Iterator[EventBatch]:
    """Events piece by piece."""
    slow = TraceEvents(receipt)
    follows, number = False, 0
    for piece in _pieces(path):
        nr = piece.count(b"\n")
        found = _LINE.findall(piece)
        if len(found) == nr:
            slow.finish()
            yield from _one_by_one(_taken(slow))
            yield _as_columns(found)
            follows = True
        else:
            lines = enumerate(piece.decode("utf-8", "replace").split("\n")[:-1], number + 1)
            for line in cleaned_lines(_checked(path, lines), receipt):
                follows = slow.take(line, follows)
            yield from _one_by_one(_taken(slow))
        number += nr
    slow.finish()
    slow.say_lost()
    yield from _one_by_one(_taken(slow))


def _checked(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        check_length(path, number, line)
        yield number, line


def _is_wrapped(path: Path) -> bool:
    """Whether a mail program wrapped the file, or lines end as no piece expects."""
    with open_regular(path) as file:
        head = file.read(SAMPLE_LINES * 160)
    text = head.decode("utf-8", "replace")
    return b"\r" in head.replace(b"\r\n", b"") or is_quoted_printable(text.splitlines()[:SAMPLE_LINES])


def _pieces(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines; the last line gets the end that it lacks."""
    rest = b""
    number = 1
    with open_regular(path) as file:
        while raw := file.read(PIECE):
            whole, end, rest = (rest + raw).rpartition(b"\n")
            if end:
                number += whole.count(b"\n") + 1
                yield _with_plain_ends(whole + end)
            if len(rest) > LINE_LIMIT:
                check_length(path, number, rest.decode("utf-8", "replace").partition("\r")[0])
    if rest:
        yield _with_plain_ends(rest + b"\n")


def _with_plain_ends(piece: bytes) -> bytes:
    if b"\r" not in piece:
        return piece
    return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _taken(events: TraceEvents) -> list[TraceEvent]:
    found, events.ready = events.ready, []
    return found


def _one_by_one(events: Iterator[TraceEvent] | list[TraceEvent]) -> Iterator[EventBatch]:
    part: list[TraceEvent] = []
    for event in events:
        if event.name in _NUMBERS:
            part.append(event)
            if len(part) == AT_ONCE:
                yield _as_batch(part)
                part = []
    if part:
        yield _as_batch(part)


def _as_batch(events: list[TraceEvent]) -> EventBatch:
    n = len(events)
    fields = np.zeros((n, MAX_EVENT_FIELDS), np.int64)
    kind = np.array([_NUMBERS[event.name] for event in events], np.int64)
    for i, event in enumerate(events):
        for j, name in enumerate(TEXT_KINDS.fields[kind[i]]):
            value = event.fields.get(name, 0 if name == "order" else -1)
            fields[i, j] = min(value, _MASK) if isinstance(value, int) else -1
    time_ns = np.array([min(_NO_TIME if e.time_ns is None else e.time_ns, _MASK) for e in events], np.int64)
    cpu = np.array([min(event.cpu or 0, 1 << 16) for event in events], np.int64)
    return EventBatch(time_ns, cpu, kind, fields)


def _as_columns(found: list[tuple[bytes, ...]]) -> EventBatch:
    """Lines of the usual form as a batch."""
    cpu, seconds, micros, names, pfn, order, mt, other, change = zip(*found, strict=True)
    kind = np.array([_OF_NAME[name] for name in names], np.int64)
    fields = np.zeros((len(found), MAX_EVENT_FIELDS), np.int64)
    fields[:, 0] = [int(word, 0) if word[:2] == b"0x" else int(word) for word in pfn]
    fields[:, 1] = _integers(order)
    fields[:, 2] = _integers(mt)
    fields[:, 3], fields[:, 4] = _integers(other), _integers(change)
    nr_fields = np.array([*map(len, TEXT_KINDS.fields), *[0] * (_SKIPPED + 1 - len(TEXT_KINDS.names))])
    fields[np.arange(MAX_EVENT_FIELDS)[None, :] >= nr_fields[kind][:, None]] = 0
    time_ns = _integers(seconds) * 1_000_000_000 + _integers(micros) * 1000
    keep = kind != _SKIPPED
    return EventBatch(time_ns[keep], np.minimum(_integers(cpu), 1 << 16)[keep], kind[keep], fields[keep])


def _integers(words: tuple[bytes, ...]) -> np.ndarray:
    """Decimal numbers, -1 for a word that is not there."""
    return np.array([int(word) if word else -1 for word in words], np.int64)
