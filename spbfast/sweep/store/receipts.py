"""Lines of a journal: one finished batch each, with a sum by which a torn or damaged one is noticed.

Owns their form. Which journals there are, and what follows from them, is in directory.py.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from spbfast.places import parsed_json
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.shards import LOST, SETTLED

_SUM = re.compile(r',"sum":"([0-9a-f]{8})"}$')
_BATCH = re.compile(r"[0-9a-f]{16}")


def summed_line(receipt: Mapping[str, Any]) -> str:
    """A line of a journal: JSON whose last entry is a sum over the rest."""
    body = json.dumps(receipt, separators=(",", ":"))
    return f'{body[:-1]},"sum":"{zlib.crc32(body.encode()):08x}"}}'


def receipt_in(line: str) -> dict[str, Any] | None:
    """The receipt in a line of a journal, None if the line is torn or damaged; old lines have no sum."""
    line = line.rstrip("\n")
    if found := _SUM.search(line):
        line = line[: found.start()] + "}"
        if int(found[1], 16) != zlib.crc32(line.encode()):
            return None
    try:
        receipt = parsed_json(line)
        cells, codes = receipt["cells"], receipt["statuses"]
        whole = len(cells) == len(codes) and {int(c) for c in codes} <= set(SETTLED) | {LOST}
        [Cell.parse(text) for text in cells]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return receipt if whole and _BATCH.fullmatch(str(receipt.get("batch"))) else None
