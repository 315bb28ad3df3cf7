"""The one who runs a sweep from start to end.

Owns the order of things: plan, directory, lock, executor, a bounded window of batches in flight, journal,
retries of what infrastructure lost, stopping on signals, consolidation, the words at the end. Bulk data
never comes here: workers write shards and send receipts.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from spbfast.errors import ResultsError
from spbfast.sweep import worker
from spbfast.sweep.consolidate import consolidate
from spbfast.sweep.executor import Outcome, Pool, choose_workers, open_pool
from spbfast.sweep.files import write_json
from spbfast.sweep.lock import DirectoryLock
from spbfast.sweep.outcome import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_TIME_LIMIT,
    SweepOutcome,
    closing_words,
    resume_command,
)
from spbfast.sweep.plan import Batch, Cell, Plan, auto_batch_size, make_plan, pending_cells
from spbfast.sweep.progress import Progress, format_seconds, make_progress
from spbfast.sweep.shards import LOST, OK, CellResult, write_shard
from spbfast.sweep.signals import StopRequest
from spbfast.sweep.store import Store, count, default_command, settled

GRACE_S = 20.0
LOST_TRIES = 3
STATUS_EVERY_S = 60.0
POLL_S = 0.2


def run_sweep(
    job: Any,
    outdir: str | Path,
    *,
    fail_fast: bool = False,
    retry_failed: bool = False,
    time_limit_s: float | None = None,
    quiet: bool = False,
    progress: Progress | None = None,
    stream: TextIO | None = None,
    engine: str = "spbfast.engine",
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
    retry_failed : bool
        Run those again that failed before.
    time_limit_s : float, optional
        Stop after this many seconds, as a signal would, with exit code 75.
    progress : Progress, optional
        Replaces the display on `stream` (standard error).
    engine : str
        Module that provides run_replicate, MODEL_VERSION, state_bytes and warmup.

    Raises
    ------
    ResultsError
        When the directory belongs to another job or cannot be written.
    ConfigError
        When a point of the grid is invalid or the executor is unknown.
    """
    start = time.monotonic()
    plan = make_plan(job, int(importlib.import_module(engine).MODEL_VERSION))
    store = Store(outdir)
    key = uuid.uuid4().hex
    stop = StopRequest(lambda: worker.request_stop(key))
    with (
        stop.listening(),
        DirectoryLock(store.dir),
        progress or make_progress(quiet, stream) as display,
    ):
        status, attempts = store.open_for(plan, job, default_command())
        sweep = _Sweep(job, plan, store, status, attempts, display, stop, key, engine)
        sweep.fail_fast = fail_fast
        sweep.deadline = None if time_limit_s is None else start + time_limit_s
        try:
            sweep.run(settled(status, retry_failed=retry_failed))
        except BaseException:
            # Results are in the shards; making results.nc now could hide the error or take long.
            with suppress(ResultsError):
                sweep.write_status("broken off")
            raise
        finally:
            worker.forget_stop(key)
        consolidate(store.dir)
        sweep.write_status("stopped" if sweep.stopped_by else "finished")
        return sweep.outcome(time.monotonic() - start)


