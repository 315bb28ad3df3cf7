"""What every operation of a Zone comes down to: rows for the event loop, and slots for the blocks it holds.

Owns the lock, the names of held blocks (slots of one owner) and copies. Every operation is a row for the
event loop of model/loop/replay.py, so that many requests cost one call.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np

from spbfast.constants import Outcome, P, Req
from spbfast.model.loop import replay
from spbfast.model.loop.replay_rows import check_results, event_rows, result_rows
from spbfast.model.lowering.arguments import checked_range
from spbfast.model.lowering.duplicate import packed_state, unpacked_state, with_slots

if TYPE_CHECKING:
    from spbfast.model.lowering.handles import FreeSlots
    from spbfast.model.state.build import ZoneSpec
    from spbfast.model.state.layout import ZoneState
    from spbfast.observed.receipt import Receipt

Args = ParamSpec("Args")
Answer = TypeVar("Answer")
AnyZone = TypeVar("AnyZone", bound="ZoneRows")


def alone(
    method: Callable[Concatenate[AnyZone, Args], Answer],
) -> Callable[Concatenate[AnyZone, Args], Answer]:
    """A method that has the zone to itself: kernels run without the interpreter's lock."""

    @functools.wraps(method)
    def one_at_a_time(zone: AnyZone, *args: Args.args, **keywords: Args.kwargs) -> Answer:
        with zone._lock:
            return method(zone, *args, **keywords)

    return one_at_a_time


class Event(NamedTuple):
    """What the last operation did: `Zone.last`.

    `outcome` is the rung that served a request; for other operations NO_PAGE means that nothing was done,
    TAKE_PREFERRED that something was.
    """

    outcome: Outcome
    visited: int  # superpageblocks stepped on by the ladder's walks
    visited_fallback: int
    tainted: int  # tainted superpageblocks afterwards
    requests: Req  # work that the operation asked for
    moved: int  # pages migrated


def event_row(op: int, *, order: int = 0, mt: int = 0, flags: int = 0, arg: int = 0) -> np.ndarray:
    """A row of the event loop, without a handle; `arg` is the CPU where the operation has one (E_CPU)."""
    row = np.zeros(replay.NR_EVENT_FIELDS, np.int64)
    row[replay.E_OP], row[replay.E_ORDER], row[replay.E_MT] = op, order, mt
    row[replay.E_FLAGS], row[replay.E_ARG] = flags, arg
    return row


class ZoneRows:
    """The state behind a Zone, and how rows of events run on it."""

    state: ZoneState
    policy: np.ndarray
    receipt: Receipt | None
    _lock: threading.RLock
    _free: FreeSlots

    def _adopt(self, spec: ZoneSpec, state: ZoneState, base: int) -> None:
        self._spec, self.state, self._base = spec, state, base
        self.start_pfn, self.nr_pages = spec.start_pfn, spec.zone_pages
        self.nr_cpus = spec.nr_cpus or 1
        self._last = result_rows(1)[0]
        self._pins = np.zeros(2, np.int64)
        self.receipt = None

    def _set_policy(self, policy: np.ndarray) -> None:
        self.policy = policy.copy()
        if not self.policy[P.superpageblocks]:
            # What works on superpageblocks has nothing to work on.
            self.policy[[P.evacuate, P.defrag, P.contig]] = 0

    # -- copies ------------------------------------------------------------------------------------

    @alone
    def __getstate__(self) -> dict[str, Any]:
        """Everything, the arrays as copies; not the lock."""
        values = {k: v for k, v in vars(self).items() if k not in ("_lock", "state")}
        own = {k: v.copy() for k, v in values.items() if isinstance(v, np.ndarray)}
        return {**values, **own, "_free": self._free.copy(), "contents": packed_state(self.state)}

    def __setstate__(self, values: dict[str, Any]) -> None:
        contents = values.pop("contents")
        vars(self).update(values)
        self._lock = threading.RLock()
        self.state = unpacked_state(self._spec, contents)

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__setstate__(self.__getstate__())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    # -- rows and slots ----------------------------------------------------------------------------

    def _run(self, events: np.ndarray) -> np.ndarray:
        """Run event rows, or a single one; a row of results each."""
        events = event_rows(np.atleast_2d(events))
        out = result_rows(len(events))
        if len(events):
            replay.run_events(self.state, self.policy, events, 0, len(events), self._pins, out)
            check_results(out)
            self._last = out[-1]
        return out.astype(np.int64)

    def _need_slots(self, n: int) -> None:
        """Have at least `n` free slots: a larger pool takes over what the old one holds."""
        if self._free.nr >= n:
            return
        old = self.state.slots.link.size
        size = max(2 * old, old + n)
        self.state = with_slots(self.state, size)
        self._free.grow(old, size)

    def _request(self, row: np.ndarray, n: int) -> np.ndarray:
        """Run `n` rows that hand out blocks; absolute page frame numbers or -1."""
        self._need_slots(n)
        events = np.repeat(row[None, :], n, axis=0)
        slots = self._free.take(n)
        events[:, replay.E_HANDLE] = slots
        pfns = self._run(events)[:, replay.R_PFN]
        failed = pfns < 0
        self._free.give(slots[failed][::-1])
        return np.where(failed, -1, pfns + self.start_pfn)

    def _on_cpus(self, op: int, cpu: int | None) -> None:
        cpus = range(self.state.geo.nr_cpus) if cpu is None else (self._cpu_of(cpu),)
        if self.state.geo.nr_cpus:
            self._run(np.stack([event_row(op, arg=one) for one in cpus]))

    def _cpu_of(self, cpu: int) -> int:
        return checked_range(cpu, "cpu", 0, self.nr_cpus - 1)

    def _spb_of(self, spb: int) -> int:
        return checked_range(spb, "spb", 0, self.state.geo.nr_spb - 1)
