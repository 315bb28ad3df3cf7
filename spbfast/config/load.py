"""From YAML files and overrides to a validated Job, or to every error with its place.

Owns the order of things: parse, extend, override, validate, check the sweep. A tree is validated in
validate.py; places come from tree.py. Never imports the simulator.
"""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spbfast.config import policy, readymade, userpresets
from spbfast.config.checksweep import SweepParts, check_sweep
from spbfast.config.job import Job
from spbfast.config.start import check_branch, check_start, check_until, with_state_found
from spbfast.config.tree import Source, YamlNode, lines_of_text, merge, parse, place_in, with_value
from spbfast.config.validate import assign, validate_tree
from spbfast.errors import SHOWN_LINE, ConfigError, Problem
from spbfast.places import as_path, read_whole
from spbfast.text import quote_value, suggest

MAX_BYTES = 64 << 20


def load_config(
    path: str | Path,
    set_: Sequence[str] = (),
    *,
    grid: Sequence[str] = (),
    one_point: bool = False,
    stand_ins: Mapping[str, Path] | None = None,
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
        Files to read in place of those that the keys ``extends``, ``points_file`` and ``state`` name.

    Raises
    ------
    ConfigError
        With every problem found, in the order of files and lines.
    """
    path = readymade.job_file(_path_of(path))
    _check_options(set_=set_, grid=grid)
    instead = dict(stand_ins or {})
    problems: list[Problem] = []
    tree, text, base_text, base_name = _read_layers(path, problems, instead.get("extends"))
    tree = _with_overrides(_with_name(tree, path), set_, grid, problems)
    tree = with_state_found(tree, problems, instead.get("state"))
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
        confine = functools.partial(_confined, path, instead=instead.get("points_file"))
        parts = check_sweep(tree, found, confine, main=str(path), one_point=one_point)
    problems += found
    if problems or file is None:
        raise ConfigError(_by_place(problems, [str(path), *filter(None, [base_name])]))
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


def _path_of(given: object) -> Path:
    try:
        return as_path(given)
    except OSError as error:
        raise ConfigError(
            [Problem(quote_value(str(error.filename)), 0, 0, "", str(error.strerror))]
        ) from None


def _check_options(**given: object) -> None:
    """Overrides are lists of texts; a text alone would be taken letter by letter.

    Raises
    ------
    ConfigError
        When one is something else.
    """
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            shown = quote_value(values)
            example = f"[{shown}]" if isinstance(values, str) else "['duration=1s']"
            raise ConfigError(f"{name.rstrip('_')} must be a list of texts, e.g. {example}; got {shown}")
        for value in values:
            if not isinstance(value, str):
                raise ConfigError(f"{name.rstrip('_')} must hold texts KEY=VALUE, got {quote_value(value)}")


def _with_name(tree: YamlNode, path: Path) -> YamlNode:
    """The tree with a name; that of the file if it gives none."""
    if "name" in tree.value:
        return tree
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.stem).lstrip("._-")
    return with_value(tree, "name", YamlNode(stem or "job", tree.source, 1, 1))


def _with_overrides(
    tree: YamlNode, set_: Sequence[str], grid: Sequence[str], problems: list[Problem]
) -> YamlNode:
    for text in set_:
        tree = _override(tree, text, problems)
    for text in grid:
        tree = _add_grid(tree, text, problems)
    return tree


def _read_file(path: Path, shown: str, problems: list[Problem]) -> tuple[YamlNode | None, str]:
    try:
        data = read_whole(path, MAX_BYTES)
    except FileNotFoundError as error:
        if path.is_symlink():
            problems.append(Problem(shown, 0, 0, "", str(error.strerror)))
            return None, ""
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        if len(path.parts) == 1 and not path.suffix:
            near += readymade.ready_made_jobs()
        message = f"no such file{suggest(path.name, near)}"
        problems.append(Problem(shown, 0, 0, "", message))
        return None, ""
    except OSError as error:
        problems.append(Problem(shown, 0, 0, "", f"cannot be read: {error.strerror}"))
        return None, ""
    text = _decoded(data, shown, problems)
    if text is None:
        return None, ""
    source = Source(shown, lines_of_text(text))
    tree = parse(text, source, problems)
    if tree is not None and not isinstance(tree.value, dict):
        problems.append(tree.problem("", "the file must be a mapping of keys to values"))
        return None, text
    return tree, text


def _decoded(data: bytes, shown: str, problems: list[Problem]) -> str | None:
    """The text of a file in UTF-8; None after saying where it is not."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or data.count(0) > len(data) // 8:
        message = f"is UTF-16 text; save it as UTF-8, e.g. with: iconv -f UTF-16 -t UTF-8 {shown} -o new.yaml"
        problems.append(Problem(shown, 1, 1, "", message))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, col = place_in(before, len(before))
        text = lines_of_text(data.decode("latin-1"))[line - 1]
        message = (
            f"the byte {data[error.start]:#04x} is not UTF-8; if the file is Latin-1, save it as UTF-8, e.g. "
            f"with: iconv -f LATIN1 -t UTF-8 {shown} -o new.yaml"
        )
        problems.append(Problem(shown, line, col, "", message, text))
        return None


def _read_layers(path: Path, problems: list[Problem], instead: Path | None) -> tuple[YamlNode, str, str, str]:
    """The file laid on the one it extends; then its text, and the extended file's text and name.

    Raises
    ------
    ConfigError
        When a file cannot be parsed at all.
    """
    tree, text = _read_file(path, str(path), problems)
    if tree is None:
        raise ConfigError(problems)
    tree = policy.long_form(tree)
    extends = tree.value.get("extends")
    if extends is None:
        return tree, text, "", ""
    target = instead or _extended_path(path, extends, problems)
    if target is None:
        # What the other file would have said is unknown: any more errors would be false ones.
        raise ConfigError(_by_place(problems, [str(path)]))
    below: list[Problem] = []
    base, base_text = _read_file(target, str(target), below)
    if base is None and not base_text:
        below = [extends.problem("extends", f"{p.file}: {p.message}") for p in below]
    problems += below
    if base is None:
        raise ConfigError(_by_place(problems, [str(path), str(target)]))
    if (again := base.value.get("extends")) is not None:
        message = f"an extended file cannot extend another one ({quote_value(again.plain())}); keep one level"
        problems.append(again.problem("extends", message, at_key=True))
    # A name says where results go: two files that build on the same one must not share theirs.
    own = {key: node for key, node in policy.long_form(base).value.items() if key != "name"}
    merged = merge(replace(policy.long_form(base), value=own), tree)
    return merged, text, base_text, str(target)


def _extended_path(path: Path, extends: YamlNode, problems: list[Problem]) -> Path | None:
    """The file that `extends` names."""
    target = _confined(path, extends, "extends", problems)
    if target is not None and target.resolve() == path.resolve():
        problems.append(extends.problem("extends", "a file cannot extend itself"))
        return None
    return target and readymade.file_to_extend(target, str(extends.value))


def _confined(
    path: Path, node: YamlNode, shown: str, problems: list[Problem], *, instead: Path | None = None
) -> Path | None:
    """The file that a key of the configuration `path` names; it must stay inside the job's directories.

    Those are the configuration's own and the `configs` directories above it. A symbolic link is judged by
    where it leads.
    """
    if instead is not None:
        return instead
    given = node.value
    if not isinstance(given, str) or not given:
        message = f"must be a file name relative to this file, got {quote_value(given)}"
        problems.append(node.problem(shown, message))
        return None
    message = f"{quote_value(given)} must be a relative path that stays inside "
    try:
        here = path.parent.resolve()
        roots = [here, *(p for p in here.parents if p.name == "configs")]
        target = Path(os.path.normpath(path.parent / given))
        inside = not Path(given).is_absolute() and any(target.resolve().is_relative_to(r) for r in roots)
        as_path(target)
    except (OSError, ValueError, RuntimeError) as error:
        problems.append(node.problem(shown, f"{quote_value(given)} is not a usable file name: {error}"))
        return None
    if not inside:
        problems.append(node.problem(shown, f"{message}{roots[-1].name}/"))
        return None
    if target.exists() and not target.is_file():
        problems.append(node.problem(shown, f"{quote_value(given)} is not a regular file"))
        return None
    return target


def _override(tree: YamlNode, text: str, problems: list[Problem]) -> YamlNode:
    """The tree with one `--set KEY=VALUE` applied."""
    source = Source(_shown("--set", text))
    key, value = _split_option(text, source, "KEY=VALUE, e.g. --set policy.slab_shrink=false", problems)
    leaf = parse(value, source, problems) if key else None
    return tree if leaf is None else assign(tree, key, leaf, problems)


def _shown(option: str, text: str) -> str:
    return f"{option} {text}" if len(text) <= SHOWN_LINE else f"{option} {text[:SHOWN_LINE]}..."


def _add_grid(tree: YamlNode, text: str, problems: list[Problem]) -> YamlNode:
    """The tree with one `--grid KEY=A,B` applied."""
    source = Source(_shown("--grid", text))
    form = "KEY=A,B, e.g. --grid policy.slab_shrink_throttle=10ms,100ms"
    key, values = _split_option(text, source, form, problems)
    leaf = parse(f"[{values}]", source, problems) if key else None
    if leaf is None:
        return tree
    return merge(tree, YamlNode({"sweep": YamlNode({"grid": YamlNode({key: leaf}, source)}, source)}, source))


def _split_option(text: str, source: Source, form: str, problems: list[Problem]) -> tuple[str, str]:
    """Key and value of an option; two empty texts if it lacks either."""
    key, _, value = text.partition("=")
    if key.strip() and value.strip():
        return key.strip(), value
    problems.append(source.problem(0, 0, "", f"must be {form}"))
    return "", ""


def _by_place(problems: Sequence[Problem], files: Sequence[str]) -> list[Problem]:
    """Unique problems by file (in the order read), line and column; overrides last."""
    rank = {name: i for i, name in enumerate(files)}
    return sorted(dict.fromkeys(problems), key=lambda p: (rank.get(p.file, len(rank)), p.line, p.col))
