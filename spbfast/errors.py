"""Every exception that spbfast raises on purpose.

Owns the exception classes, the text they print and the exit code each one means on the command line.
Compiled code never raises: it returns an Err code, and engine.py turns that into SimulationError here.
Of the package only the constants are used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spbfast.constants import Err

_ERR_TEXT = {
    Err.OK: "no error",
    Err.CORRUPT: "demand asked for a slot that is in use",
    Err.OBJECTS_FULL: "the slab object pool is full; raise slab.objects_max",
    Err.ROWS_FULL: "a tick's demand has more rows than there is room for",
}


SHOWN_LINE = 200  # characters of a source line that an error repeats
SHOWN_PATH = 400  # and of a file's name


# What the command line ends with. docs/cli.md has the same table; a test compares.
EXIT_CODES = {
    0: "done; for verify: all files agree",
    1: "a bug of spbfast (please report the text above the message); for verify and rerun: a difference",
    2: "wrong usage or configuration",
    3: "done, but some points failed; for verify: a file needs a switch that this version lacks",
    4: "the results directory is missing, damaged, in use, or belongs to another job",
    5: "something is wrong with this machine: a full or read-only disk or output, or what doctor found",
    75: "stopped by a time limit; the same command continues",
    76: "the same, and two starts in a row have gained nothing: give it more time",
    130: "stopped by SIGINT; what was finished is kept and the same command continues",
    141: "whoever read standard output has closed it, such as head",
    143: "stopped by SIGTERM; what was finished is kept and the same command continues",
}


def strerror(code: int) -> str:
    """What a kernel's Err code means, in words."""
    try:
        return _ERR_TEXT[Err(code)]
    except ValueError:
        return f"unknown error code {code}"


def _shown(path: str | Path) -> str:
    """A file's name in a message; a name that no file can have is cut."""
    text = str(path)
    return text if len(text) <= SHOWN_PATH else f"{text[:SHOWN_PATH]}..."


class SpbfastError(Exception):
    """Base of all errors with a message meant for users.

    Attributes
    ----------
    exit_code : int
        What the command line returns for it (see docs/cli.md).
    """

    exit_code = 1


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a configuration, with its place.

    `line` and `col` count from 1; 0 means that the place has no line (a `--set` override, a whole file).
    """

    file: str
    line: int
    col: int
    path: str
    message: str
    source_line: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.col}" if self.line else self.file
        path = self.path if len(self.path) <= SHOWN_LINE else f"{self.path[:SHOWN_LINE]}..."
        what = f"{path}: {self.message}" if path else self.message
        head = f"{place}: error: {what}"
        if not self.source_line:
            return head
        line, col = self._excerpt()
        caret = "".join("\t" if c == "\t" else " " for c in line[: col - 1]) + "^"
        number = str(self.line)
        return f"{head}\n {number} | {line}\n {' ' * len(number)} | {caret}"

    def _excerpt(self) -> tuple[str, int]:
        """The line to show and the column in it: the whole line, or what surrounds the place."""
        line, col = self.source_line, self.col
        if len(line) <= SHOWN_LINE:
            return line, col
        first = max(0, min(col - 1 - SHOWN_LINE // 2, len(line) - SHOWN_LINE))
        cut = line[first : first + SHOWN_LINE]
        before, after = "..." if first else "", "..." if first + SHOWN_LINE < len(line) else ""
        return f"{before}{cut}{after}", col - first + len(before)


class ConfigError(SpbfastError):
    """A configuration that cannot be run; lists every problem found, in file order.

    Attributes
    ----------
    problems : tuple of Problem
    """

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        if isinstance(problems, str):
            problems = [Problem("spbfast", 0, 0, "", problems)]
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class ArgumentError(ConfigError, TypeError):
    """A call of the Python interface with arguments that make no sense."""


class InvariantError(SpbfastError):
    """check_zone found state that contradicts itself.

    Attributes
    ----------
    what : str
        The rule that is broken.
    where : str
        The first element that breaks it, such as ``spb 17`` or ``pfn 1048576``.
    expected, found : object
        What the rule demands and what the state holds.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", expected: Any = None, found: Any = None) -> None:
        self.what, self.where, self.expected, self.found = what, where, expected, found
        text = what + (f" at {where}" if where else "")
        if expected is not None or found is not None:
            text += f": expected {expected}, found {found}"
        super().__init__(text)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.where, self.expected, self.found)


class ZoneError(SpbfastError, ValueError):
    """A call of the interactive Zone that makes no sense: a shape, an order, a page that nobody holds."""

    exit_code = 2


class SimulationError(SpbfastError):
    """A run that stopped with an error code instead of reaching its end.

    Attributes
    ----------
    code : int
        The Err code of the kernel that gave up.
    message : str
    step : int
        Event number within the run, -1 when unknown.
    seed : int
        Root seed of the run, -1 when unknown.
    """

    exit_code = 3

    def __init__(self, code: int, message: str, step: int = -1, seed: int = -1) -> None:
        self.code, self.message, self.step, self.seed = int(code), message, int(step), int(seed)
        place = "".join(f", {k} {v}" for k, v in (("step", self.step), ("seed", self.seed)) if v >= 0)
        super().__init__(f"{message} (code {self.code}{place})")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.message, self.step, self.seed)


class TraceError(SpbfastError):
    """A trace file that cannot be read or does not have the form it claims.

    Attributes
    ----------
    path : Path or None
    event : int
        Row in the file, -1 when the file as a whole is meant.
    """

    exit_code = 2

    def __init__(self, message: str, path: str | Path | None = None, event: int = -1) -> None:
        self.message, self.path, self.event = message, Path(path) if path is not None else None, event
        place = f"{_shown(path)}: " if path is not None else ""
        super().__init__(place + (f"event {event}: " if event >= 0 else "") + message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.path, self.event)


class DumpError(SpbfastError):
    """A dump or trace of a running kernel that cannot be read, with its place and what would be right.

    Attributes
    ----------
    path : Path
    line : int
        Line in the file, from 1; 0 when the file as a whole is meant.
    message : str
    """

    exit_code = 2

    def __init__(self, path: str | Path, line: int, message: str) -> None:
        self.path, self.line, self.message = Path(path), int(line), message
        place = f"{_shown(path)}:{line}" if line else _shown(path)
        super().__init__(f"{place}: error: {message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.line, self.message)


class LiveError(SpbfastError):
    """The running kernel of this machine does not allow, or does not have, what was asked of it."""

    exit_code = 5


class ResultsError(SpbfastError):
    """A results directory or file that is missing, damaged or belongs to another job.

    Attributes
    ----------
    path : Path or None
    """

    exit_code = 4

    def __init__(self, message: str, path: str | Path | None = None) -> None:
        self.message, self.path = message, Path(path) if path is not None else None
        super().__init__(f"{_shown(path)}: {message}" if path is not None else message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.path)


class QuestionError(ResultsError, ValueError):
    """A question that results cannot answer as it was put: an unknown metric, a time past the end."""

    exit_code = 2


class StorageError(ResultsError):
    """Results that cannot be written or seen where they should be: a full disk, no permission, no share.

    Nothing is wrong with the job or its directory; the same command continues once the place is in order.
    """

    exit_code = 5


class SetupError(SpbfastError):
    """Something that a command needs from its surroundings: a package, a program, a scheduler, a worker."""

    exit_code = 5
