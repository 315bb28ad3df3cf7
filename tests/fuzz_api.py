"""The Python interface with arguments that nobody should give: an answer or a SpbfastError, soon.

`python -m tests.fuzz_api --minutes 10` runs for that long with new seeds; test_fuzz_api.py runs some hundred
calls. Zones are checked after every call, so that a wrong number in a state is found where it arises.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import pickle
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import spbfast
from spbfast import AllocFlag, Mt, Zone
from spbfast.config import load_config
from spbfast.config.policy import Policy
from spbfast.config.presets import preset_names, preset_values
from spbfast.constants import NR_POLICY
from spbfast.errors import SpbfastError
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf
from spbfast.sweep.run.driver import run_sweep

# Processor time, so that a busy machine is not taken for a slow answer.
SECONDS_MAX = 30.0
ENGINE = "tests.fake_engine"
JOB = """\
name: fuzz
duration: 2s
replicates: 2
machine: {memory: 64MiB, spb_size: 16MiB, cpus: 1, kernel_image: 1MiB, min_free: 1MiB}
slab: {superblocks: 1, memcgs: 1, objects_max: 4096}
executor: {kind: serial}
sweep: {baseline: {policy.slab_shrink: false}, grid: {policy.slab_shrink_target_objs: [512, 2048]}}
"""


class Unprintable:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def odd_values(job: Any, ds: xr.Dataset) -> list[Any]:
    """What stands where something else should."""
    numbers: list[Any] = [0, 1, -1, 2, 10, 11, 2**31, 2**63, 2**64, -(2**63), 10**13, 10**400, 1.5, 1e400]
    numbers += [float("nan"), float("-inf"), True, False, 1j]
    arrays: list[Any] = [np.int64(3), np.uint64(2**64 - 1), np.array([1]), np.array(1), np.zeros(0)]
    arrays += [np.zeros(NR_POLICY), np.full(NR_POLICY, 2**40), np.zeros((2, 2), int), np.array(["a", None])]
    texts: list[Any] = [
        "",
        "x",
        "1GiB",
        "64MiB",
        "10\u03bcs",
        "9" * 5000,
        "a\0b",
        "v1@30",
        "mainline",
        b"v1@30",
    ]
    things: list[Any] = [
        None,
        [],
        [1, [2, 3]],
        {},
        {1: 2},
        {"evacuate": 5},
        object(),
        Unprintable(),
        int,
        print,
    ]
    ours: list[Any] = [job, job.scenario, job.scenario.policy, ds, ds.spb_tainted, Mt.MOVABLE, AllocFlag(0)]
    more: list[Any] = [Path("nowhere"), Path("/dev/zero"), "/dev/null", {"preset": "v1", "evacuate": False}]
    more += [pd.DataFrame({"a": [1]}), PcpConf(8, 8, 8), PcpConf("a", 1, 1), {"batch": 8, "high": 16}]  # type: ignore[arg-type]
    more += [{"slab_shrink_throttle": 100}, {"preset": None}, {"slab_shrink_triggers": 5}, range(3)]
    return [*numbers, *arrays, *texts, *things, *ours, *more]


class World:
    """What calls are made on, and the odd values."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.rng, self.home = rng, home
        (home / "job.yaml").write_text(JOB)
        self.job = load_config(home / "job.yaml")
        self.out = run_sweep(self.job, home / "out", engine=ENGINE, quiet=True).directory
        self.ds = spbfast.open_results(self.out)
        self.odd = odd_values(self.job, self.ds)
        self.zone = self.fresh_zone()
        spbfast.simulate(self.job.scenario)  # compiles, which no call's time shall include

    def fresh_zone(self) -> Zone:
        """A small zone of some kind, with something in it."""
        policy = self.rng.choice([*preset_names(), {"preset": "v1", "pcp_owned_pageblocks": True}])
        pcp = self.rng.choice([None, {"batch": 4, "high": 16}])
        zone = Zone("64MiB", policy, spb_size="16MiB", pcp=pcp, cpus=2 if pcp else 1)
        zone.alloc_many(self.rng.randrange(3000), 0, self.rng.choice([0, 1, 2]))
        return zone

    def any(self) -> Any:
        """An odd value."""
        return self.rng.choice(self.odd)

    def near(self, *right: Any) -> Any:
        """One of the right values, or an odd one."""
        return self.rng.choice(right) if self.rng.random() < 0.6 else self.any()


Call = Callable[[World], Any]


def zone_calls() -> list[Call]:
    """Methods of a Zone."""
    return [
        lambda w: w.zone.alloc(w.near(0, 3, 10), w.near(0, 1, 2), w.near(0, 0x80), w.near(0, 1)),
        lambda w: w.zone.alloc_many(w.near(0, 5, 3000), w.near(0, 9), w.near(0, 1), w.near(0), w.near(0)),
        lambda w: w.zone.free(w.near(w.zone.start_pfn, w.zone.alloc()), w.near(0)),
        lambda w: w.zone.free_many(w.near([w.zone.start_pfn], w.zone.alloc_many(3)), w.near(0)),
        lambda w: w.zone.evacuate(w.near(0, 9), w.near(0, 2)),
        lambda w: w.zone.defrag(w.near(0, 1)),
        lambda w: w.zone.compact(w.near(0, 1), w.near(16), w.near(1), w.near(1)),
        lambda w: w.zone.contig(),
        lambda w: w.zone.drain(w.near(None, 0)),
        lambda w: w.zone.decay(w.near(None, 0)),
        lambda w: w.zone.free_list(w.near(0, 10), w.near(0, 1, 3), w.near(None, 0)),
        lambda w: [w.zone.last, w.zone.picture(), w.zone.superpageblocks(), repr(w.zone), w.zone.tainted()],
        lambda w: setattr(w, "zone", copy.copy(w.zone)),
        lambda w: setattr(w, "zone", copy.deepcopy(w.zone)),
        lambda w: setattr(w, "zone", pickle.loads(pickle.dumps(w.zone))),
        lambda w: setattr(w, "zone", w.fresh_zone()),
    ]


