"""The zone as a struct of arrays: named tuples of numpy arrays and one table that describes them.

Owns the field names, dtypes and dimensions of all allocator state; `build.py` allocates from `FIELDS`,
`check.py` plants faults by it in tests, and the docs print it. Never computes anything.

Pages are counted from a base pfn that is aligned to a superpageblock, so that buddy, pageblock and
superpageblock arithmetic is plain shifts and XOR on array indices even in unaligned zones; pages of
the arrays that are not in the zone are holes. The free and per-CPU lists are circular and run
through the links in the pages' records (page_state.py); their heads are the entries after the last page. A
record is one word, so that a page is one cache miss: eight of them share a line.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spbfast.constants import NR_ORDERS, NR_OUTCOMES, NR_PCP_SCALARS, NR_REQUEST_MT, RECORD_FIELDS
from spbfast.jit.decorators import by_reference
from spbfast.model.state.trace import Trace


@by_reference()
class Geo(NamedTuple):
    """Scalars that fix a zone's shape; int64 in kernels."""

    lo: int  # first page index inside the zone
    hi: int  # one past the last page index inside the zone
    nr_pages: int  # length of the page arrays' page part
    spb_shift: int  # page index >> spb_shift = superpageblock
    set_mask: int  # superpageblock & set_mask = list set (0 when the zone has one set: mainline)
    nr_spb: int
    nr_pb: int
    list0: int  # index of the head of list (set 0, order 0, unmovable)
    pcp0: int  # index of the head of the first strand of the first per-CPU list
    nr_cpus: int  # 0: no per-CPU lists
    nr_words: int  # words of 64 slots of a superpageblock list
    nr_mt: int  # migratetypes listed: 4, or 5 with CMA
    resting0: int  # index of the head of the first list of a CPU that owns pageblocks
    nr_managed: int  # pages that the allocator manages, once boot has released them


@by_reference(strides={"low": 2, "high": 2})
class Page(NamedTuple):
    """Per page or list head a word of 8 bytes (page_state.py); `low` and `high` are views of its halves."""

    word: np.ndarray
    low: np.ndarray
    high: np.ndarray


@by_reference()
class Area(NamedTuple):
    """Free lists by (set, order, migratetype): lengths, and which orders are non-empty per (set, mt)."""

    nr: np.ndarray
    mask: np.ndarray


@by_reference(inner={"used": (NR_REQUEST_MT + 1,)})
class Pb(NamedTuple):
    """Per pageblock: label, content bits (1 << migratetype), used pages by requested type, event mark, owner.

    Pageblocks of which an owner has given fragments back to the free lists are on a circular list of that
    CPU and label through `next`/`prev`; the heads are the entries after the last pageblock.
    """

    label: np.ndarray
    bits: np.ndarray
    used: np.ndarray
    mark: np.ndarray
    owner: np.ndarray
    next: np.ndarray
    prev: np.ndarray


@by_reference(inner={"content": (NR_REQUEST_MT + 1,)})
class Spb(NamedTuple):
    """Per superpageblock: counters, list membership and marks."""

    nr_free_pb: np.ndarray
    nr_free_pages: np.ndarray
    total: np.ndarray
    full_length: np.ndarray
    content: np.ndarray
    pinned: np.ndarray
    list: np.ndarray
    slot: np.ndarray
    defrag_mark: np.ndarray
    nr_resting_pages: np.ndarray


@by_reference(inner={"fit": (NR_REQUEST_MT, NR_ORDERS, None), "hint": (NR_REQUEST_MT,)})
class Index(NamedTuple):
    """The superpageblock lists as slot arrays in list order, with an index of what each slot can serve.

    `fit[list, mt, order]` has a bit for every slot whose superpageblock holds a free block of type mt
    and at least that order; a walk that skips what cannot serve is then a find-first-set.
    `in_category[category]` has a bit by superpageblock number, for the choice by bitmap.
    """

    spb: np.ndarray
    live: np.ndarray
    fit: np.ndarray
    tail: np.ndarray
    len: np.ndarray
    hint: np.ndarray
    in_category: np.ndarray


