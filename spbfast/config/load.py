"""From YAML files and overrides to a validated Job, or to every error with its place.

Owns the order of things: parse, extend, override, validate, check the sweep. A tree is validated in
validate.py; places come from tree.py. Never imports the simulator.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spbfast.config import readymade, userpresets
from spbfast.config.checksweep import Confine, SweepParts, check_sweep
from spbfast.config.durations import check_durations
from spbfast.config.job import Job
from spbfast.config.layers import by_place, confined, read_layers
from spbfast.config.models import JobFile
from spbfast.config.overrides import check_choices, check_options, with_overrides
from spbfast.config.realmachine import with_machine_found
from spbfast.config.replayspec import with_replay_folder
from spbfast.config.start import check_branch, check_start, check_until, with_state_found
from spbfast.config.tree import YamlNode, with_value
from spbfast.config.validate import validate_tree
from spbfast.errors import ConfigError, Problem
from spbfast.places import as_path
from spbfast.text import quote_value


def load_config(
    path: str | Path,
    set_: Sequence[str] = (),
    *,
    grid: Sequence[str] = (),
    one_point: bool = False,
    stand_ins: Mapping[str, Path] | None = None,
    machine_files: Sequence[Path] | None = None,
) -> Job:
    """A validated job from a YAML file.

    Parameters
    ----------
    path : path
        The file, which may build on one other with `extends`; or the bare name of a ready-made job.
    set_ : sequence of str
        Overrides such as ``policy.slab_shrink_throttle=50ms``.
    grid : sequence of str
        Swept values such as ``policy.slab_shrink_throttle=10ms,100ms``, replacing the file's.
    one_point : bool
        Leave the sweep out: the job is the file's own point.
    stand_ins : mapping, optional
        Files to read in place of those that the keys ``extends``, ``points_file`` and ``state`` name;
        with ``trace`` the folder of recordings.
    machine_files : sequence of path, optional
        Files to read in place of those that ``machine.from`` names.

    Raises
    ------
    ConfigError
        With every problem found, in the order of files and lines.
    """
    path = readymade.job_file(_path_of(path))
    check_options(set_=set_, grid=grid)
    check_choices(one_point, stand_ins)
    instead = dict(stand_ins or {})
    problems: list[Problem] = []
    tree, text, base_text, base_name = read_layers(path, problems, instead.get("extends"))
    tree = with_overrides(_with_name(tree, path), set_, grid, problems)
    tree = with_state_found(tree, problems, instead.get("state"))
    tree = with_machine_found(tree, problems, machine_files)
    tree = with_replay_folder(tree, instead.get("trace"))
    confine = functools.partial(confined, path, instead=instead.get("points_file"))
    file, parts = _checked(tree, problems, confine, main=str(path), one_point=one_point)
    if problems or file is None:
        raise ConfigError(by_place(problems, [str(path), *filter(None, [base_name])]))
    if one_point:
        parts, file = SweepParts(), file.model_copy(update={"sweep": None})
    return Job(
        name=file.name,
        seed=file.seed,
        replicates=file.replicates.min if one_point else file.replicates.max,
        growing=None if one_point or file.replicates.until is None else file.replicates,
        scenario=file.scenario(),
        sweep=file.sweep,
        output=file.output,
        executor=file.executor,
        source_text=text,
        path=path,
        base_text=base_text,
        overrides=tuple(set_),
        grid_overrides=tuple(grid),
        rows=parts.rows,
        ranges=parts.ranges,
        points_file=parts.points_file,
        swept_nodes=parts.swept,
        tree=replace(tree, value={k: n for k, n in tree.value.items() if k != "sweep"}),
    )


def _checked(
    tree: YamlNode, problems: list[Problem], confine: Confine, *, main: str, one_point: bool
) -> tuple[JobFile | None, SweepParts]:
    """The model of a whole tree, and what its sweep holds; what is wrong joins `problems`."""
    found: list[Problem] = []
    file = validate_tree(tree, found)
    if file is not None:
        check_start(tree, file, found)
        check_branch(tree, file, found)
        if not one_point:
            check_until(tree, file, found)
    if "presets" in tree.value:
        userpresets.check_own_presets(tree, found, validate_tree)
    parts = SweepParts()
    if "sweep" in tree.value:
        parts = check_sweep(tree, found, confine, main=main, one_point=one_point)
        if file is not None and not one_point:
            check_durations(tree, file, parts, found)
    # What could not be read is missing below, and was said.
    told = {(p.file, p.line, p.col) for p in problems if p.line}
    problems += [p for p in found if (p.file, p.line, p.col) not in told]
    return file, parts


def _path_of(given: object) -> Path:
    try:
        return as_path(given)
    except OSError as error:
        raise ConfigError(
            [Problem(quote_value(str(error.filename)), 0, 0, "", str(error.strerror))]
        ) from None


def _with_name(tree: YamlNode, path: Path) -> YamlNode:
    """The tree with a name; that of the file if it gives none."""
    if "name" in tree.value:
        return tree
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.stem).lstrip("._-")
    return with_value(tree, "name", YamlNode(stem or "job", tree.source, 1, 1))
