"""A zone of a real machine as a simulated one: its shape, its start, and what had to be guessed.

Owns the step from files to a zone that has begun. Page flags of a capture are exact; what tables leave open
is drawn by seed and replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spbfast.config.realmachine import span_of
from spbfast.constants import MAX_ORDER, PB_ORDER, PB_PAGES, Mt, P
from spbfast.errors import DumpError
from spbfast.model.loop.recorded_pages import hold_blocks, hold_in_slots, list_start
from spbfast.model.loop.replay import boot_zone
from spbfast.model.lowering.duplicate import with_slots
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.build import PcpConf, ZoneSpec, build_zone
from spbfast.model.state.demand_layout import StartSlots
from spbfast.model.state.layout import Geo, ZoneState
from spbfast.observed.loading import read_dumps
from spbfast.observed.page_classes import PageClass
from spbfast.observed.real_zone import RealZone, real_zones
from spbfast.observed.receipt import Receipt, counted
from spbfast.observed.recognise import kind_of_file
from spbfast.observed.values import ZONE_NAMES, Snapshot
from spbfast.recordings.captured_start import captured_start
from spbfast.recordings.drawn_start import drawn_start
from spbfast.recordings.start_state import CapturedZone, StartState, captured_zones

START_STREAM = 0x57A7
_BLOCK = 1 << MAX_ORDER


@dataclass
class RealMachine:
    """Files of one machine, read.

    Attributes
    ----------
    paths : tuple of Path
    snapshots : list of Snapshot
    zones : list of RealZone
    captured : dict of (int, str) to CapturedZone
        Zones whose page flags are there, by node and name.
    capture : Path or None
        The file that has them.
    receipt : Receipt
    """

    paths: tuple[Path, ...]
    snapshots: list[Snapshot]
    zones: list[RealZone]
    captured: dict[tuple[int, str], CapturedZone]
    capture: Path | None
    receipt: Receipt


@dataclass
class BegunZone:
    """A simulated zone at its start.

    Attributes
    ----------
    spec : ZoneSpec
    state : ZoneState
    base : int
        Page frame of page index 0.
    there : ndarray
        bool [pageblocks], those that the kernel counts.
    nr_held : int
        Pages in use, one in each of the first slots of owner 0.
    """

    spec: ZoneSpec
    state: ZoneState
    base: int
    there: np.ndarray
    nr_held: int


def read_machine_files(
    files: str | Path | Sequence[str | Path],
    only: tuple[int, str] | Callable[[Sequence[Snapshot]], tuple[int, str]] | None = None,
) -> RealMachine:
    """Read the files of one machine: a capture, or dumps.

    Parameters
    ----------
    files : path, or sequence of paths
    only : (int, str) or callable, optional
        Node and name of the one zone that is wanted, or what finds it; what others have does not matter then.

    Raises
    ------
    DumpError
        When a file cannot be read, holds no free blocks, or has what the model lacks.
    """
    given = [files] if isinstance(files, str | Path) else list(files)
    seen = read_dumps(given)
    paths = tuple(Path(f) for f in given)
    key = only(seen.snapshots) if callable(only) else only
    zones = real_zones(seen.snapshots, str(paths[0]), seen.receipt, key)
    captured: dict[tuple[int, str], CapturedZone] = {}
    capture = next((p for p in paths if kind_of_file(p)[0] == "capture"), None)
    if capture is not None:
        captured = {(z.node, z.name): z for z in captured_zones(capture)}
    return RealMachine(paths, seen.snapshots, zones, captured, capture, seen.receipt)


def begin_zone(
    machine: RealMachine,
    zone: RealZone,
    policy: np.ndarray,
    *,
    spb_pb: int = 512,
    seed: int = 0,
    replicate: int = 0,
    pcp: PcpConf | None = None,
    cpus: int = 0,
) -> BegunZone:
    """Build a zone and put everything into its place; what was guessed joins the machine's receipt.

    `policy`, as kernels take it, is changed where the zone has a reserve that it lacks.
    """
    spec, first = _spec_of(machine, zone, bool(policy[P.superpageblocks]), spb_pb, pcp, cpus)
    try:
        state, base = build_zone(spec)
    except ValueError as error:
        raise DumpError(machine.paths[0], 0, f"cannot start from {zone.label}: {error}") from None
    start = place_start(machine, zone, state.geo, base, first, policy, seed, replicate)
    pages = held_pages(start)
    state = with_slots(state, len(pages) + _BLOCK)
    put_start(state, start, policy, pages, np.zeros(len(start.held), np.int8), np.zeros(1, np.int64))
    return BegunZone(spec, state, base, start.managed, len(pages))


def place_start(
    machine: RealMachine,
    zone: RealZone,
    geo: Geo,
    base: int,
    first: int,
    policy: np.ndarray,
    seed: int,
    replicate: int,
) -> StartState:
    """Where everything lies at the start; what was guessed joins the machine's receipt.

    Parameters
    ----------
    geo : Geo
        The simulated zone's.
    base : int
        Page frame of page index 0.
    first : int
        Pageblocks at the zone's start that are holes.
    policy : ndarray
        As kernels take it; changed where the zone has a reserve that it lacks.

    Raises
    ------
    DumpError
        When blocks have no room.
    """
    captured = machine.captured.get((zone.node, zone.name))
    at = (geo.lo >> PB_ORDER) + first
    if captured is not None and machine.capture is not None:
        start = captured_start(machine.capture, captured, base, geo.nr_pages, machine.snapshots)
        _say_captured(machine.receipt, zone, start)
    else:
        key = key_of(seed, replicate, START_STREAM, zone.node, ZONE_NAMES.index(zone.name))
        try:
            start = drawn_start(zone, at, geo.nr_pages, key)
        except ValueError as error:
            raise DumpError(machine.paths[0], 0, f"cannot start from {zone.label}: {error}") from None
        _say_drawn(machine.receipt, zone, first)
    _hold_the_rest(start, at << PB_ORDER, geo.hi)
    _suit_policy(start, geo, policy, machine.receipt, zone)
    return start


def held_pages(start: StartState) -> np.ndarray:
    """Pages in use, ascending: int64 [n]."""
    return np.flatnonzero(start.held >= 0)


def put_start(
    state: ZoneState,
    start: StartState,
    policy: np.ndarray,
    pages: np.ndarray,
    owners: np.ndarray,
    nr_slots: np.ndarray,
    blocks: Sequence[tuple[StartSlots, np.ndarray]] = (),
) -> None:
    """Put a start into an unbooted zone: `pages` are held in this order, each by its of `owners`.

    `blocks` are slots with the heads of the blocks that begin in them.
    """
    list_start(state, start.blocks, start.labels)
    hold_in_slots(state, pages, start.held, owners, nr_slots)
    for slots, heads in blocks:
        hold_blocks(state, heads, slots.order, slots.mt, slots.owner, slots.base)
    boot_zone(state, policy, np.zeros((0, 2), np.int64))


def _spec_of(
    machine: RealMachine,
    zone: RealZone,
    superpageblocks: bool,
    spb_pb: int,
    pcp: PcpConf | None,
    cpus: int,
) -> tuple[ZoneSpec, int]:
    """Shape of the simulated zone, and its pageblocks at the start that are holes.

    It begins and ends at blocks of 4 MiB. What has no memory lies at its start, the only place for holes.
    """
    captured = machine.captured.get((zone.node, zone.name))
    lo, pages, absent = span_of(zone)
    first = absent // PB_PAGES
    if captured is not None:
        lo = captured.start_pfn & -_BLOCK
        pages = -(-(captured.start_pfn + captured.pages - lo) // _BLOCK) * _BLOCK
        known = np.flatnonzero((captured.pages_of & 0x0F) != PageClass.RESERVED)
        first_page = captured.start_pfn + (int(known[0]) if len(known) else 0)
        first = (first_page - lo) // PB_PAGES
    spec = ZoneSpec(
        zone_pages=pages,
        start_pfn=lo,
        spb_pb=spb_pb,
        superpageblocks=superpageblocks,
        nr_cpus=cpus if pcp is not None else 0,
        pcp=pcp,
        reserved_pages=first * PB_PAGES,
    )
    return spec, first


def _hold_the_rest(start: StartState, first_page: int, end: int) -> None:
    """Whatever lies between the first and the last page of the simulated zone is free or held."""
    used = np.ones(len(start.held), bool)
    for order in range(MAX_ORDER + 1):
        heads = start.blocks[start.blocks[:, 1] == order, 0]
        for i in range(1 << order):
            used[heads + i] = False
    used[:first_page] = False
    used[end:] = False
    start.held[used & (start.held < 0)] = Mt.UNMOVABLE


def _suit_policy(start: StartState, geo: Geo, policy: np.ndarray, receipt: Receipt, zone: RealZone) -> None:
    """Where mainline and the policy differ in what a state may be."""
    if (start.labels == Mt.HIGHATOMIC).any() and not policy[P.highatomic_reserve]:
        policy[P.highatomic_reserve] = 1
        receipt.say("guessed", f"{zone.label}: policy.highatomic_reserve is on: the file has such pageblocks")
    if not (policy[P.superpageblocks] and policy[P.relabel_on_empty]):
        return
    per_spb = 1 << (geo.spb_shift - PB_ORDER)
    empty = ~(start.held >= 0).reshape(-1, 1 << geo.spb_shift).any(axis=1)
    change = np.repeat(empty, per_spb) & (start.labels != Mt.MOVABLE)
    start.labels[change] = Mt.MOVABLE
    if change.any():
        text = f"{counted(int(change.sum()), 'pageblock')} of wholly free superpageblocks become Movable"
        receipt.say("guessed", f"{zone.label}: {text}, as the policy keeps them")


def _say_drawn(receipt: Receipt, zone: RealZone, first: int) -> None:
    receipt.say(
        "guessed",
        f"{zone.label}: drawn: which pageblock has which type, where free blocks lie, the order of the lists",
    )
    receipt.say(
        "guessed",
        f"{zone.label}: pages in use are of their pageblock's type; none is on a per-CPU list",
    )
    if first:
        text = f"the first {first * PB_PAGES:,} pages of its span have no memory"
        receipt.say("guessed", f"{zone.label}: {text}")
    unmanaged = zone.nr_pageblocks * PB_PAGES - zone.managed
    if unmanaged:
        receipt.say(
            "guessed", f"{zone.label}: {unmanaged:,} reserved pages are the lowest in use, and Unmovable"
        )


def _say_captured(receipt: Receipt, zone: RealZone, start: StartState) -> None:
    free = int((1 << start.blocks[:, 1]).sum())
    receipt.say("read", f"{zone.label}: {free:,} free pages, exactly, from page flags")
    if start.guessed:
        receipt.say(
            "guessed",
            f"{zone.label}: the types of {counted(start.guessed, 'pageblock')}, from what they hold; the "
            "order of the lists is ascending",
        )
