"""LLFree's binary page trace, read and written.

Owns the format: pages of 4096 bytes, little-endian. Page 0 holds the number of trace pages, of cores and the
highest page frame, 32 bits each. Every other page belongs to one CPU: its number in 32 bits, 12 unused
bytes, then 255 records of 128 bits, from the lowest bit: time in microseconds 38, page frame 24, allocation
1, order 4, flags 29, process 32. A record of zeros is unused. Flags are LLFree's own bits, not the kernel's
of any version.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from spbfast.errors import DumpError
from spbfast.observed.families import Collector
from spbfast.observed.textlines import open_regular
from spbfast.observed.values import TraceSummary

PAGE_BYTES = 4096
RECORDS = 255
FIRST_RECORD = 16
MAX_PFN = (1 << 24) - 1
MAX_TIME_US = (1 << 38) - 1
MAX_FLAGS = (1 << 29) - 1
MAX_PID = (1 << 32) - 1
MAX_CORES = 65536
# Two of LLFree's flags: what the page may be (its replay's enum GFP).
FLAG_MOVABLE, FLAG_RECLAIMABLE = 0x08, 0x10
RECORD_DTYPE = np.dtype(
    [(name, np.int64) for name in ("cpu", "time_us", "pfn", "is_alloc", "order", "flags")]
)
_AT_ONCE = 64  # trace pages of one CPU
_RECORD = struct.Struct("<QQ")


class LlfreeRecord(NamedTuple):
    """One allocation or free: CPU, time in microseconds, page frame, order, LLFree's flag bits, process."""

    cpu: int
    time_us: int
    pfn: int
    is_alloc: bool
    order: int
    flags: int
    pid: int


class LlfreeHeader(NamedTuple):
    """The first page: trace pages that follow, cores, highest page frame."""

    pages: int
    cores: int
    max_pfn: int


def is_llfree(head: bytes, size: int) -> bool:
    """Whether a file's beginning and size can be those of such a trace."""
    if size < PAGE_BYTES or len(head) < PAGE_BYTES or any(head[12:PAGE_BYTES]):
        return False
    header = LlfreeHeader(*struct.unpack_from("<III", head))
    return 0 < header.cores <= MAX_CORES and header.max_pfn > 0


def read_llfree_header(path: str | Path) -> LlfreeHeader:
    """The header of a trace.

    Raises
    ------
    DumpError
        When the file is no such trace.
    """
    path = Path(path)
    with open_regular(path) as file:
        head = file.read(PAGE_BYTES)
        size = os.fstat(file.fileno()).st_size
    if not is_llfree(head, size):
        raise DumpError(
            path, 0, "is no LLFree trace; expected a page of 4096 bytes with pages, cores, max_pfn"
        )
    return LlfreeHeader(*struct.unpack_from("<III", head))


def read_llfree(path: str | Path) -> Iterator[LlfreeRecord]:
    """Records of a trace in the file's order: by CPU page, not by time.

    Yields
    ------
    LlfreeRecord

    Raises
    ------
    DumpError
        When the file is no such trace, or a page names a CPU that the header does not have.
    """
    path = Path(path)
    header = read_llfree_header(path)
    with open_regular(path) as file:
        file.seek(PAGE_BYTES)
        number = 1
        while len(page := file.read(PAGE_BYTES)) == PAGE_BYTES:
            cpu = struct.unpack_from("<I", page)[0]
            if cpu >= header.cores:
                text = f"trace page {number} names CPU {cpu}; the header has {header.cores} cores"
                raise DumpError(path, 0, text)
            yield from _records(cpu, page)
            number += 1


