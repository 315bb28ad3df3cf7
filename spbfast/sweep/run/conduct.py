"""The loop of a sweep: batches go out, a bounded number at a time, and receipts come back.

Owns what is still to do, what has been learnt about costs and losses, and the reasons to stop. Bulk data
never comes here: workers write shards and send receipts. Setting up and ending are in driver.py.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from spbfast.errors import ResultsError, SetupError, StorageError
from spbfast.sweep.points.plan import Batch, Cell, Plan, Task, auto_batch_size
from spbfast.sweep.pools import worker
from spbfast.sweep.pools.ageing import RunTimeoutError
from spbfast.sweep.pools.contract import BatchOutcome, Pool
from spbfast.sweep.run.branched import Branching
from spbfast.sweep.run.failures import TRIES, FailurePolicy, Losses, Retries
from spbfast.sweep.run.growth import Growth
from spbfast.sweep.run.headway import KEY, Headway
from spbfast.sweep.run.needs import Needs
from spbfast.sweep.run.progress import Progress
from spbfast.sweep.run.signals import StopRequest
from spbfast.sweep.store.atomic import write_json
from spbfast.sweep.store.directory import Store, count
from spbfast.sweep.store.notes import read_notes
from spbfast.sweep.store.shards import FAILED, INTERRUPTED, LOST, OK, TIMEOUT, CellResult, write_shard

GRACE_S = 20.0
# How long stopped runs may take to be saved: bytes of state a second, where all are on one slow disk.
SAVED_BYTES_PER_S, SAVING_S = 200 << 20, 60.0
SETTLE_S, STOPPED_SETTLE_S = 30.0, 3.0
STATUS_EVERY_S = 60.0
POLL_S = 0.2
# How long a shard may take to become visible on a network file system after its receipt came.
VISIBLE_S = 30.0
LOSSES_TOLD = 10
LOCK_TAKEN = "another driver has taken the directory"


class Conductor:
    """State of one running sweep.

    Parameters
    ----------
    plan : Plan
    store : Store
    status : dict
        Status of the runs that the directory holds.
    attempts : dict
        How often each run was tried before.
    display : Progress
    stop : StopRequest
    policy : FailurePolicy
    batch : "auto" or int
        Runs per batch.
    growth : Growth, optional
        Adds replicates as results come, where a rule decides how many there are.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        status: dict[Cell, int],
        attempts: dict[Cell, int],
        display: Progress,
        stop: StopRequest,
        policy: FailurePolicy,
        batch: Any,
        growth: Growth | None = None,
    ) -> None:
        self.plan, self.store, self.status, self.attempts = plan, store, status, attempts
        self.display, self.stop, self.policy, self.batch = display, stop, policy, batch
        self.deadline, self.deadline_name = float("inf"), ""
        self.headway = Headway(store)
        self.usurped = False
        self.branching = Branching(plan, store)
        self.todo: deque[Cell] = deque()
        self.alone: deque[Cell] = deque()
        self.losses = Losses()
        self.flying = 0
        self.suspects: set[int] = set()
        self.growth = growth
        self.counts = count(growth.cells() if growth is not None else plan.cells(), status)
        self.n_new = self.events = self.n_losses = 0
        self.busy_s = 0.0
        self.started = time.monotonic()
        self.last_status = 0.0

    @property
    def stopped_by(self) -> str:
        """Why no more runs are started, "" while they are."""
        if self.usurped:
            return LOCK_TAKEN
        if self.stop.signum:
            return self.stop.name
        if self.policy.reason:
            return self.policy.reason
        return self.deadline_name if time.monotonic() >= self.deadline else ""

    def run(self, todo: list[Cell], pool: Pool, needs: Needs) -> None:
        """Run these cells, or as many as there is time for."""
        self.todo = self.branching.ordered(todo, pool.threads)
        self.started = time.monotonic()
        end = None
        self._show(pool.threads)
        while self.todo or self.alone or self.flying:
            if end is None and (reason := self.stopped_by):
                saving_s = min(SAVING_S, self.flying * needs.largest / SAVED_BYTES_PER_S)
                end = time.monotonic() + GRACE_S + saving_s
                self._stop(pool, reason)
            while self.flying < pool.window and (batch := self._next_batch(pool)) is not None:
                pool.submit(batch, needs.of(batch))
                self.flying += 1
            for outcome in pool.wait(POLL_S):
                self.flying -= 1
                self._take(outcome)
            self._show(pool.threads)
            if end is None:
                pool.check()
            elif time.monotonic() > end:
                break
        pool.settle(SETTLE_S if end is None else STOPPED_SETTLE_S)

    def _stop(self, pool: Pool, reason: str) -> None:
        self.todo.clear()
        self.alone.clear()
        pool.stop()
        self.display.message(f"stopping ({reason}): running batches end at the next quantum")

    def _next_batch(self, pool: Pool) -> Batch | None:
        """The next cells, as many as make about five seconds; a suspect goes alone."""
        if self.alone and len(self.suspects) < pool.suspects:
            batch = self._made([self.alone.popleft()])
            self.suspects.add(id(batch))
            return batch
        if not self.todo:
            return None
        if self.batch == "auto":
            mean = self.busy_s / max(1, self.n_new)
            size = auto_batch_size(mean, len(self.todo), pool.threads) if self.n_new else 1
        else:
            size = int(self.batch)
        return self._made(self._taken(size))

    def _taken(self, size: int) -> list[Cell]:
        """The next cells, `size` at most; one that others wait for goes alone."""
        cells = [self.todo.popleft()]
        if self.branching.goes_alone(cells[0]):
            return cells
        while len(cells) < size and self.todo and not self.branching.goes_alone(self.todo[0]):
            cells.append(self.todo.popleft())
        return cells

    def _made(self, cells: list[Cell]) -> Batch:
        return Batch(tuple(self.plan.task(c, self.attempts.get(c, 0)) for c in cells))

    def _take(self, outcome: BatchOutcome) -> None:
        batch, receipt = outcome
        self.suspects.discard(id(batch))
        if isinstance(receipt, ResultsError | SetupError):
            raise receipt
        if isinstance(receipt, BaseException):
            self._take_loss(batch, receipt)
        else:
            self._take_receipt(batch, receipt)

    def _take_receipt(self, batch: Batch, receipt: dict[str, Any]) -> None:
        codes = [int(c) for c in receipt["statuses"]]
        found = list(zip(batch.tasks, codes, strict=True))
        ended = [(t.cell, c) for t, c in found if c in (OK, FAILED)]
        if ended:
            self._see(str(receipt["batch"]))
            line = {**receipt, "statuses": "".join(str(c) for _, c in ended)}
            if "values" in receipt:
                pairs = zip(receipt["values"], codes, strict=True)
                line["values"] = [value for value, code in pairs if code in (OK, FAILED)]
            self.store.append(line, [cell for cell, _ in ended])
        said = receipt.get("said", {})
        values = receipt.get("values", [None] * len(found))
        for i, (task, code) in enumerate(found):
            what = said.get(i, {})
            if code in (OK, FAILED):
                self._settle(task.cell, code, values[i])
                self.policy.take(code == OK, what.get("sign", ""), what.get("text", ""))
            elif code != INTERRUPTED and not self.stopped_by:
                self._try_again(self.losses.retry([task], {task.cell}), code, str(what.get("text", "")))
        self.n_new += len(ended)
        self.events += int(receipt["events"])
        for remark in receipt.get("remarks", ()):
            self.display.message(remark)
        self.busy_s += float(receipt["wall_s"])

    def _take_loss(self, batch: Batch, error: BaseException) -> None:
        """A worker died or could not be reached: try again what was not at fault, and the suspect alone."""
        if self.stopped_by:
            return
        retries = self.losses.explain(batch, read_notes(self.store.running))
        self._try_again(retries, LOST, str(error) or type(error).__name__)

    def _settle(self, cell: Cell, code: int, value: float | None = None) -> None:
        old = self.status.get(cell)
        self.status[cell] = code
        self.counts["ok"] += (code == OK) - (old == OK)
        self.counts["failed"] += (code != OK) - (old is not None and old != OK)
        self.counts["missing"] -= old is None
        self.branching.settle(cell)
        if self.growth is not None:
            self._grow(self.growth.take(cell, float("nan") if value is None else value))
        if code == OK and old is not None:
            self.store.failure_path(cell).unlink(missing_ok=True)

    def _grow(self, cells: list[Cell]) -> None:
        """Add runs of which is known now that they are needed."""
        new = [cell for cell in cells if self.status.get(cell) not in (OK, FAILED)]
        held = count(cells, self.status)
        for name in self.counts:
            self.counts[name] += held[name]
        if not self.stopped_by:
            self.todo.extend(self.branching.more(new))

    def _see(self, batch_id: str) -> None:
        """Wait until the shard of a receipt is visible here too."""
        path = self.store.shard_path(batch_id)
        end = time.monotonic() + VISIBLE_S
        while not path.is_file():
            if time.monotonic() > end:
                raise StorageError(
                    "a worker has written this file, but it cannot be seen here; the results directory must "
                    "be on a file system that all workers share",
                    path,
                )
            time.sleep(POLL_S)

    def _try_again(self, retries: Retries, code: int, text: str) -> None:
        self.todo.extendleft(reversed(retries.again))
        self.alone.extend(retries.alone)
        for cell in retries.alone:
            self.n_losses += 1
            if self.n_losses <= LOSSES_TOLD:
                self.display.message(
                    f"point {cell.point_id:016x} replicate {cell.replicate}: {text}; try "
                    f"{self.losses.blame[cell] + 1} of {TRIES} will be alone"
                )
        if retries.given_up:
            self._give_up(retries.given_up, code, text)

    def _give_up(self, tasks: list[Task], code: int, text: str) -> None:
        self.display.message(f"gave up after {TRIES} tries: {len(tasks)} runs, {text}")
        shard = Batch(tuple(tasks))
        lost = [CellResult(t.cell, code, {"seed": t.seed}) for t in tasks]
        write_shard(self.store.shard_path(shard.batch_id), lost)
        error = RunTimeoutError(text) if code == TIMEOUT else worker.WorkerLostError(text)
        for task in tasks:
            account = worker.failure_account(task, error)
            account["rerun"] = worker.how_to_rerun(task, self.store.dir)
            write_json(self.store.failure_path(task.cell), account)
            self._settle(task.cell, code)
            self.policy.take(False, account["signature"], text)
        receipt = {"batch": shard.batch_id, "statuses": str(code) * len(tasks), "wall_s": 0.0, "events": 0}
        self.store.append(receipt, [t.cell for t in tasks])

    def _show(self, threads: int) -> None:
        n, elapsed = self.counts, time.monotonic() - self.started
        eta = self.busy_s / self.n_new * n["missing"] / max(1, threads) if self.n_new else None
        rate = self.events / elapsed if elapsed > 0 else 0.0
        self.display.update(n["ok"] + n["failed"], n["total"], n["failed"], eta, rate)
        if elapsed - self.last_status > STATUS_EVERY_S:
            self.last_status = elapsed
            self.write_status("running", eta)

    def write_status(self, state: str, eta_s: float | None = None) -> None:
        """Rewrite status.json."""
        write_json(
            self.store.status_path,
            {
                "state": state,
                **self.counts,
                "new": self.n_new,
                "stopped_by": self.stopped_by,
                KEY: self.headway.fruitless,
                "eta_s": None if eta_s is None else round(eta_s, 1),
                "runs_per_s": round(self.n_new / max(1e-9, time.monotonic() - self.started), 3),
                "updated": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
        )
