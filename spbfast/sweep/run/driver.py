"""A sweep from start to end.

Owns the order of things: plan, directory, lock, kernels, executor, the loop (conduct.py), consolidation, the
closing words. Whenever it is killed, the directory on disk is valid and the same command continues it.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from spbfast.config.units import format_duration
from spbfast.errors import ConfigError, ResultsError, StorageError
from spbfast.places import as_path
from spbfast.sweep.points.plan import Cell, make_plan
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.contract import Request, RunBatch
from spbfast.sweep.pools.limits import seconds_to_use
from spbfast.sweep.pools.plain import open_plain
from spbfast.sweep.pools.pool import open_pool
from spbfast.sweep.pools.security import remove_stale
from spbfast.sweep.run.conduct import POLL_S, Conductor
from spbfast.sweep.run.failures import FailurePolicy
from spbfast.sweep.run.growth import Growth
from spbfast.sweep.run.headway import EXIT_FRUITLESS
from spbfast.sweep.run.needs import Needs
from spbfast.sweep.run.outcome import EXIT_TIME_LIMIT, SweepOutcome, closing_words, make_outcome
from spbfast.sweep.run.progress import Logged, Progress, make_progress
from spbfast.sweep.run.signals import StopRequest
from spbfast.sweep.run.sweepoptions import SweepOptions
from spbfast.sweep.store.consolidate import damage_words, write_results
from spbfast.sweep.store.decisions import known_values, write_decisions
from spbfast.sweep.store.directory import Store, settled
from spbfast.sweep.store.halfway import begun_cells, remove_all_ended, remove_ended
from spbfast.sweep.store.lock import DirectoryLock
from spbfast.sweep.store.manifest import default_command
from spbfast.sweep.store.netcdf import remarks_on_locks
from spbfast.sweep.store.notes import clear_notes, read_notes
from spbfast.text import format_seconds

# A batch job about to end has better uses for its last seconds than a large results.nc; shards are enough.
CONSOLIDATE_IN_A_HURRY = 10_000


def run_sweep(
    job: Any, outdir: str | Path, options: SweepOptions | None = None, **keywords: Any
) -> SweepOutcome:
    """Run, or continue, the sweep of a job.

    The same call continues a sweep that was stopped or killed: runs that are on disk are not repeated.

    Parameters
    ----------
    job : Job
        From `spbfast.load_config`.
    outdir : path
        Results directory; created if needed.
    options : SweepOptions, optional
    **keywords
        Single options, by the names of the attributes of `SweepOptions`.

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
    ArgumentError
        When there is no option of that name.
    """
    options = (options or SweepOptions()).changed(**keywords)
    sweep = _Sweep(job, outdir, options)
    with ExitStack() as stack:
        stack.enter_context(sweep.stop.listening())
        stack.callback(worker.forget_stop, sweep.key)
        if options.force_new:
            sweep.move_aside()
        lock = stack.enter_context(
            DirectoryLock(
                sweep.store.dir, share=options.share, steal=options.steal_lock, on_lost=sweep.lose_lock
            )
        )
        sweep.display = stack.enter_context(Logged(_progress(options), sweep.store.log_path))
        conductor = sweep.begin(lock)
        sweep.run(conductor)
        return sweep.finish(conductor)


def place_of(outdir: object) -> Path:
    """A results directory that is there, or can be made.

    Raises
    ------
    StorageError
        When it is no path, or leads nowhere.
    """
    try:
        path = as_path(outdir)
    except OSError as error:
        raise StorageError(f"cannot be a results directory: {error.strerror}", error.filename) from None
    if path.is_symlink() and not path.exists():
        raise StorageError(f"is a link to {path.readlink()}, which does not exist; remove the link", path)
    return path


def _progress(options: SweepOptions) -> Progress:
    return options.progress or make_progress(options.quiet, options.stream, json_lines=options.json_lines)


def _executor_allowing(executor: Any, max_failures: int | str | None) -> Any:
    """The executor section, or one with the number of failures that an option gave instead."""
    if max_failures is None:
        return executor
    try:
        return type(executor).model_validate({"max_failures": max_failures})
    except ValueError as error:
        raise ConfigError(f"--max-failures: {_first_words(error)}") from None


class _Sweep:
    """One call of run_sweep: what it is about, and its steps."""

    def __init__(self, job: Any, outdir: str | Path, options: SweepOptions) -> None:
        self.started = time.monotonic()
        self.job, self.options = job, options
        self.engine = importlib.import_module(options.engine)
        executor = _executor_allowing(job.executor, options.max_failures)
        self.plan = make_plan(job, int(self.engine.MODEL_VERSION))
        self.policy = FailurePolicy(options.fail_fast, executor.allowed_failures(self.plan.nr_cells))
        self.store = Store(place_of(outdir), options.share)
        self.key = uuid.uuid4().hex
        self.stop = StopRequest(lambda: worker.request_stop(self.key))
        self.display: Progress = Progress()
        self.conductor: Conductor | None = None
        self.moved: Path | None = None

    def lose_lock(self) -> None:
        """Another driver has taken the directory: start nothing more."""
        if self.conductor is not None:
            self.conductor.usurped = True
        worker.request_stop(self.key)

    def move_aside(self) -> None:
        """Make room for new results, unless a living driver is at work here."""
        if self.store.dir.is_dir():
            with DirectoryLock(self.store.dir, steal=self.options.steal_lock):
                pass
            self.moved = self.store.move_aside()

    def begin(self, lock: DirectoryLock) -> Conductor:
        """Open the directory and say what is found there."""
        store, display = self.store, self.display
        if self.moved is not None:
            display.message(f"moved the old results to {self.moved}")
        status, attempts = store.open_for(
            self.plan,
            self.job,
            default_command(),
            retry_failed=self.options.retry_failed,
            allow_changed_sources=self.options.allow_changed_sources,
        )
        for remark in (*store.remarks, *remarks_on_locks(store.dir)):
            display.message(remark)
        if not store.share:
            remove_stale(store.dir)
            if lock.predecessor and (notes := read_notes(store.running)):
                display.message(_obituary(lock.predecessor, len(notes)))
            clear_notes(store.running)
        executor = self.job.executor
        if unused := executor.unused_keys:
            names = ", ".join(f"executor.{k}" for k in unused)
            display.message(f"no effect with kind {executor.kind}: {names}")
        growth = self._growth(status)
        conductor = Conductor(
            self.plan, store, status, attempts, display, self.stop, self.policy, executor.batch, growth
        )
        limit_s, conductor.deadline_name = seconds_to_use(self.options.time_limit_s)
        if limit_s is not None:
            conductor.deadline = self.started + limit_s
        conductor.branching.begin(retry_failed=self.options.retry_failed)
        self.conductor = conductor
        return conductor

    def _growth(self, status: dict[Cell, int]) -> Growth | None:
        """The runs that are known to be needed, where a rule decides."""
        rule = self.plan.stop_rule
        if rule is None:
            return None
        known = known_values(self.store, status, rule.metric)
        return Growth(self.plan, rule, known, self.options.shard_of)

    def run(self, conductor: Conductor) -> None:
        """Run what is not done, and leave the directory valid whatever happens."""
        store = self.store
        try:
            self._run(conductor, settled(conductor.status, retry_failed=self.options.retry_failed))
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
        first, step = self.options.shard_of or (0, 1)
        growth = conductor.growth
        cells = self.plan.cells(first, step) if growth is None else growth.cells()
        remove_ended(self.store.dir, done)
        begun = begun_cells(self.store.dir)
        # What was begun goes first, so that a start that has time for little more ends it.
        todo = sorted((c for c in cells if c not in done), key=lambda cell: cell not in begun)
        self.display.message(self._plan_words(len(cells), len(todo)))
        if begun & set(todo):
            self.display.message(f"runs that go on from where they were stopped: {len(begun & set(todo))}")
        if not todo:
            return
        self._warm_up(conductor)
        if conductor.stopped_by:
            return
        needs = Needs(self.plan, self.engine.state_bytes)
        request = Request(
            self.job.executor,
            self.store.dir,
            len(todo),
            needs.largest,
            self._runner(),
            self.key,
            self.options.dashboard,
            self.display.message,
        )
        opened = open_plain if self.options.shard_of is not None else open_pool
        with opened(request) as pool, self._clock(conductor):
            self.display.message(f"{pool.threads} {'run' if pool.threads == 1 else 'runs'} at a time")
            conductor.run(todo, pool, needs)

    @contextmanager
    def _clock(self, conductor: Conductor) -> Iterator[None]:
        """Stop the runs of this process at the deadline: a run in this thread hears nothing else."""

        def wait() -> None:
            while not over.wait(min(conductor.deadline - time.monotonic(), threading.TIMEOUT_MAX)):
                if time.monotonic() >= conductor.deadline:
                    worker.request_stop(self.key)
                    return

        over = threading.Event()
        if conductor.deadline < float("inf"):
            threading.Thread(target=wait, name="spbfast-deadline", daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _plan_words(self, ours: int, todo: int) -> str:
        plan, share = self.plan, self.options.share
        before = f", {ours - todo} of them done before" if todo < ours else ""
        part = f" (part {share}: {ours} of them)" if share else ""
        aged = f"; each replicate aged once up to {format_duration(plan.branch.at)}" if plan.branch else ""
        replicates, runs = str(plan.replicates), str(plan.nr_cells)
        if (rule := plan.stop_rule) is not None:
            replicates = f"{rule.spec.min} to {replicates}"
            runs = f"{plan.nr_least} to {runs}"
        return (
            f"{plan.name}: {len(plan.points)} points x {replicates} replicates = {runs} runs"
            f"{part}{before}{aged}; executor {self.job.executor.kind}; results in {self.store.dir}"
        )

    def _runner(self) -> RunBatch:
        timeout = self.job.executor.timeout
        return functools.partial(
            worker.run_batch,
            directory=str(self.store.dir.resolve()),
            engine=self.options.engine,
            level=self.plan.level,
            metric=rule.metric if (rule := self.plan.stop_rule) is not None else "",
            sweep=self.key,
            timeout_s=None if timeout is None else timeout / 1e9,
            expected=worker.fingerprint(),
        )

    def _warm_up(self, conductor: Conductor) -> None:
        """Compile before the fan-out, in a thread so that signals are heard."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for several in worker.kinds_of_machine(self.plan.sizing_scenarios()):
                    worker.prepare(self.options.engine, several_zones=several)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="spbfast-warmup", daemon=True)
        begin = time.monotonic()
        thread.start()
        thread.join(1.0)
        if thread.is_alive():
            conductor.display.message(
                "loading the kernels; a new version is compiled first, about a minute ..."
            )
        while thread.is_alive() and not conductor.stopped_by:
            thread.join(POLL_S)
        if errors:
            raise errors[0]
        if time.monotonic() - begin > 1.0 and not conductor.stopped_by:
            conductor.display.message(f"kernels ready after {format_seconds(time.monotonic() - begin)}")

    def finish(self, conductor: Conductor) -> SweepOutcome:
        """Write results.nc and status.json, and say how it went."""
        if not conductor.counts["missing"]:
            remove_all_ended(self.store.dir, settled(conductor.status))
        outcome = make_outcome(self.job, self.store, conductor, self.options.shard_of)
        out_of_time = outcome.exit_code == EXIT_TIME_LIMIT
        conductor.headway.judge(out_of_time=out_of_time, nr_new=outcome.n_new)
        if conductor.headway.is_hopeless:
            outcome = replace(outcome, exit_code=EXIT_FRUITLESS)
        hurry = out_of_time and outcome.n_ok > CONSOLIDATE_IN_A_HURRY
        if conductor.growth is not None and not self.store.share:
            write_decisions(self.store.dir, conductor.growth.decided())
            self.display.message(f"replicates: {conductor.growth.summary()}")
        conductor.status.clear()
        conductor.attempts.clear()
        if not self.store.share and not hurry:
            _, damaged = write_results(self.store)
            if damaged:
                raise ResultsError(damage_words(damaged), self.store.dir)
        conductor.write_status("stopped" if conductor.stopped_by else "finished")
        conductor.branching.finish(outcome.n_missing)
        outcome = replace(outcome, wall_s=time.monotonic() - self.started)
        words = closing_words(outcome, self.store, consolidated=not hurry)
        for line in [*words, *conductor.headway.words(outcome.wall_s)]:
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
