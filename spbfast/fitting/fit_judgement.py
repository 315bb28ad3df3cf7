"""What a fit is worth: its simulated stream against the half of the recording that it has not seen.

Owns the simulation of demand alone, without an allocator, and the distances. Within a tick of 1 ms requests
are taken to come evenly.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.config import load_config
from spbfast.constants import NR_ROW, NS_PER_TICK, Op, Row
from spbfast.errors import DumpError
from spbfast.fitting.actors_yaml import job_text
from spbfast.fitting.exponential_mixture import bin_edges, grouped_lives, kaplan_meier
from spbfast.fitting.fitted_actors import FittedRecording, fit_events, kind_name, kinds_of
from spbfast.fitting.page_lives import PageLives, holders_told, lives_of, pages_at_end
from spbfast.fitting.page_requests import PageRequests, read_page_events
from spbfast.model.demand.demand_plan import DemandPlan
from spbfast.model.demand.generate import generate_tick
from spbfast.model.lowering.lower_actors import lower_actors
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.demand_layout import Ap

FIRST_OWNER = 1
LEAST_JUDGED = 100  # blocks of a kind on both sides, before their lifetimes are compared
LEAST_AT_RISK = 0.05


@dataclass(frozen=True)
class StreamLives:
    """Lives of a stream, simulated or recorded, by the name of its actor.

    Attributes
    ----------
    seconds, ended : dict of str to ndarray
        float64 and bool [n]; right-censored at the stream's end.
    length : float
        Of the stream, s.
    """

    seconds: dict[str, np.ndarray]
    ended: dict[str, np.ndarray]
    length: float

    def counts(self) -> dict[str, int]:
        """Blocks by name."""
        return {name: len(values) for name, values in self.seconds.items()}


@dataclass(frozen=True)
class KindDistance:
    """One kind of blocks in two streams.

    Attributes
    ----------
    name : str
    here, there : float
        Blocks a second.
    lifetimes : float or None
        Largest distance of the two estimates of survival, from 1 ms on; None with too few blocks.
    """

    name: str
    here: float
    there: float
    lifetimes: float | None


@dataclass(frozen=True)
class StreamDistance:
    """Distances of two streams.

    Attributes
    ----------
    orders, types, holders : float
        Half the sum of the differences of shares of blocks: 0 equal, 1 disjoint.
    rate : float
        Blocks a second of the first over those of the second.
    kinds : tuple of KindDistance
        By blocks, the most frequent first.
    """

    orders: float
    types: float
    holders: float
    rate: float
    kinds: tuple[KindDistance, ...]

    @property
    def lifetimes(self) -> float:
        """Mean of the distances of lifetimes, weighted with blocks of both streams."""
        judged = [(k.lifetimes, k.here + k.there) for k in self.kinds if k.lifetimes is not None]
        total = sum(weight for _, weight in judged)
        return sum(value * weight for value, weight in judged) / total if total else float("nan")


@dataclass(frozen=True)
class HalvesJudged:
    """The first half fitted and simulated, the second held against it.

    Attributes
    ----------
    fit : FittedRecording
        Of the first half.
    simulated : StreamDistance
        The second half from the simulated stream.
    halves : StreamDistance
        The second half from the first as recorded: what no fit of the first could do much better.
    """

    fit: FittedRecording
    simulated: StreamDistance
    halves: StreamDistance


def judge_halves(path: Path, seed: int = 1) -> HalvesJudged:
    """Fit the first half of a recording, simulate it, and compare with the second half.

    Raises
    ------
    DumpError
        When the recording cannot be read or is too short.
    """
    events, pages = read_page_events(path), pages_at_end(path)
    told = holders_told(events, pages) if pages else None
    middle = (events.start_ns + events.end_ns) // 2
    halves = events.between(events.start_ns, middle), events.between(middle, events.end_ns + 1)
    if not all((half.mt >= 0).any() for half in halves):
        raise DumpError(path, 0, "one of its halves has no allocation")
    fit = fit_events(halves[0], path, told)
    first, second = (recorded_lives(half, lives_of(half, told)) for half in halves)
    simulated = simulated_lives(fit, second.length, seed)
    return HalvesJudged(fit, stream_distance(second, simulated), stream_distance(second, first))


def recorded_lives(events: PageRequests, lives: PageLives) -> StreamLives:
    """Lives of a recording by the names that their actors have."""
    seconds, ended = {}, {}
    for key, rows in kinds_of(lives).items():
        rows = rows[np.isfinite(lives.seconds[rows])]
        seconds[kind_name(key)], ended[kind_name(key)] = lives.seconds[rows], lives.ended[rows]
    return StreamLives(seconds, ended, events.seconds)


# -- simulation ------------------------------------------------------------------------------------------


def simulated_lives(fit: FittedRecording, length: float, seed: int = 1) -> StreamLives:
    """Lives of the stream that a fit's actors ask for, as if all requests were served.

    Parameters
    ----------
    fit : FittedRecording
    length : float
        Simulated time, s.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fitted.yaml"
        path.write_text(job_text(fit), encoding="utf-8")
        scenario = load_config(path, one_point=True).scenario
    plan = lower_actors(scenario, FIRST_OWNER)
    ticks = max(int(length * 1e9 / NS_PER_TICK), 1)
    time, owner, slot, is_alloc = _stream(plan, key_of(seed, 0), ticks)
    seconds, ended = {}, {}
    for number, name in enumerate(plan.owner_names, start=FIRST_OWNER):
        mine = owner == number
        seconds[name], ended[name] = _paired(time[mine], slot[mine], is_alloc[mine], ticks)
    return StreamLives(seconds, ended, ticks * NS_PER_TICK / 1e9)


