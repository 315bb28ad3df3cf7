"""A measured machine simulated against its own recordings: what was recorded, and what comes out instead.

Owns the numbers of results/studies/measured.json: of each load the rates of both halves, the free lists and
types of pageblocks before and after, the same of simulations whose actors were fitted to the first half, and
of the recorded requests repeated on the same start. Records nothing itself.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.measured_counts import (
    COUNTED,
    PAGED,
    TYPES,
    Span,
    counters_of,
    drained_from_before,
    most_given_back,
    older_frees,
    rates_of,
    recorded_given_back,
    span_of,
    tables_of,
)
from spbfast.config import load_config
from spbfast.constants import NR_MT, NR_ORDERS, NS_PER_TICK, PB_PAGES, C
from spbfast.fitting import job_text
from spbfast.fitting.fitted_actors import FittedRecording, fit_events
from spbfast.fitting.page_lives import PageRequests, holders_told, pages_at_end, read_page_events
from spbfast.model.engine import ReplicateResult, run_replicate
from spbfast.model.loop import replay
from spbfast.model.loop.recorded_pages import replay_page_events
from spbfast.model.state.vmstat import V
from spbfast.observed.event_columns import EventBatch, EventKinds, read_batches
from spbfast.observed.receipt import Receipt
from spbfast.recordings.replaying import BegunReplay, ReplayRequest, batches_of, begin_replay

RECORDS = ("mm_page_alloc", "mm_page_free", "mm_page_alloc_extfrag")
SEED = 1
DECAY_NS = 10**9  # between two decays of the per-CPU limits, as in the model


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
    half_s = ticks * NS_PER_TICK / 2e9
    rates = _record_rates(result, half_s)
    rates |= {name: (end[name] - middle[name]) / span.half_s for name in list(COUNTED)[1:]}
    back = _simulated_given_back(result, half_s)
    return {"rates": rates, "given_back": back, "start": _only_tables(start), **_only_tables(end)}


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
        "given_back": recorded_given_back(events, span),
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
