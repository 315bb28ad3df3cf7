"""The one who runs a sweep from start to end.

Owns the order of things: plan, directory, lock, kernels, executor, the loop (conduct.py), consolidation, the
words at the end. What is on disk when it is killed at any moment is a valid directory that the same command
continues.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from spbfast.config.units import parse_duration
from spbfast.errors import ConfigError, ResultsError
from spbfast.sweep.points.plan import Cell, Plan, make_plan, pending_cells
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.limits import seconds_to_use
from spbfast.sweep.pools.plain import open_plain
from spbfast.sweep.pools.pool import Request, Run, open_pool
from spbfast.sweep.pools.security import remove_stale
from spbfast.sweep.run.conduct import POLL_S, Conductor
from spbfast.sweep.run.failures import FailurePolicy
from spbfast.sweep.run.needs import Needs
from spbfast.sweep.run.outcome import EXIT_TIME_LIMIT, SweepOutcome, closing_words, make_outcome
from spbfast.sweep.run.progress import Logged, Progress, make_progress
from spbfast.sweep.run.signals import StopRequest
from spbfast.sweep.store.consolidate import consolidate
from spbfast.sweep.store.directory import Store, settled
from spbfast.sweep.store.lock import DirectoryLock
from spbfast.sweep.store.manifest import default_command
from spbfast.sweep.store.notes import clear_notes, read_notes
from spbfast.text import format_seconds

# A batch job about to end has better uses for its last seconds than a large results.nc; shards are enough.
CONSOLIDATE_IN_A_HURRY = 10_000


def run_sweep(
    job: Any,
    outdir: str | Path,
    *,
    fail_fast: bool = False,
    max_failures: int | str | None = None,
    retry_failed: bool = False,
    time_limit_s: float | None = None,
    shard_of: tuple[int, int] | None = None,
    steal_lock: bool = False,
    force_new: bool = False,
    dashboard: bool = False,
    quiet: bool = False,
    json_lines: bool = False,
    progress: Progress | None = None,
    stream: TextIO | None = None,
    engine: str = "spbfast.model.engine",
) -> SweepOutcome:
    """Run, or continue, the sweep of a job.

    The same call continues a sweep that was stopped or killed: runs that are on disk are not repeated.

    Parameters
    ----------
    job : Job
        From `spbfast.load_config`.
    outdir : path
        Results directory; created if needed.
    fail_fast : bool
        Stop at the first failing run.
    max_failures : int or str, optional
        Stop when more runs than this have failed, a number or a share such as "5%"; by default what the
        executor section says.
    retry_failed : bool
        Run those again that failed before.
    time_limit_s : float, optional
        Stop after this many seconds, as a signal would, with exit code 75. The end of a SLURM job around
        this process stops it as well.
    shard_of : (int, int), optional
        Do only the i-th (from 0) of n disjoint parts, without Dask and without writing results.nc: a task
        of a job array. `spbfast.sweep.store.consolidate` joins what the parts have done.
    steal_lock : bool
        Take the directory from a driver that seems to hold it.
    force_new : bool
        Move results that are in the directory aside and begin anew.
    dashboard : bool
        Serve Dask's dashboard on the loopback address while the sweep runs.
    json_lines : bool
        Show progress as one JSON object per line.
    progress : Progress, optional
        Replaces the display on `stream` (standard error).
    engine : str
        Module that provides run_replicate, MODEL_VERSION, state_bytes and warmup.

    Raises
    ------
    ResultsError
        When the directory belongs to another job or another driver.
    StorageError
        When results cannot be written.
    SetupError
        When the executor cannot work here.
    ConfigError
        When a point of the grid or an option is invalid.
    """
    start = time.monotonic()
    share = share_name(shard_of)
    if share and force_new:
        raise ConfigError(
            "--force-new and --shard-of exclude each other: one task would move away the others'"
        )
    executor = _executor_allowing(job.executor, max_failures)
    plan = make_plan(job, int(importlib.import_module(engine).MODEL_VERSION))
    policy = FailurePolicy(fail_fast, executor.allowed_failures(len(plan.cells)))
    key = uuid.uuid4().hex
    stop = StopRequest(lambda: worker.request_stop(key))
    sweep = _Sweep(job, plan, Store(outdir, share), key, engine, shard_of, dashboard)
    with ExitStack() as stack:
        stack.enter_context(stop.listening())
        stack.callback(worker.forget_stop, key)
        if force_new:
            sweep.move_aside(steal_lock)
        lock = stack.enter_context(
            DirectoryLock(sweep.store.dir, share=share, steal=steal_lock, on_lost=sweep.usurp)
        )
        shown = progress or make_progress(quiet, stream, json_lines=json_lines)
        display = stack.enter_context(Logged(shown, sweep.store.logs / f"sweep{share and '.' + share}.log"))
        conductor = sweep.begin(lock, display, stop, policy)
        limit_s, conductor.deadline_name = seconds_to_use(time_limit_s)
        conductor.deadline = None if limit_s is None else start + limit_s
        sweep.run(conductor, retry_failed)
        return sweep.finish(conductor, start)


def _executor_allowing(executor: Any, max_failures: int | str | None) -> Any:
    """The executor section, or one with the number of failures that an option gave instead."""
    if max_failures is None:
        return executor
    try:
        return type(executor).model_validate({"max_failures": max_failures})
    except ValueError as error:
        raise ConfigError(f"--max-failures: {_first_words(error)}") from None


def share_name(shard_of: tuple[int, int] | None) -> str:
    """K-of-N for the K-th of N parts, "" for the whole.

    Raises
    ------
    ConfigError
        When K is not below N.
    """
    if shard_of is None:
        return ""
    i, n = shard_of
    if not 0 <= i < n:
        raise ConfigError(f"--shard-of: must be I/N with 0 <= I < N, e.g. 0/8; got {i}/{n}")
    return f"{i}-of-{n}"


def parse_share(text: str | None) -> tuple[int, int] | None:
    """The numbers of I/N.

    Raises
    ------
    ConfigError
        When it is nothing of the kind.
    """
    if text is None:
        return None
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise ConfigError(f"--shard-of: must be I/N with 0 <= I < N, e.g. 0/8; got {text}")
    share_name((int(i), int(n)))
    return int(i), int(n)


def parse_limit(text: str | None) -> float | None:
    """Seconds of a duration such as 2h.

    Raises
    ------
    ConfigError
        When it is none.
    """
    try:
        return None if text is None else parse_duration(text) / 1e9
    except ValueError as error:
        raise ConfigError(f"--time-limit: {error}") from None


def parse_failures(text: str | None) -> int | str | None:
    """A number of runs, or a share such as 5%; the executor section checks which."""
    return int(text) if text is not None and text.isdecimal() else text


class _Sweep:
    """One call of run_sweep: what it is about, and its steps."""

    def __init__(
        self,
        job: Any,
        plan: Plan,
        store: Store,
        key: str,
        engine: str,
        shard_of: tuple[int, int] | None,
        dashboard: bool,
    ) -> None:
        self.job, self.plan, self.store, self.key, self.engine = job, plan, store, key, engine
        self.shard_of, self.dashboard = shard_of, dashboard
        self.conductor: Conductor | None = None
        self.moved: Path | None = None

    def usurp(self) -> None:
        """Somebody else has taken the directory: start nothing more."""
        if self.conductor is not None:
            self.conductor.usurped = True
        worker.request_stop(self.key)

    def move_aside(self, steal_lock: bool) -> None:
        """Make room for new results, unless a living driver is at work here."""
        if self.store.dir.is_dir():
            with DirectoryLock(self.store.dir, steal=steal_lock):
                pass
            self.moved = self.store.move_aside()

    def begin(
        self, lock: DirectoryLock, display: Progress, stop: StopRequest, policy: FailurePolicy
    ) -> Conductor:
        """Open the directory and say what is found there."""
        store = self.store
        if self.moved is not None:
            display.message(f"moved the old results to {self.moved}")
        status, attempts = store.open_for(self.plan, self.job, default_command())
        if not store.share:
            remove_stale(store.dir)
            if lock.predecessor and (notes := read_notes(store.running)):
                display.message(_obituary(lock.predecessor, len(notes)))
            clear_notes(store.running)
        executor = self.job.executor
        if unused := executor.unused_keys:
            names = ", ".join(f"executor.{k}" for k in unused)
            display.message(f"no effect with kind {executor.kind}: {names}")
        self.conductor = Conductor(self.plan, store, status, attempts, display, stop, policy, executor.batch)
        return self.conductor

    def run(self, conductor: Conductor, retry_failed: bool) -> None:
        """Run what is not done, and leave the directory valid whatever happens."""
        store = self.store
        try:
            self._run(conductor, settled(conductor.status, retry_failed=retry_failed))
        except BaseException:
            # Results are in the shards; making results.nc now could hide the error or take long.
            with suppress(ResultsError):
                conductor.write_status("broken off")
            raise
        finally:
            clear_notes(store.running, own=bool(store.share))
        if conductor.usurped:
            raise ResultsError(
                "another driver has taken this directory with --steal-lock; this one has stopped", store.dir
            )

    def _run(self, conductor: Conductor, done: set[Cell]) -> None:
        plan, display = self.plan, conductor.display
        cells = plan.cells if self.shard_of is None else plan.cells[self.shard_of[0] :: self.shard_of[1]]
        finished = done.intersection(cells)
        todo = pending_cells(plan, done) if self.shard_of is None else [c for c in cells if c not in finished]
        before = f", {len(cells) - len(todo)} of them done before" if len(todo) < len(cells) else ""
        part = f" (part {self.store.share}: {len(cells)} of them)" if self.shard_of else ""
        display.message(
            f"{plan.name}: {len(plan.points)} points x {plan.replicates} replicates = {len(plan.cells)} runs"
            f"{part}{before}; executor {self.job.executor.kind}; results in {self.store.dir}"
        )
        if not todo:
            return
        self._warm_up(conductor)
        if conductor.stopped_by:
            return
        needs = Needs(plan, importlib.import_module(self.engine).state_bytes)
        request = Request(
            self.job.executor, self.store.dir, len(todo), needs.largest, self.dashboard, display.message
        )
        opened = open_plain if self.shard_of is not None else open_pool
        with opened(request, self._runner(), self.key) as pool:
            display.message(f"{pool.threads} {'run' if pool.threads == 1 else 'runs'} at a time")
            conductor.run(todo, pool, needs)

    def _runner(self) -> Run:
        timeout = self.job.executor.timeout
        return functools.partial(
            worker.run_batch,
            directory=str(self.store.dir.resolve()),
            engine=self.engine,
            level=self.plan.level,
            sweep=self.key,
            timeout_s=None if timeout is None else timeout / 1e9,
            expected=worker.fingerprint(),
        )

    def _warm_up(self, conductor: Conductor) -> None:
        """Compile before the fan-out, in a thread so that signals are heard."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                worker.prepare(self.engine)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="spbfast-warmup", daemon=True)
        begin = time.monotonic()
        thread.start()
        thread.join(1.0)
        if thread.is_alive():
            conductor.display.message("compiling the kernels (once per version, about a minute) ...")
        while thread.is_alive() and not conductor.stopped_by:
            thread.join(POLL_S)
        if errors:
            raise errors[0]
        if time.monotonic() - begin > 1.0 and not conductor.stopped_by:
            conductor.display.message(f"kernels ready after {format_seconds(time.monotonic() - begin)}")

    def finish(self, conductor: Conductor, start: float) -> SweepOutcome:
        """Write results.nc and status.json, and say how it went."""
        outcome = make_outcome(self.job, self.store, self.plan, conductor, self.shard_of)
        hurry = outcome.exit_code == EXIT_TIME_LIMIT and outcome.n_ok > CONSOLIDATE_IN_A_HURRY
        conductor.forget()
        if not self.store.share and not hurry:
            consolidate(self.store.dir)
        conductor.write_status("stopped" if conductor.stopped_by else "finished")
        outcome = outcome.after(time.monotonic() - start)
        for line in closing_words(outcome, self.store, consolidated=not hurry):
            conductor.display.message(line)
        return outcome


def _first_words(error: ValueError) -> str:
    problems = error.errors() if hasattr(error, "errors") else []
    return str(problems[0]["ctx"]["error"]) if problems and "ctx" in problems[0] else str(error)


def _obituary(holder: dict[str, Any], runs: int) -> str:
    return (
        f"the driver before this one (process {holder.get('pid', '?')} on {holder.get('host', '?')}) died "
        f"without a word while {runs} runs were being worked on; if a run kills its process, executor.kind: "
        "processes survives it and finds out which"
    )
