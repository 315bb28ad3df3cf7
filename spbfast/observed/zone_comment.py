"""The comment by which an exported trace says of what zone it is, so that a replay can begin with the same.

Owns its form: one line that begins with ``#``, which every reader of traces passes over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from spbfast.errors import DumpError
from spbfast.observed.textlines import head_of_file, text_encoding

_WORD = "# spbfast zone "
_LINE = re.compile(r"^# spbfast zone (\S{1,40}):((?: \w{1,20}=\d{1,18})*) *$", re.M)
_LIMIT = 1 << 40


class NamedZone(NamedTuple):
    """A simulated zone: page frames, superpageblocks and per-CPU lists, sizes in pages.

    Pages before `first_pfn` are holes. `cpus` 0 means no per-CPU lists.
    """

    start_pfn: int
    pages: int
    first_pfn: int
    spb_pages: int
    cpus: int
    batch: int
    high_min: int
    high_max: int


def zone_comment(name: str, shape: Mapping[str, int]) -> str:
    """The line for a zone, without its end."""
    return f"{_WORD}{name}: " + " ".join(f"{field}={int(shape[field])}" for field in NamedZone._fields)


def commented_zone(path: Path) -> NamedZone | None:
    """The zone that a trace's beginning names, None where it names none.

    Raises
    ------
    DumpError
        When the line is there and makes no sense.
    """
    head = head_of_file(path)
    match = _LINE.search(head.decode(text_encoding(head), "replace"))
    if match is None:
        return None
    values = {name: int(value) for name, _, value in (word.partition("=") for word in match[2].split())}
    shape = NamedZone(*(values.get(name, -1) for name in NamedZone._fields))
    inside = shape.start_pfn <= shape.first_pfn < shape.start_pfn + shape.pages
    whole = shape.spb_pages > 0 and shape.spb_pages & (shape.spb_pages - 1) == 0
    if min(shape) < 0 or max(shape) > _LIMIT or not inside or not whole:
        names = ", ".join(NamedZone._fields)
        line = head[: match.start()].count(b"\n") + 1
        raise DumpError(path, line, f"the comment on the zone must have {names} that fit together")
    return shape
