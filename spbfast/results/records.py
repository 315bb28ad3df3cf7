"""Event records in files and as text.

Owns their layout in netCDF (a group `records/KIND` for each kind, with the dimension `record`) and the text
of a line, which is that of the kernel's trace files. The fields themselves are in outputs/tracepoints.py.
Never runs a simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spbfast.errors import QuestionError, ResultsError
from spbfast.outputs.tracepoints import KINDS, RecordField, check_names
from spbfast.places import check_readable
from spbfast.sweep.store.atomic import atomic_file
from spbfast.sweep.store.consolidate import PURPOSE
from spbfast.sweep.store.netcdf import NETCDF_LOCK, open_netcdf, write_dataset
from spbfast.sweep.store.seal import SEALED, has_good_seal, seal_file
from spbfast.sweep.store.shards import put_variable

if TYPE_CHECKING:
    import xarray as xr

    from spbfast.model.collect import Records

GROUP = "records"
FILE_WIDE = ("dropped", "zones")  # of a kind as a whole, not of a record
VMEMMAP, STRUCT_PAGE = 0xFFFFEA0000000000, 64  # x86-64 without KASLR
COMMON = (
    RecordField("time", "f8", "simulated time since the end of boot", units="s"),
    RecordField("seq", "i8", "number of the record among those of all kinds: their order"),
    RecordField("replicate", "i4", "replicate number"),
)
ZONES = ("Normal",)
TASK = "spbfast-0"
SHAPE = ("start_pfn", "pages", "first_pfn", "spb_pages", "cpus", "batch", "high_min", "high_max")


def write_run(
    path: Path,
    dataset: xr.Dataset,
    runs: Sequence[Mapping[str, Records]] = (),
    shapes: Sequence[Mapping[str, int]] = (),
) -> None:
    """Write a run's dataset, and the records of its replicates as groups of the same file, atomically.

    Parameters
    ----------
    path : path
        The netCDF file.
    dataset : Dataset
        What `simulate` returns.
    runs : sequence of mapping
        Records by kind, one mapping a replicate.
    shapes : sequence of mapping
        By zone, the numbers named in `SHAPE`: an export of the events says from them what zone they are of.

    Raises
    ------
    ResultsError
        When the file cannot be written.
    """
    with atomic_file(path) as tmp:
        write_dataset(dataset.assign_attrs({SEALED: 1}), tmp)
        if any(runs):
            zones = [str(zone) for zone in dataset["zone"].values] if "zone" in dataset.coords else ZONES
            zone = RecordField("zone", "i1", "zone", names=tuple(zones))
            with NETCDF_LOCK, open_netcdf(tmp, "a") as nc:
                group = nc.createGroup(GROUP)
                _put_records(group, runs, zone)
                group.setncatts({f"zone_{n}": np.array([s[n] for s in shapes]) for n in SHAPE if shapes})
        seal_file(tmp, PURPOSE)


def _put_records(root: Any, runs: Sequence[Mapping[str, Records]], zone: RecordField) -> None:
    root.setncatts({"title": "event records", "source": "one group per kind of event, see docs/records.md"})
    for name in KINDS:
        parts = [run[name] for run in runs if name in run]
        if not parts:
            continue
        group = root.createGroup(name)
        lengths = [len(part.columns["time"]) for part in parts]
        group.createDimension("record", sum(lengths))
        dropped = sum(part.dropped for part in parts)
        attrs = {"long_name": KINDS[name].long_name, "dropped": dropped, "Conventions": "CF-1.11"}
        group.setncatts(attrs)
        for column in (*COMMON, zone, *KINDS[name].fields):
            if column.name == "replicate":
                values = np.repeat(np.arange(len(parts), dtype="i4"), lengths)
            else:
                values = np.concatenate([part.columns[column.name] for part in parts])
            put_variable(group, column.name, ("record",), values, dtype=column.dtype, attrs=_attrs(column))


def _attrs(column: RecordField) -> dict[str, Any]:
    """CF attributes of a column."""
    attrs: dict[str, Any] = {"long_name": column.long_name, "units": column.units}
    if column.names:
        attrs["flag_values"] = np.arange(len(column.names), dtype=column.dtype)
        attrs["flag_meanings"] = " ".join(column.names)
    if column.bits:
        attrs["flag_masks"] = np.array(sorted(column.bits), dtype=column.dtype)
        attrs["flag_meanings"] = " ".join(column.bits[bit] for bit in sorted(column.bits))
    return attrs


# -- reading and text ---------------------------------------------------------------------------


def read_records(path: str | Path, kinds: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Columns of the kinds of records in a file.

    Parameters
    ----------
    path : path
        A file that `spbfast run -o FILE --records ...` wrote.
    kinds : sequence of str
        Kinds to read; all by default.

    Raises
    ------
    ResultsError
        No such file, or no such records in it.
    """
    try:
        wanted = check_names(tuple(kinds))
    except ValueError as err:
        raise ResultsError(str(err)) from err
    try:
        check_readable(Path(path))
        has_good_seal(Path(path), PURPOSE)
        with NETCDF_LOCK, open_netcdf(path) as nc:
            nc.set_auto_maskandscale(False)
            groups = nc.groups[GROUP].groups if GROUP in nc.groups else {}
            found = {name: _columns(groups[name]) for name in KINDS if name in groups}
    except (OSError, RuntimeError) as err:
        raise ResultsError(f"cannot read: {getattr(err, 'strerror', None) or err}", Path(path)) from err
    if not found:
        raise ResultsError(
            "holds no records; write them with: spbfast run CFG -o FILE --records all", Path(path)
        )
    missing = [name for name in wanted if name not in found]
    if missing:
        raise QuestionError(
            f"holds no records of {', '.join(missing)}; there are: {', '.join(found)}", Path(path)
        )
    return {name: found[name] for name in (wanted or found)}


