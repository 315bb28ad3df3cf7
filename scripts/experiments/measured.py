"""A measured machine simulated against its own recordings: what was recorded, and what comes out instead.

Owns the numbers of results/studies/measured.json: of each load the rates of both halves, the free lists and
types of pageblocks before and after, the same of simulations whose actors were fitted to the first half, and
of the recorded requests repeated on the same start. Records nothing itself.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config import load_config
from spbfast.constants import NR_MT, NR_ORDERS, NS_PER_TICK, PB_PAGES, C
from spbfast.errors import TraceError
from spbfast.fitting import job_text
from spbfast.fitting.fitted_actors import FittedRecording, fit_events
from spbfast.fitting.page_lives import PageRequests, holders_told, pages_at_end, read_page_events
from spbfast.model.engine import ReplicateResult, run_replicate
from spbfast.model.loop import replay
from spbfast.model.loop.recorded_pages import replay_page_events
from spbfast.model.state.vmstat import V
from spbfast.observed import capture_file as container
from spbfast.observed import read_dump
from spbfast.observed.capture_file import json_mapping, read_chunks
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches
from spbfast.observed.receipt import Receipt
from spbfast.recordings.replaying import BegunReplay, ReplayRequest, batches_of, begin_replay
from spbfast.recordings.start_state import captured_zones
from spbfast.recordings.start_types import managed_pageblocks

ZONE = "Normal"
TYPES = ("Unmovable", "Movable", "Reclaimable")
TABLES = ("/proc/pagetypeinfo", "/proc/buddyinfo", "/proc/zoneinfo")
RECORDS = ("mm_page_alloc", "mm_page_free", "mm_page_alloc_extfrag")
SEED = 1
DECAY_NS = 10**9  # between two decays of the per-CPU limits, as in the model
# Counters of vmstat that tell whether memory was short; those of the whole recording.
COUNTERS = (
    *("compact_stall", "compact_daemon_wake", "compact_isolated", "allocstall_normal"),
    *("pageoutrun", "pgsteal_kswapd", "pgsteal_direct", "thp_split_page", "thp_deferred_split_page"),
)
# Events that are counted as they are, by the name of their rate.
COUNTED = {
    "fallbacks": "mm_page_alloc_extfrag",
    "compaction runs": "mm_compaction_begin",
    "kswapd woken": "mm_vmscan_kswapd_wake",
    "direct reclaim": "mm_vmscan_direct_reclaim_begin",
}
# Of these every block has its page frame: those of other zones are left out.
PAGED = {"handed out": "mm_page_alloc", "freed": "mm_page_free"}
RATES = ("blocks handed out", "pages handed out", "blocks freed", "pages freed", *COUNTED)


@dataclass(frozen=True)
class Span:
    """The zone's page frames, and begin, middle and end of what is compared, ns by the recorder's clock."""

    start_pfn: int
    pages: int
    begin_ns: int
    end_ns: int
    counted: np.ndarray  # bool [pageblocks], whether one has memory that the kernel counts

    @property
    def middle_ns(self) -> int:
        """Where the half that is fitted ends."""
        return (self.begin_ns + self.end_ns) // 2

    @property
    def half_s(self) -> float:
        """Length of a half, s."""
        return (self.end_ns - self.begin_ns) / 2e9


def span_of(path: Path) -> Span:
    """From the moment at which a capture's page flags are read to that of its last table of free blocks.

    Raises
    ------
    TraceError
        When the capture has no page flags of zone Normal, or no tables after the recording.
    """
    zone = next((z for z in captured_zones(path) if z.name == ZONE), None)
    if zone is None:
        raise TraceError(f"has no page flags of zone {ZONE}", path)
    end_ns = int(_tables(path, "after")["read_ns"][TABLES[0]])
    whole = zone.pages_of[: len(zone.pages_of) // PB_PAGES * PB_PAGES]
    return Span(zone.start_pfn, zone.pages, zone.start_ns, end_ns, managed_pageblocks(whole))


def _tables(path: Path, moment: str) -> dict[str, Any]:
    for tag, data in read_chunks(path):
        if tag == container.SNAPSHOT:
            about = json_mapping(path, data)
            if about.get("moment") == moment:
                return about
    raise TraceError(f"has no tables {moment} the recording", path)


# -- what was recorded -----------------------------------------------------------------------------------


def rates_of(batches: Iterable[tuple[EventKinds, EventBatch]], span: Span) -> list[dict[str, float]]:
    """By half, `RATES` per second: blocks and pages of the zone, and events of the other kinds.

    Parameters
    ----------
    batches : iterable of (EventKinds, EventBatch)
    span : Span
        Events outside of it are left out.
    """
    counts = [dict.fromkeys(RATES, 0) for _ in range(2)]
    for kinds, batch in batches:
        half = np.full(len(batch), -1)
        half[(batch.time_ns >= span.begin_ns) & (batch.time_ns < span.end_ns)] = 0
        half[(half == 0) & (batch.time_ns >= span.middle_ns)] = 1
        for number in range(2):
            _count(counts[number], kinds, batch, half == number, span)
    return [{name: n / span.half_s for name, n in one.items()} for one in counts]


def _count(
    counts: dict[str, int], kinds: EventKinds, batch: EventBatch, chosen: np.ndarray, span: Span
) -> None:
    for name, event in COUNTED.items():
        counts[name] += int((chosen & (batch.kind == kinds.number(event))).sum())
    for name, event in PAGED.items():
        number = kinds.number(event)
        if number > 0:
            rows = batch.fields[chosen & (batch.kind == number)]
            pfn, order = (rows[:, kinds.fields[number].index(field)] for field in ("pfn", "order"))
            inside = (pfn >= span.start_pfn) & (pfn < span.start_pfn + span.pages)
            counts[f"blocks {name}"] += int(inside.sum())
            counts[f"pages {name}"] += int((1 << order[inside]).sum())


def older_frees(events: PageRequests, span: Span) -> list[list[int]]:
    """By half, blocks and pages of the zone that were freed and had been handed out before it began."""
    events = events.between(span.begin_ns, span.end_ns)
    order = np.lexsort((events.time_ns, events.pfn))
    pfn = events.pfn[order]
    first = np.append(True, pfn[1:] != pfn[:-1])[: len(pfn)]
    older = order[first & (events.mt[order] < 0)]
    inside = (events.pfn[older] >= span.start_pfn) & (events.pfn[older] < span.start_pfn + span.pages)
    older = older[inside]
    late = events.time_ns[older] >= span.middle_ns
    size = np.int64(1) << events.order[older].astype(np.int64)
    return [[int(rows.sum()), int(size[rows].sum())] for rows in (~late, late)]


def drained_from_before(batches: Iterable[tuple[EventKinds, EventBatch]], span: Span) -> list[int]:
    """By order, blocks of the zone that left per-CPU lists and had been there before recording began.

    Their pages cannot be told from pages in use, so that a simulation begins with them in use.
    """
    seen = np.zeros(span.pages, bool)
    out = np.zeros(NR_ORDERS, np.int64)
    names = ("mm_page_alloc", "mm_page_free", "mm_page_pcpu_drain")
    for kinds, batch in batches:
        numbers = [kinds.number(name) for name in names]
        rows = np.flatnonzero(
            np.isin(batch.kind, numbers) & (batch.time_ns >= span.begin_ns) & (batch.time_ns < span.end_ns)
        )
        kind = batch.kind[rows]
        pfn, order = (_column(kinds, batch, rows, field) for field in ("pfn", "order"))
        inside = (pfn >= span.start_pfn) & (pfn < span.start_pfn + span.pages)
        page = pfn[inside] - span.start_pfn
        _, where = np.unique(page, return_index=True)
        is_new = np.zeros(len(page), bool)
        is_new[where] = ~seen[page[where]]
        is_drain = kind[inside] == numbers[2]
        np.add.at(out, order[inside][is_new & is_drain], 1)
        seen[page] = True
    return out.tolist()


def _column(kinds: EventKinds, batch: EventBatch, rows: np.ndarray, name: str) -> np.ndarray:
    """A field of events of several kinds: int64 [rows]."""
    out = np.zeros(len(rows), np.int64)
    for number in np.unique(batch.kind[rows]).tolist():
        mine = batch.kind[rows] == number
        out[mine] = batch.fields[rows[mine], kinds.fields[number].index(name)]
    return out


def tables_of(path: Path) -> dict[str, dict[str, Any]]:
    """Free blocks and pageblocks by type, and pages on per-CPU lists, ``before`` and ``after``."""
    out: dict[str, dict[str, Any]] = {}
    for kind in ("pagetypeinfo", "zoneinfo"):
        for snapshot in read_dump(path).of_kind(kind):
            zone = next(z for z in snapshot.zones if z.zone == ZONE)
            told = out.setdefault(snapshot.heading.partition(":")[0], {})
            if kind == "zoneinfo":
                told["per_cpu_pages"] = sum(cpu.values["count"] for cpu in zone.pcp)
            else:
                told["free"] = {name: list(zone.free_by_type[name]) for name in TYPES}
                told["pageblocks"] = {name: zone.pageblocks[name] for name in TYPES}
    return out


def counters_of(path: Path) -> dict[str, int]:
    """How far counters of vmstat moved between the tables."""
    found = [snapshot.counters for snapshot in read_dump(path).of_kind("vmstat")]
    before, after = found[0], found[-1]
    return {name: after[name] - before[name] for name in COUNTERS if name in before and name in after}


# -- what comes out in its place -------------------------------------------------------------------------


def fitted(path: Path, events: PageRequests, span: Span) -> FittedRecording:
    """Actors of the first half; of the second only what pages held at the end, to tell holders apart."""
    pages = pages_at_end(path)
    told = holders_told(events, pages) if pages else None
    return fit_events(events.between(span.begin_ns, span.middle_ns), path, told)


def job_of(fit: FittedRecording, machine: str, name: str = "", measured: str = "") -> str:
    """The fit's job on a machine that begins as files tell.

    Parameters
    ----------
    fit : FittedRecording
    machine : str
        Value of `machine.from`.
    name : str, optional
        Of the job.
    measured : str, optional
        Where it was measured: becomes a comment of every actor.
    """
    text, nr = re.subn(r"(?m)^machine: .*$", f"machine: {{from: {machine}}}", job_text(fit))
    if nr != 1:
        raise ValueError(f"the fitted job has {nr} machines")
    if name:
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", text)
    return text.replace("- kind: allocations", f"- kind: allocations # {measured}") if measured else text


@dataclass
class _Ends:
    """Looks at a simulated zone in the middle and at the end."""

    counted: np.ndarray
    looks: list[dict[str, Any]] = field(default_factory=list)

    def look(self, z: Any, vm: Mapping[int, int] | np.ndarray | None = None) -> None:
        free = z.area.nr.reshape(-1, NR_ORDERS, NR_MT).sum(axis=0, dtype=np.int64)
        first = z.geo.lo // PB_PAGES
        labels = z.pb.label[first : first + len(self.counted)][self.counted]
        told = {
            "free": {name: free[:, mt].tolist() for mt, name in enumerate(TYPES)},
            "pageblocks": {name: int((labels == mt).sum()) for mt, name in enumerate(TYPES)},
            "extfrag": int(z.count[C.EXTFRAG]),
            "per_cpu_pages": int(z.count[C.PCP_PAGES]),
        }
        if vm is not None:
            told |= {
                "compaction runs": int(vm[V.COMPACT_STALL] + vm[V.COMPACT_DAEMON_WAKE]),
                "kswapd woken": int(vm[V.PAGEOUTRUN]),
                "direct reclaim": int(vm[V.ALLOCSTALL_NORMAL]),
            }
        self.looks.append(told)


def simulated(text: str, path: Path, span: Span, most_records: int, replicate: int = 0) -> dict[str, Any]:
    """A job of `job_of` from the captured start: rates of its second half, and its tables at the end.

    Parameters
    ----------
    text : str
    path : Path
        The capture that its machine begins as.
    span : Span
    most_records : int
        Room for events of a kind.
    replicate : int
    """
    ticks = round((span.end_ns - span.begin_ns) / NS_PER_TICK)
    ends = _Ends(span.counted)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.yaml"
        file.write_text(text, encoding="utf-8")
        scenario = load_config(file, [f"duration={ticks}ms"], one_point=True, machine_files=[path]).scenario
        result = run_replicate(
            scenario,
            SEED,
            replicate,
            records=RECORDS,
            records_max=most_records,
            frames=((0, ticks // 2, ticks), lambda run: ends.look(run.world.zone, run.world.node.vm)),
        )
    start, middle, end = ends.looks
    rates = _record_rates(result, ticks * NS_PER_TICK / 2e9)
    rates |= {name: (end[name] - middle[name]) / span.half_s for name in list(COUNTED)[1:]}
    return {"rates": rates, "start": _only_tables(start), **_only_tables(end)}


def _only_tables(look: Mapping[str, Any]) -> dict[str, Any]:
    return {name: look[name] for name in ("free", "pageblocks", "per_cpu_pages")}


def _record_rates(result: ReplicateResult, middle_s: float) -> dict[str, float]:
    """Rates of the second half from a run's records."""
    rates = {}
    for name, kind in PAGED.items():
        columns = _second(result, kind, middle_s)
        rates[f"blocks {name}"] = len(columns["order"]) / middle_s
        rates[f"pages {name}"] = float((1 << columns["order"].astype(np.int64)).sum() / middle_s)
    rates["fallbacks"] = len(_second(result, COUNTED["fallbacks"], middle_s)["pfn"]) / middle_s
    return rates


