"""The capture's file: what is written is read back, cut files stay readable, damaged ones give one error."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from spbfast.errors import DumpError
from spbfast.observed import capture_file as container
from spbfast.observed import read_dump, read_events
from spbfast.observed.event_columns import (
    MAX_EVENT_FIELDS,
    EventBatch,
    EventKinds,
    pack_batch,
    read_batches,
    unpack_batch,
)
from spbfast.observed.page_classes import NR_PAGE_CLASSES, ON_LRU, PageClass, count_classes, page_bytes

KINDS = EventKinds(
    ("lost", "mm_page_alloc", "mm_page_free"),
    (("events",), ("pfn", "order", "gfp_flags", "migratetype"), ("pfn", "order")),
)
BUDDYINFO = (
    "Node 0, zone   Normal      3      2      1      0      0      0      0      0      0      0      5\n"
)


def batch(n: int, seed: int = 1) -> EventBatch:
    rng = np.random.default_rng(seed)
    fields = np.zeros((n, MAX_EVENT_FIELDS), np.int64)
    kind = rng.integers(1, 3, n)
    fields[:, 0] = rng.integers(0, 1 << 40, n)
    fields[:, 1] = rng.integers(0, 11, n)
    fields[kind == 1, 2] = rng.integers(0, 1 << 32, int((kind == 1).sum()))
    fields[kind == 1, 3] = rng.integers(-1, 3, int((kind == 1).sum()))
    return EventBatch(np.sort(rng.integers(0, 1 << 50, n)), rng.integers(0, 300, n), kind, fields)


def capture_bytes(events: EventBatch | None = None, is_whole: bool = True) -> bytes:
    """A small capture of our own."""
    file = io.BytesIO()
    container.write_prolog(file)
    rows = [{"name": n, "fields": list(f)} for n, f in zip(KINDS.names, KINDS.fields, strict=True)]
    head = {"kernel": "6.18.0", "machine": "x86_64", "taken": "2026-01-01T00:00:00Z", "events": rows}
    container.write_chunk(file, container.HEAD, container.json_chunk(head))
    tables = {
        "moment": "before",
        "texts": {"/proc/buddyinfo": BUDDYINFO},
        "settings": {"/proc/sys/vm/x": "1"},
    }
    container.write_chunk(file, container.SNAPSHOT, container.json_chunk(tables))
    counts = np.full((3, NR_PAGE_CLASSES), 64, "<u2")
    blocks = container.json_chunk({"moment": "before"}) + b"\n" + counts.tobytes()
    container.write_chunk(file, container.BLOCKS, blocks)
    container.write_chunk(file, container.EVENTS, pack_batch(events or batch(500), KINDS))
    container.write_chunk(file, container.LOST, container.json_chunk({"0": 7, "1": 0}))
    if is_whole:
        container.write_chunk(file, container.DONE, container.json_chunk({"events": 500, "missing": []}))
    return file.getvalue()


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_batch_comes_back_as_it_was(n: int) -> None:
    before = batch(n)
    after = unpack_batch(Path("x"), pack_batch(before, KINDS), KINDS)
    for name in ("time_ns", "cpu", "kind", "fields"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name


def test_times_that_step_back_come_back_as_they_were() -> None:
    before = batch(10)
    before.time_ns[3] = 5
    after = unpack_batch(Path("x"), pack_batch(before, KINDS), KINDS)
    assert np.array_equal(before.time_ns, after.time_ns)


def test_a_capture_is_read_with_its_tables_events_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "named-like-nothing"
    events = batch(500)
    path.write_bytes(capture_bytes(events))
    seen = read_dump(path)
    assert [s.kind for s in seen.snapshots] == ["buddyinfo"]
    assert seen.snapshots[0].heading == "before: /proc/buddyinfo"
    assert seen.snapshots[0].zones[0].free_blocks == (3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 5)
    (trace,) = seen.traces
    assert trace.kind == "capture"
    assert trace.events["mm_page_alloc"] == int((events.kind == 1).sum())
    assert sum(trace.orders["mm_page_free"].values()) == int((events.kind == 2).sum())
    assert trace.first_ns == events.time_ns[0]
    assert any("7 events" in text for text in seen.receipt.lost)
    assert any("free 192" in text for text in seen.receipt.read)


def test_events_come_one_by_one_in_order(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    events = batch(300)
    path.write_bytes(capture_bytes(events))
    seen = list(read_events(path))
    assert [e.time_ns for e in seen] == events.time_ns.tolist()
    assert [e.name for e in seen] == [KINDS.names[k] for k in events.kind.tolist()]
    assert [e.fields["pfn"] for e in seen] == events.fields[:, 0].tolist()
    assert [e.cpu for e in seen] == events.cpu.tolist()


def test_a_capture_that_is_cut_is_read_up_to_there_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    data = capture_bytes()
    whole = capture_bytes(is_whole=False)
    for size in (len(data) - 1, len(whole), len(whole) + 3):
        path.write_bytes(data[:size])
        assert any("cut" in text for text in read_dump(path).receipt.missing)


def outcome(path: Path) -> str:
    """The error's text, or what the receipt misses."""
    try:
        return " ".join(read_dump(path).receipt.missing)
    except DumpError as error:
        return str(error)


def test_every_changed_byte_is_an_error_or_told(tmp_path: Path) -> None:
    """Behind the prolog every byte is covered by a checksum, or by a length that no longer fits."""
    path = tmp_path / "capture"
    data = bytearray(capture_bytes(batch(20)))
    for at in range(16, len(data)):
        data[at] ^= 0x10
        path.write_bytes(data)
        assert outcome(path)
        data[at] ^= 0x10


def test_another_version_is_refused_by_number(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    data = bytearray(capture_bytes())
    data[16] = 9
    path.write_bytes(data)
    with pytest.raises(DumpError, match=r"version 9; this spbfast reads version 1"):
        read_dump(path)


def test_a_chunk_that_unpacks_to_more_than_it_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    file = io.BytesIO()
    container.write_prolog(file)
    container.write_chunk(file, container.EVENTS, bytes(1 << 20))
    data = bytearray(file.getvalue())
    data[28:32] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DumpError, match="does not unpack"):
        list(read_batches(path))


def test_json_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    for text in (b"[1]", b"{", b"[" * 100_000):
        file = io.BytesIO()
        container.write_prolog(file)
        container.write_chunk(file, container.HEAD, text)
        path.write_bytes(file.getvalue())
        with pytest.raises(DumpError, match="mapping"):
            read_dump(path)


def test_page_flags_become_classes() -> None:
    bits = {
        PageClass.FREE: [10],
        PageClass.ANON: [3, 5, 11, 12, 14],
        PageClass.HUGE: [12, 14, 22, 5],
        PageClass.PAGE_CACHE: [3, 5],
        PageClass.SLAB: [7],
        PageClass.PAGE_TABLE: [26],
        PageClass.RESERVED: [32],
        PageClass.OTHER: [],
    }
    flags = np.array([sum(1 << b for b in row) for row in bits.values()], np.uint64)
    pages = page_bytes(flags)
    assert (pages & 0x0F).tolist() == list(bits)
    assert ((pages & ON_LRU) > 0).tolist() == [5 in row for row in bits.values()]
    assert count_classes(pages, 4).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]]


def test_json_of_a_capture_is_plain(tmp_path: Path) -> None:
    from spbfast.observed.describe import observation_data

    path = tmp_path / "capture"
    path.write_bytes(capture_bytes())
    assert json.dumps(observation_data(read_dump(path)))
