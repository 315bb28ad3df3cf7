"""YAML as a tree of nodes that remember where each key and value was written.

Owns parsing (syntax errors, tabs, duplicate keys), merging of files and overrides, and dotted paths. It
knows nothing about what the keys mean: models.py says that, load.py brings the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.scanner import Scanner

from spbfast.config.units import LONGEST_NUMBER
from spbfast.errors import Problem
from spbfast.text import quote_value

MAX_DEPTH = 40
TOO_DEEP = "nested too deeply"
# What YAML allows in its text, without the line ends that are some programs' and not others'; anything else
# cannot be seen and is never meant.
_NO_TEXT = re.compile("[\u2028\u2029]|[^\t\n\r -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LINE_ENDS = re.compile(r"\r\n|\n|\r")
# Aliases multiply: a few lines can stand for more values than memory holds.
MAX_VALUES = 1_000_000
NO_SUCH_PLACE = "so a path cannot lead through it"


@dataclass(frozen=True)
class Source:
    """A text that nodes come from: a file, or one override (then `lines` is empty)."""

    name: str
    lines: tuple[str, ...] = ()

    def problem(self, line: int, col: int, path: str, message: str) -> Problem:
        """A problem at a place of this source; `line` and `col` count from 1."""
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Problem(self.name, line if self.lines else 0, col if self.lines else 0, path, message, text)


@dataclass(frozen=True)
class YamlNode:
    """A value with its place and, inside a mapping, the place of its key.

    `value` is a dict or a list of nodes, or a plain scalar. `whole` marks a value that replaces, rather than
    merges into, what an extended file says there.
    """

    value: Any
    source: Source
    line: int = 0
    col: int = 0
    key_line: int = 0
    key_col: int = 0
    whole: bool = field(default=False, compare=False)

    def problem(self, path: str, message: str, *, at_key: bool = False) -> Problem:
        """A problem at this node's value, or at its key."""
        if at_key and self.key_line:
            return self.source.problem(self.key_line, self.key_col, path, message)
        return self.source.problem(self.line, self.col, path, message)

    def plain(self) -> Any:
        """The same value without places."""
        if isinstance(self.value, dict):
            return {k: n.plain() for k, n in self.value.items()}
        if isinstance(self.value, list):
            return [n.plain() for n in self.value]
        return self.value

    def walk(self) -> Iterator[YamlNode]:
        """This node and everything below it."""
        yield self
        below = self.value.values() if isinstance(self.value, dict) else self.value
        if isinstance(self.value, dict | list):
            for node in below:
                yield from node.walk()


def from_plain(value: Any, source: Source) -> YamlNode:
    """Nodes around plain data, all at the same placeless source."""
    if isinstance(value, dict):
        return YamlNode({str(k): from_plain(v, source) for k, v in value.items()}, source)
    if isinstance(value, list | tuple):
        return YamlNode([from_plain(v, source) for v in value], source)
    return YamlNode(value, source)


class _Scanner(Scanner):
    """The library's scanner, which takes time by the square of the depth of brackets."""

    def fetch_flow_collection_start(self, *args: Any, **named: Any) -> None:
        """Begin a list or mapping in brackets, but not one that `_Builder` refuses anyway."""
        if len(self.flow_context) > MAX_DEPTH:
            raise MarkedYAMLError(problem=TOO_DEEP, problem_mark=self.reader.get_mark())
        super().fetch_flow_collection_start(*args, **named)


def parse(text: str, source: Source, problems: list[Problem]) -> YamlNode | None:
    """The tree of a YAML text; what is wrong with the text is appended to `problems`.

    Returns
    -------
    YamlNode or None
        None when the text is not YAML (syntax error, tab, several documents).
    """
    if (strange := _NO_TEXT.search(text)) is not None:
        problems.append(_no_text(text, strange, source))
        return None
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _Scanner
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, col = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problems.append(source.problem(line, col, "", _syntax_message(error, source, line)))
        return None
    except YAMLError as error:
        problems.append(source.problem(1, 1, "", f"not readable as YAML: {error}"))
        return None
    except RecursionError:
        problems.append(source.problem(1, 1, "", TOO_DEEP))
        return None
    if root is None:
        return YamlNode({}, source, 1, 1)
    if _nr_values(root, {}) > MAX_VALUES:
        message = f"holds more than {MAX_VALUES} values once aliases are expanded; put a long list of points "
        problems.append(source.problem(1, 1, "", message + "into a file: sweep.points_file"))
        return None
    return _Builder(yaml.constructor, source, problems).build(root, "", 0)


