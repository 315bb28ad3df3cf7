"""The reference twin against the golden files, and against itself on random tiny zones."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spbfast.verify.golden import load_golden
from tests.reference import Geometry, OracleZone, Policy
from tests.reference.replay import RESULT_COLUMNS, Difference, replay
from tests.reference.words import CLEAN, EMPTY, MAX_ORDER, MOVABLE, PB_PAGES, TAINTED, UNMOVABLE, list_hash
from tests.strategies import drive, mainline_geometries, operations, policies, spb_geometries

# The twin is plain Python in both passes.
pytestmark = pytest.mark.shell

GOLDEN = Path(__file__).parent / "golden"
FAST_BYTES = 52_000
LARGE_FILES = (
    *("p08_1g_movable", "p09_1g_nofrag", "p10_1g_huge", "p11_4g_mixed", "p14_1g_pcp"),
    "p18_4g_throughput",
)

# Every column that a replay compares, with the smallest file in which it says something.
COLUMNS = {
    "p06_64m_bulk": ("pfn",),
    "p20_64m_fallback": (
        *("ck_nr_free", "ck_list_hash", "ck_pb", "ck_stat", "lst_pfn", "xf_event", "xf_pfn"),
        *("xf_alloc_order", "xf_fallback_order", "xf_alloc_mt", "xf_fallback_mt"),
        *("xf_change_ownership", "xf_fragmenting"),
    ),
    "p12_64m_pcp": ("pfn", "ck_pcp_len", "ck_pcp_hash", "ck_pcp_stat", "lst_pcp_pfn"),
    "spb_p_v1_45_evac_tiny": (
        *RESULT_COLUMNS,
        *("ck_category", "ck_bucket", "ck_pos", "ck_free_pageblocks", "ck_free_pages", "ck_hint"),
        *("ck_content_pageblocks", "ck_exact_pageblocks", "ck_used_pages", "ck_pb_label", "ck_pb_bits"),
        *("ck_nr_free", "ck_list_hash"),
    ),
    "spb_p_v2_contig": ("mv_event", "mv_handle", "mv_pfn"),
    "shrink_p18_stop_empty_seeks": (
        *("result", "run_event", "run_node", "run_passes", "run_last_prio", "run_freed", "run_scanned"),
        *("run_counts", "run_calls", "call_run", "call_prio", "call_memcg", "call_shr", "call_freeable"),
        *("call_backlog", "call_delta", "call_target", "call_scanned", "call_freed", "call_backlog_after"),
        *("call_left", "end_objects", "end_backlog", "end_bit"),
    ),
}


def golden_params() -> list:
    """Every committed golden file; all but the small ones are slow."""
    return [
        pytest.param(path, id=path.stem, marks=[] if path.stat().st_size < FAST_BYTES else pytest.mark.slow)
        for path in sorted(GOLDEN.glob("*.npz"))
    ]


def test_golden_files_are_all_here() -> None:
    kinds = [path.stem.split("_")[0] for path in GOLDEN.glob("*.npz")]
    assert kinds.count("spb") == 131
    assert kinds.count("shrink") == 24
    assert len(kinds) == 131 + 24 + 22 - len(LARGE_FILES)


@pytest.mark.parametrize("path", golden_params())
def test_twin_agrees_with_golden_file(path: Path) -> None:
    golden = load_golden(path)
    assert golden.nr_events > 0
    assert replay(golden) is not None


@pytest.mark.heavy
@pytest.mark.parametrize("name", LARGE_FILES)
def test_twin_agrees_with_large_golden_file(name: str) -> None:
    folder = os.environ.get("SPBFAST_GOLDEN_DIR", "")
    path = Path(folder) / f"{name}.npz"
    if not folder or not path.is_file():
        pytest.skip(f"set SPBFAST_GOLDEN_DIR to a folder that has {name}.npz")
    assert replay(load_golden(path)) is not None


@pytest.mark.parametrize(("name", "column"), [(n, c) for n, columns in COLUMNS.items() for c in columns])
def test_replay_notices_one_wrong_number(name: str, column: str) -> None:
    golden = load_golden(GOLDEN / f"{name}.npz")
    wrong = golden[column].copy()
    assert wrong.size, "the column is empty in this file, so that the test would show nothing"
    wrong.flat[wrong.size // 2] += np.array(1, dtype=wrong.dtype)
    with pytest.raises(Difference, match=golden.name):
        replay(dataclasses.replace(golden, arrays={**golden.arrays, column: wrong}))


def test_list_hash_depends_on_order() -> None:
    assert list_hash([]) == 0xCBF29CE484222325
    assert list_hash([0]) == 0xCBF29CE484222325 * 0x100000001B3 % 2**64
    assert list_hash([1, 2]) != list_hash([2, 1])


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(spb_geometries((2, 4, 6, 8)), policies(), operations(), st.sampled_from((0, 3)))
def test_superpageblock_twin_keeps_its_books(geometry, policy, sequence, pin_modulus) -> None:
    zone = OracleZone(geometry, policy, pin_modulus=pin_modulus)
    for _ in drive(zone, sequence):
        zone.check()
    for pfn in list(zone.live()):
        zone.free(pfn)
    zone.check()
    after = zone.snapshot()
    assert after["category"] == [EMPTY] * geometry.n_spb
    assert {order for _, order, _ in after["free"]} == {MAX_ORDER}
    assert sum(after["free_pages"]) == geometry.zone_pages


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(mainline_geometries(), operations(workers=False))
def test_mainline_twin_keeps_its_books(geometry, sequence) -> None:
    zone = OracleZone(geometry, Policy(superpageblocks=False))
    for _ in drive(zone, sequence):
        zone.check()
    for pfn in list(zone.live()):
        zone.free(pfn)
    free = zone.snapshot()["free"]
    assert sum(len(pfns) << order for (_, order, _), pfns in free.items()) == geometry.zone_pages


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(spb_geometries(), policies(), operations())
def test_workers_that_are_off_do_nothing(geometry, policy, sequence) -> None:
    zone = OracleZone(geometry, dataclasses.replace(policy, evacuate=False, defrag=False, contig=False))
    for name, _ in drive(zone, sequence):
        assert not zone.event.moves
        assert name != "contig" or zone.event.pfn == -1


def test_movable_memory_taints_nothing() -> None:
    zone = OracleZone(Geometry(4 * 8 * PB_PAGES, 0, 8), Policy())
    while zone.alloc(3, MOVABLE) >= 0:
        pass
    assert zone.snapshot()["category"] == [CLEAN] * 4
    assert zone.snapshot()["bucket"] == [0] * 4


def test_unmovable_memory_packs_into_few_superpageblocks() -> None:
    zone = OracleZone(Geometry(4 * 8 * PB_PAGES, 0, 8), Policy())
    for _ in range(9 * PB_PAGES):
        assert zone.alloc(0, UNMOVABLE) >= 0
    assert zone.snapshot()["category"] == [TAINTED, TAINTED, EMPTY, EMPTY]


def test_mainline_zone_has_no_workers() -> None:
    zone = OracleZone(Geometry(3 * PB_PAGES + 7, 333), Policy(superpageblocks=False))
    before = zone.snapshot()
    assert zone.contig() == -1
    assert zone.evacuate(0, UNMOVABLE).moved == 0
    assert zone.defrag(0).moved == 0
    assert zone.snapshot() == before


def test_superpageblock_zone_needs_an_aligned_start() -> None:
    with pytest.raises(ValueError, match="aligned start"):
        OracleZone(Geometry(8 * PB_PAGES, 333, 4), Policy())


def test_evacuation_moves_movable_blocks_to_clean_memory() -> None:
    zone = OracleZone(Geometry(3 * 4 * PB_PAGES, 0, 4), Policy(reserve_floor=0, reserve_shift=-1))
    assert zone.alloc(9, UNMOVABLE) == 0
    while zone.alloc(9, MOVABLE) >= 0:
        pass
    inside = [pfn for pfn, (_, mt) in zone.live().items() if mt == MOVABLE and pfn < 4 * PB_PAGES]
    outside = [pfn for pfn in zone.live() if pfn >= 4 * PB_PAGES]
    assert inside
    for pfn in outside[:2]:
        zone.free(pfn)
    event = zone.evacuate(0, UNMOVABLE)
    assert event.moved == 2 * PB_PAGES
    assert [old for _, old, _ in event.moves] == inside[:2]
    assert {new for _, _, new in event.moves} == set(outside[:2])
