"""What a running kernel told, as plain values: zones, snapshots, failed requests, summaries of traces.

Owns the dataclasses that every reader fills and everything else reads. They keep the orders, types, page size
and names of the file; nothing is mapped onto the simulator's machine. No reading and no arithmetic here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ZONE_NAMES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device")  # in the kernel's order
MAX_ORDERS = 32
MAX_TYPES = 100


@dataclass
class PerCpuLimits:
    """One CPU's page lists of one zone, as zoneinfo prints them: pages held, limit, batch."""

    cpu: int
    values: dict[str, int] = field(default_factory=dict)


@dataclass
class ZoneRecord:
    """What one file says about one zone; what it does not say is empty.

    Attributes
    ----------
    node : int or None
        None where the file prints no node.
    zone : str
        The zone's name in the file.
    free_blocks : tuple of int
        Free blocks by order, all types together.
    capped : frozenset of int
        Orders whose count is a lower bound.
    free_by_type : dict of str to tuple of int
        Free blocks by type and order, types named as in the file.
    capped_by_type : dict of str to frozenset of int
        Orders whose count is a lower bound, by type.
    letters : tuple of str
        By order, the letters of the types that have free blocks (Mem-Info).
    pageblocks, mixed_pageblocks : dict of str to int
        Pageblocks by type.
    pages : dict of str to int
        Counters in pages: free, min, low, high, boost, present, managed, free_cma ...
    kilobytes : dict of str to int
        The same in kB, where the file prints kB.
    reserve : tuple of int
        lowmem_reserve by index of the request's highest zone, pages.
    pcp : list of PerCpuLimits
    stats, node_stats : dict of str to int
        Further counters by the kernel's names.
    printed_kb : int or None
        The sum that Mem-Info prints behind the blocks.
    extfrag, unusable : tuple of int
        Published indices by order, in thousandths.
    doubt : str
        Why the free blocks cannot be right, empty where nothing speaks against them.
    line : int
        Where the zone begins in the file.
    """

    node: int | None
    zone: str
    line: int = 0
    free_blocks: tuple[int, ...] = ()
    capped: frozenset[int] = frozenset()
    free_by_type: dict[str, tuple[int, ...]] = field(default_factory=dict)
    capped_by_type: dict[str, frozenset[int]] = field(default_factory=dict)
    letters: tuple[str, ...] = ()
    pageblocks: dict[str, int] = field(default_factory=dict)
    mixed_pageblocks: dict[str, int] = field(default_factory=dict)
    pages: dict[str, int] = field(default_factory=dict)
    kilobytes: dict[str, int] = field(default_factory=dict)
    reserve: tuple[int, ...] = ()
    pcp: list[PerCpuLimits] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)
    node_stats: dict[str, int] = field(default_factory=dict)
    printed_kb: int | None = None
    extfrag: tuple[int, ...] = ()
    unusable: tuple[int, ...] = ()
    doubt: str = ""

    @property
    def label(self) -> str:
        """The zone as people write it, such as ``node 0 Normal``."""
        return self.zone if self.node is None else f"node {self.node} {self.zone}"

    @property
    def key(self) -> tuple[int, str]:
        """Node and name; a file without nodes speaks of node 0."""
        return (self.node or 0, self.zone)

    def blocks(self) -> tuple[int, ...]:
        """Free blocks by order, all types together, from whichever table the file has."""
        if self.free_blocks or not self.free_by_type:
            return self.free_blocks
        orders = max(len(row) for row in self.free_by_type.values())
        rows = [row + (0,) * (orders - len(row)) for row in self.free_by_type.values()]
        return tuple(sum(column) for column in zip(*rows, strict=True))

    def is_lower_bound(self) -> bool:
        """Whether any count of free blocks is capped."""
        return bool(self.capped) or any(self.capped_by_type.values())


@dataclass
class CacheRow:
    """One slab cache of slabinfo: objects in use and in all, bytes an object, objects and pages a slab."""

    name: str
    active_objects: int
    objects: int
    object_bytes: int
    objects_per_slab: int
    pages_per_slab: int


