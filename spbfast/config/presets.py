"""Allocator policies by patch: which switches each step of the series turns on.

Owns the preset names, the table in presets.json beside this file, and its views: the matrix preset x switch
and the difference of two presets. The table gives the first preset in full and every later one as what it
changes in the one before; keys of sections stand behind a dot, such as ``slab_shrink_triggers.would_taint``.
`v1@N` is the state after patch N of the 45 patches of version 1; `v1` is short for the last of them and `v2`
is version 2. They leave off the patches of `left_off`; `v1@N-full` is `v1@N` with those up to N. `v1@N-half`
reads patch 42 otherwise. Presets that a configuration defines itself are in userpresets.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from spbfast.errors import ConfigError
from spbfast.text import quote_value, suggest

ALIASES = {"v1": "v1@45"}
DEFAULT = "v1@30"
FULL, HALF = "-full", "-half"
# Patch 42 lends movable fragments of tainted superpageblocks, which says that nothing else reaches them. With
# patch 25 as the steps have it, a claim of part of a pageblock does, and patch 42 never acts.
HALF_FROM, HALF_CHANGES = 42, {"tainted_claim_needs_half": True}
# Why the steps go on without these patches: said wherever a policy is shown.
WHY_LEFT_OFF = (
    "their code was not available and what the texts tell of them is a title, a mail or another author's "
    "draft, so that each is an approximation; and a preset means today what it meant when its results were "
    "made"
)


@cache
def _steps() -> dict[str, dict[str, Any]]:
    return json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))


@cache
def _in_full() -> dict[str, dict[str, Any]]:
    """Every preset in full: its keys are those of the first one, in the same order."""
    columns: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name, changes in _steps().items():
        values = {**values, **changes}
        columns[name] = values
    return columns


def ladder() -> list[str]:
    """The presets in the order of the series, each once."""
    return list(_steps())


@cache
def left_off() -> dict[int, str]:
    """The patches of version 1 that are modelled and that no step turns on: number and switch."""
    rows = json.loads(Path(__file__).with_name("presets-full.json").read_text(encoding="utf-8"))
    return {int(patch): switch for patch, switch in rows.items()}


def full_presets() -> dict[str, str]:
    """The presets that hold everything modelled up to a step, each with its step."""
    return {f"{name}{FULL}": name for name in ladder() if _added(name)}


def half_presets() -> dict[str, str]:
    """The presets under which patch 42 acts, each with its step."""
    steps = [name for name in ladder() if name.startswith("v1@") and int(name[3:]) >= HALF_FROM]
    return {f"{name}{HALF}": name for name in steps}


def _step_of(name: str) -> str:
    """A preset's step: the name without what stands behind it."""
    return name.removesuffix(FULL).removesuffix(HALF)


def _added(name: str) -> list[str]:
    """What the full preset of a step turns on: patches up to it; nothing before there are superpageblocks."""
    if not name.startswith("v1@") or not _in_full()[name]["superpageblocks"]:
        return []
    return [switch for patch, switch in left_off().items() if patch <= int(name.removeprefix("v1@"))]


def patches_off(policy: Mapping[str, Any], step: str) -> list[int]:
    """The modelled patches of version 1 up to a policy's step that it leaves off; none for mainline and v2.

    Parameters
    ----------
    policy : mapping
        Values by key.
    step : str
        The preset that the policy builds on.
    """
    step = _step_of(step)
    return [patch for patch, switch in left_off().items() if switch in _added(step) and not policy[switch]]


def preset_names() -> list[str]:
    """Every name that a configuration may use: the steps in order, then the full and the half ones."""
    short = {long: name for name, long in ALIASES.items()}
    steps = [n for name in ladder() for n in (name, short.get(name)) if n]
    known = full_presets() | half_presets()
    more = [(name, suffix) for suffix in (FULL, HALF) for name in steps]
    return [*steps, *(f"{name}{end}" for name, end in more if f"{ALIASES.get(name, name)}{end}" in known)]


