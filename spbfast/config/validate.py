"""From a tree of YAML nodes to a validated JobFile, or to every problem with its place.

Owns the completion of the policy before validation, and pydantic's errors in our words and at our places.
What keys mean is in the models; wording is in messages.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from spbfast.config import messages, policy, userpresets
from spbfast.config.models import JobFile
from spbfast.config.replayspec import with_recording_found
from spbfast.config.tree import MAX_DEPTH, YamlNode, label, lookup, merge, with_value
from spbfast.errors import Problem
from spbfast.text import quote_value


def validate_tree(tree: YamlNode, problems: list[Problem]) -> JobFile | None:
    """The file's model, or None if anything is wrong with it, which is then appended to `problems`."""
    before = len(problems)
    tree = with_recording_found(tree, problems)
    own = userpresets.own_presets(tree)
    tree = userpresets.expand_own_preset(tree, problems)
    written = tree.value.get("policy")
    chosen = policy.resolve(
        written if written is not None else YamlNode({}, tree.source, 1, 1), problems, list(own)
    )
    full = replace(tree, value={**tree.value, "policy": chosen})
    try:
        file = JobFile.model_validate_json(json.dumps(full.plain(), default=quote_value), strict=True)
    except ValidationError as error:
        problems += _without_echoes([(e, _located(e, full)) for e in error.errors(include_url=False)])
        return None
    return file if len(problems) == before else None


def _without_echoes(found: list[tuple[Any, Problem]]) -> list[Problem]:
    """Leave out a missing key whose misspelling is reported anyway."""
    misspelt = {
        (*error["loc"][:-1], name)
        for error, problem in found
        if error["type"] == "extra_forbidden"
        for name in re.findall(r"did you mean '([^']+)'", problem.message)
    }
    return [p for error, p in found if error["type"] != "missing" or tuple(error["loc"]) not in misspelt]


def _located(error: Any, tree: YamlNode) -> Problem:
    """One of pydantic's errors with its place and our words."""
    loc = tuple(error["loc"])
    node, parts = _nearest(tree, loc)
    path = ".".join(parts)
    if error["type"] == "extra_forbidden":
        return node.problem(path, messages.unknown_key(JobFile, loc), at_key=True)
    message = messages.reword(error, JobFile)
    if error["type"] == "missing":
        return node.problem(path, message, at_key=True)
    if loc == ("policy",):
        shown = quote_value(node.plain())
        return node.problem(path, f"must be a preset name (e.g. v1@30) or a mapping, got {shown}")
    head, found, rest = message.partition(": ")
    if found and isinstance(node.value, dict) and head.split(".")[0] in messages.fields_at(JobFile, loc):
        inner = lookup(node, head)
        return (inner or node).problem(f"{path}.{head}" if path else head, rest, at_key=inner is None)
    return node.problem(path, message)


def _nearest(tree: YamlNode, loc: Sequence[int | str]) -> tuple[YamlNode, list[str]]:
    """The nearest written node of an error's location, and the path to show for it."""
    node, parts = tree, []
    for i, step in enumerate(loc):
        below, shown = None, str(step)
        if isinstance(node.value, dict):
            below = node.value.get(shown)
        elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
            below, shown = node.value[step], label(node, step)
        if below is not None:
            node = below
            parts.append(shown)
        elif step == "[key]" or messages.union_models(messages.annotation_at(JobFile, loc[:i])):
            continue
        else:
            parts.append(str(step))
    return node, parts


def assign(tree: YamlNode, path: str, leaf: YamlNode, problems: list[Problem]) -> YamlNode:
    """The tree with `leaf` at `path`; a path that leads nowhere is appended to `problems`."""
    if path.split(".")[0] == "policy" and path.count(".") < MAX_DEPTH:
        patch = leaf
        for segment in reversed(path.split(".")):
            patch = replace(leaf, value={segment: patch}, whole=False)
        return merge(tree, policy.long_form(patch))
    try:
        return with_value(tree, path, leaf)
    except ValueError as error:
        problems.append(leaf.problem(path, str(error), at_key=True))
        return tree
