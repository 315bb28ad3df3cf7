"""From shards to results.nc, the one file that users open.

Owns the schema of results.nc (dimension point with its parameters as coordinates, replicate, then those of
each variable) and the digest of all results. Streams blocks of points, so memory does
not grow with the sweep. Never runs simulations and never changes a shard; damaged ones are set aside.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.errors import ResultsError
from spbfast.outputs.variables import COORDS, VARIABLES
from spbfast.sweep.points.plan import Cell
from spbfast.sweep.store.decisions import Decisions, read_decisions
from spbfast.sweep.store.directory import Store, quarantine
from spbfast.sweep.store.manifest import kept_replicates, origin_attrs
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_netcdf
from spbfast.sweep.store.pointtable import PointTable, put_points, read_points
from spbfast.sweep.store.seal import has_good_seal, refuse_lost_seal, sealed_netcdf
from spbfast.sweep.store.shards import (
    FACTS,
    OK,
    STATUS_NAMES,
    UNNEEDED,
    VOLATILE_FACTS,
    place,
    put_labels,
    put_variable,
    read_shard,
    read_shard_locked,
    union_coords,
)

PURPOSE = "results"
BLOCK_BYTES = 32 << 20
CHUNK_BYTES = 1 << 20
WHOLE_BYTES = 8 << 20


@dataclass(slots=True)
class _Source:
    """Which row of which shard holds each cell, and the labels of all of them together.

    `needed` are the replicates that each point has to have; it may have more. `damaged` grows when the data
    of a shard without a seal turn out to be unreadable.
    """

    rows: dict[Cell, tuple[Path, int]]
    failed: set[Cell]
    decisions: Decisions | None
    needed: np.ndarray
    coords: dict[str, np.ndarray]
    names: list[str]
    damaged: dict[Path, str]


def consolidate(directory: str | Path, target: Path | None = None) -> Path:
    """Write results.nc from whatever is done so far.

    Parameters
    ----------
    directory : path
        A results directory.
    target : path, optional
        Where to write instead.

    Returns
    -------
    Path
        The file, with cells that have no result filled and marked in `status`.

    Raises
    ------
    ResultsError
        When this is not a results directory or the file cannot be written.
    """
    final, damaged = write_results(Store(directory), target)
    if damaged:
        warnings.warn(damage_words(damaged), stacklevel=2)
    return final


def damage_words(damaged: Mapping[Path, str]) -> str:
    """What happened to damaged shards."""
    path, why = next(iter(damaged.items()))
    first = f"{len(damaged)} shards are damaged and left out, such as {path}, which {why}"
    return f"{first}; continue the sweep, and their runs go again"


def write_results(store: Store, target: Path | None = None) -> tuple[Path, dict[Path, str]]:
    """Write results.nc; the file, and the damaged shards by what is wrong with them.

    Damaged shards are set aside, unless the file is written to another place: then the directory may be
    somebody else's, and is left as it is.

    Raises
    ------
    ResultsError
        As for `consolidate`.
    """
    manifest = store.manifest()
    table = read_points(store.points_path)
    final = target or store.results_path
    damaged: dict[Path, str] = {}
    known = -1
    while len(damaged) != known:
        source = _find(store, manifest, table, damaged)
        known = len(damaged)
        with sealed_netcdf(final, PURPOSE) as nc:
            _write(nc, store, manifest, table, source)
    if target is None:
        for path in damaged:
            quarantine(path)
    return final, damaged


def _find(store: Store, manifest: Mapping[str, Any], table: PointTable, damaged: dict[Path, str]) -> _Source:
    """Choose one row per cell: a success before anything else, then the latest try."""
    replicates = kept_replicates(manifest)
    wanted = {int(p) for p in table.point_id}
    order = {r["batch"]: i for i, r in enumerate(store.receipts())}
    paths = sorted(store.shard_paths(), key=lambda p: (order.get(p.stem, len(order)), p.name))
    rows: dict[Cell, tuple[Path, int]] = {}
    failed: set[Cell] = set()
    labels, names = {}, {}
    for path in paths:
        if path in damaged:
            continue
        try:
            shard = read_shard(path, data=False)
        except ResultsError as err:
            damaged[path] = err.message
            continue
        labels[path], names[path] = shard.coords, list(shard.data)
        for row, cell in enumerate(shard.cells):
            if cell.point_id not in wanted or cell.replicate >= replicates:
                continue
            if cell not in rows or cell in failed:
                rows[cell] = (path, row)
                (failed.discard if shard.facts["status"][row] == OK else failed.add)(cell)
    decisions = _decisions(store, manifest, table)
    everywhere = np.full(len(table.point_id), int(manifest["replicates"]))
    used = {path for path, _ in rows.values()}
    found = {n for p in used for n in names[p]}
    return _Source(
        rows,
        failed,
        decisions,
        everywhere if decisions is None else decisions.needed,
        union_coords([labels[p] for p in paths if p in used and labels[p]]),
        [n for n in VARIABLES if n in found],
        damaged,
    )


def _decisions(store: Store, manifest: Mapping[str, Any], table: PointTable) -> Decisions | None:
    """What a rule decided, if the job has one; a job before it may have left a file."""
    if "replicates_min" not in manifest:
        return None
    return read_decisions(store.dir, table.point_id, int(manifest["replicates_min"]))


def _write(nc: Any, store: Store, manifest: Mapping[str, Any], table: PointTable, source: _Source) -> None:
    replicates = _nr_replicates(manifest, source)
    put_points(nc, table)
    if source.decisions is not None:
        _put_decisions(nc, source.decisions)
    nc.createDimension("replicate", replicates)
    put_variable(
        nc, "replicate", ("replicate",), np.arange(replicates), attrs={"long_name": "replicate number"}
    )
    # No axis T: the CF conventions keep it for calendar time, and this is time since the end of boot.
    attrs = {n: {k: v for k, v in COORDS[n].attrs().items() if k != "direction"} for n in source.coords}
    put_labels(nc, source.coords, attrs)
    coordinates = " ".join(["point_id", "is_baseline", "in_grid", *(p.name for p in table.params)])
    per_point = _create_variables(nc, source, replicates, len(table.point_id), coordinates)
    step = max(1, min(len(table.point_id), BLOCK_BYTES // max(1, per_point)))
    for start in range(0, len(table.point_id), step):
        _write_block(nc, table.point_id[start : start + step].tolist(), start, replicates, source)
    nc.setncatts(_global_attrs(store, manifest, table, source))


def _nr_replicates(manifest: Mapping[str, Any], source: _Source) -> int:
    """Length of the dimension: the replicates of every point, or the most that any point needs or has."""
    if source.decisions is None:
        return kept_replicates(manifest)
    return max(source.decisions.needed.max(), *(cell.replicate + 1 for cell in source.rows), 1)


def _put_decisions(nc: Any, found: Decisions) -> None:
    """How many replicates each point needed, and the interval that decided it."""
    units = VARIABLES[found.metric].units
    columns = {
        "replicates_needed": (found.needed, "replicates after which the point had enough", "1"),
        "half_width": (found.half_width, f"half width of the interval of {found.metric}", units),
        "is_narrow": (found.is_narrow, "whether the interval is as narrow as wanted", ""),
    }
    for name, (values, long_name, unit) in columns.items():
        put_variable(nc, name, ("point",), values, attrs={"long_name": long_name, "units": unit})


def _create_variables(nc: Any, source: _Source, replicates: int, n_points: int, coordinates: str) -> int:
    """Create the empty variables; returns the bytes that one point takes in all of them."""
    for name, (dtype, fill, units, long_name) in FACTS.items():
        attrs: dict[str, Any] = {"long_name": long_name, "units": units, "coordinates": coordinates}
        if name == "status":
            attrs["flag_values"] = np.arange(len(STATUS_NAMES), dtype="i1")
            attrs["flag_meanings"] = " ".join(STATUS_NAMES)
        # Seeds, digests and states are labels: a fill value would make xarray turn them into floats.
        marked = name not in ("status", "seed", "digest", "demand_digest", "source_hash")
        put_variable(
            nc, name, ("point", "replicate"), None, dtype=dtype, fill=fill if marked else None, attrs=attrs
        )
    total = 0
    for name in source.names:
        var = VARIABLES[name]
        shape = tuple(len(source.coords[d]) for d in var.dims)
        bytes_per_point = replicates * int(np.prod(shape, dtype=np.int64)) * np.dtype(var.dtype).itemsize
        total += bytes_per_point
        chunk = max(1, min(n_points, 512, CHUNK_BYTES // max(1, bytes_per_point)))
        put_variable(
            nc,
            name,
            ("point", "replicate", *var.dims),
            None,
            dtype=var.dtype,
            fill=var.fill,
            attrs=var.attrs() | {"coordinates": coordinates},
            chunks=(chunk, replicates, *shape),
        )
    return total


def _write_block(nc: Any, ids: Sequence[int], start: int, replicates: int, source: _Source) -> None:
    """Gather the cells of some consecutive points and write them with one call per variable."""
    shape = (len(ids), replicates)
    facts = {n: np.full(shape, fill, dtype) for n, (dtype, fill, _, _) in FACTS.items()}
    blocks = {
        n: np.full(
            (*shape, *(len(source.coords[d]) for d in VARIABLES[n].dims)),
            VARIABLES[n].fill,
            VARIABLES[n].dtype,
        )
        for n in source.names
    }
    needed = source.needed[start : start + len(ids), None]
    facts["status"][np.arange(replicates) >= needed] = UNNEEDED
    by_shard: dict[Path, list[tuple[int, int, int]]] = defaultdict(list)
    for i, point in enumerate(ids):
        for r in range(replicates):
            if (found := source.rows.get(Cell(point, r))) is not None:
                by_shard[found[0]].append((found[1], i, r))
    for path, places in by_shard.items():
        try:
            shard = read_shard_locked(path)
        except ResultsError as err:
            source.damaged[path] = err.message
            continue
        for row, i, r in places:
            for name in FACTS:
                facts[name][i, r] = shard.facts[name][row]
            if shard.facts["status"][row] == OK:
                for name, values in shard.data.items():
                    dims = VARIABLES[name].dims
                    place(blocks[name][i, r : r + 1], values[row], dims, shard.coords, source.coords)
    for name, values in (facts | blocks).items():
        nc[name][start : start + len(ids)] = values


def _global_attrs(
    store: Store, manifest: Mapping[str, Any], table: PointTable, source: _Source
) -> dict[str, Any]:
    config = store.dir / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    rule = {} if source.decisions is None else {"replicates_rule": source.decisions.rule}
    needed = dict(zip(table.point_id.tolist(), source.needed.tolist(), strict=True))
    present = sum(cell.replicate < needed[cell.point_id] for cell in source.rows)
    # Where the points leave the run that they share.
    branch = {"branch_at_s": manifest["branch_at_s"]} if "branch_at_s" in manifest else {}
    return {
        **branch,
        **rule,
        **origin_attrs(manifest, text),
        "n_points": len(table.point_id),
        "n_replicates": _nr_replicates(manifest, source),
        "n_failed": len(source.failed),
        "n_missing": int(source.needed.sum()) - present,
        "sweep_params": " ".join(p.name for p in table.params),
    }


def results_digest(directory: str | Path) -> str:
    """16 hex digits over all results of a directory or a results.nc.

    Points are taken in the order of their identity and values as stored, so the digest does not depend on
    the order of the grid, on batches, threads, processes or interruptions. Times of execution are left out.

    Raises
    ------
    ResultsError
        When there is no results.nc, or it is damaged.
    """
    path = Path(directory)
    path = path / "results.nc" if path.is_dir() else path
    is_sealed = has_good_seal(path, PURPOSE)
    hasher = hashlib.blake2b(digest_size=8)
    with NETCDF_LOCK:
        try:
            with open_netcdf(path) as nc:
                if not is_sealed:
                    refuse_lost_seal(nc, path)
                nc.set_auto_maskandscale(False)
                for piece in _digest_pieces(nc):
                    hasher.update(piece)
        except (OSError, RuntimeError, IndexError) as err:
            raise ResultsError(f"cannot read: {err}", path) from err
    return hasher.hexdigest()


def _digest_pieces(nc: Any) -> Iterator[bytes]:
    ids = nc["point_id"][:]
    names = sorted(n for n in nc.variables if n in VARIABLES or (n in FACTS and n not in VOLATILE_FACTS))
    for name in sorted(n for n in COORDS if n in nc.variables):
        yield f"{name}={nc[name][:].tolist()};".encode()
    # Small variables are read at once: a read of each of their rows takes longer than the digest.
    whole = {n: nc[n][:] if nc[n].size * nc[n].dtype.itemsize <= WHOLE_BYTES else nc[n] for n in names}
    for row in np.argsort(ids).tolist():
        yield f"{int(ids[row]):016x}".encode()
        for name in names:
            values = np.ascontiguousarray(whole[name][row])
            yield f"{name}{values.dtype.str}{values.shape}".encode() + values.tobytes()
