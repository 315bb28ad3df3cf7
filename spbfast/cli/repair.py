"""Is a results directory in order, and what sets it right?

Owns the directory's part of `spbfast doctor`, and its repair: the journal made anew from the shards,
unreadable shards set aside, leftovers removed, results.nc written again. A repair holds the directory's lock
and deletes nothing that a user wrote.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from spbfast.cli.doctor import BAD, CAUTION, GOOD, SPACE_MIN, Finding, check_netcdf, guarded
from spbfast.errors import ConfigError, ResultsError
from spbfast.places import open_to_read
from spbfast.text import format_bytes


def check_directory(directory: str | Path) -> Iterator[Finding]:
    """The file system under a results directory, and whether its parts agree; changes nothing.

    Raises
    ------
    ResultsError
        When it is not a results directory.
    """
    from spbfast.sweep.store.directory import Store

    store = Store(directory)
    store.manifest()
    yield from guarded("file system", lambda: _file_system(store.dir))
    yield from guarded("inputs", lambda: _inputs(store))
    yield from guarded("shards", lambda: _shards(store))
    yield from guarded("halfway", lambda: _halfway(store))
    yield from guarded("sources", lambda: _sources(store))
    yield from guarded("results.nc", lambda: _results(store))


def _file_system(directory: Path) -> Iterator[Finding]:
    if not os.access(directory, os.W_OK):
        yield Finding(
            "file system", CAUTION, f"{directory} is read-only for you; it can be read, not continued"
        )
        return
    free = shutil.disk_usage(directory).free
    level = GOOD if free > SPACE_MIN else BAD
    yield Finding("file system", level, f"{format_bytes(free)} free", "" if level == GOOD else "make room")
    with tempfile.TemporaryDirectory(prefix=".doctor-", suffix=".tmp", dir=directory) as scratch:
        yield from _exclusive(Path(scratch))
        yield from check_netcdf(Path(scratch))


def _exclusive(directory: Path) -> Iterator[Finding]:
    """What the lock of a directory rests on: exclusive creation and rename."""
    from spbfast.sweep.store.netcdf import why_no_locks

    probe = directory / "lock"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        os.rename(probe, directory / "grave")
        if not probe.exists():
            why = why_no_locks(directory)
            more = f"; files cannot be locked ({why}), which nothing here needs" if why else ""
            yield Finding("locks", GOOD, f"exclusive creation and rename work{more}")
            return
    yield Finding(
        "locks", BAD, "exclusive creation does not work here", "use another file system for results"
    )


def _halfway(store: Any) -> Iterator[Finding]:
    """Runs that were stopped on the way, and whether they can be continued."""
    from spbfast.sweep.store.halfway import fault_of_halfway, halfway_files

    paths = halfway_files(store.dir)
    broken = {path: why for path in paths if (why := fault_of_halfway(path))}
    if broken:
        path, why = next(iter(broken.items()))
        shown = f"{path.name}, which {why}"
        text = f"{len(broken)} of {len(paths)} stopped runs cannot be continued, such as {shown}"
        yield Finding("halfway", CAUTION, text, "the next start sets them aside and begins them anew")
    elif paths:
        yield Finding("halfway", GOOD, f"{len(paths)} stopped runs, which the next start continues")


def _sources(store: Any) -> Iterator[Finding]:
    """Whose kernels made the runs, those that are on their way included."""
    from spbfast.sweep.store.halfway import halfway_runs
    from spbfast.sweep.store.origins import UNKNOWN, other_sources, sources_here

    made = {str(receipt.get("sources", UNKNOWN)) for receipt in store.receipts()} - {UNKNOWN}
    made |= {run.sources for run in halfway_runs(store.dir)}
    if len(made) > 1:
        text = (
            f"the runs were made by {len(made)} different sources of the kernels: {', '.join(sorted(made))}"
        )
        yield Finding("sources", CAUTION, text, "ds.source_hash says which run is whose")
    elif others := other_sources(made):
        text = f"all runs were made by {others[0]}, this version is {sources_here()}"
        yield Finding("sources", GOOD, text, "to go on with it, give --allow-changed-sources")
    else:
        yield Finding("sources", GOOD, "all runs that say so were made by the kernels of this version")


def _inputs(store: Any) -> Iterator[Finding]:
    from spbfast.sweep.store.inputs import load_stored
    from spbfast.sweep.store.pointtable import read_points

    try:
        job = load_stored(store.dir)
        yield Finding("configuration", GOOD, f"{job.name}, can be continued: spbfast resume {store.dir}")
    except (ResultsError, ConfigError) as error:
        first = str(error).splitlines()[0]
        yield Finding("configuration", CAUTION, first, "results can be read but not resumed from here")
    points = read_points(store.points_path)
    yield Finding("points", GOOD, f"{len(points.point_id)} points")


def _shards(store: Any) -> Iterator[Finding]:
    from spbfast.sweep.store.atomic import is_leftover
    from spbfast.sweep.store.shards import fault_of

    listed = {str(r["batch"]) for r in _journal_lines(store)}
    paths = {p.stem: p for p in sorted(store.shards.glob("??/*.nc"))}
    broken = {path: why for path in paths.values() if (why := fault_of(path))}
    repair = "spbfast doctor DIR --repair sets things right"
    if broken:
        path, why = next(iter(broken.items()))
        text = f"{len(broken)} of {len(paths)} are damaged, such as {path.name}, which {why}"
        yield Finding("shards", BAD, text, repair)
    else:
        yield Finding("shards", GOOD, f"{len(paths)}, all as they were written")
    gone, unknown = len(listed - set(paths)), len(set(paths) - listed)
    if gone or unknown:
        text = f"the journal names {gone} shards that are gone and lacks {unknown}"
        yield Finding("journal", CAUTION, text, repair)
    else:
        yield Finding("journal", GOOD, f"{len(listed)} batches")
    left = [p for p in store.dir.rglob(".*.tmp") if is_leftover(p)]
    if left:
        yield Finding("leftovers", CAUTION, f"{len(left)} unfinished files of drivers or workers", repair)
    aside = list(store.shards.glob("??/*.unreadable*"))
    if aside:
        yield Finding("set aside", CAUTION, f"{len(aside)} damaged shards were set aside before")


def _journal_lines(store: Any) -> Iterator[dict[str, Any]]:
    """Whole lines of all journals, whether or not their shard is there."""
    from spbfast.sweep.store.receipts import receipt_in

    for path in sorted(store.dir.glob("journal*.jsonl")):
        with contextlib.suppress(OSError):
            with open_to_read(path) as file:
                lines = file.read().decode(errors="replace").splitlines()
            yield from filter(None, map(receipt_in, lines))


def _results(store: Any) -> Iterator[Finding]:
    if not store.results_path.exists():
        advice = "spbfast consolidate makes it"
        yield Finding("results.nc", CAUTION, "is not there; shards are read instead", advice)
        return
    from spbfast.results.open import open_results

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_results(store.results_path, load=False) as ds:
            text = f"{ds.sizes['point']} points x {ds.sizes['replicate']} replicates, "
            text += f"{ds.attrs.get('n_failed', 0)} failed, {ds.attrs.get('n_missing', 0)} missing"
    yield Finding("results.nc", GOOD, text)


def repair_directory(directory: str | Path, engine: str = "spbfast.model.engine") -> list[str]:
    """Set a results directory right; returns what was done, one line each.

    Raises
    ------
    ResultsError
        When it is not a results directory, a driver holds it, or it cannot be written.
    """
    from spbfast.sweep.store.atomic import remove_leftovers
    from spbfast.sweep.store.consolidate import write_results
    from spbfast.sweep.store.directory import Store, quarantine
    from spbfast.sweep.store.halfway import fault_of_halfway, halfway_files
    from spbfast.sweep.store.lock import DirectoryLock
    from spbfast.sweep.store.shards import fault_of

    store = Store(directory)
    if not store.manifest_path.is_file():
        store.manifest()
    done = []
    with DirectoryLock(store.dir):
        done += _rewrite_inputs(store, engine)
        n = remove_leftovers(store.dir)
        done += [f"removed {n} unfinished files"] if n else []
        for path in sorted(store.shards.glob("??/*.nc")):
            if why := fault_of(path):
                quarantine(path)
                done.append(f"set {path.name} aside, which {why}; continue the sweep, and its runs go again")
        for path in halfway_files(store.dir):
            if why := fault_of_halfway(path):
                quarantine(path)
                done.append(f"set {path.parent.name}/{path.name} aside, which {why}; its run begins anew")
        done += _rebuild_journal(store)
        write_results(store)
        done.append(f"wrote {store.results_path}")
    return done


def _rewrite_inputs(store: Any, engine: str) -> list[str]:
    """Make the manifest and points.nc anew from the configuration where they are damaged."""
    from spbfast.sweep.points.plan import make_plan
    from spbfast.sweep.store.checkedjson import write_checked
    from spbfast.sweep.store.inputs import load_stored
    from spbfast.sweep.store.manifest import default_command, make_manifest
    from spbfast.sweep.store.pointtable import read_points, write_points

    done = []
    try:
        version = store.manifest()["model_version"]
    except ResultsError:
        job = load_stored(store.dir)
        version = import_module(engine).MODEL_VERSION
        write_checked(store.manifest_path, make_manifest(make_plan(job, version), job, default_command()))
        done.append(f"wrote {store.manifest_path.name} anew from the configuration")
    try:
        read_points(store.points_path)
    except ResultsError:
        write_points(store.points_path, make_plan(load_stored(store.dir), version))
        done.append(f"wrote {store.points_path.name} anew from the configuration")
    return done


def _rebuild_journal(store: Any) -> list[str]:
    """A journal with one line for every shard: what was known of it, or what it says itself."""
    from spbfast.sweep.points.plan import Cell

    known = {str(r["batch"]): r for r in store.receipts()}
    shards = {p.stem for p in store.shards.glob("??/*.nc")}
    lines = {str(r["batch"]) for r in _journal_lines(store)}
    if lines == shards == set(known):
        return []
    for path in sorted(store.dir.glob("journal*.jsonl")):
        kept = path.with_name(f"{path.name}.old")
        n = 1
        while kept.exists():
            n += 1
            kept = path.with_name(f"{path.name}.old{n}")
        os.replace(path, kept)
    for receipt in known.values():
        cells = receipt.pop("cells")
        store.append(receipt, map(Cell.parse, cells))
    store.scan()
    return [f"made the journal anew from {len(shards)} shards; the old one is kept beside it"]
