"""Recordings of our own machine: judged they agree page by page, replayed they give the same lists.

A zone under mainline is the running kernel here: what it does is written down as the kernel's events, with
tables before and after, into a capture. A recording that is bent in one place must be seen to differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from spbfast.constants import MOVABLE, NR_MT, PB_ORDER, PB_PAGES, Mt, Outcome
from spbfast.errors import TraceError
from spbfast.model.loop.judge_events import NR_JUDGE_COUNTS, NR_JUDGE_FIELDS, judge_page_events
from spbfast.model.loop.recorded_pages import (
    NR_PAGE_ROW_FIELDS,
    PAGE_FREE,
    X_BULK,
    X_MT,
    X_OP,
    X_ORDER,
    X_PFN,
    hold_start,
    list_start,
)
from spbfast.model.loop.replay import boot_zone
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import ZoneSpec, build_zone
from spbfast.observed import capture_file as container
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds, pack_batch
from spbfast.observed.page_classes import PageClass
from spbfast.recordings.judging import judge_file
from spbfast.recordings.page_rows import ZONE_LEVEL, RowMaker
from spbfast.recordings.replaying import ReplayRequest, replay_file
from spbfast.recordings.start_types import ReclaimableTable, pageblock_types
from spbfast.zone import Zone

START = 1 << 20
KINDS = EventKinds(
    (
        "lost",
        "mm_page_alloc_zone_locked",
        "mm_page_pcpu_drain",
        "mm_page_free",
        "mm_page_alloc_extfrag",
        "mm_page_alloc",
    ),
    (
        ("events",),
        ("pfn", "order", "migratetype", "percpu_refill"),
        ("pfn", "order", "migratetype"),
        ("pfn", "order"),
        (
            "pfn",
            "alloc_order",
            "fallback_order",
            "alloc_migratetype",
            "fallback_migratetype",
            "change_ownership",
        ),
        ("pfn", "order", "gfp_flags", "migratetype"),
    ),
)
LOCKED, DRAIN, FREE, EXTFRAG, ALLOC = range(1, 6)
PCP_ORDERS = (0, 1, 2, 3, 9)


@dataclass
class Kernel:
    """A zone that writes down what it does."""

    size: str = "32MiB"
    rows: list[tuple[int, ...]] = field(default_factory=list)
    held: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.zone = Zone(self.size, "mainline", start_pfn=START)

    def alloc(self, order: int, mt: int) -> None:
        labels = self.zone.pageblock_types()
        pfn = self.zone.alloc(order, mt)
        if pfn < 0:
            return
        self.held[pfn] = order
        pageblock = (pfn - START) >> 9
        before, after = labels[pageblock], self.zone.pageblock_types()[pageblock]
        if self.zone.last.outcome == Outcome.TAKE_PREFERRED:
            self.rows.append((LOCKED, pfn, order, mt, 0))
        else:
            self.rows.append((EXTFRAG, pfn, order, 9, mt, int(before), int(before != after)))
        self.rows.append((ALLOC, pfn, order, 0, mt))

    def free(self, pfn: int) -> None:
        order = self.held.pop(pfn)
        label = int(self.zone.pageblock_types()[(pfn - START) >> 9])
        self.rows.append((FREE, pfn, order))
        if order in PCP_ORDERS:
            self.rows.append((DRAIN, pfn, order, label))
        self.zone.free(pfn)

    def churn(self, steps: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        orders = rng.choice([0, 0, 0, 1, 2, 3, 4, 6, 8, 9], steps)
        types = rng.choice([0, 1, 1, 1, 2], steps)
        for order, mt, draw in zip(orders.tolist(), types.tolist(), rng.random(steps), strict=True):
            if self.held and draw < 0.45:
                held = sorted(self.held)
                self.free(held[int(draw * 1e6) % len(held)])
            else:
                self.alloc(order, mt)

    def table(self) -> str:
        """pagetypeinfo of the zone."""
        names = ("Unmovable", "Movable", "Reclaimable", "HighAtomic")
        lines = ["Page block order: 9", "Pages per block:  512", ""]
        lines += ["Free pages count per migrate type at order " + " ".join(f"{o:6d}" for o in range(11))]
        for mt, row in enumerate(self.zone.nr_free_blocks().T[: NR_MT - 1]):
            counts = " ".join(f"{n:6d}" for n in row)
            lines.append(f"Node    0, zone   Normal, type {names[mt]:>12} {counts}")
        blocks = np.bincount(self.zone.pageblock_types(), minlength=4)
        lines += ["", "Number of blocks type " + " ".join(f"{n:>12}" for n in names)]
        lines += ["Node 0, zone   Normal " + " ".join(f"{n:12d}" for n in blocks[:4]), ""]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """The capture; time is the number of the event."""
        nr = self.zone.nr_pages
        with open(path, "wb") as file:
            container.write_prolog(file)
            rows = [{"name": n, "fields": list(f)} for n, f in zip(KINDS.names, KINDS.fields, strict=True)]
            container.write_chunk(file, container.HEAD, container.json_chunk({"events": rows}))
            self._tables(file, "before", 0)
            about = {
                "moment": "before",
                "node": 0,
                "zone": "Normal",
                "first_pfn": START,
                "start_ns": 0,
                "end_ns": 0,
            }
            pages = np.full(nr, PageClass.FREE, np.uint8)
            data = container.json_chunk(about) + b"\n" + pages.tobytes()
            container.write_chunk(file, container.PAGES, data)
            for first in range(0, len(self.rows), 700):
                part = self.rows[first : first + 700]
                fields = np.zeros((len(part), MAX_EVENT_FIELDS), np.int64)
                for i, row in enumerate(part):
                    fields[i, : len(row) - 1] = row[1:]
                kind = np.array([row[0] for row in part], np.int64)
                time = np.arange(first, first + len(part)) + 1
                batch = EventBatch(time, np.zeros(len(part), np.int64), kind, fields)
                container.write_chunk(file, container.EVENTS, pack_batch(batch, KINDS))
            self._tables(file, "after", len(self.rows) + 1)
            container.write_chunk(file, container.DONE, container.json_chunk({"events": len(self.rows)}))

    def _tables(self, file, moment: str, time: int) -> None:  # type: ignore[no-untyped-def]
        texts = {"/proc/pagetypeinfo": self.table()} if moment == "after" else {}
        tables = {"moment": moment, "start_ns": time, "texts": texts, "settings": {}}
        container.write_chunk(file, container.SNAPSHOT, container.json_chunk(tables))


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Kernel, Path]:
    kernel = Kernel()
    kernel.churn(4000, seed=3)
    path = tmp_path / "own.spbcap"
    kernel.write(path)
    return kernel, path


@pytest.mark.compiled
def test_our_own_machine_agrees_with_itself_page_by_page(recorded: tuple[Kernel, Path]) -> None:
    kernel, path = recorded
    seen = judge_file(path)
    allocs = sum(row[0] == ALLOC for row in kernel.rows)
    assert seen.verdicts.total() == allocs
    assert seen.verdicts["differs"] == seen.verdicts["untraced"] == 0
    assert seen.verdicts["equal"] > 0.9 * allocs
    assert seen.until_first == -1
    assert not any(seen.unseen.values())
    for both in (*seen.free_blocks.values(), *seen.pageblocks.values()):
        assert both["kernel"] == both["model"]
    assert any(row[0] == EXTFRAG for row in kernel.rows)


def test_a_page_that_mainline_would_not_hand_out_is_seen(recorded: tuple[Kernel, Path]) -> None:
    kernel, path = recorded
    at = next(i for i, r in enumerate(kernel.rows) if i > 3000 and r[0] == LOCKED and r[2] == 0 and r[3] == 1)
    old = kernel.rows[at][1]
    new = int(kernel.zone.free_list(0, 1)[0]) if len(kernel.zone.free_list(0, 1)) else old ^ 1
    used = {r[1] for r in kernel.rows[: at + 1] if r[0] == LOCKED}
    new = next(p for p in range(START, START + kernel.zone.nr_pages) if p not in used)
    kernel.rows[at] = (LOCKED, new, *kernel.rows[at][2:])
    kernel.write(path)
    seen = judge_file(path)
    assert seen.verdicts["differs"] + seen.verdicts["untraced"] > 0


def test_frees_that_were_not_recorded_are_counted(recorded: tuple[Kernel, Path]) -> None:
    kernel, path = recorded
    rng = np.random.default_rng(1)
    kernel.rows = [r for r in kernel.rows if r[0] not in (DRAIN, FREE) or rng.random() > 0.02]
    kernel.write(path)
    assert judge_file(path).verdicts["untraced"] > 0


@pytest.mark.compiled
def test_the_zone_level_replay_ends_with_the_same_lists(recorded: tuple[Kernel, Path]) -> None:
    kernel, path = recorded
    seen = replay_file(ReplayRequest(path, "mainline", "zone"))
    free = kernel.zone.nr_free_blocks()
    assert seen.counts["pages freed that were not held"] == seen.counts["not served"] == 0
    for mt, name in enumerate(seen.free_blocks):
        assert seen.free_blocks[name] == free[:, mt].tolist()


@pytest.mark.parametrize("policy", ["mainline", "v1", "v2"])
def test_the_demand_of_callers_is_served_under_any_policy(recorded: tuple[Kernel, Path], policy: str) -> None:
    kernel, path = recorded
    seen = replay_file(ReplayRequest(path, policy, "request"))
    assert seen.counts["allocations"] == sum(row[0] == ALLOC for row in kernel.rows)
    assert seen.counts["frees"] == sum(row[0] == FREE for row in kernel.rows)
    free = sum(n << o for counts in seen.free_blocks.values() for o, n in enumerate(counts))
    held = sum(1 << order for order in kernel.held.values())
    if not seen.counts["not served"]:
        assert free + seen.per_cpu_pages + held == kernel.zone.nr_pages


def test_a_capture_without_pages_cannot_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    with open(path, "wb") as file:
        container.write_prolog(file)
        container.write_chunk(
            file, container.HEAD, container.json_chunk({"events": [{"name": "lost", "fields": []}]})
        )
    with pytest.raises(TraceError, match="--pages"):
        judge_file(path)


def test_a_block_of_the_start_stays_unknown_until_something_joins_it() -> None:
    """Pages 12 and 13 are free; 8 and 9 join each other only, then 14 and 15 join 12 and all are one."""
    z, _ = build_zone(ZoneSpec(1 << 13, START))
    policy = policy_array("mainline")
    labels = np.full(z.geo.nr_pages >> PB_ORDER, MOVABLE, np.int8)
    held = np.full(z.geo.nr_pages, MOVABLE, np.int8)
    held[12:14] = -1
    list_start(z, np.array([[12, 1]]), labels)
    hold_start(z, np.full(z.geo.nr_pages, -1, np.int32), held)
    boot_zone(z, policy, np.zeros((0, 2), np.int64))
    start = np.zeros(z.geo.nr_pages, np.int8)
    start[12] = 1
    for page, order, unknown in ((9, 0, 1), (8, 0, 1), (14, 1, 0)):
        rows = np.zeros((1, NR_PAGE_ROW_FIELDS), np.int64)
        rows[0, [X_OP, X_PFN, X_ORDER, X_MT]] = PAGE_FREE, page, order, MOVABLE
        out = np.zeros((1, NR_JUDGE_FIELDS), np.int64)
        judge_page_events(z, policy, rows, start, out, np.zeros(NR_JUDGE_COUNTS, np.int64))
        assert start[12] == unknown, f"after the free of page {page}"


def test_a_free_that_waits_for_the_lock_takes_effect_after_the_bulk_call() -> None:
    """CPU 1 says that it frees a block while CPU 0 refills a list under the zone's lock."""
    events = [
        (0, LOCKED, (START + 40, 0, 1, 1)),
        (1, FREE, (START + 64, 4)),
        (0, LOCKED, (START + 41, 0, 1, 1)),
        (0, LOCKED, (START + 42, 0, 1, 1)),
        (0, ALLOC, (START + 40, 0, 0, 1)),
        (1, FREE, (START + 96, 4)),
        (0, LOCKED, (START + 43, 0, 1, 1)),
    ]
    fields = np.zeros((len(events), MAX_EVENT_FIELDS), np.int64)
    for i, (_, _, values) in enumerate(events):
        fields[i, : len(values)] = values
    cpu, kind = (np.array([e[i] for e in events], np.int64) for i in (0, 1))
    batch = EventBatch(np.arange(len(events)), cpu, kind, fields)
    rows, at = RowMaker(ZONE_LEVEL, START, 1 << 13, START).rows_of(KINDS, batch)
    assert at.tolist() == [0, 2, 3, 1, 5, 6]
    assert rows[:, X_PFN].tolist() == [40, 41, 42, 64, 96, 43]
    assert rows[:, X_BULK].tolist() == [0, 1, 1, 0, 0, 0]


