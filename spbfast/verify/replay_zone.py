"""Mainline and superpageblock traces: replay a file, compare everything that it records.

Owns the comparison of event columns, checkpoints and logs. The zone comes from zone_trace.py; the events are
run by model/loop/replay.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spbfast.constants import (
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    PB_ORDER,
    RECORD_EXTFRAG,
    RECORD_MOVE,
    C,
)
from spbfast.errors import TraceError
from spbfast.model.loop.replay import NR_EVENT_FIELDS, run_events
from spbfast.model.loop.replay_rows import check_results, event_rows, result_rows
from spbfast.model.state.walk import read_free_lists, read_pcp_lists, read_places
from spbfast.text import text_table
from spbfast.verify.differences import array_difference, row_difference
from spbfast.verify.golden import Golden
from spbfast.verify.zone_trace import booted_zone, event_text

EVENT_COLUMNS = ("op", "handle", "order", "mt", "flags", "arg")
# Result columns in the order of loop/replay.py's result rows.
RESULT_COLUMNS = (
    *("pfn", "outcome", "visited", "visited_fallback", "tainted", "requests", "n_defrag"),
    *("moved", "n_same_type", "n_pageblocks"),
)
EXTFRAG_COLUMNS = (
    *("event", "pfn", "alloc_order", "fallback_order", "alloc_mt", "fallback_mt"),
    *("change_ownership", "fragmenting"),
)
MOVE_COLUMNS = ("event", "handle", "pfn")


def _events_of(golden: Golden) -> np.ndarray:
    """The file's events as rows of the loop."""
    values = np.zeros((golden.nr_events, NR_EVENT_FIELDS), np.int64)
    for i, column in enumerate(EVENT_COLUMNS):
        if column in golden.arrays:
            values[:, i] = golden[column]
    try:
        return event_rows(values)
    except ValueError as error:
        raise TraceError(str(error), golden.path) from error