def canonical_name(name: str, own: Sequence[str] = ()) -> str:
    """The preset that `name` means: ``v1_30`` and ``v1@30`` are one, ``v1`` is ``v1@45``.

    Raises
    ------
    ValueError
        For an unknown name; the message suggests the nearest one, `own` names included.
    """
    known = name.replace("_", "@")
    step = _step_of(known)
    known = ALIASES.get(step, step) + known[len(step) :]
    if known in _steps() or known in full_presets() or known in half_presets():
        return known
    names = [*preset_names(), *own]
    hint = suggest(name, own) or _nearest_step(known.lower()) or suggest(known.lower(), names, 0.7)
    raise ValueError(f"unknown preset {quote_value(name)}{hint} (presets: {', '.join(names)})")


def _nearest_step(name: str) -> str:
    """The step that a patch number between two steps belongs to."""
    if (number := re.fullmatch(rf"v1@([0-9]{{1,4}})(?:{FULL}|{HALF})?", name)) is None:
        return ""
    steps = [n for n in ladder() if n.startswith("v1@") and int(n[3:]) <= int(number[1])]
    return f"; the last step before that patch is {steps[-1]!r}" if steps else "; the first step is 'v1@12'"


def flat_values(name: str) -> dict[str, Any]:
    """The preset's keys with those of sections behind a dot.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    known = canonical_name(name)
    step = _step_of(known)
    changes: Mapping[str, Any] = {}
    if known.endswith(FULL):
        changes = dict.fromkeys(_added(step), True)
    elif known.endswith(HALF):
        changes = HALF_CHANGES
    return {**_in_full()[step], **changes}


def preset_values(name: str) -> dict[str, Any]:
    """The preset's keys as a configuration would write them.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    return nested(flat_values(name))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys behind a dot as sections."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        (out.setdefault(section, {}) if section else out)[leaf] = value
    return out


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
    first, *later = _steps().values()
    changed = list(dict.fromkeys(key for step in later for key in first if key in step))
    constant = [key for key in first if key not in changed] if everything else []
    return {key: {name: v[key] for name, v in _in_full().items()} for key in [*changed, *constant]}


def difference(one: str, other: str) -> dict[str, tuple[Any, Any]]:
    """The keys in which two presets differ, each with both values.

    Raises
    ------
    ConfigError
        For what is no name of a preset; the message suggests the nearest one.
    """
    for name in (one, other):
        if not isinstance(name, str):
            raise ConfigError(f"a preset is named by a text such as 'v1@30', got {quote_value(name)}")
    try:
        a, b = flat_values(one), flat_values(other)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return {key: (a[key], b[key]) for key in a if a[key] != b[key]}


def preset_steps() -> list[tuple[str, str]]:
    """Each preset with what it changes in the one before it, as one line of text."""
    first, *later = _steps().items()
    out = [(first[0], "the mainline allocator")]
    for name, changes in later:
        out.append((name, ", ".join(f"{key} {text(changes[key])}" for key in first[1] if key in changes)))
        out += [(short, f"the same as {name}") for short, long in ALIASES.items() if long == name]
    return out


def full_steps() -> list[tuple[str, str]]:
    """Each preset that holds everything modelled up to its step, with what it turns on there."""
    patches = {switch: patch for patch, switch in left_off().items()}
    rows = []
    for name, step in full_presets().items():
        added = ", ".join(f"{key} on ({patches[key]:02})" for key in _added(step))
        rows.append((name, f"{step} with {added}"))
    return [*rows, *_short_names(FULL)]


def half_steps() -> list[tuple[str, str]]:
    """Each preset under which patch 42 acts, with what it changes in its step."""
    changes = ", ".join(f"{key} {text(value)}" for key, value in HALF_CHANGES.items())
    rows = [(name, f"{step} with {changes}") for name, step in half_presets().items()]
    return [*rows, *_short_names(HALF)]


def _short_names(end: str) -> list[tuple[str, str]]:
    return [(f"{short}{end}", f"the same as {long}{end}") for short, long in ALIASES.items()]


def text(value: Any) -> str:
    """A switch as people read it: on, off, or the value as a file has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
