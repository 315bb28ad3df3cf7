"""Packages whose installed version is not one that spbfast works with.

pip refuses them; a package that is installed over it, or by another program, is not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement

# Optional packages that results or sweeps are read or written with; those of developers don't count.
EXTRAS = ("plot", "zarr", "hpc", "sa", "parquet", "dash")


def unfit_packages() -> list[tuple[str, str]]:
    """Packages outside their range: ("xarray 2025.6.0", "xarray>=2026.1") each.

    None where spbfast itself is not installed, as in a source tree on the path.
    """
    out = []
    for wanted in _requirements():
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            out.append((f"{wanted.name} {version}", f"{wanted.name}{wanted.specifier}"))
    return out


def _requirements() -> Iterator[Requirement]:
    """What spbfast needs of each package; of an optional one, if it is there."""
    try:
        lines = metadata.requires("spbfast") or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in EXTRAS):
            yield wanted


def advice(unfit: list[tuple[str, str]]) -> str:
    """What to do about them, as a command."""
    return "pip install " + " ".join(f"'{requirement}'" for _, requirement in unfit)