def lines_of_text(text: str) -> tuple[str, ...]:
    """Lines as YAML counts them: U+2028, form feeds and their like end none."""
    return tuple(_LINE_ENDS.split(text))


def place_in(text: str, index: int) -> tuple[int, int]:
    """Line and column, from 1, of a character of a text."""
    before = lines_of_text(text[:index])
    return len(before), len(before[-1]) + 1


def _no_text(text: str, strange: re.Match[str], source: Source) -> Problem:
    message = f"the character U+{ord(strange.group()):04X} cannot be in a configuration; remove it"
    return source.problem(*place_in(text, strange.start()), "", message)


def _nr_values(node: Any, known: dict[int, int]) -> int:
    """How many values a YAML node stands for when all aliases are written out."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) not in known:
        # While it is being counted, a node that contains itself has no end.
        known[id(node)] = MAX_VALUES + 1
        below = [n for pair in node.value for n in pair] if isinstance(node, MappingNode) else node.value
        known[id(node)] = 1 + sum(_nr_values(n, known) for n in below)
    return known[id(node)]


def _syntax_message(error: MarkedYAMLError, source: Source, line: int) -> str:
    text = source.lines[line - 1] if 0 < line <= len(source.lines) else ""
    if "\t" in text[: len(text) - len(text.lstrip())]:
        return "a tab used as indentation; YAML needs spaces"
    what = error.problem or error.context or "syntax error"
    if what == TOO_DEEP:
        return what
    if "mapping values are not allowed" in what:
        return "a ':' is not allowed here; put the text in quotes, or check the indentation of this line"
    if "expected a single document" in (error.context or ""):
        return "a second document ('---'); a configuration is one document"
    return f"not valid YAML: {what}"


class _Builder:
    def __init__(self, constructor: Any, source: Source, problems: list[Problem]) -> None:
        self.constructor, self.source, self.problems = constructor, source, problems

    def build(self, node: Any, path: str, depth: int, key: Any = None) -> YamlNode:
        mark, key_mark = node.start_mark, key.start_mark if key is not None else node.start_mark
        if isinstance(node, ScalarNode) and node.start_mark.index == node.end_mark.index:
            mark = key_mark  # nothing is written: point at the key
        place = (mark.line + 1, mark.column + 1, key_mark.line + 1, key_mark.column + 1)
        if depth > MAX_DEPTH:
            self.problems.append(self.source.problem(*place[:2], path, TOO_DEEP))
            return YamlNode(None, self.source, *place)
        if isinstance(node, MappingNode):
            return YamlNode(self._mapping(node, path, depth), self.source, *place)
        if isinstance(node, SequenceNode):
            items = [self.build(n, f"{path}.{i}", depth + 1) for i, n in enumerate(node.value)]
            return YamlNode(items, self.source, *place)
        return YamlNode(self._scalar(node, path), self.source, *place)

    def _has_surrogate(self, node: Any, path: str) -> bool:
        """Whether an escape such as \\uD800 stands for no character; says so."""
        half = _SURROGATES.search(node.value)
        if half:
            message = f"the character U+{ord(half.group()):04X} cannot be in a configuration; remove it"
            line, col = node.start_mark.line + 1, node.start_mark.column + 1
            self.problems.append(self.source.problem(line, col, path, message))
        return half is not None

    def _mapping(self, node: Any, path: str, depth: int) -> dict[str, YamlNode]:
        out: dict[str, YamlNode] = {}
        for key, value in node.value:
            line, col = key.start_mark.line + 1, key.start_mark.column + 1
            if not isinstance(key, ScalarNode) or str(key.tag).endswith(":merge"):
                message = "a key must be plain text; to build on another file use 'extends: FILE'"
                self.problems.append(self.source.problem(line, col, path, message))
                continue
            if self._has_surrogate(key, path):
                continue
            name = key.value
            below = f"{path}.{name}" if path else name
            if name in out:
                first = out[name].key_line
                message = (
                    f"the key {quote_value(name)} appears twice (first on line {first}); keep one of them"
                )
                self.problems.append(self.source.problem(line, col, below, message))
                continue
            out[name] = self.build(value, below, depth + 1, key)
        return out

    def _scalar(self, node: Any, path: str) -> Any:
        if self._has_surrogate(node, path):
            return None
        kind = str(node.tag).rsplit(":", 1)[-1]
        if kind == "str" or kind == "timestamp":
            return node.value
        construct = {
            "null": lambda n: None,
            "bool": self.constructor.construct_yaml_bool,
            "int": self.constructor.construct_yaml_int,
            "float": self.constructor.construct_yaml_float,
        }.get(kind)
        line, col = node.start_mark.line + 1, node.start_mark.column + 1
        if construct is None:
            self.problems.append(
                self.source.problem(line, col, path, f"the tag {quote_value(str(node.tag))} is not supported")
            )
            return None
        if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:
            message = f"is a number of {len(node.value)} characters; no key holds more than 20"
            self.problems.append(self.source.problem(line, col, path, message))
            return None
        try:
            return construct(node)
        except (ValueError, LookupError, ArithmeticError):
            message = f"{quote_value(node.value)} is not a valid {kind}"
            self.problems.append(self.source.problem(line, col, path, message))
            return None


def merge(base: YamlNode, over: YamlNode) -> YamlNode:
    """`over` laid on `base`: mappings merge key by key, everything else is replaced.

    A mapping laid on a list changes the list's elements by their name, kind or number.
    """
    if not over.whole and isinstance(base.value, list) and isinstance(over.value, dict):
        places = {key: _index(base, key) for key in over.value}
        if None not in places.values():
            items = list(base.value)
            for key, node in over.value.items():
                items[places[key]] = merge(items[places[key]], node)
            return replace(over, value=items)
    if over.whole or not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    out = dict(base.value)
    for key, node in over.value.items():
        out[key] = merge(out[key], node) if key in out else node
    return replace(over, value=out)


def label(node: YamlNode, index: int) -> str:
    """How paths name a list's element: its name or kind if that finds it, else its number."""
    item = node.value[index].value
    for key in ("name", "kind"):
        if isinstance(item, dict) and key in item and isinstance(item[key].value, str):
            if _index(node, item[key].value) == index:
                return item[key].value
    return str(index)


