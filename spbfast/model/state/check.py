"""check_zone: recompute every list, counter and index from the pages and name the first difference.

Owns the invariants that must hold between any two events (docs/spec/exact.md B.12). Pages and lists are
walked by the kernels of scan_*.py, the counters above them recomputed with NumPy; nothing here is shared with
the code being checked but the decoders of page states and slots, and nothing is written to the zone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from spbfast.constants import (
    CLEAN,
    EMPTY,
    ISOLATED,
    LIST_CLEAN,
    LIST_EMPTY,
    LIST_ISOLATED,
    LIST_NONE,
    LIST_TAINTED,
    MOVABLE,
    NR_LOWORDER_PCP_LISTS,
    NR_MT,
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_REQUEST_MT,
    NR_RESTING_ORDERS,
    NR_STRANDS,
    PB_ORDER,
    PB_PAGES,
    PCP_BATCH_SCALE_MAX,
    PCPF_FREE_HIGH_BATCH,
    PCPF_PREV_FREE_HIGH_ORDER,
    RECLAIMABLE,
    TAINTED,
    UNMOVABLE,
    C,
    Mt,
    P,
    Pc,
)
from spbfast.errors import InvariantError
from spbfast.model.state.finding import NR_FINDING, PLACES, RECORD_PARTS, UNKNOWN, Rule
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.scan_lists import FREE_LISTS, RESTING_LISTS, check_lists, check_pcp_lists
from spbfast.model.state.scan_owned import check_owned
from spbfast.model.state.scan_pages import check_pages, check_slots

_TEXT = {
    Rule.LINK: "the links of a list must agree both ways",
    Rule.ON_ITS_LIST: "a block that rests must be on the list that its state names",
    Rule.IN_A_BLOCK: "every page of the zone must belong to exactly one block",
    Rule.OUTSIDE: "pages outside the zone, and only they and reserved ones, must be holes",
    Rule.BLOCK_FITS: "a block must be aligned and lie inside the zone",
    Rule.TYPE_EXISTS: "a free block must be of a migratetype that has lists",
    Rule.LABEL: "a free block's type must be its pageblock's label",
    Rule.MERGED: "free buddies must be merged",
    Rule.OWNER: "a block in use must name an owner",
    Rule.SLOT: "a block in use must name one of its owner's slots",
    Rule.SLOT_BACK: "a block in use and its owner's slot must name each other",
    Rule.OWNED: "a block at rest with an owner must be of an owned pageblock, on its owner's list, merged",
    Rule.SWAPPED: "only memory that may be swapped out may be in swap",
    Rule.CONTIG: "a contiguous allocation must hold its whole superpageblock",
}


class Tally(NamedTuple):
    """What the pages say, counted by `check_pages`."""

    nr: np.ndarray  # blocks by free list
    nr_free_pages: np.ndarray  # by superpageblock
    pinned: np.ndarray  # pages by superpageblock
    contig: np.ndarray  # pages held by contiguous allocations, by superpageblock
    used: np.ndarray  # pages by pageblock and requested type
    whole: np.ndarray  # 1: the pageblock is covered by a free block of order >= 9
    holes: np.ndarray  # pages by pageblock
    held: np.ndarray  # [1] blocks that name a slot
    on_cpu: np.ndarray  # [1] blocks on per-CPU lists
    anon: np.ndarray  # pages that reclaim may swap out, by owner
    swapped: np.ndarray  # [1] slots whose pages are in swap
    nr_resting: np.ndarray  # pages on the lists of CPUs that own pageblocks, by superpageblock


def check_zone(z: ZoneState, policy: np.ndarray | None = None) -> None:
    """Raise if the zone's state contradicts itself.

    Parameters
    ----------
    z : ZoneState
        Between two events: nothing half done. About a second for 247 GiB.
    policy : int64 array, optional
        The policy that the zone was run with from its boot on; without it the rules of `sticky_content` and
        `relabel_on_empty` are not looked at.

    Raises
    ------
    InvariantError
        The first difference: rule, field and index, expected and found value.
    """
    finding = np.zeros(NR_FINDING, np.int64)
    lengths = np.zeros(z.area.nr.size, np.int64)
    resting = np.zeros(z.pcp.resting.size, np.int64)
    _raise_if(z, check_lists(z.page, z.geo, z.geo.list0, FREE_LISTS, lengths, finding), finding)
    first = z.pcp.first
    _demand(z, "pcp.first", (first >= 0) & (first < NR_STRANDS), "must be a strand")
    _demand(z, "pcp.nr", z.pcp.nr >= 0, "must be a number of blocks")
    _raise_if(z, check_pcp_lists(z.page, z.pcp, z.geo, finding), finding)
    _raise_if(z, check_lists(z.page, z.geo, z.geo.resting0, RESTING_LISTS, resting, finding), finding)
    tally = _new_tally(z)
    _raise_if(z, check_pages(z.page, z.pb.label, z.slots, z.geo, tally, finding), finding)
    _compare(z, "area.nr", lengths, "must be the length of its list")
    _compare(z, "area.nr", tally.nr, "every free block must be on its list")
    _raise_if(z, check_slots(z.page, z.slots, z.geo, tally, finding), finding)
    _compare(z, "slots.nr_anon", tally.anon, "must be the owner's pages that may be swapped out")
    _check_masks(z, lengths)
    _raise_if(z, check_owned(z, tally.nr_resting, finding), finding)
    _check_pcp(z, resting, tally)
    _check_owners(z, tally)
    _check_pageblocks(z, policy, tally)
    _check_superpageblocks(z, policy, tally)
    _check_index(z)
    _check_gauges(z, tally)


def _new_tally(z: ZoneState) -> Tally:
    nr_spb, nr_pb = z.geo.nr_spb, z.geo.nr_pb
    return Tally(
        nr=np.zeros(z.area.nr.size, np.int64),
        nr_free_pages=np.zeros(nr_spb, np.int64),
        pinned=np.zeros(nr_spb, np.int64),
        contig=np.zeros(nr_spb, np.int64),
        used=np.zeros((nr_pb, 4), np.int64),
        whole=np.zeros(nr_pb, np.int64),
        holes=np.zeros(nr_pb, np.int64),
        held=np.zeros(1, np.int64),
        on_cpu=np.zeros(1, np.int64),
        anon=np.zeros(z.slots.base.size, np.int64),
        swapped=np.zeros(1, np.int64),
        nr_resting=np.zeros(nr_spb, np.int64),
    )


def field_of(z: ZoneState, path: str) -> np.ndarray:
    """The array that a path of the field table names."""
    part: Any = z
    for name in path.split("."):
        part = getattr(part, name)
    return part  # type: ignore[no-any-return]


def _raise_if(z: ZoneState, found: int, finding: np.ndarray) -> None:
    """Turn a kernel's finding into an exception."""
    if not found:
        return
    rule, field, index, expected, value = finding.tolist()
    path = PLACES[field]
    array = z.page.word if path in RECORD_PARTS else field_of(z, path)
    wanted = "another value" if expected == UNKNOWN else expected
    raise InvariantError(_TEXT[Rule(rule)], _place(array, path, index), wanted, value)


