"""What became of a sweep, and how to say it.

Owns SweepOutcome, the exit codes and the closing words. Starts nothing and changes nothing.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spbfast.sweep.files import read_json
from spbfast.sweep.progress import format_seconds
from spbfast.sweep.store import Store

EXIT_OK, EXIT_FAILED, EXIT_TIME_LIMIT = 0, 3, 75


@dataclass(frozen=True)
class SweepOutcome:
    """What became of a sweep.

    Attributes
    ----------
    exit_code : int
        0 all runs ok, 3 some failed, 75 stopped by the time limit, 128 + signal when stopped by one.
    results_path : Path
        results.nc, with whatever is done.
    n_runs : int
        Runs in the whole plan; `n_ok`, `n_failed` and `n_missing` add up to it.
    n_new : int
        Runs done by this call.
    stopped_by : str
        "", or the name of the signal, "time limit" or "fail-fast".
    resume_command : str
        Continues the sweep.
    """

    exit_code: int
    directory: Path
    results_path: Path
    n_points: int
    n_runs: int
    n_ok: int
    n_failed: int
    n_missing: int
    n_new: int
    wall_s: float
    stopped_by: str
    resume_command: str


def resume_command(job: Any, directory: Path) -> str:
    """The command that continues a sweep: the one that started it."""
    if Path(sys.argv[0]).name == "spbfast" and sys.argv[1:2] == ["sweep"]:
        return shlex.join(["spbfast", *sys.argv[1:]])
    words = ["spbfast", "sweep", str(job.path), "-o", str(directory)]
    for override in job.overrides:
        words += ["--set", override]
    return shlex.join(words)


def closing_words(outcome: SweepOutcome, store: Store) -> list[str]:
    """What a person wants to know at the end of a sweep."""
    lines = [
        f"{outcome.n_ok} of {outcome.n_runs} runs ok, {outcome.n_failed} failed, "
        f"{outcome.n_missing} not done; {outcome.n_new} new in {format_seconds(outcome.wall_s)}; "
        f"{outcome.results_path}"
    ]
    if outcome.n_failed:
        files = sorted(store.failures.glob("*.json")) if store.failures.is_dir() else []
        for path in files[:5]:
            account = read_json(path)
            first = (str(account["message"]).splitlines() or [""])[0]
            lines.append(
                f"  failed: point {account['point_id']} replicate {account['replicate']}: "
                f"{account['error']}: {first[:200]}"
            )
        lines.append(f"  accounts with tracebacks: {store.failures}")
    if outcome.stopped_by:
        lines.append(f"stopped by {outcome.stopped_by}; what is done is saved. Continue with:")
        lines.append(f"  {outcome.resume_command}")
    return lines