def _second(result: ReplicateResult, kind: str, middle_s: float) -> dict[str, np.ndarray]:
    records = result.records[kind]
    if records.dropped:
        raise ValueError(f"{records.dropped} records of {kind} found no room")
    late = records.columns["time"] >= middle_s
    return {name: column[late] for name, column in records.columns.items()}


def replayed(path: Path, span: Span) -> dict[str, Any]:
    """The recorded requests on the same start: fallbacks of the second half, and the tables at the end."""
    begun = begin_replay(ReplayRequest(path))
    ends = _Ends(span.counted)
    stops = sorted({*range(span.begin_ns + DECAY_NS, span.end_ns, DECAY_NS), span.middle_ns, span.end_ns})
    for kinds, batch in batches_of(begun, Receipt()):
        begin = 0
        while stops and stops[0] <= batch.time_ns[-1]:
            end = int(np.searchsorted(batch.time_ns, stops[0]))
            _replay_part(begun, kinds, batch, slice(begin, end))
            _reach(begun, stops.pop(0), span, ends)
            begin = end
        if stops:
            _replay_part(begun, kinds, batch, slice(begin, len(batch)))
    while stops:
        _reach(begun, stops.pop(0), span, ends)
    middle, last = ends.looks
    rates = {"fallbacks": (last["extfrag"] - middle["extfrag"]) / span.half_s}
    return {"rates": rates, **_only_tables(last)}


