"""The 45 patches of version 1, patch by patch: which keys model each, how, or why it is left out.

Owns the table in series.json beside this file, and how certain the meaning of every policy key is.
docs/series.md, `spbfast explain` and the tests read it; nothing simulates from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from spbfast.config import presets

MODELLED, OUT_OF_SCOPE = "modelled", "out of scope"
STATUSES = (MODELLED, OUT_OF_SCOPE)
NR_PATCHES = 45


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch of the series and what this program makes of it.

    Attributes
    ----------
    patch : int
        Number in its version.
    sim : str
        "M..." modelled, "A..." approximated, "X..." out of scope; else what is done instead.
    known_by : str
        Where the knowledge comes from.
    behaviour : str
        What it does to the allocator, as far as that is known.
    how : str
        How it is modelled or approximated, or why it is not.
    keys : tuple of str
        Dotted paths of the configuration that switch or tune it.
    v2 : int or None
        Number of the patch of version 2 that it became.
    """

    patch: int
    sim: str
    known_by: str
    behaviour: str
    how: str
    keys: tuple[str, ...] = ()
    v2: int | None = None

    @property
    def status(self) -> str:
        """One of STATUSES."""
        return OUT_OF_SCOPE if self.sim.startswith("X") else MODELLED

    @property
    def behavioural(self) -> bool:
        """Whether the patch changes what the allocator does (rows M and A)."""
        return self.sim[0] in "MA"


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A point that the texts leave open: the keys that vary it, and what no key varies."""

    point: str
    keys: tuple[str, ...] = ()
    open: str = ""


@cache
def _series() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("series.json").read_text(encoding="utf-8"))


def _entries(section: str) -> list[dict[str, Any]]:
    return [{**row, "keys": tuple(row.get("keys", ()))} for row in _series()[section]]


def patches() -> list[Patch]:
    """The 45 patches of version 1, in order."""
    return [Patch(**row) for row in _entries("patches")]


def v2_only() -> list[Patch]:
    """What version 2 adds beyond a regrouping of version 1."""
    return [Patch(**row) for row in _entries("v2_only")]


def uncertain_points() -> list[Uncertain]:
    """The least certain points of the model, the one with the greatest effect on results first."""
    return [Uncertain(**row) for row in _entries("uncertain")]


def keys_of_no_patch() -> dict[str, str]:
    """Policy keys that belong to no single patch, and why they exist."""
    return dict(_series()["no_patch"])


def certain_keys() -> dict[str, str]:
    """Every policy key, without its section, and the word for its certainty."""
    return {key: row["word"] for row in _series()["certainty"] for key in row["keys"]}


def certainty(key: str) -> tuple[str, str] | None:
    """How sure a policy key is: a word and its meaning; None for keys of other sections.

    Parameters
    ----------
    key : str
        Dotted path such as ``policy.borrow_nonmovable``.
    """
    rows = (row for row in _series()["certainty"] if key in [f"policy.{name}" for name in row["keys"]])
    return next(((row["word"], row["means"]) for row in rows), None)


def patches_of(key: str) -> list[str]:
    """The patches that a key belongs to, as ``v1 30`` and ``v2 35``."""
    found = [f"v1 {row.patch}" for row in patches() if key in row.keys]
    return found + [f"v2 {row.patch}" for row in v2_only() if key in row.keys]


def steps_of(key: str) -> list[tuple[str, str]]:
    """The presets at which a policy key changes along the ladder, each with its value from there on."""
    values = presets.matrix(everything=True).get(key.removeprefix("policy."), {})
    steps = [(name, presets.text(value)) for name, value in values.items()]
    return [new for old, new in zip(steps, steps[1:], strict=False) if new[1] != old[1]]
