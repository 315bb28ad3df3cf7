"""Films and captures made by hand for tests of the memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spbfast.constants import PB_PAGES, SpbCategory
from spbfast.observed import capture_file as container
from spbfast.observed.page_classes import NR_PAGE_CLASSES, PageClass
from spbfast.results.memorymap.films import SPB_COLUMNS, Film, FilmZone


def made_film(
    frames: int = 30,
    nr_spb: int = 6,
    per_spb: int = 8,
    *,
    title: str = "a run",
    seed: int = 1,
    share: float = 0.1,
    zones: int = 1,
    span: float | None = None,
) -> Film:
    """A film of which a share of all pageblocks changes from frame to frame."""
    rng = np.random.default_rng(seed)
    nr = nr_spb * per_spb * zones
    what = np.empty((frames, nr), np.uint8)
    room = np.empty((frames, nr), np.uint8)
    what[0], room[0] = rng.integers(0, 8, nr) | 1 << 5, rng.integers(0, 128, nr)
    for k in range(1, frames):
        what[k], room[k] = what[k - 1], room[k - 1]
        at = rng.integers(0, nr, int(share * nr))
        room[k, at] = room[k, at] & 0x70 | rng.choice([0, 15], len(at))
        what[k, at[: len(at) // 50]] = rng.integers(0, 8, len(at) // 50) | 1 << 5
    spbs = {name: rng.integers(0, per_spb, (frames, nr_spb * zones)).astype(np.int32) for name in SPB_COLUMNS}
    spbs["category"] = rng.integers(0, 3, (frames, nr_spb * zones)).astype(np.int32)
    tainted = (spbs["category"] == SpbCategory.TAINTED).sum(axis=1).astype(float)
    return Film(
        title=title,
        zones=[FilmZone(f"zone{z}", (z + 1) << 20, nr_spb, per_spb) for z in range(zones)],
        times=np.linspace(0, frames - 1 if span is None else span, frames),
        what=what,
        room=room,
        spbs=spbs,
        facts=[("policy", "v1@30")],
        gauges={"spb_tainted": tainted, "spb_clean": 6 - tainted, "spb_empty": 0 * tainted},
        counters={
            "taints_steal_fallback": np.cumsum(rng.integers(0, 2, frames)).astype(float),
            "taints_boot": np.full(frames, 3.0),
            "taints_by_atomic": np.arange(frames, dtype=float),
            "spb_slab_shrink_ran": np.zeros(frames),
        },
    )


def made_capture(
    path: Path,
    *moments: str,
    blocks: bool = True,
    unplugged: int = 0,
    managed: int | None = None,
    **about: object,
) -> Path:
    """A capture of 1 GiB and a half: a kernel area, an area of files that shrinks, absent pageblocks.

    The last `unplugged` pageblocks have pages without any flag, and /proc/zoneinfo counts `managed` pages.
    """
    with open(path, "wb") as file:
        container.write_prolog(file)
        head = {"kernel": "6.18.0", "machine": "x86_64", "events": []}
        container.write_chunk(file, container.HEAD, container.json_chunk(head))
        for k, moment in enumerate(moments if blocks else ()):
            counts = np.zeros((768, NR_PAGE_CLASSES), "<u2")
            counts[:, PageClass.FREE] = PB_PAGES
            counts[:2] = 0
            counts[0, PageClass.SLAB] = PB_PAGES
            counts[1, PageClass.RESERVED] = PB_PAGES
            counts[768 - unplugged :] = 0
            counts[768 - unplugged :, PageClass.OTHER] = PB_PAGES
            if managed is not None:
                text = f"Node 0, zone   Normal\n  pages free     1\n        managed  {managed}\n"
                shot = {"moment": moment, "texts": {"/proc/zoneinfo": text}}
                container.write_chunk(file, container.SNAPSHOT, container.json_chunk(shot))
            counts[512:600, PageClass.FREE] = 256 * k
            counts[512:600, PageClass.PAGE_CACHE] = PB_PAGES - 256 * k
            told = {"moment": moment, "node": 0, "zone": "Normal", "pageblock_pages": PB_PAGES}
            told |= {"first_pageblock": 2048, "start_ns": 10**9 * (1 + k)} | about
            data = container.json_chunk(told) + b"\n" + counts.tobytes()
            container.write_chunk(file, container.BLOCKS, data)
    return path
