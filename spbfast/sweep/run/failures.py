"""What a sweep does about runs that fail, and about runs whose worker was lost.

Owns the two policies: when failing runs end the sweep early, and which run is blamed when a worker dies. A
simulation error is deterministic and final; a lost worker, missing memory or a timeout is not, so the run
that was being worked on is tried twice more, alone. Touches no files; the notes of running.py are handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from spbfast.sweep.points.plan import Batch, Cell, Task
from spbfast.sweep.store.notes import Found

TRIES = 3
ALIKE = 3
# A batch that dies again and again without having begun says that notes cannot be read here.
UNEXPLAINED = 4
FAIL_FAST = "fail-fast"


class FailurePolicy:
    """When failing runs end a sweep.

    Parameters
    ----------
    fail_fast : bool
        At the first one.
    allowed : int, optional
        When more than this have failed; None is any number.
    """

    def __init__(self, fail_fast: bool = False, allowed: int | None = None) -> None:
        self.fail_fast, self.allowed = fail_fast, allowed
        self.failed = 0
        self.reason = ""
        self._seen = 0
        self._signs: list[str] = []

    def take(self, ok: bool, sign: str = "", text: str = "") -> None:
        """One run has ended; `sign` is equal for errors that are alike, `text` is the error's message."""
        self._seen += 1
        if ok:
            return
        self.failed += 1
        self._signs.append(sign)
        alike = self._seen == self.failed == ALIKE and len(set(self._signs)) == 1 and sign != ""
        if self.fail_fast:
            self.reason = self.reason or FAIL_FAST
        elif alike:
            self.reason = f"the first {ALIKE} runs all failing with: {text}"
        elif self.allowed is not None and self.failed > self.allowed:
            self.reason = self.reason or f"max_failures: {self.failed} runs failed, {self.allowed} may"


@dataclass(slots=True)
class Verdict:
    """What becomes of the runs of a batch that was lost."""

    again: list[Cell] = field(default_factory=list)
    alone: list[Cell] = field(default_factory=list)
    given_up: list[Task] = field(default_factory=list)


class Losses:
    """Who is blamed for lost workers, and how often."""

    def __init__(self) -> None:
        self.blame: Counter[Cell] = Counter()
        self._unexplained: Counter[Cell] = Counter()

    def judge(self, batch: Batch, notes: Sequence[Found]) -> Verdict:
        """The runs of a lost batch, by what happens to them next.

        Blamed is the run that was being worked on. If a suspect from an earlier loss was at work in the same
        process, it alone is blamed.
        """
        own = {t.cell for t in batch.tasks}
        here = [n for n in notes if n.batch_id == batch.batch_id and n.cell in own]
        blamed = {n.cell for n in here if self.blame[n.cell] or not self._suspect_beside(n, notes, own)}
        if not here:
            for cell in own:
                self._unexplained[cell] += 1
            blamed = {c for c in own if self._unexplained[c] >= UNEXPLAINED}
        return self.convict(batch.tasks, blamed)

    def convict(self, tasks: Iterable[Task], blamed: set[Cell]) -> Verdict:
        """Blame some of these runs; the others run again as if nothing had happened."""
        verdict = Verdict()
        for task in tasks:
            if task.cell in blamed:
                self.blame[task.cell] += 1
            if self.blame[task.cell] >= TRIES:
                verdict.given_up.append(task)
            elif self.blame[task.cell]:
                verdict.alone.append(task.cell)
            else:
                verdict.again.append(task.cell)
        return verdict

    def _suspect_beside(self, note: Found, notes: Sequence[Found], own: set[Cell]) -> bool:
        return any(n.process == note.process and n.cell not in own and 0 < self.blame[n.cell] for n in notes)
