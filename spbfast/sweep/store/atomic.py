"""Files that are either whole or absent.

Owns atomic writing: private temporary name, fsync, rename, fsync of the directory. Knows nothing of sweeps.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError, StorageError
from spbfast.places import read_json_file

FULL_BYTES = 1 << 18
LONGEST_NAME = 60  # of what a temporary name repeats: file systems end names at 255 bytes
_FULL = "no space left on the disk"
_AGAIN = "and give the same command again, what is done is kept"
_ADVICE = {
    _FULL: f"; free some {_AGAIN}",
    "Permission denied": "; choose a directory of your own with -o",
    "Read-only file system": "; choose another place with -o",
    "Disk quota exceeded": f"; free some space {_AGAIN}",
}
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{32}\.tmp")


def hostname() -> str:
    """Name of this machine, safe inside a file name."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in socket.gethostname()) or "host"


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reason(error: OSError | RuntimeError, directory: Path) -> str:
    """Why writing failed; the netCDF library reports a full disk as anything but that."""
    with contextlib.suppress(OSError):
        disk = shutil.disk_usage(directory)
        if disk.total and disk.free < FULL_BYTES:  # /proc and its like have no size at all
            return _FULL
    if getattr(error, "errno", None) == errno.ENOSPC:
        return _FULL
    return getattr(error, "strerror", None) or str(error)


def write_failed(error: OSError | RuntimeError, path: Path, what: str = "cannot write") -> StorageError:
    """The error for a file or directory that cannot be written, with its reason and what to do."""
    here = path.parent
    with contextlib.suppress(OSError):  # a name may be too long to be looked at
        here = path if path.is_dir() else path.parent
    reason = _reason(error, here)
    return StorageError(f"{what}: {reason}{_ADVICE.get(reason, '')}", path)


def temporary_name(final: Path) -> Path:
    """A private name beside a file, which `remove_leftovers` knows.

    Host and a random part belong to it because process ids repeat between machines that share a file system.
    """
    return final.with_name(
        f".{final.name[:LONGEST_NAME]}.{hostname()[:LONGEST_NAME]}.{os.getpid()}.{uuid.uuid4().hex}.tmp"
    )


@contextlib.contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
    """Give a temporary path beside `final`; on success it becomes `final`, on error it vanishes.

    Raises
    ------
    StorageError
        When the directory cannot be written (full, read-only, gone).
    """
    tmp = temporary_name(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        fsync_path(tmp)
        os.replace(tmp, final)
        fsync_path(final.parent)
    except (OSError, RuntimeError) as err:
        raise write_failed(err, final) from err
    finally:
        with contextlib.suppress(OSError):
            tmp.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (UTF-8); bytes of a file name that are no text become their codes."""
    with atomic_file(path) as tmp:
        tmp.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the given order."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    ResultsError
        When the file cannot be read or is not JSON.
    """
    try:
        return read_json_file(path)
    except (OSError, ValueError) as err:
        raise ResultsError(f"cannot read: {getattr(err, 'strerror', None) or err}", path) from err


def is_leftover(path: Path) -> bool:
    """Whether a file is a temporary file of this module."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_leftovers(directory: Path) -> int:
    """Delete temporary files of killed writers, and count them; only for the owner of the directory."""
    n = 0
    for tmp in filter(is_leftover, directory.rglob(".*.tmp")):
        with contextlib.suppress(OSError):
            tmp.unlink()
            n += 1
    return n
