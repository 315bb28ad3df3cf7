"""The inputs of a sweep, kept in its results directory so that it can be continued from there alone.

Owns config.yaml, config.base.yaml, config.inputs.json and the copy of the file of points, and the way back
from a directory to its job. A saved state and a recording are too large to be copied: their place is kept,
and their digest is part of every point's identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spbfast.config.job import Job
from spbfast.config.load import load_config
from spbfast.errors import ResultsError
from spbfast.sweep.store.atomic import atomic_file, read_json, write_json, write_text

INPUTS = "config.inputs.json"
POINTS_STEM = "config.points"


def write_inputs(directory: Path, job: Any) -> None:
    """Keep the configuration, its base, overrides, and the file of points."""
    write_text(directory / "config.yaml", str(job.source_text or ""))
    if job.base_text:
        write_text(directory / "config.base.yaml", str(job.base_text))
    kept: dict[str, Any] = {"overrides": list(job.overrides), "grid": list(job.grid_overrides)}
    if job.scenario.start is not None:
        kept["state"] = job.scenario.start.state
    if job.scenario.machine.files:
        kept["machine"] = list(job.scenario.machine.files)
    if job.scenario.replay is not None:
        kept["recordings"] = job.scenario.replay.folder
    points = job.points_file
    if points is not None:
        name = f"{POINTS_STEM}{Path(points.name).suffix.lower()}"
        kept |= {"points_file": name, "points_sha256": points.sha256, "points_name": points.name}
        with atomic_file(directory / name) as tmp:
            tmp.write_bytes(points.content)
    write_json(directory / INPUTS, kept)


def load_stored(directory: str | Path, extra: Sequence[str] = ()) -> Job:
    """The job that a results directory belongs to.

    Parameters
    ----------
    extra : sequence of str
        Further overrides, as for `load_config`.

    Raises
    ------
    ResultsError
        When the directory does not hold what is needed.
    ConfigError
        When this version of spbfast no longer accepts the configuration.
    """
    directory = Path(directory)
    config = directory / "config.yaml"
    if not config.is_file():
        raise ResultsError("not a results directory that can be continued: it has no config.yaml", directory)
    kept: dict[str, Any] = {}
    if (directory / INPUTS).is_file():
        found = read_json(directory / INPUTS)
        kept = found if isinstance(found, dict) else {}
    stand_ins = {"extends": directory / "config.base.yaml"}
    name = str(kept.get("points_file", ""))
    if name:
        if Path(name).name != name:
            raise ResultsError(f"{INPUTS} names a file outside of the directory: {name!r}", directory)
        stand_ins["points_file"] = directory / name
    if kept.get("state"):
        stand_ins["state"] = Path(str(kept["state"]))
    if kept.get("recordings"):
        stand_ins["trace"] = Path(str(kept["recordings"]))
    overrides = [*kept.get("overrides", ()), *extra]
    machine = [Path(str(name)) for name in kept.get("machine", ())] or None
    return load_config(
        config, overrides, grid=kept.get("grid", ()), stand_ins=stand_ins, machine_files=machine
    )
