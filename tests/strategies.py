"""Hypothesis strategies: tiny zones, random policies and sequences of operations on them.

Owns the drawing only.  An operation says what kind of thing happens; `calls` turns it into method
calls that are valid for the zone as it stands, so that one drawn sequence can drive the reference
twin and the compiled zone side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hypothesis import strategies as st

from tests.reference import Geometry, OracleZone, Policy
from tests.reference.words import (
    FLAG_NOFRAGMENT,
    FLAG_OPTIONAL,
    FLAG_TAINTED_OK,
    MOVABLE,
    PB_PAGES,
    RECLAIMABLE,
    UNMOVABLE,
)

# Tiny zones fill up only if large orders are common.
ORDERS = (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 9, 9, 10)
FLAGS = (
    *(0, 0, 0, FLAG_NOFRAGMENT, FLAG_NOFRAGMENT),
    *(FLAG_NOFRAGMENT | FLAG_TAINTED_OK, FLAG_OPTIONAL, FLAG_NOFRAGMENT | FLAG_OPTIONAL),
)

POLICY_NUMBERS: dict[str, st.SearchStrategy[int]] = {
    "reserve_floor": st.integers(0, 2),
    "reserve_shift": st.sampled_from((-1, -1, 1, 2, 5)),
    "aggressive_threshold": st.sampled_from((-1, 0, 2, 3, 8)),
    "evacuate_max_superpageblocks": st.integers(0, 4),
    "evacuate_max_pageblocks": st.integers(0, 4),
    "contig_max_candidates": st.integers(0, 4),
}


@dataclass(frozen=True)
class Alloc:
    """`count` requests in a row, all alike."""

    order: int
    mt: int
    flags: int
    count: int = 1


@dataclass(frozen=True)
class Fill:
    """Requests of one type, of the given orders in turn, for `percent` of the zone's pages."""

    orders: tuple[int, ...]
    mt: int
    flags: int
    percent: int


@dataclass(frozen=True)
class Free:
    """Free the held block number `pick`, counted round the held blocks in pfn order."""

    pick: int


@dataclass(frozen=True)
class FreeEvery:
    """Free every `step`-th held block from number `first` on: leaves holes all over the zone."""

    first: int
    step: int


@dataclass(frozen=True)
class Evacuate:
    order: int
    mt: int


@dataclass(frozen=True)
class Defrag:
    """Defragment superpageblock number `pick`, counted round."""

    pick: int


@dataclass(frozen=True)
class Compact:
    """Compact inside superpageblock number `pick`, counted round, on up to `most` pageblocks."""

    pick: int
    most: int


@dataclass(frozen=True)
class Contig:
    """Grab one whole superpageblock."""


Operation = Alloc | Fill | Free | FreeEvery | Evacuate | Defrag | Compact | Contig
Call = tuple[str, tuple[int, ...]]


