"""The kinds of event records: their fields, the kernel's names for them, and what the numbers mean.

Owns names and words only, so that a configuration can be checked without loading the simulator. Records are
written by model/state/trace.py and model/allocator/record.py, and stored and printed by results/records.py.
Names are those of the kernel's tracepoints; `spb_slab_shrink_run` and the fields that say so are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from spbfast.constants import AllocFlag, Cls, Mt, Outcome, Tp
from spbfast.text import suggest

MTS = tuple(mt.name.lower() for mt in Mt)
REASONS = ("ISOLATE", "CMA", "ZONE_BOUNDARY", "CROSS_TYPE_NOT_FREE", "INSUFFICIENT_COMPAT")
STEPS = ("NORETRY_SKIP", "ADD_TAINTED_OK", "DROP_NOFRAGMENT", "NOWARN_LOWER_ORDER")
# Outcomes of the ladder by the tracepoint's own names, beside ours in docs/records.md.
OUTCOMES = (
    *("NO_PAGE", "PASS_1", "PASS_2", "PASS_2B", "PASS_2C"),
    *("PASS_3", "PASS_4", "ZONE_FB", "PASS_2D"),
)
GFP = {
    Cls.BLOCKING: "__GFP_DIRECT_RECLAIM",
    Cls.NORETRY: "__GFP_NORETRY",
    Cls.NOWARN: "__GFP_NOWARN",
    Cls.NOFAIL: "__GFP_NOFAIL",
    Cls.HIGH: "__GFP_HIGH",
    Cls.NOMEMALLOC: "__GFP_NOMEMALLOC",
    Cls.RETRY_MAYFAIL: "__GFP_RETRY_MAYFAIL",
    Cls.KSWAPD: "__GFP_KSWAPD_RECLAIM",
}
assert len(OUTCOMES) == Outcome.BORROW_MOVABLE + 1


@dataclass(frozen=True)
class RecordField:
    """One column of a kind: name, type on disk, words; `names` of its values or `bits`, where it has them.

    A line shows a field of the head before the event's name.
    """

    name: str
    dtype: str
    long_name: str
    names: tuple[str, ...] = ()
    bits: Mapping[int, str] = field(default_factory=dict)
    units: str = "1"
    is_page: bool = False
    is_head: bool = False


@dataclass(frozen=True)
class RecordKind:
    """One kind of record."""

    name: str
    long_name: str
    fields: tuple[RecordField, ...]
    has_zone: bool = False  # the kernel's own fields begin with the zone's name


def _mt(name: str, long_name: str) -> RecordField:
    return RecordField(name, "i1", long_name, names=MTS)


_PFN = RecordField("pfn", "i8", "page frame number", is_page=True)
_ORDER = RecordField("order", "i1", "block order asked for")
_MT = _mt("mt", "requested migrate type")
_FLAGS = {int(flag): f"ALLOC_{flag.name}" for flag in AllocFlag}

KINDS: dict[str, RecordKind] = {}


def _add(kind: Tp, long_name: str, *fields: RecordField) -> None:
    name = kind.name.lower()
    has_zone = fields[0].name == "order" and name.startswith("spb_")
    KINDS[name] = RecordKind(name, long_name, fields, has_zone)


_add(
    Tp.SPB_PB_TAINT,
    "a content bit of a pageblock was set or cleared",
    _PFN,
    _mt("mt", "type of the content bit"),
    RecordField("action", "i1", "what happened to the bit", names=("CLEAR", "SET")),
    RecordField("first_or_last", "i1", "1: the superpageblock's count of such pageblocks left or reached 0"),
)
_add(
    Tp.SPB_CLAIM_BLOCK_REFUSED,
    "a pageblock could not be turned to the requested type",
    _PFN,
    _mt("start_mt", "requested migrate type"),
    _mt("block_mt", "migrate type of the pageblock"),
    RecordField("reason", "i1", "why", names=REASONS),
)
_add(
    Tp.SPB_EVACUATE_FOR_ORDER_DONE,
    "an evacuation of tainted superpageblocks ended",
    _ORDER,
    _MT,
    RecordField("p1", "i4", "pageblocks of the requested type that were tried"),
    RecordField("p2", "i4", "other pageblocks that were tried"),
    RecordField("did_evac", "i1", "1: at least one block moved"),
)
_add(
    Tp.SPB_ALLOC_ATOMIC_RELAX,
    "a caller that cannot block gave up or relaxed its request",
    _ORDER,
    _MT,
    RecordField("gfp", "i4", "what the caller may do", bits={int(k): v for k, v in GFP.items()}),
    RecordField("step", "i1", "step of the relaxation", names=STEPS),
)
_add(
    Tp.SPB_ALLOC_WALK,
    "the search of the superpageblocks for one request ended",
    _ORDER,
    _MT,
    RecordField("alloc_flags", "i4", "allocation flags, numbered as in the golden traces", bits=_FLAGS),
    RecordField("outcome", "i1", "pass that served it", names=OUTCOMES),
    RecordField("n_spbs_visited", "i4", "superpageblocks stepped on"),
)
_add(
    Tp.SPB_ALLOC_FALL_THROUGH,
    "no tainted superpageblock could serve a request that is not movable",
    _ORDER,
    _MT,
    RecordField("n_tainted", "i4", "tainted superpageblocks"),
    RecordField("n_tainted_with_buddy", "i4", "those of them with an own-type block: missed if not 0"),
    RecordField("fp", "i1", "1: the walk saw free pages"),
    RecordField("fpb", "i1", "1: the walk saw a free pageblock"),
    RecordField("below", "i1", "1: the walk saw a superpageblock below its reserve"),
)
_add(
    Tp.MM_PAGE_ALLOC_EXTFRAG,
    "a block was taken from another type's list",
    _PFN,
    RecordField("alloc_order", "i1", "block order asked for"),
    RecordField("fallback_order", "i1", "order of the block that was taken"),
    _mt("alloc_migratetype", "requested migrate type"),
    _mt("fallback_migratetype", "migrate type of the list"),
    RecordField("fragmenting", "i1", "1: the block was smaller than a pageblock"),
    RecordField("change_ownership", "i1", "1: the pageblock changed its type"),
)
_add(
    Tp.MM_PAGE_ALLOC_ZONE_LOCKED,
    "a block was taken off the zone's own-type lists",
    _PFN,
    _ORDER,
    _mt("migratetype", "requested migrate type"),
    RecordField("percpu_refill", "i1", "1: its order is kept on per-CPU lists"),
)
_add(
    Tp.MM_PAGE_PCPU_DRAIN,
    "a block went from a per-CPU list to the zone's lists",
    _PFN,
    _ORDER,
    _mt("migratetype", "type that the block was last used as"),
)
_add(
    Tp.SPB_SLAB_SHRINK_RUN,
    "a run of the slab-shrink worker ended (this program's own record)",
    RecordField("node", "i1", "memory node"),
    RecordField("passes", "i4", "passes over all caches"),
    RecordField("prio", "i1", "priority of the last pass, 12 is the gentlest"),
    RecordField("scanned", "i8", "objects scanned"),
    RecordField("freed", "i8", "objects freed"),
    RecordField("slab_pages", "i8", "pages of slabs that became empty and went back"),
    RecordField("pageblocks", "i4", "pageblocks that became wholly free by it"),
    RecordField("cost", "f8", "simulated time that the run took", units="s"),
)
_CPU = RecordField("cpu", "i2", "CPU of the caller, 0 for workers and reclaim", is_head=True)
_add(
    Tp.MM_PAGE_ALLOC,
    "a caller got a block",
    _PFN,
    _ORDER,
    _mt("migratetype", "requested migrate type"),
    _CPU,
    RecordField("moved", "i1", "1: the new place of a block that was moved"),
)
_add(
    Tp.MM_PAGE_FREE,
    "a block was given back by its owner",
    _PFN,
    RecordField("order", "i1", "block order"),
    _CPU,
    RecordField("percpu", "i1", "1: to a CPU's lists, 0: past them"),
)
NAMES = tuple(KINDS)
PAGE_EVENTS = (
    "mm_page_alloc_extfrag",
    "mm_page_alloc_zone_locked",
    "mm_page_pcpu_drain",
    "mm_page_alloc",
    "mm_page_free",
)
GROUPS: dict[str, tuple[str, ...]] = {"all": NAMES, "page_events": PAGE_EVENTS}


def check_names(names: tuple[str, ...] | str) -> tuple[str, ...]:
    """The kinds that were asked for, in their own order; `all` and `page_events` stand for several.

    Raises
    ------
    ValueError
        A name that no kind has; the text suggests the nearest.
    """
    given = (names,) if isinstance(names, str) else tuple(names)
    wanted = set()
    for name in given:
        if name not in GROUPS and name not in KINDS:
            known = [*GROUPS, *NAMES]
            hint = suggest(str(name), known, 0.5) or f"; known: {', '.join(known)}"
            raise ValueError(f"no kind of record is named {name!r}{hint}")
        wanted |= set(GROUPS.get(name, (name,)))
    return tuple(name for name in NAMES if name in wanted)


def record_mask(names: tuple[str, ...]) -> int:
    """Bit set of kinds, as kernels take it."""
    return sum(1 << Tp[name.upper()] for name in names)


def columns_of(name: str, rows: np.ndarray, bases: Sequence[int] = (0,)) -> dict[str, np.ndarray]:
    """Named and typed columns of raw records.

    Parameters
    ----------
    name : str
        A kind.
    rows : int64 [records, fields]
        As the kernels wrote them: time in ns, number, zone, then the fields.
    bases : sequence of int
        Page frame number of the arrays' first page, zone by zone.

    Returns
    -------
    dict
        time (f8, s), seq (i8), zone (i1), then the kind's fields.
    """
    zone = rows[:, 2]
    base = np.array(bases, np.int64)[zone]
    out = {"time": rows[:, 0] / 1e9, "seq": rows[:, 1].copy(), "zone": zone.astype("i1")}
    for i, column in enumerate(KINDS[name].fields):
        values = rows[:, 3 + i] + (base if column.is_page else 0)
        if column.units == "s":
            values = values / 1e9
        out[column.name] = values.astype(column.dtype)
    return out
