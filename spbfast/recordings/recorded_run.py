"""A run that repeats a recording: the job's `replay` section, sampled like any other run.

Owns what of the machine is sampled and when. Time is the recording's own, from its start (a capture with page
flags) or its first event; what comes after the job's duration is left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spbfast.constants import NR_MT, NR_ORDERS, PAGE_SIZE, C, Mt
from spbfast.model.loop.recorded_pages import (
    N_ALLOCS,
    N_FAILED,
    N_FREES,
    N_LIVE_PAGES,
    N_MISSED,
    N_PAIRS,
    N_UNKNOWN_PAGES,
    replay_page_events,
)
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.trace import TALLY_NAMES
from spbfast.observed.receipt import Receipt
from spbfast.recordings.replaying import (
    BegunReplay,
    ReplayRequest,
    batches_of,
    begin_replay,
    missing_share,
    replay_pages,
)

if TYPE_CHECKING:
    from spbfast.config.models import Scenario

BYTES_PER_PAGE = 32  # state, links, slots, and where each recorded page is
_GAUGES = {
    "spb_tainted": C.TAINTED_SPBS,
    "spb_clean": C.CLEAN_SPBS,
    "spb_empty": C.EMPTY_SPBS,
    "spb_isolated": C.ISOLATED_SPBS,
    "nr_free_pages": C.FREE_PAGES,
    "pcp_pages": C.PCP_PAGES,
}
_COUNTS = {
    "replay_allocations": N_ALLOCS,
    "replay_frees": N_FREES,
    "replay_not_served": N_FAILED,
    "replay_handed_out_while_held": N_LIVE_PAGES,
    "replay_freed_unknown": N_UNKNOWN_PAGES,
}


@dataclass
class RecordedRun:
    """What a run of a recording gave: arrays and labels by registered name, and how it went."""

    data: dict[str, np.ndarray]
    coords: dict[str, np.ndarray]
    events: int
    demand_digest: str
    boot_s: float
    stopped: bool = False


@dataclass
class _Samples:
    """Samples so far, and the machine that they are of."""

    begun: BegunReplay
    gauges: list[list[int]] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    tally: list[np.ndarray] = field(default_factory=list)

    def take(self) -> None:
        """The machine as it is now."""
        z = self.begun.z
        self.gauges.append([int(z.count[at]) for at in _GAUGES.values()])
        self.blocks.append(_free_blocks(z))
        self.tally.append(z.tally.copy())


def request_of(scenario: Scenario) -> ReplayRequest:
    """What a scenario's `replay` section asks for."""
    spec = scenario.replay
    assert spec is not None
    return ReplayRequest(
        spec.path,
        scenario.policy,
        spec.level,
        spec.zone,
        None if spec.size is None else spec.size // PAGE_SIZE,
        lists=scenario.pcp,
        spb_size=scenario.machine.spb_size if "spb_size" in scenario.machine.model_fields_set else None,
    )


def run_recording(scenario: Scenario, stop: Callable[[], bool] | None = None) -> RecordedRun:
    """Repeat the recording of a scenario.

    Raises
    ------
    DumpError
        When the recording cannot be read.
    TraceError
        When it has no events of this level, or no such zone.
    """
    start = time.perf_counter()
    begun = begin_replay(request_of(scenario))
    boot_s = time.perf_counter() - start
    every, end = scenario.output_every, scenario.duration
    moments = np.arange(0, end + 1, every)
    samples = _Samples(begun)
    samples.take()
    stopped = not _go_on(begun, samples, moments, end, stop)
    while len(samples.gauges) < len(moments):
        samples.take()
    data, coords = _arrays(samples, moments)
    spec = scenario.replay
    assert spec is not None
    demand = hashlib.blake2b(f"{spec.digest} {spec.level} {spec.zone}".encode(), digest_size=8).hexdigest()
    nr = int(begun.counts[N_ALLOCS] + begun.counts[N_FREES])
    return RecordedRun(data, coords, nr, demand, boot_s, stopped)


def recorded_bytes(scenario: Scenario) -> int:
    """Bytes of state that the run takes."""
    return replay_pages(request_of(scenario)) * BYTES_PER_PAGE


def _go_on(
    begun: BegunReplay, samples: _Samples, moments: np.ndarray, end: int, stop: Callable[[], bool] | None
) -> bool:
    """Replay events up to `end`, with a sample at each moment that passes; False if stopped."""
    for kinds, batch in batches_of(begun, Receipt()):
        if begun.begin_ns is None and (batch.time_ns >= 0).any():
            begun.begin_ns = int(batch.time_ns[batch.time_ns >= 0][0])
        rows, at = begun.maker.rows_of(kinds, batch)
        when = np.maximum.accumulate(batch.time_ns)[at] - (begun.begin_ns or 0)
        first = 0
        while len(samples.gauges) < len(moments):
            last = int(np.searchsorted(when, moments[len(samples.gauges)], "right"))
            if last == len(when):
                break
            replay_page_events(begun.z, begun.policy, rows[first:last], begun.place, begun.counts)
            samples.take()
            first = last
        last = int(np.searchsorted(when, end, "right"))
        replay_page_events(begun.z, begun.policy, rows[first:last], begun.place, begun.counts)
        if last < len(when):
            return True
        if stop is not None and stop():
            return False
    return True


def _free_blocks(z: ZoneState) -> np.ndarray:
    return np.asarray(z.area.nr.reshape(-1, NR_ORDERS, NR_MT).sum(axis=0, dtype=np.int64))


def _arrays(samples: _Samples, moments: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    blocks = np.stack(samples.blocks)  # time, order, migratetype
    sizes = np.int64(1) << np.arange(NR_ORDERS)
    counts = samples.begun.counts
    data = dict(zip(_GAUGES, np.array(samples.gauges, np.int64).T.copy(), strict=True))
    data["free_blocks"] = blocks.sum(axis=2).T.copy()
    data["free_pages"] = (blocks * sizes[None, :, None]).sum(axis=1).T[: len(Mt)].copy()
    data["vmstat"] = np.stack(samples.tally, axis=1).astype(np.int64)
    data |= {name: np.array(int(counts[i])) for name, i in _COUNTS.items()}
    missing = missing_share(int(counts[N_PAIRS]), int(counts[N_MISSED]))
    data["replay_missing_share"] = np.array(missing.get("share", float("nan")))
    coords = {
        "time": moments / 1e9,
        "migratetype": np.array([mt.name.lower() for mt in Mt], dtype=object),
        "order": np.arange(NR_ORDERS),
        "counter": np.array(TALLY_NAMES, dtype=object),
    }
    return data, coords
