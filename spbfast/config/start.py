"""The saved state that a job starts from: found, looked into, and told apart by its content.

Owns the place of `start.state` (beside the file that names it; an override's beside the current directory)
and what else a job with one must have. Whether the state fits the machine is judged when a run begins.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spbfast.config.models import JobFile
from spbfast.config.tree import YamlNode
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
    path = instead or Path(file).parent.joinpath(Path(state.value).expanduser()).absolute()
    try:
        digest = read_state_head(path).digest
    except ResultsError as error:
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
    if file.replicates != 1:
        message = f"a state file holds one replicate, so replicates must be 1, not {file.replicates}"
        problems.append(at.problem("start", message, at_key=True))
    if file.sweep is not None and file.sweep.seeding != "common":
        message = "a state file holds one seed, so sweep.seeding must be common"
        problems.append(at.problem("start", message, at_key=True))
