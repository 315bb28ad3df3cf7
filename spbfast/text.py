"""How numbers, quantities and tables are written for people: on the command line, in logs and in the report.

Owns every rounding and every layout of columns; knows nothing of what it writes. Exact text forms that a
configuration reads back are in config/units.py.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LONGEST_VALUE = 60
LONGEST_BITS = 256
MANY_NAMES = 20
LONGEST_NAME = 200
UNWRAPPED = 10_000  # columns; no table of this program is wider
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"  # from low to high; the second where there is only ASCII
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_TIMES = ((60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def format_number(x: float, digits: int | None = None) -> str:
    """A number with `digits` decimals, or with as many as three significant figures need; NaN is "none"."""
    if not math.isfinite(x):
        return "none"
    if digits is not None:
        text = f"{x:,.{digits}f}"
    elif x == round(x) or abs(x) >= 1000:
        text = f"{x:,.0f}"
    else:
        text = f"{x:.3g}" if abs(x) < 100 else f"{x:.1f}"
    return text if float(text.replace(",", "")) else text.lstrip("-")


def format_change(x: float, digits: int | None = None) -> str:
    """A difference: a number with its sign, also a plus."""
    return ("+" if x > 0 else "") + format_number(x, digits)


def format_bytes(nbytes: float) -> str:
    """An amount of memory or disk: 812 B, 3.24 MiB, 1.12 GiB."""
    from dask.utils import format_bytes as in_binary_units

    return str(in_binary_units(int(nbytes)))


def format_seconds(seconds: float) -> str:
    """A measured or expected duration: 0.4 s, 12 s, 3 min 20 s, 2 h 05 min.

    Not dask.utils.format_time, which gives estimates two decimals (12.00 s) and no minutes below ten.
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_share(part: int, whole: int) -> str:
    """A share in whole percent, rounded down: 99 % is not yet all."""
    return f"{100 * part // max(1, whole)} %"


def format_ranges(numbers: Iterable[int]) -> str:
    """Ascending whole numbers with neighbours joined: 0 to 3, 7."""
    spans: list[list[int]] = []
    for n in numbers:
        if spans and spans[-1][1] == n - 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)


def format_value(value: Any, units: str = "") -> str:
    """A parameter's value: 0.05 of unit s is 50 ms, 2147483648 of unit byte is 2 GiB, True is on."""
    name = type(value).__name__
    if name in ("bool", "bool_"):
        return "on" if value else "off"
    if isinstance(value, str) or value is None:
        return str(value)
    number = float(value)
    scale: Sequence[tuple[float, str]] = (
        _TIMES if units == "s" else _SIZES if units.startswith("byte") else ()
    )
    suffix = "/s" if units == "byte s-1" else ""
    for factor, unit in scale:
        if abs(number) >= factor * (2 if unit == "min" else 1):
            return f"{number / factor:.4g} {unit}{suffix}"
    return f"{number:.10g}{' ' + units if units not in ('', '1') else ''}"


def quote_value(value: Any) -> str:
    """What a user gave, for a message about it; long values are cut."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str | bytes) and len(value) > LONGEST_VALUE:
        value = value[:LONGEST_VALUE]  # its repr is cut below, without writing out the rest
    if (
        isinstance(value, int) and value.bit_length() > LONGEST_BITS
    ):  # writing it out takes long, or is refused
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # somebody else's type; what is wrong with it is not our message
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def sparkline(values: Iterable[float], low: float, high: float, ramp: str = BLOCKS) -> str:
    """One character a value, higher ones for more between `low` and `high`; a blank where there is none.

    Where both ends are the same, every value stands at the bottom.
    """
    step = (high - low) / len(ramp)
    marks = []
    for value in values:
        level = int((value - low) / step) if step > 0 and math.isfinite(value) else 0
        marks.append(ramp[min(max(level, 0), len(ramp) - 1)] if math.isfinite(value) else " ")
    return "".join(marks)


def printable(text: str) -> str:
    """Text for a terminal: what is no visible character, such as an escape, as its code."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def valid_text(text: str) -> str:
    """Text that files can hold: bytes of a file name that are no text, which Python has as half characters,
    become their codes."""
    return text.encode("utf-8", "backslashreplace").decode()


def suggest(word: str, known: Sequence[str], cutoff: float = 0.6) -> str:
    """``; did you mean 'x'?`` or nothing."""
    if len(word) > LONGEST_NAME:  # nothing is near, and finding that out takes long
        return ""
    near = difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


def suggest_or_list(word: str, known: Sequence[str]) -> str:
    """The nearest of the known names, or all of them, or those of many that are least far off."""
    if (near := suggest(word, known)) or len(known) <= MANY_NAMES:
        return near or f"; there are {', '.join(known)}"
    some = difflib.get_close_matches(word[:LONGEST_NAME], known, n=5, cutoff=0.0)
    return f"; there are {len(known)}, such as {', '.join(some)}"


def text_table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    left: Iterable[int] = (0,),
    gap: int = 2,
    width: int | None = None,
) -> str:
    """Columns side by side, without rules.

    Parameters
    ----------
    header : sequence of str
        Headings; an empty sequence for none.
    rows : iterable of sequences
        Cells, as many in each row.
    left : iterable of int
        Columns that are flush left; the others are flush right.
    gap : int
        Spaces between columns.
    width : int, optional
        Columns of the terminal; cells wrap to fit. By default nothing wraps.
    """
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[str(cell) for cell in row] for row in rows]
    flush_left = set(left)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), show_header=bool(header))
    for i in range(len(header) or max(map(len, cells), default=0)):
        heading = Text(header[i]) if header else ""
        side = "left" if i in flush_left else "right"
        table.add_column(heading, justify=side, no_wrap=width is None, overflow="fold")  # type: ignore[arg-type]
    for row in cells:
        table.add_row(*map(Text, row))
    stream = StringIO()
    Console(file=stream, width=width or UNWRAPPED, color_system=None, force_terminal=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