class _Sweep:
    """State of one running sweep."""

    def __init__(
        self,
        job: Any,
        plan: Plan,
        store: Store,
        status: dict[Cell, int],
        attempts: dict[Cell, int],
        display: Progress,
        stop: StopRequest,
        key: str,
        engine: str,
    ) -> None:
        self.job, self.plan, self.store, self.status = job, plan, store, status
        self.attempts, self.display, self.stop = attempts, display, stop
        self.key, self.engine = key, engine
        self.fail_fast = False
        self.deadline: float | None = None
        self.failing = False
        self.todo: deque[Cell] = deque()
        self.lost: dict[Cell, int] = {}
        self.flying = 0
        self.n_new = 0
        self.events = 0
        self.busy_s = 0.0
        self.started = time.monotonic()
        self.last_status = 0.0

    @property
    def stopped_by(self) -> str:
        """Why no more runs are started."""
        if self.stop.signum:
            return self.stop.name
        if self.fail_fast and self.failing:
            return "fail-fast"
        return "time limit" if self.deadline is not None and time.monotonic() >= self.deadline else ""

    def run(self, done: set[Cell]) -> None:
        """Run every cell that is not done."""
        todo = pending_cells(self.plan, done)
        executor = self.job.executor
        engine = importlib.import_module(self.engine)
        state = max(int(engine.state_bytes(p.scenario)) for p in self.plan.points)
        workers, remark = choose_workers(executor.workers, state, len(todo))
        self._greet(len(todo), str(executor.kind), workers)
        if remark:
            self.display.message(remark)
        if not todo:
            return
        self._warm_up(engine.warmup)
        if self.stopped_by:
            return
        self.todo = deque(todo)
        self.started = time.monotonic()
        run = functools.partial(
            worker.run_batch,
            directory=str(self.store.dir.resolve()),
            engine=self.engine,
            level=self.plan.level,
            sweep=self.key,
        )
        with open_pool(executor.kind, workers, run, self.key) as pool:
            self._loop(pool, executor.batch)

    def _greet(self, n_todo: int, kind: str, workers: int) -> None:
        plan = self.plan
        total = len(plan.cells)
        before = f", {total - n_todo} of them done before" if n_todo < total else ""
        where = (
            "this thread" if kind == "serial" else f"{workers} {kind if workers > 1 else kind.rstrip('es')}"
        )
        self.display.message(
            f"{plan.name}: {len(plan.points)} points x {plan.replicates} replicates = {total} runs{before}; "
            f"on {where}; results in {self.store.dir}"
        )

    def _warm_up(self, warmup: Callable[[], float]) -> None:
        """Compile before the fan-out, in a thread so that signals are heard."""
        errors: list[BaseException] = []

        def work() -> None:
            try:
                warmup()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work, name="spbfast-warmup", daemon=True)
        begin = time.monotonic()
        thread.start()
        thread.join(1.0)
        if thread.is_alive():
            self.display.message("compiling the kernels (once per version, about a minute) ...")
        while thread.is_alive() and not self.stopped_by:
            thread.join(POLL_S)
        if errors:
            raise errors[0]
        if time.monotonic() - begin > 1.0 and not self.stopped_by:
            self.display.message(f"kernels ready after {format_seconds(time.monotonic() - begin)}")

    def _loop(self, pool: Pool, batch: Any) -> None:
        window = 2 * pool.threads
        deadline = None
        self._show(pool.threads)
        while self.todo or self.flying:
            if self.stopped_by and deadline is None:
                deadline = time.monotonic() + GRACE_S
                self.todo.clear()
                pool.stop()
                self.display.message(f"stopping ({self.stopped_by}): running batches end at the next quantum")
            while self.todo and self.flying < window:
                pool.submit(self._next_batch(batch, pool.threads))
                self.flying += 1
            for outcome in pool.wait(POLL_S):
                self.flying -= 1
                self._take(outcome)
            self._show(pool.threads)
            if deadline is not None and time.monotonic() > deadline:
                break

    def _next_batch(self, batch: Any, threads: int) -> Batch:
        """The next cells, as many as make about five seconds; a cell that was lost before goes alone."""
        if batch == "auto":
            done = max(1, self.n_new)
            size = auto_batch_size(self.busy_s / done, len(self.todo), threads) if self.n_new else 1
        else:
            size = int(batch)
        cells = [self.todo.popleft()]
        while (
            self.todo and len(cells) < size and not (self.lost.get(cells[0]) or self.lost.get(self.todo[0]))
        ):
            cells.append(self.todo.popleft())
        return Batch(tuple(self.plan.task(c, self.attempts.get(c, 0)) for c in cells))

    def _take(self, outcome: Outcome) -> None:
        batch, receipt = outcome
        if isinstance(receipt, ResultsError):
            raise receipt
        if isinstance(receipt, BaseException):
            self._take_loss(batch, receipt)
            return
        codes = [int(c) for c in receipt["statuses"]]
        ended = [(t.cell, c) for t, c in zip(batch.tasks, codes, strict=True) if c != worker.INTERRUPTED]
        if ended:
            record = {**receipt, "statuses": "".join(str(c) for _, c in ended)}
            self.store.append(record, [cell for cell, _ in ended])
        for cell, code in ended:
            self.status[cell] = code
            self.failing |= code != OK
        self.n_new += len(ended)
        self.events += int(receipt["events"])
        self.busy_s += float(receipt["wall_s"])

    def _take_loss(self, batch: Batch, error: BaseException) -> None:
        """A worker died or could not be reached: try its cells again, each alone, then give them up."""
        if self.stopped_by:
            return
        given_up = []
        for task in batch.tasks:
            self.lost[task.cell] = self.lost.get(task.cell, 0) + 1
            if self.lost[task.cell] < LOST_TRIES:
                self.todo.appendleft(task.cell)
            else:
                given_up.append(task)
        if not given_up:
            return
        self.display.message(f"gave up after {LOST_TRIES} tries: {len(given_up)} runs, {error}")
        shard = Batch(tuple(given_up))
        results = [CellResult(t.cell, LOST, {"seed": t.seed}) for t in given_up]
        write_shard(self.store.shard_path(shard.batch_id), results)
        receipt = {"batch": shard.batch_id, "statuses": str(LOST) * len(given_up), "wall_s": 0.0, "events": 0}
        for task in given_up:
            write_json(self.store.failure_path(task.cell), worker.failure_account(task, error))
            self.status[task.cell] = LOST
        self.store.append(receipt, [t.cell for t in given_up])
        self.failing = True

    def _show(self, threads: int) -> None:
        n = count(self.plan, self.status)
        elapsed = time.monotonic() - self.started
        eta = self.busy_s / self.n_new * n["missing"] / threads if self.n_new else None
        rate = self.events / elapsed if elapsed > 0 else 0.0
        self.display.update(n["ok"] + n["failed"], n["total"], n["failed"], eta, rate)
        if elapsed - self.last_status > STATUS_EVERY_S:
            self.last_status = elapsed
            self.write_status("running")

    def write_status(self, state: str) -> None:
        """Rewrite status.json."""
        write_json(
            self.store.status_path,
            {
                "state": state,
                **count(self.plan, self.status),
                "new": self.n_new,
                "stopped_by": self.stopped_by,
                "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )

    def outcome(self, wall_s: float) -> SweepOutcome:
        """Sum up, and say it."""
        n = count(self.plan, self.status)
        reason = self.stopped_by if n["missing"] else ""
        code = EXIT_FAILED if n["failed"] else EXIT_OK
        if reason == "time limit":
            code = EXIT_TIME_LIMIT
        elif reason and self.stop.signum:
            code = 128 + self.stop.signum
        result = SweepOutcome(
            code,
            self.store.dir,
            self.store.results_path,
            len(self.plan.points),
            n["total"],
            n["ok"],
            n["failed"],
            n["missing"],
            self.n_new,
            wall_s,
            reason,
            resume_command(self.job, self.store.dir),
        )
        for line in closing_words(result, self.store):
            self.display.message(line)
        return result
