"""A capture against mainline's rules: verdicts on every page, and the free lists at the end.

Owns the run over a capture and the counting of verdicts. The capture must have been made with ``--pages`` and
zone-level events. Nothing is explained away here: what differs is counted by what the recording can tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.constants import MAX_ORDER, NR_MT, NR_ORDERS, PB_ORDER, RECORD_EXTFRAG, C
from spbfast.errors import TraceError
from spbfast.model.loop.judge_events import (
    J_FREED_UNHELD,
    J_RELABELLED,
    J_TAKEN_UNSEEN,
    NR_JUDGE_COUNTS,
    NR_JUDGE_FIELDS,
    V_DIFFERS,
    V_EQUAL,
    V_START,
    V_UNTRACED,
    Y_HIGH,
    Y_OWN_HIGH,
    Y_PFN,
    Y_VERDICT,
    judge_page_events,
)
from spbfast.model.loop.recorded_pages import (
    NR_PAGE_ROW_FIELDS,
    PAGE_ALLOC,
    PAGE_FREE,
    PAGE_FREE_TO_TAIL,
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
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches
from spbfast.observed.loading import read_dump
from spbfast.observed.values import Snapshot
from spbfast.recordings.page_rows import ZONE_LEVEL, RowCounts, RowMaker
from spbfast.recordings.past_lists import past_lists
from spbfast.recordings.start_state import (
    CapturedZone,
    StartState,
    captured_zones,
    start_of,
)
from spbfast.recordings.start_types import reclaimable_table, shown_types

TYPES = ("Unmovable", "Movable", "Reclaimable")
MAX_EXTFRAG = 1 << 20
FIRST_DIFFERENCES = 20
_REPORTED = "/sys/module/page_reporting/parameters/reported_kib"


@dataclass
class Judgement:
    """How a capture compares with mainline.

    Attributes
    ----------
    zone : str
    verdicts : Counter
        Allocations by verdict: equal, start, differs, untraced.
    by_order : dict of int to Counter
        The same by order of the request.
    until_first : int
        Allocations before the first that differs.
    differences : list of dict
        The first of them: time, page, order, type, page that mainline would have handed out.
    differs_by : Counter
        What they have in common: orders of the blocks, and whether the kernel fell back.
    extfrag : dict
        Fallbacks recorded and of the model, by kind.
    unseen : dict of str to int
        Changes that left no event.
    free_blocks : dict
        By type, then ``kernel`` and ``model``: free blocks by order at the end.
    pageblocks : dict
        By type, then ``kernel`` and ``model``: pageblocks at the end.
    rows : RowCounts
    start : dict of str to int
        Free blocks at the start, and pageblocks whose type is guessed.
    activity : dict of str to int
        What changed the lists without page events, by the kernel's counters between start and end.
    """

    zone: str
    verdicts: Counter[str] = field(default_factory=Counter)
    by_order: dict[int, Counter[str]] = field(default_factory=dict)
    until_first: int = -1
    differences: list[dict[str, int]] = field(default_factory=list)
    differs_by: Counter[str] = field(default_factory=Counter)
    extfrag: dict[str, Counter[str]] = field(default_factory=dict)
    unseen: dict[str, int] = field(default_factory=dict)
    free_blocks: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    pageblocks: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: RowCounts = field(default_factory=RowCounts)
    start: dict[str, int] = field(default_factory=dict)
    activity: dict[str, int] = field(default_factory=dict)

    @property
    def share_equal(self) -> float:
        """Of the allocations that can be judged, the share whose page is the one that mainline names."""
        known = self.verdicts["equal"] + self.verdicts["differs"]
        return self.verdicts["equal"] / known if known else float("nan")


_VERDICTS = {V_EQUAL: "equal", V_START: "start", V_DIFFERS: "differs", V_UNTRACED: "untraced"}


def judge_file(path: str | Path, zone: str = "Normal") -> Judgement:
    """Follow a capture event by event and compare every page with mainline's.

    Parameters
    ----------
    path : str or Path
        A capture made with ``--pages`` and the zone group of events.
    zone : str

    Raises
    ------
    DumpError
        When the file cannot be read.
    TraceError
        When it lacks what the judgement needs.
    """
    return _Judging(Path(path), zone).run()


class _Judging:
    def __init__(self, path: Path, zone: str) -> None:
        self.path = path
        found = {z.name: z for z in captured_zones(path)}
        if zone not in found:
            text = f"holds no pages of zone {zone}; capture with --pages"
            raise TraceError(text, path)
        self.zone: CapturedZone = found[zone]
        spec = ZoneSpec(self.zone.pages, self.zone.start_pfn, nr_records=MAX_EXTFRAG)
        try:
            self.z, self.base = build_zone(spec)
        except ValueError as error:
            raise TraceError(f"zone {zone}: {error}", path) from None
        self.policy = policy_array("mainline")
        self.snapshots = read_dump(path).snapshots
        self.past = past_lists(path, self.zone.start_pfn, self.zone.pages)
        self.out = Judgement(zone)
        self.nr_counts = np.zeros(NR_JUDGE_COUNTS, np.int64)
        self.kernel_extfrag: Counter[str] = Counter()
        self.allocs = 0
        self.managed = np.zeros(0, bool)

    def run(self) -> Judgement:
        start, end_ns = self._start(), self._end_ns()
        fresh = np.zeros(self.z.geo.nr_pages, np.int8)
        fresh[start.blocks[:, 0]] = 1
        self._build(start)
        maker = self._maker()
        for kinds, batch in read_batches(self.path):
            inside = (batch.time_ns >= self.zone.start_ns) & (batch.time_ns < end_ns)
            batch = _part(batch, inside)
            if len(batch):
                self._judge(kinds, batch, maker, fresh)
        self.out.rows = maker.counts
        self._finish()
        return self.out

    def _maker(self) -> RowMaker:
        maker = RowMaker(ZONE_LEVEL, self.zone.start_pfn, self.zone.pages, self.base)
        maker.past_lists = self.past
        return maker

    # -- the start ---------------------------------------------------------------------------------

    def _start(self) -> StartState:
        early = [rows for rows in self._all_rows(self.zone.start_ns, self.zone.end_ns)]
        shown = (shown_types(rows) for rows in self._all_rows(self.zone.start_ns, 1 << 62))
        together = np.concatenate(early) if early else np.zeros((0, NR_PAGE_ROW_FIELDS), np.int64)
        table = reclaimable_table(self.snapshots, self.zone.name)
        start = start_of(self.zone, self.base, self.z.geo.nr_pages, together, shown, table)
        self.managed = start.managed
        self.out.start = {
            "free_blocks": len(start.blocks),
            "free_pages": int((1 << start.blocks[:, 1]).sum()),
            "pageblocks_guessed": start.guessed,
            "order_10_blocks_released_first": 0,
        }
        return start

    def _all_rows(self, start_ns: int, end_ns: int) -> Iterator[np.ndarray]:
        maker = self._maker()
        for kinds, batch in read_batches(self.path):
            batch = _part(batch, (batch.time_ns >= start_ns) & (batch.time_ns < end_ns))
            if len(batch):
                yield maker.rows_of(kinds, batch)[0]

    def _build(self, start: StartState) -> None:
        place = np.full(self.z.geo.nr_pages, -1, np.int32)
        list_start(self.z, start.blocks, start.labels)
        hold_start(self.z, place, start.held)
        boot_zone(self.z, self.policy, np.zeros((0, 2), np.int64))

    # -- events ------------------------------------------------------------------------------------

    def _judge(self, kinds: EventKinds, batch: EventBatch, maker: RowMaker, fresh: np.ndarray) -> None:
        rows, at = maker.rows_of(kinds, batch)
        self._mark_first_release(rows)
        self._count_extfrag(kinds, batch)
        result = np.empty((len(rows), NR_JUDGE_FIELDS), np.int64)
        self.z.count[C.NR_RECORDS] = 0
        judge_page_events(self.z, self.policy, rows, fresh, result, self.nr_counts)
        self._count_records()
        is_alloc = rows[:, X_OP] == PAGE_ALLOC
        self._count(rows[is_alloc], result[is_alloc], batch.time_ns[at[is_alloc]])

    def _mark_first_release(self, rows: np.ndarray) -> None:
        """Memory that the kernel releases for the first time goes to the tail of its list."""
        whole = np.flatnonzero((rows[:, X_OP] == PAGE_FREE) & (rows[:, X_ORDER] == MAX_ORDER))
        pageblock = rows[whole, X_PFN] >> PB_ORDER
        fresh = ~self.managed[pageblock]
        rows[whole[fresh], X_OP] = PAGE_FREE_TO_TAIL
        for half in (0, 1):
            self.managed[pageblock[fresh] + half] = True
        self.out.start["order_10_blocks_released_first"] += int(fresh.sum())

    def _count(self, rows: np.ndarray, result: np.ndarray, time_ns: np.ndarray) -> None:
        for order in np.unique(rows[:, X_ORDER]).tolist():
            of_order = result[rows[:, X_ORDER] == order, Y_VERDICT]
            counts = {name: int((of_order == v).sum()) for v, name in _VERDICTS.items()}
            self.out.by_order.setdefault(order, Counter()).update(counts)
            self.out.verdicts.update(counts)
        wrong = np.flatnonzero(result[:, Y_VERDICT] == V_DIFFERS)
        if len(wrong) and self.out.until_first < 0:
            self.out.until_first = self.allocs + int(wrong[0])
        self.allocs += len(rows)
        for i in wrong.tolist():
            self._note_difference(rows[i], result[i], int(time_ns[i]))

    def _note_difference(self, row: np.ndarray, result: np.ndarray, time_ns: int) -> None:
        high, own = int(result[Y_HIGH]), int(result[Y_OWN_HIGH])
        if own < 0:
            what = f"fallback for order {row[X_ORDER]}"
        elif high == own:
            what = (
                f"another block of order {high}"
                if high < PB_ORDER
                else f"another block of order {PB_ORDER} or 10"
            )
        else:
            what = f"a block of order {high}, not {own}"
        self.out.differs_by[what] += 1
        if len(self.out.differences) < FIRST_DIFFERENCES:
            self.out.differences.append(
                {
                    "time_ns": time_ns,
                    "pfn": int(row[X_PFN]) + self.base,
                    "order": int(row[X_ORDER]),
                    "type": int(row[X_MT]),
                    "model_pfn": int(result[Y_PFN]) + self.base,
                    "block_order": high,
                    "model_block_order": own,
                }
            )

    def _count_extfrag(self, kinds: EventKinds, batch: EventBatch) -> None:
        number = kinds.number("mm_page_alloc_extfrag")
        if number < 0:
            return
        fields = kinds.fields[number]
        rows = batch.fields[batch.kind == number]
        inside = (rows[:, 0] >= self.zone.start_pfn) & (rows[:, 0] < self.zone.start_pfn + self.zone.pages)
        names = (
            "alloc_order",
            "fallback_order",
            "alloc_migratetype",
            "fallback_migratetype",
            "change_ownership",
        )
        columns = [rows[inside, fields.index(name)] for name in names]
        self.kernel_extfrag.update(_kinds_of(np.stack(columns, axis=1)))

    def _count_records(self) -> None:
        records = self.z.records[: self.z.count[C.NR_RECORDS]]
        mine = records[records[:, 0] == RECORD_EXTFRAG][:, 3:8]
        self.out.extfrag.setdefault("model", Counter()).update(_kinds_of(mine))

    # -- the end -----------------------------------------------------------------------------------

    def _end_ns(self) -> int:
        for tag, data in read_chunks(self.path):
            if tag == container.SNAPSHOT:
                about = json_mapping(self.path, data)
                if about.get("moment") == "after" and isinstance(about.get("start_ns"), int):
                    read = about.get("read_ns")
                    times = read if isinstance(read, dict) else {}
                    return int(times.get("/proc/pagetypeinfo", about["start_ns"]))
        raise TraceError("has no tables after the recording", self.path)

    def _finish(self) -> None:
        self.out.extfrag["kernel"] = self.kernel_extfrag
        names = {
            "pages taken without an event": J_TAKEN_UNSEEN,
            "pages freed that were not held": J_FREED_UNHELD,
            "pageblocks that changed their type without an event": J_RELABELLED,
        }
        self.out.unseen = {name: int(self.nr_counts[i]) for name, i in names.items()}
        self.out.unseen["frees past the per-CPU lists, told by what came next"] = len(self.past)
        self._compare_tables([s for s in self.snapshots if s.heading.startswith("after")])
        self.out.activity = _activity(self.snapshots) | self._reported()

    def _reported(self) -> dict[str, int]:
        """Free pages that were reported to a hypervisor meanwhile: they come back at their list's tail."""
        found: dict[str, int] = {}
        for tag, data in read_chunks(self.path):
            if tag == container.SNAPSHOT:
                about = json_mapping(self.path, data)
                settings = about.get("settings")
                value = settings.get(_REPORTED, "") if isinstance(settings, dict) else ""
                if isinstance(value, str) and value.strip().isdigit():
                    found[str(about.get("moment"))] = int(value)
        if {"before", "after"} <= found.keys():
            return {"reported_kib": found["after"] - found["before"]}
        return {}

    def _compare_tables(self, after: list[Snapshot]) -> None:
        zones = [z for s in after if s.kind == "pagetypeinfo" for z in s.zones if z.zone == self.zone.name]
        nr = self.z.area.nr.reshape(-1, NR_ORDERS, NR_MT)[0]
        labels = self.z.pb.label[: self.z.geo.nr_pb][self.managed[: self.z.geo.nr_pb]]
        for mt, name in enumerate(TYPES):
            mine = nr[:, mt].astype(int).tolist()
            theirs = [list(z.free_by_type[name]) for z in zones if name in z.free_by_type]
            self.out.free_blocks[name] = {"kernel": theirs[0] if theirs else [], "model": mine}
            blocks = [z.pageblocks[name] for z in zones if name in z.pageblocks]
            model = int((labels == mt).sum())
            self.out.pageblocks[name] = {"kernel": blocks[0] if blocks else -1, "model": model}


