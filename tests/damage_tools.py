"""Ways in which files are damaged, for tests."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_netcdf
from spbfast.sweep.store.seal import SEAL_BYTES, SEALED


def flip(path: Path, offset: int, nbytes: int = 4) -> None:
    """Invert some bytes in place."""
    content = bytearray(path.read_bytes())
    offset %= max(1, len(content))
    for i in range(offset, min(offset + nbytes, len(content))):
        content[i] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, length: int) -> None:
    os.truncate(path, length % max(1, path.stat().st_size))


def zero(path: Path, offset: int, nbytes: int = 4096) -> None:
    """Zeros in place of what was there, and at least one byte that differs."""
    content = bytearray(path.read_bytes())
    offset %= max(1, len(content))
    end = min(offset + nbytes, len(content))
    if not any(content[offset:end]):
        content[offset:end] = b"\xff" * (end - offset)
    else:
        content[offset:end] = bytes(end - offset)
    path.write_bytes(content)


def make_old(path: Path) -> None:
    """A netCDF file as it was written before there were seals."""
    os.truncate(path, path.stat().st_size - SEAL_BYTES)
    with NETCDF_LOCK, open_netcdf(path, "a") as nc:
        nc.delncattr(SEALED)


def _directory_instead(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("a file in a directory in a file's place")


def _another_instead(path: Path, rng: random.Random) -> None:
    others = [p for p in path.parent.parent.rglob(f"*{path.suffix}") if p != path and p.is_file()]
    if others:
        shutil.copyfile(rng.choice(others), path)
    else:
        path.write_bytes(b"")


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "flipped": lambda path, rng: flip(path, rng.randrange(1 << 30), rng.choice((1, 4, 64))),
    "cut": lambda path, rng: cut(path, rng.randrange(1 << 30)),
    "cut by little": lambda path, rng: cut(path, path.stat().st_size - rng.randrange(1, 40)),
    "zeroed": lambda path, rng: zero(path, rng.randrange(1 << 30)),
    "empty": lambda path, rng: path.write_bytes(b""),
    "longer": lambda path, rng: path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100))),
    "rubbish": lambda path, rng: path.write_bytes(rng.randbytes(path.stat().st_size)),
    "another's": _another_instead,
    "a directory": _directory_instead,
}
