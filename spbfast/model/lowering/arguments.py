"""The arguments of a Zone and its methods, checked and turned into plain integers and a ZoneSpec.

Owns the messages about wrong sizes, orders, migratetypes and flags. Holds no state and runs nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from spbfast.config.machine import MAX_PCP_PAGES, MAX_SPB_BYTES, MAX_START_PFN, MAX_ZONE_BYTES
from spbfast.config.units import format_size, parse_size
from spbfast.constants import (
    MAX_ORDER,
    NR_REQUEST_MT,
    PAGE_SIZE,
    PB_ORDER,
    AllocFlag,
    P,
)
from spbfast.errors import ZoneError
from spbfast.model.state.build import PcpConf, ZoneSpec
from spbfast.text import quote_value

KNOWN_FLAGS = sum(flag.value for flag in AllocFlag)
_PCP_KEYS = {"batch", "high", "high_min", "high_max", "flags"}
FIRST_SLOTS = 1 << 10
MAX_CPUS = 8192
FEWEST_REQUESTS = 1 << 20  # that may be made at once, however small the zone is


def checked_integer(value: object, name: str) -> int:
    """A whole number, or a ZoneError that says what was expected to be one."""
    try:
        if not isinstance(value, bool | np.bool_):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise ZoneError(f"{name} must be an integer, got {_shown(value)}")


def checked_range(value: object, name: str, low: int, high: int) -> int:
    """A whole number within bounds, both of which are allowed."""
    number = checked_integer(value, name)
    if not low <= number <= high:
        raise ZoneError(f"{name} must be {low}..{high}, got {quote_value(number)}")
    return number


def checked_switch(value: object, name: str) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, bool | np.bool_):
        raise ZoneError(f"{name} must be True or False, got {_shown(value)}")
    return bool(value)


def _shown(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return repr(value) if isinstance(value, bool) else quote_value(value)


def checked_order(value: object) -> int:
    """A block order, 0..10."""
    return checked_range(value, "order", 0, MAX_ORDER)


def checked_number(value: object, nr_pages: int) -> int:
    """How many requests are made at once of a zone of so many pages."""
    n = checked_integer(value, "n")
    if n < 0:
        raise ZoneError(f"n must not be negative, got {quote_value(n)}")
    most = max(FEWEST_REQUESTS, 4 * nr_pages)
    if n > most:
        raise ZoneError(
            f"n must be at most {most}, got {quote_value(n)}; the zone has {nr_pages} pages, and each "
            "request takes one at least"
        )
    return n


def checked_mt(value: object) -> int:
    """A migratetype that can be requested."""
    mt = checked_integer(value, "mt")
    if not 0 <= mt < NR_REQUEST_MT:
        raise ZoneError(f"mt must be 0 (unmovable), 1 (movable) or 2 (reclaimable), got {quote_value(mt)}")
    return mt


def checked_flags(value: object) -> int:
    """Alloc flags, by the numbers of AllocFlag."""
    flags = checked_integer(value, "flags")
    if flags < 0 or flags & ~KNOWN_FLAGS:
        names = ", ".join(f"{flag.name} {flag.value:#x}" for flag in AllocFlag)
        shown = hex(flags) if flags.bit_length() <= 64 else quote_value(flags)
        raise ZoneError(f"flags {shown} has bits that mean nothing; AllocFlag has {names}")
    return flags


def checked_bytes(value: object, name: str) -> int:
    """A size: text with its unit, or a number of bytes."""
    if not isinstance(value, str):
        return checked_integer(value, name)
    try:
        return parse_size(value)
    except ValueError as error:
        raise ZoneError(f"{name}: {error}") from None


def checked_pcp(given: PcpConf | Mapping[str, int] | None) -> PcpConf | None:
    """Tunables of per-CPU lists."""
    if given is None:
        return None
    conf = _pcp_from_mapping(asdict(given) if isinstance(given, PcpConf) else given)
    if conf.batch < 1 or not 0 <= conf.high_min <= conf.high_max or conf.flags & ~3:
        raise ZoneError(f"pcp needs batch >= 1 and 0 <= high_min <= high_max, got {conf}")
    return conf


def _pcp_from_mapping(given: Mapping[str, int]) -> PcpConf:
    if not isinstance(given, Mapping):
        raise ZoneError(
            f"pcp must be a mapping such as {{'batch': 63, 'high': 378}}, got {quote_value(given)}"
        )
    if unknown := sorted(set(given) - _PCP_KEYS, key=repr):
        raise ZoneError(f"pcp has no {quote_value(unknown[0])}; it has {', '.join(sorted(_PCP_KEYS))}")
    if "batch" not in given or not {"high", "high_min"} & set(given):
        raise ZoneError("pcp needs batch, and high or high_min and high_max, in pages")
    pages = {"high_min": given.get("high_min", given.get("high", 0))}
    pages["high_max"] = given.get("high_max", given.get("high", pages["high_min"]))
    pages |= {name: given.get(name, 0) for name in ("batch", "flags")}
    numbers = {name: checked_integer(value, f"pcp.{name}") for name, value in pages.items()}
    for name, number in numbers.items():
        if number > MAX_PCP_PAGES:
            raise ZoneError(f"pcp.{name} must be at most {MAX_PCP_PAGES} pages, got {quote_value(number)}")
    return PcpConf(**numbers)


def spec_of_arguments(
    size: str | int,
    spb_size: str | int,
    start_pfn: int,
    policy: np.ndarray,
    pcp: PcpConf | Mapping[str, int] | None,
    cpus: int = 1,
) -> ZoneSpec:
    """Shape of a zone with one owner, whose slots are few at first.

    Raises
    ------
    ZoneError
        A size, start, superpageblock size or number of CPUs that no zone has.
    """
    nbytes, spb_bytes = checked_bytes(size, "size"), checked_bytes(spb_size, "spb_size")
    smallest = PAGE_SIZE << MAX_ORDER
    if not smallest <= spb_bytes <= MAX_SPB_BYTES or spb_bytes & (spb_bytes - 1):
        raise ZoneError(
            f"spb_size must be a power of two of at least 4 MiB and at most {format_size(MAX_SPB_BYTES)}, "
            f"got {quote_value(spb_bytes)} bytes"
        )
    superpageblocks = bool(policy[P.superpageblocks])
    whole = smallest if superpageblocks else PAGE_SIZE
    if nbytes <= 0 or nbytes % whole:
        raise ZoneError(f"size must be a multiple of {whole} bytes and not 0, got {quote_value(nbytes)}")
    if nbytes > MAX_ZONE_BYTES:
        raise ZoneError(
            f"size must be at most {format_size(MAX_ZONE_BYTES)}, what a zone can hold; got "
            f"{quote_value(nbytes)} bytes"
        )
    start = checked_integer(start_pfn, "start_pfn")
    if start < 0 or start % (whole // PAGE_SIZE):
        raise ZoneError(f"start_pfn must be a multiple of {whole // PAGE_SIZE}, got {quote_value(start)}")
    if start > MAX_START_PFN:
        raise ZoneError(f"start_pfn must be at most {MAX_START_PFN:#x}, got {quote_value(start)}")
    conf = checked_pcp(pcp)
    nr_cpus = checked_range(cpus, "cpus", 1, MAX_CPUS)
    if nr_cpus > 1 and conf is None:
        raise ZoneError(f"cpus {nr_cpus} needs per-CPU lists: give pcp, such as {{'batch': 63, 'high': 378}}")
    return ZoneSpec(
        zone_pages=nbytes // PAGE_SIZE,
        start_pfn=start,
        spb_pb=spb_bytes // (PAGE_SIZE << PB_ORDER),
        superpageblocks=superpageblocks,
        nr_cpus=0 if conf is None else nr_cpus,
        pcp=conf,
        owner_slots=(FIRST_SLOTS,),
    )
