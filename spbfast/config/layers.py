"""The file of a job, and the one that it extends, as one tree.

Owns reading and decoding, which files a configuration may name, and the laying of one on the other. Says
nothing of keys.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from spbfast.config import policy, readymade
from spbfast.config.tree import Source, YamlNode, lines_of_text, merge, parse, place_in
from spbfast.errors import ConfigError, Problem
from spbfast.places import as_path, read_whole
from spbfast.text import quote_value, suggest

MAX_BYTES = 64 << 20


def read_layers(path: Path, problems: list[Problem], instead: Path | None) -> tuple[YamlNode, str, str, str]:
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
        raise ConfigError(by_place(problems, [str(path)]))
    below: list[Problem] = []
    base, base_text = _read_file(target, str(target), below)
    if base is None and not base_text:
        below = [extends.problem("extends", f"{p.file}: {p.message}") for p in below]
    problems += below
    if base is None:
        raise ConfigError(by_place(problems, [str(path), str(target)]))
    if (again := base.value.get("extends")) is not None:
        message = f"an extended file cannot extend another one ({quote_value(again.plain())}); keep one level"
        problems.append(again.problem("extends", message, at_key=True))
    # A name says where results go: two files that build on the same one must not share theirs.
    own = {key: node for key, node in policy.long_form(base).value.items() if key != "name"}
    merged = merge(replace(policy.long_form(base), value=own), tree)
    return merged, text, base_text, str(target)


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
        form = "UTF-32" if data.count(0) > len(data) // 2 else "UTF-16"
        message = f"is {form} text; save it as UTF-8, e.g. with: iconv -f {form} -t UTF-8 {shown} -o new.yaml"
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


def _extended_path(path: Path, extends: YamlNode, problems: list[Problem]) -> Path | None:
    """The file that `extends` names."""
    target = confined(path, extends, "extends", problems)
    if target is not None and target.resolve() == path.resolve():
        problems.append(extends.problem("extends", "a file cannot extend itself"))
        return None
    return target and readymade.file_to_extend(target, str(extends.value))


def confined(
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


def by_place(problems: Sequence[Problem], files: Sequence[str]) -> list[Problem]:
    """Unique problems by file (in the order read), line and column; overrides last."""
    rank = {name: i for i, name in enumerate(files)}
    return sorted(dict.fromkeys(problems), key=lambda p: (rank.get(p.file, len(rank)), p.line, p.col))
