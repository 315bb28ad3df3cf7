"""Shards: the netCDF files that workers write, one per batch.

Owns the layout of a shard (dimension `cell`, then the dimensions of each variable) and the alignment of
runs whose time axes or counters differ. A shard is written once, sealed, and never reopened for writing; it
is read into memory, its seal checked, and only then given to the netCDF library. Uses that library directly:
xarray inside a Dask worker is 14 times slower.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.jit.sources import kernel_hash
from spbfast.outputs.variables import COORDS, VARIABLES
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_bytes
from spbfast.sweep.store.seal import has_good_seal, read_sealed, refuse_lost_seal, sealed_netcdf

OK, FAILED, TIMEOUT, LOST, INTERRUPTED, MISSING, UNNEEDED = range(7)
STATUS_NAMES = ("ok", "failed", "timeout", "lost", "interrupted", "missing", "unneeded")
SETTLED = (OK, FAILED, TIMEOUT)

# Facts about a run that are not model output: name -> (dtype, fill, units, long_name).
FACTS: dict[str, tuple[str, int | float, str, str]] = {
    "status": ("i1", MISSING, "1", "how the run ended"),
    "seed": ("u8", 0, "1", "root seed of the run"),
    "digest": ("u8", 0, "1", "digest of the final state, the same on every machine"),
    "demand_digest": ("u8", 0, "1", "digest of the demand, equal where replicates can be paired"),
    "events": ("i8", -1, "1", "page events simulated"),
    "wall_time": ("f8", float("nan"), "s", "time the run took, boot included"),
    "boot_time": ("f8", float("nan"), "s", "part of wall_time spent before simulated time 0"),
    "source_hash": ("u8", 0, "1", "hash of the kernels' sources that made the run; 0 if unknown"),
}
# Every chunk has a sum of its own, which is checked when it is read.
_PACKED: dict[str, Any] = {"compression": "zlib", "complevel": 1, "shuffle": True, "fletcher32": True}
# These differ from one execution to the next; everything else must not.
VOLATILE_FACTS = ("wall_time", "boot_time", "source_hash")


@dataclass(slots=True)
class CellResult:
    """What one run left behind; `data` is empty unless `status` is OK, `account` says what went wrong."""

    cell: Cell
    status: int
    facts: dict[str, int | float] = field(default_factory=dict)
    data: dict[str, np.ndarray] = field(default_factory=dict)
    coords: dict[str, np.ndarray] = field(default_factory=dict)
    account: dict[str, Any] | None = None


@dataclass(slots=True)
class Shard:
    """A shard in memory: arrays with the cell axis first, missing values as stored."""

    cells: list[Cell]
    facts: dict[str, np.ndarray]
    data: dict[str, np.ndarray]
    coords: dict[str, np.ndarray]


def scalars_of(shard: Shard, name: str) -> list[float | None]:
    """A scalar output of every cell of a shard, None where there is none."""
    if name not in shard.data:
        return [None] * len(shard.cells)
    ok = (shard.facts["status"] == OK).tolist()
    values = shard.data[name].astype(float).tolist()
    return [value if good else None for value, good in zip(values, ok, strict=True)]


def union_coords(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Union of the labels along every dimension that any part has."""
    names = sorted({n for p in parts for n in p})
    return {n: _union_labels(n, [p[n] for p in parts if n in p]) for n in names}


