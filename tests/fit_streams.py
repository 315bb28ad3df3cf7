"""Recordings with known truth: streams of allocations and frees in continuous time, as captures.

`python -m tests.fit_streams` fits the ten streams of docs/fit.md and prints how often truth lies within the
stated intervals; test_fit.py takes small ones. Nothing here shares code with the fit: arrivals are Poisson,
lifetimes drawn by NumPy, page frames handed out again last in, first out.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.fitting.fitted_actors import FittedRecording, fit_recording
from spbfast.observed import capture_file as container
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds, pack_batch

NR_STREAMS = 10
HEAD = (
    "stream",
    "rates off by at most",
    "in their interval",
    "parts found",
    "mean lifetimes in their interval",
    "off by at most",
    "shares in their interval",
    "distance at most",
)
KINDS = EventKinds(
    ("lost", "mm_page_alloc", "mm_page_free"),
    (("events",), ("pfn", "order", "gfp_flags", "migratetype"), ("pfn", "order")),
)
# Name of the actor that must come out: flags of the request as Linux 6.18 has them, order, type.
REQUESTS = {
    "anon-movable-0": (0x140DCA, 0, 1),
    "page_cache-movable-0": (0x152C4A, 0, 1),
    "page_cache-movable-2": (0x153CCA, 2, 1),
    "slab-reclaimable-2": (0xD2050, 2, 2),
    "slab-unmovable-1": (0xD20C0, 1, 0),
    "page_table-unmovable-0": (0x440DC0, 0, 0),
    "other-unmovable-3": (0x40CC0, 3, 0),
    "huge-movable-9": (0x3D24CA, 9, 1),
}


@dataclass(frozen=True)
class TrueKind:
    """Rate, 1/s, mean lifetimes, s, and shares of one kind of blocks."""

    name: str
    rate: float
    means: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class TrueStream:
    """Kinds of a stream and its length, s."""

    kinds: tuple[TrueKind, ...]
    length: float


def drawn_stream(seed: int, length: float = 20.0, rate: float = 3000.0) -> TrueStream:
    """Four kinds with one to three parts, means of 0.5 ms to a quarter of the length, ten times apart."""
    rng = np.random.default_rng(seed)
    kinds = []
    for name in rng.choice(list(REQUESTS), 4, replace=False).tolist():
        nr = int(rng.integers(1, 4))
        means = [10 ** rng.uniform(np.log10(5e-4), np.log10(length / 4 / 12 ** (nr - 1)))]
        while len(means) < nr:
            means.append(means[-1] * rng.uniform(10, 12))
        shares = rng.uniform(1, 3, nr)
        kind = TrueKind(
            name, rate * 10 ** rng.uniform(-0.3, 0.3), tuple(means), tuple((shares / shares.sum()).tolist())
        )
        kinds.append(kind)
    return TrueStream(tuple(kinds), length)


def stream_events(stream: TrueStream, seed: int) -> EventBatch:
    """Events of a stream; it has run for a fifth of its length before it is recorded."""
    rng = np.random.default_rng((seed, 1))
    before = 0.2 * stream.length
    events: list[tuple[float, int, int, int, int]] = []  # time, kind of request, block, 1 alloc 0 free, order
    block = 0
    for kind, true in enumerate(stream.kinds):
        total = before + stream.length
        start = rng.uniform(-before, stream.length, rng.poisson(true.rate * total))
        part = rng.choice(len(true.means), len(start), p=true.shares)
        end = start + rng.exponential(np.array(true.means)[part])
        for a, b in zip(start.tolist(), end.tolist(), strict=True):
            events.append((a, 1, block, kind, 0))
            if b < stream.length:
                events.append((b, 0, block, kind, 0))
            block += 1
    heapq.heapify(events)
    return _as_batch(stream, events)


def _as_batch(stream: TrueStream, events: list[tuple[float, int, int, int, int]]) -> EventBatch:
    free: dict[int, list[int]] = {}
    place: dict[int, int] = {}
    fresh, rows = 1 << 18, []
    while events:
        at, is_alloc, block, kind, _ = heapq.heappop(events)
        flags, order, mt = REQUESTS[stream.kinds[kind].name]
        if is_alloc:
            if not free.get(order):
                free[order] = [fresh]
                fresh += 1 << 10
            place[block] = free[order].pop()
        else:
            free[order].append(place[block])
        if at >= 0:
            number = 1 if is_alloc else 2
            rows.append((round(at * 1e9) + 10**9, number, place[block], order, flags, mt))
    table = np.array(rows, np.int64)
    fields = np.zeros((len(table), MAX_EVENT_FIELDS), np.int64)
    fields[:, :4] = table[:, 2:]
    fields[table[:, 1] == 2, 2:4] = 0
    return EventBatch(table[:, 0], np.zeros(len(table), np.int64), table[:, 1], fields)


def write_recording(path: Path, batch: EventBatch) -> Path:
    """A capture with these events."""
    head = [{"name": n, "fields": list(f)} for n, f in zip(KINDS.names, KINDS.fields, strict=True)]
    with open(path, "wb") as file:
        container.write_prolog(file)
        about = {"kernel": "6.18.0", "machine": "x86_64", "events": head}
        container.write_chunk(file, container.HEAD, container.json_chunk(about))
        for i in range(0, len(batch), 1 << 17):
            part = slice(i, i + (1 << 17))
            piece = EventBatch(batch.time_ns[part], batch.cpu[part], batch.kind[part], batch.fields[part])
            container.write_chunk(file, container.EVENTS, pack_batch(piece, KINDS))
        container.write_chunk(file, container.DONE, container.json_chunk({"events": len(batch)}))
    return path


@dataclass
class Recovered:
    """How a fit stands to the truth.

    Attributes
    ----------
    worst_rate : float
        Largest relative error of a rate.
    kinds, rates_inside, right_parts : int
        Kinds; rates within their interval; kinds with the right number of parts.
    means, means_inside : int
        Mean lifetimes of kinds with the right number of parts; those within their interval.
    shares_inside : int
    worst_mean, worst_distance : float
        Largest relative error of a mean lifetime, and largest distance from Kaplan and Meier.
    """

    worst_rate: float = 0.0
    kinds: int = 0
    rates_inside: int = 0
    right_parts: int = 0
    means: int = 0
    means_inside: int = 0
    shares_inside: int = 0
    worst_mean: float = 0.0
    worst_distance: float = 0.0


def recovered(stream: TrueStream, fit: FittedRecording) -> Recovered:
    """Compare a fit with the truth."""
    out = Recovered()
    found = {actor.name: actor for actor in fit.actors}
    for true in stream.kinds:
        actor = found[true.name]
        out.kinds += 1
        out.worst_rate = max(out.worst_rate, abs(actor.arrivals.rate / true.rate - 1))
        out.rates_inside += actor.arrivals.low <= true.rate <= actor.arrivals.high
        assert actor.lifetimes is not None
        out.worst_distance = max(out.worst_distance, actor.lifetimes.distance)
        parts = actor.lifetimes.parts
        if len(parts) != len(true.means):
            continue
        out.right_parts += 1
        for part, mean, share in zip(parts, true.means, true.shares, strict=True):
            out.means += 1
            out.means_inside += part.mean_low <= mean <= part.mean_high
            out.shares_inside += part.share_low - 1e-9 <= share <= part.share_high + 1e-9
            out.worst_mean = max(out.worst_mean, abs(part.mean / mean - 1))
    return out


def fit_stream(seed: int, folder: Path, length: float = 20.0, rate: float = 3000.0) -> Recovered:
    """Draw, record, fit and compare one stream."""
    stream = drawn_stream(seed, length, rate)
    path = write_recording(folder / f"stream-{seed}.spbcap", stream_events(stream, seed))
    return recovered(stream, fit_recording(path))


def main() -> None:
    """Print a row for each of the ten streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(args.first, args.first + NR_STREAMS):
            r = fit_stream(seed, Path(folder))
            cells = (
                str(seed),
                f"{r.worst_rate:.2%}",
                f"{r.rates_inside} of {r.kinds}",
                f"{r.right_parts} of {r.kinds}",
                f"{r.means_inside} of {r.means}",
                f"{r.worst_mean:.2%}",
                f"{r.shares_inside} of {r.means}",
                f"{r.worst_distance:.4f}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