@by_reference(inner={"cpu": (NR_PCP_SCALARS,)})
class Pcp(NamedTuple):
    """Per-CPU page lists: scalars per CPU, blocks and first strand per list (pcplist.py), and the tunables.

    With owned pageblocks `resting` counts the blocks by CPU, type and order instead of `nr`.
    """

    cpu: np.ndarray
    nr: np.ndarray
    conf: np.ndarray
    resting: np.ndarray
    nr_owned: np.ndarray
    first: np.ndarray


@by_reference()
class Slots(NamedTuple):
    """Where every owner's blocks are: one pool of page indices (slots.py) and each owner's range."""

    link: np.ndarray
    base: np.ndarray
    size: np.ndarray
    paged: np.ndarray
    anon: np.ndarray
    nr_anon: np.ndarray
    rings: np.ndarray


@by_reference(inner={"records": (RECORD_FIELDS,), "walks": (NR_OUTCOMES,)})
class ZoneState(NamedTuple):
    """One zone. Kernels take the whole of it or the part they need."""

    geo: Geo
    page: Page
    area: Area
    pb: Pb
    spb: Spb
    index: Index
    pcp: Pcp
    slots: Slots
    count: np.ndarray
    ev: np.ndarray
    scratch: np.ndarray
    noise: np.ndarray
    records: np.ndarray
    walks: np.ndarray
    tally: np.ndarray
    trace: Trace


class ArrayField(NamedTuple):
    """One row of the field table. `dims` names sizes of `build.py`; `check` says if a flip must be found."""

    path: str
    dtype: str
    dims: tuple[str, ...]
    unit: str
    doc: str
    checked: bool = True


