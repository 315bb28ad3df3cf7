"""Whether a path names what it should: a file that ends, or a place where one can be written.

Owns the look at a path before it is read or written. A named pipe or a device may keep a reader waiting for
ever, and a run of an hour must not end at a place that could never take its results. Reasons are OSErrors, so
that who opens files hears of them like of any other.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

JSON_LIMIT = 256 << 20  # bytes; a manifest with a history of a thousand configurations has a few million
_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
    (stat.S_ISSOCK, "is a socket"),
)

_NO_NAME = "is no file name: it holds a NUL, or what the file system cannot write"


def _refused(reason: str, path: Path, number: int = errno.EINVAL) -> OSError:
    return OSError(number, reason, str(path))


def _kind(mode: int) -> str:
    """What a path is instead of a plain file; empty if it is one."""
    return next((text for test, text in _KINDS if test(mode)), "")


def as_path(given: object) -> Path:
    """The path that somebody gave, which may or may not exist.

    Raises
    ------
    OSError
        When it is no path, or one that the file system cannot even look for, such as one with a name of 300
        characters.
    """
    if not isinstance(given, str | os.PathLike):
        raise OSError(errno.EINVAL, "must be the path of a file or directory", type(given).__name__)
    path = Path(given)
    try:
        path.lstat()
        if path.is_symlink():
            path.stat()  # links in a circle end here
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except ValueError:
        raise _refused(_NO_NAME, path) from None
    return path


def open_to_read(path: Path) -> BufferedReader:
    """Open a plain file.

    Raises
    ------
    OSError
        When it is something else, which may never end, or cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:
        raise _refused(_NO_NAME, path) from None
    except FileNotFoundError:
        if path.is_symlink():
            raise _refused(
                f"is a link to {os.readlink(path)}, which does not exist", path, errno.ENOENT
            ) from None
        raise
    if kind := _kind(os.fstat(handle).st_mode):
        os.close(handle)
        raise _refused(f"{kind}, not a file; save what it holds to a file first", path)
    return open(handle, "rb")


def check_readable(path: Path) -> None:
    """As `open_to_read`, for those who let a library open the file."""
    open_to_read(path).close()


def read_whole(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes.

    Raises
    ------
    OSError
        When it is larger, no plain file, or cannot be read.
    """
    with open_to_read(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise _refused(f"has more than {limit >> 20} MiB, which is not what belongs here", path, errno.EFBIG)
    return data


def read_json_file(path: Path) -> Any:
    """What a plain file holds as JSON.

    Raises
    ------
    OSError
        When it is very large, no plain file, or cannot be read.
    ValueError
        When it is no JSON, or nested deeper than this program ever writes.
    """
    return parsed_json(read_whole(path, JSON_LIMIT))


def parsed_json(text: str | bytes) -> Any:
    """JSON of somebody else's; raises ValueError when it is none, or nested beyond sense."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def check_writable(path: Path, *, directory: bool = False) -> None:
    """Whether a file, or a directory, can be made or replaced at a path; nothing is changed.

    Raises
    ------
    OSError
        With the reason.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = 0
    except ValueError:
        raise _refused(_NO_NAME, path) from None
    if stat.S_ISLNK(mode):
        if not path.exists():
            raise _refused(f"is a link to {os.readlink(path)}, which does not exist; remove the link", path)
        mode = path.stat().st_mode
    kind = _kind(mode) if mode else ""
    if kind and not (directory and stat.S_ISDIR(mode)):
        raise _refused(f"{kind}; give the name of a {'directory' if directory else 'file'}", path)
    if mode and directory and not kind:
        raise _refused("is a file; give the name of a directory", path)
    _check_parent(path, inside=directory and bool(mode))


def _check_parent(path: Path, *, inside: bool) -> None:
    """Whether something can be made in a path's directory, or in the path itself."""
    home = path if inside else path.parent
    if not home.exists():
        raise _refused(f"the directory {home} does not exist", path, errno.ENOENT)
    if not home.is_dir():
        raise _refused(f"{home} is not a directory", path, errno.ENOTDIR)
    if os.access(home, os.W_OK | os.X_OK):
        return
    if os.statvfs(home).f_flag & os.ST_RDONLY:
        raise _refused(f"{home} is on a read-only file system; choose another place", path, errno.EROFS)
    raise _refused(f"{home} may not be written; choose a directory of your own", path, errno.EACCES)
