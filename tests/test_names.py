"""Each name has one meaning: no two classes, no two functions, no two files of one name in the package.

Public names at the top level of modules count. Names with an underscore are private to their file, and a
folder's __init__.py goes by the folder's name.
"""

from __future__ import annotations

import ast
from collections import defaultdict

import pytest

from tests.imports import MODULES, tree_of

pytestmark = pytest.mark.shell

# The command line's entry point and those of modules that are run by themselves.
ALLOWED = {"main"}


def twice(names: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that stand in more than one place, with the places."""
    places = defaultdict(list)
    for name, module in names:
        places[name].append(module)
    return {name: found for name, found in places.items() if len(found) > 1 and name not in ALLOWED}


def test_every_file_name_occurs_once() -> None:
    assert twice([(module.rpartition(".")[2], module) for module in MODULES]) == {}


def test_every_public_class_and_function_name_occurs_once() -> None:
    found = [
        (node.name, module)
        for module, path in MODULES.items()
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    ]
    assert twice(found) == {}


def test_a_second_meaning_is_seen() -> None:
    assert twice([("f", "a"), ("f", "b"), ("main", "a"), ("main", "b"), ("g", "a")]) == {"f": ["a", "b"]}
