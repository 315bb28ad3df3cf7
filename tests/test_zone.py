"""Zone: the interactive allocator from the outside, its answers and what it says to misuse."""

from __future__ import annotations

import numpy as np
import pytest

import spbfast
from spbfast.constants import PB_PAGES, AllocFlag, Mt, Outcome, P, Req
from spbfast.errors import ConfigError, InvariantError, SpbfastError, ZoneError
from spbfast.model.state.build import PcpConf
from spbfast.model.state.page_state import states_of
from spbfast.zone import Zone

START = 0x100000
MIB = 1 << 20
PCP = {"batch": 8, "high": 32}


def small(policy="v1@30", **more) -> Zone:
    """64 MiB in superpageblocks of 16 MiB."""
    return Zone("64MiB", policy, spb_size="16MiB", **more)


def test_public_name() -> None:
    assert spbfast.Zone is Zone


def test_requests_return_absolute_pfns() -> None:
    zone = small()
    assert zone.nr_free_pages() == 64 * MIB // 4096
    assert zone.alloc(order=3, mt=0) == START
    assert zone.alloc(0, Mt.MOVABLE) == START + 4096
    assert zone.last.outcome == Outcome.TAKE_EMPTY_SUPERPAGEBLOCK
    assert zone.tainted() == zone.last.tainted == 1
    zone.free(START)
    assert zone.tainted() == 0
    zone.check()


def test_many_are_as_good_as_one_by_one() -> None:
    one, many = small(), small()
    orders = (0, 3, 9, 1, 10, 0)
    for order, mt in zip(orders, (0, 1, 1, 2, 1, 0), strict=True):
        single = [one.alloc(order, mt) for _ in range(7)]
        assert many.alloc_many(7, order, mt).tolist() == single
        one.free(single[3])
        many.free_many(single[3:4])
    assert np.array_equal(states_of(one.state.page), states_of(many.state.page))
    one.check()


def test_a_full_zone_answers_minus_one() -> None:
    zone = small("mainline")
    pfns = zone.alloc_many(20, 10, 1)
    assert (pfns >= 0).sum() == 16
    assert pfns[16:].tolist() == [-1] * 4
    assert zone.alloc() == -1
    assert zone.last.outcome == Outcome.NO_PAGE
    zone.free_many(pfns[:16])
    assert zone.nr_free_blocks()[10, 1] == 16
    zone.check()


@pytest.mark.compiled
def test_slots_grow_with_what_is_held() -> None:
    zone = small("mainline")
    pfns = zone.alloc_many(9000, 0, 0)
    assert len(set(pfns.tolist())) == 9000
    more = zone.alloc_many(9000, 0, 2)
    assert (more >= 0).sum() == 64 * MIB // 4096 - 9000
    zone.check()
    zone.free_many(np.concatenate([pfns[::2], more[more >= 0]]))
    zone.check()
    assert zone.nr_free_pages() == 64 * MIB // 4096 - 4500


def test_flags_are_those_of_the_golden_files() -> None:
    zone = Zone("4MiB", "mainline")
    while zone.alloc(8, Mt.MOVABLE) >= 0:
        pass
    zone.free(zone.start_pfn)
    assert zone.alloc(3, Mt.UNMOVABLE, AllocFlag.NOFRAGMENT) == -1
    assert zone.alloc(3, Mt.UNMOVABLE, 0x100 | 0x1000) == -1
    assert zone.alloc(3, Mt.UNMOVABLE) == zone.start_pfn


def test_free_list_head_first() -> None:
    zone = small()
    assert zone.free_list(10, 1)[:3].tolist() == [START, START + 1024, START + 2048]
    assert zone.free_list(10, 1, spb=1)[0] == START + 4096
    zone.alloc(8, 0)
    assert zone.free_list(8, 0).tolist() == [START + 256]
    assert zone.free_list(9, 0).tolist() == [START + 512]
    assert zone.free_list(4, 2).tolist() == []
    mainline = small("mainline")
    assert mainline.free_list(10, 1).size == 16


