"""Named arrays in one file: a head of plain JSON and the arrays' bytes, packed in parts.

Owns the format of saved states: its version, its packing and the errors of files that are no such thing, cut
short or damaged. Knows no machine; model/saved.py says what the arrays are.

A file is a prolog (magic, format version, place and digest of the head), the packed parts, and the head. A
part of nothing but zeros takes no room and is not written to when read, so that untouched tables stay
untouched. All others are split into planes, the n-th bytes of all items: the high bytes of page numbers
shrink to nothing, the low ones are as good as random and are kept as they are. That is what makes reading
fast: only what shrinks is unpacked.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spbfast.errors import ResultsError
from spbfast.places import open_to_read

MAGIC = b"spbfast state\r\n\x1a"
FORMAT = 2  # 1: a page's record was three arrays
PROLOG = struct.Struct("<16sQQQ16s")  # magic, format, offset and length of the head, its digest
PLANE = struct.Struct("<BI")  # how a plane is kept, its bytes
ZEROS, PLAIN, PACKED = range(3)
PART = 1 << 20  # items
GAIN = 0.45  # packed only if it takes less than this share: unpacking costs time


@dataclass(frozen=True)
class StateHead:
    """What a state file says of itself.

    Attributes
    ----------
    about : dict
        What its writer said of the arrays.
    arrays : list of dict
        path, dtype, shape, and the bytes of every part.
    digest : str
        32 hex digits over `about` and the arrays' values, whatever the packing.
    """

    about: dict[str, Any]
    arrays: list[dict[str, Any]]
    digest: str


def _hash(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _plane(data: np.ndarray) -> bytes:
    if not data.any():
        return PLANE.pack(ZEROS, 0)
    raw = data.tobytes()
    packed = zlib.compress(raw, 1)
    if len(packed) < GAIN * len(raw):
        return PLANE.pack(PACKED, len(packed)) + packed
    return PLANE.pack(PLAIN, len(raw) + 4) + zlib.adler32(raw).to_bytes(4, "little") + raw


def _pack(part: np.ndarray) -> tuple[bytes, bytes]:
    """A part as bytes, none if it is all zeros, and the digest of its values."""
    part = np.ascontiguousarray(part)
    if not part.any():
        return b"", b""
    planes = part.view(np.uint8).reshape(len(part), part.itemsize).T
    return b"".join(_plane(np.ascontiguousarray(plane)) for plane in planes), _hash(part)


def _unpack(data: bytes, part: np.ndarray) -> None:
    """Fill a part of an array; ValueError or zlib.error if the bytes are damaged."""
    if not data:
        if part.any():
            part[...] = 0
        return
    planes = np.empty((len(part), part.itemsize), np.uint8)
    at = 0
    for i in range(part.itemsize):
        how, nbytes = PLANE.unpack_from(data, at)
        at += PLANE.size
        planes[:, i] = _unpacked(how, memoryview(data)[at : at + nbytes], len(part))
        at += nbytes
    part[...] = planes.reshape(-1).view(part.dtype)


def _unpacked(how: int, data: memoryview, nr: int) -> Any:
    if how == ZEROS:
        return 0
    raw = data[4:] if how == PLAIN else zlib.decompress(data, bufsize=nr)
    if len(raw) != nr or how == PLAIN and zlib.adler32(raw) != int.from_bytes(data[:4], "little"):
        raise ValueError("a part has other bytes than were written")
    return np.frombuffer(raw, np.uint8)


def _flat(array: np.ndarray) -> np.ndarray:
    """An array of any shape as one row that shares its memory."""
    return array if array.ndim == 1 else array.reshape(-1)


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    row = _flat(array)
    for first in range(0, len(row), PART):
        yield row[first : first + PART]


def _threads() -> int:
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


def write_state_file(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Write named arrays; the digest of the content."""
    found: list[dict[str, Any]] = []
    content = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    with path.open("wb") as file, ThreadPoolExecutor(_threads()) as pool:
        file.write(bytes(PROLOG.size))
        for name, array in arrays.items():
            sizes = []
            content.update(f"{name} {array.dtype.str} {array.shape}".encode())
            for data, digest in _in_turn(pool, _parts(array)):
                file.write(data)
                sizes.append(len(data))
                content.update(digest.ljust(16, b"\0"))
            found.append({"path": name, "dtype": array.dtype.str, "shape": list(array.shape), "parts": sizes})
        head = {"about": about, "arrays": found, "digest": content.hexdigest()}
        text = json.dumps(head).encode()
        offset = file.tell()
        file.write(text)
        file.seek(0)
        file.write(PROLOG.pack(MAGIC, FORMAT, offset, len(text), _hash(text)))
    return content.hexdigest()


