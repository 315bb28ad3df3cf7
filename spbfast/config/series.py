"""The 45 patches of version 1, patch by patch: which keys model each, how, or why it is left out.

Owns the table in series.json beside this file, and what is known about the certainty of every policy key.
docs/series.md, `spbfast explain` and the tests read it; nothing simulates from it. A patch whose switch does
not exist says so ("not yet"), so that the table cannot promise more than there is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spbfast.config import presets

MODELLED, NOT_YET, OUT_OF_SCOPE = "modelled", "not yet", "out of scope"
STATUSES = (MODELLED, NOT_YET, OUT_OF_SCOPE)
NR_PATCHES = 45


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of the series and what this program makes of it.

    Attributes
    ----------
    patch : int
        Number in its version.
    behaviour : str
        What it does to the allocator, as far as that is known.
    sim : str
        "M..." to be modelled, "A..." to be approximated, "X..." out of scope; else as it says.
    known_by : str
        Where the knowledge comes from.
    v2 : int or None
        Number of the patch of version 2 that it became.
    status : str
        One of STATUSES.
    keys : tuple of str
        Dotted paths of the configuration that switch or tune it.
    how : str
        How it is modelled or approximated, or why it is not.
    """

    patch: int
    behaviour: str
    sim: str
    known_by: str
    v2: int | None
    status: str
    keys: tuple[str, ...]
    how: str

    @property
    def behavioural(self) -> bool:
        """Whether the patch changes what the allocator does (rows M and A)."""
        return self.sim[0] in "MA"


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A point that the texts leave open: the keys that vary it, and what no key varies."""

    point: str
    keys: tuple[str, ...]
    open: str


@cache
def _table() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("series.json").read_text(encoding="utf-8"))


def patches() -> list[Patch]:
    """The 45 patches of version 1, in order."""
    return [Patch(**{**row, "keys": tuple(row["keys"])}) for row in _table()["patches"]]


def v2_only() -> list[Patch]:
    """What version 2 adds beyond a regrouping of version 1."""
    blank = {"sim": "M", "known_by": "text", "v2": None}
    return [Patch(**{**blank, **row, "keys": tuple(row["keys"])}) for row in _table()["v2_only"]]


def uncertain_points() -> list[Uncertain]:
    """The least certain points of the model, the one with the greatest effect on results first."""
    return [Uncertain(row["point"], tuple(row["keys"]), row["open"]) for row in _table()["uncertain"]]


def keys_of_no_patch() -> dict[str, str]:
    """Policy keys that belong to no single patch, and why they exist."""
    return dict(_table()["no_patch"])


def certainty(key: str) -> tuple[str, str] | None:
    """How sure a policy key is: a word and its meaning; None for keys of other sections.

    Parameters
    ----------
    key : str
        Dotted path such as ``policy.borrow_nonmovable``.
    """
    head, _, name = key.partition(".")
    tag = _table()["certainty"].get(name) if head == "policy" else None
    return None if tag is None else (tag, _table()["certainty_means"][tag])


def certain_keys() -> dict[str, str]:
    """Every policy key, without its section, and the word for its certainty."""
    return dict(_table()["certainty"])


def patches_of(key: str) -> list[str]:
    """The patches that a key belongs to, as ``v1 30`` and ``v2 35``."""
    found = [f"v1 {row.patch}" for row in patches() if key in row.keys]
    return found + [f"v2 {row.patch}" for row in v2_only() if key in row.keys]


def is_inert(key: str) -> bool:
    """Whether a key is there although nothing acts on it yet: it says so, or all its patches wait."""
    if key in _table()["inert"]:
        return True
    rows = [row for row in [*patches(), *v2_only()] if key in row.keys]
    return bool(rows) and all(row.status == NOT_YET for row in rows)


def steps_of(key: str) -> list[tuple[str, str]]:
    """The presets at which a policy key changes along the ladder, each with its value from there on."""
    head, _, name = key.partition(".")
    if head != "policy":
        return []
    out: list[tuple[str, str]] = []
    before = None
    for preset in presets.ladder():
        value = presets.flat_values(preset).get(name)
        if before is not None and value != before:
            out.append((preset, presets.text(value)))
        before = value
    return out
