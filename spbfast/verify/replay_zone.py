"""Golden traces against the compiled allocator: replay a file, compare everything that it records.

Owns the set-up of a zone from a file, the comparison of event columns, checkpoints and logs, and the text
of the first difference. Reading files is verify/golden.py's business, the shrink layer's replay
verify/replay_shrink.py's; running events is loop/replay.py's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spbfast.constants import (
    MAX_ORDER,
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    PB_ORDER,
    PB_PAGES,
    RECORD_EXTFRAG,
    RECORD_MOVE,
    AllocFlag,
    C,
    Mt,
    P,
)
from spbfast.errors import TraceError
from spbfast.model.loop.replay import (
    BULK_FIRST,
    BULK_NEXT,
    CONTIG,
    DEFRAG,
    FREE,
    NR_EVENT_FIELDS,
    NR_RESULT_FIELDS,
    boot_cma,
    boot_zone,
    run_events,
)
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.walk import read_free_lists, read_pcp_lists, read_places
from spbfast.verify.golden import Golden, load_golden
from spbfast.verify.replay_shrink import replay_shrink
from spbfast.verify.switches import switch_array

EXIT_OK, EXIT_DIFFERENT, EXIT_UNREADABLE, EXIT_UNSUPPORTED = 0, 1, 2, 3
OP_NAMES = ("ALLOC", "FREE", "BULK-first", "BULK-next", "DRAIN", "DECAY", "EVACUATE", "DEFRAG", "CONTIG")
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
SPARE_RECORDS = 16  # room to see that more was recorded than the file has


class UnsupportedError(TraceError):
    """A trace that needs a switch or a geometry that this version does not have."""

    exit_code = EXIT_UNSUPPORTED


@dataclass(frozen=True)
class Verdict:
    """Result of one file: exit code 0 if identical, and the text to print."""

    code: int
    text: str


def verify_files(paths: Iterable[str | os.PathLike[str]], echo: Callable[[str], Any] = print) -> int:
    """Replay golden files; print one line for each, and the first difference in full.

    Returns
    -------
    int
        0 all identical; 1 some differ; else 2 some cannot be read; else 3 some need a switch that does not
        exist.
    """
    codes = {EXIT_OK}
    for path in paths:
        verdict = verify_file(path)
        echo(verdict.text)
        codes.add(verdict.code)
    return next(
        code for code in (EXIT_DIFFERENT, EXIT_UNREADABLE, EXIT_UNSUPPORTED, EXIT_OK) if code in codes
    )


def verify_file(path: str | os.PathLike[str]) -> Verdict:
    """Replay one golden file and compare everything; never raises for what is wrong with the file."""
    begin = time.perf_counter()
    try:
        golden = load_golden(path)
        difference = first_difference(golden)
    except UnsupportedError as error:
        return Verdict(EXIT_UNSUPPORTED, str(error))
    except TraceError as error:
        return Verdict(EXIT_UNREADABLE, f"error: {error}")
    seconds = time.perf_counter() - begin
    kind = f"{golden.kind}/{golden.meta['level']}" if golden.kind == "mainline" else golden.kind
    result = "identical" if difference is None else "DIFFERENT"
    line = f"{golden.name:<36} {kind:<13} {golden.nr_events:>8} events  {result}  {seconds:6.2f} s"
    if difference is None:
        return Verdict(EXIT_OK, line)
    return Verdict(EXIT_DIFFERENT, f"{line}\n  " + difference.replace("\n", "\n  "))


def first_difference(golden: Golden) -> str | None:
    """The first place where a replay differs from the file, in words, or None.

    Raises
    ------
    UnsupportedError
        The file needs a switch or geometry that does not exist.
    TraceError
        Rows of the file make no sense.
    """
    if golden.kind == "shrink":
        return next(iter(replay_shrink(golden)), None)
    return next(Replay(golden).differences(), None)


# -- set-up -------------------------------------------------------------------------------------


def _check_rows(golden: Golden, nr_spb: int) -> None:
    """Refuse rows that would lead the kernels out of their arrays."""
    op, order, mt = (golden[name] for name in ("op", "order", "mt"))
    mainline = golden.kind == "mainline"
    ops = range(6) if mainline else (0, 1, 6, 7, 8)
    top = np.where(op == CONTIG, Mt.HIGHATOMIC, Mt.RECLAIMABLE)
    named = np.isin(op, (0, FREE, BULK_FIRST, BULK_NEXT, CONTIG))
    wrong = ~np.isin(op, ops) | (order < 0) | (order > MAX_ORDER) | (mt < 0)
    wrong |= (mt > top) & (op != FREE)
    wrong |= named & (golden["handle"] < 0)
    if not mainline:
        wrong |= (op == DEFRAG) & ((golden["arg"] < 0) | (golden["arg"] >= nr_spb))
    elif golden.meta["pcp"] is None:
        wrong |= np.isin(op, (4, 5))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise TraceError(f"not an event of this kind of trace: {_event_text(golden, row)}", golden.path, row)
    at = golden["ck_at"]
    if at.size and (at[0] < 0 or at[-1] > len(op) or (np.diff(at) < 0).any()):
        raise TraceError("'ck_at' must ascend within the events", golden.path)


def _event_text(golden: Golden, row: int) -> str:
    op = int(golden["op"][row])
    name = OP_NAMES[op] if 0 <= op < len(OP_NAMES) else f"op {op}"
    parts = [f"{c} {golden[c][row]}" for c in ("handle", "order", "mt") if c in golden.arrays]
    parts.append(f"flags {_flag_text(int(golden['flags'][row]))}")
    if "arg" in golden.arrays and golden["arg"][row] >= 0:
        parts.append(f"arg {golden['arg'][row]}")
    return f"{name} {' '.join(parts)}"


def _flag_text(flags: int) -> str:
    names = [flag.name for flag in AllocFlag if flags & flag]
    return "|".join(str(n) for n in names) or f"{flags:#x}"


def _spec(golden: Golden) -> ZoneSpec:
    meta = golden.meta
    slots = (int(golden["handle"].max(initial=-1)) + 1,)
    if golden.kind == "spb":
        return ZoneSpec(
            zone_pages=int(meta["n_pageblocks"]) << PB_ORDER,
            start_pfn=0,
            spb_pb=int(meta["pageblocks_per_superpageblock"]),
            superpageblocks=True,
            owner_slots=slots,
            nr_records=len(golden["mv_event"]) + SPARE_RECORDS,
        )
    pcp = meta["pcp"]
    return ZoneSpec(
        zone_pages=int(meta["zone_pages"]),
        start_pfn=int(meta["zone_start_pfn"]),
        nr_cpus=1 if pcp else 0,
        pcp=PcpConf(*(int(pcp[k]) for k in ("batch", "high_min", "high_max", "flags"))) if pcp else None,
        cma=bool(meta["cma"]),
        owner_slots=slots,
        nr_records=len(golden["xf_event"]) + SPARE_RECORDS if "xf_event" in golden.arrays else 0,
    )


def _policy(golden: Golden) -> np.ndarray:
    if golden.kind == "mainline":
        return policy_array("mainline")
    switches = golden.meta["policy"]
    if not isinstance(switches, Mapping):
        raise TraceError("'policy' in meta must be an object of switches", golden.path)
    for key in switches:
        if key not in P.__members__:
            raise UnsupportedError(f"unsupported: {key}", golden.path)
    return switch_array(switches)


def _boot(golden: Golden, z: ZoneState, policy: np.ndarray) -> None:
    lo, hi = z.geo.lo, z.geo.hi
    cma = golden.meta.get("cma")
    if not cma:
        boot_zone(z, policy, boot_chunks(z, lo, hi))
        return
    # The file counts from the first pageblock that lies wholly in the zone.
    first, nr = -(-lo // PB_PAGES) + int(cma["first_pageblock"]), int(cma["n_pageblocks"])
    end = first + nr
    if not lo <= first << PB_ORDER < end << PB_ORDER <= hi:
        raise TraceError(f"'cma' in meta, {cma}, does not lie in the zone", golden.path)
    chunks = boot_chunks(z, lo, first << PB_ORDER), boot_chunks(z, end << PB_ORDER, hi)
    boot_zone(z, policy, np.concatenate(chunks))
    boot_cma(z, policy, first, nr)


# -- replay and comparison ----------------------------------------------------------------------


class Replay:
    """A file and its zone just after boot; `differences` runs it and yields what differs, in file order."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.policy = _policy(golden)
        try:
            self.z, _ = build_zone(_spec(golden))
        except ValueError as error:
            raise UnsupportedError(f"unsupported: {error}", golden.path) from error
        _check_rows(golden, self.z.geo.nr_spb)
        _boot(golden, self.z, self.policy)
        self.events = np.zeros((golden.nr_events, NR_EVENT_FIELDS), np.int64)
        for i, column in enumerate(EVENT_COLUMNS):
            if column in golden.arrays:
                self.events[:, i] = golden[column]
        self.out = np.zeros((golden.nr_events, NR_RESULT_FIELDS), np.int64)
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
        columns = RESULT_COLUMNS if self.golden.kind == "spb" else RESULT_COLUMNS[:1]
        expected = np.stack([self.golden[c][first:last] for c in columns], axis=1)
        found = self.out[first:last, : len(columns)]
        wrong = np.flatnonzero((expected != found).any(axis=1))
        for row in wrong[:1].tolist():
            yield self._row_text(first + row, columns, expected[row], found[row])

    def _row_text(self, row: int, columns: tuple[str, ...], expected: np.ndarray, found: np.ndarray) -> str:
        lines = [f"event {row}: {_event_text(self.golden, row)}", f"{'':<18}{'expected':>10}{'found':>10}"]
        for name, want, got in zip(columns, expected.tolist(), found.tolist(), strict=True):
            lines.append(f"{name:<18}{want:>10}{got:>10}{'' if want == got else '  <--'}")
        return "\n".join(lines)

    def _checkpoint(self, k: int) -> Iterator[str]:
        where = f"checkpoint {k} after {self.golden['ck_at'][k]} events"
        columns = self._spb_columns() if self.golden.kind == "spb" else self._mainline_columns()
        for name, dims, found in columns:
            expected = self.golden[f"ck_{name}"][k]
            text = _array_difference(f"ck_{name}", dims, expected, np.asarray(found))
            if text:
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
                text = _array_difference(f"list of order {order}, mt {mt}", ("place",), expected, found)
                if text:
                    yield text
            if golden.meta["pcp"]:
                begin = int(golden["ck_pcp_len"][golden["lst_ck"][:row]].sum())
                _, _, pfns = read_pcp_lists(self.z, 0)
                expected = golden["lst_pcp_pfn"][begin : begin + int(golden["ck_pcp_len"][k].sum())]
                text = _array_difference("pcp lists", ("place",), expected, pfns)
                if text:
                    yield text

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
        found = rows[:, 1 : 1 + len(columns)]
        shared = min(len(expected), len(found))
        wrong = np.flatnonzero((expected[:shared] != found[:shared]).any(axis=1))
        if wrong.size:
            row = int(wrong[0])
            pairs = zip(columns, expected[row].tolist(), found[row].tolist(), strict=True)
            text = ", ".join(f"{c} {e}" if e == f else f"{c} expected {e} found {f}" for c, e, f in pairs)
            yield f"{prefix} record {row}: {text}"
        elif len(expected) != len(found):
            more = " or more" if len(found) > len(expected) else ""
            yield f"{prefix}: expected {len(expected)} records, found {len(found)}{more}"


_STATISTICS = {
    "ck_stat": ("free pages", "free pages of order >= 9", "free CMA pages", "extfrag records"),
    "ck_pcp_stat": ("count", "high", "alloc_factor", "free_count", "flags"),
}


def _array_difference(
    name: str, dims: tuple[str, ...], expected: np.ndarray, found: np.ndarray
) -> str | None:
    """The first element in which two arrays differ, with its indices by name."""
    if expected.shape != found.shape:
        if expected.ndim != 1 or found.ndim != 1:
            return f"{name}: expected shape {expected.shape}, found {found.shape}"
        shared = min(expected.size, found.size)
        if np.array_equal(expected[:shared], found[:shared]):
            return f"{name}: expected {expected.size} elements, found {found.size}"
        expected, found = expected[:shared], found[:shared]
    wrong = np.argwhere(expected != found)
    if not wrong.size:
        return None
    at = tuple(int(i) for i in wrong[0])
    place = ", ".join(f"{dim} {i}" for dim, i in zip(dims, at, strict=True))
    if name in _STATISTICS:
        place = _STATISTICS[name][at[0]]
    return f"{name}, {place}: expected {int(expected[at])}, found {int(found[at])} ({len(wrong)} differ)"
