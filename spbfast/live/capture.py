"""Records this machine into one file: tables before and after, page events in between.

Owns CaptureRequest and the order of steps: leftovers away, tables, instance, command or time, tables, file in
place. Whatever can't be had is left out, and a sentence says so; only a capture that could hold nothing at
all fails.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spbfast.errors import LiveError
from spbfast.live.command import EndAsked, child_of, ends_by_signal
from spbfast.live.machine_tables import (
    MachineTables,
    count_by_pageblock,
    read_machine,
    read_pages,
    zone_spans,
)
from spbfast.live.recorder import Recorder
from spbfast.live.tracefs import (
    CLOCK,
    RecordedEvent,
    buffer_stats,
    enable_events,
    find_tracefs,
    own_instance,
    read_format,
    remove_stale_instances,
    set_instance,
)
from spbfast.observed import capture_file as container
from spbfast.observed.event_columns import LOST_KIND, MAX_EVENT_FIELDS, EventKinds, pack_batch
from spbfast.observed.page_classes import PageClass

GROUPS = {
    "zone": (
        "kmem:mm_page_alloc_zone_locked",
        "kmem:mm_page_pcpu_drain",
        "kmem:mm_page_alloc_extfrag",
        "kmem:mm_page_free",
    ),
    "request": ("kmem:mm_page_alloc", "kmem:mm_page_free"),
    "compaction": (
        "compaction:mm_compaction_begin",
        "compaction:mm_compaction_end",
        "compaction:mm_compaction_isolate_freepages",
        "compaction:mm_compaction_fast_isolate_freepages",
        "compaction:mm_compaction_isolate_migratepages",
        "compaction:mm_compaction_migratepages",
    ),
    "reclaim": (
        "vmscan:mm_vmscan_kswapd_wake",
        "vmscan:mm_vmscan_kswapd_sleep",
        "vmscan:mm_vmscan_direct_reclaim_begin",
        "vmscan:mm_vmscan_direct_reclaim_end",
        "vmscan:mm_shrink_slab_start",
        "vmscan:mm_shrink_slab_end",
    ),
}
BUFFER_TOTAL_KB = 64 << 10
ROUND_SECONDS = 0.02
PAGEBLOCK_PAGES = 512
CANNOT_KNOW = "whether a page is pinned: its map count is published, its reference count is not"


@dataclass
class CaptureRequest:
    """What to record.

    Attributes
    ----------
    path : Path
        The file to write.
    seconds : float or None
        How long events are recorded; None records none, unless there is a command.
    command : sequence of str
        Run while events are recorded; it ends the recording.
    events : sequence of str
        Names of `GROUPS`, or events such as ``kmem:mm_page_alloc``.
    keep_pages : bool
        Keep the class of every page, not only counts by pageblock.
    keep_command : bool
        Write the command line into the file.
    most_bytes : int
        Recording ends when the file has this size.
    """

    path: Path
    seconds: float | None = None
    command: Sequence[str] = ()
    events: Sequence[str] = tuple(GROUPS)
    keep_pages: bool = False
    keep_command: bool = False
    most_bytes: int = 4 << 30


@dataclass
class CaptureResult:
    """What became of it.

    Attributes
    ----------
    events, lost, late : int
        Events recorded; dropped by the kernel's buffers; written out of order.
    seconds, cpu_seconds : float
        Time of recording, and processor time that it took here.
    exit_code : int or None
        Of the command.
    missing : list of str
        A sentence on each thing that could not be had.
    """

    events: int = 0
    lost: int = 0
    late: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    exit_code: int | None = None
    missing: list[str] = field(default_factory=list)


def event_names(given: Sequence[str]) -> list[str]:
    """Events of groups and names, each once.

    Raises
    ------
    LiveError
        For a name that is neither a group nor SUBSYSTEM:EVENT.
    """
    names: list[str] = []
    for name in given:
        subsystem, _, event = name.partition(":")
        if name not in GROUPS and not (subsystem.isidentifier() and event.isidentifier()):
            raise LiveError(f"{name!r} is neither one of {', '.join(GROUPS)} nor SUBSYSTEM:EVENT")
        names += GROUPS.get(name, (name,))
    return list(dict.fromkeys(names))


def capture(
    request: CaptureRequest,
    tell: Callable[[str], None] | None = None,
    on_start: Callable[[], None] | None = None,
) -> CaptureResult:
    """Record this machine.

    Parameters
    ----------
    request : CaptureRequest
    tell : callable, optional
        Given a line of progress about once a second.
    on_start : callable, optional
        Called when events are recorded and the first tables are written, before the command starts.

    Raises
    ------
    LiveError
        When events are asked for and cannot be recorded, or nothing could be read at all.
    OSError
        When the file cannot be written.
    """
    path = request.path
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with ends_by_signal() as asked:
        try:
            with open(temporary, "xb") as file:
                result = _Capture(request, file, tell, on_start, asked).run()
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return result


class _Capture:
    """One recording into an open file."""

    def __init__(
        self,
        request: CaptureRequest,
        file: BinaryIO,
        tell: Callable[[str], None] | None,
        on_start: Callable[[], None] | None,
        asked: EndAsked,
    ) -> None:
        self.request, self.file, self.tell, self.on_start, self.asked = request, file, tell, on_start, asked
        self.result = CaptureResult()
        self.recorder: Recorder | None = None
        self.kinds = EventKinds((LOST_KIND,), (("events",),))
        self._start = self._told = time.monotonic()

    def run(self) -> CaptureResult:
        container.write_prolog(self.file)
        if self.request.seconds is None and not self.request.command:
            self._write_head(())
            self._write_tables("before")
        else:
            self._run_with_events()
        result = self.result
        done = {"events": result.events, "late": result.late, "missing": result.missing}
        self._write(container.DONE, container.json_chunk(done))
        return result

    def _run_with_events(self) -> None:
        tracefs = find_tracefs()
        remove_stale_instances(tracefs)
        events = self._published(tracefs)
        cpus = sorted(int(path.name[3:]) for path in (tracefs / "per_cpu").glob("cpu[0-9]*"))
        buffer_kb = max(1024, BUFFER_TOTAL_KB // len(cpus))
        self._write_head(events)
        with own_instance(tracefs, buffer_kb) as instance:
            try:
                # An open buffer that nobody knows of would keep the instance.
                with self.asked.held():
                    self.recorder = Recorder(instance, cpus, events, buffer_kb)
                self._record(instance, events, cpus)
            finally:
                if self.recorder is not None:
                    self.recorder.close()

    def _published(self, tracefs: Path) -> list[RecordedEvent]:
        """The events asked for that this kernel has."""
        wanted = event_names(self.request.events)
        formats = [read_format(tracefs, name, MAX_EVENT_FIELDS) for name in wanted]
        absent = [name for name, event in zip(wanted, formats, strict=True) if event is None]
        if len(absent) == len(wanted):
            raise LiveError(f"this kernel has none of the events {', '.join(wanted)}")
        if absent:
            self.result.missing.append(f"this kernel has no event {', '.join(absent)}")
        return [event for event in formats if event is not None]

    def _record(self, instance: Path, events: Sequence[RecordedEvent], cpus: Sequence[int]) -> None:
        enable_events(instance, events)
        set_instance(instance, "tracing_on", "1")
        self._write_tables("before")
        if self.on_start is not None:
            self.on_start()
        cpu_start, self._start = time.process_time(), time.monotonic()
        with child_of(self.request.command, self.asked) as child:
            while not self._is_over(child.is_over()):
                self._take_round()
                time.sleep(ROUND_SECONDS)
        self.result.exit_code = child.exit_code
        self.result.seconds = time.monotonic() - self._start
        self.result.cpu_seconds = time.process_time() - cpu_start
        self._write_tables("after")
        set_instance(instance, "tracing_on", "0")
        self._take_round(is_last=True)
        self._note_losses({cpu: buffer_stats(instance, cpu) for cpu in cpus})

    def _is_over(self, command_is_over: bool) -> bool:
        if self.file.tell() >= self.request.most_bytes:
            self.result.missing.append(f"recording ended early: the file has {self.request.most_bytes} bytes")
            return True
        limit = self.request.seconds
        if command_is_over or self.asked.is_set:
            return True
        return limit is not None and time.monotonic() - self._start >= limit

    def _take_round(self, is_last: bool = False) -> None:
        if self.recorder is None:
            return
        for batch in self.recorder.round(is_last):
            self._write(container.EVENTS, pack_batch(batch, self.kinds))
        self.result.events, self.result.late = self.recorder.nr_events, self.recorder.nr_late
        if self.tell is not None and time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            self.tell(f"{self._told - self._start:.0f} s, {self.recorder.nr_events:,} events")

    def _note_losses(self, stats: dict[int, dict[str, int]]) -> None:
        lost = {cpu: s.get("overrun", 0) + s.get("dropped events", 0) for cpu, s in stats.items()}
        self.result.lost = sum(lost.values())
        self._write(container.LOST, container.json_chunk({str(cpu): n for cpu, n in lost.items()}))

    # -- tables ------------------------------------------------------------------------------------

    def _write_head(self, events: Sequence[RecordedEvent]) -> None:
        names = (LOST_KIND, *(event.name for event in events))
        fields = (("events",), *(tuple(f.name for f in event.fields) for event in events))
        self.kinds = EventKinds(names, fields)
        head = {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "page_bytes": os.sysconf("SC_PAGE_SIZE"),
            "clock": CLOCK,
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": list(self.request.command) if self.request.keep_command else None,
            "events": [{"name": n, "fields": list(f)} for n, f in zip(names, fields, strict=True)],
            "cannot_know": CANNOT_KNOW,
        }
        self._write(container.HEAD, container.json_chunk(head))

    def _write_tables(self, moment: str) -> None:
        tables = read_machine(moment)
        if not tables.texts:
            raise LiveError("none of the tables in /proc can be read")
        for path, reason in tables.refused.items():
            self._note_missing(f"{path} can't be read: {reason}")
        self._write(container.SNAPSHOT, container.json_chunk(tables.data()))
        try:
            self._write_pages(tables)
        except (PermissionError, FileNotFoundError) as error:
            self._note_missing(
                f"/proc/kpageflags, what each pageblock holds, can't be read: {error.strerror}"
            )

    def _note_missing(self, sentence: str) -> None:
        if sentence not in self.result.missing:
            self.result.missing.append(sentence)

    def _write_pages(self, tables: MachineTables) -> None:
        for piece in read_pages(zone_spans(tables.texts.get("/proc/zoneinfo", ""))):
            first, counts = count_by_pageblock(piece, PAGEBLOCK_PAGES)
            about = {
                "moment": tables.moment,
                "node": piece.span.node,
                "zone": piece.span.zone,
                "classes": [c.name.lower() for c in PageClass],
                "pageblock_pages": PAGEBLOCK_PAGES,
                "first_pageblock": first,
                "first_pfn": piece.first_pfn,
                "start_ns": piece.start_ns,
                "end_ns": piece.end_ns,
            }
            self._write(container.BLOCKS, _with_array(about, counts.astype("<u2")))
            if self.request.keep_pages:
                self._write(container.PAGES, _with_array(about, piece.pages))
            self._take_round()

    def _write(self, tag: bytes, data: bytes) -> None:
        container.write_chunk(self.file, tag, data)


def _with_array(about: dict[str, object], array: np.ndarray) -> bytes:
    """A mapping in one line of JSON, and an array's bytes behind it."""
    return container.json_chunk(about) + b"\n" + array.tobytes()
