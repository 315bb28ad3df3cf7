"""A measured machine simulated against its own recordings: what was recorded, and what comes out instead.

Owns the numbers of results/studies/measured.json: of each load the rates of both halves, the free lists and
types of pageblocks before and after, the same of simulations whose actors were fitted to the first half, and
of the recorded requests repeated on the same start. Records nothing itself.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.measured_compared import ANY_ORDER, KEPT, UNLIMITED, lists_by_row
from experiments.measured_counts import (
    COUNTED,
    PAGED,
    TYPES,
    Span,
    compaction_ends,
    counters_of,
    drained_from_before,
    most_given_back,
    older_frees,
    rates_of,
    recorded_given_back,
    span_of,
    tables_of,
)
from experiments.measured_start import (
    OLD_KINDS,
    CacheFit,
    OldBlocks,
    actor_lines,
    cache_fit,
    classes_at_start,
    in_zone,
    is_cache,
    old_blocks,
)
from experiments.measured_vmstat import counted_between, listed_between, vmstat_path
from spbfast.config import load_config
from spbfast.constants import NR_MT, NR_ORDERS, NS_PER_TICK, PB_ORDER, PB_PAGES, C
from spbfast.fitting import job_text
from spbfast.fitting.fitted_actors import FittedRecording, fit_events
from spbfast.fitting.page_lives import holders_told, pages_at_end
from spbfast.fitting.page_requests import PageRequests, read_page_events
from spbfast.model.engine import ReplicateResult, run_replicate
from spbfast.model.loop import replay
from spbfast.model.loop.recorded_pages import replay_page_events
from spbfast.model.state.vmstat import V, Vo
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches
from spbfast.observed.page_classes import PageClass
from spbfast.observed.receipt import Receipt
from spbfast.recordings.replaying import BegunReplay, ReplayRequest, batches_of, begin_replay

RECORDS = ("mm_page_alloc", "mm_page_free", "mm_page_alloc_extfrag")
SEED = 1
# Counters by the kernel's names, as the model has them: what it scans it reclaims, and a request above
# order 0 that fails is a huge page that is not had.
SIMULATED = {
    "pgscan_kswapd": V.PGSTEAL_KSWAPD,
    "pgsteal_kswapd": V.PGSTEAL_KSWAPD,
    "pgscan_direct": V.PGSTEAL_DIRECT,
    "pgsteal_direct": V.PGSTEAL_DIRECT,
    "compact_stall": V.COMPACT_STALL,
    "compact_success": V.COMPACT_SUCCESS,
    "compact_fail": V.COMPACT_FAIL,
    "compact_daemon_wake": V.COMPACT_DAEMON_WAKE,
    "compact_migrate_scanned": V.COMPACT_MIGRATE_SCANNED,
    "compact_free_scanned": V.COMPACT_FREE_SCANNED,
    "pgmigrate_success": V.PGMIGRATE_SUCCESS,
    "thp_fault_fallback": V.ALLOC_FAILED_BLOCKING,
    "thp_split_page": Vo.THP_MIGRATION_SPLIT,
}
# One thing changed at a time, where reclaim takes page cache: checks of what makes a difference.
VARIED = {
    "kswapd is woken below low": ["reclaim.kswapd_wake=low"],
    "huge faults wake kswapd": ["reclaim.huge_faults_wake_kswapd=true"],
    "compaction takes pageblocks labelled movable alone": ["reclaim.compact_any_label=false"],
    UNLIMITED: ["reclaim.compact_candidates=64", "reclaim.compact_rate=100000"],
    "compaction has two scanners": ["reclaim.compaction=scanners"],
    "compaction has two scanners and is not limited": [
        *("reclaim.compaction=scanners", "reclaim.compact_candidates=64", "reclaim.compact_rate=100000"),
    ],
    "direct reclaim goes on to the gap that compaction needs": ["reclaim.compact_gap=true"],
    "CPUs keep short lists below high": ["pcp.shrink_below_high=true"],
    ANY_ORDER: [
        *("pagecache.start_order=random", "pagecache.lru_mix=0.5"),
    ],
}
LOOKS, TENTHS = 40, 10  # at the lists of a simulated half; parts of a recorded one
DECAY_NS = 10**9  # between two decays of the per-CPU limits, as in the model


@dataclass(frozen=True)
class FittedHalf:
    """What the first half of a recording makes of the zone: actors, memory of the start, and page cache.

    `fit` has no actors for page cache where `cache` tells how that comes and goes.
    """

    fit: FittedRecording
    old: list[OldBlocks]
    cache: CacheFit | None

    @property
    def freed(self) -> set[tuple[int, int | None]]:
        """Classes and orders of memory of the start that actors or reclaim free."""
        cache: set[tuple[int, int | None]] = {(int(PageClass.PAGE_CACHE), None)} if self.cache else set()
        return cache | {(int(OLD_KINDS[one.holder][0]), one.order) for one in self.old}


def fitted(path: Path, events: PageRequests, span: Span, counted: Mapping[str, float]) -> FittedHalf:
    """Actors of the first half; of the second only what pages held at the end, to tell holders apart.

    `counted` are the counters of vmstat of the first half, empty where nobody looked.
    """
    pages = pages_at_end(path)
    told = holders_told(events, pages) if pages else None
    half = events.between(span.begin_ns, span.middle_ns)
    fit = fit_events(half, path, told)
    classes = classes_at_start(path)
    cache = cache_fit(fit, half, span, classes, counted) if counted else None
    if cache is not None:
        fit = replace(fit, actors=tuple(a for a in fit.actors if not is_cache(a)))
    return FittedHalf(fit, old_blocks(half, span, classes, cache is None), cache)


def job_of(
    fit: FittedRecording, machine: str, name: str = "", measured: str = "", more: Sequence[str] = ()
) -> str:
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
    more : sequence of str, optional
        Lines of further actors.
    """
    text, nr = re.subn(r"(?m)^machine: .*$", f"machine: {{from: {machine}}}", job_text(fit))
    if nr != 1:
        raise ValueError(f"the fitted job has {nr} machines")
    if name:
        text = re.sub(r"(?m)^name: .*$", f"name: {name}", text)
    text += "".join(f"{line}\n" for line in more)
    return re.sub(r"(?m)^(  - kind: \w+)$", rf"\1 # {measured}", text) if measured else text


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
                "counters": {name: int(vm[number]) for name, number in SIMULATED.items()},
            }
        self.looks.append(told)

    def listed(self, first: int) -> list[float]:
        """Means from a look on: free blocks by order, then pages on per-CPU lists."""
        late = self.looks[first:]
        free = np.array([[look["free"][mt] for mt in TYPES] for look in late], float).sum(axis=1).mean(axis=0)
        return [*free.tolist(), sum(look["per_cpu_pages"] for look in late) / len(late)]