def _part(batch: EventBatch, inside: np.ndarray) -> EventBatch:
    if inside.all():
        return batch
    return EventBatch(batch.time_ns[inside], batch.cpu[inside], batch.kind[inside], batch.fields[inside])


def _kinds_of(rows: np.ndarray) -> dict[str, int]:
    """Fallbacks by kind: alloc order, fallback order, types, claim or steal."""
    letters = "UMRHCI"
    out: Counter[str] = Counter()
    for order, high, mt, other, claimed in rows.tolist():
        verb = "claim" if claimed else "steal"
        types = f"{letters[mt % 6]}<-{letters[other % 6]}"
        out[f"{verb} {types} order {order} from {high}"] += 1
    return dict(out)


def _activity(snapshots: list[Snapshot]) -> dict[str, int]:
    """How far the kernel's counters of untraced work moved between the tables."""
    names = (
        "compact_migrate_scanned",
        "compact_free_scanned",
        "compact_isolated",
        "pgsteal_kswapd",
        "pgsteal_direct",
    )
    moments: dict[str, dict[str, Any]] = {}
    for s in snapshots:
        if s.kind == "vmstat":
            moments.setdefault(s.heading.split(":")[0], s.counters)
    before, after = moments.get("before", {}), moments.get("after", {})
    return {name: after[name] - before[name] for name in names if name in before and name in after}