def _place(array: np.ndarray, path: str, flat: int) -> str:
    at = np.unravel_index(flat, array.shape)
    return f"{path}[{', '.join(str(int(i)) for i in at)}]"


def _compare(
    z: ZoneState, path: str, expected: np.ndarray, rule: str, where: np.ndarray | None = None
) -> None:
    """Raise at the first element (of those chosen by `where`) that is not as expected."""
    array = field_of(z, path)
    differs = array != expected
    if where is not None:
        differs &= where
    if differs.any():
        flat = int(np.argmax(differs))
        wanted = np.broadcast_to(expected, array.shape).flat[flat]
        raise InvariantError(f"{path} {rule}", _place(array, path, flat), int(wanted), int(array.flat[flat]))


def _demand(z: ZoneState, path: str, holds: np.ndarray, rule: str, expected: Any = "another value") -> None:
    """Raise at the first element of which `holds` is false."""
    if not holds.all():
        array = field_of(z, path)
        flat = int(np.argmin(holds))
        raise InvariantError(f"{path} {rule}", _place(array, path, flat), expected, int(array.flat[flat]))


def _check_masks(z: ZoneState, lengths: np.ndarray) -> None:
    filled = lengths.reshape(-1, NR_ORDERS, NR_MT) > 0
    mask = (filled << np.arange(NR_ORDERS)[None, :, None]).sum(axis=1)
    _compare(z, "area.mask", mask.reshape(-1), "must have a bit for every list that is not empty")


