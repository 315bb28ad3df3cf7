"""Films as text: differences from frame to frame, gzip, base64; and back, for tests.

Owns the form that templates/map.js unpacks. Frames come in chunks that each stand alone, so that the player
can begin anywhere: the first frame of a chunk whole, every further one XOR the one before it. In a chunk all
frames of `what` come first, then all of `room`.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np

from spbfast.results.memorymap.films import Film

CHUNK_FRAMES = 24
LEVEL = 6  # of gzip; 9 takes ten times as long and gains 2 %


def pack_bytes(values: np.ndarray) -> str:
    """An array's bytes as gzip in base64; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), LEVEL, mtime=0)).decode()


def packed_chunks(film: Film) -> Iterator[str]:
    """The frames of a film, packed."""
    for first in range(0, film.nr_frames, CHUNK_FRAMES):
        own = slice(first, first + CHUNK_FRAMES)
        yield pack_bytes(np.concatenate([_differences(film.what[own]), _differences(film.room[own])]))


def _differences(frames: np.ndarray) -> np.ndarray:
    out = frames.copy()
    out[1:] ^= frames[:-1]
    return out


def unpack_chunk(text: str, nr_pageblocks: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a chunk: `what` and `room`, uint8 [frames, pageblocks]."""
    flat = np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)
    what, room = flat.reshape(2, -1, nr_pageblocks)
    return np.bitwise_xor.accumulate(what), np.bitwise_xor.accumulate(room)


def packed_columns(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Columns over (frame, superpageblock) as differences from frame to frame, int32, little-endian."""
    stacked = np.stack(list(columns.values())).astype("<i4")
    stacked[:, 1:] = np.diff(stacked, axis=1)
    return {"names": list(columns), "data": pack_bytes(stacked)}
