"""Zones from geometry: allocates the arrays that layout.py names and boots them.

Owns sizes, huge-page advice and the boot order of memory. Never runs a request. The boot itself is
the allocator's free path, so that the first lists are what Linux' own boot leaves.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np

from spbfast.constants import (
    EMPTY,
    LIST_EMPTY,
    LIST_NONE,
    MAX_EVACUATE_SPBS,
    MAX_ORDER,
    MAX_ZONE_PAGES,
    MOVABLE,
    NR_EV,
    NR_MT,
    NR_ORDERS,
    NR_OUTCOMES,
    NR_PCP_LISTS,
    NR_PCP_SCALARS,
    NR_REQUEST_MT,
    NR_RESTING_LISTS,
    NR_SPB_LISTS,
    NR_STRANDS,
    NR_ZONE_COUNTS,
    PB_ORDER,
    PB_PAGES,
    RECORD_FIELDS,
    C,
    Noise,
    Pc,
    Tune,
)
from spbfast.model.state.layout import FIELDS, Area, Geo, Index, Page, Pb, Pcp, Slots, Spb, ZoneState
from spbfast.model.state.node import Ca
from spbfast.model.state.page_state import MAX_LINKS, STATE_HOLE, STATE_TAIL, make_page, record_words
from spbfast.model.state.slots import PAGED, RING
from spbfast.model.state.trace import NR_TALLY, NR_TH, NR_TP, NR_TRACE_FIELDS, Trace, nr_kinds

HUGE_PAGE = 2 << 20


@dataclass(frozen=True)
class PcpConf:
    """Tunables of the per-CPU lists, in pages (struct per_cpu_pages)."""

    batch: int
    high_min: int
    high_max: int
    flags: int = 0


@dataclass(frozen=True)
class ZoneSpec:
    """Shape of a zone.

    zone_pages and start_pfn are in 4 KiB pages; spb_pb is pageblocks per superpageblock (a power of
    two); owner_slots gives each owner's number of slots, and sharing names consecutive owners that have
    one range in common, as long as the first's; paged names owners with a slot for every page, whose huge
    pages may be split, anon those of them whose memory may go to swap, and split_rings rings of folios that
    may be split; nr_records bounds the golden files' records;
    trace_mask is the bit set of record kinds (trace.py) that get a buffer of trace_rows each.
    """

    zone_pages: int
    start_pfn: int = 0x100000
    spb_pb: int = 512
    superpageblocks: bool = False
    nr_cpus: int = 0
    pcp: PcpConf | None = None
    cma: bool = False
    reserved_pages: int = 0
    owner_slots: tuple[int, ...] = (0,)
    sharing: range = range(0)
    paged: tuple[int, ...] = ()
    anon: tuple[int, ...] = ()
    split_rings: tuple[int, ...] = ()
    nr_records: int = 0
    trace_mask: int = 0
    trace_rows: int = 0


def zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Zeroed array; large ones on 2 MiB alignment and advised to use huge pages (13 % on big zones)."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if nbytes < 2 * HUGE_PAGE:
        return np.zeros(shape, dtype)
    # Private: shared anonymous memory is shmem, which gets no transparent huge pages by advice.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    buffer = mmap.mmap(-1, nbytes + HUGE_PAGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            buffer.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # kernels without transparent huge pages: slower, not wrong
            pass
    raw = np.frombuffer(buffer, dtype=np.uint8)
    skip = -raw.ctypes.data % HUGE_PAGE
    return raw[skip : skip + nbytes].view(dtype).reshape(shape)


def make_geo(spec: ZoneSpec) -> tuple[Geo, int]:
    """Geometry of a zone and the absolute pfn of page index 0."""
    if not 0 < spec.zone_pages <= MAX_ZONE_PAGES:
        raise ValueError(f"zone_pages must be 1..{MAX_ZONE_PAGES} (960 GiB), got {spec.zone_pages}")
    if max(spec.owner_slots) > MAX_LINKS:
        raise ValueError(f"an owner has at most {MAX_LINKS} slots, got {max(spec.owner_slots)}")
    if spec.spb_pb < 2 or spec.spb_pb & (spec.spb_pb - 1):
        raise ValueError(f"pageblocks per superpageblock must be a power of two >= 2, got {spec.spb_pb}")
    spb_pages = spec.spb_pb * PB_PAGES
    base = spec.start_pfn & -spb_pages
    lo = spec.start_pfn - base
    hi = lo + spec.zone_pages
    nr_spb = -(-hi // spb_pages)
    nr_pages = nr_spb * spb_pages
    nr_sets = nr_spb if spec.superpageblocks else 1
    pcp0 = nr_pages + nr_sets * NR_ORDERS * NR_MT
    geo = Geo(
        lo=lo,
        hi=hi,
        nr_pages=nr_pages,
        spb_shift=spb_pages.bit_length() - 1,
        set_mask=-1 if spec.superpageblocks else 0,
        nr_spb=nr_spb,
        nr_pb=nr_pages // PB_PAGES,
        list0=nr_pages,
        pcp0=pcp0,
        nr_cpus=spec.nr_cpus,
        nr_words=-(-2 * nr_spb // 64),
        nr_mt=NR_MT if spec.cma else NR_MT - 1,
        resting0=pcp0 + spec.nr_cpus * NR_PCP_LISTS * NR_STRANDS,
        nr_managed=spec.zone_pages - _reserved(spec, lo, hi),
    )
    return geo, base


def _sizes(spec: ZoneSpec, geo: Geo) -> dict[str, int]:
    nr_sets = geo.nr_spb if spec.superpageblocks else 1
    cpu_lists = spec.nr_cpus * NR_PCP_LISTS
    links = geo.resting0 + spec.nr_cpus * NR_RESTING_LISTS
    if links > MAX_LINKS:
        raise ValueError(
            f"pages and list heads must be at most {MAX_LINKS}, got {links}; use larger superpageblocks"
        )
    return {
        "links": links,
        "pages": geo.nr_pages,
        "set_order_mt": nr_sets * NR_ORDERS * NR_MT,
        "set_mt": nr_sets * NR_MT,
        "pb": geo.nr_pb,
        "spb": geo.nr_spb,
        "lists": NR_SPB_LISTS,
        "slots": geo.nr_words * 64,
        "words": geo.nr_words,
        "spb_words": -(-geo.nr_spb // 64),
        "two": 2,
        "outcomes": NR_OUTCOMES,
        "orders": NR_ORDERS,
        "three": 3,
        "four": 4,
        "cpus": spec.nr_cpus,
        "pcp_scalars": NR_PCP_SCALARS,
        "cpu_lists": cpu_lists,
        "pcp_conf": len(Tune),
        "pb_links": geo.nr_pb + spec.nr_cpus * NR_REQUEST_MT,
        "resting_lists": spec.nr_cpus * NR_RESTING_LISTS,
        "cpu_types": spec.nr_cpus * NR_REQUEST_MT,
        "ring_ends": len(Ca),
        "slots_pool": int(_own_slots(spec).sum()),
        "owners": len(spec.owner_slots),
        "counts": NR_ZONE_COUNTS,
        "ev": NR_EV,
        "scratch": 4 * MAX_EVACUATE_SPBS,
        "noise": len(Noise),
        "records": spec.nr_records,
        "record_fields": RECORD_FIELDS,
        "tally": NR_TALLY,
        "trace_head": NR_TH,
        "trace_kinds": NR_TP,
        "trace_bufs": nr_kinds(spec.trace_mask),
        "trace_rows": spec.trace_rows,
        "trace_fields": NR_TRACE_FIELDS,
        "one": 1,
    }


def build_zone(spec: ZoneSpec) -> tuple[ZoneState, int]:
    """Allocate an unbooted zone: all pages holes or in use by nobody, all lists empty.

    Returns
    -------
    (zone, base): the state and the absolute pfn of page index 0.

    Raises
    ------
    ValueError
        Impossible geometry.
    """
    geo, base = make_geo(spec)
    sizes = _sizes(spec, geo)
    arrays = {f.path: zeros(tuple(sizes[d] for d in f.dims), f.dtype) for f in FIELDS}

    def part(kind: Any, prefix: str) -> Any:
        return kind(*(arrays[f"{prefix}.{name}"] for name in kind._fields))

    zone = ZoneState(
        geo=geo,
        page=make_page(arrays["page.word"]),
        area=part(Area, "area"),
        pb=part(Pb, "pb"),
        spb=part(Spb, "spb"),
        index=part(Index, "index"),
        pcp=part(Pcp, "pcp"),
        slots=part(Slots, "slots"),
        count=arrays["count"],
        ev=arrays["ev"],
        scratch=arrays["scratch"],
        noise=arrays["noise"],
        records=arrays["records"],
        walks=arrays["walks"],
        tally=arrays["tally"],
        trace=part(Trace, "trace"),
    )
    _fill(zone, spec)
    return zone, base


def _fill(zone: ZoneState, spec: ZoneSpec) -> None:
    geo = zone.geo
    first = geo.lo + _reserved(spec, geo.lo, geo.hi)
    word = zone.page.word
    word[: geo.nr_pages] = record_words(STATE_TAIL, 0)
    word[:first] = record_words(STATE_HOLE, 0)
    word[geo.hi : geo.nr_pages] = record_words(STATE_HOLE, 0)
    word[geo.list0 :] = record_words(0, np.arange(geo.list0, word.size))
    zone.pb.label[:] = MOVABLE
    for link in (zone.pb.next, zone.pb.prev):
        link[: geo.nr_pb] = -1
        link[geo.nr_pb :] = np.arange(geo.nr_pb, link.size)
    zone.index.hint[:] = -1
    own = _own_slots(spec)
    zone.slots.base[1:] = np.cumsum(own)[:-1]
    zone.slots.base[spec.sharing] = zone.slots.base[spec.sharing[:1]]
    zone.slots.size[:] = spec.owner_slots
    zone.slots.paged[list(spec.paged)] = PAGED
    zone.slots.paged[list(spec.split_rings)] = RING
    zone.slots.anon[list(spec.anon)] = 1
    if spec.pcp is not None:
        pcp = spec.pcp
        zone.pcp.conf[: Tune.MARK_HIGH] = pcp.batch, pcp.high_min, pcp.high_max, pcp.flags
        zone.pcp.cpu[:, Pc.HIGH] = spec.pcp.high_min
        zone.pcp.cpu[:, Pc.FLAGS] = spec.pcp.flags
    _fill_superpageblocks(zone, first)


def _own_slots(spec: ZoneSpec) -> np.ndarray:
    """Slots that each owner adds to the pool: none if it uses those of another."""
    own = np.array(spec.owner_slots, np.int64)
    if len(set(own[spec.sharing].tolist())) > 1:
        raise ValueError(f"owners that share slots must have equally many, got {own[spec.sharing].tolist()}")
    own[spec.sharing[1:]] = 0
    return own


def _reserved(spec: ZoneSpec, lo: int, hi: int) -> int:
    """Reserved pages at the zone's start, rounded up to whole pageblocks."""
    if not spec.reserved_pages:
        return 0
    end = -(-(lo + spec.reserved_pages) // PB_PAGES) * PB_PAGES
    return min(end, hi) - lo


def _bit(i: int) -> np.int64:
    """The bit of number i in its word."""
    return np.uint64(1 << (i % 64)).astype(np.int64)  # type: ignore[no-any-return]


def _fill_superpageblocks(zone: ZoneState, first: int) -> None:
    """Every superpageblock with usable pageblocks joins EMPTY, ascending."""
    geo = zone.geo
    per_spb = 1 << (geo.spb_shift - PB_ORDER)
    usable = np.zeros(geo.nr_pb, bool)
    usable[first >> PB_ORDER : -(-geo.hi // PB_PAGES)] = True
    zone.spb.total[:] = usable.reshape(geo.nr_spb, per_spb).sum(axis=1)
    zone.spb.full_length[:] = zone.spb.total == per_spb
    zone.spb.list[:] = LIST_NONE
    slot = 0
    for spb in np.flatnonzero(zone.spb.total):
        zone.index.spb[LIST_EMPTY, slot] = spb
        zone.index.live[LIST_EMPTY, slot // 64] |= _bit(slot)
        zone.index.in_category[EMPTY, spb // 64] |= _bit(int(spb))
        zone.spb.list[spb] = LIST_EMPTY
        zone.spb.slot[spb] = slot
        slot += 1
    zone.index.tail[LIST_EMPTY] = slot
    zone.index.len[LIST_EMPTY] = slot
    zone.count[C.EMPTY_SPBS] = slot


def boot_chunks(zone: ZoneState, start: int, end: int) -> np.ndarray:
    """Blocks in which boot releases [start, end): (n, 2) int64 of page index and order, ascending.

    Each chunk is as large as its alignment and the remaining length allow (__free_pages_memory).
    """
    rows = []
    pfn = start
    while pfn < end:
        order = MAX_ORDER if pfn == 0 else min(MAX_ORDER, (pfn & -pfn).bit_length() - 1)
        order = min(order, (end - pfn).bit_length() - 1)
        rows.append((pfn, order))
        pfn += 1 << order
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def first_usable(zone: ZoneState) -> int:
    """First page index that is neither outside the zone nor reserved."""
    inside = zone.page.word[zone.geo.lo : zone.geo.hi]
    return int(zone.geo.lo + np.argmin(inside == record_words(STATE_HOLE, 0)))


def nbytes_of(spec: ZoneSpec) -> dict[str, int]:
    """Bytes by field path that `build_zone` will allocate."""
    geo, _ = make_geo(spec)
    sizes = _sizes(spec, geo)
    return {f.path: math.prod(sizes[d] for d in f.dims) * np.dtype(f.dtype).itemsize for f in FIELDS}


def nbytes(zone: ZoneState) -> dict[str, int]:
    """Bytes of state by field path."""
    total = {}
    for field in FIELDS:
        array: Any = zone
        for name in field.path.split("."):
            array = getattr(array, name)
        total[field.path] = int(array.nbytes)
    return total


def copy_zone(zone: ZoneState) -> ZoneState:
    """Deep copy of every array; views of a copied array are views of the copy."""

    def clone(part: Any) -> Any:
        if isinstance(part, Page):
            return make_page(part.word.copy())
        if isinstance(part, np.ndarray):
            return part.copy()
        if isinstance(part, tuple):
            return type(part)(*(clone(p) for p in part)) if hasattr(part, "_fields") else part
        return part

    return clone(zone)  # type: ignore[no-any-return]
