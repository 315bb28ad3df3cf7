"""Points given row by row: `zip`, `points` and `points_file`, as columns of values.

Owns the table that these three become, reading CSV and Parquet files of points, and where each row was
written. Values are what YAML would make of the same text. What keys mean and which values are valid is
checked elsewhere.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spbfast.config.tree import Source, YamlNode, parse
from spbfast.config.units import DURATION_UNITS, SIZE_UNITS
from spbfast.errors import Problem

UNSET = -1
SHOWN = 8


@dataclass
class RowColumn:
    """One swept key: its different values, the place of each one's first use, and a code per row."""

    values: list[Any] = field(default_factory=list)
    nodes: list[YamlNode] = field(default_factory=list)
    codes: array[int] = field(default_factory=lambda: array("i"))
    _known: dict[Any, int] = field(default_factory=dict, repr=False)

    def add(self, node: YamlNode | None, place: Callable[[YamlNode], YamlNode] | None = None) -> None:
        """Append one row's value; None leaves the key as the file has it.

        `place` gives the node its place, which only the first use of a value needs.
        """
        if node is None:
            self.codes.append(UNSET)
            return
        value = node.plain()
        key = (type(value), value if not isinstance(value, dict | list) else repr(value))
        code = self._known.setdefault(key, len(self.values))
        if code == len(self.values):
            self.values.append(value)
            self.nodes.append(place(node) if place else node)
        self.codes.append(code)


@dataclass
class RowTable:
    """Rows of points.

    Attributes
    ----------
    shown : str
        Where the rows stand in the file, such as ``sweep.points``.
    lines : sequence of (line, col)
        Place of each row in `source`.
    """

    shown: str
    source: Source
    columns: dict[str, RowColumn] = field(default_factory=dict)
    lines: array[int] = field(default_factory=lambda: array("i"))
    cols: array[int] = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        return len(self.lines)

    def add(
        self,
        row: Mapping[str, YamlNode],
        line: int,
        col: int,
        place: Callable[[YamlNode], YamlNode] | None = None,
    ) -> None:
        """Append a row."""
        for path in row:
            if path not in self.columns:
                self.columns[path] = RowColumn(codes=array("i", [UNSET]) * len(self.lines))
        for path, column in self.columns.items():
            column.add(row.get(path), place)
        self.lines.append(line)
        self.cols.append(col)

    def problem(self, row: int, message: str) -> Problem:
        """A problem at the place of a row."""
        return self.source.problem(self.lines[row], self.cols[row], f"{self.shown}.{row}", message)


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
        content = path.read_bytes()
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
    source = Source(shown, tuple(text.splitlines()))
    before = len(problems)
    reader = csv.reader(text.splitlines(keepends=True), strict=True, skipinitialspace=True)
    table = RowTable("sweep.points_file", source)
    scalars = _Scalars(source, problems)
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
            table.add(scalars.row(header, cells, line), line, 1, scalars.place)
            if len(problems) - before > 20:
                break
    except csv.Error as error:
        problems.append(source.problem(max(1, reader.line_num), 1, "", f"not valid CSV: {error}"))
    if len(problems) == before and not len(table):
        message = f"{shown}: has no rows; the first line names the keys, each further line is a point"
        problems.append(at.problem("sweep.points_file", message))
    return table if len(problems) == before else None


def _check_header(header: list[str], source: Source, line: int, problems: list[Problem]) -> None:
    for i, name in enumerate(header):
        if not name:
            problems.append(source.problem(line, 1, "", f"column {i + 1} of the header has no key"))
        elif name in header[:i]:
            problems.append(source.problem(line, 1, name, "appears twice in the header"))


class _Scalars:
    """Cells as YAML scalars; the same text is parsed once."""

    def __init__(self, source: Source, problems: list[Problem]) -> None:
        self.source, self.problems = source, problems
        self.known: dict[str, YamlNode | None] = {}
        self.line = 0

    def row(self, header: Sequence[str], cells: Sequence[str], line: int) -> dict[str, YamlNode]:
        """The cells that are not empty."""
        self.line = line
        out = {}
        for path, cell in zip(header, cells, strict=True):
            text = cell.strip()
            if text not in self.known:
                self.known[text] = self._parse(text, line)
                if len(self.known) > KEPT:
                    self.known.pop(next(iter(self.known)))
            node = self.known.get(text)
            if node is not None:
                out[path] = node
        return out

    def place(self, node: YamlNode) -> YamlNode:
        """The node with its place in the row that was read last."""
        return replace(node, line=self.line, col=self._col(self.line, str(node.plain())))

    def _col(self, line: int, text: str) -> int:
        written = self.source.lines[line - 1] if line <= len(self.source.lines) else ""
        return max(0, written.find(text)) + 1

    def _parse(self, text: str, line: int) -> YamlNode | None:
        if not text:
            return None
        if (plain := _plain(text)) is not None:
            return YamlNode(plain, self.source, line, 1)
        found: list[Problem] = []
        node = parse(text, Source(self.source.name), found)
        if found or node is None or isinstance(node.value, dict):
            message = f"{text!r} is not a plain value; write a number, true, false, or text with a unit"
            self.problems.append(self.source.problem(line, self._col(line, text), "", message))
            return None
        return replace(node, source=self.source, line=line)


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
# Texts whose values are remembered; columns of numbers rarely repeat.
KEPT = 10_000


def _read_parquet(path: Path, shown: str, at: YamlNode, problems: list[Problem]) -> RowTable | None:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        message = f"{shown}: Parquet needs pyarrow; install it with: pip install 'spbfast[parquet]'"
        problems.append(at.problem("sweep.points_file", message))
        return None
    try:
        read = parquet.read_table(path)
    except Exception as error:  # pyarrow has no common base for what a damaged file raises
        first = (str(error).splitlines() or [type(error).__name__])[0]
        problems.append(
            at.problem("sweep.points_file", f"{shown}: not a readable Parquet file: {first[:200]}")
        )
        return None
    source = Source(shown)
    table = RowTable("sweep.points_file", source)
    for i, row in enumerate(_dicts(read)):
        table.add({k: YamlNode(v, source, i + 1, 1) for k, v in row.items() if v is not None}, i + 1, 1)
    if not len(table):
        problems.append(at.problem("sweep.points_file", f"{shown}: has no rows"))
        return None
    return table


def _dicts(read: Any) -> Iterator[dict[str, Any]]:
    for batch in read.to_batches():
        yield from batch.to_pylist()