def llfree_batches(path: str | Path) -> Iterator[np.ndarray]:
    """Records in the order of time, all CPUs together, in memory that the number of CPUs bounds.

    Within a microsecond the lower CPU comes first; of one CPU the file's order stays.

    Yields
    ------
    ndarray
        `RECORD_DTYPE` [n].

    Raises
    ------
    DumpError
        As `read_llfree`.
    """
    path = Path(path)
    header = read_llfree_header(path)
    with open_regular(path) as file:
        streams = [_CpuPages(file, pages) for pages in _pages_by_cpu(path, file, header.cores)]
        while streams := [stream for stream in streams if stream.fill()]:
            # What is held of a CPU that has more says how far time may go: pages behind it may hold its last.
            open_ends = [stream for stream in streams if stream.pages]
            until = min((stream.last_us for stream in open_ends), default=MAX_TIME_US + 1)
            part = np.concatenate([stream.take(until) for stream in streams])
            if len(part):
                yield part[np.argsort(part["time_us"], kind="stable")]
            else:
                for stream in open_ends:
                    stream.read_more()


class _CpuPages:
    """One CPU's records, a few trace pages at a time."""

    def __init__(self, file: BinaryIO, pages: list[int]) -> None:
        self.file, self.pages = file, pages
        self.held = np.zeros(0, RECORD_DTYPE)

    @property
    def last_us(self) -> int:
        """The latest time that is held."""
        return int(self.held["time_us"].max())

    def fill(self) -> bool:
        """Hold something; False when the CPU has no more."""
        while not len(self.held) and self.pages:
            self.read_more()
        return len(self.held) > 0

    def take(self, until_us: int) -> np.ndarray:
        """Records before a time."""
        times = np.maximum.accumulate(self.held["time_us"])
        nr = int(np.searchsorted(times, until_us))
        part, self.held = self.held[:nr], self.held[nr:]
        return part

    def read_more(self) -> None:
        """Read the next trace pages."""
        part, self.pages = self.pages[:_AT_ONCE], self.pages[_AT_ONCE:]
        found = [self.held]
        for number in part:
            self.file.seek(number * PAGE_BYTES)
            found.append(_records_of_page(self.file.read(PAGE_BYTES)))
        self.held = np.concatenate(found)


def _pages_by_cpu(path: Path, file: BinaryIO, cores: int) -> list[list[int]]:
    """Numbers of the trace pages of each CPU that has any."""
    found: dict[int, list[int]] = {}
    number = 1
    while True:
        file.seek(number * PAGE_BYTES)
        page = file.read(PAGE_BYTES)
        if len(page) < PAGE_BYTES:
            return [found[cpu] for cpu in sorted(found)]
        cpu = struct.unpack_from("<I", page)[0]
        if cpu >= cores:
            text = f"trace page {number} names CPU {cpu}; the header has {cores} cores"
            raise DumpError(path, 0, text)
        found.setdefault(cpu, []).append(number)
        number += 1


def _records_of_page(page: bytes) -> np.ndarray:
    words = np.frombuffer(page, "<u8", 2 * RECORDS, FIRST_RECORD).reshape(RECORDS, 2)
    words = words[words.any(axis=1)]
    low, high = words[:, 0], words[:, 1]
    out = np.empty(len(words), RECORD_DTYPE)
    out["cpu"] = struct.unpack_from("<I", page)[0]
    out["time_us"] = low & np.uint64(MAX_TIME_US)
    out["pfn"] = low >> np.uint64(38) & np.uint64(MAX_PFN)
    out["is_alloc"] = low >> np.uint64(62) & np.uint64(1)
    out["order"] = low >> np.uint64(63) | (high & np.uint64(7)) << np.uint64(1)
    out["flags"] = high >> np.uint64(3) & np.uint64(MAX_FLAGS)
    return out


