"""What a reader of results should know before trusting them.

Owns the words about runs that ended normally and yet left something out. Reads counters of a dataset and
changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

POOL_FULL = "slab_objects_full"
SOURCES = "source_hash"


def caveats(ds: xr.Dataset) -> list[str]:
    """Sentences about what runs left out; most results have none.

    Parameters
    ----------
    ds : xarray.Dataset
        From `open_results` or `simulate`, with `vmstat` over (.., time, counter).
    """
    return [*_pool_full(ds), *_mixed_sources(ds)]


def _mixed_sources(ds: xr.Dataset) -> list[str]:
    """Runs that different kernels have made, in one dataset."""
    if SOURCES not in ds:
        return []
    made = sorted({int(value) for value in ds[SOURCES].values.ravel()} - {0})
    if len(made) < 2:
        return []
    which = ", ".join(f"{value:016x}" for value in made)
    return [
        f"the runs were made by {len(made)} different sources of the kernels ({which}), so differences "
        f"between points may come from that; ds.{SOURCES} says which run is whose"
    ]


def _pool_full(ds: xr.Dataset) -> list[str]:
    if "vmstat" not in ds or POOL_FULL not in ds["counter"].values:
        return []
    left_out = ds["vmstat"].sel(counter=POOL_FULL)
    left_out = left_out.max("time") if "time" in left_out.dims else left_out
    full, ended = int((left_out > 0).sum()), int(left_out.notnull().sum())
    if not full:
        return []
    return [
        f"in {full} of {ended} runs the slab caches had no room for everything that should have grown: up to "
        f"{int(left_out.max()):,} inodes were left out (counter {POOL_FULL}); raise slab.objects_max"
    ]
