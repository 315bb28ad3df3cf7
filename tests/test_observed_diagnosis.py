"""Verdicts on requests: the kernel's check by hand on small numbers, and whole reports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import spbfast
from spbfast.errors import DumpError
from spbfast.observed import diagnose
from spbfast.observed.blockmath import extfrag_of, unusable_of
from spbfast.observed.evidence import zone_layouts
from spbfast.observed.gfp import decode_gfp
from spbfast.observed.margins import Asked, ZoneNumbers, judge_zone

pytestmark = pytest.mark.shell

FOLDER = Path(__file__).parent / "observed"
KERNEL, ATOMIC = decode_gfp("GFP_KERNEL"), decode_gfp("GFP_ATOMIC")
MOVABLE = decode_gfp("GFP_HIGHUSER_MOVABLE")
# 100 pages above min 400: 500 free, of them order 0 100, order 3 50
ZONE = ZoneNumbers("Normal", "Normal", 500, "counter", 400, 500, reserve=0, blocks=(100, 0, 0, 50, 0))


def verdict(zone: ZoneNumbers, asked: Asked) -> str:
    return judge_zone(zone, asked).verdict


def test_the_mark_must_be_passed_not_met() -> None:
    assert judge_zone(ZONE, Asked(0, KERNEL)).margin == 100
    assert verdict(replace(ZONE, free=401), Asked(0, KERNEL)) == "succeeds"
    assert verdict(replace(ZONE, free=400), Asked(0, KERNEL)) == "shortage"


def test_lowmem_reserve_is_a_verdict_of_its_own() -> None:
    assert verdict(replace(ZONE, reserve=100), Asked(0, KERNEL)) == "reserve"
    assert verdict(replace(ZONE, reserve=99), Asked(0, KERNEL)) == "succeeds"


def test_a_block_of_the_order_must_be_there() -> None:
    assert verdict(ZONE, Asked(3, KERNEL)) == "succeeds"
    assert verdict(ZONE, Asked(4, KERNEL)) == "fragmentation"


def test_a_block_takes_all_but_one_of_its_pages_from_the_count() -> None:
    assert judge_zone(ZONE, Asked(3, KERNEL)).margin == 93


def test_highatomic_pages_do_not_count_for_others() -> None:
    zone = replace(ZONE, free_highatomic=100)
    assert verdict(zone, Asked(0, KERNEL)) == "reserve"
    assert verdict(zone, Asked(0, ATOMIC)) == "succeeds"


def test_cma_pages_count_for_movable_requests_alone() -> None:
    zone = replace(ZONE, free_cma=100)
    assert verdict(zone, Asked(0, KERNEL)) == "type"
    assert verdict(zone, Asked(0, MOVABLE)) == "succeeds"


def test_atomic_requests_dip_into_the_mark() -> None:
    """Half for __GFP_HIGH, a quarter of the rest for not waiting: 400, 200, 150."""
    assert verdict(replace(ZONE, free=151), Asked(0, ATOMIC)) == "succeeds"
    assert verdict(replace(ZONE, free=150), Asked(0, ATOMIC)) == "shortage"


def test_a_boost_does_not_count_against_atomic_requests_of_order_0() -> None:
    """(400 - 200) / 2 less a quarter is 75."""
    zone = replace(ZONE, boost=200)
    assert verdict(replace(zone, free=76), Asked(0, ATOMIC)) == "succeeds"
    assert verdict(replace(zone, free=75), Asked(0, ATOMIC)) == "shortage"


@pytest.mark.parametrize(
    ("types", "flags", "expected"),
    [
        ({"HighAtomic": (0, 0, 0, 1)}, KERNEL, "type"),
        ({"HighAtomic": (0, 0, 0, 1)}, ATOMIC, "succeeds"),
        ({"CMA": (0, 0, 0, 1)}, KERNEL, "type"),
        ({"CMA": (0, 0, 0, 1)}, MOVABLE, "succeeds"),
        ({"Isolate": (0, 0, 0, 9)}, MOVABLE, "type"),
        ({"Movable": (0, 0, 0, 1)}, KERNEL, "succeeds"),
        ({"Reserve": (0, 0, 0, 1)}, KERNEL, "succeeds"),
    ],
)
def test_types_that_a_request_may_take(types: dict[str, tuple[int, ...]], flags, expected: str) -> None:
    zone = replace(ZONE, blocks=(0, 0, 0, 1), by_type=types)
    assert verdict(zone, Asked(3, flags)) == expected
    letters = replace(zone, by_type={}, letters=((), (), (), tuple(types)))
    assert verdict(letters, Asked(3, flags)) == expected


def test_older_kernels_give_no_highatomic_page_of_order_0() -> None:
    zone = replace(ZONE, blocks=(500,), by_type={"HighAtomic": (500,)})
    assert verdict(zone, Asked(0, ATOMIC, is_recent=False)) == "type"
    assert verdict(zone, Asked(0, ATOMIC, is_recent=True)) == "succeeds"


def test_before_4_4_small_blocks_are_taken_off_order_by_order() -> None:
    """Free 500, mark 400: without order 0, 393 against 200; without order 1, 313 against 100; and so on."""
    zone = replace(ZONE, blocks=(100, 40, 20, 30, 0))
    assert verdict(zone, Asked(3, KERNEL, is_old_rule=True)) == "succeeds"
    assert (
        verdict(replace(zone, blocks=(300, 50, 22, 1, 0)), Asked(3, KERNEL, is_old_rule=True))
        == "fragmentation"
    )
    assert verdict(replace(zone, blocks=(300, 50, 22, 1, 0)), Asked(3, KERNEL)) == "succeeds"


def test_without_watermarks_nothing_is_promised() -> None:
    zone = replace(ZONE, mark_min=None)
    assert verdict(zone, Asked(3, KERNEL)) == "unknown"
    assert verdict(zone, Asked(4, KERNEL)) == "fragmentation"


def test_without_blocks_only_order_0_can_be_judged() -> None:
    zone = replace(ZONE, blocks=())
    assert verdict(zone, Asked(0, KERNEL)) == "succeeds"
    assert verdict(zone, Asked(1, KERNEL)) == "unknown"


@pytest.mark.parametrize(
    ("text", "kernel", "zone", "blocking", "high"),
    [
        ("GFP_KERNEL|__GFP_COMP", None, "Normal", True, False),
        ("GFP_ATOMIC|GFP_NOWARN", None, "Normal", False, True),
        ("0x2040d0", (4, 2), "Normal", True, False),
        ("0x20", (2, 6), "Normal", False, True),
        ("0x24000c2", (4, 4), "HighMem", True, False),
        ("0xcc0", (6, 1), "Normal", True, False),
        ("0x820", (6, 6), "Normal", False, True),
        ("GFP_HIGHUSER_MOVABLE", None, "Movable", True, False),
        ("GFP_DMA32|GFP_KERNEL", None, "DMA32", True, False),
        ("GFP_KERNEL|GFP_DMA", None, "DMA", True, False),
    ],
)
def test_flags_of_all_versions(text: str, kernel, zone: str, blocking: bool, high: bool) -> None:
    flags = decode_gfp(text, kernel)
    assert (flags.highest_zone, flags.is_blocking, flags.is_high) == (zone, blocking, high)
    assert flags.guess == ""


def test_a_number_without_a_version_is_a_guess() -> None:
    assert "4.4 to 4.19" in decode_gfp("0x24000c0").guess
    assert "before 4.4" in decode_gfp("0xd0").guess
    assert "since 4.20" in decode_gfp("0xcc0").guess


@pytest.mark.parametrize(
    ("names", "length", "layout"),
    [
        ({"DMA", "DMA32", "Normal"}, 4, ("DMA", "DMA32", "Normal", "Movable")),
        ({"DMA", "DMA32", "Normal"}, 5, ("DMA", "DMA32", "Normal", "Movable", "Device")),
        ({"DMA", "Normal", "HighMem"}, 4, ("DMA", "Normal", "HighMem", "Movable")),
        ({"Normal"}, 2, ("Normal", "Movable")),
        ({"DMA", "DMA32", "Normal", "HighMem"}, 4, ("DMA", "DMA32", "Normal", "HighMem")),
    ],
)
def test_what_the_entries_of_lowmem_reserve_stand_for(
    names: set[str], length: int, layout: tuple[str, ...]
) -> None:
    assert zone_layouts(names, length) == [layout]


def test_indices_of_a_row() -> None:
    assert [extfrag_of((), 3), extfrag_of((0, 0), 0), extfrag_of((4, 0, 1), 2)] == [0, 0, -1000]
    assert extfrag_of((1000,), 9) == 1000 - (1000 + 1000 * 1000 // 512) // 1000
    assert [unusable_of((), 0), unusable_of((3, 0, 1), 2), unusable_of((10**30, 1), 1)] == [1000, 428, 999]


def test_fragmentation_in_a_report() -> None:
    (found,) = diagnose(FOLDER / "failure-order3-dmesg.txt")
    assert (found.order, found.verdict) == (3, "fragmentation")
    assert found.by_order[2] == "succeeds"
    assert any("passes by" in step for step in found.zones[0].steps)


def test_a_report_that_is_later_than_its_failure() -> None:
    (found,) = diagnose(FOLDER / "failure-later-than-itself.txt")
    assert found.verdict == "does not explain"
    assert "later than the failure" in found.sentence
    dma32, dma = found.zones
    assert (dma32.verdict, dma.verdict) == ("succeeds", "reserve")


def test_a_report_without_headline_is_judged_at_every_order(tmp_path: Path) -> None:
    text = (FOLDER / "failure-later-than-itself.txt").read_text().split("\n", 1)[1]
    path = tmp_path / "x.txt"
    path.write_text(text)
    (found,) = diagnose(path)
    assert found.order is None
    assert found.verdict == "does not explain"
    assert "order 0..4 would succeed" in found.sentence
    assert diagnose(path, order=9)[0].verdict == "fragmentation"


def test_shortage_and_reserve_in_old_reports() -> None:
    (found,) = diagnose(FOLDER / "failure-reserve-markdown.txt")
    assert found.verdict == "shortage"
    assert [z.verdict for z in found.zones] == ["shortage", "reserve"]
    assert diagnose(FOLDER / "oom-syslog-octal.txt")[0].verdict == "shortage"


def test_a_report_by_hand_has_no_failure() -> None:
    (found,) = diagnose(FOLDER / "sysrq-m-pager.txt")
    assert found.verdict == "nothing failed"


def test_zoneinfo_and_buddyinfo_together(tmp_path: Path) -> None:
    buddy = tmp_path / "b.txt"
    buddy.write_text("Node 0, zone DMA32 50000 0 0\nNode 0, zone Normal 900 0 0\n")
    both = spbfast.read_dumps([FOLDER / "zoneinfo-then-vmstat.txt", buddy])
    (found,) = spbfast.diagnose(both, order=2)
    assert found.verdict == "fragmentation"
    (small,) = diagnose(both, order=0)
    assert small.verdict == "succeeds"
    (normal,) = diagnose(both, order=0, zone="DMA32", gfp="GFP_ATOMIC")
    assert [z.label for z in normal.zones] == ["node 0 DMA32"]


def test_arguments_that_make_no_sense() -> None:
    path = FOLDER / "failure-order3-dmesg.txt"
    for options, reason in (
        ({"order": 99}, "order must be"),
        ({"gfp": "NONSENSE"}, "unknown flags"),
        ({"zone": "DMA"}, "no zone 'DMA'"),
    ):
        with pytest.raises(DumpError, match=reason):
            diagnose(path, **options)
    with pytest.raises(DumpError, match="no zones to judge"):
        diagnose(FOLDER / "page-owner.txt")


def command(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "spbfast.cli", *args], capture_output=True, text=True, timeout=100
    )


def test_the_commands(tmp_path: Path) -> None:
    path = str(FOLDER / "failure-order3-dmesg.txt")
    done = command("diagnose", path, "--json")
    assert json.loads(done.stdout)[0]["verdict"] == "fragmentation"
    assert "no free block of order 3 or more" in command("diagnose", path).stdout
    assert json.loads(command("read", path, "--json").stdout)["snapshots"][0]["kernel"] == "6.1.0-demo"
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear all,\n")
    wrong = command("read", str(letter))
    assert wrong.returncode == 2
    assert "holds nothing that is known" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_garbled_blocks_are_named_and_not_used(tmp_path: Path) -> None:
    """Two CPUs wrote one line: a reserve of 55512 stands before the 345 of 345*8kB."""
    path = tmp_path / "x.txt"
    text = (
        "Normal free:4000kB min:400kB low:500kB high:600kB present:9000kB managed:9000kB writepending:0kB\n"
    )
    path.write_text(text + "lowmem_reserve[]: 0 0\nNormal: 608*4kB 55512345*8kB 0*16kB = 4000kB\n")
    assert "free blocks are garbled" in spbfast.read_dump(path).receipt.contradictory[0]
    (found,) = diagnose(path, order=1)
    assert found.verdict == "unknown"
    assert any("blocks are not used" in text for text in found.assumptions)


def test_nodes_that_a_request_was_confined_to(tmp_path: Path) -> None:
    zone = "Node {0} Normal free:{1}kB min:400kB low:500kB high:600kB present:90000kB writepending:0kB\n"
    text = "x: page allocation failure: order:0, mode:0xcc0({0}), nodemask=1,cpuset=/,mems_allowed=0-1\n"
    path = tmp_path / "x.txt"
    for gfp, expected in (("GFP_KERNEL", "shortage"), ("GFP_ATOMIC", "does not explain")):
        path.write_text(text.format(gfp) + zone.format(0, 9000) + zone.format(1, 200))
        assert diagnose(path)[0].verdict == expected


def test_a_reserve_that_is_cut_is_not_used(tmp_path: Path) -> None:
    zone = "Node 0 {0} free:400kB min:40kB low:50kB high:60kB\n"
    path = tmp_path / "x.txt"
    text = zone.format("DMA") + "lowmem_reserve[]: 0\nbinder: 12:13 failed\n"
    path.write_text(text + zone.format("Normal") + "lowmem_reserve[]: 0 0 0 0\n")
    observation = spbfast.read_dump(path)
    assert [z.reserve for z in observation.snapshots[0].zones] == [(), (0, 0, 0, 0)]
    assert "1 of 4 entries" in observation.receipt.missing[0]
