"""The machine around the allocator: memory, boot, per-CPU lists and reclaim.

Owns the sections `machine`, `boot`, `pcp` and `reclaim` and the mainline formulas behind their `auto` values;
caches.py has `slab` and `pagecache`, latencies.py `workers`. Nothing here simulates; spbfast/model/lowering
turns the models into arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema, create_model, model_validator

from spbfast.config.base import PAGE, Model, Pageblocks, key
from spbfast.config.units import MAX_SIZE, Duration, Size, format_size, parse_size
from spbfast.constants import MAX_ZONE_PAGES
from spbfast.text import quote_value

BLOCK = 4 << 20  # the biggest buddy, 4 MiB
BLOCK_PAGES = BLOCK // PAGE
MAX_ZONE_BYTES = MAX_ZONE_PAGES * PAGE  # what links of pages and list heads reach
MAX_SPB_BYTES = 1 << 40
MAX_START_PFN = 1 << 39  # with every zone behind it, page frames stay below 2^40
MAX_PCP_PAGES = 1 << 24
MAX_ROUNDS = 10**9
HOUR, SECOND = 3600 * 10**9, 10**9


def _auto_or_size(value: Any) -> Any:
    try:
        found = value if value == "auto" else parse_size(value)
    except ValueError as error:
        raise ValueError(f"{error} (or 'auto': the mainline formula)") from None
    if isinstance(found, int) and found > MAX_SIZE:
        raise ValueError(f"must be at most {format_size(MAX_SIZE)}, got {value}")
    return found


def _auto_or_pages(value: Any) -> Any:
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_PCP_PAGES):
        return value
    raise ValueError(
        f"must be 'auto' (the mainline formula) or a whole number of pages, 1 to {MAX_PCP_PAGES}, "
        f"got {quote_value(value)}"
    )


def _rounds(value: Any) -> Any:
    if value == "unlimited" or (type(value) is int and 0 <= value <= MAX_ROUNDS):
        return value
    raise ValueError(
        f"must be a whole number of rounds, 0 to {MAX_ROUNDS}, or 'unlimited', got {quote_value(value)}"
    )


_AUTO_PAGES = WithJsonSchema(
    {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_PCP_PAGES}]}
)
_AUTO_SIZE = WithJsonSchema(
    {"type": "string", "examples": ["auto", "64MiB"], "description": f"at most {format_size(MAX_SIZE)}"}
)
AutoOrPages = Annotated[int | str, BeforeValidator(_auto_or_pages), _AUTO_PAGES]
AutoOrSize = Annotated[int | str, BeforeValidator(_auto_or_size), _AUTO_SIZE]
Rounds = Annotated[
    int | str,
    BeforeValidator(_rounds),
    WithJsonSchema(
        {"anyOf": [{"const": "unlimited"}, {"type": "integer", "minimum": 0, "maximum": MAX_ROUNDS}]}
    ),
]


def _floor_pow2(n: int) -> int:
    return 1 << (n.bit_length() - 1)


@dataclass(frozen=True)
class ZoneShape:
    """One zone of a machine, sizes in pages. Names are those of /proc/zoneinfo, with the node in front
    where there are several."""

    name: str
    node: int
    nr_pages: int
    start_pfn: int
    nr_reserved: int

    @property
    def nr_managed(self) -> int:
        """Pages that the allocator manages."""
        return self.nr_pages - self.nr_reserved


_FILES = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
)
# `from` is a word of Python, which a class body cannot have as a name.
_FROM: dict[str, Any] = {
    "from": (
        Annotated[tuple[str, ...] | None, _FILES],
        key(
            None,
            "a file of a real machine to begin as, or a list of them: a capture, or dumps (pagetypeinfo, "
            "buddyinfo, zoneinfo); they decide memory, watermarks, per-CPU limits and the state at 0 s",
            "ours",
        ),
    )
}
_BegunAs = create_model("_BegunAs", __base__=Model, **_FROM)


class MachineSpec(_BegunAs):  # type: ignore[valid-type, misc]
    """Nodes with a zone Normal each, and optionally a zone DMA32 on the first."""

    memory: Size = key(
        238 << 30,
        "memory of zone Normal, reserved pages included; rounded down to whole 4MiB blocks",
        "v1 cover: 238 superpageblocks",
    )
    start_pfn: int = key(
        0x100000,
        "first page frame of the zone, where a 4MiB block begins; 0x100000 is 4 GiB, where Normal begins",
        "x86-64",
        ge=0,
        le=MAX_START_PFN,
        multiple_of=BLOCK_PAGES,
    )
    nodes: int = key(
        1,
        "NUMA nodes that share memory and CPUs evenly; each has workers and page cache of its own",
        "seed: one",
        ge=1,
        le=4,
    )
    dma32: Size = key(
        0,
        "memory of zone DMA32 below 4GiB, on node 0: serves what zone Normal cannot; 0B leaves it out",
        "series: left out of all counts",
        ge=0,
        le=4 << 30,
    )
    spb_size: Size = key(
        1 << 30,
        "size of a superpageblock: a power of two, at least 4MiB",
        "v1: PUD size",
        le=MAX_SPB_BYTES,
    )
    cpus: int = key(
        32, "CPUs; decides per-CPU list sizes and the pages stranded there", "assumed, 8..166", ge=1, le=1024
    )
    memmap_bytes_per_page: int = key(
        64, "struct page, reserved at boot at the zone's start", "mainline, x86-64", ge=0, le=512
    )
    kernel_image: Size = key(
        60_000_000, "kernel image and firmware, reserved at the zone's start", "flagship; assumed 20MB..200MB"
    )
    min_free: AutoOrSize = key(
        "auto", "vm.min_free_kbytes as a size; auto is the kernel's own choice", "mainline formulas"
    )
    watermark_distance: Size | None = key(
        None,
        "distance between two watermarks; without it that of reclaim.watermark_scale",
        "mainline formulas",
    )
    swap: Size = key(
        0,
        "room in swap for anonymous memory, which is that of daemons and guests; 0B: none. Its writes and "
        "reads take no time",
        "ours: off; the flagship's hosts are not known to swap",
    )
    zone: str | None = key(
        None,
        "zone of the files of machine.from to begin as: its name, with another node than 0 in front, such as "
        "DMA32 or node1.Normal; without it Normal of node 0, or DMA32 where that is all",
        "ours",
    )
    digest: str | None = key(
        None, "digest of the files of machine.from; what they have is filled in", "filled in"
    )

    @model_validator(mode="after")
    def _check(self) -> MachineSpec:
        if self.spb_size < BLOCK or self.spb_size & (self.spb_size - 1):
            raise ValueError(
                f"spb_size: must be a power of two of at least 4MiB, e.g. 64MiB or 1GiB; "
                f"got {format_size(self.spb_size)}"
            )
        if self.memory < self.spb_size:
            raise ValueError(
                f"memory: must hold at least one superpageblock of {format_size(self.spb_size)}, "
                f"got {format_size(self.memory)}; give more memory or a smaller machine.spb_size"
            )
        if self.memory < self.nodes * self.spb_size:
            raise ValueError(
                f"nodes: each needs a superpageblock of {format_size(self.spb_size)}, but memory is "
                f"{format_size(self.memory)} for {self.nodes} nodes"
            )
        self._check_zones()
        if self.dma32 // PAGE > self.start_pfn:
            raise ValueError(
                f"dma32: {format_size(self.dma32)} does not fit below page frame {self.start_pfn:#x}, "
                f"where zone Normal begins (machine.start_pfn)"
            )
        if 0 < self.swap < PAGE:
            raise ValueError(
                f"swap: must hold a page of 4KiB at least, or be 0B; got {format_size(self.swap)}"
            )
        if self.cpus < self.nodes:
            raise ValueError(f"cpus: must be at least one per node ({self.nodes}), got {self.cpus}")
        return self

    def _check_zones(self) -> None:
        zones = self.normal_zones()
        if max(zone.nr_pages for zone in zones) * PAGE > MAX_ZONE_BYTES:
            most, given = format_size(MAX_ZONE_BYTES), format_size(self.memory)
            nodes = "node" if self.nodes == 1 else "nodes"
            raise ValueError(
                f"memory: one zone holds at most {most}, got {given} for {self.nodes} {nodes}; give less, "
                "or more machine.nodes"
            )
        for zone in zones:
            if zone.nr_reserved >= zone.nr_pages:
                raise ValueError(
                    f"memory: zone {zone.name} has {format_size(zone.nr_pages * PAGE)}, no more than the "
                    f"{format_size(zone.nr_reserved * PAGE)} that boot reserves there; give more memory, or "
                    "lower machine.kernel_image or machine.memmap_bytes_per_page"
                )

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the real machine that this one begins as, none where it is built."""
        return getattr(self, "from") or ()

    def canonical(self) -> dict[str, Any]:
        """Plain values; of `from` the content, wherever the files lie, and nothing of what is not given."""
        values: dict[str, Any] = super().canonical()
        values["from"] = values.pop("digest")
        for name in ("from", "watermark_distance", "zone"):
            if values[name] is None:
                del values[name]
        return values

    @property
    def nr_pages(self) -> int:
        """Pages of all zones Normal, in whole blocks of 4 MiB: 247 GB is no whole number of pages."""
        return self.memory // BLOCK * (BLOCK // PAGE)

    @property
    def nr_reserved(self) -> int:
        """Pages at the zones' starts that never reach the allocator; DMA32 aside."""
        return sum(zone.nr_reserved for zone in self.normal_zones())

    @property
    def nr_managed(self) -> int:
        """Pages that the allocator manages in zones Normal."""
        return self.nr_pages - self.nr_reserved

    def _reserved(self, nr_pages: int, extra: int = 0) -> int:
        return -(-(nr_pages * self.memmap_bytes_per_page + extra) // PAGE)

    def normal_zones(self) -> list[ZoneShape]:
        """The zones Normal, one a node: whole superpageblocks each, the last one the rest."""
        spb_pages = self.spb_size // PAGE
        share = self.nr_pages // spb_pages // self.nodes * spb_pages
        zones = []
        start = self.start_pfn
        for node in range(self.nodes):
            nr = share if node + 1 < self.nodes else self.nr_pages - share * node
            name = "Normal" if self.nodes == 1 else f"node{node}.Normal"
            zones.append(
                ZoneShape(name, node, nr, start, self._reserved(nr, self.kernel_image if node == 0 else 0))
            )
            start += nr
        return zones

    def zones(self) -> list[ZoneShape]:
        """Every zone: Normal by node, then DMA32 if there is one. It ends where the first Normal begins."""
        zones = self.normal_zones()
        nr = self.dma32 // BLOCK * (BLOCK // PAGE)
        if nr:
            name = "DMA32" if self.nodes == 1 else "node0.DMA32"
            zones.append(ZoneShape(name, 0, nr, self.start_pfn - nr, self._reserved(nr)))
        return zones

    def min_pages(self) -> int:
        """The min watermark of all zones Normal together, in pages.

        Source: calculate_min_free_kbytes, set_recommended_min_free_kbytes (THP on, one zone).
        """
        if isinstance(self.min_free, int):
            return self.min_free // PAGE
        kbytes = math.isqrt(self.nr_managed * 4 * 16)
        pages = min(max(kbytes, 128), 262_144) // 4
        recommended = min(512 * 2 + 512 * 3 * 3, self.nr_managed // 20)
        return max(pages, recommended)

    def watermarks(self, scale: int, zone: ZoneShape | None = None) -> tuple[int, int, int]:
        """Watermarks min, low, high in pages; `scale` is reclaim.watermark_scale.

        Of one zone, whose part of min is that of its managed pages, or as if all Normal were one.
        Source: __setup_per_zone_wmarks (mm/page_alloc.c).
        """
        managed = self.nr_managed if zone is None else zone.nr_managed
        total = sum(z.nr_managed for z in self.zones()) if zone is not None else managed
        least = self.min_pages() * managed // total
        low_gap = max(least >> 2, managed * scale // 10_000)
        if self.watermark_distance is not None:
            low_gap = self.watermark_distance // PAGE
        return least, least + low_gap, least + 2 * low_gap


class BootSpec(Model):
    """How the state at t = 0 is built, by requests to the same allocator."""

    chunk: Size = key(
        4 << 20,
        "what each boot-time actor allocates per turn; small values mix types finely",
        "assumed, 64KiB..64MiB",
        ge=PAGE,
        le=1 << 30,
    )
    fill_page_cache: bool = key(
        True,
        "finally, fill free memory with page cache down to the high watermark",
        "flagship: a machine in use is never half empty",
    )


class PcpSpec(Model):
    """Per-CPU page lists."""

    enabled: bool = key(True, "keep per-CPU lists; false sends every request to the buddy lists", "mainline")
    batch: AutoOrPages = key("auto", "pages moved at once", "mainline, zone_batchsize")
    high_min: AutoOrPages = key("auto", "least limit of a CPU's lists, pages", "mainline, zone_highsize")
    high_max: AutoOrPages = key("auto", "greatest limit of a CPU's lists, pages", "mainline, zone_highsize")
    decay: Duration = key(10**9, "time between two decays of the limit (vmstat tick)", "mainline: 1 s", gt=0)
    shrink_below_high: bool = key(
        False,
        "keep few pages on the lists from a request that finds free pages below the high watermark to a free "
        "that finds them above it",
        "mainline does (ZONE_BELOW_HIGH); ours: off, as it was in all that is published",
    )

    def sizes(self, managed: int, cpus: int, low_pages: int) -> tuple[int, int, int]:
        """Batch, high_min and high_max in pages of a zone with `managed` pages and low watermark `low_pages`.

        Source: zone_batchsize, zone_highsize (mm/page_alloc.c), no percpu_pagelist_high_fraction.
        """
        batch = self.batch
        if isinstance(batch, str):
            quarter = max(min(managed >> 10, (1 << 20) // PAGE) // 4, 1)
            batch = max(_floor_pow2(quarter + quarter // 2) - 1, 1)
        low_high = low_pages // cpus if isinstance(self.high_min, str) else self.high_min
        top_high = managed // 8 // cpus if isinstance(self.high_max, str) else self.high_max
        high_min = low_high if isinstance(self.high_min, int) else max(low_high, 4 * batch)
        high_max = top_high if isinstance(self.high_max, int) else max(top_high, 4 * batch)
        return batch, high_min, max(high_min, high_max)


class ReclaimSpec(Model):
    """Watermarks, kswapd and direct reclaim of page cache."""

    rounds_max: Rounds = key(
        16,
        "rounds of direct reclaim that one failing request may make in total; 0: none",
        "assumed: 0, 1, 16 or unlimited (the kernel loops on while there is progress)",
    )
    batch: int = key(32, "pages that one round of reclaim frees", "mainline SWAP_CLUSTER_MAX", ge=1, le=4096)
    compact_gap: bool = key(
        False,
        "a round of direct reclaim for a block of order k frees at least 2 << k pages, room to compact",
        "mainline does under MGLRU (should_abort_scan); ours: off, as it was in all that is published",
    )
    watermark_scale: int = key(
        10, "distance between the watermarks, in parts of 10,000", "mainline default", ge=1, le=3000
    )
    kswapd_wake: Literal["low", "high"] = key(
        "high",
        "the watermark below which a request in the slow path wakes kswapd",
        "mainline: high, since wakeup_kswapd asks pgdat_balanced; low is what models up to version 3 had",
    )
    huge_faults_wake_kswapd: bool = key(
        False,
        "a movable request for a whole pageblock that fails at first wakes kswapd",
        "mainline: false, vma_thp_gfp_mask leaves __GFP_KSWAPD_RECLAIM out unless defrag is defer; true is "
        "what models up to version 3 had",
    )
    barred_free: Literal["counted", "subtracted"] = key(
        "counted",
        "what kswapd and the watermarks of movable requests make of free pages that no movable request may "
        "use: those of tainted superpageblocks at or below their reserve",
        "ours: the series is silent; mainline subtracts what a request cannot use "
        "(__zone_watermark_unusable_free), vary both",
    )
    swappiness: int = key(
        60,
        "where there is swap, how much reclaim prefers anonymous memory to page cache: 0 page cache while "
        "there is any, 100 both alike, 200 anonymous memory",
        "mainline, vm_swappiness",
        ge=0,
        le=200,
    )
    shrink_slab: Literal["none", "classic", "mglru"] = key(
        "mglru",
        "whether kswapd and direct reclaim shrink slab beside page cache, and by whose walk over the memcgs: "
        "that of the classic LRU or of MGLRU",
        "mainline: mglru where CONFIG_LRU_GEN_ENABLED is set, else classic; none keeps the effect of the "
        "superpageblock triggers apart",
    )
    kswapd_delay: Duration = key(
        50_000, "from waking kswapd to its first page", "assumed, 10us..1ms", le=HOUR
    )
    kswapd_page_cost: Duration = key(
        500, "time that kswapd needs per page; bounds its rate", "assumed, 200ns..5us", gt=0, le=SECOND
    )
    compaction: Literal["pageblocks", "scanners"] = key(
        "pageblocks",
        "how memory is compacted: pageblocks that a cursor comes to are emptied into places from the free "
        "lists, or two scanners go towards each other, with skip bits and deferral, as the kernel's do",
        "mainline: scanners (compact_zone); pageblocks is what this model has had so far",
    )
    compact_candidates: int = key(
        4,
        "pageblocks that a failing THP fault may try to empty in clean superpageblocks; 0: none",
        "assumed, 0..16",
        ge=0,
        le=64,
    )
    compact_rate: int = key(
        500,
        "pageblocks per second that all THP faults together may compact",
        "assumed, 0..5000",
        ge=0,
        le=100_000,
    )
    compact_any_label: bool = key(
        True,
        "synchronous and background compaction empty pageblocks of movable pages whatever their label, not "
        "only those labelled movable",
        "mainline, suitable_migration_source; false is what models up to version 3 had",
    )
    kcompactd: bool = key(
        False,
        "compact in the background after a failed request above order 0, until a block of its order is free",
        "mainline has it; off, since no mail says what the series leaves of it",
    )
    kcompactd_pageblocks: Pageblocks = key(
        16, "pageblocks that it tries to empty before it checks again", "assumed, 1..256"
    )
    kcompactd_pause: Duration = key(
        10**9,
        "how long it sleeps after a fruitless pass over all memory; the kernel defers by counting attempts",
        "assumed, 100ms..60s",
    )
