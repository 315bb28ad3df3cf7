"""Quantities with units: sizes, durations and byte rates.

Owns the text forms that configurations accept and the annotated types that models use for them. A bare
number is never accepted, because guessing its unit is how experiments go wrong silently. Values become
integers: bytes, nanoseconds, bytes per second. Every quantity has a greatest value, here or at its key, so
that sums of them stay far from the end of 64 bits. Nothing here knows about YAML or about the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema

from spbfast.text import quote_value

SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # the micro sign
    "μs": 10**3,  # the Greek letter, which many keyboards and editors give instead
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_LONG_UNITS = {
    **{"nsec": "ns", "usec": "us", "msec": "ms", "sec": "s", "second": "s", "minute": "min"},
    **{"hr": "h", "hour": "h", "m": "ms or {n}min"},
    **{"byte": "B", "k": "KiB or {n}kB", "kb": "kB", "kib": "KiB"},
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([A-Za-zµμ]*)\s*")
_INT64_MAX = 2**63 - 1
LONGEST_NUMBER = 100  # characters; converting and echoing more takes long and helps nobody
_LONG = 10 * 3600 * 10**9  # from here on hours say more than seconds
MAX_SIZE = 16 << 40  # four nodes with as much as a zone can hold
MAX_DURATION = 1000 * 3600 * 10**9
MAX_RATE = 256 * 10**9


def _parse(value: Any, units: dict[str, int], what: str, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a {what} with a unit, e.g. {example}; got {quote_value(value)}")
    text = value if isinstance(value, str) else quote_value(value)
    match = _QUANTITY.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if match is None:
        raise ValueError(f"{quote_value(text)} is not a {what}; write a number and a unit, e.g. {example}")
    number, unit = match.groups()
    if not unit:
        shown = " or ".join(f"{number}{u}" for u in _common(units))
        raise ValueError(f"{text} has no unit; write e.g. {shown}")
    if unit not in units:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}; {_other_unit(number, unit, units)}")
    exact = Decimal(number) * units[unit]
    if exact != int(exact):
        raise ValueError(f"{text!r} is not a whole number of {_base(units)}")
    if exact > _INT64_MAX:
        raise ValueError(f"{text!r} is too large; the limit is 2^63-1 {_base(units)}")
    return int(exact)


def _common(units: dict[str, int]) -> tuple[str, ...]:
    return ("MiB", "GiB") if "GiB" in units else ("ms", "s")


def _base(units: dict[str, int]) -> str:
    return "bytes" if "GiB" in units else "nanoseconds"


def _other_unit(number: str, unit: str, units: dict[str, int]) -> str:
    """What to write instead: the same unit in its right case, or the full list."""
    word = unit.lower()
    known = _LONG_UNITS.get(word) or _LONG_UNITS.get(word.removesuffix("s"))
    if known is not None and known.split()[0] in units:
        return f"write {number}{known.format(n=number)}"
    near = [u for u in units if u.lower() == word]
    if not near and "GiB" in units and len(word) == 1:
        near = [u for u in units if u[0].lower() == word and len(u) > 1]
    if near:
        return "write " + " or ".join(f"{number}{u}" for u in near)
    return "units are " + ", ".join(u for u in units if u not in ("KB", "\N{GREEK SMALL LETTER MU}s"))


def parse_size(value: Any) -> int:
    """Bytes from a text such as ``247GiB``, ``247 GB`` or ``4096B``.

    Raises
    ------
    ValueError
        When there is no unit, an unknown one, or a fraction of a byte.
    """
    return _parse(value, SIZE_UNITS, "size", "247GiB or 64MiB")


def parse_duration(value: Any) -> int:
    """Nanoseconds from a text such as ``100ms``, ``2s`` or ``8min``.

    Raises
    ------
    ValueError
        When there is no unit, an unknown one, or a fraction of a nanosecond.
    """
    return _parse(value, DURATION_UNITS, "duration", "100ms or 2s")


def parse_rate(value: Any) -> int:
    """Bytes per second from a text such as ``300MB/s``.

    Raises
    ------
    ValueError
        When ``/s`` or the size unit is missing.
    """
    if not isinstance(value, str) or not value.rstrip().endswith("/s"):
        raise ValueError(f"must be a byte rate, e.g. 300MB/s; got {quote_value(value)}")
    return parse_size(value.rstrip().removesuffix("/s"))


def format_duration(ns: int) -> str:
    """The shortest exact text of a duration: ``100ms``, ``480s``, ``1000h``."""
    if ns >= _LONG and ns % DURATION_UNITS["h"] == 0:
        return f"{ns // DURATION_UNITS['h']}h"
    for unit in ("s", "ms", "us"):
        if ns % DURATION_UNITS[unit] == 0:
            return f"{ns // DURATION_UNITS[unit]}{unit}"
    return f"{ns}ns"


def format_rate(per_second: int) -> str:
    """The shortest exact text of a byte rate: ``300MB/s``."""
    return f"{format_size(per_second)}/s"


def format_size(nbytes: int) -> str:
    """The shortest exact text of a size: ``247GiB``, ``247GB``, ``4096B`` as ``4KiB``."""
    for unit in ("TiB", "GiB", "TB", "GB", "MiB", "MB", "KiB", "kB"):
        if nbytes and nbytes % SIZE_UNITS[unit] == 0:
            return f"{nbytes // SIZE_UNITS[unit]}{unit}"
    return f"{nbytes}B"


def _schema(units: dict[str, int], suffix: str, examples: list[str], text: str) -> WithJsonSchema:
    names = "|".join(sorted(units, key=lambda u: (-len(u), u)))
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": rf"^\s*{_NUMBER}\s*({names})\s*{suffix}$",
            "examples": examples,
            "description": text,
        }
    )


Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(le=MAX_SIZE),
    _schema(SIZE_UNITS, "", ["247GiB", "247 GB"], "a size with its unit"),
]
Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    Field(le=MAX_DURATION),
    _schema(DURATION_UNITS, "", ["100ms", "2s"], "a duration with its unit"),
]
ByteRate = Annotated[
    int,
    BeforeValidator(parse_rate),
    Field(le=MAX_RATE),
    _schema(SIZE_UNITS, "/s", ["300MB/s"], "bytes per second"),
]
_FORMATS: dict[Any, Callable[[int], str]] = {
    parse_size: format_size,
    parse_duration: format_duration,
    parse_rate: format_rate,
}


def formatter_of(metadata: Iterable[Any], annotation: Any = None) -> Callable[[int], str] | None:
    """What writes a field's quantities as a file has them, by its metadata; None for a plain number."""
    for item in metadata:
        if (found := _FORMATS.get(getattr(item, "func", None))) is not None:
            return found
    for inner in get_args(annotation):
        below = getattr(inner, "__metadata__", ())
        if (found := formatter_of(below, inner)) is not None:
            return found
    return None
