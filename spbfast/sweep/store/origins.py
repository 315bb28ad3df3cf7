"""Which sources of the kernels made the runs of a directory, and whether those of this process may go on.

Owns the rule. Each shard has the hash for every run, and the journal for every batch, so that a start need
not open the shards. Runs from before there was a hash are taken to be of any sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from spbfast.errors import ResultsError
from spbfast.jit.sources import kernel_hash

UNKNOWN = ""


def sources_here() -> str:
    """16 hex digits for the kernels of this process."""
    return f"{kernel_hash():016x}"


def sources_of(hashes: Iterable[int]) -> str:
    """The same for the runs of one shard; runs that say nothing count for none."""
    return next((f"{value:016x}" for value in hashes if value), UNKNOWN)


def other_sources(found: Iterable[str]) -> list[str]:
    """Those that are not of this process."""
    return sorted(set(found) - {UNKNOWN, sources_here()})


def refuse_other_sources(found: Iterable[str], directory: Path) -> None:
    """Raise ResultsError when runs were made by other sources of the kernels."""
    if others := other_sources(found):
        raise ResultsError(
            f"holds runs that other sources of the kernels have made: {', '.join(others)} there, "
            f"{sources_here()} now. Choose another directory with -o, go back to those sources, or give "
            "--force-new, which moves the old results aside, or --allow-changed-sources, which mixes them; "
            "results, report and doctor then say so.",
            directory,
        )