def _in_turn(pool: ThreadPoolExecutor, parts: Iterable[np.ndarray]) -> Iterator[tuple[bytes, bytes]]:
    """Parts packed in threads, in order; only as many at a time as threads can use."""
    waiting = iter(parts)
    while group := list(itertools.islice(waiting, 4 * _threads())):
        yield from pool.map(_pack, group)


def read_state_head(path: Path) -> StateHead:
    """The head of a state file.

    Raises
    ------
    ResultsError
        When there is no such file, or it is no state file, of another format, cut short or damaged.
    """
    try:
        with open_to_read(path) as file:
            return _read_head(file, path)
    except OSError as error:
        raise ResultsError(f"cannot be read: {error.strerror}; {_RIGHT}", path) from None


def is_state_file(path: Path) -> bool:
    """Whether a file begins as state files do; one that cannot be read does not."""
    try:
        with open_to_read(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


_RIGHT = "`spbfast run CONFIG --save-state FILE` writes state files"


def _damaged(path: Path, why: str) -> ResultsError:
    return ResultsError(
        f"is a damaged state file: {why}; save it again with `spbfast run --save-state`", path
    )


def _read_head(file: BinaryIO, path: Path) -> StateHead:
    prolog = file.read(PROLOG.size)
    if not prolog or prolog[: len(MAGIC)] != MAGIC[: len(prolog)]:
        raise ResultsError(f"is not a state file; {_RIGHT}", path)
    size = os.fstat(file.fileno()).st_size
    if len(prolog) < PROLOG.size:
        raise _damaged(path, f"it has {size} bytes and is cut short")
    _, version, offset, nbytes, digest = PROLOG.unpack(prolog)
    if version != FORMAT:
        raise ResultsError(
            f"is a state file of format {version}, this version of spbfast reads format {FORMAT}; "
            "save it again with this version",
            path,
        )
    if size != offset + nbytes:
        how = "cut short" if size < offset + nbytes else "too long"
        raise _damaged(path, f"it has {size} of {offset + nbytes} bytes and is {how}")
    file.seek(offset)
    text = file.read(nbytes)
    if _hash(text) != digest:
        raise _damaged(path, "its head is not what was written")
    head = json.loads(text)
    return StateHead(head["about"], head["arrays"], head["digest"])


def read_state_arrays(path: Path, head: StateHead, into: Mapping[str, np.ndarray]) -> None:
    """Fill arrays with those of a file, which must have the same names, types and shapes.

    Raises
    ------
    ResultsError
        When they differ, or the file is damaged.
    """
    _compare_shapes(path, head, into)
    jobs: list[tuple[int, int, np.ndarray]] = []
    offset = PROLOG.size
    for array in head.arrays:
        for nbytes, part in zip(array["parts"], _parts(into[array["path"]]), strict=True):
            jobs.append((offset, nbytes, part))
            offset += nbytes
    with open_to_read(path) as file, ThreadPoolExecutor(_threads()) as pool:

        def fill(job: tuple[int, int, np.ndarray]) -> None:
            data = os.pread(file.fileno(), job[1], job[0]) if job[1] else b""
            if len(data) != job[1]:
                raise ValueError("it is cut short")
            _unpack(data, job[2])

        try:
            for _ in pool.map(fill, jobs):
                pass
        except (ValueError, zlib.error, struct.error) as error:
            raise _damaged(path, str(error)) from None


def _compare_shapes(path: Path, head: StateHead, into: Mapping[str, np.ndarray]) -> None:
    held = {array["path"]: (array["dtype"], tuple(array["shape"])) for array in head.arrays}
    wanted = {name: (array.dtype.str, array.shape) for name, array in into.items()}
    for name in [*held, *wanted]:
        if held.get(name) != wanted.get(name):
            raise ResultsError(
                f"holds {name} as {held.get(name)}, this version of spbfast needs {wanted.get(name)}; "
                "save the state again with this version",
                path,
            )
