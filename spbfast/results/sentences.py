"""What a sweep shows, in words: that nothing differs and why, or the point that does best.

Owns the sentences with which a sweep's console ends and its report begins. Pure functions of a Dataset with
the schema of results.nc; draws nothing.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from spbfast.outputs.variables import VARIABLES
from spbfast.results.analysis import at_time, outcomes, varied_params
from spbfast.results.effects import compare
from spbfast.results.plots import point_labels
from spbfast.sweep.store.shards import OK
from spbfast.text import format_number

JUDGED = (
    *("tainted_end", "tainted_peak", "contig_1g_obtainable", "contig_1g_held"),
    *("free_pages_stranded_in_tainted", "slab_pages"),
)
COUNTERS_NAMED = 6
TWINS_NAMED, TWINS_SOUGHT = 3, 40
SHRINK = "policy.slab_shrink"


def finding(ds: xr.Dataset) -> str:
    """What the sweep shows, or why it shows nothing, in one to three sentences."""
    alive = np.flatnonzero((ds["status"].values == OK).any(axis=1))
    if len(alive) == 0 or "tainted_end" not in ds:
        return "No run succeeded, so there is nothing to compare."
    if len(alive) == 1:
        return _alone(ds, int(alive[0]))
    if nothing_differs(ds):
        return f"{_same(ds)} {_reason(ds)}"
    base = np.flatnonzero(ds["is_baseline"].values)
    if len(base) == 0:
        first = point_labels(ds)[int(alive[0])]
        return f"{_spread(ds)} There is no baseline; differences are from the first point ({first})."
    return _against_baseline(ds, int(base[0]))


def alike(ds: xr.Dataset, name: str) -> bool:
    """Whether a variable is the same in every point, replicate by replicate; failed runs are left out."""
    values = ds[name].transpose("point", "replicate", ...).astype("f8").values
    ok = (ds["status"].transpose("point", "replicate").values == OK) & np.isfinite(
        values.reshape(*values.shape[:2], -1)
    ).any(axis=2)
    first = values[ok.argmax(axis=0), np.arange(values.shape[1])]
    return bool(np.array_equal(values[ok], np.broadcast_to(first, values.shape)[ok], equal_nan=True))


def nothing_differs(ds: xr.Dataset) -> bool:
    """Whether all that a sweep is judged by is the same in every point that has results."""
    names = judged(ds)
    return len(_alive(ds)) > 1 and bool(names) and all(alike(ds, name) for name in names)


def judged(ds: xr.Dataset) -> list[str]:
    """What the sweep is judged by and has recorded; gigantic pages held only where an actor asks for them."""
    return [n for n in JUDGED if n in ds.data_vars and (n != "contig_1g_held" or has_gigantic_requests(ds))]


def has_gigantic_requests(ds: xr.Dataset) -> bool:
    """Whether anything ever asked for a gigantic page."""
    counters = ds["counter"].values.tolist() if "vmstat" in ds.data_vars else []
    asked = [n for n in ("contig_alloc_success", "contig_alloc_fail") if n in counters]
    return bool(asked) and float(ds["vmstat"].sel(counter=asked).max()) > 0


def _alive(ds: xr.Dataset) -> np.ndarray:
    return np.flatnonzero((ds["status"].values == OK).any(axis=1))


def _ends(ds: xr.Dataset) -> np.ndarray:
    """Tainted superpageblocks at the end, mean over replicates, for each point."""
    values = np.where(ds["status"].values == OK, ds["tainted_end"].astype("f8").values, np.nan)
    return np.array([np.nanmean(own) if np.isfinite(own).any() else np.nan for own in values])


def _alone(ds: xr.Dataset, point: int) -> str:
    ended = ds["tainted_end"].values[point][ds["status"].values[point] == OK]
    runs = "its run" if len(ended) == 1 else f"its {len(ended)} runs"
    only = (
        "the only point"
        if ds.sizes["point"] == 1
        else f"the only point with results ({point_labels(ds)[point]})"
    )
    return (
        f"{only[0].upper()}{only[1:]} has {_range(ended)} tainted superpageblocks at the end of {runs}; "
        "there is no baseline or other point to compare it with."
    )


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return format_number(low) if low == high else f"{format_number(low)} to {format_number(high)}"


def _same(ds: xr.Dataset) -> str:
    alive = _alive(ds)
    ended = ds["tainted_end"].values[alive[0]][ds["status"].values[alive[0]] == OK]
    others = [VARIABLES[n].long_name for n in judged(ds) if n != "tainted_end"]
    also = f" The same holds for {', '.join(others[:-1])} and {others[-1]}." if len(others) > 1 else ""
    replicates = (
        "the one replicate" if ds.sizes["replicate"] == 1 else f"each of {ds.sizes['replicate']} replicates"
    )
    return (
        f"Nothing differs: in {replicates} all {len(alive)} points end with the same number of tainted "
        f"superpageblocks ({_range(ended)}).{also}"
    )


def _reason(ds: xr.Dataset) -> str:
    """Why nothing differs, as far as counters and digests tell."""
    ok = ds["status"].values == OK
    paths = [str(ds[n].attrs.get("config_path", n)) for n in varied_params(ds)]
    varied = ", ".join(paths) or "what is varied"
    digests = [{int(v) for v in ds["digest"].values[ok[:, r], r]} for r in range(ds.sizes["replicate"])]
    moved = _counters_that_differ(ds)
    if not moved and all(len(found) <= 1 for found in digests):
        return (
            f"The runs end in the same state to the bit: {varied or 'what is varied'} never came into play."
        )
    parts = [part for part in (_shrink(ds, varied), _moved(ds, moved)) if part]
    return (
        " ".join(parts)
        or f"No counter differs; {varied or 'what is varied'} decided nothing that is counted."
    )


def _counters_that_differ(ds: xr.Dataset) -> list[str]:
    if "vmstat" not in ds.data_vars:
        return []
    ends = at_time(ds["vmstat"].astype("f8"), "end").to_dataset(name="end").assign(status=ds["status"])
    names = ds["counter"].values.tolist()
    return [str(n) for k, n in enumerate(names) if not alike(ends.isel(counter=k), "end")]


def _moved(ds: xr.Dataset, moved: list[str]) -> str:
    if not moved:
        return ""
    named = ", ".join(moved[:COUNTERS_NAMED]) + (", ..." if len(moved) > COUNTERS_NAMED else "")
    return f"Of {ds.sizes['counter']} counters {len(moved)} differ: {named}."


def _shrink(ds: xr.Dataset, varied: str) -> str:
    """What slab shrink did, where it is what the sweep varies."""
    counters = ds["counter"].values.tolist() if "vmstat" in ds.data_vars else []
    if SHRINK not in varied or "spb_slab_shrink_ran" not in counters:
        return ""
    ends = at_time(ds["vmstat"].astype("f8"), "end").sel(counter="spb_slab_shrink_ran").values
    ran = ends[(ds["status"].values == OK) & (ends > 0)]
    if len(ran) == 0:
        return "The reason: slab shrink never ran."
    if "spb_slab_shrink_freed" not in counters:
        return ""
    freed = at_time(ds["vmstat"].astype("f8"), "end").sel(counter="spb_slab_shrink_freed")
    if float(freed.max()) > 0:
        return f"Slab shrink ran {_range(ran)} times a run and freed up to {float(freed.max()):,.0f} objects."
    return f"The reason: where slab shrink ran, {_range(ran)} times a run, it freed no object."


def _spread(ds: xr.Dataset) -> str:
    """The points with the fewest and the most tainted superpageblocks."""
    ends, labels = _ends(ds), point_labels(ds)
    low, high = int(np.nanargmin(ends)), int(np.nanargmax(ends))
    if ends[low] == ends[high]:
        return f"On average every point has {format_number(ends[low])} tainted superpageblocks at the end."
    return (
        f"Tainted superpageblocks at the end, on average: fewest {format_number(ends[low])} ({labels[low]}), "
        f"most {format_number(ends[high])} ({labels[high]})."
    )


def _against_baseline(ds: xr.Dataset, base: int) -> str:
    """The point with the fewest tainted superpageblocks, against the baseline."""
    values = outcomes(ds, "tainted_end")
    apart = values - values[base]
    paired = [i for i in range(len(values)) if i != base and np.isfinite(apart[i]).any()]
    if not paired:
        return "No point has a run that can be paired with the baseline."
    change = {i: float(np.nanmean(apart[i])) for i in paired}
    if not any(change.values()):
        return _other(ds, float(np.nanmean(values[base])))
    best = min(paired, key=lambda i: change[i])
    # An interval for each of a hundred thousand points would take longer than their runs.
    table = compare(ds.isel(point=[base, best]), metric="tainted_end").isel(point=0)
    ties = sum(value == change[best] for value in change.values()) - 1
    return f"{_best(point_labels(ds)[best], table, ties)}{_twins(ds, base, paired)}"


def _twins(ds: xr.Dataset, base: int, paired: list[int]) -> str:
    """Points that are as the baseline in all that is judged, and what their slab shrink did; "" if none."""
    twins = [i for i in paired[:TWINS_SOUGHT] if _is_twin(ds, base, i)]
    if not twins:
        return ""
    labels = point_labels(ds)
    named = ", ".join(labels[i] for i in twins[:TWINS_NAMED])
    more = f" and {len(twins) - TWINS_NAMED} more" if len(twins) > TWINS_NAMED else ""
    shrink = _shrink_of(ds, twins)
    return f" As the baseline in every number judged here, replicate by replicate: {named}{more}.{shrink}"


def _is_twin(ds: xr.Dataset, base: int, point: int) -> bool:
    own = ds.isel(point=[base, point])
    return bool((own["status"].values == OK).all()) and nothing_differs(own)


def _shrink_of(ds: xr.Dataset, points: list[int]) -> str:
    """What slab shrink did in some points, where it ran at all."""
    counters = ds["counter"].values.tolist() if "vmstat" in ds.data_vars else []
    names = ["spb_slab_shrink_ran", "spb_slab_shrink_freed"]
    if not set(names) <= set(counters):
        return ""
    own = at_time(ds["vmstat"].isel(point=points).sel(counter=names).astype("f8"), "end")
    ran, freed = (own.sel(counter=name).values for name in names)
    if not float(ran.min()) > 0:
        return ""
    what = "no object" if not freed.any() else f"up to {format_number(float(freed.max()))} objects"
    return f" There slab shrink ran {_range(ran)} times a run and freed {what}."


def _best(label: str, table: xr.Dataset, ties: int) -> str:
    control, value, difference = (float(table[n]) for n in ("control", "value", "difference"))
    change = f"{format_number(abs(difference))} {'fewer' if difference < 0 else 'more'} than"
    if difference == 0:
        change = "as many as"
    more = f"; {ties} other {'point does' if ties == 1 else 'points do'} equally well" if ties else ""
    return (
        f"The point with the fewest tainted superpageblocks at the end ({label}) has {format_number(value)} "
        f"on average, {change} the baseline's {format_number(control)}{_certainty(table)}{more}."
    )


def _certainty(table: xr.Dataset) -> str:
    low, high, n = (float(table[name]) for name in ("ci_low", "ci_high", "pairs"))
    if not np.isfinite(low):
        return f"; {n:.0f} pair, too few for an interval"
    text = f"; 95 % interval of the change {format_number(low)} to {format_number(high)}, {n:.0f} pairs"
    return text + (", which includes no change" if low <= 0 <= high else "")


def _other(ds: xr.Dataset, number: float) -> str:
    """On average as many are tainted everywhere; what differs is something else."""
    apart = [VARIABLES[n].long_name for n in judged(ds) if not alike(ds, n)]
    return (
        "No point differs from the baseline in tainted superpageblocks at the end: "
        f"{format_number(number)} on average in all. What differs: {', '.join(apart)}."
    )
