"""Zone: the raw allocator of one zone for interactive work, over the compiled kernels.

Owns the names of held blocks (slots of one owner). Every operation is a row for the event loop of
model/loop/replay.py, so that many requests cost one call. Time, watermarks, reclaim and slab belong to
model/engine.py: here a request that finds no block returns -1.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np

from spbfast.config.presets import DEFAULT
from spbfast.constants import (
    NR_MT,
    NR_ORDERS,
    NR_REQUEST_MT,
    PAGE_SIZE,
    PB_ORDER,
    PB_PAGES,
    C,
    Mt,
    Outcome,
    P,
    Req,
    SpbCategory,
)
from spbfast.errors import ZoneError
from spbfast.model.loop import replay
from spbfast.model.loop.replay_rows import check_results, event_rows, result_rows
from spbfast.model.lowering.arguments import (
    FIRST_SLOTS,
    checked_flags,
    checked_mt,
    checked_number,
    checked_order,
    checked_range,
    checked_switch,
    spec_of_arguments,
)
from spbfast.model.lowering.duplicate import packed_state, unpacked_state, with_slots
from spbfast.model.lowering.handles import FreeSlots
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.lowering.painting import mixing_policy, paint
from spbfast.model.state import picture as pictures
from spbfast.model.state.build import PcpConf, ZoneSpec, boot_chunks, build_zone
from spbfast.model.state.check import check_zone
from spbfast.model.state.contents import absent_pageblocks, read_contents
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.lookup import must_be_held
from spbfast.model.state.page_state import links_of
from spbfast.model.state.walk import read_lists, read_places
from spbfast.observed.receipt import Receipt
from spbfast.recordings.real_start import begin_zone, read_machine_files
from spbfast.text import quote_value
from spbfast.tiles.markup import tiles_html

if TYPE_CHECKING:
    import pandas as pd

    from spbfast.model.lowering.lower_policy import PolicyLike

_CHUNK = 1 << 18  # rows per call of the event loop
_ROW_MAX = 2**31 - 1
MAX_NODE = 1023
Args = ParamSpec("Args")
Answer = TypeVar("Answer")


def _alone(
    method: Callable[Concatenate[Zone, Args], Answer],
) -> Callable[Concatenate[Zone, Args], Answer]:
    """A method that has the zone to itself: kernels run without the interpreter's lock."""

    @functools.wraps(method)
    def one_at_a_time(zone: Zone, *args: Args.args, **keywords: Args.kwargs) -> Answer:
        with zone._lock:
            return method(zone, *args, **keywords)

    return one_at_a_time


class Event(NamedTuple):
    """What the last operation did: `Zone.last`.

    `outcome` is the rung that served a request; for other operations NO_PAGE means that nothing was done,
    TAKE_PREFERRED that something was.
    """

    outcome: Outcome
    visited: int  # superpageblocks stepped on by the ladder's walks
    visited_fallback: int
    tainted: int  # tainted superpageblocks afterwards
    requests: Req  # work that the operation asked for
    moved: int  # pages migrated


