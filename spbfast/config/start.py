"""Where runs begin other than at boot: the saved state of a job, and the branch of a sweep.

Owns the place of `start.state` (beside the file that names it; an override's beside the current directory)
and what else a job with one, or with `sweep.branch_at`, must have. Whether the state fits the machine is
judged when a run begins, whether points may differ as they do when the sweep is planned.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spbfast.config.models import JobFile, StartSpec
from spbfast.config.tree import YamlNode
from spbfast.config.units import format_duration
from spbfast.constants import NS_PER_TICK
from spbfast.errors import Problem, ResultsError
from spbfast.statefile import read_state_head


def with_state_found(tree: YamlNode, problems: list[Problem], instead: Path | None) -> YamlNode:
    """The tree with the absolute path of its state file and the digest of that file's content.

    `instead` is read in place of the file named. A file that cannot be read is appended to `problems`.
    """
    start = tree.value.get("start")
    state = start.value.get("state") if start is not None and isinstance(start.value, dict) else None
    if start is None or state is None or not isinstance(state.value, str):
        return tree
    file = state.source.name if state.source.lines else "."
    try:
        path = instead or Path(file).parent.joinpath(Path(state.value).expanduser()).absolute()
        digest = read_state_head(path).digest
    except (ResultsError, RuntimeError) as error:  # RuntimeError: ~name of nobody
        problems.append(state.problem("start.state", str(error)))
        return tree
    wanted = start.value.get("digest")
    if wanted is not None and wanted.value not in (None, digest):
        message = f"{path} has digest {digest}; name that one, or the file that has this one"
        problems.append(wanted.problem("start.digest", message))
    found = {"state": replace(state, value=str(path)), "digest": replace(wanted or state, value=digest)}
    return replace(tree, value={**tree.value, "start": replace(start, value={**start.value, **found})})


def check_start(tree: YamlNode, file: JobFile, problems: list[Problem]) -> None:
    """A state file holds one replicate: a job that starts from it has that one, with its seed."""
    if file.start is None:
        return
    at = tree.value["start"]
    if file.replicates.max != 1:
        message = f"a state file holds one replicate, so replicates must be 1, not {file.replicates.max}"
        problems.append(at.problem("start", message, at_key=True))
    if file.sweep is not None and file.sweep.seeding != "common":
        message = "a state file holds one seed, so sweep.seeding must be common"
        problems.append(at.problem("start", message, at_key=True))


def start_time(start: StartSpec | None) -> int:
    """Nanoseconds since boot at which a run begins: those of the state it starts from, else 0."""
    if start is None:
        return 0
    return int(read_state_head(Path(start.state)).about["tick"]) * NS_PER_TICK


def check_branch(tree: YamlNode, file: JobFile, problems: list[Problem]) -> None:
    """The branch lies within the run, and all points share one demand up to it."""
    sweep = file.sweep
    if sweep is None or sweep.branch_at is None:
        return
    at = tree.value["sweep"].value["branch_at"]
    if file.replay is not None:
        message = "a replay has no branch: its points repeat the recording from its start"
        problems.append(at.problem("sweep.branch_at", message, at_key=True))
    shown = format_duration(sweep.branch_at)
    if sweep.seeding != "common":
        message = "points with draws of their own have no part to share; sweep.seeding must be common"
        problems.append(at.problem("sweep.branch_at", message))
    if sweep.branch_at > file.duration:
        end = format_duration(file.duration)
        message = f"{shown} is after the end of the run; duration is {end} and must reach at least there"
        problems.append(at.problem("sweep.branch_at", message))
    begin = _start_time_found(file.start)
    if sweep.branch_at < begin:
        message = f"{shown} is before start.state, which is at {format_duration(begin)}"
        problems.append(at.problem("sweep.branch_at", message))


def _start_time_found(start: StartSpec | None) -> int:
    """The same, 0 for a file that cannot be read, which is told elsewhere."""
    try:
        return start_time(start)
    except ResultsError:
        return 0


def check_until(tree: YamlNode, file: JobFile, problems: list[Problem]) -> None:
    """Differences need a baseline to differ from, and the same demand on both sides."""
    until = file.replicates.until
    if until is None or until.of != "difference":
        return
    at = tree.value["replicates"].value["until"].value["of"]
    if file.sweep is None or file.sweep.baseline is None:
        message = "there is no sweep.baseline to differ from; name one, or use of: point"
        problems.append(at.problem("replicates.until.of", message))
    elif file.sweep.seeding != "common":
        message = "pairs meet the same demand only with sweep.seeding: common; use that, or of: point"
        problems.append(at.problem("replicates.until.of", message))
