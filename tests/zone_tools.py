"""What tests of the compiled allocator share: replayed golden files, snapshots, twin zones.

A snapshot is plain data of the same form as the reference twin's, so that the two compare with ==.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spbfast.constants import NR_MT, NR_ORDERS, NR_REQUEST_MT, PAGE_SIZE, PB_PAGES
from spbfast.model.loop.replay import BULK_NEXT, run_events
from spbfast.model.state.layout import ZoneState
from spbfast.model.state.walk import read_free_lists, spb_lists
from spbfast.verify.golden import load_golden
from spbfast.verify.replay_zone import Replay
from spbfast.verify.switches import switch_array
from spbfast.zone import Zone
from tests.reference import Geometry, Policy

GOLDEN = Path(__file__).parent / "golden"
TINY = sorted(path.stem for path in GOLDEN.glob("spb_*_tiny.npz"))


def replay_of(name: str) -> Replay:
    """A golden file's zone just after boot, ready to run."""
    return Replay(load_golden(GOLDEN / f"{name}.npz"))


def steps(replay: Replay, step: int = 1) -> Iterator[int]:
    """Run a golden file `step` events at a time, bulk groups whole; yields the number executed."""
    nr = replay.golden.nr_events
    op = replay.golden["op"]
    done = 0
    yield 0
    while done < nr:
        last = min(nr, done + step)
        while last < nr and op[last] == BULK_NEXT:
            last += 1
        run_events(replay.z, replay.policy, replay.events, done, last, replay.pins, replay.out)
        done = last
        yield done


def run_to(name: str, nr_events: int) -> Replay:
    """A golden file's zone after about `nr_events` events."""
    replay = replay_of(name)
    for done in steps(replay, max(1, nr_events)):
        if done >= nr_events:
            break
    return replay


def compiled_zone(geometry: Geometry, policy: Policy) -> Zone:
    """The compiled zone that has a twin's shape and policy."""
    return Zone(
        geometry.zone_pages * PAGE_SIZE,
        switch_array(policy.as_dict()),
        spb_size=geometry.pageblocks_per_spb * PB_PAGES * PAGE_SIZE,
        start_pfn=geometry.start_pfn,
    )


def free_lists(z: ZoneState) -> dict[tuple[int, int, int], list[int]]:
    """Every free list that is not empty, head to tail, relative pfns."""
    lengths, _, pfns = read_free_lists(z)
    ends = np.cumsum(lengths)
    out = {}
    for i, nr in enumerate(lengths.reshape(-1).tolist()):
        if nr:
            set_, rest = divmod(i, NR_ORDERS * NR_MT)
            out[(set_, *divmod(rest, NR_MT))] = pfns[ends[i] - nr : ends[i]].tolist()
    return out


def snapshot(z: ZoneState, superpageblocks: bool) -> dict[str, Any]:
    """The zone as the twin's `snapshot` tells it."""
    first, last = z.geo.lo // PB_PAGES, -(-z.geo.hi // PB_PAGES)
    out: dict[str, Any] = {
        "free": free_lists(z),
        "label": z.pb.label[first:last].tolist(),
        "used": z.pb.used[first:last, :NR_REQUEST_MT].tolist(),
    }
    if not superpageblocks:
        return out
    lists = dict(zip(((1, 0), (1, 1), (1, 2), (1, 3), (1, 4)), spb_lists(z)[:5], strict=True))
    lists |= dict(zip(((2, 0), (2, 1), (2, 2), (2, 3), (2, 4)), spb_lists(z)[5:10], strict=True))
    lists |= dict(zip(((0, 0), (3, 0)), spb_lists(z)[10:], strict=True))
    place = {spb: key for key, members in lists.items() for spb in members}
    hint = {
        (order, mt): int(z.index.hint[order, mt])
        for order in range(NR_ORDERS)
        for mt in range(NR_REQUEST_MT)
        if z.index.hint[order, mt] >= 0
    }
    return out | {
        "content": z.pb.bits[first:last].tolist(),
        "category": [place[spb][0] for spb in range(z.geo.nr_spb)],
        "bucket": [place[spb][1] for spb in range(z.geo.nr_spb)],
        "spb_lists": {key: members for key, members in sorted(lists.items()) if members},
        "free_pb": z.spb.nr_free_pb.tolist(),
        "free_pages": z.spb.nr_free_pages.tolist(),
        "hint": hint,
    }
