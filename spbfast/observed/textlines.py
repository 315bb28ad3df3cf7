"""Lines of a file, one by one, within limits.

Owns the opening of files and the limit on a line's length. Knows no format. A file is never held as a whole:
traces may be larger than memory.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from spbfast.errors import DumpError

LINE_LIMIT = 1 << 16
HEAD_BYTES = 1 << 16
CHUNK = 1 << 18


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read; a pipe, a device or a directory is refused, because it may never end.

    Raises
    ------
    DumpError
        When it is no file or cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DumpError(path, 0, f"cannot be opened ({reason}); give a file that can be read") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DumpError(path, 0, "is no plain file; save the text to a file first")
    return os.fdopen(handle, "rb")


def head_of_file(path: Path) -> bytes:
    """The first 64 KiB.

    Raises
    ------
    DumpError
        When the file cannot be read or is empty.
    """
    with open_regular(path) as file:
        try:
            head = file.read(HEAD_BYTES)
        except OSError as error:
            raise DumpError(path, 0, f"cannot be read ({error.strerror})") from None
    if not head.strip():
        raise DumpError(path, 0, "is empty; expected a dump or a trace of a Linux kernel")
    return head


def text_encoding(head: bytes) -> str:
    """UTF-16 where a byte order mark says so, else UTF-8."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"


def physical_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1, without line ends; bytes that are no text become U+FFFD.

    Raises
    ------
    DumpError
        When a line is longer than `LINE_LIMIT`, or the file cannot be read.
    """
    number = 0
    rest = ""
    try:
        for piece in _decoded(path, encoding):
            lines = (rest + piece).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            rest = lines.pop()
            for line in lines:
                number += 1
                check_length(path, number, line)
                yield number, line
            check_length(path, number + 1, rest)
    except OSError as error:
        raise DumpError(path, number, f"cannot be read on ({error.strerror})") from None
    if rest:
        yield number + 1, rest


def ends_with_newline(path: Path) -> bool:
    """Whether the last line is whole."""
    with open_regular(path) as file:
        if not file.seekable() or file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) in (b"\n", b"\r", b"\0")


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    """Text in pieces that never end between CR and LF."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    held = ""
    with open_regular(path) as file:
        while raw := file.read(CHUNK):
            text = held + decoder.decode(raw)
            held = "\r" if text.endswith("\r") else ""
            yield text[: len(text) - len(held)]
    yield held + decoder.decode(b"", final=True)


def check_length(path: Path, number: int, line: str) -> None:
    """Refuse a line that no dump and no trace has.

    Raises
    ------
    DumpError
        When it is longer than `LINE_LIMIT`.
    """
    if len(line) > LINE_LIMIT:
        raise DumpError(
            path,
            number,
            f"line is longer than {LINE_LIMIT} characters; dumps and traces have lines of some hundred",
        )
