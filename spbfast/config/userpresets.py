"""Presets that a configuration defines itself, in its section `presets`.

Owns the checks of that section, and the expansion of `policy: NAME` into a built-in preset and the keys over
it, before the policy is completed. The name does not affect results: only what it stands for is part of a
point's identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from spbfast.config import presets
from spbfast.config.policy import long_form
from spbfast.config.tree import YamlNode, merge
from spbfast.errors import Problem

Nodes = dict[str, YamlNode]
Validate = Callable[[YamlNode, list[Problem]], Any]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]{0,79}")


def expand_own_preset(tree: YamlNode, problems: list[Problem]) -> YamlNode:
    """The tree with a policy that names one of the file's own presets written out over a built-in one."""
    own, written = own_presets(tree), tree.value.get("policy")
    if not own or written is None or not isinstance(written.value, dict):
        return tree
    chosen = written.value.get("preset")
    if chosen is None or not isinstance(chosen.value, str) or chosen.value not in own:
        return tree
    below = _written_out(chosen.value, own, (), problems)
    given = {key: node for key, node in written.value.items() if key != "preset"}
    full = merge(below, replace(written, value=given, whole=False))
    return replace(tree, value={**tree.value, "policy": full})


def check_own_presets(tree: YamlNode, problems: list[Problem], validate_tree: Validate) -> None:
    """Append what is wrong with the section `presets`, whether or not a preset is used.

    Parameters
    ----------
    tree : YamlNode
        The whole file.
    problems : list of Problem
        Holds the file's own problems already; those are not repeated.
    validate_tree : callable
        Checks a whole tree and appends what it finds.
    """
    known = {(p.path, p.message) for p in problems}
    rest = {key: node for key, node in tree.value.items() if key != "sweep"}
    for name, node in own_presets(tree).items():
        path = f"presets.{name}"
        if message := _wrong_name(name):
            problems.append(node.problem(path, message, at_key=True))
            continue
        if not isinstance(node.value, dict):
            if not isinstance(node.value, str):
                message = "must be a preset's name, or a mapping of a preset and its changes"
                problems.append(node.problem(path, message))
                continue
        found: list[Problem] = []
        policy = replace(node, value={"preset": YamlNode(name, node.source, node.line, node.col)}, whole=True)
        validate_tree(replace(tree, value={**rest, "policy": policy}), found)
        for problem in found:
            if problem.path.split(".")[0] == "policy" and (problem.path, problem.message) not in known:
                problems.append(replace(problem, path=path + problem.path.removeprefix("policy")))


def own_presets(tree: YamlNode) -> Nodes:
    """The section `presets` of a file, empty if there is none."""
    section = tree.value.get("presets") if isinstance(tree.value, dict) else None
    return section.value if section is not None and isinstance(section.value, dict) else {}


def _wrong_name(name: str) -> str:
    try:
        if presets.canonical_name(name) in presets.full_presets() | presets.half_presets():
            return ""  # files named presets of their own so before these were built in
    except ValueError:
        if NAME.fullmatch(name):
            return ""
        return "a preset's name may hold only letters, digits and '._@+=-', 80 characters at most"
    return f"{name!r} is a built-in preset; choose another name"


def _written_out(name: str, own: Nodes, seen: tuple[str, ...], problems: list[Problem]) -> YamlNode:
    """A preset of the file as the keys of a policy over a built-in preset."""
    node = own[name]
    if name in seen:
        message = f"builds on itself ({' -> '.join([*seen, name])})"
        problems.append(node.problem("policy", message, at_key=True))
        return replace(node, value={})
    wrapped = long_form(YamlNode({"policy": replace(node, whole=False)}, node.source))
    keys = wrapped.value["policy"]
    if not isinstance(keys.value, dict):
        return replace(node, value={}, whole=False)
    below = keys.value.get("preset")
    if below is None or below.value not in own:
        return replace(keys, whole=False)
    rest = replace(keys, value={k: n for k, n in keys.value.items() if k != "preset"}, whole=False)
    return merge(_written_out(below.value, own, (*seen, name), problems), rest)
