"""Allocator policies by patch: which switches each step of the series turns on.

Owns the preset names, the table in presets.json beside this file, and its views: the matrix preset x switch
and the difference of two presets. `v1@N` is the state after patch N of the 45 patches of version 1; `v1` is
short for the last of them and `v2` is version 2. A preset is complete: a policy is a preset plus the
keys that a configuration overrides. Presets that a configuration names itself are userpresets.py's business.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ALIASES = {"v1": "v1@45"}
DEFAULT = "v1@30"


@cache
def _table() -> dict[str, dict[str, Any]]:
    return json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))


def preset_names() -> list[str]:
    """Every name that a configuration may use, in the order of the series."""
    names = list(_table())
    return names[: names.index("v1@45") + 1] + ["v1"] + names[names.index("v1@45") + 1 :]


def canonical_name(name: str) -> str:
    """The preset that `name` means: ``v1_30`` and ``v1@30`` are one, ``v1`` is ``v1@45``.

    Raises
    ------
    ValueError
        For an unknown name; the message suggests the nearest one.
    """
    known = name.replace("_", "@")
    known = ALIASES.get(known, known)
    if known in _table():
        return known
    raise ValueError(f"unknown preset {name!r}{_hint(known.lower())} (presets: {', '.join(preset_names())})")


def _hint(name: str) -> str:
    """The step that a patch number between two steps belongs to, else the nearest spelling."""
    if (number := re.fullmatch(r"v1@([0-9]+)", name)) is not None:
        steps = [n for n in _table() if n.startswith("v1@") and int(n[3:]) <= int(number[1])]
        return (
            f"; the last step before that patch is {steps[-1]!r}" if steps else "; the first step is 'v1@12'"
        )
    near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def preset_values(name: str) -> dict[str, Any]:
    """A fresh copy of the preset's keys, as a configuration would write them.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return copy.deepcopy(_table()[canonical_name(name)])


def ladder() -> list[str]:
    """The presets in the order of the series, each once."""
    return list(_table())


def flat_values(name: str) -> dict[str, Any]:
    """The preset's keys with those of sections behind a dot, such as ``slab_shrink_triggers.would_taint``.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return dict(_flat(_table()[canonical_name(name)]))


def matrix(*, everything: bool = False) -> dict[str, dict[str, Any]]:
    """Every switch with its value in each preset of the ladder.

    Parameters
    ----------
    everything : bool
        Also the switches that are the same in all presets.

    Returns
    -------
    dict of str to dict of str to bool, int or str
        Key to preset to value; keys in the order in which the series changes them, then the constant ones.
    """
    columns = {name: flat_values(name) for name in ladder()}
    keys = list(next(iter(columns.values())))
    rows = {key: {name: column[key] for name, column in columns.items()} for key in keys}

    def changes_at(key: str) -> int:
        values = list(rows[key].values())
        return next((i for i, value in enumerate(values) if value != values[0]), len(values))

    ordered = sorted(keys, key=changes_at)
    return {key: rows[key] for key in ordered if everything or changes_at(key) < len(columns)}


def difference(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """The keys in which two presets differ, each with both values.

    Raises
    ------
    ValueError
        For an unknown name; the message suggests the nearest one.
    """
    a, b = flat_values(one), flat_values(other)
    return {key: (a[key], b[key]) for key in a if a[key] != b[key]}


def preset_steps() -> list[tuple[str, str]]:
    """Each preset with what it changes against the one before it, as one line of text."""
    out: list[tuple[str, str]] = []
    before: dict[str, Any] = {}
    for name, values in _table().items():
        flat = dict(_flat(values))
        changed = [f"{k} {text(v)}" for k, v in flat.items() if before.get(k, v) != v]
        out.append((name, ", ".join(changed) or "the mainline allocator"))
        before = flat
        out += [(short, f"the same as {name}") for short, long in ALIASES.items() if long == name]
    return out


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text(value: Any) -> str:
    """A switch as people read it: on, off, or the value as a file has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
