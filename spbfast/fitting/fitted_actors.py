"""Actors from a recording: one for each holder, type and order of blocks, with rates, lifetimes and bursts.

Owns FitRequest, the grouping, and the receipt. What lies below is owned by page_requests.py (events),
page_lives.py (lives), exponential_mixture.py (lifetimes) and arrivals.py (rates and bursts).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spbfast.errors import DumpError
from spbfast.fitting.arrivals import ArrivalRate, FoundBurst, arrival_rate, find_burst, time_block
from spbfast.fitting.exponential_mixture import FittedMixture, fit_mixture, grouped_lives
from spbfast.fitting.holder_flags import NAMES
from spbfast.fitting.page_lives import PageLives, holders_told, lives_of, pages_at_end
from spbfast.fitting.page_requests import PageRequests, read_page_events

TYPE_NAMES = ("unmovable", "movable", "reclaimable")
LEAST_BLOCKS = 20
LEAST_SECONDS = 0.05
SHORT_S = 100e-6  # the least lifetime of a part that an actor can have
MANY = 0.01  # share of lives or events from which on something deserves a warning


@dataclass(frozen=True)
class FittedActor:
    """One kind of blocks.

    Attributes
    ----------
    name : str
    holder, type : str
    order : int
    blocks, ended : int
        Blocks handed out, and those of them whose end was seen.
    arrivals : ArrivalRate
    burst : FoundBurst or None
    lifetimes : FittedMixture or None
        None where no life of the kind can be used.
    """

    name: str
    holder: str
    type: str
    order: int
    blocks: int
    ended: int
    arrivals: ArrivalRate
    burst: FoundBurst | None
    lifetimes: FittedMixture | None


@dataclass
class FitReceipt:
    """What became of the events.

    Attributes
    ----------
    allocations, frees : int
        Read.
    seconds : float
        Time that the recording covers.
    ended, censored, censored_at_gap, overwritten : int
        Lives whose end was seen; held at the end; last seen before a loss; handed out again without a free,
        whose lifetimes are not used.
    moved : int
        Lives last seen when compaction moved the block.
    truncated, parts, moved_frees : int
        Frees of blocks that were handed out before, dropped; of parts of blocks; by compaction.
    lost, failed, strange, other_types, left_out : int
        Events dropped by the recorder; requests that got nothing; events that no machine has; of types that
        no actor asks for; behind the most that are read.
    rare : int
        Blocks of kinds with fewer than `LEAST_BLOCKS`, for which no actor is made.
    holders_seen : bool
        Whether pages at the end of the recording helped to tell holders apart.
    warnings : list of str
    """

    allocations: int = 0
    frees: int = 0
    seconds: float = 0.0
    ended: int = 0
    censored: int = 0
    censored_at_gap: int = 0
    overwritten: int = 0
    truncated: int = 0
    parts: int = 0
    moved: int = 0
    moved_frees: int = 0
    lost: int = 0
    failed: int = 0
    strange: int = 0
    other_types: int = 0
    left_out: int = 0
    rare: int = 0
    holders_seen: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FittedRecording:
    """Actors of a recording, with the receipt, the CPUs of the machine and the time that the fit took, s."""

    path: Path
    actors: tuple[FittedActor, ...]
    receipt: FitReceipt
    cpus: int
    took: float


def fit_recording(path: Path) -> FittedRecording:
    """Fit actors to a recording.

    Parameters
    ----------
    path : Path
        A capture, or a trace as text, with mm_page_alloc and mm_page_free.

    Raises
    ------
    DumpError
        When the file is neither, is damaged, or holds too little to fit anything.
    """
    events, pages = read_page_events(path), pages_at_end(path)
    return fit_events(events, path, holders_told(events, pages) if pages else None)


def fit_events(events: PageRequests, path: Path, told: dict[int, int] | None = None) -> FittedRecording:
    """Fit actors to events that were read from `path`; `told` as in `lives_of`, None: no pages were recorded.

    Raises
    ------
    DumpError
        When there is too little to fit anything.
    """
    began = time.perf_counter()
    if events.seconds < LEAST_SECONDS:
        text = f"covers {events.seconds * 1000:.3g} ms; a fit needs at least {LEAST_SECONDS * 1000:.0f} ms"
        raise DumpError(path, 0, text)
    lives = lives_of(events, told)
    receipt = _receipt(events, lives, told is not None)
    actors, receipt.rare = [], 0
    for key, rows in kinds_of(lives).items():
        if len(rows) < LEAST_BLOCKS:
            receipt.rare += len(rows)
            continue
        actors.append(_fit_kind(key, rows, lives, events))
    if not actors:
        text = f"has {len(lives):,} blocks, fewer than {LEAST_BLOCKS} of every kind: nothing can be fitted"
        raise DumpError(path, 0, text)
    actors.sort(key=lambda actor: -actor.arrivals.rate * (1 << actor.order))
    _warn(receipt, actors)
    return FittedRecording(path, tuple(actors), receipt, events.cpus, time.perf_counter() - began)


def kinds_of(lives: PageLives) -> dict[tuple[int, int, int], np.ndarray]:
    """Rows of the lives by holder, type and order."""
    code = lives.holder.astype(np.int64) << 16 | lives.mt.astype(np.int64) << 8 | lives.order
    by_code = np.argsort(code, kind="stable")
    values, first = np.unique(code[by_code], return_index=True)
    pieces = np.split(by_code, first[1:])
    return {
        (value >> 16, value >> 8 & 0xFF, value & 0xFF): rows
        for value, rows in zip(values.tolist(), pieces, strict=True)
    }


def kind_name(key: tuple[int, int, int]) -> str:
    """Name of the actor for a holder, type and order."""
    holder, mt, order = key
    return f"{NAMES[holder]}-{TYPE_NAMES[mt]}-{order}"


def _fit_kind(
    key: tuple[int, int, int], rows: np.ndarray, lives: PageLives, events: PageRequests
) -> FittedActor:
    holder, mt, order = key
    length = events.seconds
    start = (lives.start_ns[rows] - events.start_ns) / 1e9
    seconds, ended = lives.seconds[rows], lives.ended[rows]
    known = np.isfinite(seconds)
    grouped = grouped_lives(seconds[known], ended[known], time_block(start[known], length))
    return FittedActor(
        kind_name(key),
        NAMES[holder],
        TYPE_NAMES[mt],
        order,
        len(rows),
        int(ended.sum()),
        arrival_rate(start, length),
        find_burst(start, length),
        fit_mixture(grouped) if grouped.nr else None,
    )


def _receipt(events: PageRequests, lives: PageLives, holders_seen: bool) -> FitReceipt:
    return FitReceipt(
        len(lives),
        len(events) - len(lives),
        events.seconds,
        lives.nr_ended,
        lives.nr_alive,
        lives.nr_gap,
        lives.nr_overwritten,
        lives.unknown_frees,
        lives.part_frees,
        lives.nr_moved,
        lives.moved_frees,
        events.lost,
        events.failed,
        events.strange,
        events.other_types,
        events.left_out,
        holders_seen=holders_seen,
        warnings=list(events.said),
    )


def _warn(receipt: FitReceipt, actors: list[FittedActor]) -> None:
    all_events = receipt.allocations + receipt.frees
    say = receipt.warnings.append
    if receipt.lost:
        share = receipt.lost / (all_events + receipt.lost)
        say(
            f"{receipt.lost:,} events were lost: rates are lower bounds, up to {share:.1%} too low; "
            "lifetimes are bounds from above where frees were among them"
        )
    if receipt.overwritten > MANY * receipt.allocations:
        share = receipt.overwritten / receipt.allocations
        say(f"{share:.1%} of the blocks have no free before they are handed out again: frees are missing")
    if receipt.left_out:
        say(f"{receipt.left_out:,} events behind the first {all_events:,} are not used")
    if unknown := [a.name for a in actors if a.lifetimes is None]:
        say(f"no lifetime of these is known: {', '.join(unknown)}")
    bounds = [a.name for a in actors if a.lifetimes and any(p.is_bound for p in a.lifetimes.parts)]
    if bounds:
        say(
            f"the recording, of {receipt.seconds:.3g} s, is too short for the longest lifetimes of "
            f"{', '.join(bounds)}; these are lower bounds"
        )
    if not receipt.holders_seen:
        say("what pages held at the end was not recorded (--pages); holders are told by flags alone")
