"""A tracefs instance of one's own: made, set up, and taken away again on every way out.

Owns the instance's life and the names of events. The global buffer is never touched. An instance carries the
number and start time of the process that made it, so that leftovers of one that was killed can be told from
those of one that runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spbfast.errors import LiveError

PLACES = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
PREFIX = "spbfast-"
CLOCK = "mono"
_OWN_NAME = re.compile(rf"{PREFIX}(\d+)-(\d+)")
_FIELD = re.compile(r"field:(.+?)\s+(\w+)(\[\d*\])?;\s*offset:(\d+);\s*size:(\d+);\s*signed:(\d)")


@dataclass(frozen=True)
class RecordedField:
    """One number of an event as it lies in the buffer: bytes from the event's begin, size, sign."""

    name: str
    offset: int
    size: int
    is_signed: bool


@dataclass(frozen=True)
class RecordedEvent:
    """An event as the kernel publishes it: number, name with its subsystem, and the fields that are kept."""

    number: int
    subsystem: str
    name: str
    fields: tuple[RecordedField, ...]


def find_tracefs() -> Path:
    """Where tracefs is mounted and may be used.

    Raises
    ------
    LiveError
        When it is not mounted or not allowed; the message says what to do.
    """
    for place in map(Path, PLACES):
        try:
            if (place / "instances").is_dir():
                return place
        except PermissionError:
            raise LiveError(f"{place} may not be read by this user; recording events needs root") from None
    text = "tracefs is not mounted; as root: mount -t tracefs nodev /sys/kernel/tracing"
    raise LiveError(text if os.geteuid() == 0 else "recording events needs root (and tracefs)")


def start_time_of(pid: int) -> int:
    """Start of a process in clock ticks since boot, 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def remove_stale_instances(tracefs: Path) -> list[str]:
    """Take away instances whose process is gone; their names."""
    gone = []
    for path in sorted((tracefs / "instances").glob(f"{PREFIX}*")):
        match = _OWN_NAME.fullmatch(path.name)
        if match and start_time_of(int(match[1])) != int(match[2]):
            remove_instance(path)
            gone.append(path.name)
    return gone


def remove_instance(path: Path) -> None:
    """Stop an instance and take it away.

    Raises
    ------
    LiveError
        When the kernel keeps it, because somebody reads from it.
    """
    for name in ("tracing_on", "events/enable"):
        with contextlib.suppress(OSError):
            (path / name).write_text("0")
    for _ in range(50):
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror
            time.sleep(0.02)
    raise LiveError(f"{path} could not be removed ({reason}); remove it with: rmdir {path}")


@contextlib.contextmanager
def own_instance(tracefs: Path, buffer_kb: int) -> Iterator[Path]:
    """An instance with buffers of `buffer_kb` a CPU, gone afterwards whatever happens.

    Raises
    ------
    LiveError
        When the kernel refuses it.
    """
    pid = os.getpid()
    path = tracefs / "instances" / f"{PREFIX}{pid}-{start_time_of(pid)}"
    # A signal may raise right behind mkdir: that, too, must lie within what takes the instance away.
    try:
        try:
            path.mkdir()
        except OSError as error:
            raise LiveError(f"{path} can't be made: {error.strerror}") from None
        set_instance(path, "tracing_on", "0")
        set_instance(path, "trace_clock", CLOCK)
        set_instance(path, "buffer_size_kb", str(buffer_kb))
        # Names of tasks are kept by a table beside the events; nobody needs them here.
        with contextlib.suppress(LiveError):
            set_instance(path, "options/record-cmd", "0")
        yield path
    finally:
        remove_instance(path)


def set_instance(instance: Path, name: str, value: str) -> None:
    """Write one of an instance's files.

    Raises
    ------
    LiveError
        When the kernel refuses it.
    """
    try:
        (instance / name).write_text(value)
    except OSError as error:
        raise LiveError(f"{instance / name} does not take {value!r}: {error.strerror}") from None


def read_format(tracefs: Path, event: str, most: int) -> RecordedEvent | None:
    """How the kernel records an event, given as ``kmem:mm_page_alloc``; None where it has no such event.

    Kept are the first `most` numbers; addresses, text and the common fields are not.
    """
    subsystem, _, name = event.partition(":")
    path = tracefs / "events" / subsystem / name / "format"
    try:
        text = path.read_text()
    except OSError:
        return None
    number = re.search(r"^ID: (\d+)", text, re.M)
    if number is None:
        return None
    return RecordedEvent(int(number[1]), subsystem, name, tuple(_numbers_of(text))[:most])


def _numbers_of(text: str) -> Iterator[RecordedField]:
    for kind, name, array, offset, size, is_signed in _FIELD.findall(text):
        if name.startswith("common_") or array or "*" in kind or "__data_loc" in kind:
            continue
        if int(size) in (4, 8) and int(offset) % 4 == 0:
            yield RecordedField(name, int(offset), int(size), is_signed == "1")


def enable_events(instance: Path, events: Sequence[RecordedEvent]) -> None:
    """Switch events on in an instance."""
    for event in events:
        set_instance(instance, f"events/{event.subsystem}/{event.name}/enable", "1")


def buffer_stats(instance: Path, cpu: int) -> dict[str, int]:
    """What the kernel counted for one CPU's buffer: entries, overrun, dropped events ..."""
    out = {}
    with contextlib.suppress(OSError):
        for line in (instance / f"per_cpu/cpu{cpu}/stats").read_text().splitlines():
            name, _, value = line.partition(":")
            if value.strip().isdigit():
                out[name.strip()] = int(value)
    return out