def _check_owners(z: ZoneState, tally: Tally) -> None:
    owner = z.pb.owner.astype(np.int64)
    _demand(z, "pb.owner", (owner >= 0) & (owner <= z.geo.nr_cpus), "must be a CPU + 1, or 0 for none")
    label = z.pb.label.astype(np.int64)
    owned = owner > 0
    whole = (tally.whole > 0) | (tally.holes == PB_PAGES) | (label >= NR_REQUEST_MT)
    _compare(z, "pb.owner", np.int64(0), "must be none where a pageblock is free or can't be owned", whole)
    of = (owner - 1) * NR_REQUEST_MT + label
    nr = np.bincount(of[owned], minlength=z.pcp.nr_owned.size)
    _compare(z, "pcp.nr_owned", nr, "must be the pageblocks that the CPU owns, by label")


def _check_pcp(z: ZoneState, resting: np.ndarray, tally: Tally) -> None:
    lengths = z.pcp.nr.astype(np.int64)
    _compare(z, "pcp.resting", resting, "must be the length of its list")
    found = int(lengths.sum() + resting.sum())
    if found != tally.on_cpu[0]:
        raise InvariantError("blocks on per-CPU lists must say so", "page.state", int(tally.on_cpu[0]), found)
    if not z.geo.nr_cpus:
        return
    places = np.arange(NR_PCP_LISTS)
    orders = np.where(places >= NR_LOWORDER_PCP_LISTS, PB_ORDER, places // NR_REQUEST_MT)
    expected = z.pcp.cpu.copy()
    expected[:, Pc.COUNT] = (lengths.reshape(-1, NR_PCP_LISTS) << orders).sum(axis=1)
    by_order = resting.reshape(z.geo.nr_cpus, -1, NR_RESTING_ORDERS).sum(axis=1)
    expected[:, Pc.COUNT] += (by_order << np.arange(NR_RESTING_ORDERS)).sum(axis=1)
    batch, high_min, high_max, flags, mark_high = z.pcp.conf.tolist()
    expected[:, Pc.HIGH] = np.clip(expected[:, Pc.HIGH], min(high_min, high_max), high_max)
    expected[:, Pc.ALLOC_FACTOR] = np.clip(expected[:, Pc.ALLOC_FACTOR], 0, PCP_BATCH_SCALE_MAX)
    most = (batch << PCP_BATCH_SCALE_MAX) + PB_PAGES
    expected[:, Pc.FREE_COUNT] = np.clip(expected[:, Pc.FREE_COUNT], 0, most)
    expected[:, Pc.FLAGS] &= PCPF_PREV_FREE_HIGH_ORDER
    expected[:, Pc.FLAGS] |= flags & PCPF_FREE_HIGH_BATCH
    _compare(z, "pcp.cpu", expected, "must be the pages on the lists, or in its range")
    is_other = np.arange(len(z.count)) != C.BELOW_HIGH
    right = (z.count == 0) | ((z.count == 1) & (mark_high > 0))
    _demand(z, "count", is_other | right, "must be 0, or 1 where lists are kept short below a mark")


def _check_pageblocks(z: ZoneState, policy: np.ndarray | None, tally: Tally) -> None:
    _compare(z, "pb.used", tally.used, "must be the pages in use by requested type")
    label = z.pb.label.astype(np.int64)
    exists = (label >= 0) & (label < z.geo.nr_mt)
    _demand(z, "pb.label", exists, "must be a migratetype that has lists")
    hole = tally.holes == PB_PAGES
    _compare(z, "pb.label", np.int64(MOVABLE), "must be movable where no memory is", hole)
    bits = z.pb.bits.astype(np.int64)
    known = (bits >= 0) & (bits < 2 << Mt.HIGHATOMIC)
    _demand(z, "pb.bits", known, "must have no bit but the content bits and that of the reserve")
    reserved = (label == Mt.HIGHATOMIC).astype(np.int64) << Mt.HIGHATOMIC
    _compare(z, "pb.bits", bits & (1 << Mt.HIGHATOMIC) - 1 | reserved, "must say if the label is highatomic")
    here = ((tally.used[:, :NR_REQUEST_MT] > 0) << np.arange(NR_REQUEST_MT)).sum(axis=1)
    _compare(z, "pb.bits", bits | here, "must have the bit of every type in use")
    contig = np.repeat(tally.contig > 0, z.geo.nr_pb // z.geo.nr_spb)
    bare = (tally.whole > 0) | contig | hole
    _compare(z, "pb.bits", reserved, "must have no content bit where no request's page is", bare)
    if policy is not None and not policy[P.sticky_content]:
        _compare(z, "pb.bits", here | reserved, "must be exactly the types in use")
    if policy is not None and not policy[P.highatomic_reserve]:
        _demand(z, "pb.label", label != Mt.HIGHATOMIC, "must not be highatomic without a reserve")


def _check_superpageblocks(z: ZoneState, policy: np.ndarray | None, tally: Tally) -> None:
    nr_spb = z.geo.nr_spb
    per_spb = z.geo.nr_pb // nr_spb
    total = (tally.holes < PB_PAGES).reshape(nr_spb, per_spb).sum(axis=1)
    nr_free_pb = tally.whole.reshape(nr_spb, per_spb).sum(axis=1)
    _compare(z, "spb.nr_free_pages", tally.nr_free_pages, "must be the pages on its lists")
    _compare(z, "spb.nr_resting_pages", tally.nr_resting, "must be the pages at rest with owning CPUs")
    _compare(z, "spb.pinned", tally.pinned, "must be the pages in use that cannot be migrated")
    _compare(z, "spb.nr_free_pb", nr_free_pb, "must be the pageblocks in free blocks of order 9 and 10")
    _compare(z, "spb.total", total, "must be the pageblocks with memory")
    _compare(z, "spb.full_length", (total == per_spb).astype(np.int64), "must say if none is missing")
    bits = (z.pb.bits[:, None] >> np.arange(4)) & 1
    content = bits.reshape(nr_spb, per_spb, 4).sum(axis=1)
    _compare(z, "spb.content", content, "must be the pageblocks with the content bit (pb.bits)")
    partial = (tally.contig > 0) & (tally.contig != 1 << z.geo.spb_shift)
    _demand(z, "spb.list", ~partial, "of a contiguous allocation must be held whole")
    _compare(z, "spb.list", _lists(total, nr_free_pb, content, tally.contig), "must be what the counters say")
    if policy is not None and policy[P.superpageblocks] and policy[P.relabel_on_empty]:
        empty = np.repeat(z.spb.list == LIST_EMPTY, per_spb)
        _compare(z, "pb.label", np.int64(MOVABLE), "must be movable in an empty superpageblock", empty)


def _lists(total: np.ndarray, free: np.ndarray, content: np.ndarray, contig: np.ndarray) -> np.ndarray:
    """The list of category and fullness that each superpageblock belongs on."""
    bucket = np.where(free == 0, 0, 1 + (4 * free > total) + (2 * free > total) + (4 * free > 3 * total))
    reserved = content[:, Mt.HIGHATOMIC]
    tainted = content[:, UNMOVABLE] + content[:, RECLAIMABLE] + reserved > 0
    lists = bucket + np.where(tainted, LIST_TAINTED, LIST_CLEAN)
    lists = np.where((free == total) & (reserved == 0), LIST_EMPTY, lists)
    lists = np.where(contig > 0, LIST_ISOLATED, lists)
    return np.where(total == 0, LIST_NONE, lists)


def _check_index(z: ZoneState) -> None:
    nr_lists, nr_slots = z.index.spb.shape
    spb = np.flatnonzero(z.spb.list >= 0)
    lst, slot = z.spb.list[spb], z.spb.slot[spb]
    inside = np.ones(z.geo.nr_spb, bool)
    inside[spb] = (slot >= 0) & (slot < nr_slots)
    _demand(z, "spb.slot", inside, f"must be a slot, 0..{nr_slots - 1}")
    live = np.zeros((nr_lists, nr_slots), bool)
    live[lst, slot] = True
    there = np.full((nr_lists, nr_slots), -1)
    there[lst, slot] = spb
    alone = np.ones(z.geo.nr_spb, bool)
    alone[spb] = there[lst, slot] == spb
    _demand(z, "spb.slot", alone, "must not be another superpageblock's slot too")
    marked = _unpack(z.index.live)
    # A slot that moved leaves its old mark behind and lacks one at its new place; then the slot is wrong.
    named = z.index.spb[lst, slot] == spb
    right = np.ones(z.geo.nr_spb, bool)
    right[spb] = named | marked[lst, slot]
    _demand(z, "spb.slot", right, "must be the place that names it (index.spb)")
    _compare(z, "index.spb", there, "must be the superpageblock whose slot this is", live)
    _compare(z, "index.live", _pack(live), "must have a bit for every slot in use")
    _compare(z, "index.len", live.sum(axis=1), "must be the number of superpageblocks on the list")
    last = np.where(live.any(axis=1), nr_slots - np.argmax(live[:, ::-1], axis=1), 0)
    _demand(
        z, "index.tail", (z.index.tail >= last) & (z.index.tail <= nr_slots), "must be behind the last slot"
    )
    fit = np.zeros(z.index.fit.shape[:3] + (nr_slots,), bool)
    if z.geo.set_mask:
        mask = z.area.mask.reshape(-1, NR_MT)[:, :NR_REQUEST_MT].astype(np.int64)
        for order in range(NR_ORDERS):
            for mt in range(NR_REQUEST_MT):
                fit[lst, mt, order, slot] = mask[spb, mt] >> order > 0
    _compare(z, "index.fit", _pack(fit), "must have a bit for every slot that can serve")
    _check_bitmaps(z)


def _check_bitmaps(z: ZoneState) -> None:
    """What the choice by bitmap reads: bits by superpageblock number."""
    spb = np.arange(z.geo.nr_spb)
    category = np.full(z.index.in_category.shape[1] * 64, -1)
    lists = z.spb.list[spb]
    category[spb] = np.select(
        [lists == LIST_NONE, lists < LIST_TAINTED, lists < LIST_EMPTY, lists == LIST_EMPTY],
        [-1, CLEAN, TAINTED, EMPTY],
        ISOLATED,
    )
    inside = category == np.arange(4)[:, None]
    _compare(
        z, "index.in_category", _pack(inside), "must have a bit for every superpageblock of the category"
    )


def _unpack(words: np.ndarray) -> np.ndarray:
    """Bits of int64 words, lowest first, as bools."""
    return np.unpackbits(words.astype("<i8").view(np.uint8), axis=-1, bitorder="little").astype(bool)


def _pack(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits, axis=-1, bitorder="little").view("<i8").astype(np.int64)


def _check_gauges(z: ZoneState, tally: Tally) -> None:
    nr = tally.nr.reshape(-1, NR_ORDERS, NR_MT)
    pages = (nr.sum(axis=0) << np.arange(NR_ORDERS)[:, None]).sum(axis=0)
    lists = np.bincount(z.spb.list[z.spb.list >= 0], minlength=LIST_ISOLATED + 1)
    expected = np.maximum(z.count, 0)
    expected[C.FREE_PAGES] = pages.sum()
    expected[C.FREE_CMA] = pages[Mt.CMA]
    expected[C.NR_RECORDS] = min(expected[C.NR_RECORDS], len(z.records))
    expected[C.TAINTED_SPBS] = lists[LIST_TAINTED:LIST_EMPTY].sum()
    expected[C.CLEAN_SPBS] = lists[LIST_CLEAN:LIST_TAINTED].sum()
    expected[C.EMPTY_SPBS] = lists[LIST_EMPTY]
    expected[C.ISOLATED_SPBS] = lists[LIST_ISOLATED]
    expected[C.FREE_HIGHATOMIC] = pages[Mt.HIGHATOMIC]
    expected[C.RESERVED_HIGHATOMIC] = PB_PAGES * (z.pb.label == Mt.HIGHATOMIC).sum()
    expected[C.PCP_PAGES] = z.pcp.cpu[:, Pc.COUNT].sum()
    expected[C.ANON_PAGES] = tally.anon.sum()
    expected[C.SWAP_PAGES] = tally.swapped[0]
    expected[C.PCP_OWNED_PAGEBLOCKS] = (z.pb.owner > 0).sum()
    _compare(z, "count", expected, "must be what pages and lists add up to")
