"""JSON files with a digest of their content, by which damage is noticed. Old ones have none.

Owns the digest's form. Which files there are, and what becomes of a damaged one, is others' business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.sweep.store.atomic import read_json, write_json

KEY = "digest"


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, atomically."""
    write_json(path, {**value, KEY: _digest(value)})


def read_checked(path: Path) -> dict[str, Any]:
    """Read a JSON object as it was written.

    Raises
    ------
    ResultsError
        When it cannot be read, is no JSON object, or not what was written.
    """
    try:
        found = read_json(path)
    except (ResultsError, RecursionError) as error:
        raise ResultsError(f"is damaged: it is no JSON: {error}", path) from error
    if not isinstance(found, dict):
        raise ResultsError("is damaged: it is no JSON object", path)
    digest = found.pop(KEY, None)
    if digest is not None and digest != _digest(found):
        raise ResultsError("is damaged: its content does not match its digest", path)
    return found


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()
