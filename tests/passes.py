"""Cases for the two passes: all compiled, a few interpreted, where each takes a hundred times as long.

The interpreted pass shows that each line of a kernel does the same without a compiler; that every policy or
order does is for the compiled pass to show.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import TypeVar

from spbfast.jit.decorators import INTERPRETED
from tests.imports import ROOT

Case = TypeVar("Case")


def cases(*values: Case, interpreted: int = 1) -> list[Case]:
    """All values compiled, the last `interpreted` of them interpreted."""
    return list(values[-interpreted:] if INTERPRETED else values)


def cases_of(values: Iterable[Case], interpreted: int = 1) -> list[Case]:
    """As `cases`, of a table."""
    return cases(*values, interpreted=interpreted)


def words_by_pass(snippet: str) -> tuple[list[str], list[str]]:
    """The words that a program prints compiled, and interpreted; it must end without a warning."""
    compiled, interpreted = (
        subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        for disabled in ("0", "1")
    )
    for done in (compiled, interpreted):
        assert done.returncode == 0, done.stderr
    return compiled.stdout.split(), interpreted.stdout.split()
