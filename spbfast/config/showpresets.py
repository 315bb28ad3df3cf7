"""The preset matrix as text: what `spbfast presets` prints, for terminals of 80 columns and wider ones.

Owns the layout alone; values come from presets.py. Groups of presets that a terminal cannot show side by side
follow each other, each with its own heading.
"""

from __future__ import annotations

import textwrap
from typing import Any

from spbfast.config import presets


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
    blocks = [_block(shown, first, last, label) for first, last in _groups(shown, width - label)]
    aliases = ", ".join(f"{short} is {long}" for short, long in presets.ALIASES.items())
    same = "" if everything else " Switches that are the same in every preset are left out (--all)."
    legend = f". the same as in the preset to its left. {aliases}.{same}"
    return "\n\n".join([*blocks, textwrap.fill(legend, max(width, 40))])


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
    cells = {key: (presets.text(a), presets.text(b)) for key, (a, b) in rows.items()}
    label = max(len("switch"), *(len(key) for key in cells))
    left = max(len(one), *(len(a) for a, _ in cells.values()))
    lines = [f"{'switch':<{label}} {one:<{left}} {other}"]
    return "\n".join(lines + [f"{key:<{label}} {a:<{left}} {b}" for key, (a, b) in cells.items()])


def matrix_data(*, everything: bool = False) -> dict[str, Any]:
    """The matrix as plain data for `--json`: presets, aliases, and values by switch and preset."""
    rows = presets.matrix(everything=everything)
    return {"presets": presets.ladder(), "aliases": dict(presets.ALIASES), "switches": rows}


def difference_data(one: str, other: str) -> dict[str, Any]:
    """Two presets' difference as plain data for `--json`."""
    return {key: {one: a, other: b} for key, (a, b) in presets.difference(one, other).items()}


def _column(shown: dict[str, list[str]], i: int, *, first: bool) -> tuple[list[str], int]:
    """A preset's cells and their width; the heading of a group's first one may reach over the labels."""
    cells = ["." if not first and row[i] == row[i - 1] else row[i] for row in shown.values()]
    width = max(len(cell) for cell in cells)
    return cells, width if first else max(width, len(presets.ladder()[i]))


def _groups(shown: dict[str, list[str]], room: int) -> list[tuple[int, int]]:
    """First and last preset of each group that fits side by side."""
    groups: list[tuple[int, int]] = []
    used = room + 1
    for i in range(len(presets.ladder())):
        need = 1 + _column(shown, i, first=False)[1]
        if used + need > room:
            need = 1 + _column(shown, i, first=True)[1]
            groups.append((i, i))
            used = 0
        groups[-1] = (groups[-1][0], i)
        used += need
    return groups


def _block(shown: dict[str, list[str]], first: int, last: int, label: int) -> str:
    columns = [_column(shown, i, first=i == first) for i in range(first, last + 1)]
    head = f"{presets.ladder()[first]:>{label + 1 + columns[0][1]}}"
    for i, (_, width) in zip(range(first + 1, last + 1), columns[1:], strict=True):
        head += f" {presets.ladder()[i]:>{width}}"
    lines = [head]
    for row, key in enumerate(shown):
        lines.append(f"{key:<{label}}" + "".join(f" {cells[row]:>{width}}" for cells, width in columns))
    return "\n".join(lines)
