"""Counters of /proc/vmstat and free lists while a recording runs, so that each part of it has its own.

Owns the file beside a capture: names, moments by the recorder's clock, and values. A capture itself has
counters and lists before and after only.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from experiments.measured_counts import ZONE

NAMES = (
    *("pgalloc_normal", "pgalloc_dma32", "pgfree", "pageoutrun", "allocstall_normal", "allocstall_movable"),
    *(
        "pgscan_kswapd",
        "pgscan_direct",
        "pgsteal_kswapd",
        "pgsteal_direct",
        "pgsteal_file",
        "pgsteal_anon",
        "pgactivate",
    ),
    *("compact_stall", "compact_success", "compact_fail", "compact_daemon_wake", "compact_isolated"),
    *("compact_migrate_scanned", "compact_free_scanned", "compact_daemon_migrate_scanned"),
    *("compact_daemon_free_scanned", "pgmigrate_success", "pgmigrate_fail"),
    *("thp_fault_alloc", "thp_fault_fallback", "thp_split_page", "thp_split_pmd", "thp_deferred_split_page"),
    *("slabs_scanned", "workingset_refault_file", "workingset_nodereclaim", "oom_kill"),
)
EVERY_S = 0.1
BUDDYINFO, ZONEINFO = Path("/proc/buddyinfo"), Path("/proc/zoneinfo")


def vmstat_path(capture: Path) -> Path:
    """The file beside a capture."""
    return capture.with_suffix(".vmstat.json")


@contextlib.contextmanager
def sampled_vmstat(path: Path) -> Iterator[None]:
    """Look every `EVERY_S` seconds, and write what was seen to `path` at the end."""
    over = threading.Event()
    looks: list[tuple[int, dict[str, int], list[int]]] = []

    def look() -> None:
        while not over.wait(EVERY_S):
            looks.append((time.clock_gettime_ns(time.CLOCK_MONOTONIC), read_vmstat(), read_lists()))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    names = [name for name in NAMES if looks and name in looks[0][1]]
    data = {
        "names": names,
        "time_ns": [t for t, _, _ in looks],
        "values": [[seen[n] for n in names] for _, seen, _ in looks],
        "lists": [lists for _, _, lists in looks],
    }
    path.write_text(json.dumps(data), encoding="utf-8")


def read_vmstat() -> dict[str, int]:
    """All counters of now."""
    lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}


def read_lists() -> list[int]:
    """Free blocks of zone Normal by order, then pages on per-CPU lists; empty without such a zone."""
    for line in BUDDYINFO.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[3] == ZONE:
            return [*map(int, words[4:]), _per_cpu_pages()]
    return []


def _per_cpu_pages() -> int:
    zones = re.split(r"^Node \d+, zone +", ZONEINFO.read_text(encoding="utf-8"), flags=re.MULTILINE)
    mine = next(text for text in zones if text.split(maxsplit=1)[:1] == [ZONE])
    return sum(int(number) for number in re.findall(r"^ +count: +(\d+)", mine, flags=re.MULTILINE))


def listed_between(data: Mapping[str, list], begin_ns: int, end_ns: int) -> np.ndarray:
    """Means of `read_lists` over the looks between two moments: float64 [orders + 1].

    Raises
    ------
    ValueError
        When nobody looked.
    """
    times = np.array(data["time_ns"], np.int64)
    inside = np.flatnonzero((times >= begin_ns) & (times < end_ns))
    if not len(inside) or "lists" not in data:
        raise ValueError("the free lists were not looked at during the recording")
    return np.array([data["lists"][i] for i in inside], np.float64).mean(axis=0)


def counted_between(data: Mapping[str, list], begin_ns: int, end_ns: int) -> dict[str, float]:
    """How far each counter moved between two moments; between two looks it moves evenly.

    Raises
    ------
    ValueError
        When the looks do not cover both moments.
    """
    times = np.array(data["time_ns"], np.int64)
    if not len(times) or times[0] > begin_ns or times[-1] < end_ns:
        raise ValueError("the counters were not looked at during the whole recording")
    values = np.array(data["values"], np.float64)
    at = np.array([begin_ns, end_ns]) - times[0]
    ends = [np.interp(at, times - times[0], column) for column in values.T]
    return {name: float(end - begin) for name, (begin, end) in zip(data["names"], ends, strict=True)}
