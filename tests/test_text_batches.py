"""Traces as text by columns: the same events as one by one, in whatever form the lines are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spbfast.errors import DumpError
from spbfast.observed.event_columns import EventBatch
from spbfast.observed.loading import read_events
from spbfast.observed.receipt import Receipt
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.textbatches import AT_ONCE, PIECE, TEXT_KINDS, _one_by_one, text_batches
from tests.markdown_tools import ROOT

OBSERVED = ROOT / "tests" / "observed"
TEXTS = sorted(path for path in OBSERVED.iterdir() if path.suffix == ".txt")


def joined(batches: list[EventBatch]) -> list[list[int]]:
    """All events as rows."""
    rows = [np.column_stack([b.time_ns, b.cpu, b.kind, b.fields]) for b in batches]
    return np.concatenate(rows).tolist() if rows else []


def both(path: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Events by columns and one by one; what is told of losses must be the same."""
    told, other = Receipt(), Receipt()
    found = joined(list(text_batches(path, kind_of_file(path)[1], told)))
    expected = joined(list(_one_by_one(read_events(path, other))))
    assert told.lost == other.lost
    assert told.repaired == other.repaired
    return found, expected


def usual(rng: np.random.Generator, i: int) -> str:
    head = f"   task {i % 3}-{i % 99}  [{i % 4:03d}] d..1. {10 + i // 1000:5d}.{i * 37 % 10**6:06d}: "
    pfn = f"0x{rng.integers(1 << 30):x}" if i % 3 else str(rng.integers(1 << 30))
    order, mt = rng.integers(11), rng.integers(4)
    page = f"page=00000000{i:08x} pfn={pfn}"
    return (
        head
        + [
            f"mm_page_alloc: {page} order={order} migratetype={mt} gfp_flags=GFP_KERNEL|__GFP_ZERO",
            f"mm_page_free: {page} order={order}",
            f"mm_page_alloc_zone_locked: {page} order={order} migratetype={mt} percpu_refill=1",
            f"mm_page_pcpu_drain: {page} order={order} migratetype={mt}",
            f"mm_page_free_batched: {page} order=0",
            f"mm_page_alloc_extfrag: {page} alloc_order={order} fallback_order=9 pageblock_order=9 "
            f"alloc_migratetype={mt} fallback_migratetype=1 fragmenting=0 change_ownership=1",
        ][int(rng.integers(6))]
    )


ODD = (
    "CPU:2 [LOST 17 EVENTS]",
    "# a comment",
    " task-7 [001] .... 12.000001: sched_switch: prev_comm=a",
    " task-7 [001] .... 12.000002: mm_page_alloc: page=(null) pfn=0 order=4 migratetype=0",
    " task-7 [001] .... 12.000003: mm_page_alloc: page=1 pfn=970744 order=0 nr_free=3650 migratetype=0",
    " task-7 [001] .... 12.000004: mm_page_free: page=1 pfn=9a0b order=2",
    " => free_pcppages_bulk",
    "task 77 [003] 12.000005123: kmem:mm_page_free: page=0x1 pfn=0x77 order=3",
    " task-7 [001] .... 12.000006:\nmm_page_free: page=1 pfn=77\norder=1",
    "> task-7 [001] .... 12.000007: mm_page_free: page=1 pfn=0x99 order=0",
    "\x1b[1m task-7 [001] .... 12.000008: mm_page_free: page=1 pfn=0x9a order=0\x1b[0m",
    " 24)  |  /* mm_page_alloc: page=00000000bb pfn=16384 order=9 migratetype=1 gfp_flags=0 */",
    " m\xfcll-7 [001] .... 12.000009: mm_page_free: page=1 pfn=0x9b order=0",
    "",
)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_samples_give_the_same_events(path: Path) -> None:
    found, expected = both(path)
    assert found == expected


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("odd", [0.0, 0.0005, 0.3])
def test_odd_lines_among_usual_ones_change_nothing(tmp_path: Path, odd: float, ends: str) -> None:
    rng = np.random.default_rng(3)
    lines = [usual(rng, i) for i in range(4000)]
    for i in np.flatnonzero(rng.random(len(lines)) < odd).tolist():
        lines[i] = ODD[int(rng.integers(len(ODD)))].replace("\n", ends)
    path = tmp_path / "trace.txt"
    path.write_bytes(("# tracer: nop" + ends + ends.join(lines)).encode())
    assert path.stat().st_size > 4 * PIECE
    found, expected = both(path)
    assert found == expected
    assert len(found) > 2000
    assert {row[2] for row in found} == set(range(1, len(TEXT_KINDS.names)))


def test_batches_are_large_and_the_last_line_needs_no_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "trace.txt"
    path.write_text("\n".join(usual(rng, 0) for _ in range(AT_ONCE + 4000)))
    sizes = [len(batch) for batch in text_batches(path, "utf-8", Receipt())]
    assert sizes[0] >= AT_ONCE > 10 * max(sizes[1:], default=0) or len(sizes) == 1


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(usual(np.random.default_rng(5), 1) + "\n" + "x" * 200_000)
    with pytest.raises(DumpError, match="line is longer than 65536 characters") as caught:
        list(text_batches(path, "utf-8", Receipt()))
    assert caught.value.line == 2