def test_tables_of_pageblocks_and_superpageblocks() -> None:
    zone = small()
    zone.alloc(0, Mt.RECLAIMABLE)
    zone.alloc(9, Mt.MOVABLE)
    assert zone.pageblock_types()[:3].tolist() == [2, 2, 1]
    assert zone.pageblock_types().size == 32
    table = zone.superpageblocks()
    assert table.index.name == "spb"
    assert table.category.tolist() == ["tainted", "clean", "empty", "empty"]
    assert table.start_pfn.tolist() == [START + i * 4096 for i in range(4)]
    assert table.position.tolist() == [0, 0, 0, 1]
    assert table.used_reclaimable.tolist() == [1, 0, 0, 0]
    assert table.used_movable.tolist() == [0, 512, 0, 0]
    assert table.content_movable.tolist() == [0, 1, 0, 0]
    assert table.free_pages.sum() == zone.nr_free_pages()
    assert table.free_pageblocks.tolist() == [7, 7, 8, 8]
    assert repr(zone) == "<Zone 64 MiB at pfn 0x100000, 61.9961 MiB free, 1 tainted>"


@pytest.mark.compiled
def test_unaligned_mainline_zone() -> None:
    zone = Zone(61 * MIB + 300 * 4096, "mainline", start_pfn=START + 333)
    assert zone.nr_free_pages() == 61 * 256 + 300
    pfns = zone.alloc_many(10_000)
    assert pfns.min() >= START + 333
    zone.free_many(pfns)
    zone.check()
    assert zone.pageblock_types().size == 32


def test_per_cpu_lists() -> None:
    zone = small("mainline", pcp=PCP)
    pfn = zone.alloc(0, 1)
    assert zone.nr_free_pages() == 64 * 256 - 8
    zone.free(pfn)
    zone.check()
    with pytest.raises(ZoneError, match=r"is free, on a per-CPU list \(freed twice\?\)"):
        zone.free(pfn)
    zone.drain()
    assert zone.nr_free_pages() == 64 * 256
    zone.check()
    other = small(pcp=PcpConf(8, 16, 64))
    other.free_many(other.alloc_many(100, 0, 0))
    other.check()
    other.drain()
    assert other.tainted() == 0


def test_workers() -> None:
    zone = Zone.from_picture("UM.. MM..", {"preset": "v1@30", "reserve_floor": 0, "reserve_shift": -1})
    assert zone.evacuate(0, Mt.UNMOVABLE) == PB_PAGES
    assert zone.last.requests == Req.SHRINK_AFTER_EVACUATION
    assert zone.picture() == "U... MMmm"
    pfn = zone.contig()
    assert zone.last.outcome in (Outcome.CONTIG_EMPTIED, Outcome.NO_PAGE)
    assert pfn == -1
    zone.check()
    zone = Zone.from_picture("UM.. MM.. ....")
    pfn = zone.contig()
    assert pfn == START + 8 * PB_PAGES
    assert zone.picture() == "UM.. MM.. ####"
    zone.check()
    zone.free(pfn)
    assert zone.picture() == "UM.. MM.. ...."
    zone.check()


def test_defrag_makes_room() -> None:
    policy = {"preset": "v1@30", "reserve_floor": 1, "reserve_shift": -1}
    zone = Zone.from_picture("UMMM MM..", policy)
    assert zone.defrag(1) == 0
    assert zone.defrag(0) == 2 * PB_PAGES
    assert zone.picture() == "U..M MMMM"
    zone.check()


