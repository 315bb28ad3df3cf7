"""What a slab shrink of the running kernel frees, and which slab pages come back.

Owns the tree of files, the two ways of shrinking and the counting by /proc/slabinfo. The tree lies in a
folder of its own and is removed; memory is made short by page cache of a file that is one hole.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.live_hog import meminfo_bytes

PER_FOLDER = 100
READ = 1 << 20
FULL = 0.03  # of memory is free when page cache fills it
LOOK_S = 0.5
_ROW = re.compile(r"^(\S+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+) .*slabdata\s+(\d+)\s+(\d+)", re.M)


@dataclass(frozen=True)
class Cache:
    """A slab cache by its row of /proc/slabinfo."""

    active: int
    objects: int
    object_bytes: int
    per_slab: int
    pages_per_slab: int
    slabs: int

    @property
    def pages(self) -> int:
        """Of all its slabs."""
        return self.slabs * self.pages_per_slab


def caches_of(text: str) -> dict[str, Cache]:
    """Slab caches by name, from the text of /proc/slabinfo."""
    out = {}
    for name, active, objects, size, per_slab, pages, _, slabs in _ROW.findall(text):
        out[name] = Cache(*map(int, (active, objects, size, per_slab, pages, slabs)))
    return out


def read_caches() -> dict[str, Cache]:
    """The running kernel's."""
    return caches_of(Path("/proc/slabinfo").read_text(encoding="ascii"))


def make_tree(folder: Path, files: int) -> None:
    """Empty files, `PER_FOLDER` to a folder: each has one inode and one dentry."""
    for first in range(0, files, PER_FOLDER):
        below = folder / f"d{first // PER_FOLDER}"
        below.mkdir()
        for number in range(first, min(first + PER_FOLDER, files)):
            os.close(os.open(below / f"f{number}", os.O_CREAT | os.O_WRONLY))


def look_up(folder: Path) -> None:
    """Look every file up once."""
    for top in os.scandir(folder):
        for entry in os.scandir(top.path):
            os.stat(entry.path)


def drop_slab() -> None:
    """Shrink all dentries and inodes that nobody uses (vm.drop_caches 2)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2", encoding="ascii")


def fill_with_cache(folder: Path, beyond: int, look: Callable[[], None]) -> None:
    """Read a hole until memory is full of page cache, and `beyond` bytes more; then `look` now and then."""
    path, size = folder / "hole", 4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open(path, "wb") as file:
        file.truncate(size)
    try:
        with open(path, "rb", buffering=0) as file:
            _read_on(file.fileno(), size, beyond, look)
    finally:
        path.unlink()


def _read_on(file: int, size: int, beyond: int, look: Callable[[], None]) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left, looked = -1, 0.0
    for at in range(0, size, READ):
        os.posix_fadvise(file, at, READ, os.POSIX_FADV_WILLNEED)
        if left < 0 and at % (64 * READ) == 0 and meminfo_bytes("MemFree") < FULL * total:
            left = beyond
        if left >= 0:
            left -= READ
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                look()
            if left < 0:
                return
    raise OSError(f"memory was not full after {size} bytes")


def made(before: Mapping[str, Cache], after: Mapping[str, Cache], names: list[str]) -> dict[str, dict]:
    """By cache: objects and slab pages that a tree brought."""
    return {
        name: {
            "objects": after[name].active - before[name].active,
            "pages": after[name].pages - before[name].pages,
        }
        for name in names
    }


def came_back(before: Mapping[str, Cache], after: Mapping[str, Cache], names: list[str]) -> dict[str, dict]:
    """By cache: objects and slab pages freed between two looks, and what is left of each."""
    out = {}
    for name in names:
        first, last = before[name], after[name]
        objects, pages = first.active - last.active, first.pages - last.pages
        out[name] = {
            "objects": objects,
            "pages": pages,
            "all_objects": first.active,
            "all_pages": first.pages,
            "kept_objects": last.active / first.active,
            "kept_pages": last.pages / first.pages,
            "pages_packed": first.pages_per_slab / first.per_slab,
        }
    return out
