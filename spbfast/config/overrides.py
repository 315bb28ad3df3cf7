"""`--set KEY=VALUE` and `--grid KEY=A,B` laid on the tree of a file.

Owns their form and how they are named in errors. Whether a value is right is found when the tree is
validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from spbfast.config.tree import Source, YamlNode, merge, parse
from spbfast.config.validate import assign
from spbfast.errors import SHOWN_LINE, ConfigError, Problem
from spbfast.text import quote_value


def check_options(**given: object) -> None:
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


def check_choices(one_point: object, stand_ins: object) -> None:
    """The other choices of who loads a job.

    Raises
    ------
    ConfigError
        When one is of the wrong type.
    """
    if not isinstance(one_point, bool):
        raise ConfigError(f"one_point must be True or False, got {quote_value(one_point)}")
    if stand_ins is None:
        return
    if not isinstance(stand_ins, Mapping) or not all(isinstance(p, Path) for p in stand_ins.values()):
        raise ConfigError(f"stand_ins must be a dict of keys and paths, got {quote_value(stand_ins)}")


def with_overrides(
    tree: YamlNode, set_: Sequence[str], grid: Sequence[str], problems: list[Problem]
) -> YamlNode:
    for text in set_:
        tree = _override(tree, text, problems)
    for text in grid:
        tree = _add_grid(tree, text, problems)
    return tree


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