def _stream(plan: DemandPlan, key: int, ticks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Time in ticks, owner and slot of every hit, and whether a block comes."""
    buffer = np.zeros((plan.rows_cap, NR_ROW), np.int32)
    parts = []
    for tick in range(ticks):
        n = int(generate_tick(plan.actors, key, tick, buffer))
        if n:
            rows = buffer[:n]
            parts.append(
                (
                    np.full(n, tick, np.int32),
                    rows[:, Row.OWNER].copy(),
                    rows[:, Row.SLOT].copy(),
                    rows[:, Row.OP] == Op.REPLACE,
                )
            )
    when, owner, slot, is_alloc = (
        np.concatenate([part[i] for part in parts]) if parts else np.zeros(0, np.int32) for i in range(4)
    )
    return when + _place_in_tick(plan, when, owner, slot), owner, slot, is_alloc.astype(bool)


def _place_in_tick(plan: DemandPlan, tick: np.ndarray, owner: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Where in its tick a hit lies, 0 .. 1: hits of a part of a mixture come evenly."""
    param = plan.actors.param
    first = param[:, Ap.OWNER] << 32 | param[:, Ap.BASE]
    order = np.argsort(first, kind="stable")
    entry = order[np.searchsorted(first[order], owner.astype(np.int64) << 32 | slot, side="right") - 1]
    begins = np.flatnonzero(np.append(True, (np.diff(tick) != 0) | (np.diff(entry) != 0)))
    length = np.diff(np.append(begins, len(tick)))
    inside = np.arange(len(tick)) - np.repeat(begins, length)
    return np.asarray((inside + 0.5) / np.repeat(length, length))


def _paired(
    time: np.ndarray, slot: np.ndarray, is_alloc: np.ndarray, ticks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lifetimes, s, and whether they ended: whatever hits a slot next ends what is in it."""
    by_slot = np.lexsort((time, slot))
    time, slot, is_alloc = time[by_slot], slot[by_slot], is_alloc[by_slot]
    ended = np.append(slot[1:] == slot[:-1], False)[: len(slot)]
    stop = np.where(ended, np.append(time[1:], ticks)[: len(slot)], ticks)
    return (stop - time)[is_alloc] * (NS_PER_TICK / 1e9), ended[is_alloc]


# -- distances -------------------------------------------------------------------------------------------


def stream_distance(one: StreamLives, other: StreamLives) -> StreamDistance:
    """How far two streams lie apart."""
    here, there = one.counts(), other.counts()
    names = sorted({*here, *there}, key=lambda name: -here.get(name, 0) - there.get(name, 0))
    kinds = tuple(
        KindDistance(
            name,
            here.get(name, 0) / one.length,
            there.get(name, 0) / other.length,
            _lifetime_distance(one, other, name),
        )
        for name in names
    )
    nr = sum(here.values()) / one.length, sum(there.values()) / other.length
    return StreamDistance(
        _share_distance(here, there, 2),
        _share_distance(here, there, 1),
        _share_distance(here, there, 0),
        nr[0] / nr[1] if nr[1] else float("inf"),
        kinds,
    )


def _share_distance(here: dict[str, int], there: dict[str, int], word: int) -> float:
    """Half the sum of differences of shares; blocks with the same word of their name belong together."""
    shares: dict[str, list[float]] = {}
    for side, counts in enumerate((here, there)):
        total = max(sum(counts.values()), 1)
        for name, count in counts.items():
            shares.setdefault(name.split("-")[word], [0.0, 0.0])[side] += count / total
    return sum(abs(a - b) for a, b in shares.values()) / 2


def _lifetime_distance(one: StreamLives, other: StreamLives, name: str) -> float | None:
    """Largest distance of the estimates of survival, from a tick on, as far as both have lives at risk."""
    grouped = []
    for stream in (one, other):
        seconds = stream.seconds.get(name, np.zeros(0))
        if len(seconds) < LEAST_JUDGED:
            return None
        grouped.append(grouped_lives(seconds, stream.ended[name], np.zeros(len(seconds), np.int64)))
    told = bin_edges() >= NS_PER_TICK / 1e9
    curves = [kaplan_meier(lives) for lives in grouped]
    for (_, at_risk), lives in zip(curves, grouped, strict=True):
        told &= at_risk >= LEAST_AT_RISK * lives.nr
    difference = np.abs(curves[0][0] - curves[1][0])[told]
    return float(difference.max()) if len(difference) else None
