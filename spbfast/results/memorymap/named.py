"""What a user names on the command line, as a film: a configuration, a results directory, a file.

Owns the choice by the form of what is named, and the errors where an option does not fit it. Runs of results
directories are simulated again, which gives the same bits, and only looked at.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError, QuestionError, ResultsError
from spbfast.observed.capture_file import is_capture
from spbfast.places import open_to_read
from spbfast.results.memorymap.captured import film_of_capture
from spbfast.results.memorymap.films import Film, record_film
from spbfast.results.memorymap.stored import film_of_file
from spbfast.sweep.points.plan import Plan
from spbfast.sweep.run.rerun import stored_plan, task_of
from spbfast.text import format_value

ENGINE = "spbfast.model.engine"
HDF5, NETCDF3 = b"\x89HDF\r\n\x1a\n", b"CDF"
BASELINE = "baseline"


@dataclass(frozen=True)
class Wish:
    """What to film.

    Attributes
    ----------
    source : Path
        A configuration or the name of a ready-made job, a results directory, a result file, a capture.
    point : str
        Of a directory or a result file: the point's identity, ``baseline``, or its number; "" for the first.
    replicate : int
        Which replicate.
    overrides : sequence of str
        Of a configuration: ``KEY=VALUE``.
    every : int or None
        Nanoseconds between frames of a run that is simulated.
    frame : int
        One that the film must have, which is asked before anything is simulated; -1 is the last.
    """

    source: Path
    point: str = ""
    replicate: int = 0
    overrides: Sequence[str] = field(default_factory=tuple)
    every: int | None = None
    frame: int = -1


def film_of(wish: Wish, say: Callable[[int, int], object] = lambda done, wanted: None) -> Film:
    """The film of what a user names.

    Raises
    ------
    ConfigError
        No such configuration, or an option that does not fit.
    ResultsError
        A directory or file that is none of ours.
    QuestionError
        No such point, replicate or frame.
    DumpError
        A damaged capture.
    SimulationError
        A kernel gave up.
    """
    if wish.source.is_dir():
        _refuse(wish, "a results directory", overrides=wish.overrides)
        return _of_directory(wish, say)
    head = _head_of(wish.source)
    if is_capture(head):
        _refuse(wish, "a capture", overrides=wish.overrides, every=wish.every, point=wish.point)
        if wish.replicate:
            raise ConfigError(f"{wish.source} is a capture, which has no replicates")
        return film_of_capture(wish.source)
    if head.startswith((HDF5, NETCDF3)):
        _refuse(wish, "a result file", overrides=wish.overrides, every=wish.every)
        return film_of_file(wish.source, _number(wish), wish.replicate)
    _refuse(wish, "a configuration", point=wish.point)
    return _of_config(wish, say)


def _refuse(wish: Wish, kind: str, **given: Any) -> None:
    """Say that an option does not fit what was named."""
    options = {"overrides": "--set and --versus are", "every": "--every is", "point": "--point is"}
    fits = {
        "overrides": "configurations",
        "every": "runs that are simulated",
        "point": "results directories and files",
    }
    for name, value in given.items():
        if value:
            raise ConfigError(f"{wish.source} is {kind}; {options[name]} for {fits[name]}")


def _head_of(path: Path) -> bytes:
    """A file's beginning; nothing where there is none, which may be the name of a ready-made job."""
    if not path.exists():
        return b""
    try:
        with open_to_read(path) as file:
            return file.read(16)
    except OSError as err:
        raise ResultsError(f"cannot read: {err.strerror}", path) from err


def _number(wish: Wish) -> int:
    if not wish.point:
        return 0
    if not wish.point.isdigit():
        raise QuestionError(
            f"points of a file are given by number, such as 0; got {wish.point!r}", wish.source
        )
    return int(wish.point)


def _of_config(wish: Wish, say: Callable[[int, int], object]) -> Film:
    from spbfast.config import load_config

    job = load_config(wish.source, wish.overrides, one_point=True)
    if not 0 <= wish.replicate < max(job.replicates, 1):
        raise ConfigError(f"there is no replicate {wish.replicate}; there are 0..{job.replicates - 1}")
    changed = "".join(f", {given}" for given in effective(wish.overrides))
    importlib.import_module(ENGINE).check_memory(job.scenario)
    facts = [
        ("configuration", f"{wish.source}{changed}"),
        *_facts(job.scenario, job.seed, wish.replicate),
    ]
    title = f"{job.name}{changed or ', ' + policy_name(job.scenario)}"
    return record_film(
        job.scenario,
        job.seed,
        wish.replicate,
        title=title,
        facts=facts,
        every=wish.every,
        frame=wish.frame,
        say=say,
    )


def effective(overrides: Sequence[str]) -> list[str]:
    """Overrides without those of a key that is given again later."""
    return list({given.partition("=")[0].strip(): given for given in overrides}.values())


def _of_directory(wish: Wish, say: Callable[[int, int], object]) -> Film:
    store, plan = stored_plan(wish.source, importlib.import_module(ENGINE))
    task = task_of(plan, point_text(plan, wish.point), wish.replicate, store.dir)
    point = plan.points[plan.index_of(task.cell.point_id)]
    values = ", ".join(f"{path.removeprefix('policy.')} {value}" for path, value in point.values.items())
    name = f"baseline: {values}" if point.baseline and values else values or BASELINE
    facts = [
        ("results", str(wish.source)),
        ("point", f"{task.cell.point_id:016x}"),
        *_facts(task.scenario, task.seed, task.cell.replicate),
    ]
    return record_film(
        task.scenario,
        task.seed,
        task.cell.replicate,
        title=f"{plan.name}, {name}",
        facts=facts,
        every=wish.every,
        frame=wish.frame,
        say=say,
    )


def point_text(plan: Plan, point: str) -> str:
    """A point's identity: of the baseline, or of the first other one where none is named.

    Raises
    ------
    QuestionError
        When the baseline is asked for and there is none.
    """
    if point and point != BASELINE:
        return point
    wanted = [one for one in plan.points if one.baseline == (point == BASELINE)]
    if not wanted and point:
        raise QuestionError("the sweep has no baseline; name a point by its identity, as in ds.point_id")
    return f"{(wanted or plan.points)[0].point_id:016x}"


def policy_name(scenario: Any) -> str:
    """The policy's preset, for a title."""
    return f"policy {scenario.policy.preset}"


def _facts(scenario: Any, seed: int, replicate: int) -> list[tuple[str, str]]:
    return [
        ("policy", str(scenario.policy.preset)),
        ("superpageblocks", f"{format_value(scenario.machine.spb_size, 'byte')} each"),
        ("seed", str(seed)),
        ("replicate", str(replicate)),
    ]
