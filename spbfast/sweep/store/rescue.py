"""Files that a run of hours is for: the place is tried before, and another one is taken if it fails later.

Owns the trial and the places of last resort. Writing itself is in atomic.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from spbfast.errors import StorageError
from spbfast.places import check_writable
from spbfast.sweep.store.atomic import FULL_BYTES, temporary_name, write_failed

WRONG_NAMES = (errno.EINVAL, errno.ENOENT, errno.ENOTDIR)


def try_place(path: Path) -> None:
    """Find out whether a file can be written, leaving nothing.

    Raises
    ------
    ValueError
        When the name is that of something else, or of a file in a directory that does not exist.
    StorageError
        When it cannot be written: the disk is full or read-only, the name is too long.
    """
    try:
        _check_name(path)
        _try_to_write(temporary_name(path))
    except OSError as error:
        reason = write_failed(error, path).message.partition(";")[0]
        raise StorageError(f"{reason}; name another place, or make room there", path) from error


def _check_name(path: Path) -> None:
    try:
        check_writable(path)
    except OSError as error:
        if error.errno in WRONG_NAMES:
            raise ValueError(error.strerror) from None
        raise


def _try_to_write(trial: Path) -> None:
    try:
        trial.write_bytes(bytes(FULL_BYTES))
        _flush(trial)
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


def _flush(path: Path) -> None:
    # Some file systems find out that a disk is full only when they write.
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def write_or_rescue(path: Path, write: Callable[[Path], object], what: str) -> None:
    """Write a file; if that fails, write it to another place and say where.

    Raises
    ------
    StorageError
        When the file could not be written; its message names the place where `what` is now.
    """
    try:
        write(path)
    except StorageError as error:
        for other in _elsewhere(path):
            try:
                write(other)
            except StorageError:
                continue
            reason = error.message.partition(";")[0]  # what to do about it is done
            raise StorageError(f"{reason}; {what} in {other}", path) from error
        raise


def _elsewhere(path: Path) -> Iterator[Path]:
    """Names that nobody has yet, in places where a file can usually be written."""
    folders = [Path(tempfile.gettempdir()), Path.cwd(), Path(os.path.expanduser("~"))]
    for folder in folders:
        yield folder / f"{path.stem[:100]}-{os.getpid()}-{os.urandom(3).hex()}{path.suffix[:20]}"
