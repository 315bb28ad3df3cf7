"""What a reader of results should know before trusting them.

Owns the words about runs that ended normally and yet left something out. Reads counters of a dataset and
changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

POOL_FULL = "slab_objects_full"


def caveats(ds: xr.Dataset) -> list[str]:
    """Sentences about what runs left out; most results have none.

    Parameters
    ----------
    ds : xarray.Dataset
        From `open_results` or `simulate`, with `vmstat` over (.., time, counter).
    """
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
