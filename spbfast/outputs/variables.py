"""The registry of everything that a simulation can output.

Owns names, dimensions, types, units, descriptions and the direction that counts as better. A variable exists
for the rest of the package (shards, results.nc, report) once it has a row here; no other place lists names.
Dimensions are those of one run; sweeps put `point` and `replicate` in front. The labels along `counter`,
`migratetype` and `order` come with the data. Never touches simulation state or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.errors import ResultsError

if TYPE_CHECKING:
    import xarray as xr

LOWER = "lower is better"
HIGHER = "higher is better"
NEITHER = "neither direction is better"
RUN_DIMS = ("point", "replicate")


@dataclass(frozen=True, slots=True)
class Var:
    """One output variable, or one coordinate along a dimension.

    Attributes
    ----------
    dims : tuple of str
        Dimensions within one run; () is a scalar of the run.
    dtype : str
        Numpy type stored on disk. Integer variables never hold negative values: -1 marks a missing cell.
    units : str
        UDUNITS; "1" for pages, blocks, objects and events, which `long_name` counts.
    meaning : str
        One line for a reader who does not know the kernel.
    headline : bool
        Shown first in the report.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    meaning: str
    direction: str = NEITHER
    headline: bool = False

    @property
    def fill(self) -> int | float:
        """What stands where nothing was simulated."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else -1

    def attrs(self) -> dict[str, str]:
        """Attributes for netCDF and xarray."""
        return {
            "units": self.units,
            "long_name": self.long_name,
            "comment": self.meaning,
            "direction": self.direction,
        }


VARIABLES: dict[str, Var] = {}
COORDS: dict[str, Var] = {}


def add_variable(var: Var) -> Var:
    """Add `var` to the registry.

    Raises
    ------
    ValueError
        When the name is taken by a different definition, or a dimension has no coordinate.
    """
    if VARIABLES.get(var.name, var) != var or var.name in COORDS:
        raise ValueError(f"the output variable {var.name!r} is already registered with another definition")
    missing = [d for d in var.dims if d not in COORDS]
    if missing:
        raise ValueError(f"the output variable {var.name!r} has unknown dimensions {missing}")
    VARIABLES[var.name] = var
    return var


def _register_coords() -> None:
    rows = (
        ("time", "f8", "s", "simulated time", "seconds since the end of boot"),
        ("migratetype", "O", "1", "migrate type", "what the pages may be used for"),
        ("order", "i8", "1", "block order", "a block holds 2^order pages"),
        ("spb", "i8", "1", "superpageblock", "place in the zone, ascending; small machines end earlier"),
        ("counter", "O", "1", "event counter", "the kernel's own counter names, as in /proc/vmstat"),
        ("zone", "O", "1", "memory zone", "Normal, or node and zone where there are several; DMA32 last"),
    )
    for name, dtype, units, long_name, meaning in rows:
        COORDS[name] = Var(name, (name,), dtype, units, long_name, meaning)


_T = ("time",)
_ZT = ("zone", "time")
_S = ("zone", "spb", "time")
_ROWS: tuple[tuple[Any, ...], ...] = (
    (
        "spb_tainted",
        _T,
        "i4",
        "1",
        "tainted superpageblocks",
        "superpageblocks that hold unmovable or reclaimable pages and so cannot become a gigantic page",
        LOWER,
        True,
    ),
    (
        "spb_clean",
        _T,
        "i4",
        "1",
        "clean superpageblocks",
        "superpageblocks in use by movable pages only, which compaction can still empty",
        HIGHER,
        True,
    ),
    (
        "spb_empty",
        _T,
        "i4",
        "1",
        "empty superpageblocks",
        "superpageblocks with every page free, each a gigantic page for the asking",
        HIGHER,
        True,
    ),
    (
        "spb_isolated",
        _T,
        "i4",
        "1",
        "isolated superpageblocks",
        "superpageblocks set aside while a contiguous range is being made",
    ),
    (
        "free_pages",
        ("migratetype", "time"),
        "i8",
        "1",
        "free pages by migrate type",
        "pages on the buddy lists; per-CPU lists are not counted",
    ),
    (
        "free_blocks",
        ("order", "time"),
        "i4",
        "1",
        "free blocks by order",
        "entries on the buddy lists, as in /proc/buddyinfo",
    ),
    (
        "vmstat",
        ("counter", "time"),
        "i8",
        "1",
        "cumulative event count",
        "events since the end of boot, by counter",
    ),
    ("slab_pages", _T, "i8", "1", "slab pages", "pages held by slab caches, full or not"),
    (
        "slab_cached_bytes",
        _T,
        "i8",
        "byte",
        "reclaimable slab objects",
        "bytes of cached objects that a shrinker could free",
    ),
    ("slab_objects", _T, "i8", "1", "slab objects", "objects alive in all slab caches"),
    ("pagecache_pages", _T, "i8", "1", "page cache pages", "pages that hold file data"),
    ("pcp_pages", _T, "i8", "1", "pages on per-CPU lists", "free pages parked with one CPU"),
    (
        "pcp_owned_pageblocks",
        _T,
        "i4",
        "1",
        "pageblocks owned by CPUs",
        "pageblocks whose freed pages go back to one CPU's lists; 0 with classic lists",
    ),
    (
        "pcp_stranded_pages",
        _T,
        "i8",
        "1",
        "pages resting with owning CPUs in tainted superpageblocks",
        "the part of pcp_pages that only one CPU can use and that lies in tainted superpageblocks, the rest "
        "in clean ones; kept with owned pageblocks only, 0 with classic lists",
        LOWER,
    ),
    (
        "free_pages_stranded_in_tainted",
        _T,
        "i8",
        "1",
        "free pages inside tainted superpageblocks",
        "free memory that can never be part of a gigantic page while its superpageblock stays tainted",
        LOWER,
    ),
    (
        "contig_1g_now",
        _T,
        "i4",
        "1",
        "gigantic pages free now",
        "gigantic pages that could be handed out without moving anything",
        HIGHER,
    ),
    (
        "contig_1g_without_reclaim",
        _T,
        "i4",
        "1",
        "gigantic pages that would fit without reclaim",
        "clean superpageblocks whose contents fit into free memory, and empty ones; a request reclaims page "
        "cache first and may get more, or fail on a busy page: see contig_1g_obtainable",
        HIGHER,
    ),
    (
        "contig_1g_obtainable",
        (),
        "i4",
        "1",
        "gigantic pages obtainable at the end",
        "those free at once, and what 4 more requests on each node get when the run is over, one after the "
        "other, with reclaim, pins and busy pages",
        HIGHER,
        True,
    ),
    (
        "contig_1g_asked",
        _T,
        "f8",
        "1",
        "gigantic pages obtainable at this moment",
        "as contig_1g_obtainable, asked every output.ask_1g_every and undone; not a number where nothing "
        "was asked",
        HIGHER,
    ),
    (
        "contig_1g_asked_moved",
        _T,
        "f8",
        "1",
        "pages migrated for the gigantic pages obtainable",
        "pages that the requests of contig_1g_asked migrated, failed ones too; none at the end of a run",
        LOWER,
    ),
    (
        "zone_spb_tainted",
        _ZT,
        "i4",
        "1",
        "tainted superpageblocks by zone",
        "spb_tainted, zone by zone",
        LOWER,
    ),
    ("zone_spb_clean", _ZT, "i4", "1", "clean superpageblocks by zone", "spb_clean, zone by zone", HIGHER),
    ("zone_spb_empty", _ZT, "i4", "1", "empty superpageblocks by zone", "spb_empty, zone by zone", HIGHER),
    ("zone_pagecache_pages", _ZT, "i8", "1", "page cache pages by zone", "pages that hold file data"),
    ("zone_free_pages", _ZT, "i8", "1", "free pages by zone", "pages on the buddy lists of each zone"),
    (
        "contig_1g_held",
        _T,
        "i4",
        "1",
        "gigantic pages held",
        "superpageblocks that gigantic_pages actors hold as one page each",
        HIGHER,
    ),
    (
        "contig_pages_per_1g",
        (),
        "f8",
        "1",
        "pages migrated per gigantic page obtained",
        "pages moved for all requests of gigantic_pages actors, failed ones too, over pages obtained",
        LOWER,
    ),
    (
        "contig_1g_without_reclaim_unpinned",
        _T,
        "i4",
        "1",
        "gigantic pages that would fit without reclaim if nothing were pinned",
        "what contig_1g_without_reclaim would be without pinned pages: what pins cost is the difference",
        HIGHER,
    ),
    (
        "contig_1g_pages_to_move",
        _T,
        "i8",
        "1",
        "pages to move for the gigantic pages that would fit",
        "pages that migration would have to move for all of contig_1g_without_reclaim beyond contig_1g_now",
        LOWER,
    ),
    ("nr_free_pages", _T, "i8", "1", "free pages", "pages on the buddy lists, as in /proc/vmstat"),
    (
        "nr_free_pages_blocks",
        _T,
        "i8",
        "1",
        "free pages in whole pageblocks",
        "pages of pageblocks that are free as a whole, as in /proc/vmstat",
        HIGHER,
    ),
    (
        "nr_slab_reclaimable",
        _T,
        "i8",
        "1",
        "reclaimable slab pages",
        "pages of slab caches whose objects a shrinker can free, as in /proc/vmstat",
    ),
    (
        "nr_slab_unreclaimable",
        _T,
        "i8",
        "1",
        "unreclaimable slab pages",
        "pages of the other slab caches, as in /proc/vmstat",
    ),
    (
        "pinned_pages",
        _T,
        "i8",
        "1",
        "pinned pages",
        "pages asked for as movable that cannot be migrated; their superpageblocks cannot be emptied",
        LOWER,
    ),
    (
        "swap_used_pages",
        _T,
        "i8",
        "1",
        "pages in swap",
        "pages of anonymous memory that are in swap (SwapTotal less SwapFree); 0 without machine.swap",
        LOWER,
    ),
    (
        "spb_tainted_by_stale_bits",
        _T,
        "i4",
        "1",
        "superpageblocks tainted by stale bits alone",
        "tainted superpageblocks without any unmovable or reclaimable page in use: only content bits say so",
        LOWER,
    ),
    (
        "pageblocks_with_content_bit",
        ("migratetype", "time"),
        "i4",
        "1",
        "pageblocks with the content bit",
        "pageblocks that hold, or are still thought to hold, pages of the type",
    ),
    (
        "pageblocks_with_pages_in_use",
        ("migratetype", "time"),
        "i4",
        "1",
        "pageblocks with pages in use",
        "pageblocks that do hold pages of the type: the content bits without the stale ones",
    ),
    ("n_spb", ("zone",), "i4", "1", "superpageblocks of each zone", "length of `spb` that the zone fills"),
    (
        "spb_category",
        _S,
        "i1",
        "1",
        "category of each superpageblock",
        "0 empty, 1 clean, 2 tainted, 3 isolated",
    ),
    (
        "spb_free",
        _S,
        "i2",
        "1",
        "free pageblocks of each superpageblock",
        "pageblocks that are free as a whole",
    ),
    ("spb_free_pages", _S, "i4", "1", "free pages of each superpageblock", "pages on its buddy lists"),
    (
        "spb_content",
        ("migratetype", *_S),
        "i2",
        "1",
        "pageblocks of each superpageblock by content",
        "pageblocks with the content bit of the type; one may count for several types",
    ),
    (
        "spb_pinned_pages",
        _S,
        "i4",
        "1",
        "pinned pages of each superpageblock",
        "pages asked for as movable that cannot be migrated",
    ),
    (
        "tainted_end",
        (),
        "i4",
        "1",
        "tainted superpageblocks at the end",
        "superpageblocks lost to unmovable or reclaimable pages when the run ends",
        LOWER,
        True,
    ),
    (
        "tainted_peak",
        (),
        "i4",
        "1",
        "most tainted superpageblocks at any time",
        "the worst moment of the run; a tainted superpageblock seldom recovers",
        LOWER,
        True,
    ),
    *(
        (f"replay_{name}", (), dtype, "1", long_name, meaning, direction)
        for name, dtype, long_name, meaning, direction in (
            ("allocations", "i8", "recorded allocations", "requests that were repeated", NEITHER),
            ("frees", "i8", "recorded frees", "frees that were repeated", NEITHER),
            (
                "not_served",
                "i8",
                "recorded allocations not served",
                "requests that the simulated machine had no block for",
                LOWER,
            ),
            (
                "handed_out_while_held",
                "i8",
                "pages handed out while held",
                "pages between two of whose allocations the recording has no free",
                NEITHER,
            ),
            (
                "freed_unknown",
                "i8",
                "pages freed that were not held",
                "pages handed out before the recording began, or by something that left no event",
                NEITHER,
            ),
            (
                "missing_share",
                "f8",
                "share of events that the recording lacks",
                "told from events that follow one of their own kind on the same page",
                NEITHER,
            ),
        )
    ),
)

_register_coords()
for _row in _ROWS:
    add_variable(Var(*_row))


def check_run(data: Mapping[str, np.ndarray], coords: Mapping[str, np.ndarray]) -> list[str]:
    """Every disagreement between one run's arrays and the registry; empty when all is well."""
    problems = []
    for name, values in data.items():
        var = VARIABLES.get(name)
        if var is None:
            problems.append(f"{name}: no such output variable")
            continue
        shape = np.shape(values)
        if len(shape) != len(var.dims):
            problems.append(f"{name}: has {len(shape)} dimensions, expected {var.dims}")
            continue
        for dim, size in zip(var.dims, shape, strict=True):
            if dim not in coords:
                problems.append(f"{name}: there are no labels along {dim}")
            elif len(coords[dim]) != size:
                problems.append(f"{name}: {size} values along {dim}, but {len(coords[dim])} labels")
        kind = np.asarray(values).dtype.kind
        if kind not in "biuf" or (kind == "f" and np.dtype(var.dtype).kind != "f"):
            problems.append(f"{name}: values of type {np.asarray(values).dtype}, expected {var.dtype}")
    return problems