@dataclass
class FailedRequest:
    """The request that a kernel report is about.

    Attributes
    ----------
    outcome : str
        ``failure``, ``stall``, ``oom``, ``memcg`` (the limit of a memory cgroup) or ``sysrq`` (asked for by
        hand, nothing failed).
    order : int or None
        None where the headline does not say it; -1 for a report asked for by hand.
    gfp : str
        The flags as the file has them, names or a number; empty when not told.
    kernel : str
        Version of the kernel, empty when not told.
    nodes : frozenset of int
        Nodes that it was confined to (nodemask, else mems_allowed); empty where the headline names none.
    has_dump : bool
        Whether a Mem-Info followed it.
    """

    outcome: str
    line: int
    order: int | None = None
    gfp: str = ""
    kernel: str = ""
    nodes: frozenset[int] = frozenset()
    has_dump: bool = False


@dataclass
class Snapshot:
    """One table, or one report, at one moment.

    Attributes
    ----------
    kind : str
        buddyinfo, pagetypeinfo, extfrag_index, unusable_index, zoneinfo, slabinfo, vmstat, meminfo,
        meminfo_report, compactsnoop or counters.
    file : str
    line : int
        Where it begins.
    heading : str
        The line that stood above it, where one did.
    zones : list of ZoneRecord
    counters : dict of str to int
        By the kernel's names; pages, bytes or events as the kernel has them (meminfo: kB).
    caches : list of CacheRow
    request : FailedRequest or None
    page_kb : int or None
        Page size in kB, where the file shows it.
    pageblock_order : int or None
    nr_orders : int or None
    types : tuple of str
        Migrate types in the file's own order.
    kernel : str
    """

    kind: str
    line: int
    file: str = ""
    heading: str = ""
    zones: list[ZoneRecord] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    caches: list[CacheRow] = field(default_factory=list)
    request: FailedRequest | None = None
    page_kb: int | None = None
    pageblock_order: int | None = None
    nr_orders: int | None = None
    types: tuple[str, ...] = ()
    kernel: str = ""
    _by_key: dict[tuple[int, str], ZoneRecord] = field(default_factory=dict, repr=False, compare=False)

    def zone_at(self, node: int | None, zone: str) -> ZoneRecord | None:
        """The record of a zone, None where there is none."""
        return self._by_key.get((node or 0, zone))

    def add_zone(self, record: ZoneRecord) -> None:
        """Add a zone's record."""
        self.zones.append(record)
        self._by_key[record.key] = record


@dataclass
class TraceSummary:
    """What a trace holds, counted while it streamed by.

    Attributes
    ----------
    kind : str
        ``events`` (ftrace, trace-cmd, perf script), ``llfree``, ``plotfrag``, ``page_owner``.
    events : Counter
        Events, or records, by name.
    orders : dict of str to Counter
        By event, how often each order occurred.
    types : dict of str to Counter
        By event, how often each migrate type occurred, as the file prints it.
    cpus : set of int
    first_ns, last_ns : int or None
        Least and greatest time stamp, ns.
    facts : dict
        What the file says about itself (metadata, header fields).
    """

    kind: str
    line: int = 1
    file: str = ""
    events: Counter[str] = field(default_factory=Counter)
    orders: dict[str, Counter[int]] = field(default_factory=dict)
    types: dict[str, Counter[str]] = field(default_factory=dict)
    cpus: set[int] = field(default_factory=set)
    first_ns: int | None = None
    last_ns: int | None = None
    facts: dict[str, object] = field(default_factory=dict)

    def count(self, event: str, order: object = None, type_name: object = None) -> None:
        """One more event; orders and types that no kernel has are counted as -1 and ``?``."""
        self.events[event] += 1
        if isinstance(order, int):
            self.orders.setdefault(event, Counter())[order if 0 <= order < MAX_ORDERS else -1] += 1
        if type_name is not None:
            self.count_type(event, str(type_name))

    def count_type(self, event: str, name: str, times: int = 1) -> None:
        """One more, or several more, of a type or pair of types under an event."""
        counts = self.types.setdefault(event, Counter())
        counts[name if name in counts or len(counts) < MAX_TYPES else "?"] += times

    def note_time(self, time_ns: int | None) -> None:
        """Widen the span of time stamps."""
        if time_ns is None:
            return
        self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
        self.last_ns = time_ns if self.last_ns is None else max(self.last_ns, time_ns)
