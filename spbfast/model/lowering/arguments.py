"""The arguments of a Zone and its methods, checked and turned into plain integers and a ZoneSpec.

Owns the messages about wrong sizes, orders, migratetypes and flags. Holds no state and runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsIndex

import numpy as np

from spbfast.config.units import parse_size
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

KNOWN_FLAGS = sum(flag.value for flag in AllocFlag)
_PCP_KEYS = {"batch", "high", "high_min", "high_max", "flags"}
FIRST_SLOTS = 1 << 10
MAX_CPUS = 8192


def checked_integer(value: SupportsIndex, name: str) -> int:
    """A whole number, or a ZoneError that says what was expected to be one."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise ZoneError(f"{name} must be an integer, got {value!r}")
    return value.__index__()


def checked_order(value: SupportsIndex) -> int:
    """A block order, 0..10."""
    order = checked_integer(value, "order")
    if not 0 <= order <= MAX_ORDER:
        raise ZoneError(f"order must be 0..{MAX_ORDER}, got {order}")
    return order


def checked_mt(value: SupportsIndex) -> int:
    """A migratetype that can be requested."""
    mt = checked_integer(value, "mt")
    if not 0 <= mt < NR_REQUEST_MT:
        raise ZoneError(f"mt must be 0 (unmovable), 1 (movable) or 2 (reclaimable), got {mt}")
    return mt


def checked_flags(value: SupportsIndex) -> int:
    """Alloc flags, by the numbers of AllocFlag."""
    flags = checked_integer(value, "flags")
    if flags < 0 or flags & ~KNOWN_FLAGS:
        names = ", ".join(f"{flag.name} {flag.value:#x}" for flag in AllocFlag)
        raise ZoneError(f"flags {flags:#x} has bits that mean nothing; AllocFlag has {names}")
    return flags


def checked_bytes(value: str | SupportsIndex, name: str) -> int:
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
    conf = given if isinstance(given, PcpConf) else _pcp_from_mapping(given)
    if conf.batch < 1 or not 0 <= conf.high_min <= conf.high_max or conf.flags & ~3:
        raise ZoneError(f"pcp needs batch >= 1 and 0 <= high_min <= high_max, got {conf}")
    return conf


def _pcp_from_mapping(given: Mapping[str, int]) -> PcpConf:
    if not isinstance(given, Mapping):
        raise ZoneError(f"pcp must be a mapping such as {{'batch': 63, 'high': 378}}, got {given!r}")
    if unknown := sorted(set(given) - _PCP_KEYS):
        raise ZoneError(f"pcp has no {unknown[0]!r}; it has {', '.join(sorted(_PCP_KEYS))}")
    if "batch" not in given or not {"high", "high_min"} & set(given):
        raise ZoneError("pcp needs batch, and high or high_min and high_max, in pages")
    low = checked_integer(given.get("high_min", given.get("high", 0)), "pcp.high_min")
    high = checked_integer(given.get("high_max", given.get("high", low)), "pcp.high_max")
    batch, flags = (checked_integer(given.get(name, 0), f"pcp.{name}") for name in ("batch", "flags"))
    return PcpConf(batch, low, high, flags)


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
    if spb_bytes < smallest or spb_bytes & (spb_bytes - 1):
        raise ZoneError(f"spb_size must be a power of two of at least 4 MiB, got {spb_bytes} bytes")
    superpageblocks = bool(policy[P.superpageblocks])
    whole = smallest if superpageblocks else PAGE_SIZE
    if nbytes <= 0 or nbytes % whole:
        raise ZoneError(f"size must be a multiple of {whole} bytes and not 0, got {nbytes}")
    start = checked_integer(start_pfn, "start_pfn")
    if start < 0 or start % (whole // PAGE_SIZE):
        raise ZoneError(f"start_pfn must be a multiple of {whole // PAGE_SIZE}, got {start}")
    conf = checked_pcp(pcp)
    nr_cpus = checked_integer(cpus, "cpus")
    if not 1 <= nr_cpus <= MAX_CPUS:
        raise ZoneError(f"cpus must be 1..{MAX_CPUS}, got {nr_cpus}")
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
