"""The preset matrix as text: what `spbfast presets` prints, for terminals of 80 columns and wider ones.

Owns the layout alone; values come from presets.py. Groups of presets that a terminal cannot show side by side
follow each other, each with its own heading.
"""

from __future__ import annotations

import textwrap
from typing import Any

from spbfast.config import presets
from spbfast.text import text_table


def matrix_text(width: int = 80, *, everything: bool = False) -> str:
    """The matrix preset x switch.

    A value that is the same as in the preset to its left is a dot, so that steps stand out; on the left edge
    of a group every value is written out.

    Parameters
    ----------
    width : int
        Columns of the terminal.
    everything : bool
        Also the switches that are the same in all presets.
    """
    rows = presets.matrix(everything=everything)
    shown = {key: [presets.text(v) for v in row.values()] for key, row in rows.items()}
    label = max(len(key) for key in rows)
    blocks = [_block(shown, first, last) for first, last in _side_by_side(shown, width - label)]
    aliases = ", ".join(f"{short} is {long}" for short, long in presets.ALIASES.items())
    same = "" if everything else " Switches that are the same in every preset are left out (--all)."
    legend = f". the same as in the preset to its left. {aliases}.{same}"
    return "\n\n".join(
        [*blocks, *(textwrap.fill(part, max(width, 40)) for part in (legend, full_text(), half_text()))]
    )


def full_text() -> str:
    """What the full presets have more than their steps, and why the steps have less."""
    patches = ", ".join(f"{patch:02} ({switch})" for patch, switch in presets.left_off().items())
    first = next(iter(presets.full_presets().values()))
    return (
        f"NAME{presets.FULL}, for each step from {first} to v1, is the step with those patches up to it that "
        f"are modelled and that the step leaves off: {patches}. They are off in the steps because "
        f"{presets.WHY_LEFT_OFF}."
    )


def half_text() -> str:
    """What the half presets change in their steps, and why."""
    changes = ", ".join(f"{key} {presets.text(value)}" for key, value in presets.HALF_CHANGES.items())
    first = next(iter(presets.half_presets().values()))
    return (
        f"NAME{presets.HALF}, for each step from {first} to v1, is the step with {changes}. Patch 42 lends "
        "movable fragments of tainted superpageblocks; that only acts where no claim of part of a pageblock "
        "reaches them, and as the steps read patch 25, one always does. Which reading holds is open."
    )


def difference_text(one: str, other: str) -> str:
    """The switches in which two presets differ, a line each.

    Raises
    ------
    ValueError
        For an unknown preset.
    """
    rows = presets.difference(one, other)
    if not rows:
        return f"{one} and {other} are the same"
    cells = [(key, presets.text(a), presets.text(b)) for key, (a, b) in rows.items()]
    return text_table(("switch", one, other), cells, left=(0, 1, 2))


def matrix_data(*, everything: bool = False) -> dict[str, Any]:
    """The matrix as plain data for `--json`: presets, aliases, and values by switch and preset."""
    rows = presets.matrix(everything=everything)
    return {
        "presets": presets.ladder(),
        "aliases": dict(presets.ALIASES),
        "switches": rows,
        "full": dict(presets.full_steps()),
        "half": dict(presets.half_steps()),
        "why_left_off": presets.WHY_LEFT_OFF,
    }


def difference_data(one: str, other: str) -> dict[str, Any]:
    """Two presets' difference as plain data for `--json`."""
    return {key: {one: a, other: b} for key, (a, b) in presets.difference(one, other).items()}


def _cells(row: list[str], first: int, last: int) -> list[str]:
    """A switch's values in a group of presets: a dot where nothing changes."""
    return [row[i] if i == first or row[i] != row[i - 1] else "." for i in range(first, last + 1)]


def _side_by_side(shown: dict[str, list[str]], room: int) -> list[tuple[int, int]]:
    """First and last preset of each group that fits side by side."""
    names, groups = presets.ladder(), [(0, 0)]

    def width(first: int, last: int) -> int:
        columns = zip(*(_cells(row, first, last) for row in shown.values()), strict=True)
        heads = names[first : last + 1]
        return sum(1 + max(len(head), *map(len, column)) for head, column in zip(heads, columns, strict=True))

    for i in range(1, len(names)):
        first, _ = groups[-1]
        if width(first, i) <= room:
            groups[-1] = (first, i)
        else:
            groups.append((i, i))
    return groups


def _block(shown: dict[str, list[str]], first: int, last: int) -> str:
    header = ["", *presets.ladder()[first : last + 1]]
    return text_table(header, [[key, *_cells(row, first, last)] for key, row in shown.items()], gap=1)
