"""Which sources decide what the kernels do, and a hash of them; needs no numba.

Owns the list of those files. The compile cache is named after their hash, versions and settings
(decorators.py); every run of a sweep remembers the hash (sweep/store/origins.py).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]


def kernel_sources(root: Path) -> list[Path]:
    """Files whose text can change compiled code: the decorators, all kernels and what they import."""
    files = [root / name for name in ("constants.py", "live/ring.py", "observed/event_columns.py")]
    for folder in ("jit", "model"):
        files.extend((root / folder).rglob("*.py"))
    return sorted(path for path in files if path.is_file())


def hash_sources(root: Path) -> Any:
    """A hash object over the names and the text of these files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in kernel_sources(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest


@cache
def kernel_hash() -> int:
    """64 bits that tell the kernels' sources of this process from all others; as they were at first use."""
    return int.from_bytes(hash_sources(PACKAGE).digest(), "big")