def simulated(
    text: str, path: Path, span: Span, most_records: int, replicate: int = 0, keys: Sequence[str] = ()
) -> dict[str, Any]:
    """A job of `job_of` from the captured start: rates and lists of its second half, pageblocks at the end.

    Parameters
    ----------
    text : str
    path : Path
        The capture that its machine begins as.
    span : Span
    most_records : int
        Room for events of a kind.
    replicate : int
    keys : sequence of str
        Overrides, as `--set` takes them.
    """
    ticks = round((span.end_ns - span.begin_ns) / NS_PER_TICK)
    ends = _Ends(span.counted)
    moments = np.linspace(ticks // 2, ticks, LOOKS + 1).astype(int).tolist()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.yaml"
        file.write_text(text, encoding="utf-8")
        given = [f"duration={ticks}ms", *keys]
        scenario = load_config(file, given, one_point=True, machine_files=[path]).scenario
        result = run_replicate(
            scenario,
            SEED,
            replicate,
            records=RECORDS,
            records_max=most_records,
            frames=((0, *moments), lambda run: ends.look(run.world.zone, run.world.node.vm)),
        )
    start, middle, *_, end = ends.looks
    half_s = ticks * NS_PER_TICK / 2e9
    rates = _record_rates(result, half_s)
    rates |= {name: (end[name] - middle[name]) / span.half_s for name in list(COUNTED)[1:]}
    back = _simulated_given_back(result, half_s)
    moved = {name: (n - middle["counters"][name]) / span.half_s for name, n in end["counters"].items()}
    moved["thp_fault_alloc"] = _huge_blocks(result, half_s)
    tables = {"start": _only_tables(start), "pageblocks": end["pageblocks"], "listed": ends.listed(2)}
    return {"rates": rates, "counters": moved, "given_back": back, **tables}


def _huge_blocks(result: ReplicateResult, middle_s: float) -> float:
    """Blocks of a pageblock's size handed out in the second half, a second."""
    return int((_second(result, PAGED["handed out"], middle_s)["order"] == PB_ORDER).sum()) / middle_s


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


def _simulated_given_back(result: ReplicateResult, middle_s: float) -> int:
    taken, freed = (_second(result, kind, middle_s) for kind in PAGED.values())
    seconds, order = (np.concatenate([taken[name], freed[name]]) for name in ("time", "order"))
    return most_given_back(seconds - middle_s, order, np.arange(len(order)) >= len(taken["order"]))


def _second(result: ReplicateResult, kind: str, middle_s: float) -> dict[str, np.ndarray]:
    records = result.records[kind]
    if records.dropped:
        raise ValueError(f"{records.dropped} records of {kind} found no room")
    late = records.columns["time"] >= middle_s
    if "moved" in records.columns:  # compaction takes new places without an event in the kernel
        late &= records.columns["moved"] == 0
    return {name: column[late] for name, column in records.columns.items()}


def replayed(path: Path, span: Span) -> dict[str, Any]:
    """The recorded requests on the same start: what `simulated` tells of lists, pageblocks and fallbacks."""
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
    middle, *_, last = ends.looks
    rates = {"fallbacks": (last["extfrag"] - middle["extfrag"]) / span.half_s}
    return {"rates": rates, "pageblocks": last["pageblocks"], "listed": ends.listed(1)}


def _replay_part(begun: BegunReplay, kinds: EventKinds, batch: EventBatch, part: slice) -> None:
    cut = EventBatch(batch.time_ns[part], batch.cpu[part], batch.kind[part], batch.fields[part])
    if len(cut):
        rows, _ = begun.maker.rows_of(kinds, cut)
        replay_page_events(begun.z, begun.policy, rows, begun.place, begun.counts)


def _reach(begun: BegunReplay, stop_ns: int, span: Span, ends: _Ends) -> None:
    """What is due at a moment: a look, and the decay of the per-CPU limits, of which no event tells."""
    if stop_ns >= span.middle_ns:
        ends.look(begun.z)
    if stop_ns not in (span.middle_ns, span.end_ns):
        rows = np.zeros((len(begun.z.pcp.cpu), replay.NR_EVENT_FIELDS), np.int32)
        rows[:, replay.E_OP] = replay.DECAY
        rows[:, replay.E_CPU] = np.arange(len(rows))
        out = np.zeros((len(rows), replay.NR_BRIEF_FIELDS), np.int64)
        replay.run_events(begun.z, begun.policy, rows, 0, len(rows), np.zeros(2, np.int64), out)


def lines_of(half: FittedHalf) -> list[str]:
    """What `fit` does not tell of a half, as lines of its job."""
    return actor_lines(half.old, half.cache, half.fit.cpus)


def counted_halves(path: Path, span: Span) -> list[dict[str, float]]:
    """How far counters of vmstat moved in each half; empty where nobody looked."""
    beside = vmstat_path(path)
    if not beside.is_file():
        return [{}, {}]
    data = json.loads(beside.read_text(encoding="utf-8"))
    moments = (span.begin_ns, span.middle_ns, span.end_ns)
    return [counted_between(data, *ends) for ends in pairwise(moments)]


def parts_of(path: Path, span: Span) -> tuple[dict[str, float], dict[str, float], dict[str, list[float]]]:
    """Rates of both halves; of each tenth of the second rates, counters and lists, by the names of rows."""
    parts = rates_of(read_batches(path), span, 2 * TENTHS)
    first, second = (
        {name: sum(part[name] for part in half) / TENTHS for name in parts[0]}
        for half in (parts[:TENTHS], parts[TENTHS:])
    )
    tenths = {name: [part[name] for part in parts[TENTHS:]] for name in second}
    beside = vmstat_path(path)
    if not beside.is_file():
        return first, second, tenths
    data = json.loads(beside.read_text(encoding="utf-8"))
    for begin, end in pairwise(span.edges(2 * TENTHS)[TENTHS:].tolist()):
        seconds = (end - begin) / 1e9
        moved = counted_between(data, begin, end)
        found = {name: n / seconds for name, n in moved.items()}
        found |= lists_by_row(listed_between(data, begin, end))
        for name, value in found.items():
            tenths.setdefault(name, []).append(value)
    return first, second, tenths


def numbers_of(path: Path, replicates: int) -> tuple[dict[str, Any], FittedHalf]:
    """Everything that is compared of one recording, as plain data, and the fit of its first half."""
    span = span_of(path)
    everywhere = read_page_events(path)
    events = in_zone(everywhere, span)
    counted = counted_halves(path, span)
    half = fitted(path, events, span, counted[0])
    fit = half.fit
    first, second, tenths = parts_of(path, span)
    tables = tables_of(path)
    text = job_of(fit, path.name, more=lines_of(half))
    most = 2 * int(span.half_s * 2 * (first["blocks handed out"] + second["blocks handed out"])) + 100_000
    runs = [simulated(text, path, span, most, replicate) for replicate in range(replicates)]
    bounds = [a.name for a in fit.actors if a.lifetimes and any(p.is_bound for p in a.lifetimes.parts)]
    others = {}
    if half.cache is not None:
        others = {name: simulated(text, path, span, most, 0, keys) for name, keys in VARIED.items()}
        bare = job_of(fit, path.name, more=actor_lines([], half.cache, fit.cpus))
        others[KEPT] = simulated(bare, path, span, most)
    return {
        "half_s": round(span.half_s, 3),
        "first": first,
        "second": second,
        "tenths": tenths,
        "before": tables["before"],
        "after": tables["after"],
        "older": older_frees(events, span, classes_at_start(path), half.freed),
        "given_back": recorded_given_back(events, span),
        "drained": drained_from_before(read_batches(path), span),
        "counters": counters_of(path),
        "counted": [{name: n / span.half_s for name, n in one.items()} for one in counted],
        "other_zones": 1.0 - len(events) / max(len(everywhere), 1),
        "varied": others,
        "compaction_ends": compaction_ends(read_batches(path), span),
        "fit": {
            "cache": asdict(half.cache) if half.cache else None,
            "old": [asdict(one) for one in half.old],
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
    }, half
