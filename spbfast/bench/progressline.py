"""What a benchmark is doing now: a line that moves on a terminal, a line a group elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TextIO


class ProgressLine:
    """Shows which group is being measured; results are printed above it.

    Parameters
    ----------
    groups : tuple of str
    stream : TextIO
        Standard error; results go to standard output.
    """

    def __init__(self, groups: tuple[str, ...], stream: TextIO) -> None:
        self.groups, self._stream = groups, stream
        self._bar = _bar(stream) if stream.isatty() else None
        self._task: Any = self._bar.add_task("", total=len(groups)) if self._bar is not None else None

    def begin(self, group: str) -> None:
        """A group begins; those before it are done."""
        number = self.groups.index(group)
        if self._bar is None:
            print(f"{number + 1} of {len(self.groups)}: {group}", file=self._stream, flush=True)
        else:
            self._bar.update(self._task, completed=number, description=group)

    def print_above(self, text: str) -> None:
        """Print a result, with the line out of its way."""
        if self._bar is None:
            print(text, flush=True)
            return
        self._bar.stop()
        print(text, flush=True)
        self._bar.start()

    def __enter__(self) -> ProgressLine:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=stream, highlight=False)
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
