"""How a sweep ended: numbers, exit code and closing words. Starts nothing and changes nothing."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spbfast.errors import ResultsError
from spbfast.sweep.run.conduct import Conductor
from spbfast.sweep.store.atomic import read_json
from spbfast.sweep.store.directory import Store, count
from spbfast.sweep.store.halfway import halfway_runs
from spbfast.sweep.store.view import FAILURES_SHOWN
from spbfast.text import format_seconds

EXIT_OK, EXIT_FAILED, EXIT_TIME_LIMIT = 0, 3, 75


@dataclass(frozen=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes
    ----------
    exit_code : int
        0 all runs ok, 3 some failed, 75 stopped by a time limit or SIGUSR1 and to be continued, 76 the same
        when it would not get further, 128 + signal when stopped by another one.
    results_path : Path
        results.nc, with whatever is done.
    n_runs : int
        Runs in the whole plan; `n_ok`, `n_failed` and `n_missing` add up to it.
    n_new : int
        Runs done by this call.
    n_halfway : int
        Runs that were stopped and are saved, so that they go on from there.
    stopped_by : str
        "", or the name of the signal, "time limit", "fail-fast" or a sentence about failures.
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
    n_halfway: int
    wall_s: float
    stopped_by: str
    resume_command: str


def make_outcome(
    job: Any, store: Store, conductor: Conductor, shard_of: tuple[int, int] | None
) -> SweepOutcome:
    """Sum up a sweep that has ended, for whatever reason."""
    plan = conductor.plan
    first, step = shard_of or (0, 1)
    cells = plan.cells(first, step) if conductor.growth is None else conductor.growth.cells()
    n = count(cells, conductor.status)
    reason = conductor.stopped_by if n["missing"] else ""
    return SweepOutcome(
        exit_code=_exit_code(conductor, reason, n["failed"]),
        directory=store.dir,
        results_path=store.results_path,
        n_points=len(plan.points),
        n_runs=n["total"],
        n_ok=n["ok"],
        n_failed=n["failed"],
        n_missing=n["missing"],
        n_new=conductor.n_new,
        n_halfway=len([run for run in halfway_runs(store.dir, conductor.status) if run.cell]),
        wall_s=0.0,
        stopped_by=reason,
        resume_command=how_to_resume(job, store.dir, shard_of),
    )


def _exit_code(conductor: Conductor, reason: str, failed: int) -> int:
    signum = conductor.stop.signum
    if reason and signum and signum != signal.SIGUSR1:
        return 128 + signum
    if reason and (signum or not conductor.policy.reason):
        return EXIT_TIME_LIMIT
    return EXIT_FAILED if failed else EXIT_OK


def how_to_resume(job: Any, directory: Path, shard_of: tuple[int, int] | None = None) -> str:
    """The command that continues a sweep: the one that started it, or the directory alone."""
    if Path(sys.argv[0]).name == "spbfast" and sys.argv[1:2] in (["sweep"], ["resume"]):
        return shlex.join(["spbfast", *(a for a in sys.argv[1:] if a not in ("--force-new", "--steal-lock"))])
    if shard_of is None:
        return shlex.join(["spbfast", "resume", str(directory)])
    overrides = [word for override in job.overrides for word in ("--set", override)]
    part = "{}/{}".format(*shard_of)
    command = ["spbfast", "sweep", str(job.path), "-o", str(directory), *overrides, "--shard-of", part]
    return shlex.join(command)


def closing_words(outcome: SweepOutcome, store: Store, *, consolidated: bool = True) -> list[str]:
    """What a person wants to know at the end of a sweep."""
    file = str(outcome.results_path) if consolidated and not store.share else f"shards in {store.shards}"
    lines = [
        f"{outcome.n_ok} of {outcome.n_runs} runs ok, {outcome.n_failed} failed, "
        f"{outcome.n_missing} not done; {outcome.n_new} new in {format_seconds(outcome.wall_s)}; {file}"
    ]
    if outcome.n_failed:
        lines += _failures(store)
    if outcome.stopped_by:
        on_the_way = f", {outcome.n_halfway} runs on their way among it" if outcome.n_halfway else ""
        lines.append(f"stopped by {outcome.stopped_by}; what is done is saved{on_the_way}. Continue with:")
        lines.append(f"  {outcome.resume_command}")
    elif store.share:
        lines.append(f"when all parts are done: spbfast consolidate {shlex.quote(str(store.dir))}")
    return lines


def _failures(store: Store) -> list[str]:
    """The first failed runs, each with the command that runs it again."""
    paths = store.failure_paths()
    lines = []
    for path in paths[:FAILURES_SHOWN]:
        with contextlib.suppress(ResultsError, KeyError, TypeError):
            account = read_json(path)
            first = (str(account["message"]).splitlines() or [""])[0]
            lines.append(
                f"  failed: point {account['point_id']} replicate {account['replicate']}: "
                f"{account['error']}: {first[:200]}"
            )
            lines.append(f"    {account['rerun']}")
    more = f"{len(paths) - FAILURES_SHOWN} more; " if len(paths) > FAILURES_SHOWN else ""
    return [*lines, f"  {more}accounts with tracebacks: {store.failures}"]
