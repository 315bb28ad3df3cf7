"""What a sweep does about runs that fail, and about runs whose worker was lost.

Owns two policies: when failing runs end the sweep early, and which run is blamed when a worker dies. A
simulation error is deterministic and final. A lost worker, missing memory or a timeout is not, so the run
that was being worked on is tried twice more, alone. Touches no files; the notes of notes.py are handed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from spbfast.sweep.points.plan import Batch, Cell, Task
from spbfast.sweep.store.notes import RunNote

TRIES = 3
ALIKE = 3
# A batch that dies again and again without having begun shows that notes cannot be read here.
UNEXPLAINED = 4


class FailurePolicy:
    """When failing runs end a sweep.

    Parameters
    ----------
    fail_fast : bool
        At the first one.
    allowed : int, optional
        When more than this have failed; None is any number.

    Attributes
    ----------
    reason : str
        Why the sweep ends, "" while it does not.
    """

    def __init__(self, fail_fast: bool = False, allowed: int | None = None) -> None:
        self.fail_fast, self.allowed = fail_fast, allowed
        self.failed = 0
        self.reason = ""
        self._seen = 0
        self._signs: set[str] = set()

    def take(self, ok: bool, sign: str = "", text: str = "") -> None:
        """One run has ended; `sign` is equal for errors that are alike, `text` is the error's message."""
        self._seen += 1
        if ok:
            return
        self.failed += 1
        self._signs.add(sign)
        if self.fail_fast:
            self.reason = self.reason or "fail-fast"
        elif self._seen == self.failed == ALIKE and len(self._signs) == 1 and sign:
            self.reason = f"the first {ALIKE} runs all failing with: {text}"
        elif self.allowed is not None and self.failed > self.allowed:
            self.reason = self.reason or f"max_failures: {self.failed} runs failed, {self.allowed} may"


@dataclass(slots=True)
class Retries:
    """What happens next to the runs of a batch that was lost."""

    again: list[Cell] = field(default_factory=list)
    alone: list[Cell] = field(default_factory=list)
    given_up: list[Task] = field(default_factory=list)


class Losses:
    """Which runs are blamed for lost workers, and how often."""

    def __init__(self) -> None:
        self.blame: Counter[Cell] = Counter()
        self._unexplained: Counter[Cell] = Counter()

    def explain(self, batch: Batch, notes: Sequence[RunNote]) -> Retries:
        """Blame the run of a lost batch that was being worked on.

        If a suspect from an earlier loss was at work in the same process, it alone is blamed.
        """
        own = {t.cell for t in batch.tasks}
        here = [n for n in notes if n.batch_id == batch.batch_id and n.cell in own]
        if here:
            return self.retry(batch.tasks, {n.cell for n in here if not self._excused(n, notes, own)})
        self._unexplained.update(own)
        return self.retry(batch.tasks, {c for c in own if self._unexplained[c] >= UNEXPLAINED})

    def _excused(self, note: RunNote, notes: Sequence[RunNote], own: set[Cell]) -> bool:
        beside = (n.cell for n in notes if n.process == note.process and n.cell not in own)
        return not self.blame[note.cell] and any(self.blame[c] for c in beside)

    def retry(self, tasks: Iterable[Task], blamed: set[Cell]) -> Retries:
        """Blame some of these runs; the others run again as if nothing had happened."""
        retries = Retries()
        self.blame.update(blamed)
        for task in tasks:
            if self.blame[task.cell] >= TRIES:
                retries.given_up.append(task)
            elif self.blame[task.cell]:
                retries.alone.append(task.cell)
            else:
                retries.again.append(task.cell)
        return retries
