"""Standard output and error, whatever they are connected to: a full disk, a dead pipe, nothing at all.

Owns what becomes of text that cannot be written. What goes to standard error is for people and is dropped;
the work goes on. What goes to standard output may be all that a command is for, so losing it ends the
command, with an exit code and a line, unless the command says that its results are elsewhere. File names are
written as the bytes that they are, in any locale.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from spbfast.errors import StorageError

EXIT_PIPE = 141
_ERRORS = "spbfast-names"


class LostOutputError(Exception):
    """Standard output cannot be written any more."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


class _Descriptor(io.RawIOBase):
    """A file descriptor for writing that turns into /dev/null when it fails.

    Parameters
    ----------
    fd : int
    is_vital : bool
        Raise LostOutputError when that happens.
    """

    def __init__(self, fd: int, is_vital: bool) -> None:
        self.fd, self.is_vital = fd, is_vital

    def fileno(self) -> int:
        return self.fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self.fd)

    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self.fd, data)
            except BlockingIOError:  # whoever reads has made the pipe a non-blocking one
                select.select([], [self.fd], [])
            except OSError as error:
                _to_nowhere(self.fd)
                if self.is_vital:
                    raise LostOutputError(error) from error
                return len(data)


def _to_nowhere(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)


def _name_bytes(error: UnicodeError) -> tuple[bytes | str, int]:
    """For a character that the encoding lacks: the byte of a file name that it stands for, or an escape."""
    assert isinstance(error, UnicodeEncodeError)
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return char.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error(_ERRORS, _name_bytes)


def _encoding(stream: TextIO | None) -> str:
    """A stream's encoding; what claims to be ASCII is usually a locale that nobody has set."""
    name = getattr(stream, "encoding", None) or "utf-8"
    try:
        return "utf-8" if codecs.lookup(name).name == "ascii" else name
    except LookupError:
        return "utf-8"


def _open_closed_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed, or the next open file takes its place."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        fd = os.dup(fd)
    os.close(fd)


def guard_streams() -> None:
    """Take over the streams of this process, unless somebody else, such as a test, already has."""
    _open_closed_descriptors()
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__") or isinstance(_raw(stream), _Descriptor):
            continue
        with contextlib.suppress(OSError, ValueError):
            if stream is None or stream.fileno() == fd:
                setattr(sys, name, _guarded(stream, fd))


def _guarded(stream: TextIO | None, fd: int) -> TextIO:
    raw = _Descriptor(fd, is_vital=fd == 1)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=_encoding(stream),
        errors=_ERRORS,
        line_buffering=fd == 2 or raw.isatty(),
    )
    text.mode = "w"  # type: ignore[misc]
    return text


def _raw(stream: Any) -> Any:
    return getattr(getattr(stream, "buffer", None), "raw", None)


@contextlib.contextmanager
def results_elsewhere() -> Iterator[None]:
    """What is printed here is good to know, but not what the command is for."""
    try:
        yield
        sys.stdout.flush()
    except LostOutputError:
        return


def exit_code_for_lost_output(lost: LostOutputError) -> int:
    """Say why standard output is gone, unless its reader has simply had enough; the exit code."""
    if lost.error.errno == errno.EPIPE:
        return EXIT_PIPE
    text = lost.error.strerror or str(lost.error)
    print(f"spbfast: error: standard output cannot be written: {text}", file=sys.stderr)
    return StorageError.exit_code


def flush_code(code: int) -> int:
    """The exit code once everything is written: another one if that fails at the last moment."""
    try:
        sys.stdout.flush()
    except LostOutputError as lost:
        return code or exit_code_for_lost_output(lost)
    return code
