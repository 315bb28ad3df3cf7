"""The points of a sweep as they stand in points.nc and in results.nc.

Owns the dimension `point`: identities, marks, and the value of every swept key at every point.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.sweep.points.params import Param
from spbfast.sweep.points.plan import Plan
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_bytes
from spbfast.sweep.store.seal import read_sealed, refuse_lost_seal, sealed_netcdf
from spbfast.sweep.store.shards import put_variable

PURPOSE = "points"
_ANEW = "the sweep's own command, or spbfast doctor DIR --repair, writes it anew"


@dataclass(frozen=True)
class PointTable:
    """The points of a sweep in design order."""

    point_id: np.ndarray
    baseline: np.ndarray
    in_grid: np.ndarray
    params: tuple[Param, ...]


def write_points(path: Path, plan: Plan) -> None:
    """Write the table of points, readable before any result exists."""
    baseline = np.array([p.baseline for p in plan.points], bool)
    in_grid = np.array([p.in_grid for p in plan.points], bool)
    table = PointTable(plan.ids, baseline, in_grid, tuple(plan.params))
    with sealed_netcdf(path, PURPOSE) as nc:
        put_points(nc, table)


def read_points(path: Path) -> PointTable:
    """Read the table of points.

    Raises
    ------
    ResultsError
        When the file cannot be read.
    """
    try:
        content, is_sealed = read_sealed(path, PURPOSE)
        with NETCDF_LOCK, open_bytes(content) as nc:
            if not is_sealed:
                refuse_lost_seal(nc, path)
            return _points_in(nc)
    except ResultsError as err:
        raise ResultsError(f"{err.message}; {_ANEW}", path) from err
    except Exception as err:  # an old file without a seal may hold anything, and the library raise anything
        raise ResultsError(f"cannot read: {err}; {_ANEW}", path) from err


def _points_in(nc: Any) -> PointTable:
    nc.set_auto_maskandscale(False)
    params = [
        Param(n, v.config_path, getattr(v, "units", ""), _values(v))
        for n, v in nc.variables.items()
        if "config_path" in v.ncattrs()
    ]
    ids, base, grid = (nc[n][:] for n in ("point_id", "is_baseline", "in_grid"))
    return PointTable(ids, base.astype(bool), grid.astype(bool), tuple(params))


def _values(var: Any) -> tuple[Any, ...]:
    values = var[:].tolist()
    boolean = "dtype" in var.ncattrs() and var.getncattr("dtype") == "bool"
    return tuple(bool(v) for v in values) if boolean else tuple(values)


def put_points(nc: Any, table: PointTable) -> None:
    """Write the points and the values of the swept keys into an open file."""
    nc.createDimension("point", len(table.point_id))
    put_variable(
        nc, "point", ("point",), np.arange(len(table.point_id)), attrs={"long_name": "place in the design"}
    )
    marks = {
        "point_id": (table.point_id, "identity of the scenario, shown as 16 hex digits"),
        "is_baseline": (table.baseline, "point the others are compared with"),
        "in_grid": (table.in_grid, "point belongs to the grid"),
    }
    for name, (values, long_name) in marks.items():
        put_variable(nc, name, ("point",), values, attrs={"long_name": long_name})
    for param in table.params:
        attrs = {"long_name": param.path, "config_path": param.path, "units": param.units}
        put_variable(nc, param.name, ("point",), np.array(param.values), attrs=attrs)
