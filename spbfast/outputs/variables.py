"""The registry of everything that a simulation can output.

Owns names, dimensions, types, units, descriptions and the direction that counts as better. A variable exists
for the rest of the package (shards, results.nc, report) once it has a row here; no other place lists names.
Dimensions are those of one run; sweeps put `point` and `replicate` in front. The labels along `counter`,
`migratetype` and `order` come with the data. Never touches simulation state or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spbfast.errors import ResultsError
from spbfast.outputs.variable_rows import NEITHER, ROWS

if TYPE_CHECKING:
    import xarray as xr

RUN_DIMS = ("point", "replicate")


@dataclass(frozen=True, slots=True)
class Var:
    """One output variable, or one coordinate along a dimension.

    Attributes
    ----------
    dims : tuple of str
        Dimensions within one run; () is a scalar of the run.
    dtype : str
        Numpy type stored on disk. Integer variables never hold negative values: -1 marks a missing cell.
    units : str
        UDUNITS; "1" for pages, blocks, objects and events, which `long_name` counts.
    meaning : str
        One line for a reader who does not know the kernel.
    headline : bool
        Shown first in the report.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    units: str
    long_name: str
    meaning: str
    direction: str = NEITHER
    headline: bool = False

    @property
    def fill(self) -> int | float:
        """What stands where nothing was simulated."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else -1

    def attrs(self) -> dict[str, str]:
        """Attributes for netCDF and xarray."""
        return {
            "units": self.units,
            "long_name": self.long_name,
            "comment": self.meaning,
            "direction": self.direction,
        }


VARIABLES: dict[str, Var] = {}
COORDS: dict[str, Var] = {}


def add_variable(var: Var) -> Var:
    """Add `var` to the registry.

    Raises
    ------
    ValueError
        When the name is taken by a different definition, or a dimension has no coordinate.
    """
    if VARIABLES.get(var.name, var) != var or var.name in COORDS:
        raise ValueError(f"the output variable {var.name!r} is already registered with another definition")
    missing = [d for d in var.dims if d not in COORDS]
    if missing:
        raise ValueError(f"the output variable {var.name!r} has unknown dimensions {missing}")
    VARIABLES[var.name] = var
    return var


def _register_coords() -> None:
    rows = (
        ("time", "f8", "s", "simulated time", "seconds since the end of boot"),
        ("migratetype", "O", "1", "migrate type", "what the pages may be used for"),
        ("order", "i8", "1", "block order", "a block holds 2^order pages"),
        ("spb", "i8", "1", "superpageblock", "place in the zone, ascending; small machines end earlier"),
        ("counter", "O", "1", "event counter", "the kernel's own counter names, as in /proc/vmstat"),
        ("zone", "O", "1", "memory zone", "Normal, or node and zone where there are several; DMA32 last"),
    )
    for name, dtype, units, long_name, meaning in rows:
        COORDS[name] = Var(name, (name,), dtype, units, long_name, meaning)


_register_coords()
for _row in ROWS:
    add_variable(Var(*_row))


def check_run(data: Mapping[str, np.ndarray], coords: Mapping[str, np.ndarray]) -> list[str]:
    """Every disagreement between one run's arrays and the registry; empty when all is well."""
    problems = []
    for name, values in data.items():
        var = VARIABLES.get(name)
        if var is None:
            problems.append(f"{name}: no such output variable")
            continue
        shape = np.shape(values)
        if len(shape) != len(var.dims):
            problems.append(f"{name}: has {len(shape)} dimensions, expected {var.dims}")
            continue
        for dim, size in zip(var.dims, shape, strict=True):
            if dim not in coords:
                problems.append(f"{name}: there are no labels along {dim}")
            elif len(coords[dim]) != size:
                problems.append(f"{name}: {size} values along {dim}, but {len(coords[dim])} labels")
        kind = np.asarray(values).dtype.kind
        if kind not in "biuf" or (kind == "f" and np.dtype(var.dtype).kind != "f"):
            problems.append(f"{name}: values of type {np.asarray(values).dtype}, expected {var.dtype}")
    return problems


def add_summaries(data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`data` plus the scalars that follow from its series, unless already there."""
    full = dict(data)
    tainted = full.get("spb_tainted")
    if tainted is not None and np.size(tainted):
        full.setdefault("tainted_end", np.asarray(tainted)[-1])
        full.setdefault("tainted_peak", np.max(tainted))
    return full


def at_level(names: Iterable[str], level: str) -> list[str]:
    """The names kept at an output level: `summary` keeps scalars, `series` all but superpageblocks."""
    if level == "summary":
        return [n for n in names if not VARIABLES[n].dims and n != "n_spb"]
    return [n for n in names if level == "spb" or ("spb" not in VARIABLES[n].dims and n != "n_spb")]


def annotate(ds: xr.Dataset) -> xr.Dataset:
    """A shallow copy of `ds` whose known variables and coordinates carry the registry's attributes."""
    ds = ds.copy(deep=False)
    for name in ds.variables:
        var = VARIABLES.get(str(name)) or COORDS.get(str(name))
        if var is not None:
            ds[name].attrs.update(var.attrs())
    return ds


def check_dataset(ds: xr.Dataset) -> None:
    """Compare the data variables of `ds` with the registry.

    Variables that belong to the sweep itself (status, seed and so on: those that only have the dimensions
    point and replicate and no row in the registry) are left alone.

    Raises
    ------
    ResultsError
        Lists every unknown variable, wrong dimension and missing label.
    """
    problems = []
    for key, da in ds.data_vars.items():
        name = str(key)
        own = tuple(str(d) for d in da.dims if d not in RUN_DIMS)
        var = VARIABLES.get(name)
        if var is None:
            if own:
                problems.append(f"{name}: no such output variable")
            continue
        if own != var.dims:
            problems.append(f"{name}: dimensions {own}, expected {var.dims}")
        problems += [f"{name}: there are no labels along {d}" for d in own if d not in ds.coords]
    if problems:
        raise ResultsError("not a dataset of this program:\n  " + "\n  ".join(problems))
