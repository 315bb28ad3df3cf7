"""The inputs of a machine file with where each number comes from, read from the file's own comments.

Owns the sorting into numbers with a source, measured ones and assumed ones, and the range within which an
assumed one is to be varied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spbfast.config.tree import Source, YamlNode, lines_of_text, parse

SOURCE, MEASURED, ASSUMED = "source", "measured", "assumed"
ORIGINS = (SOURCE, MEASURED, ASSUMED)
_RANGE = re.compile(r"(?:range(?! of)|vary) ([^;:]*)")


@dataclass(frozen=True)
class Input:
    """One number of the file.

    Attributes
    ----------
    key : str
        Dotted path, actors by kind; of another list `path[name]`.
    value : str
        As the file writes it.
    origin : str
        One of `ORIGINS`.
    remark : str
        The file's words on it, without its range.
    range : str
        Where the file says to vary it; "" if nowhere.
    """

    key: str
    value: str
    origin: str
    remark: str
    range: str


def read_inputs(path: Path) -> list[Input]:
    """The inputs of a file, in its order.

    Raises
    ------
    ValueError
        The file is no YAML, or a number in it has no comment of its own or above it.
    """
    text = path.read_text(encoding="utf-8")
    root = parse(text, Source(path.name, lines_of_text(text)), [])
    if root is None:
        raise ValueError(f"{path}: not a configuration")
    lines = text.splitlines()
    leaves = [(key, node) for key, node in _leaves(root, "") if key not in ("name", "extends")]
    return [_input(key, node, lines, path) for key, node in leaves]


def _leaves(node: YamlNode, path: str) -> Iterator[tuple[str, YamlNode]]:
    """Each value that has a line of its own: scalars, and what stands in brackets."""
    if isinstance(node.value, dict) and not _in_brackets(node):
        for key, inner in node.value.items():
            if not (path.startswith("actors.") and key == "kind"):
                yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(node.value, list) and not _in_brackets(node):
        for inner in node.value:
            name = _name(inner)
            yield from _leaves(inner, f"{path}.{name}" if path == "actors" else f"{path}[{name}]")
    else:
        yield path, node


def _in_brackets(node: YamlNode) -> bool:
    """Whether a mapping or list is written on one line."""
    return node.source.lines[node.line - 1][node.col - 1] in "{["


def _name(node: YamlNode) -> Any:
    """What tells an element of a list from its neighbours."""
    return next(node.value[k].value for k in ("kind", "name") if k in node.value)


def _input(key: str, node: YamlNode, lines: list[str], path: Path) -> Input:
    line = lines[node.line - 1]
    value, _, comment = line[node.col - 1 :].partition(" # ")
    above = node.line - 2
    while not comment and above >= 0 and not lines[above].lstrip().startswith("# "):
        if not lines[above].lstrip().startswith("- "):  # a comment holds for the elements below it
            raise ValueError(f"{path}:{node.line}: {key} has no comment that says where it comes from")
        above -= 1
    said = (comment or lines[above].lstrip()[2:]).strip()
    within = _RANGE.search(said)
    remark = _RANGE.sub("", said).removeprefix("assumed").strip(" ,;")
    origin = MEASURED if "measured" in said else SOURCE if said.startswith("source:") else ASSUMED
    remark = remark.removeprefix("source: ")
    return Input(key, value.strip(), origin, remark, within.group(1) if within else "")
