"""Cases for the two passes: all compiled, a few interpreted, where each takes a hundred times as long.

The interpreted pass shows that each line of a kernel does the same without a compiler; that every policy or
order does is for the compiled pass to show.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from spbfast.jit.decorators import INTERPRETED

Case = TypeVar("Case")


def cases(*values: Case, interpreted: int = 1) -> list[Case]:
    """All values compiled, the last `interpreted` of them interpreted."""
    return list(values[-interpreted:] if INTERPRETED else values)


def cases_of(values: Iterable[Case], interpreted: int = 1) -> list[Case]:
    """As `cases`, of a table."""
    return cases(*values, interpreted=interpreted)
