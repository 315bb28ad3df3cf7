"""Readers of dumps and traces, on small files of invented machines in the forms in which people post them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spbfast.errors import DumpError
from spbfast.observed import Observation, read_dump, read_dumps, read_events
from spbfast.observed.cleanup import cleaned_lines, is_quoted_printable, without_prefix
from spbfast.observed.describe import observation_data, observation_text
from spbfast.observed.llfree import LlfreeRecord, pack_record, read_llfree, read_llfree_header, write_llfree
from spbfast.observed.receipt import Receipt

pytestmark = pytest.mark.shell

FOLDER = Path(__file__).parent / "observed"


def load(name: str) -> Observation:
    return read_dump(FOLDER / name)


def write(folder: Path, text: str | bytes, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda p: p.name)
def test_every_file_prints_and_is_plain_data(path: Path) -> None:
    observation = read_dump(path)
    assert "receipt" in observation_text(observation)
    assert json.loads(json.dumps(observation_data(observation)))["files"] == [str(path)]
    assert observation.receipt.not_understood == 0


def test_published_indices_equal_the_computed_ones() -> None:
    observation = load("buddyinfo-and-indices.txt")
    assert [s.kind for s in observation.snapshots] == ["buddyinfo", "unusable_index", "extfrag_index"]
    said = [line for line in observation.receipt.read if "equal" in line]
    assert said == [
        "extfrag_index: all 22 published values equal those computed from buddyinfo",
        "unusable_index: all 22 published values equal those computed from buddyinfo",
    ]


def test_one_wrong_digit_of_an_index_is_named(tmp_path: Path) -> None:
    text = (FOLDER / "buddyinfo-and-indices.txt").read_text().replace("0.119", "0.118")
    observation = read_dump(write(tmp_path, text))
    assert "1 of 22" in observation.receipt.contradictory[0]
    assert "0.118 published, 0.119 computed" in observation.receipt.contradictory[0]


def test_any_number_of_orders() -> None:
    observation = load("buddyinfo-17-orders-64k.txt")
    assert observation.snapshots[0].nr_orders == 17
    assert observation.snapshots[0].zones[1].node == 8
    assert observation.receipt.model_lacks == ["17 orders"]


def test_a_wrapped_and_quoted_pagetypeinfo() -> None:
    observation = load("pagetypeinfo-wrapped-quoted.txt")
    snapshot = observation.snapshots[0]
    zone = snapshot.zones[0]
    assert snapshot.pageblock_order == 10
    assert snapshot.types == ("Unmovable", "Movable", "Reclaimable", "CMA")
    assert zone.free_by_type["Movable"] == (100000, 44, 21, 9, 3, 1, 1, 0, 0, 1, 7)
    assert zone.capped_by_type == {"Movable": frozenset({0})}
    assert zone.pageblocks == {"Unmovable": 19, "Movable": 170, "Reclaimable": 3, "CMA": 4}
    assert observation.receipt.lower_bounds
    assert set(observation.receipt.repaired) == {"quote marks '>' taken off", "wrapped rows joined"}
    assert any("'...'" in line for line in observation.receipt.missing)
    assert observation.receipt.model_lacks == ["type CMA", "pageblocks of order 10"]


def test_quoted_printable_breaks_a_capped_number() -> None:
    zone = load("pagetypeinfo-quoted-printable.txt").snapshots[0].zones[0]
    assert zone.free_by_type["Movable"][:4] == (100000, 100000, 100000, 77123)
    assert zone.capped_by_type["Movable"] == frozenset({0, 1, 2})
    assert len(zone.free_by_type["Unmovable"]) == 11


def test_headers_repeated_for_each_node_make_one_table() -> None:
    observation = load("pagetypeinfo-old-two-nodes.txt")
    (snapshot,) = observation.snapshots
    assert [z.label for z in snapshot.zones] == ["node 0 Normal", "node 1 Normal"]
    assert snapshot.types == ("Unmovable", "Reclaimable", "Movable", "Reserve")
    assert observation.receipt.model_lacks == ["type Reserve"]


def test_the_same_zone_again_begins_another_table(tmp_path: Path) -> None:
    row = "Node 0, zone   Normal      1      2      3\n"
    assert len(read_dump(write(tmp_path, row * 3)).snapshots) == 3


def test_a_row_that_is_cut_is_missing(tmp_path: Path) -> None:
    text = "Node 0, zone DMA 1 2 3 4\nNode 0, zone Normal 1 2\n"
    assert "2 of 4 orders" in read_dump(write(tmp_path, text)).receipt.missing[0]


def test_zoneinfo_ends_where_vmstat_begins() -> None:
    observation = load("zoneinfo-then-vmstat.txt")
    zoneinfo, vmstat = observation.snapshots
    dma32, normal, movable = zoneinfo.zones
    assert (dma32.pages["free"], dma32.pages["promo"], dma32.reserve) == (50000, 1750, (0, 0, 4000, 4000))
    assert dma32.node_stats == {"nr_inactive_anon": 100, "nr_active_anon": 2000}
    assert dma32.pcp[0].values == {"count": 12, "high": 300, "batch": 63, "high_min": 300, "high_max": 900}
    assert normal.stats["nr_zone_write_pending"] == -1
    assert movable.pages["managed"] == 0
    assert vmstat.counters["compact_stall"] == 9
    assert any("-1, below zero" in line for line in observation.receipt.contradictory)


def test_slabinfo_with_blanks_and_wraps() -> None:
    observation = load("slabinfo-small.txt")
    caches = {c.name: c for c in observation.snapshots[0].caches}
    assert list(caches) == ["demo_inode", "demo cache with blanks", "kmalloc-64"]
    assert caches["demo_inode"].pages_per_slab == 4
    assert observation.receipt.contradictory == ["slabinfo: kmalloc-64: 90 objects in use of 80"]


def test_a_failure_report_in_dmesg_form() -> None:
    (snapshot,) = load("failure-order3-dmesg.txt").snapshots
    assert snapshot.request is not None
    assert (snapshot.request.order, snapshot.request.outcome) == (3, "failure")
    assert snapshot.request.gfp == "GFP_KERNEL|__GFP_ZERO|__GFP_COMP"
    assert snapshot.kernel == "6.1.0-demo"
    zone = snapshot.zones[0]
    assert zone.free_blocks[:3] == (7000, 1000, 1)
    assert zone.letters[0] == "UME"
    assert (zone.pages["free"], zone.pages["min"], zone.reserve) == (9004, 2000, (0, 0, 0, 0, 0))
    assert snapshot.counters["free"] == 9004


def test_an_oom_report_in_syslog_with_octal_line_ends_and_split_reserves() -> None:
    (snapshot,) = load("oom-syslog-octal.txt").snapshots
    assert (snapshot.page_kb, snapshot.nr_orders) == (64, 9)
    assert snapshot.counters["free"] == 700
    assert snapshot.zones[0].reserve == (0, 0)
    assert snapshot.zones[0].free_blocks == (300, 100, 50, 0, 0, 0, 0, 0, 0)


def test_asterisks_that_markdown_ate() -> None:
    observation = load("failure-reserve-markdown.txt")
    dma, normal = observation.snapshots[0].zones
    assert dma.free_blocks == (2, 1, 0, 0, 0, 0, 1, 1, 0)
    assert normal.free_blocks[0] == 300
    assert any("asterisks are gone" in line for line in observation.receipt.guessed)
    assert any("9 of 11 orders" in line for line in observation.receipt.missing)


def test_a_line_that_a_pager_cut() -> None:
    observation = load("sysrq-m-pager.txt")
    zone = observation.snapshots[0].zones[0]
    assert "mlo" not in zone.pages
    assert zone.pages["managed"] == 225000
    assert observation.receipt.missing == ["line 3: cut by a pager ('>' at its end)"]
    assert observation.receipt.left_out[0].startswith("line 5: a remark")


def test_two_reports_of_two_cpus_in_each_other(tmp_path: Path) -> None:
    zone = "Node 0 DMA32 free:{0}kB min:4kB low:8kB high:8kB\n"
    blocks = "Node 0 DMA32: {0}*4kB 0*8kB = {1}kB\n"
    text = zone.format(40) + zone.format(80) + blocks.format(10, 40) + blocks.format(20, 80)
    first, second = read_dump(write(tmp_path, text)).snapshots
    assert (first.zones[0].pages["free"], first.zones[0].free_blocks) == (10, (10, 0))
    assert (second.zones[0].pages["free"], second.zones[0].free_blocks) == (20, (20, 0))


def test_values_below_zero_and_beyond_memory_are_named(tmp_path: Path) -> None:
    text = "Normal free:40kB min:4kB low:8kB high:1234567890123456kB present:18446744073709550000kB\n"
    text += "lowmem_reserve[]: 0 72057594037927935\nNormal: 10*4kB = 40kB\n"
    observation = read_dump(write(tmp_path, text))
    zone = observation.snapshots[0].zones[0]
    assert "high" not in zone.pages
    assert zone.pages["present"] == -404
    assert zone.reserve == ()
    assert len(observation.receipt.contradictory) == 3


def test_a_headline_without_its_report_is_kept(tmp_path: Path) -> None:
    text = "kern.warn kernel: [ 7.1] x: page allocation failure: order:2, mode:0x820(GFP_ATOMIC)\n"
    (snapshot,) = read_dump(write(tmp_path, text)).snapshots
    assert snapshot.request is not None
    assert (snapshot.request.order, snapshot.request.has_dump) == (2, False)


def test_a_wrapped_headline(tmp_path: Path) -> None:
    text = "x: page allocation failure: order:4,\nmode:0x40cc0(GFP_KERNEL|\n__GFP_COMP),nodemask=(null)\n"
    text += "Mem-Info:\nDMA free:4kB min:4kB low:4kB high:4kB\n"
    (snapshot,) = read_dump(write(tmp_path, text)).snapshots
    assert snapshot.request is not None
    assert (snapshot.request.order, snapshot.request.gfp) == (4, "GFP_KERNEL|__GFP_COMP")


def test_tables_of_one_machine_are_held_against_each_other(tmp_path: Path) -> None:
    zoneinfo = "Node 0, zone Normal\n  pages free     100\n        min      5\n"
    buddyinfo = "Node 0, zone Normal 30 40 0\n"
    typed = "Node 0, zone Normal, type Movable 50 75 0\n"
    paths = [write(tmp_path, t, n) for t, n in ((zoneinfo, "z"), (buddyinfo, "b"), (typed, "p"))]
    (line,) = read_dumps(paths).receipt.contradictory
    assert "100 (zoneinfo), 110 (buddyinfo), 200 (pagetypeinfo)" in line
    assert "taken is zoneinfo" in line


def test_page_size_from_meminfo_beside_zoneinfo(tmp_path: Path) -> None:
    zoneinfo = "Node 0, zone Normal\n  pages free     100\n        managed  1000\n"
    paths = [write(tmp_path, zoneinfo, "z"), write(tmp_path, "MemTotal: 64000 kB\nMemFree: 6400 kB\n", "m")]
    assert read_dumps(paths).receipt.facts["page size"].startswith("64 KiB")


def test_page_size_is_assumed_where_most_memory_is_not_managed_yet(tmp_path: Path) -> None:
    """24 GB of which zone Normal manages a quarter: not pages of 16 KiB."""
    zoneinfo = "Node 0, zone Normal\n  pages free     100\n        present  6000\n        managed  1600\n"
    paths = [write(tmp_path, zoneinfo, "z"), write(tmp_path, "MemTotal: 24000 kB\nMemFree: 400 kB\n", "m")]
    receipt = read_dumps(paths).receipt
    assert receipt.facts["page size"] == "4 KiB, assumed"
    assert "pages of 4 KiB: the file does not tell the page size" in receipt.guessed


def test_a_trace_with_every_trap() -> None:
    observation = load("trace-ftrace-mixed.txt")
    receipt = observation.receipt
    (trace,) = observation.traces
    assert trace.events == {
        "mm_page_alloc": 3,
        "mm_page_free": 1,
        "mm_page_free_batched": 1,
        "mm_page_pcpu_drain": 1,
        "mm_page_alloc_extfrag": 1,
    }
    assert "1000 of 1009 events" in receipt.lost[0]
    assert "17 events at 1 mark" in receipt.lost[1]
    assert "1 of the allocations failed" in receipt.read[0]
    assert any("one free each" in line for line in receipt.contradictory)
    assert any("call chains" in line for line in receipt.left_out)


def test_events_of_a_trace() -> None:
    events = list(read_events(FOLDER / "trace-ftrace-mixed.txt"))
    first, failed, freed = events[:3]
    assert (first.time_ns, first.cpu, first.pid, first.pfn) == (10_000_001_000, 2, 345, 0x1000)
    assert failed.is_failed_allocation
    assert failed.pfn is None
    assert freed.pfn == first.pfn
    extfrag = events[5]
    assert extfrag.line == 14
    assert extfrag.fields["change_ownership"] == 1
    assert extfrag.fields["alloc_migratetype"] == 2
    graph = events[6]
    assert (graph.cpu, graph.pid, graph.time_ns, graph.pfn) == (11, None, None, 16384)


def test_events_of_perf_shrinkers_and_printed_fields() -> None:
    perf, start, end, kmem = read_events(FOLDER / "trace-perf-and-reports.txt")
    assert (perf.pid, perf.cpu, perf.pfn) == (2201, 7, 4096)
    assert start.fields["objects to shrink"] == 1234567890123
    assert (start.fields["cache items"], start.fields["priority"]) == (1000, 12)
    assert end.fields["last shrinker return val"] == -1
    assert kmem.fields["bytes_req"] == 16


def test_events_of_bpftrace() -> None:
    alloc, free, huge = read_events(FOLDER / "trace-bpftrace.csv")
    assert (alloc.name, alloc.pfn, free.name, free.pfn) == ("mm_page_alloc", 4096, "mm_page_free", 4096)
    assert huge.fields["order"] == 9


def test_only_pfn_0_is_a_failure(tmp_path: Path) -> None:
    text = (
        "a-1 [000] .... 1.000001: mm_page_alloc: page=0 pfn=77 order=0 migratetype=0 gfp_flags=GFP_KERNEL\n"
    )
    (event,) = read_events(write(tmp_path, text))
    assert event.pfn == 77


def test_a_free_printed_twice_under_one_name(tmp_path: Path) -> None:
    line = "a-1 [000] 1.000001: mm_page_free_direct: page=ffffea00 pfn=7 order=0\n"
    receipt = read_dump(write(tmp_path, line * 2)).receipt
    assert receipt.contradictory == ["1 free printed twice, with no allocation in between"]


def test_page_owner_is_counted() -> None:
    (trace,) = load("page-owner.txt").traces
    assert trace.events == {"page": 2}
    assert trace.orders["page"] == {0: 1, 3: 1}
    assert trace.types["page in block"] == {"Movable in Movable": 1, "Unmovable in Movable": 1}
    assert trace.facts == {"migrated": 1, "with memory cgroup": 1}


def test_plot_fragmentation_streams_and_counts() -> None:
    observation = load("plotfrag.json")
    (trace,) = observation.traces
    assert trace.events == {"extfrag": 1, "compaction_failure": 1}
    assert trace.types["extfrag"] == {"RECLAIMABLE from UNMOVABLE": 1}
    assert trace.facts["kernel_version"] == "6.17.0-demo"
    assert observation.receipt.lost == ["2 of the 3 events that the metadata tells of are in the file"]


def test_plot_fragmentation_that_is_cut(tmp_path: Path) -> None:
    text = (FOLDER / "plotfrag.json").read_text()
    observation = read_dump(write(tmp_path, text[: text.index("compaction_failure")]))
    assert sum(observation.traces[0].events.values()) == 1
    assert "ends within its list" in observation.receipt.missing[0]


def test_counters_and_compactsnoop() -> None:
    assert load("llfree-counters.csv").snapshots[0].counters["kernel_alloc_order0_bulk"] == 7
    (trace,) = load("compactsnoop.txt").traces
    assert trace.events == {"compaction partial": 1, "compaction complete": 1}


RECORDS = [
    LlfreeRecord(0, 1, 0x1000, True, 0, 0x10000008, 77),
    LlfreeRecord(3, (1 << 38) - 1, (1 << 24) - 1, False, 10, (1 << 29) - 1, (1 << 32) - 1),
    *[LlfreeRecord(1, t, t, t % 2 == 0, t % 11, t, t) for t in range(1, 600)],
]


def test_llfree_reads_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    header = write_llfree(path, RECORDS)
    assert (header.pages, header.cores) == (5, 4)
    assert path.stat().st_size == 6 * 4096
    assert read_llfree_header(path) == header
    assert sorted(read_llfree(path)) == sorted(RECORDS)
    (trace,) = read_dump(path).traces
    assert sum(trace.events.values()) == len(RECORDS)
    assert trace.cpus == {0, 1, 3}


def test_llfree_bits_are_where_the_format_has_them() -> None:
    record = LlfreeRecord(0, 0b101, 0b11, True, 0b1001, 0b110, 0xDEADBEEF)
    number = int.from_bytes(pack_record(record), "little")
    fields = [(38, 0b101), (24, 0b11), (1, 1), (4, 0b1001), (29, 0b110), (32, 0xDEADBEEF)]
    for width, value in fields:
        assert number & ((1 << width) - 1) == value
        number >>= width
    assert number == 0


def test_llfree_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pfn must be 0\.\.16777215"):
        pack_record(LlfreeRecord(0, 0, 1 << 24, True, 0, 0, 0))
    path = tmp_path / "trace"
    write_llfree(path, RECORDS)
    data = bytearray(path.read_bytes())
    data[4096] = 9
    with pytest.raises(DumpError, match="names CPU 9"):
        list(read_llfree(write(tmp_path, bytes(data))))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x1f\x8b123", "gunzip"),
        (b"PERFILE2....", "perf script"),
        (b"\x17\x08\x44tracing", "trace-cmd report"),
        (b"\x00\x01\x02\x03" * 500, "binary"),
        (b"Dear all, please find attached\n", "holds nothing that is known"),
        (b"Node 0, zone Normal " + b"1 " * 70000, "file.txt:1: error: line is longer"),
        (b'{"events": [1]}', "expected an event"),
        (b'{"events": [{"a": nope}]}', "is no JSON"),
        (b'{"events": [' + b'{"a":' * 100, "nested deeper"),
        (b'{"metadata": 1}', 'no list "events"'),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="error: ") as error:
        read_dump(write(tmp_path, data))
    assert reason in str(error.value)


def test_directories_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path, "no plain file"),
        (tmp_path / "pipe", "no plain file"),
        (tmp_path / "x", "No such"),
    ):
        with pytest.raises(DumpError, match=reason):
            read_dump(path)


def test_utf16_and_old_line_ends(tmp_path: Path) -> None:
    row = "Node 0, zone Normal 1 2 3\r\nNode 0, zone DMA 1 2 3\r\n"
    assert len(read_dump(write(tmp_path, row.encode("utf-16"))).snapshots[0].zones) == 2
    assert len(read_dump(write(tmp_path, row.replace("\r\n", "\r"))).snapshots[0].zones) == 2


@pytest.mark.parametrize(
    "prefix",
    [
        "[   12.345678] ",
        "[   12.345678][ T4321] ",
        "<4>[   12.345678] ",
        "6,1234,5678,-;",
        "Mar  5 06:07:08 host kernel: ",
        "Tue Mar  5 06:07:08 2019 kern.warn kernel: [  111.222333] ",
        "2019-03-05T06:07:08.123456+01:00 host kernel: ",
        "[Tue Mar  5 06:07:08 2019] ",
        "01-02 03:04:05.678  123  456 W kernel  : ",
        "kern  :warn  : [   12.345678] ",
    ],
)
def test_prefixes_of_loggers(prefix: str) -> None:
    assert without_prefix(f"{prefix}DMA free:4kB") == "DMA free:4kB"


def repaired(text: str) -> list[str]:
    return [line.text for line in cleaned_lines([(1, text)], Receipt())]


def test_repairs_of_lines() -> None:
    assert repaired("> > Node 0, zone") == ["Node 0, zone"]
    assert repaired("> >100000 >100000") == [">100000 >100000"]
    assert repaired("a:1kB\\x0a b:2kB") == ["a:1kB", " b:2kB"]
    assert repaired("&lt;idle&gt;-0") == ["<idle>-0"]
    assert repaired("\x1b[31mDMA\x1b[0m") == ["DMA"]
    assert repaired("[ 1.000001] DMA: 1*4kB[ 1.000002] next") == [
        "[ 1.000001] DMA: 1*4kB",
        "[ 1.000002] next",
    ]
    assert repaired("1\\*4kB") == ["1*4kB"]


def test_quoted_printable_is_told_from_fields() -> None:
    assert is_quoted_printable(["free:3=20", "total =3D 4", "broken=", "12"])
    assert not is_quoted_printable(["pfn=0x12 order=10"])
    assert not is_quoted_printable(["nr_reclaimed=20"])


def test_a_damaged_character_is_no_end(tmp_path: Path) -> None:
    text = b"Node 0, zone Normal 1 2 3\n\xff\xfe\x80 broken\nNode 0, zone DMA 1 2 3\n"
    observation = read_dump(write(tmp_path, text))
    assert len(observation.snapshots[0].zones) == 2
    assert observation.receipt.not_understood == 1


def test_a_report_whose_words_stand_on_lines_of_their_own() -> None:
    """As consoles print what the kernel writes piece by piece."""
    text = (FOLDER / "failure-later-than-itself.txt").read_text()
    lines = []
    for line in text.splitlines():
        prefix, body = line[:15], line[15:]
        pieces = body.split() if "lowmem" in body or "*4kB" in body else [body]
        lines += [f"{prefix}{piece} " for piece in pieces]
    whole = load("failure-later-than-itself.txt").snapshots[0]
    (split,) = read_lines(lines).snapshots
    for one, other in zip(whole.zones, split.zones, strict=True):
        assert (one.free_blocks, one.letters, one.reserve) == (
            other.free_blocks,
            other.letters,
            other.reserve,
        )
        assert (one.pages, one.printed_kb) == (other.pages, other.printed_kb)


def read_lines(lines: list[str]) -> Observation:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read_dump(write(Path(folder), "\n".join(lines) + "\n"))


@pytest.mark.parametrize(
    "name", ["zoneinfo-then-vmstat.txt", "slabinfo-small.txt", "buddyinfo-and-indices.txt"]
)
def test_tables_behind_the_prefix_of_a_logger(name: str) -> None:
    lines = (FOLDER / name).read_text().splitlines()
    prefixed = read_lines([f"2019-03-05T06:07:08+0100 host kernel: {line}" for line in lines])
    plain = load(name)
    zones = [[z.pages for z in s.zones] for s in plain.snapshots if s.kind == "zoneinfo"]
    assert zones == [[z.pages for z in s.zones] for s in prefixed.snapshots if s.kind == "zoneinfo"]
    assert [len(s.caches) for s in plain.of_kind("slabinfo")] == [
        len(s.caches) for s in prefixed.of_kind("slabinfo")
    ]
    assert [z.free_blocks for s in plain.snapshots for z in s.zones] == [
        z.free_blocks for s in prefixed.snapshots for z in s.zones
    ]


def test_an_oom_kill_in_a_memory_cgroup_speaks_of_no_zone() -> None:
    lines = [
        "x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "memory: usage 1048576kB, limit 1048576kB, failcnt 12",
    ]
    (snapshot,) = read_lines(lines).snapshots
    assert snapshot.request is not None
    assert snapshot.request.outcome == "memcg"


def test_trace_cmd_and_latency_forms() -> None:
    lines = [
        "cpus=4",
        "   <...>-2222  [003]  1234.567890123: mm_page_alloc:   page=0xff pfn=0x48d0 order=0",
        "CPU:3 [EVENTS DROPPED]",
        "  cc1-1234    2d..2  123us : mm_page_free: page=0000000012345678 pfn=12 order=1",
    ]
    observation = read_lines(lines)
    (trace,) = observation.traces
    assert (trace.first_ns, trace.last_ns) == (123_000, 1_234_567_890_123)
    assert trace.cpus == {2, 3}
    assert observation.receipt.lost == ["an unknown number of events at 1 mark of the recorder"]
    assert observation.receipt.not_understood == 0


def test_reports_of_two_callers_in_each_other() -> None:
    """With CONFIG_PRINTK_CALLER each line says who wrote it."""
    lines = (FOLDER / "failure-order3-dmesg.txt").read_text().splitlines()
    first = [line.replace("] ", "][ T101] ", 1) for line in lines if line.startswith("[")]
    second = [
        line.replace("T101", "C2").replace("order:3", "order:1").replace("7000*", "9*") for line in first
    ]
    mixed = [line for pair in zip(first, second, strict=True) for line in pair]
    one, other = read_lines(mixed).snapshots
    assert one.request is not None
    assert other.request is not None
    assert (one.request.order, one.zones[0].free_blocks[0]) == (3, 7000)
    assert (other.request.order, other.zones[0].free_blocks[0]) == (1, 9)
