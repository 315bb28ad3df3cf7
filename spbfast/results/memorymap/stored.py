"""Films of result files: superpageblocks by their counts, where places were not recorded.

Owns the tiles that are made of counts. A file with output level `spb` knows of each superpageblock how many
pageblocks are free and how many have each mark, not which ones: the tiles show them in order of content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spbfast.constants import MOVABLE, PB_PAGES, RECLAIMABLE, UNMOVABLE, Mt, SpbCategory
from spbfast.errors import QuestionError, ResultsError
from spbfast.results.memorymap.films import MOST_FRAMES, Film, FilmZone, gauges_at, spb_columns
from spbfast.sweep.store.netcdf import open_as_dataset
from spbfast.tiles import pageblocks as tiles

LACKS = (
    "Made from counts: the file knows how many pageblocks of a superpageblock are free or have each mark, "
    "not which. A tile shows them in order of content; where marks overlap they are drawn as mixed, as few "
    "as can be, and what is free in partly used pageblocks is spread evenly. Filming the run anew shows the "
    "places: spbfast map CONFIG, or spbfast map DIR."
)
_U, _M, _R = 1 << UNMOVABLE, 1 << MOVABLE, 1 << RECLAIMABLE
# Parts of a tile in their order: what is in use in each.
_PARTS = (_U, _R, _U | _M, _R | _M, _M, 0)
NEEDED = ("spb_category", "spb_free", "spb_free_pages", "spb_content", "spb_pinned_pages")


def film_of_file(path: Path, point: int = 0, replicate: int = 0) -> Film:
    """One run of a file that `spbfast run -o` or a sweep wrote.

    Parameters
    ----------
    point : int
        Place of the point in the file, where it has several.

    Raises
    ------
    ResultsError
        When the file cannot be read, or superpageblocks were not recorded.
    """
    try:
        whole = open_as_dataset(path)
    except (OSError, ValueError) as err:
        raise ResultsError(f"cannot read: {err}", path) from err
    with whole:
        if missing := [name for name in NEEDED if name not in whole.data_vars]:
            raise ResultsError(
                f"holds no superpageblocks over time ({missing[0]}): record them with "
                "--set output.level=spb, or film the run anew: spbfast map CONFIG",
                path,
            )
        ds = _one_run(whole, path, point, replicate)
        return _film_of(ds, path, f"{path.name}, replicate {replicate}")


def _one_run(ds: Any, path: Path, point: int, replicate: int) -> Any:
    for name, number in (("point", point), ("replicate", replicate)):
        nr = ds.sizes.get(name, 1)
        if not 0 <= number < nr:
            raise QuestionError(f"there is no {name} {number}; there are 0..{nr - 1}", path)
    return ds.isel({n: i for n, i in (("point", point), ("replicate", replicate)) if n in ds.sizes})


def _film_of(ds: Any, path: Path, title: str) -> Film:
    nr_time = ds.sizes["time"]
    at = np.arange(0, nr_time, -(-nr_time // MOST_FRAMES))
    data = {name: _whole(ds[name].values) for name in (*NEEDED, *_kept(ds))}
    nr_spb = (data["spb_free"] >= 0).any(axis=2).sum(axis=1)
    if not nr_spb.any():
        raise ResultsError("the run has no results: it failed or was not done", path)
    names = [str(name) for name in ds["zone"].values]
    columns = spb_columns(data, nr_spb.tolist(), at)
    per_spb = _pageblocks(columns)
    frames = [counted_contents(columns, k, per_spb) for k in range(len(at))]
    counters = {}
    if "vmstat" in ds:
        values = ds["vmstat"].transpose("counter", "time").values[:, at].astype(float)
        counters = dict(zip(map(str, ds["counter"].values), values, strict=True))
    return Film(
        title=title,
        zones=[FilmZone(n, 0, int(k), per_spb) for n, k in zip(names, nr_spb, strict=True) if k],
        times=ds["time"].values[at].astype(float),
        what=np.stack([frame.what for frame in frames]),
        room=np.stack([frame.room for frame in frames]),
        spbs=columns,
        facts=[(key, str(ds.attrs[key])) for key in ("seed", "model_version") if key in ds.attrs],
        gauges=gauges_at(data, at),
        counters=counters,
        views=("content", "free", "stranded"),
        notes=[LACKS],
    )


def _kept(ds: Any) -> list[str]:
    from spbfast.results.memorymap.films import GAUGES

    return [name for name in (*GAUGES, "free_pages") if name in ds.data_vars]


def _whole(values: np.ndarray) -> np.ndarray:
    """Integers, -1 for what is missing."""
    return np.nan_to_num(np.asarray(values, float), nan=-1).astype(np.int64)


def _pageblocks(columns: dict[str, np.ndarray]) -> int:
    """Pageblocks of a superpageblock: the power of two that the largest counts need."""
    most = max(int(columns[name].max()) for name in ("free", "unmovable", "movable", "reclaimable"))
    return 1 << max(most - 1, 1).bit_length()


def counted_contents(columns: dict[str, np.ndarray], frame: int, per_spb: int) -> tiles.Contents:
    """Tiles of one frame, from counts of each superpageblock."""
    own = {name: values[frame].astype(np.int64) for name, values in columns.items()}
    free = own["free"].clip(0, per_spb)
    parts = np.stack([*parts_of(own, per_spb - free), free])
    ends = np.cumsum(parts, axis=0)
    place = np.arange(per_spb)
    part = (place >= ends[:-1, :, None]).sum(axis=0)
    what = np.array(_PARTS, np.uint8)[part]
    in_use = np.maximum(per_spb - free, 1)
    loose = (own["free_pages"] - free * PB_PAGES).clip(0) // in_use
    level = tiles.room_level(np.minimum(loose, PB_PAGES - 1))[:, None]
    room = np.where(what == 0, tiles.ALL_FREE, level).astype(np.uint8)
    held = own["category"] == SpbCategory.ISOLATED
    what[held], room[held] = tiles.HELD, 0
    absent = own["category"] < 0
    what[absent], room[absent] = tiles.NO_MEMORY << tiles.LABEL_SHIFT, 0
    return tiles.Contents(what.reshape(-1), room.reshape(-1))


def parts_of(own: dict[str, np.ndarray], in_use: np.ndarray) -> list[np.ndarray]:
    """Pageblocks by content in the order of the tile, free ones aside: with as few mixed ones as can be."""
    kinds = [own[Mt(mt).name.lower()].clip(0) for mt in (UNMOVABLE, MOVABLE, RECLAIMABLE)]
    unmovable, movable, reclaimable = kinds
    overlap = (unmovable + movable + reclaimable - in_use).clip(0)
    mixed_u = np.minimum(overlap, np.minimum(movable, unmovable))
    mixed_r = np.minimum(overlap - mixed_u, np.minimum(movable - mixed_u, reclaimable))
    only_u, only_r = unmovable - mixed_u, reclaimable - mixed_r
    rest = in_use - only_u - only_r - mixed_u - mixed_r
    return [only_u, only_r, mixed_u, mixed_r, rest.clip(0)]
