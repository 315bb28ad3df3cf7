"""Golden traces against the compiled allocator: what `spbfast verify` prints for each file.

Owns verdicts and their lines. golden.py reads files; replay_zone.py and replay_shrink.py replay them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from spbfast.errors import TraceError
from spbfast.verify.golden import Golden, load_golden
from spbfast.verify.replay_shrink import replay_shrink
from spbfast.verify.replay_zone import Replay
from spbfast.verify.zone_trace import EXIT_UNSUPPORTED, UnsupportedError

EXIT_OK, EXIT_DIFFERENT, EXIT_UNREADABLE = 0, 1, 2


@dataclass(frozen=True)
class Verdict:
    """Result of one file: exit code 0 if identical, and the text to print."""

    code: int
    text: str


def verify_files(paths: Iterable[str | os.PathLike[str]], echo: Callable[[str], Any] = print) -> int:
    """Replay golden files; print one line for each, and the first difference in full.

    Returns
    -------
    int
        0 all identical; 1 some differ; else 2 some cannot be read; else 3 some need a switch that does not
        exist.
    """
    codes = {EXIT_OK}
    for path in paths:
        verdict = verify_file(path)
        echo(verdict.text)
        codes.add(verdict.code)
    return next(
        code for code in (EXIT_DIFFERENT, EXIT_UNREADABLE, EXIT_UNSUPPORTED, EXIT_OK) if code in codes
    )


def verify_file(path: str | os.PathLike[str]) -> Verdict:
    """Replay one golden file and compare everything; never raises for what is wrong with the file."""
    begin = time.perf_counter()
    try:
        golden = load_golden(path)
        difference = first_difference(golden)
    except UnsupportedError as error:
        return Verdict(EXIT_UNSUPPORTED, str(error))
    except TraceError as error:
        return Verdict(EXIT_UNREADABLE, f"error: {error}")
    seconds = time.perf_counter() - begin
    kind = f"{golden.kind}/{golden.meta['level']}" if golden.kind == "mainline" else golden.kind
    result = "identical" if difference is None else "DIFFERENT"
    line = f"{golden.name:<36} {kind:<13} {golden.nr_events:>8} events  {result}  {seconds:6.2f} s"
    if difference is None:
        return Verdict(EXIT_OK, line)
    return Verdict(EXIT_DIFFERENT, f"{line}\n  " + difference.replace("\n", "\n  "))


def first_difference(golden: Golden) -> str | None:
    """The first place where a replay differs from the file, in words, or None.

    Raises
    ------
    UnsupportedError
        The file needs a switch or geometry that does not exist.
    TraceError
        Rows of the file make no sense.
    """
    if golden.kind == "shrink":
        return next(iter(replay_shrink(golden)), None)
    return next(Replay(golden).differences(), None)