class Replay:
    """A file and its zone just after boot; `differences` runs it and yields what differs, in file order."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.z, self.policy = booted_zone(golden)
        self.events = _events_of(golden)
        self.out = result_rows(golden.nr_events, brief=golden.kind == "mainline")
        self.pins = np.array([golden.meta.get(f"pin_{k}", 0) for k in ("modulus", "remainder")], np.int64)

    def differences(self) -> Iterator[str]:
        done = 0
        for k, at in enumerate(self.golden["ck_at"].tolist()):
            yield from self._run(done, at)
            done = max(done, at)
            yield from self._checkpoint(k)
        yield from self._run(done, self.golden.nr_events)
        yield from self._log()

    def _run(self, first: int, last: int) -> Iterator[str]:
        """Run rows first..last-1 and compare their results."""
        if first >= last:
            return
        run_events(self.z, self.policy, self.events, first, last, self.pins, self.out)
        check_results(self.out[first:last])
        columns = RESULT_COLUMNS if self.golden.kind == "spb" else RESULT_COLUMNS[:1]
        expected = np.stack([self.golden[c][first:last] for c in columns], axis=1)
        found = self.out[first:last, : len(columns)]
        wrong = np.flatnonzero((expected != found).any(axis=1))
        for row in wrong[:1].tolist():
            yield self._row_text(first + row, columns, expected[row], found[row])

    def _row_text(self, row: int, columns: tuple[str, ...], expected: np.ndarray, found: np.ndarray) -> str:
        rows = [
            (name, want, got, "" if want == got else "<--")
            for name, want, got in zip(columns, expected.tolist(), found.tolist(), strict=True)
        ]
        table = text_table(("", "expected", "found", ""), rows, left=(0, 3))
        return f"event {row}: {event_text(self.golden, row)}\n{table}"

    def _checkpoint(self, k: int) -> Iterator[str]:
        where = f"checkpoint {k} after {self.golden['ck_at'][k]} events"
        columns = self._spb_columns() if self.golden.kind == "spb" else self._mainline_columns()
        for name, dims, found in columns:
            expected = self.golden[f"ck_{name}"][k]
            for text in array_difference(f"ck_{name}", dims, expected, np.asarray(found)):
                yield f"{where}: {text}"
        if self.golden.kind == "mainline":
            for text in self._full_lists(k):
                yield f"{where}: {text}"

    def _mainline_columns(self) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
        z, nr_mt = self.z, int(self.golden.meta["n_migratetypes"])
        lengths, hashes, _ = read_free_lists(z)
        yield "nr_free", ("order", "mt"), lengths[0, :, :nr_mt]
        yield "nr_free", ("order", "mt"), z.area.nr.reshape(lengths.shape)[0, :, :nr_mt]
        yield "list_hash", ("order", "mt"), hashes[0, :, :nr_mt]
        first = z.geo.lo >> PB_ORDER
        yield "pb", ("pageblock",), z.pb.label[first : first + self.golden["ck_pb"].shape[1]]
        whole = sum(int(lengths[0, o].sum()) << o for o in range(PB_ORDER, NR_ORDERS))
        stat = [z.count[C.FREE_PAGES], whole, z.count[C.FREE_CMA], z.count[C.EXTFRAG]]
        yield "stat", ("statistic",), np.array(stat)
        if self.golden.meta["pcp"]:
            lengths, hashes, _ = read_pcp_lists(z, 0)
            yield "pcp_len", ("pcp list",), lengths
            yield "pcp_len", ("pcp list",), z.pcp.nr[:NR_PCP_LISTS]
            yield "pcp_hash", ("pcp list",), hashes
            yield "pcp_stat", ("scalar",), z.pcp.cpu[0]

    def _full_lists(self, k: int) -> Iterator[str]:
        """Whole lists, where the file has them for this checkpoint: a difference names its place."""
        golden = self.golden
        nr_mt = int(golden.meta["n_migratetypes"])
        for row in np.flatnonzero(golden["lst_ck"] == k).tolist():
            lengths, _, pfns = read_free_lists(self.z)
            ends = np.cumsum(lengths.reshape(-1))
            offsets = golden["lst_off"][row]
            for i in range(NR_ORDERS * nr_mt):
                order, mt = divmod(i, nr_mt)
                mine = order * lengths.shape[2] + mt
                found = pfns[ends[mine] - lengths[0, order, mt] : ends[mine]]
                expected = golden["lst_pfn"][offsets[i] : offsets[i + 1]]
                yield from array_difference(f"list of order {order}, mt {mt}", ("place",), expected, found)
            if golden.meta["pcp"]:
                begin = int(golden["ck_pcp_len"][golden["lst_ck"][:row]].sum())
                _, _, pfns = read_pcp_lists(self.z, 0)
                expected = golden["lst_pcp_pfn"][begin : begin + int(golden["ck_pcp_len"][k].sum())]
                yield from array_difference("pcp lists", ("place",), expected, pfns)

    def _spb_columns(self) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
        z, spb = self.z, ("superpageblock",)
        nr_pb = int(self.golden.meta["n_pageblocks"])
        category, bucket, pos = read_places(z)
        yield "category", spb, category
        yield "bucket", spb, bucket
        yield "pos", spb, pos
        yield "free_pageblocks", spb, z.spb.nr_free_pb
        yield "free_pages", spb, z.spb.nr_free_pages
        used = z.pb.used[:, :NR_REQUEST_MT].reshape(z.geo.nr_spb, -1, NR_REQUEST_MT)
        by_type = ("superpageblock", "mt")
        yield "content_pageblocks", by_type, z.spb.content[:, :NR_REQUEST_MT]
        yield "exact_pageblocks", by_type, (used > 0).sum(axis=1)
        yield "used_pages", by_type, used.sum(axis=1, dtype=np.int64)
        yield "pb_label", ("pageblock",), z.pb.label[:nr_pb]
        yield "pb_bits", ("pageblock",), z.pb.bits[:nr_pb]
        lengths, hashes, _ = read_free_lists(z)
        by_list = ("superpageblock", "order", "mt")
        yield "nr_free", by_list, lengths[:, :, :NR_REQUEST_MT]
        yield "nr_free", by_list, z.area.nr.reshape(lengths.shape)[:, :, :NR_REQUEST_MT]
        yield "list_hash", by_list, hashes[:, :, :NR_REQUEST_MT]
        yield "hint", ("order", "mt"), z.index.hint

    def _log(self) -> Iterator[str]:
        """The records of the whole run: migrations, or fallbacks where the file has them."""
        records = self.z.records[: self.z.count[C.NR_RECORDS]]
        if self.golden.kind == "spb":
            yield from self._records("mv", MOVE_COLUMNS, records[records[:, 0] == RECORD_MOVE])
        elif "xf_event" in self.golden.arrays:
            yield from self._records("xf", EXTFRAG_COLUMNS, records[records[:, 0] == RECORD_EXTFRAG])

    def _records(self, prefix: str, columns: tuple[str, ...], rows: np.ndarray) -> Iterator[str]:
        expected = np.stack([self.golden[f"{prefix}_{c}"] for c in columns], axis=1)
        yield from row_difference(f"{prefix} record", columns, expected, rows[:, 1 : 1 + len(columns)])
