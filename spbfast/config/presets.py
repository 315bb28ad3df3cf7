"""Allocator policies by patch: which switches each step of the series turns on.

Owns the preset names and the table in presets.json beside this file. `v1@N` is the state after patch N of
the 45 patches of version 1; `v1` is short for the last of them and `v2` is version 2. A preset is complete:
a policy is a preset plus the keys that a configuration overrides.
"""

from __future__ import annotations

import copy
import difflib
import json
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
    near = difflib.get_close_matches(name.lower().replace("_", "@"), preset_names(), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown preset {name!r}{hint} (presets: {', '.join(preset_names())})")


def preset_values(name: str) -> dict[str, Any]:
    """A fresh copy of the preset's keys, as a configuration would write them.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return copy.deepcopy(_table()[canonical_name(name)])