def read_shapes(path: Path) -> list[dict[str, int]]:
    """By zone, what an export of page events tells of it (`SHAPE`).

    Raises
    ------
    ResultsError
        When the file does not say it.
    """
    with NETCDF_LOCK, open_netcdf(path) as nc:
        group = nc.groups[GROUP]
        names = set(group.ncattrs())
        if any(f"zone_{name}" not in names for name in SHAPE):
            raise ResultsError("does not say what its zones are; it is of an earlier version", path)
        columns = [np.atleast_1d(group.getncattr(f"zone_{name}")).tolist() for name in SHAPE]
    return [dict(zip(SHAPE, row, strict=True)) for row in zip(*columns, strict=True)]


def _columns(group: Any) -> dict[str, np.ndarray]:
    columns = {name: np.asarray(var[:]) for name, var in group.variables.items()}
    columns["dropped"] = np.asarray(group.getncattr("dropped"))
    columns["zones"] = np.array(group["zone"].getncattr("flag_meanings").split())
    return columns


def lines_of(found: Mapping[str, Mapping[str, np.ndarray]], head: int | None = None) -> Iterator[str]:
    """Records of several kinds as lines of a kernel trace, in the order in which they happened."""
    names = list(found)
    if not names:
        return
    kind = np.concatenate([np.full(len(found[name]["seq"]), i) for i, name in enumerate(names)])
    row = np.concatenate([np.arange(len(found[name]["seq"])) for name in names])
    seq = np.concatenate([found[name]["seq"] for name in names])
    replicate = np.concatenate([found[name]["replicate"] for name in names])
    order = np.lexsort((seq, replicate))[:head]
    several = len(np.unique(replicate)) > 1
    before = None
    for at in order:
        if several and replicate[at] != before:
            before = replicate[at]
            yield f"# replicate {before}"
        name = names[kind[at]]
        record = {k: v[row[at]] for k, v in found[name].items() if k not in FILE_WIDE}
        yield line_of(name, record, [str(zone) for zone in found[name]["zones"]])


def line_of(name: str, record: Mapping[str, Any], zones: Sequence[str] = ZONES) -> str:
    """One record as a line of a kernel trace."""
    shown = [_shown(column, record[column.name]) for column in KINDS[name].fields if not column.is_head]
    if KINDS[name].has_zone:
        shown.insert(0, f"zone={zones[int(record['zone'])]}")
    if name.startswith("mm_"):
        shown.insert(0, f"page=0x{VMEMMAP + STRUCT_PAGE * int(record['pfn']):x}")
    cpu = int(record.get("cpu", 0))
    return f"{TASK:>16}     [{cpu:03d}] ..... {float(record['time']):12.6f}: {name}: {' '.join(shown)}"


def _shown(column: RecordField, value: Any) -> str:
    if column.is_page:
        return f"{column.name}=0x{int(value):x}"
    if column.units == "s":
        return f"{column.name}={float(value):.9f}"
    number = int(value)
    if column.names and not column.name.endswith(("mt", "migratetype")):
        return f"{column.name}={column.names[number]}"
    if column.name == "gfp":
        return f"{column.name}={_bits(column, number)}"
    return f"{column.name}=0x{number:x}" if column.bits else f"{column.name}={number}"


def _bits(column: RecordField, number: int) -> str:
    return "|".join(text for bit, text in sorted(column.bits.items()) if number & bit) or "0"