def add_summaries(data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`data` plus the scalars that follow from its series, unless already there."""
    full = dict(data)
    tainted = full.get("spb_tainted")
    if tainted is not None and np.size(tainted):
        full.setdefault("tainted_end", np.asarray(tainted)[-1])
        full.setdefault("tainted_peak", np.max(tainted))
    return full


def at_level(names: Iterable[str], level: str) -> list[str]:
    """The names kept at an output level: `summary` keeps scalars, `series` all but superpageblocks."""
    if level == "summary":
        return [n for n in names if not VARIABLES[n].dims and n != "n_spb"]
    return [n for n in names if level == "spb" or ("spb" not in VARIABLES[n].dims and n != "n_spb")]


def annotate(ds: xr.Dataset) -> xr.Dataset:
    """A shallow copy of `ds` whose known variables and coordinates carry the registry's attributes."""
    ds = ds.copy(deep=False)
    for name in ds.variables:
        var = VARIABLES.get(str(name)) or COORDS.get(str(name))
        if var is not None:
            ds[name].attrs.update(var.attrs())
    return ds


def check_dataset(ds: xr.Dataset) -> None:
    """Compare the data variables of `ds` with the registry.

    Variables that belong to the sweep itself (status, seed and so on: those that only have the dimensions
    point and replicate and no row in the registry) are left alone.

    Raises
    ------
    ResultsError
        Lists every unknown variable, wrong dimension and missing label.
    """
    problems = []
    for key, da in ds.data_vars.items():
        name = str(key)
        own = tuple(str(d) for d in da.dims if d not in RUN_DIMS)
        var = VARIABLES.get(name)
        if var is None:
            if own:
                problems.append(f"{name}: no such output variable")
            continue
        if own != var.dims:
            problems.append(f"{name}: dimensions {own}, expected {var.dims}")
        problems += [f"{name}: there are no labels along {d}" for d in own if d not in ds.coords]
    if problems:
        raise ResultsError("not a dataset of this program:\n  " + "\n  ".join(problems))
