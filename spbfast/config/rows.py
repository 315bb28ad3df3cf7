"""Points given row by row: `zip`, `points` and `points_file`, as rows of values.

Owns the table that these three become, reading CSV and Parquet files of points, and where each row was
written. Values are what YAML would make of the same text. What keys mean and which values are valid is
checked elsewhere.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spbfast.config.tree import Source, YamlNode, from_plain, lines_of_text, parse
from spbfast.config.units import DURATION_UNITS, SIZE_UNITS
from spbfast.errors import Problem
from spbfast.places import open_to_read, read_whole

MAX_BYTES = 4 << 30
SHOWN = 8
NO_VALUE: Any = object()


@dataclass
class RowTable:
    """Rows of points.

    Attributes
    ----------
    shown : str
        Where the rows stand in the file, such as ``sweep.points``.
    rows : list of dict
        By row the values of the keys that it sets.
    places : list of (line, col)
        Place of each row in `source`.
    columns : dict of list of YamlNode
        By key its different values, each where it is first used.
    """

    shown: str
    source: Source
    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    columns: dict[str, list[YamlNode]] = field(default_factory=dict)
    _known: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: Mapping[str, YamlNode], line: int, col: int) -> None:
        """Append a row; a key that it lacks stays as the file has it."""
        self.rows.append({path: self._shared(path, node) for path, node in row.items()})
        self.places.append((line, col))

    def _shared(self, path: str, node: YamlNode) -> Any:
        """The value of a node, one object for equal values of a key."""
        value = node.plain()
        key = (path, repr(value))
        if key not in self._known:
            self._known[key] = value
            self.columns.setdefault(path, []).append(node)
        return self._known[key]

    def problem(self, row: int, message: str) -> Problem:
        """A problem at the place of a row."""
        return self.source.problem(*self.places[row], f"{self.shown}.{row}", message)


@dataclass(frozen=True)
class PointsFile:
    """A file of points as it was read: its name beside the configuration, its bytes and their hash."""

    name: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self.content).hexdigest()


def rows_of_zip(node: YamlNode, problems: list[Problem]) -> RowTable | None:
    """The rows of `zip: {key: [values], ...}`, whose lists must have one length."""
    lists = {k: n for k, n in node.value.items() if isinstance(n.value, list)}
    if len(lists) != len(node.value):
        return None
    lengths = {k: len(n.value) for k, n in lists.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{k} has {n}" for k, n in list(lengths.items())[:SHOWN])
        problems.append(node.problem("sweep.zip", f"needs lists of one length: {shown}", at_key=True))
        return None
    table = RowTable("sweep.zip", node.source)
    for i in range(next(iter(lengths.values()), 0)):
        row = {k: n.value[i] for k, n in lists.items()}
        first = next(iter(row.values()))
        table.add(row, first.line, first.col)
    return table


def rows_of_list(node: YamlNode) -> RowTable | None:
    """The rows of `points: [{key: value, ...}, ...]`."""
    if any(not isinstance(n.value, dict) for n in node.value):
        return None
    table = RowTable("sweep.points", node.source)
    for row in node.value:
        table.add(row.value, row.line, row.col)
    return table


def read_points_file(
    path: Path, shown: str, at: YamlNode, problems: list[Problem]
) -> tuple[RowTable | None, PointsFile | None]:
    """The rows of a CSV or Parquet file; `at` is where the configuration names it."""
    try:
        content = read_whole(path, MAX_BYTES)
    except OSError as error:
        reason = (
            "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        )
        problems.append(at.problem("sweep.points_file", f"{shown}: {reason}"))
        return None, None
    stored = PointsFile(path.name, content)
    if path.suffix.lower() in (".parquet", ".pq"):
        return _read_parquet(path, shown, at, problems), stored
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{shown}: is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8"
        problems.append(at.problem("sweep.points_file", message))
        return None, None
    return _read_csv(text, shown, at, problems), stored


def _read_csv(text: str, shown: str, at: YamlNode, problems: list[Problem]) -> RowTable | None:
    source = Source(shown, lines_of_text(text))
    before = len(problems)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    table = RowTable("sweep.points_file", source)
    header: list[str] | None = None
    try:
        for cells in reader:
            line = reader.line_num
            if not cells or not any(c.strip() for c in cells) or cells[0].startswith("#"):
                continue
            if header is None:
                header = [c.strip() for c in cells]
                _check_header(header, source, line, problems)
                continue
            if len(cells) != len(header):
                message = f"has {len(cells)} values, the header has {len(header)} keys"
                problems.append(source.problem(line, 1, "", message))
                continue
            table.add(_row(header, cells, source, line, problems), line, 1)
            if len(problems) - before > 20:
                break
    except csv.Error as error:
        problems.append(source.problem(max(1, reader.line_num), 1, "", f"not valid CSV: {error}"))
    if len(problems) == before and not len(table):
        message = f"{shown}: has no rows; the first line names the keys, each further line is a point"
        problems.append(at.problem("sweep.points_file", message))
    return table if len(problems) == before else None


def _row(
    header: Sequence[str], cells: Sequence[str], source: Source, line: int, problems: list[Problem]
) -> dict[str, YamlNode]:
    """The cells of a line that are not empty, as YAML scalars with their places."""
    written = source.lines[line - 1] if line <= len(source.lines) else ""
    out = {}
    for path, text in zip(header, (cell.strip() for cell in cells), strict=True):
        if not text:
            continue
        value, col = _parsed(text), max(0, written.find(text)) + 1
        if value is NO_VALUE:
            message = f"{text!r} is not a plain value; write a number, true, false, or text with a unit"
            problems.append(source.problem(line, col, "", message))
            continue
        out[path] = replace(from_plain(value, source), line=line, col=col)
    return out


def _check_header(header: list[str], source: Source, line: int, problems: list[Problem]) -> None:
    for i, name in enumerate(header):
        if not name:
            problems.append(source.problem(line, 1, "", f"column {i + 1} of the header has no key"))
        elif name in header[:i]:
            problems.append(source.problem(line, 1, name, "appears twice in the header"))


@functools.lru_cache(maxsize=10_000)
def _parsed(text: str) -> Any:
    """The value that YAML makes of a text, NO_VALUE for a mapping or what is no YAML."""
    if (plain := _plain(text)) is not None:
        return plain
    found: list[Problem] = []
    node = parse(text, Source(""), found)
    return NO_VALUE if found or node is None or isinstance(node.value, dict) else node.plain()


def _plain(text: str) -> Any:
    """The value of a text that needs no YAML parser, which is a hundred times slower; None for others."""
    if text in _SWITCHES:
        return _SWITCHES[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text if _QUANTITY.fullmatch(text) else None


_SWITCHES = {"true": True, "false": False}
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
_UNIT = "|".join(re.escape(u) for u in (*SIZE_UNITS, *DURATION_UNITS))
_QUANTITY = re.compile(rf"[0-9]{{1,18}}(?:\.[0-9]{{1,9}})? ?(?:{_UNIT})(?:/s)?")


def _read_parquet(path: Path, shown: str, at: YamlNode, problems: list[Problem]) -> RowTable | None:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        message = f"{shown}: Parquet needs pyarrow; install it with: pip install 'spbfast[parquet]'"
        problems.append(at.problem("sweep.points_file", message))
        return None
    try:
        with open_to_read(path) as file:  # pyarrow itself opens no name that is not text
            read = parquet.read_table(file)
    except Exception as error:  # pyarrow has no common base for what a damaged file raises
        first = (str(error).splitlines() or [type(error).__name__])[0]
        problems.append(
            at.problem("sweep.points_file", f"{shown}: not a readable Parquet file: {first[:200]}")
        )
        return None
    source = Source(shown)
    table = RowTable("sweep.points_file", source)
    for i, row in enumerate(_dicts(read)):
        given = {k: from_plain(v, source) for k, v in row.items() if v is not None}
        table.add({k: replace(node, line=i + 1, col=1) for k, node in given.items()}, i + 1, 1)
    if not len(table):
        problems.append(at.problem("sweep.points_file", f"{shown}: has no rows"))
        return None
    return table


def _dicts(read: Any) -> Iterator[dict[str, Any]]:
    for batch in read.to_batches():
        yield from batch.to_pylist()
