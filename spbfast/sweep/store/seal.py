"""Seals: a digest at the end of a file, by which damage is noticed before anything in the file is believed.

Owns the seal's form: 16 bytes that name it and 16 of a digest over the file's purpose and content. It
follows the end of the netCDF file, where readers of netCDF do not look. The purpose (which batch, or what
kind of file) makes a file that took another one's place as bad as a damaged one. Files from before there were
seals have none; those that should have one say so in the attribute `sealed`, so that a cut one is not taken
for an old one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.places import open_to_read
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_netcdf

MARK = b"spbfast seal 1\r\n"
DIGEST_BYTES = 16
SEAL_BYTES = len(MARK) + DIGEST_BYTES
SEALED = "sealed"
_PIECE = 1 << 20


def _hasher(purpose: str) -> Any:
    return hashlib.blake2b(f"{purpose}\0".encode(), digest_size=DIGEST_BYTES)


@contextmanager
def sealed_netcdf(path: Path, purpose: str) -> Iterator[Any]:
    """A new netCDF file, open for writing; it appears whole and sealed, or not at all.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    with atomic_file(path) as tmp:
        with NETCDF_LOCK, open_netcdf(tmp, "w") as nc:
            nc.setncattr(SEALED, 1)
            yield nc
        seal_file(tmp, purpose)


def seal_file(path: Path, purpose: str) -> None:
    """Put a seal at the end of a finished file."""
    hasher = _hasher(purpose)
    with open(path, "r+b") as f:
        while piece := f.read(_PIECE):
            hasher.update(piece)
        f.write(MARK + hasher.digest())


def has_good_seal(path: Path, purpose: str) -> bool:
    """Whether a file is sealed; False for one without a seal, which may be old.

    Raises
    ------
    ResultsError
        When the file is not what was sealed, or cannot be read.
    """
    hasher = _hasher(purpose)
    try:
        with open_to_read(path) as f:
            left = os.fstat(f.fileno()).st_size - SEAL_BYTES
            f.seek(max(0, left))
            seal = f.read(SEAL_BYTES)
            if not _is_seal(seal):
                return False
            f.seek(0)
            while left > 0 and (piece := f.read(min(_PIECE, left))):
                hasher.update(piece)
                left -= len(piece)
    except OSError as err:
        raise ResultsError(f"cannot read: {err.strerror}", path) from err
    return _judge(seal, hasher, path)


def read_sealed(path: Path, purpose: str) -> tuple[bytes, bool]:
    """The content of a file without its seal, and whether it has one.

    Raises
    ------
    ResultsError
        As for `has_good_seal`.
    """
    try:
        with open_to_read(path) as f:
            content = f.read()
    except OSError as err:
        raise ResultsError(f"cannot read: {err.strerror}", path) from err
    seal = content[-SEAL_BYTES:]
    if not _is_seal(seal):
        return content, False
    hasher = _hasher(purpose)
    hasher.update(memoryview(content)[:-SEAL_BYTES])
    return content[:-SEAL_BYTES], _judge(seal, hasher, path)


def refuse_lost_seal(nc: Any, path: Path) -> None:
    """Raise ResultsError when an open file without a seal says that it was sealed."""
    if SEALED in nc.ncattrs():
        raise ResultsError("is damaged: it is cut short, or another program wrote it: its seal is gone", path)


def _is_seal(seal: bytes) -> bool:
    return len(seal) == SEAL_BYTES and seal.startswith(MARK)


def _judge(seal: bytes, hasher: Any, path: Path) -> bool:
    if seal[len(MARK) :] != hasher.digest():
        raise ResultsError("is damaged: its content does not match its digest", path)
    return True