def making_calls() -> list[Call]:
    """Zones, policies and configurations."""
    sizes = ("64MiB", 1 << 26, "4MiB")
    return [
        lambda w: Zone(w.near(*sizes), w.near("v1@30"), spb_size=w.near("16MiB")).check(),
        lambda w: Zone("64MiB", w.any(), spb_size="16MiB", start_pfn=w.near(0, 1024)).check(),
        lambda w: Zone(
            "64MiB", spb_size="16MiB", pcp=w.near({"batch": 8, "high": 16}), cpus=w.near(2)
        ).check(),
        lambda w: Zone.from_picture(w.near("UM.. MM..", "T."), w.near("v1"), start_pfn=w.near(0)).check(),
        lambda w: policy_array(w.near("v1@30", {"preset": "v2"}, policy_array("v1"))),
        lambda w: policy_array(
            {
                **preset_values("v1@30"),
                "preset": "v1@30",
                w.rng.choice(["evacuate", "reserve_floor", "x"]): w.any(),
            }
        ),
        lambda w: policy_array(Policy.model_validate({**preset_values("v1"), "preset": "v1"})),
        lambda w: load_config(w.near(w.home / "job.yaml")),
        lambda w: load_config(w.home / "job.yaml", w.near(["seed=1"])),
        lambda w: load_config(w.home / "job.yaml", [w.near("seed=1", "duration=1ms")]),
        lambda w: load_config(w.home / "job.yaml", grid=w.any()),
        lambda w: w.job.with_values({w.rng.choice(["seed", "policy.reserve_floor", "x"]): w.any()}),
        lambda w: w.job.with_values(w.any()),
        lambda w: load_config(w.home / "job.yaml", one_point=w.any()),
        lambda w: load_config(w.home / "job.yaml", stand_ins=w.any()),
        lambda w: spbfast.explain(w.near("seed")),
        lambda w: spbfast.presets.difference(w.near("v1"), w.near("mainline")),
    ]


def result_calls() -> list[Call]:
    """Runs and results."""
    return [
        lambda w: spbfast.simulate(w.near(w.job.scenario), w.near(1), w.near(0), snapshots=w.near(False)),
        lambda w: spbfast.sweep(w.any(), w.near(w.home / "other"), quiet=True, engine=ENGINE),
        lambda w: spbfast.sweep(w.job, w.near(w.out), quiet=w.near(True), engine=ENGINE),
        lambda w: spbfast.sweep(w.job, w.out, quiet=True, engine=ENGINE, time_limit_s=w.near(100)),
        lambda w: spbfast.sweep(w.job, w.out, quiet=True, engine=ENGINE, shard_of=w.any()),
        lambda w: spbfast.sweep(w.job, w.out, quiet=True, engine=ENGINE, max_failures=w.any()),
        lambda w: spbfast.open_results(w.near(w.out)),
        lambda w: spbfast.open_results(w.out, load=w.near(True), chunks=w.near(None, {})),
        lambda w: spbfast.cube(w.near(w.ds), baseline=w.near(True)),
        lambda w: spbfast.compare(w.near(w.ds), w.near(None), w.near("spb_tainted"), w.near("end", 1.0)),
        lambda w: spbfast.compare(w.ds, sel=w.any(), confidence=w.near(0.9)),
        lambda w: spbfast.fragmentation_scores(w.near(w.ds), w.near(9)),
        lambda w: spbfast.read_dump(w.any()),
        lambda w: spbfast.read_dumps(w.near([w.any()])),
        lambda w: list(spbfast.read_events(w.any())),
        lambda w: spbfast.diagnose(w.any(), w.any(), w.any(), w.any()),
    ]


CALLS: dict[str, list[Call]] = {"zone": zone_calls(), "making": making_calls(), "results": result_calls()}


def try_call(world: World, call: Call) -> str:
    """Make one call; what it raised, if that was an error for users."""
    begin = time.process_time()
    said = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(world)
        except SpbfastError as error:
            said = str(error)
            assert 0 < len(said) < 3000, f"a message of {len(said)} characters"
    assert time.process_time() - begin < SECONDS_MAX, "took too long"
    world.zone.check()
    return said


def run(seed: int, calls: int, groups: Sequence[str] = tuple(CALLS)) -> int:
    """So many random calls of these groups; how many of them were refused."""
    rng = random.Random(seed)
    known = [(group, i) for group in groups for i in range(len(CALLS[group]))]
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        world = World(Path(name), rng)
        refused = 0
        for number in range(calls):
            group, i = rng.choice(known)
            try:
                refused += bool(try_call(world, CALLS[group][i]))
            except Exception as error:
                raise AssertionError(
                    f"seed {seed}, call {number}: {group}[{i}] raised {error!r:.500}"
                ) from error
    return refused


def main() -> int:
    """Fuzz for some minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    seed, refused = options.seed, 0
    while time.monotonic() < end:
        refused += run(seed, 200)
        seed += 1
    calls = 200 * (seed - options.seed)
    print(f"{calls} calls, {refused} refused, seeds {options.seed}..{seed - 1}, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