def test_guessed_types_are_swapped_until_the_tables_free_blocks_come_out() -> None:
    """Four pageblocks of slab, two of them Reclaimable; only their free pages tell which."""
    of_page = np.full(4 * PB_PAGES, PageClass.SLAB, np.uint8)
    free = [[], [0, 1, 8], [16, 17, 18, 19], [5]]
    for pageblock, pages in enumerate(free):
        of_page[[pageblock * PB_PAGES + p for p in pages]] = PageClass.FREE
    is_free = of_page == PageClass.FREE
    wanted = np.zeros(PB_ORDER, np.int64)
    wanted[[0, 2]] = 1, 1  # pageblocks 2 and 3
    labels, nr_shown = pageblock_types(of_page, is_free, iter([]), ReclaimableTable(2, wanted))
    assert labels.tolist() == [Mt.UNMOVABLE, Mt.UNMOVABLE, Mt.RECLAIMABLE, Mt.RECLAIMABLE]
    assert nr_shown == 0
    wrong = [(np.array([3]), np.array([Mt.UNMOVABLE], np.int8))]
    labels, nr_shown = pageblock_types(of_page, is_free, iter(wrong), ReclaimableTable(2, wanted))
    assert (labels[3], nr_shown, (labels == Mt.RECLAIMABLE).sum()) == (Mt.UNMOVABLE, 1, 2)
