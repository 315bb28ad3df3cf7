"""GFP flags of foreign kernels: names and numbers of any version, reduced to what decides an allocation.

Owns the decoding. Numbers changed their meaning: names are taken where a file has them, numbers by the
kernel's version, and the receipt hears of a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RECLAIM = frozenset({"DIRECT_RECLAIM", "KSWAPD_RECLAIM"})
_KERNEL = _RECLAIM | {"IO", "FS"}
_USER = _KERNEL | {"HARDWALL"}
_HIGHUSER = _USER | {"HIGHMEM"}
_MOVABLE = _HIGHUSER | {"MOVABLE"}
COMPOUNDS: dict[str, frozenset[str]] = {
    "GFP_ATOMIC": frozenset({"HIGH", "KSWAPD_RECLAIM"}),
    "GFP_KERNEL": _KERNEL,
    "GFP_KERNEL_ACCOUNT": _KERNEL,
    "GFP_NOWAIT": frozenset({"KSWAPD_RECLAIM"}),
    "GFP_NOIO": _RECLAIM,
    "GFP_NOFS": _RECLAIM | {"IO"},
    "GFP_TEMPORARY": _KERNEL | {"RECLAIMABLE"},
    "GFP_USER": _USER,
    "GFP_DMA": frozenset({"DMA"}),
    "GFP_DMA32": frozenset({"DMA32"}),
    "GFP_HIGHUSER": _HIGHUSER,
    "GFP_HIGHUSER_MOVABLE": _MOVABLE,
    "GFP_TRANSHUGE_LIGHT": (_MOVABLE | {"COMP", "NOMEMALLOC", "NOWARN"}) - _RECLAIM,
    "GFP_TRANSHUGE": (_MOVABLE | {"COMP", "NOMEMALLOC", "NOWARN", "DIRECT_RECLAIM"}) - {"KSWAPD_RECLAIM"},
    "__GFP_RECLAIM": _RECLAIM,
    "__GFP_WAIT": _RECLAIM,
    "GFP_WAIT": _RECLAIM,
}
# Only the bits that decide zone, watermark and type.
_ZONES = {0x01: "DMA", 0x02: "HIGHMEM", 0x04: "DMA32", 0x08: "MOVABLE"}
_OLD = _ZONES | {
    0x10: "DIRECT_RECLAIM",
    0x20: "HIGH",
    0x40: "IO",
    0x80: "FS",
    0x2000: "MEMALLOC",
    0x4000: "COMP",
    0x10000: "NOMEMALLOC",
    0x80000: "RECLAIMABLE",
}
_SINCE_4_4 = _ZONES | {
    0x10: "RECLAIMABLE",
    0x20: "HIGH",
    0x40: "IO",
    0x80: "FS",
    0x2000: "MEMALLOC",
    0x4000: "COMP",
    0x10000: "NOMEMALLOC",
    0x400000: "DIRECT_RECLAIM",
    0x2000000: "KSWAPD_RECLAIM",
}
_SINCE_4_20 = _ZONES | {
    0x10: "RECLAIMABLE",
    0x20: "HIGH",
    0x40: "IO",
    0x80: "FS",
    0x400: "DIRECT_RECLAIM",
    0x800: "KSWAPD_RECLAIM",
    0x20000: "MEMALLOC",
    0x40000: "COMP",
    0x80000: "NOMEMALLOC",
}
_NAME = re.compile(r"[A-Z][A-Z0-9_]*|__GFP[A-Z0-9_]*|0x[0-9a-fA-F]{1,8}")


@dataclass(frozen=True)
class GfpFlags:
    """What a request allows, as far as it decides where memory may come from.

    Attributes
    ----------
    text : str
        As it was given.
    names : frozenset of str
        Base flags without ``__GFP_``.
    unknown : tuple of str
        Names that no kernel known here has.
    guess : str
        How a number was read, where that is a guess; else empty.
    """

    text: str
    names: frozenset[str]
    unknown: tuple[str, ...] = ()
    guess: str = ""

    @property
    def is_blocking(self) -> bool:
        return "DIRECT_RECLAIM" in self.names

    @property
    def is_high(self) -> bool:
        return "HIGH" in self.names

    @property
    def is_movable(self) -> bool:
        return "MOVABLE" in self.names and "RECLAIMABLE" not in self.names

    @property
    def is_unlimited(self) -> bool:
        """Whether watermarks do not count (__GFP_MEMALLOC)."""
        return "MEMALLOC" in self.names and "NOMEMALLOC" not in self.names

    @property
    def highest_zone(self) -> str:
        """The highest zone that the flags allow."""
        if "DMA" in self.names:
            return "DMA"
        if "DMA32" in self.names:
            return "DMA32"
        if "HIGHMEM" in self.names:
            return "Movable" if "MOVABLE" in self.names else "HighMem"
        return "Normal"


def kernel_tuple(version: str) -> tuple[int, int] | None:
    """Major and minor number of a version such as ``4.2.0-rc7+``; None where there is none. 2.6.x is 2, 6."""
    match = re.match(r"(\d{1,2})\.(\d{1,3})", version)
    return (int(match[1]), int(match[2])) if match else None


def decode_gfp(text: str, kernel: tuple[int, int] | None = None) -> GfpFlags:
    """Flags from names, a number, or a mix of both.

    Parameters
    ----------
    text : str
        Such as ``GFP_KERNEL|__GFP_COMP``, ``GFP_ATOMIC|GFP_NOWARN`` (2011) or ``0x2040d0``.
    kernel : tuple of int, optional
        Major and minor version, which tell what a number means.

    Returns
    -------
    GfpFlags
    """
    names: set[str] = set()
    unknown: list[str] = []
    guess = ""
    for word in _NAME.findall(text[:2000]):
        if word.startswith("0x"):
            bits, guess = _bits(int(word, 16), kernel, guess)
            names |= bits
        elif word in COMPOUNDS:
            names |= COMPOUNDS[word]
        else:
            name = word.removeprefix("__GFP_").removeprefix("GFP_")
            if name.isupper() and "GFP" in word:
                names.add(name)
            else:
                unknown.append(word)
    return GfpFlags(text, frozenset(names), tuple(unknown), guess)


def _bits(value: int, kernel: tuple[int, int] | None, guess: str) -> tuple[set[str], str]:
    if kernel is not None:
        table = _OLD if kernel < (4, 4) else _SINCE_4_4 if kernel < (4, 20) else _SINCE_4_20
    elif value & 0x2400000:
        table, guess = _SINCE_4_4, f"{value:#x} read as flags of a kernel 4.4 to 4.19"
    elif value & 0xC00 == 0 and value & 0x10:
        table, guess = _OLD, f"{value:#x} read as flags of a kernel before 4.4"
    elif value & 0xC00:
        table, guess = _SINCE_4_20, f"{value:#x} read as flags of a kernel since 4.20"
    else:
        table, guess = _OLD, f"{value:#x} read as flags of a kernel before 4.4"
    return {name for bit, name in table.items() if value & bit}, guess