FIELDS = (
    ArrayField(
        "page.word",
        "int64",
        ("links",),
        "record",
        "state of the block headed here, its neighbours on a list or its owner and slot",
    ),
    ArrayField("area.nr", "int32", ("set_order_mt",), "blocks", "length of each free list"),
    ArrayField("area.mask", "int32", ("set_mt",), "bit set", "orders whose list is not empty"),
    ArrayField("pb.label", "int8", ("pb",), "migratetype", "type of the pageblock"),
    ArrayField(
        "pb.bits", "int8", ("pb",), "bit set", "types that live here or lived here (sticky); reserved"
    ),
    ArrayField("pb.used", "int16", ("pb", "four"), "pages", "in-use pages by requested type"),
    ArrayField("pb.mark", "int32", ("pb",), "event", "last event that tried to evacuate it", False),
    ArrayField("spb.nr_free_pb", "int32", ("spb",), "pageblocks", "wholly free pageblocks"),
    ArrayField("spb.nr_free_pages", "int32", ("spb",), "pages", "pages on its free lists"),
    ArrayField("spb.total", "int32", ("spb",), "pageblocks", "usable pageblocks"),
    ArrayField("spb.full_length", "int8", ("spb",), "bool", "has its whole length of usable pageblocks"),
    ArrayField(
        "spb.content", "int32", ("spb", "four"), "pageblocks", "pageblocks with the content bit, by type"
    ),
    ArrayField("spb.pinned", "int32", ("spb",), "pages", "movable pages in use that cannot be migrated"),
    ArrayField("spb.list", "int32", ("spb",), "list", "list of category and fullness it is on"),
    ArrayField("spb.slot", "int32", ("spb",), "slot", "its place on that list"),
    ArrayField(
        "spb.defrag_mark", "int64", ("spb",), "event", "last event that asked to defragment it", False
    ),
    ArrayField(
        "index.spb", "int32", ("lists", "slots"), "superpageblock", "list order, head first, with gaps"
    ),
    ArrayField("index.live", "int64", ("lists", "words"), "bit set", "slots in use"),
    ArrayField(
        "index.fit", "int64", ("lists", "three", "orders", "words"), "bit set", "slots that can serve"
    ),
    ArrayField("index.tail", "int32", ("lists",), "slot", "next slot to use"),
    ArrayField("index.len", "int32", ("lists",), "superpageblocks", "length of each list"),
    ArrayField("index.hint", "int32", ("orders", "three"), "superpageblock", "last good one, or -1", False),
    ArrayField(
        "index.in_category", "int64", ("four", "spb_words"), "bit set", "superpageblocks of each category"
    ),
    ArrayField("pcp.cpu", "int64", ("cpus", "pcp_scalars"), "mixed", "count, high, factors, flags"),
    ArrayField("pcp.nr", "int32", ("cpu_lists",), "blocks", "length of each per-CPU list"),
    ArrayField("pcp.conf", "int64", ("pcp_conf",), "pages", "batch, high_min, high_max, flags, mark", False),
    ArrayField(
        "pcp.first", "int8", ("cpu_lists",), "strand", "strand of each per-CPU list with its head block"
    ),
    ArrayField("pb.owner", "int16", ("pb",), "CPU + 1", "CPU that owns the pageblock, 0 none"),
    ArrayField(
        "pb.next", "int32", ("pb_links",), "pageblock", "next with fragments to take back; -1 on no list"
    ),
    ArrayField("pb.prev", "int32", ("pb_links",), "pageblock", "previous one of that list"),
    ArrayField("spb.nr_resting_pages", "int32", ("spb",), "pages", "pages at rest with owning CPUs"),
    ArrayField("pcp.resting", "int32", ("resting_lists",), "blocks", "length of each list of an owning CPU"),
    ArrayField("pcp.nr_owned", "int32", ("cpu_types",), "pageblocks", "pageblocks owned, by CPU and label"),
    ArrayField(
        "slots.link",
        "int32",
        ("slots_pool",),
        "page index + 1",
        "block in each owner's slot, 0 empty, -1 in swap",
    ),
    ArrayField("slots.base", "int64", ("owners",), "slot", "first slot of each owner", False),
    ArrayField("slots.size", "int64", ("owners",), "slots", "number of slots of each owner", False),
    ArrayField(
        "slots.paged",
        "int8",
        ("owners",),
        "mixed",
        "1: a slot for every page, so its huge pages may split; 2: a ring whose folios may split",
        False,
    ),
    ArrayField(
        "slots.anon", "int8", ("owners",), "bool", "anonymous memory that reclaim may swap out", False
    ),
    ArrayField(
        "slots.nr_anon", "int64", ("owners",), "pages", "of such memory, pages in use that are not pinned"
    ),
    ArrayField(
        "slots.rings",
        "int64",
        ("ring_ends",),
        "slot",
        "the page cache's rings, the node's own",
        False,
    ),
    ArrayField("count", "int64", ("counts",), "mixed", "zone gauges and counters"),
    ArrayField("ev", "int64", ("ev",), "mixed", "what the running event did", False),
    ArrayField("scratch", "int64", ("scratch",), "mixed", "candidates of one evacuation", False),
    ArrayField(
        "noise", "int64", ("noise",), "mixed", "shares of migrations that fail as busy, accumulators", False
    ),
    ArrayField(
        "records", "int64", ("records", "record_fields"), "mixed", "event records, when asked for", False
    ),
    ArrayField(
        "walks", "int64", ("two", "outcomes"), "superpageblocks", "searches and visits by rung", False
    ),
    ArrayField("tally", "int64", ("tally",), "events", "causes that counters are made of", False),
    ArrayField("trace.head", "int64", ("trace_head",), "mixed", "kinds of records kept, their number", False),
    ArrayField("trace.nr", "int64", ("trace_kinds",), "records", "records met, by kind", False),
    ArrayField("trace.where", "int64", ("trace_kinds",), "buffer", "buffer of each kind", False),
    ArrayField(
        "trace.rows", "int64", ("trace_bufs", "trace_rows", "trace_fields"), "mixed", "records by kind", False
    ),
    ArrayField("trace.clock", "int64", ("one",), "ns", "simulated time", False),
    ArrayField("trace.zone", "int64", ("one",), "zone", "number of the zone", False),
)