def test_mainline_has_no_workers() -> None:
    zone = small({"preset": "v1@30", "superpageblocks": False})
    zone.alloc(0, 0)
    assert zone.evacuate() == 0
    assert zone.defrag(0) == 0
    assert zone.contig() == -1
    zone.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "1GB"}, "size must be a multiple of 4194304 bytes"),
        ({"size": 0}, "size must be a multiple"),
        ({"size": "4"}, "size: 4 has no unit; write e.g. 4MiB"),
        ({"size": 4.5}, "size must be an integer, got 4.5"),
        ({"size": "64MiB", "spb_size": "3MiB"}, "spb_size must be a power of two of at least 4 MiB"),
        ({"size": "64MiB", "start_pfn": 333}, "start_pfn must be a multiple of 1024, got 333"),
        ({"size": 1 << 43}, "size must be at most 960GiB"),
        ({"size": "64MiB", "pcp": {"batch": 8}}, "pcp needs batch, and high or high_min and high_max"),
        ({"size": "64MiB", "pcp": {"batch": 8, "hihg": 8}}, "pcp has no 'hihg'; it has batch, flags, high"),
        ({"size": "64MiB", "pcp": {"batch": 0, "high": 8}}, "pcp needs batch >= 1"),
        ({"size": "64MiB", "pcp": 63}, "pcp must be a mapping such as"),
    ],
)
def test_impossible_zones(arguments, message) -> None:
    with pytest.raises(ZoneError, match=message):
        Zone(**arguments)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("v1@3", "unknown preset 'v1@3'"),
        ({"evacuat": True}, "policy.evacuat: unknown key; did you mean 'evacuate'"),
        ({"evacuate_max_superpageblocks": 65}, "policy.evacuate_max_superpageblocks: .*got 65"),
        ({"slab_shrink_triggers": {"never": 1}}, "policy.slab_shrink_triggers.never"),
        (np.zeros(3, np.int64), "a policy array has shape"),
    ],
)
def test_wrong_policies(policy, message) -> None:
    with pytest.raises(ConfigError, match=message):
        small(policy)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: z.alloc(11), "order must be 0..10, got 11"),
        (lambda z: z.alloc(-1), "order must be 0..10, got -1"),
        (lambda z: z.alloc(True), "order must be an integer, got True"),
        (lambda z: z.alloc(0, 3), r"mt must be 0 \(unmovable\), 1 \(movable\) or 2 \(reclaimable\), got 3"),
        (lambda z: z.alloc(0, "U"), "mt must be an integer, got 'U'"),
        (lambda z: z.alloc(0, 0, 1), "flags 0x1 has bits that mean nothing; AllocFlag has CMA 0x80"),
        (lambda z: z.alloc_many(-1), "n must not be negative, got -1"),
        (lambda z: z.free(5), "pfn 0x5 is outside the zone, 0x100000..0x103fff"),
        (lambda z: z.free(START + 64 * 256), "pfn 0x104000 is outside the zone"),
        (lambda z: z.free(START + 3), "pfn 0x100003 does not begin a block; 0x100000 does"),
        (lambda z: z.free(START + 8), r"pfn 0x100008 is free \(freed twice\?\)"),
        (lambda z: z.free(START + 9), r"pfn 0x100009 is free \(freed twice\?\)"),
        (lambda z: z.free_many([START, START]), "pfn 0x100000 is named twice"),
        (lambda z: z.free_many([1.5]), "page frame numbers are integers, got float64"),
        (lambda z: z.free_list(0, 4), "mt must be 0..3, got 4"),
        (lambda z: z.free_list(11, 0), "order must be 0..10"),
        (lambda z: z.free_list(0, 0, spb=4), "spb must be 0..3, got 4"),
        (lambda z: z.evacuate(0, 1), "evacuation is for unmovable or reclaimable requests"),
        (lambda z: z.defrag(4), "spb must be 0..3, got 4"),
    ],
)
def test_misuse_is_told_and_changes_nothing(call, message) -> None:
    zone = small()
    assert zone.alloc(3, 0) == START
    before = zone.nr_free_pages()
    with pytest.raises(ZoneError, match=message) as caught:
        call(zone)
    assert isinstance(caught.value, SpbfastError)
    assert zone.nr_free_pages() == before
    zone.check()


def test_freed_twice() -> None:
    zone = small()
    pfns = zone.alloc_many(4, 0, 0)
    zone.free(int(pfns[1]))
    with pytest.raises(ZoneError, match="freed twice"):
        zone.free(int(pfns[1]))
    with pytest.raises(ZoneError, match="freed twice"):
        zone.free_many(pfns)
    zone.free_many(pfns[[0, 2, 3]])
    zone.check()


def test_inside_a_contiguous_allocation() -> None:
    zone = small()
    first = zone.contig()
    for pfn in (first + 1, first + 1024):
        with pytest.raises(
            ZoneError, match=f"is inside a contiguous allocation; free its first page, {first:#x}"
        ):
            zone.free(pfn)
    zone.free(first)
    zone.check()


def test_check_finds_what_is_broken() -> None:
    zone = small()
    zone.alloc(0, 0)
    zone.state.area.nr[0] += 1
    with pytest.raises(InvariantError, match=r"area\.nr\[0\]: expected 1, found 2"):
        zone.check()


def test_policy_forms_mean_the_same() -> None:
    from spbfast.config.policy import Policy
    from spbfast.config.presets import preset_values
    from spbfast.model.lowering.lower_policy import policy_array

    whole = Policy.model_validate({**preset_values("v1@30"), "preset": "v1@30"})
    array = policy_array("v1_30")
    assert np.array_equal(policy_array(whole), array)
    assert np.array_equal(policy_array({"preset": "v1@30", "slab_shrink_throttle": "100ms"}), array)
    assert policy_array({"slab_shrink": False})[P.shrink_requests] == 0
    changed = policy_array({"slab_shrink_triggers": {"would_taint": False}})
    assert np.flatnonzero(changed != array).tolist() == [37]
    assert policy_array({"movable_reserve": "soft"})[44] == 1
