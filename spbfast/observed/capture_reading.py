"""A capture as snapshots and a summary of its events, for `read` and `diagnose`.

Owns the reading of everything in a capture but the events one by one. Its tables are the kernel's own text
and go through the readers of that; pages by class come from its counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import DumpError
from spbfast.observed import capture_file as container
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.consistency import PAGE_SIZES_KB
from spbfast.observed.event_columns import (
    LOST_KIND,
    EventBatch,
    EventKinds,
    read_batches,
    unpack_batch,
)
from spbfast.observed.families import Collector
from spbfast.observed.page_classes import NR_PAGE_CLASSES, PageClass
from spbfast.observed.receipt import counted, shown
from spbfast.observed.textlines import LINE_LIMIT
from spbfast.observed.tracetext import TraceEvent
from spbfast.observed.values import MAX_ORDERS, TraceSummary

NumberedLines = Iterable[tuple[int, str]]
TakeText = Callable[[Collector, NumberedLines], None]
MAX_MOMENTS = 8
_NO_ORDER = -1


def summarise_capture(collector: Collector, take_text: TakeText) -> None:
    """Everything in a capture into the collector; `take_text` reads the lines of one table.

    Raises
    ------
    DumpError
        When the file is damaged.
    """
    reading = _CaptureReading(collector, take_text)
    for tag, data in read_chunks(collector.path):
        reading.take(tag, data)
    reading.finish()


def capture_events(path: Path) -> Iterator[TraceEvent]:
    """The events of a capture one by one; lost ones are not among them.

    Raises
    ------
    DumpError
        When the file is damaged.
    """
    line = 0
    for kinds, batch in read_batches(path):
        columns = (batch.time_ns, batch.cpu, batch.kind, batch.fields)
        for time_ns, cpu, kind, values in zip(*(c.tolist() for c in columns), strict=True):
            line += 1
            if kind:
                fields = dict(zip(kinds.fields[kind], values, strict=False))
                yield TraceEvent(line, time_ns, cpu, None, kinds.names[kind], fields)


class _CaptureReading:
    def __init__(self, collector: Collector, take_text: TakeText) -> None:
        self.collector, self.take_text = collector, take_text
        self.path, self.receipt = collector.path, collector.receipt
        self.kinds: EventKinds | None = None
        self.summary: TraceSummary | None = None
        self.pages: dict[str, np.ndarray] = {}
        self.line = 1
        self.page_kb: int | None = None
        self.nr_lost = 0
        self.is_whole = False

    def take(self, tag: bytes, data: bytes) -> None:
        """Use one chunk."""
        if tag == container.EVENTS:
            self._take_events(data)
        elif tag == container.BLOCKS:
            self._take_blocks(data)
        elif tag in (container.HEAD, container.SNAPSHOT, container.LOST, container.DONE):
            self._take_mapping(tag, json_mapping(self.path, data))

    def finish(self) -> None:
        for snapshot in self.collector.snapshots:
            snapshot.page_kb = snapshot.page_kb or self.page_kb
        if not self.is_whole:
            self.receipt.say("missing", "the capture is cut: its last chunk is not there")
        for moment, counts in self.pages.items():
            told = ", ".join(
                f"{c.name.lower()} {n:,}" for c, n in zip(PageClass, counts.tolist(), strict=True)
            )
            self.receipt.say("read", f"pages {moment}: {told}")
        if self.nr_lost:
            self.receipt.say("lost", f"{counted(self.nr_lost, 'event')} by the kernel's buffers")

    def _take_mapping(self, tag: bytes, value: dict[str, Any]) -> None:
        if tag == container.HEAD:
            self._take_head(value)
        elif tag == container.SNAPSHOT:
            self._take_snapshot(value)
        elif tag == container.LOST:
            self.nr_lost = sum(n for n in value.values() if isinstance(n, int))
        else:
            self.is_whole = True
            self._say_all("missing", value.get("missing"))
            if late := value.get("late"):
                self.receipt.say("lost", f"order: {shown(str(late))} events were written after later ones")

    def _take_head(self, head: dict[str, Any]) -> None:
        self.kinds = EventKinds.from_head(self.path, head)
        facts = {key: head.get(key) for key in ("kernel", "machine", "taken", "clock")}
        for key, value in facts.items():
            self.receipt.facts[f"capture: {key}"] = shown(str(value))
        if isinstance(size := head.get("page_bytes"), int) and size >> 10 in PAGE_SIZES_KB:
            self.page_kb = size >> 10
        self._say_all("missing", [head.get("cannot_know", "")])

    def _say_all(self, heading: str, sentences: object) -> None:
        for sentence in sentences if isinstance(sentences, list) else []:
            if sentence:
                self.receipt.say(heading, shown(str(sentence), 200))

    def _take_snapshot(self, value: dict[str, Any]) -> None:
        texts = value.get("texts")
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise DumpError(self.path, 0, "a snapshot of the capture holds no texts")
        moment = shown(str(value.get("moment")), 20)
        for name, text in texts.items():
            self.collector.heading = f"{moment}: {shown(name, 40)}"
            self.take_text(self.collector, self._lines(text))
        settings = value.get("settings")
        if isinstance(settings, dict):
            self.receipt.say("read", f"{moment}: {counted(len(settings), 'setting')} of memory management")

    def _lines(self, text: str) -> Iterator[tuple[int, str]]:
        for line in text.splitlines():
            if len(line) > LINE_LIMIT:
                raise DumpError(self.path, 0, f"a table has a line of more than {LINE_LIMIT} characters")
            yield self.line, line
            self.line += 1

    def _take_blocks(self, data: bytes) -> None:
        head, _, rows = data.partition(b"\n")
        about = json_mapping(self.path, head)
        if len(rows) % (2 * NR_PAGE_CLASSES):
            raise DumpError(self.path, 0, "pages by pageblock end in the middle of a pageblock")
        moment = shown(str(about.get("moment")), 20)
        counts = np.frombuffer(rows, "<u2").reshape(-1, NR_PAGE_CLASSES).sum(axis=0, dtype=np.int64)
        if moment in self.pages or len(self.pages) < MAX_MOMENTS:
            self.pages[moment] = self.pages.get(moment, 0) + counts

    def _take_events(self, data: bytes) -> None:
        if self.kinds is None:
            raise DumpError(self.path, 0, "events come before the capture's head")
        batch = unpack_batch(self.path, data, self.kinds)
        if self.summary is None:
            self.summary = TraceSummary("capture", self.line, str(self.path))
            self.collector.traces.append(self.summary)
        _count_batch(self.summary, self.kinds, batch)


def _count_batch(summary: TraceSummary, kinds: EventKinds, batch: EventBatch) -> None:
    if not len(batch):
        return
    summary.note_time(int(batch.time_ns.min()))
    summary.note_time(int(batch.time_ns.max()))
    summary.cpus.update(np.unique(batch.cpu)[:8192].tolist())
    for number, count in zip(*np.unique(batch.kind, return_counts=True), strict=True):
        name, fields = kinds.names[number], kinds.fields[number]
        if name == LOST_KIND:
            continue
        summary.events[name] += int(count)
        rows = batch.fields[batch.kind == number]
        for field in ("order", "alloc_order"):
            if field in fields:
                _count_orders(summary, name, rows[:, fields.index(field)])
        for field in ("migratetype", "alloc_migratetype"):
            if field in fields:
                _count_types(summary, name, rows[:, fields.index(field)])


def _count_orders(summary: TraceSummary, name: str, orders: np.ndarray) -> None:
    known = np.where((orders >= 0) & (orders < MAX_ORDERS), orders, _NO_ORDER)
    for order, count in zip(*np.unique(known, return_counts=True), strict=True):
        summary.orders.setdefault(name, Counter())[int(order)] += int(count)


def _count_types(summary: TraceSummary, name: str, types: np.ndarray) -> None:
    for kind, count in zip(*np.unique(types, return_counts=True), strict=True):
        summary.count_type(name, str(kind), int(count))