class Zone:
    """One zone of memory with its free lists, superpageblocks and, if asked for, per-CPU lists.

    Threads may share a zone: its methods run one at a time. `copy.copy`, `copy.deepcopy` and `pickle` make a
    second zone in the same state, which goes its own way.

    Parameters
    ----------
    size : str or int
        Memory with its unit, ``"4GiB"``, or a number of bytes; whole pages of 4 KiB, whole 4 MiB with
        superpageblocks.
    policy : str, mapping or Policy
        ``"mainline"``, another preset, or switches over a preset: ``{"preset": "v1@30", "evacuate": False}``.
    spb_size : str or int
        Size of a superpageblock, a power of two of at least 4 MiB.
    start_pfn : int
        First page frame; with superpageblocks a multiple of 1024.
    pcp : PcpConf or mapping, optional
        Per-CPU lists: `batch` and `high`, or `high_min` and `high_max`, in pages.
    cpus : int
        CPUs with such lists; more than one needs `pcp`.

    Attributes
    ----------
    state : spbfast.model.state.layout.ZoneState
        The arrays behind it, to look at.
    policy : ndarray
        The policy as the kernels take it.
    receipt : spbfast.observed.receipt.Receipt or None
        Of a zone from a dump: what was read, guessed and missing.

    Raises
    ------
    ZoneError
        For a shape that no zone has.
    ConfigError
        For an unknown preset, switch or value.
    """

    def __init__(
        self,
        size: str | int = "4GiB",
        policy: PolicyLike = DEFAULT,
        *,
        spb_size: str | int = "1GiB",
        start_pfn: int = 0x100000,
        pcp: PcpConf | Mapping[str, int] | None = None,
        cpus: int = 1,
    ) -> None:
        self._lock = threading.RLock()
        self._set_policy(policy_array(policy))
        spec = spec_of_arguments(size, spb_size, start_pfn, self.policy, pcp, cpus)
        try:
            state, base = build_zone(spec)
        except ValueError as error:
            raise ZoneError(str(error)) from None
        except (MemoryError, OSError) as error:
            raise ZoneError(f"a zone of {spec.zone_pages} pages does not fit into memory: {error}") from None
        self._adopt(spec, state, base)
        self._free = FreeSlots(FIRST_SLOTS)
        replay.boot_zone(state, self.policy, boot_chunks(state, state.geo.lo, state.geo.hi))

    @classmethod
    def from_picture(cls, text: str, policy: PolicyLike = DEFAULT, *, start_pfn: int = 0x100000) -> Zone:
        """A zone that looks like a picture, built by real requests, then left to `policy`.

        Letters are those of `spbfast.model.state.picture`. A pageblock is filled with blocks of order 7 to
        9; small letters leave an eighth to a half of it free. While it is built the policy mixes freely.

        Raises
        ------
        ZoneError
            A picture that no zone has.
        """
        try:
            groups = pictures.parse_picture(text)
        except ValueError as error:
            raise ZoneError(str(error)) from None
        wanted = policy_array(policy)
        letters = "".join(groups)
        zone = cls(
            len(letters) * (PAGE_SIZE << PB_ORDER),
            mixing_policy(wanted),
            spb_size=len(groups[0]) * (PAGE_SIZE << PB_ORDER),
            start_pfn=start_pfn,
        )
        paint(zone, letters)
        if "".join(zone.picture().split()) != letters:
            raise ZoneError(f"the picture can't be built; it came out as {str.__repr__(zone.picture())}")
        zone._set_policy(wanted)
        return zone

    @classmethod
    def from_dump(
        cls,
        files: str | Path | Sequence[str | Path],
        policy: PolicyLike = DEFAULT,
        *,
        zone: str = "Normal",
        node: int = 0,
        seed: int = 0,
        replicate: int = 0,
        spb_size: str | int = "1GiB",
        lists: bool = True,
    ) -> Zone:
        """A zone of a real machine as dumps or a capture of it tell: docs/real-machines.md.

        Sizes, free blocks by order and type and pageblock types are those of the files; what they leave open
        is drawn. Every page in use is a block of order 0 that can be freed. `Zone.receipt` says what was
        read, guessed and missing.

        Parameters
        ----------
        files : path, or sequence of paths
            A capture, or dumps of one machine: pagetypeinfo, buddyinfo, zoneinfo, a kernel report.
        policy : str, mapping or Policy
        zone, node : str, int
            Which zone.
        seed, replicate : int
            Key of the draws: the same files, seed and replicate give the same zone, bit by bit.
        spb_size : str or int
        lists : bool
            Per-CPU lists with the limits of zoneinfo, for as many CPUs; empty at the start.

        Raises
        ------
        DumpError
            When a file cannot be read, or has what the model lacks.
        ZoneError
            For arguments that make no sense.
        """
        wanted = policy_array(policy).copy()
        machine = read_machine_files(files, (checked_range(node, "node", 0, MAX_NODE), str(zone)))
        real = machine.zones[0]
        shape = spec_of_arguments(spb_size, spb_size, 0, wanted, None)
        begun = begin_zone(
            machine,
            real,
            wanted,
            spb_pb=shape.spb_pb,
            seed=checked_range(seed, "seed", 0, 2**63 - 1),
            replicate=checked_range(replicate, "replicate", 0, 2**31 - 1),
            pcp=PcpConf(*real.lists) if checked_switch(lists, "lists") and real.lists else None,
            cpus=real.cpus,
        )
        self = cls.__new__(cls)
        self._lock = threading.RLock()
        self._set_policy(wanted)
        self._adopt(begun.spec, begun.state, begun.base)
        self._free = FreeSlots(begun.state.slots.link.size)
        self._free.take(begun.nr_held)
        self.receipt = machine.receipt
        return self

    def _adopt(self, spec: ZoneSpec, state: ZoneState, base: int) -> None:
        self._spec, self.state, self._base = spec, state, base
        self.start_pfn, self.nr_pages = spec.start_pfn, spec.zone_pages
        self.nr_cpus = spec.nr_cpus or 1
        self._last = result_rows(1)[0]
        self._pins = np.zeros(2, np.int64)
        self.receipt: Receipt | None = None

    def _set_policy(self, policy: np.ndarray) -> None:
        self.policy = policy.copy()
        if not self.policy[P.superpageblocks]:
            # What works on superpageblocks has nothing to work on.
            self.policy[[P.evacuate, P.defrag, P.contig]] = 0

    # -- copies ------------------------------------------------------------------------------------

    @_alone
    def __getstate__(self) -> dict[str, Any]:
        """Everything, the arrays as copies; not the lock."""
        values = {k: v for k, v in vars(self).items() if k not in ("_lock", "state")}
        own = {k: v.copy() for k, v in values.items() if isinstance(v, np.ndarray)}
        return {**values, **own, "_free": self._free.copy(), "contents": packed_state(self.state)}

    def __setstate__(self, values: dict[str, Any]) -> None:
        contents = values.pop("contents")
        vars(self).update(values)
        self._lock = threading.RLock()
        self.state = unpacked_state(self._spec, contents)

    def __copy__(self) -> Zone:
        other = type(self).__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Zone:
        return self.__copy__()

    # -- requests ----------------------------------------------------------------------------------

    def alloc(self, order: int = 0, mt: int = Mt.MOVABLE, flags: int = 0, cpu: int = 0) -> int:
        """Allocate 2**order pages on a CPU; the first page frame number, or -1 if there is no block."""
        return int(self.alloc_many(1, order, mt, flags, cpu)[0])

    @_alone
    def alloc_many(
        self, n: int, order: int = 0, mt: int = Mt.MOVABLE, flags: int = 0, cpu: int = 0
    ) -> np.ndarray:
        """`n` single requests on a CPU, one after the other.

        Returns
        -------
        ndarray
            int64 [n], page frame numbers in the order of the requests; -1 where one failed.

        Raises
        ------
        ZoneError
            A number below 0 or far above the zone's pages, an order outside 0..10, a migratetype that can't
            be asked for, unknown flags, a CPU that the zone does not have.
        """
        n = checked_number(n, self.nr_pages)
        row = _event(
            replay.ALLOC,
            order=checked_order(order),
            mt=checked_mt(mt),
            flags=checked_flags(flags),
            arg=self._cpu_of(cpu),
        )
        pfns = np.empty(n, np.int64)
        for first in range(0, n, _CHUNK):
            part = pfns[first : first + _CHUNK]
            part[:] = self._request(row, part.size)
        return pfns

    def _request(self, row: np.ndarray, n: int) -> np.ndarray:
        """Run `n` rows that hand out blocks; absolute page frame numbers or -1."""
        self._need_slots(n)
        events = np.repeat(row[None, :], n, axis=0)
        slots = self._free.take(n)
        events[:, replay.E_HANDLE] = slots
        pfns = self._run(events)[:, replay.R_PFN]
        failed = pfns < 0
        self._free.give(slots[failed][::-1])
        return np.where(failed, -1, pfns + self.start_pfn)

    def free(self, pfn: int, cpu: int = 0) -> None:
        """Free the block that begins at `pfn`, of whatever order it was allocated with, on a CPU.

        Raises
        ------
        ZoneError
            Nothing that was allocated and not yet freed begins there.
        """
        self.free_many([pfn], cpu)

    @_alone
    def free_many(self, pfns: Any, cpu: int = 0) -> None:
        """Free blocks on a CPU, one after the other; all are looked at before the first is freed."""
        of_cpu = self._cpu_of(cpu)
        try:
            given = np.asarray(pfns)
        except (ValueError, TypeError):
            raise ZoneError(
                f"page frame numbers are a flat list of integers, got {quote_value(pfns)}"
            ) from None
        if given.size and given.dtype.kind not in "iu":
            raise ZoneError(f"page frame numbers are integers, got {given.dtype}")
        index = given.astype(np.int64).reshape(-1) - self._base
        must_be_held(self.state, self._base, index)
        slots = links_of(self.state.page, index)[1]
        for first in range(0, index.size, _CHUNK):
            part = slots[first : first + _CHUNK]
            events = np.repeat(_event(replay.FREE, arg=of_cpu)[None, :], part.size, axis=0)
            events[:, replay.E_HANDLE] = part
            self._run(events)
            self._free.give(part)

    # -- workers -----------------------------------------------------------------------------------

    @_alone
    def evacuate(self, order: int = 0, mt: int = Mt.UNMOVABLE) -> int:
        """Move movable pages out of the fullest tainted superpageblocks; number of pages moved."""
        row = _event(replay.EVACUATE, order=checked_order(order), mt=checked_mt(mt))
        if mt == Mt.MOVABLE:
            raise ZoneError("evacuation is for unmovable or reclaimable requests, got mt 1 (movable)")
        return int(self._run(row)[0, replay.R_MOVED])

    @_alone
    def defrag(self, spb: int) -> int:
        """Make room in one tainted superpageblock by moving pages out of it; number of pages moved."""
        return int(self._run(_event(replay.DEFRAG, arg=self._spb_of(spb)))[0, replay.R_MOVED])

    @_alone
    def compact(self, spb: int, pageblocks: int = 16, free_pageblocks: int = 1, fragments: int = 1) -> int:
        """Compact inside one clean superpageblock, with `compact_within_superpageblock`; pageblocks freed.

        Parameters
        ----------
        spb : int
            Number of the superpageblock.
        pageblocks : int
            Pageblocks that are tried at most.
        free_pageblocks : int
            Nothing happens where more than these are free.
        fragments : int
            Nor where the free pages outside free pageblocks do not fill this many.

        Raises
        ------
        ZoneError
            There is no such superpageblock.
        """
        row = _event(
            replay.COMPACT,
            arg=self._spb_of(spb),
            order=checked_range(pageblocks, "pageblocks", 0, _ROW_MAX),
            mt=checked_range(free_pageblocks, "free_pageblocks", 0, _ROW_MAX),
            flags=checked_range(fragments, "fragments", 0, _ROW_MAX),
        )
        return int(self._run(row)[0, replay.R_OUTCOME])

    @_alone
    def contig(self) -> int:
        """Allocate one whole superpageblock; its first page frame number or -1. `free` returns it."""
        return int(self._request(_event(replay.CONTIG, mt=Mt.HIGHATOMIC), 1)[0])

    @_alone
    def drain(self, cpu: int | None = None) -> None:
        """Return all pages on the per-CPU lists, of one CPU or of all, to the free lists."""
        self._on_cpus(replay.DRAIN, cpu)

    @_alone
    def decay(self, cpu: int | None = None) -> None:
        """Let the limit of the per-CPU lists, of one CPU or of all, decay as the vmstat tick does."""
        self._on_cpus(replay.DECAY, cpu)

    def _on_cpus(self, op: int, cpu: int | None) -> None:
        cpus = range(self.state.geo.nr_cpus) if cpu is None else (self._cpu_of(cpu),)
        if self.state.geo.nr_cpus:
            self._run(np.stack([_event(op, arg=one) for one in cpus]))

    def _cpu_of(self, cpu: int) -> int:
        return checked_range(cpu, "cpu", 0, self.nr_cpus - 1)

    def _spb_of(self, spb: int) -> int:
        return checked_range(spb, "spb", 0, self.state.geo.nr_spb - 1)

    # -- looking at it -----------------------------------------------------------------------------

    @property
    @_alone
    def last(self) -> Event:
        """What the last single operation, or the last of many, did."""
        _, outcome, visited, visited_fallback, tainted, requests, _, moved, _, _ = self._last.tolist()
        rung = outcome if outcome < len(Outcome) else 0  # pageblocks freed, of a compaction
        return Event(Outcome(rung), visited, visited_fallback, tainted, Req(requests), moved)

    @_alone
    def nr_free_pages(self) -> int:
        """Pages on the free lists; those on per-CPU lists are not among them."""
        return int(self.state.count[C.FREE_PAGES])

    @_alone
    def nr_free_blocks(self) -> np.ndarray:
        """Number of free blocks: int64 [order, migratetype], over all superpageblocks."""
        nr = self.state.area.nr.reshape(-1, NR_ORDERS, NR_MT)
        return nr.sum(axis=0, dtype=np.int64)[:, : self.state.geo.nr_mt]

    @_alone
    def free_list(self, order: int, mt: int, spb: int | None = None) -> np.ndarray:
        """Page frame numbers on a free list, head first: int64.

        With superpageblocks every one has its own list: `spb` names one; without it they follow each other.
        """
        kind = checked_range(mt, "mt", 0, self.state.geo.nr_mt - 1)
        nr_sets = self.state.area.mask.size // NR_MT
        parts = []
        for set_ in range(nr_sets) if spb is None else (checked_range(spb, "spb", 0, nr_sets - 1),):
            head = self.state.geo.list0 + (set_ * NR_ORDERS + checked_order(order)) * NR_MT + kind
            parts.append(read_lists(self.state, head, 1)[2])
        return np.concatenate(parts) + self.start_pfn

    @_alone
    def pageblock_types(self) -> np.ndarray:
        """Migratetype of every pageblock: int8, first the one that holds the zone's first page."""
        geo = self.state.geo
        return self.state.pb.label[geo.lo // PB_PAGES : -(-geo.hi // PB_PAGES)].copy()

    @_alone
    def superpageblocks(self) -> pd.DataFrame:
        """One row a superpageblock: where it is listed, what is free in it, what lives in it.

        Columns: start_pfn; category; bucket (fullness, 0 = full); position on its list; pageblocks,
        free_pageblocks, free_pages; for each type, content_* (pageblocks with the content bit) and used_*
        (pages in use).
        """
        import pandas as pd

        z = self.state
        category, bucket, position = read_places(z)
        names = np.array([c.name.lower() for c in SpbCategory])
        used = z.pb.used[:, :NR_REQUEST_MT].reshape(z.geo.nr_spb, -1, NR_REQUEST_MT).sum(axis=1)
        columns: dict[str, Any] = {
            "start_pfn": (np.arange(z.geo.nr_spb) << z.geo.spb_shift) + self._base,
            "category": names[category],
            "bucket": bucket,
            "position": position,
            "pageblocks": z.spb.total.copy(),
            "free_pageblocks": z.spb.nr_free_pb.copy(),
            "free_pages": z.spb.nr_free_pages.copy(),
        }
        for mt in range(NR_REQUEST_MT):
            columns[f"content_{Mt(mt).name.lower()}"] = z.spb.content[:, mt].copy()
        for mt in range(NR_REQUEST_MT):
            columns[f"used_{Mt(mt).name.lower()}"] = used[:, mt]
        return pd.DataFrame(columns, index=pd.RangeIndex(z.geo.nr_spb, name="spb"))

    @_alone
    def tainted(self) -> int:
        """Number of tainted superpageblocks."""
        return int(self.state.count[C.TAINTED_SPBS])

    @_alone
    def picture(self) -> pictures.Picture:
        """One letter a pageblock, superpageblocks apart: a string of the letters and nothing else.

        Printed, it fits the terminal and says what its letters mean; where a superpageblock is longer than a
        line, a letter stands for several pageblocks.
        """
        return pictures.picture(self.state)

    @_alone
    def _repr_html_(self) -> str:
        """The zone as tiles, one a superpageblock, with a legend: what a notebook shows."""
        contents = read_contents(self.state, absent_pageblocks(self.state))
        category = read_places(self.state)[0].tolist()
        free = self.state.spb.nr_free_pages.tolist()
        free_pb = self.state.spb.nr_free_pb.tolist()
        titles = []
        for spb, code in enumerate(category):
            name = SpbCategory(code).name.lower() if code >= 0 else "without memory"
            pfn = (spb << self.state.geo.spb_shift) + self._base
            titles.append(
                f"superpageblock {spb}, pfn {pfn:#x}: {name}, {free[spb]:,} pages free, "
                f"{free_pb[spb]} pageblocks wholly free"
            )
        note = (
            "A cell is a pageblock of 2 MiB, by the pages in use in it; the more of it is free, the paler. "
            "Red frame: tainted; broken frame: empty."
        )
        return tiles_html(contents, category, titles, repr(self)[1:-1], note)

    @_alone
    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        check_zone(self.state, self.policy)

    @_alone
    def __repr__(self) -> str:
        free = self.nr_free_pages() * PAGE_SIZE / 2**20
        size = self.nr_pages * PAGE_SIZE / 2**20
        return f"<Zone {size:g} MiB at pfn {self.start_pfn:#x}, {free:g} MiB free, {self.tainted()} tainted>"

    # -- rows and slots ----------------------------------------------------------------------------

    def _run(self, events: np.ndarray) -> np.ndarray:
        """Run event rows, or a single one; a row of results each."""
        events = event_rows(np.atleast_2d(events))
        out = result_rows(len(events))
        if len(events):
            replay.run_events(self.state, self.policy, events, 0, len(events), self._pins, out)
            check_results(out)
            self._last = out[-1]
        return out.astype(np.int64)

    def _need_slots(self, n: int) -> None:
        """Have at least `n` free slots: a larger pool takes over what the old one holds."""
        if self._free.nr >= n:
            return
        old = self.state.slots.link.size
        size = max(2 * old, old + n)
        self.state = with_slots(self.state, size)
        self._free.grow(old, size)


def _event(op: int, *, order: int = 0, mt: int = 0, flags: int = 0, arg: int = 0) -> np.ndarray:
    """A row of the event loop, without a handle; `arg` is the CPU where the operation has one (E_CPU)."""
    row = np.zeros(replay.NR_EVENT_FIELDS, np.int64)
    row[replay.E_OP], row[replay.E_ORDER], row[replay.E_MT] = op, order, mt
    row[replay.E_FLAGS], row[replay.E_ARG] = flags, arg
    return row