def split_path(path: str) -> list[str]:
    """``policy.slab_shrink`` as its segments."""
    return path.split(".")


def lookup(root: YamlNode, path: str) -> YamlNode | None:
    """The node at a dotted path, None if nothing is written there."""
    node = root
    for segment in split_path(path):
        index = _index(node, segment)
        if index is None or not node.value or (isinstance(node.value, dict) and index not in node.value):
            return None
        node = node.value[index]
    return node


def with_value(root: YamlNode, path: str, leaf: YamlNode) -> YamlNode:
    """A copy of the tree in which `path` holds `leaf` (merged if both are mappings).

    Raises
    ------
    ValueError
        When the path runs through a scalar or a list element that does not exist.
    """
    segments = split_path(path)
    if len(segments) > MAX_DEPTH:
        raise ValueError(f"has {len(segments)} parts, at most {MAX_DEPTH} make sense, {NO_SUCH_PLACE}")
    return _set(root, segments, leaf, [])


def _set(node: YamlNode, segments: list[str], leaf: YamlNode, done: list[str]) -> YamlNode:
    if not segments:
        return merge(node, leaf)
    head, rest = segments[0], segments[1:]
    index = _index(node, head)
    if index is None:
        here = ".".join(done) or "the file"
        if isinstance(node.value, list):
            what = f"is a list without an element {quote_value(head)} (give its name or number)"
        else:
            what = f"is not a mapping and cannot hold {quote_value(head)}"
        raise ValueError(f"{here} {what}, {NO_SUCH_PLACE}")
    value = list(node.value) if isinstance(node.value, list) else dict(node.value or {})
    if isinstance(value, dict) and index not in value:
        child = YamlNode({}, leaf.source, leaf.line, leaf.col, leaf.key_line, leaf.key_col) if rest else leaf
        value[index] = _set(child, rest, leaf, [*done, head]) if rest else leaf
    else:
        value[index] = _set(value[index], rest, leaf, [*done, head])
    return replace(node, value=value)


def _index(node: YamlNode, segment: str) -> Any:
    """What to subscript `node.value` with: the key, or a list position given by number, name or kind."""
    if isinstance(node.value, dict) or node.value is None:
        return segment
    if not isinstance(node.value, list):
        return None
    if segment.isdigit():
        return int(segment) if int(segment) < len(node.value) else None
    for key in ("name", "kind"):
        hits = [
            i
            for i, item in enumerate(node.value)
            if isinstance(item.value, dict) and key in item.value and item.value[key].value == segment
        ]
        if len(hits) == 1:
            return hits[0]
    return None
