"""Section `khugepaged`: how fast huge pages are rebuilt.

Owns the settings of the kernel thread, which the kernel keeps in
/sys/kernel/mm/transparent_hugepage/khugepaged; what it does is decided in model/loop/collapse.py.
"""

from __future__ import annotations

from spbfast.config.base import MAX_COUNT, Model, key
from spbfast.config.machine import HOUR, SECOND
from spbfast.config.units import Duration
from spbfast.constants import PB_PAGES


class KhugepagedSpec(Model):
    """Huge pages rebuilt from base pages, in the background."""

    enabled: bool = key(
        False,
        "rebuild huge pages of daemons and guests from base pages: of faults that fell back, of huge pages "
        "that were split, and those that came back from swap",
        "ours: off; mainline runs it, at a pace that takes 41 hours for 247 GB",
    )
    pages_to_scan: int = key(
        8 * PB_PAGES,
        "pages looked at before it sleeps, in whole regions of 2 MiB",
        "mainline, khugepaged_pages_to_scan",
        ge=PB_PAGES,
        le=MAX_COUNT,
    )
    scan_sleep: Duration = key(
        10 * SECOND,
        "time between two scans (scan_sleep_millisecs)",
        "mainline, khugepaged_scan_sleep_millisecs",
        gt=0,
        le=HOUR,
    )
    alloc_sleep: Duration = key(
        60 * SECOND,
        "pause after a huge page could not be allocated (alloc_sleep_millisecs)",
        "mainline, khugepaged_alloc_sleep_millisecs",
        gt=0,
        le=HOUR,
    )
    max_ptes_swap: int = key(
        PB_PAGES // 8,
        "pages of a region that may be in swap; they are read back",
        "mainline, khugepaged_max_ptes_swap",
        ge=0,
        lt=PB_PAGES,
    )