def _union_labels(name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Labels that cover all parts, in an order that does not depend on how cells were batched."""
    if all(np.array_equal(p, parts[0]) for p in parts[1:]):
        return parts[0]
    if COORDS[name].dtype == "O":
        return np.array(sorted({str(v) for p in parts for v in p}), dtype=object)
    return np.unique(np.concatenate(parts))


def place(
    target: np.ndarray,
    values: np.ndarray,
    dims: Sequence[str],
    own: Mapping[str, np.ndarray],
    full: Mapping[str, np.ndarray],
) -> None:
    """Copy one cell's array into `target` (leading axis of length 1), from labels `own` to labels `full`."""
    if all(np.array_equal(own[d], full[d]) for d in dims):
        target[0] = values
        return
    order = [{label: i for i, label in enumerate(full[d].tolist())} for d in dims]
    where = [[at[label] for label in own[d].tolist()] for at, d in zip(order, dims, strict=True)]
    target[0][np.ix_(*where)] = values


def put_variable(
    nc: Any,
    name: str,
    dims: Sequence[str],
    values: Any,
    *,
    dtype: Any = None,
    fill: Any = None,
    attrs: Mapping[str, Any] | None = None,
    chunks: Sequence[int] | None = None,
) -> Any:
    """Create a variable, compressed unless it is text or scalar, and fill it if `values` is not None.

    Booleans are stored as bytes with the mark by which xarray gives them back as booleans.
    """
    array = None if values is None else np.asarray(values)
    own = {k: v for k, v in (attrs or {}).items() if v is not None and not (isinstance(v, str) and v == "")}
    if dtype is None and array is not None:
        dtype = array.dtype
    kind = "U" if dtype is str else np.dtype(dtype).kind
    if kind in "OUS":
        var = nc.createVariable(name, str, tuple(dims))
        if array is not None:
            var[:] = np.array([str(v) for v in array.ravel()], dtype=object).reshape(array.shape)
    else:
        packed: dict[str, Any] = dict(_PACKED) if dims else {}
        if chunks is not None and dims:
            packed["chunksizes"] = tuple(chunks)
        if kind == "b":
            dtype, own["dtype"] = "i1", "bool"
        var = nc.createVariable(name, dtype, tuple(dims), fill_value=fill, **packed)
        var.set_auto_maskandscale(False)
        if array is not None:
            var[...] = array.astype("i1") if kind == "b" else array
    var.setncatts(own)
    return var


def put_labels(nc: Any, coords: Mapping[str, np.ndarray], attrs: Mapping[str, Any] | None = None) -> None:
    """Create dimensions with their labels; `attrs` by dimension."""
    for name, labels in coords.items():
        nc.createDimension(name, len(labels))
        dtype = str if COORDS[name].dtype == "O" else COORDS[name].dtype
        put_variable(nc, name, (name,), labels, dtype=dtype, attrs=(attrs or {}).get(name))


def write_shard(path: Path, results: Sequence[CellResult]) -> None:
    """Write the results of one batch as one file, atomically.

    Raises
    ------
    ResultsError
        When the file cannot be written.
    """
    coords = union_coords([r.coords for r in results if r.status == OK])
    names = list(dict.fromkeys(n for r in results for n in r.data))
    with sealed_netcdf(path, path.stem) as nc:
        _fill_shard(nc, results, coords, names)


def _fill_shard(
    nc: Any, results: Sequence[CellResult], coords: Mapping[str, np.ndarray], names: Sequence[str]
) -> None:
    nc.createDimension("cell", len(results))
    put_variable(nc, "point_id", ("cell",), np.array([r.cell.point_id for r in results], "u8"))
    put_variable(nc, "replicate", ("cell",), np.array([r.cell.replicate for r in results], "i4"))
    for name, (dtype, fill, _, _) in FACTS.items():
        column = [_facts_of(r).get(name, fill) for r in results]
        put_variable(nc, name, ("cell",), np.array(column, dtype))
    put_labels(nc, coords)
    for name in names:
        var = VARIABLES[name]
        block = np.full((len(results), *(len(coords[d]) for d in var.dims)), var.fill, var.dtype)
        for row, result in enumerate(results):
            if name in result.data:
                place(block[row : row + 1], result.data[name], var.dims, result.coords, coords)
        put_variable(nc, name, ("cell", *var.dims), block, fill=var.fill, chunks=(1, *block.shape[1:]))


def _facts_of(result: CellResult) -> dict[str, int | float]:
    return {**result.facts, "status": result.status, "source_hash": kernel_hash()}


def read_shard(path: Path, *, data: bool | Container[str] = True) -> Shard:
    """Read a shard; of the variables all, none (`data=False`) or those named, the others being empty.

    Raises
    ------
    ResultsError
        When the file is not a readable shard.
    """
    with NETCDF_LOCK:
        return read_shard_locked(path, data=data)


def read_shard_locked(path: Path, *, data: bool | Container[str] = True) -> Shard:
    """The same for callers that hold NETCDF_LOCK, which is not reentrant."""
    content, is_sealed = read_sealed(path, path.stem)
    try:
        with open_bytes(content) as nc:
            if not is_sealed:
                refuse_lost_seal(nc, path)
            return _shard_in(nc, data)
    except ResultsError:
        raise
    except Exception as err:  # an old shard without a seal may hold anything, and the library raise anything
        raise ResultsError(f"not a readable shard: {err}", path) from err


def _shard_in(nc: Any, data: bool | Container[str]) -> Shard:
    nc.set_auto_maskandscale(False)
    ids = nc["point_id"][:].tolist()
    reps = nc["replicate"][:].tolist()
    cells = [Cell(int(p), int(r)) for p, r in zip(ids, reps, strict=True)]
    facts = {
        # Shards from before a fact was there know nothing of it.
        name: nc[name][:] if name in nc.variables or name == "status" else np.full(len(cells), fill, dtype)
        for name, (dtype, fill, _, _) in FACTS.items()
    }
    coords = {n: nc[n][:] for n in COORDS if n in nc.variables}
    names = [n for n in nc.variables if n in VARIABLES]
    chosen = names if data is True else [] if data is False else [n for n in names if n in data]
    arrays = {n: nc[n][...] if n in chosen else np.empty(0) for n in names}
    return Shard(cells, facts, arrays, coords)


def fault_of(path: Path) -> str:
    """What is wrong with a shard, "" if nothing is: its seal, or all it holds if it is from before seals."""
    try:
        if not has_good_seal(path, path.stem):
            read_shard(path)
    except ResultsError as err:
        return err.message
    return ""