@st.composite
def spb_geometries(
    draw: st.DrawFn, per_spb: Sequence[int] = (2, 4, 8), max_spbs: int = 6, *, short_tail: bool = True
) -> Geometry:
    """2 to `max_spbs` superpageblocks of a few pageblocks; the last one may be short."""
    pageblocks = draw(st.sampled_from(per_spb))
    total = pageblocks * draw(st.integers(2, max_spbs))
    if short_tail and pageblocks > 2:
        total -= 2 * draw(st.integers(0, pageblocks // 2 - 1))
    return Geometry(total * PB_PAGES, 0, pageblocks)


@st.composite
def mainline_geometries(draw: st.DrawFn, max_pageblocks: int = 16) -> Geometry:
    """Zones of 1 to `max_pageblocks` pageblocks, half of them with unaligned edges."""
    pages = draw(st.integers(1, max_pageblocks)) * PB_PAGES
    if draw(st.booleans()):
        return Geometry(pages)
    return Geometry(pages + draw(st.integers(0, PB_PAGES - 1)), draw(st.integers(0, 4 * PB_PAGES)))


@st.composite
def policies(draw: st.DrawFn, **fixed: Any) -> Policy:
    """Superpageblock policies: every switch drawn at random, or the last preset with a few flipped.

    Wholly random policies rarely have all that a migration needs, hence the second kind.  Numbers are
    always drawn, so that reserves suit tiny zones; switches given by name are not.
    """
    names = [switch.name for switch in fields(Policy)]
    drawn = set(names)
    if draw(st.booleans()):
        drawn = draw(st.sets(st.sampled_from(names), max_size=4)) | POLICY_NUMBERS.keys()
    drawn -= {"superpageblocks", *fixed}
    values = {name: draw(POLICY_NUMBERS.get(name, st.booleans())) for name in names if name in drawn}
    return Policy(**{**values, **fixed})


def allocs(max_count: int = 12) -> st.SearchStrategy[Alloc]:
    return st.builds(
        Alloc,
        st.sampled_from(ORDERS),
        st.sampled_from((UNMOVABLE, MOVABLE, MOVABLE, RECLAIMABLE)),
        st.sampled_from(FLAGS),
        st.one_of(st.just(1), st.integers(1, max_count)),
    )


def fills() -> st.SearchStrategy[Fill]:
    """Bursts that bring a zone near its limits, where fallback, borrowing and evacuation happen."""
    orders = st.lists(st.sampled_from((4, 5, 6, 7, 8, 9, 9, 10)), min_size=1, max_size=4).map(tuple)
    mts = st.sampled_from((UNMOVABLE, MOVABLE, MOVABLE, MOVABLE, RECLAIMABLE))
    return st.builds(Fill, orders, mts, st.sampled_from(FLAGS), st.integers(5, 100))


@st.composite
def mixed_openings(draw: st.DrawFn) -> tuple[Operation, ...]:
    """Fill with movable pages, punch holes, let a few others in: memory that is worth evacuating."""
    small = st.lists(st.integers(3, 9), min_size=1, max_size=3).map(tuple)
    intruder = draw(st.sampled_from((UNMOVABLE, RECLAIMABLE)))
    return (
        Fill(draw(small), MOVABLE, 0, draw(st.integers(70, 100))),
        FreeEvery(draw(st.integers(0, 2)), draw(st.integers(2, 5))),
        Fill(draw(small), intruder, 0, draw(st.integers(2, 20))),
        FreeEvery(draw(st.integers(0, 4)), draw(st.integers(3, 6))),
    )


def operations(
    min_size: int = 10, max_size: int = 40, *, workers: bool = True
) -> st.SearchStrategy[list[Operation]]:
    """Sequences of operations; without `workers` only requests and frees."""
    picks = st.integers(0, 1 << 16)
    kinds: list[st.SearchStrategy[Operation]] = [
        allocs(),
        allocs(),
        fills(),
        st.builds(Free, picks),
        st.builds(Free, picks),
        st.builds(FreeEvery, st.integers(0, 4), st.integers(1, 5)),
    ]
    if workers:
        kinds += [
            st.builds(Evacuate, st.integers(0, 9), st.sampled_from((UNMOVABLE, RECLAIMABLE))),
            st.builds(Defrag, picks),
            st.builds(Compact, picks, st.integers(1, 8)),
            st.builds(Contig),
        ]
    rest = st.lists(st.one_of(kinds), min_size=min_size, max_size=max_size)
    return st.tuples(st.one_of(st.just(()), mixed_openings()), rest).map(lambda parts: [*parts[0], *parts[1]])


def calls(operation: Operation, oracle: OracleZone) -> Iterator[Call]:
    """Method name and arguments of each call that the operation means for the zone as it stands.

    Frees name blocks that are held when the operation starts, so all of them are valid as long as the
    caller makes the calls in order and nothing else.
    """
    live = list(oracle.live())
    match operation:
        case Alloc(order, mt, flags, count):
            for _ in range(count):
                yield "alloc", (order, mt, flags)
        case Fill(orders, mt, flags, percent):
            missing = oracle.geometry.zone_pages * percent // 100
            for order in itertools.cycle(orders):
                missing -= 1 << order
                if missing < 0:
                    return
                yield "alloc", (order, mt, flags)
        case Free(pick) if live:
            yield "free", (live[pick % len(live)],)
        case FreeEvery(first, step):
            for pfn in live[first::step]:
                yield "free", (pfn,)
        case Evacuate(order, mt):
            yield "evacuate", (order, mt)
        case Defrag(pick) if oracle.policy.superpageblocks:
            yield "defrag", (pick % oracle.geometry.n_spb,)
        case Compact(pick, most) if oracle.policy.superpageblocks:
            yield "compact", (pick % oracle.geometry.n_spb, most, 2, 1)
        case Contig():
            yield "contig", ()
        case _:
            return


def drive(oracle: OracleZone, sequence: Sequence[Operation]) -> Iterator[Call]:
    """Run a sequence on the twin; yields after each call, for the caller to look at the state."""
    for operation in sequence:
        for name, args in calls(operation, oracle):
            getattr(oracle, name)(*args)
            yield name, args