def write_llfree(path: str | Path, records: Iterable[LlfreeRecord], cores: int = 0) -> LlfreeHeader:
    """Write a trace; each CPU's records fill pages of their own, in the order given.

    Parameters
    ----------
    path : str or Path
    records : iterable of LlfreeRecord
    cores : int
        Number of cores for the header; at least the highest CPU of the records plus one.

    Raises
    ------
    ValueError
        When a value does not fit its field (page frames have 24 bits: 64 GiB with pages of 4 KiB).
    """
    pages: dict[int, bytearray] = {}
    nr_pages = max_pfn = 0
    with open(path, "wb") as file:
        file.write(bytes(PAGE_BYTES))
        for record in records:
            if not 0 <= record.cpu < MAX_CORES:
                raise ValueError(f"CPU must be 0..{MAX_CORES - 1}, got {record.cpu}")
            page = pages.setdefault(record.cpu, bytearray(struct.pack("<IIII", record.cpu, 0, 0, 0)))
            page += pack_record(record)
            max_pfn = max(max_pfn, record.pfn + (1 << record.order) - 1)
            cores = max(cores, record.cpu + 1)
            if len(page) == PAGE_BYTES:
                file.write(pages.pop(record.cpu))
                nr_pages += 1
        for page in pages.values():
            file.write(page.ljust(PAGE_BYTES, b"\0"))
            nr_pages += 1
        header = LlfreeHeader(nr_pages, max(cores, 1), min(max_pfn, MAX_PFN))
        file.seek(0)
        file.write(struct.pack("<III", *header))
    return header


def pack_record(record: LlfreeRecord) -> bytes:
    """The 16 bytes of a record.

    Raises
    ------
    ValueError
        When a value does not fit its field.
    """
    limits = {
        "time_us": (record.time_us, MAX_TIME_US),
        "pfn": (record.pfn, MAX_PFN),
        "order": (record.order, 15),
        "flags": (record.flags, MAX_FLAGS),
        "pid": (record.pid, MAX_PID),
    }
    for name, (value, limit) in limits.items():
        if not 0 <= value <= limit:
            raise ValueError(f"{name} must be 0..{limit} in an LLFree trace, got {value}")
    low = record.time_us | record.pfn << 38 | int(record.is_alloc) << 62
    whole = low | record.order << 63 | record.flags << 67 | record.pid << 96
    return whole.to_bytes(16, "little")


def summarise_llfree(collector: Collector) -> None:
    """Count a trace into the collector; what the file is short of goes to the receipt."""
    path, receipt = collector.path, collector.receipt
    header = read_llfree_header(path)
    summary = TraceSummary("llfree", 0, str(path), facts=dict(header._asdict()))
    collector.traces.append(summary)
    high = zero_order = 0
    for record in read_llfree(path):
        summary.count("alloc" if record.is_alloc else "free", record.order)
        summary.note_time(record.time_us * 1000)
        summary.cpus.add(record.cpu)
        high = max(high, record.pfn)
        zero_order += record.order > 10
    size = path.stat().st_size
    whole = size // PAGE_BYTES - 1
    if size % PAGE_BYTES:
        receipt.say("missing", f"the file is cut: {size % PAGE_BYTES} bytes of a trace page are left out")
    if whole not in (header.pages, header.pages - 1):
        receipt.say("contradictory", f"the header tells of {header.pages} trace pages, the file has {whole}")
    if header.max_pfn > MAX_PFN:
        text = f"the header's highest page frame, {header.max_pfn}, does not fit the 24 bits of a record"
        receipt.say("contradictory", text)
    if high > header.max_pfn:
        receipt.say("contradictory", f"page frame {high} is above the header's highest, {header.max_pfn}")
    if zero_order:
        receipt.say("contradictory", f"{zero_order} records of an order above 10")
    receipt.say("left_out", "LLFree's flags, but those for movable and reclaimable")


def _records(cpu: int, page: bytes) -> Iterator[LlfreeRecord]:
    for low, high in _RECORD.iter_unpack(page[FIRST_RECORD:]):
        if not low and not high:
            continue
        yield LlfreeRecord(
            cpu,
            low & MAX_TIME_US,
            low >> 38 & MAX_PFN,
            bool(low >> 62 & 1),
            low >> 63 | (high & 7) << 1,
            high >> 3 & MAX_FLAGS,
            high >> 32,
        )
