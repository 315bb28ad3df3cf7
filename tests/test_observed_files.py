"""Verdicts on dumps and traces that others made public, where SPBFAST_REALFILES_DIR points to them.

The files are other people's data and not in this repository. Each is read, or refused with a named
reason; what can be checked by computing is checked.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spbfast.errors import DumpError
from spbfast.observed import Observation, diagnose, read_dump, read_dumps, read_events

pytestmark = [
    pytest.mark.shell,
    pytest.mark.skipif(
        not os.environ.get("SPBFAST_REALFILES_DIR"),
        reason="set SPBFAST_REALFILES_DIR to the folder of public dumps",
    ),
]
FOLDER = Path(os.environ.get("SPBFAST_REALFILES_DIR") or ".")

# name without .txt -> kinds found, in the order of the file
KINDS = {
    "buddyinfo-android-3.4-highmem": "buddyinfo",
    "buddyinfo-extfrag-unusable-700GB-wide": "unusable_index extfrag_index buddyinfo",
    "buddyinfo-insights-server-2numa": "buddyinfo",
    "buddyinfo-router-arm32-4.1": "buddyinfo",
    "buddyinfo-server-3.10-2numa": "buddyinfo",
    "buddyinfo-ubuntu-3.2-desktop": "buddyinfo",
    "buddyinfo-ubuntu-5.4-compute-openstack": "buddyinfo",
    "compaction-aliyun-6.x-with-buddyinfo": "buddyinfo events",
    "compaction-direct-reclaim-android-dmabuf": "events",
    "compaction-oom-4.7-wrapped": "events",
    "compactsnoop-bcc-2numa": "compactsnoop",
    "extfrag_index-server-3.10-2numa": "extfrag_index",
    "ftrace-alloc-2020-nr_free-nullpage": "events",
    "ftrace-extfrag-4.6": "events",
    "ftrace-free-iomap-6.x-hexpfn": "events",
    "ftrace-free_direct-2.6.33-doubled": "events",
    "ftrace-kmemcache-5.4-with-header": "events",
    "ftrace-kmemcache-6.13-printk-format": "events",
    "jc-fixture-buddyinfo": "buddyinfo",
    "jc-fixture-pagetypeinfo": "pagetypeinfo",
    "jc-fixture-slabinfo": "slabinfo",
    "jc-fixture-vmstat": "vmstat",
    "jc-fixture-zoneinfo": "zoneinfo",
    "jc-fixture-zoneinfo2": "zoneinfo",
    "llfree-bench-frag-buddy-out.csv": "counters",
    "llfree-bench-size_counters-t180-t0.csv": "counters",
    "llfree-bench-size_counters-t180-t2.csv": "counters",
    "meminfo-4node-64kpages-numa-old": "meminfo_report",
    "meminfo-6.17-zspages-line": "meminfo_report",
    "meminfo-armv7-pageblock13-14orders": "meminfo_report",
    "meminfo-dcache-4.9-journal-wrapped-split": "meminfo_report",
    "meminfo-ia64-16kpages-2.6-wrapped-unsigned": "meminfo_report",
    "meminfo-qemu-4.4-dmesg-two-dumps": "meminfo_report meminfo_report",
    "oom-arm64-64kpages-5.4-cma": "meminfo_report meminfo_report meminfo_report meminfo_report",
    "oom-ubuntu-5.4-sysrq-f-pager-truncated": "meminfo_report",
    "pagefail-4.2-order5-mailwrapped": "meminfo_report",
    "pagefail-6.18-rpi4-btrfs-order4-highatomic": "meminfo_report",
    "pagefail-android-4.19-atomic-order0": "meminfo_report",
    "pagefail-openwrt-6.6-syslog-prefix": "meminfo_report",
    "pagefail-zfs-2.6.38-asterisks-eaten": "meminfo_report meminfo_report",
    "pageowner-4.5-migrated": "page_owner",
    "pageowner-5.17-memcg": "page_owner",
    "pageowner-dmesg-5.15-tracks": "page_owner",
    "pagetypeinfo-android-3.4-highmem-pb10": "pagetypeinfo",
    "pagetypeinfo-blocks-only-and-vmstat-4.7": "pagetypeinfo vmstat",
    "pagetypeinfo-capped-100000-line": "pagetypeinfo",
    "pagetypeinfo-hvo-400GB-2numa-elided": "pagetypeinfo",
    "pagetypeinfo-router-arm32-4.1-fragmented": "pagetypeinfo",
    "pagetypeinfo-rpi-pb10-cma-csdn": "pagetypeinfo",
    "pagetypeinfo-server-3.10-2numa": "pagetypeinfo",
    "pagetypeinfo-ubuntu-3.2-desktop": "pagetypeinfo",
    "pagetypeinfo-vm-1g-highatomic": "pagetypeinfo",
    "pagetypeinfo-zswap-unmovable": "pagetypeinfo",
    "pagetypeinfo-zynq-arm32-4.4-cma": "pagetypeinfo",
    "perfscript-memwalk-pagehex-is-pfn": "events",
    "perftrace-alloc-imap-2011-order3": "events",
    "plotfrag-load-6.17-first40.json": "plotfrag",
    "shrinkslab-kswapd-2013-trimmed": "events",
    "shrinkslab-kswapd-5.x-deferred-wrapped": "events",
    "slabinfo-router-arm32-4.1": "slabinfo",
    "slabinfo-ubuntu-5.4-compute-openstack": "slabinfo",
    "sysrqm-ppc64le-64kpages-5.13-quotedprintable": "meminfo_report",
    "sos-coreos-rhel8-4.18-buddyinfo": "buddyinfo",
    "sos-coreos-rhel8-4.18-meminfo": "meminfo",
    "sos-coreos-rhel8-4.18-pagetypeinfo": "pagetypeinfo",
    "sos-coreos-rhel8-4.18-slabinfo": "slabinfo",
    "sos-coreos-rhel8-4.18-vmstat": "vmstat",
    "sos-coreos-rhel8-4.18-zoneinfo": "zoneinfo",
    "vmstat-6.18-nixos-head": "vmstat",
    "vmstat-android-3.4": "vmstat",
    "vmstat-router-arm32-4.1": "vmstat",
    "vmstat-ubuntu-3.2-desktop": "vmstat",
    "zoneinfo-android-3.4-highmem": "zoneinfo",
    "zoneinfo-router-arm32-4.1": "zoneinfo",
    "zoneinfo-ubuntu-3.2-desktop": "zoneinfo",
    "zoneinfo-ubuntu-5.4-compute-openstack": "zoneinfo",
}

# What a simulated machine could not be started from.
LACKS = {
    "buddyinfo-android-3.4-highmem": ["zone HighMem"],
    "meminfo-4node-64kpages-numa-old": ["pages of 64 KiB", "17 orders"],
    "meminfo-armv7-pageblock13-14orders": ["type CMA", "type Isolate", "14 orders"],
    "meminfo-ia64-16kpages-2.6-wrapped-unsigned": ["pages of 16 KiB", "17 orders"],
    "oom-arm64-64kpages-5.4-cma": ["pages of 64 KiB", "type CMA", "14 orders"],
    "pagetypeinfo-android-3.4-highmem-pb10": ["type Reserve", "pageblocks of order 10", "zone HighMem"],
    "pagetypeinfo-router-arm32-4.1-fragmented": ["type Reserve", "pageblocks of order 10"],
    "pagetypeinfo-rpi-pb10-cma-csdn": ["type CMA", "pageblocks of order 10"],
    "pagetypeinfo-zynq-arm32-4.4-cma": ["type CMA", "pageblocks of order 10"],
    "pagetypeinfo-vm-1g-highatomic": [],
    "sysrqm-ppc64le-64kpages-5.13-quotedprintable": ["pages of 64 KiB", "9 orders"],
    "zoneinfo-android-3.4-highmem": ["zone HighMem"],
}

# Verdicts of all reports of a file, in its order.
VERDICTS = {
    "meminfo-6.17-zspages-line": ["shortage"],
    "meminfo-dcache-4.9-journal-wrapped-split": ["shortage"],
    "meminfo-qemu-4.4-dmesg-two-dumps": ["does not explain", "does not explain"],
    "oom-arm64-64kpages-5.4-cma": ["type", "unknown", "unknown", "does not explain"],
    "oom-ubuntu-5.4-sysrq-f-pager-truncated": ["nothing failed"],
    "pagefail-4.2-order5-mailwrapped": ["fragmentation"],
    "pagefail-6.18-rpi4-btrfs-order4-highatomic": ["does not explain"],
    "pagefail-android-4.19-atomic-order0": ["type"],
    "pagefail-openwrt-6.6-syslog-prefix": ["unknown"],
    "pagefail-zfs-2.6.38-asterisks-eaten": ["shortage", "unknown"],
    "sysrqm-ppc64le-64kpages-5.13-quotedprintable": ["nothing failed"],
}


def path_of(name: str) -> Path:
    path = FOLDER / f"{name}.txt"
    if not path.exists():
        pytest.skip(f"no {path.name} in SPBFAST_REALFILES_DIR")
    return path


def load(name: str) -> Observation:
    return read_dump(path_of(name))


def kinds(observation: Observation) -> list[str]:
    return [s.kind for s in observation.snapshots] + [t.kind for t in observation.traces]


def test_files_that_the_table_does_not_name_are_read_or_refused_by_name() -> None:
    for path in sorted(FOLDER.glob("*.txt")):
        if path.name.removesuffix(".txt") in KINDS:
            continue
        try:
            said = read_dump(path).receipt.read
        except DumpError as error:
            said = [str(error)] if path.name in str(error) else []
        assert said, path.name


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_file_is_read(name: str) -> None:
    assert kinds(load(name)) == KINDS[name].split()


@pytest.mark.parametrize("name", sorted(LACKS))
def test_what_the_model_lacks_is_named(name: str) -> None:
    assert load(name).receipt.model_lacks == LACKS[name]


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_verdicts(name: str) -> None:
    assert [d.verdict for d in diagnose(path_of(name))] == VERDICTS[name]


def test_all_88_published_indices_are_computed() -> None:
    said = load("buddyinfo-extfrag-unusable-700GB-wide").receipt
    assert sum("all 44 published values equal" in line for line in said.read) == 2
    assert said.contradictory == []


def test_the_report_after_an_order_4_failure_does_not_explain_it() -> None:
    path = path_of("pagefail-6.18-rpi4-btrfs-order4-highatomic")
    for gfp in (None, "GFP_NOFS|__GFP_COMP", "GFP_KERNEL|__GFP_NOWARN"):
        (found,) = diagnose(path, order=4, gfp=gfp)
        assert found.verdict == "does not explain"
    normal = found.zones[0]
    assert (normal.label, normal.margin) == ("Normal", 472)


def test_three_tables_of_one_machine_contradict_each_other() -> None:
    path_of("sos-coreos-rhel8-4.18-zoneinfo")
    observation = read_dumps(sorted(FOLDER.glob("sos-coreos-*.txt")))
    line = next(text for text in observation.receipt.contradictory if "DMA32" in text)
    for count in ("122,008 (zoneinfo)", "123,190 (buddyinfo)", "198,205 (pagetypeinfo)"):
        assert count in line
    assert "taken is zoneinfo" in line


def test_tables_read_at_different_moments() -> None:
    path_of("extfrag_index-server-3.10-2numa")
    observation = read_dumps(sorted(FOLDER.glob("*server-3.10-2numa.txt")))
    said = observation.receipt.contradictory
    assert any("extfrag_index: 12 of 44" in line for line in said)
    assert not any("node 0 DMA:" in line for line in said)


def test_blocks_add_up_to_what_reports_print() -> None:
    for name in sorted(n for n, found in KINDS.items() if "meminfo_report" in found):
        path = FOLDER / f"{name}.txt"
        reports = read_dump(path).of_kind("meminfo_report") if path.exists() else []
        for zone in (z for report in reports for z in report.zones):
            assert zone.doubt == ""


def test_isolated_pages_are_on_the_lists_and_not_in_the_counter() -> None:
    (line,) = load("meminfo-armv7-pageblock13-14orders").receipt.contradictory
    assert "351,096 kB by the counter, 489,288 kB on the lists: isolated pages" in line


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("compaction-direct-reclaim-android-dmabuf", 26),
        ("compaction-oom-4.7-wrapped", 7),
        ("ftrace-kmemcache-5.4-with-header", 6),
        ("ftrace-kmemcache-6.13-printk-format", 4),
        ("shrinkslab-kswapd-2013-trimmed", 13),
        ("shrinkslab-kswapd-5.x-deferred-wrapped", 3),
    ],
)
def test_every_event_is_found(name: str, count: int) -> None:
    events = list(read_events(path_of(name)))
    assert len(events) == count
    assert all(event.time_ns is not None for event in events)