def _replay_part(begun: BegunReplay, kinds: EventKinds, batch: EventBatch, part: slice) -> None:
    cut = EventBatch(batch.time_ns[part], batch.cpu[part], batch.kind[part], batch.fields[part])
    if len(cut):
        rows, _ = begun.maker.rows_of(kinds, cut)
        replay_page_events(begun.z, begun.policy, rows, begun.place, begun.counts)


def _reach(begun: BegunReplay, stop_ns: int, span: Span, ends: _Ends) -> None:
    """What is due at a moment: a look, or the decay of the per-CPU limits, of which no event tells."""
    if stop_ns in (span.middle_ns, span.end_ns):
        ends.look(begun.z)
    else:
        rows = np.zeros((len(begun.z.pcp.cpu), replay.NR_EVENT_FIELDS), np.int32)
        rows[:, replay.E_OP] = replay.DECAY
        rows[:, replay.E_CPU] = np.arange(len(rows))
        out = np.zeros((len(rows), replay.NR_BRIEF_FIELDS), np.int64)
        replay.run_events(begun.z, begun.policy, rows, 0, len(rows), np.zeros(2, np.int64), out)


# -- all of it -------------------------------------------------------------------------------------------


def numbers_of(path: Path, replicates: int) -> tuple[dict[str, Any], FittedRecording]:
    """Everything that is compared of one recording, as plain data, and the fit of its first half."""
    span = span_of(path)
    events = read_page_events(path)
    fit = fitted(path, events, span)
    first, second = rates_of(read_batches(path), span)
    tables = tables_of(path)
    text = job_of(fit, path.name)
    most = 2 * int(span.half_s * 2 * (first["blocks handed out"] + second["blocks handed out"])) + 100_000
    runs = [simulated(text, path, span, most, replicate) for replicate in range(replicates)]
    bounds = [a.name for a in fit.actors if a.lifetimes and any(p.is_bound for p in a.lifetimes.parts)]
    return {
        "half_s": round(span.half_s, 3),
        "first": first,
        "second": second,
        "before": tables["before"],
        "after": tables["after"],
        "older": older_frees(events, span),
        "drained": drained_from_before(read_batches(path), span),
        "counters": counters_of(path),
        "fit": {
            "actors": len(fit.actors),
            "blocks": fit.receipt.allocations,
            "lost": events.lost,
            "left_out": events.left_out,
            "bursts": sum(actor.burst is not None for actor in fit.actors),
            "not_identified": bounds,
            "parts_freed": fit.receipt.parts,
        },
        "simulated": runs,
        "replayed": replayed(path, span),
    }, fit


def tables_text(path: Path) -> str:
    """The tables of free lists before a recording as one text, which `machine.from` reads."""
    about = _tables(path, "before")
    return "\n".join(f"==> {name}\n{about['texts'][name]}" for name in TABLES)
