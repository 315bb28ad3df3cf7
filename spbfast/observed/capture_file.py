"""The file that `spbfast capture` writes: chunks of JSON and of event columns, each packed and checked.

Owns the container: magic, version, chunks with tag, lengths and checksum. A chunk is complete or the file is
cut there; what came before stays readable. What the columns mean is in event_columns.py. Nothing in the file
is code, and no length in it is trusted.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from spbfast.errors import DumpError
from spbfast.observed.textlines import open_regular
from spbfast.places import parsed_json

CAPTURE_MAGIC = b"spbfast capture\n"
CAPTURE_VERSION = 1
_PROLOG = struct.Struct("<16sI")
_CHUNK = struct.Struct("<4sIII")  # tag, packed bytes, bytes, checksum of the packed bytes
MAX_CHUNK = 1 << 26
HEAD, SNAPSHOT, BLOCKS, PAGES, EVENTS, LOST, DONE = (
    b"HEAD",
    b"SNAP",
    b"PBLK",
    b"PAGE",
    b"EVTS",
    b"LOST",
    b"DONE",
)
TAGS = (HEAD, SNAPSHOT, BLOCKS, PAGES, EVENTS, LOST, DONE)


def is_capture(head: bytes) -> bool:
    """Whether a file's beginning is that of a capture."""
    return head.startswith(CAPTURE_MAGIC)


def write_prolog(file: BinaryIO) -> None:
    """Begin a capture."""
    file.write(_PROLOG.pack(CAPTURE_MAGIC, CAPTURE_VERSION))


def write_chunk(file: BinaryIO, tag: bytes, data: bytes, level: int = 1) -> int:
    """Append a chunk; the bytes that it takes in the file.

    Raises
    ------
    ValueError
        When the data are more than a chunk may hold.
    """
    if len(data) > MAX_CHUNK:
        raise ValueError(f"a chunk may have {MAX_CHUNK} bytes, got {len(data)}")
    packed = zlib.compress(data, level)
    file.write(_CHUNK.pack(tag, len(packed), len(data), zlib.crc32(packed)))
    file.write(packed)
    return _CHUNK.size + len(packed)


def json_chunk(value: Any) -> bytes:
    """A value as the bytes of a JSON chunk."""
    return json.dumps(value, separators=(",", ":")).encode()


def read_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Tag and data of every chunk, in the order of the file; the tag is empty where the file is cut.

    Raises
    ------
    DumpError
        When the file is no capture, is of another version, or a chunk is damaged.
    """
    with open_regular(path) as file:
        prolog = file.read(_PROLOG.size)
        if len(prolog) < _PROLOG.size or not is_capture(prolog):
            raise DumpError(path, 0, "is no capture of spbfast")
        version = _PROLOG.unpack(prolog)[1]
        if version != CAPTURE_VERSION:
            text = f"is a capture of version {version}; this spbfast reads version {CAPTURE_VERSION}"
            raise DumpError(path, 0, text)
        while head := file.read(_CHUNK.size):
            at = file.tell() - len(head)
            chunk = _read_chunk(path, file, head, at)
            yield chunk
            if not chunk[0]:
                return


def _read_chunk(path: Path, file: BinaryIO, head: bytes, at: int) -> tuple[bytes, bytes]:
    if len(head) < _CHUNK.size:
        return b"", b""
    tag, nr_packed, nr, check = _CHUNK.unpack(head)
    if tag not in TAGS or max(nr_packed, nr) > MAX_CHUNK + (MAX_CHUNK >> 8):
        raise DumpError(path, 0, f"no chunk of a capture begins at byte {at}; the file is damaged")
    packed = file.read(nr_packed)
    if len(packed) < nr_packed:
        return b"", b""
    if zlib.crc32(packed) != check:
        raise DumpError(path, 0, f"the chunk at byte {at} has other bytes than were written")
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, nr + 1)
    except zlib.error:
        data = b""
    if len(data) != nr or unpacker.unconsumed_tail:
        raise DumpError(path, 0, f"the chunk at byte {at} does not unpack to the length that it names")
    return tag, data


def json_mapping(path: Path, data: bytes) -> dict[str, Any]:
    """The mapping in a JSON chunk.

    Raises
    ------
    DumpError
        When it is no mapping as JSON.
    """
    try:
        value = parsed_json(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DumpError(path, 0, "a chunk that should hold a mapping as JSON does not")
    return value
