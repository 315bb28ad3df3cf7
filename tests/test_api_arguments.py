"""The Python interface with wrong types and sizes: what would be right is said; copies and threads."""

from __future__ import annotations

import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spbfast
from spbfast import Mt, Zone
from spbfast.config import load_config
from spbfast.errors import ArgumentError, ConfigError, QuestionError, SetupError, SpbfastError, ZoneError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model import engine
from spbfast.model.engine import run_replicate
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import PcpConf
from spbfast.sweep.run.driver import run_sweep
from tests.fuzz_api import Unprintable

pytestmark = pytest.mark.shell

SCENARIO = {
    "duration": "2ms",
    "machine": {
        "memory": "64MiB",
        "spb_size": "16MiB",
        "cpus": 1,
        "kernel_image": "1MiB",
        "min_free": "1MiB",
    },
    "slab": {"superblocks": 1, "memcgs": 1, "objects_max": 4096},
    "output": {"every": "1ms"},
}


def small(policy: Any = "v1@30", **more: Any) -> Zone:
    return Zone("64MiB", policy, spb_size="16MiB", **more)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import json

    file = tmp_path_factory.mktemp("job") / "job.yaml"
    file.write_text(json.dumps(SCENARIO))
    return load_config(file)


@pytest.mark.parametrize("policy", [None, 5, b"v1@30", [1], object(), {1: 2}, {"preset": 5}, Unprintable()])
def test_what_is_no_policy(policy: Any) -> None:
    with pytest.raises(ConfigError, match="policy"):
        small(policy)


def test_a_job_is_no_policy(job: Any) -> None:
    with pytest.raises(ConfigError, match="policy must be a preset's name"):
        small(job)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slab_shrink_throttle": 100}, "policy.slab_shrink_throttle: 100 has no unit; write e.g. 100ms"),
        ({"evacuate_throttle": np.int64(5)}, "policy.evacuate_throttle: 5 has no unit"),
        ({"reserve_floor": 2**31}, "policy.reserve_floor: must be at most 2147483647, got 2147483648"),
        ({"reserve_floor": 1.5}, "policy.reserve_floor: must be a whole number"),
        ({"evacuate": "yes"}, "policy.evacuate: must be true or false"),
        ({"slab_shrink_throttle": "2000h"}, "policy.slab_shrink_throttle: must be at most 1000h"),
    ],
)
def test_what_a_switch_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small({"preset": "v1", **change})


def test_arrays_that_are_no_policy() -> None:
    right = policy_array("v1@30")
    assert np.array_equal(policy_array(right), right)
    with pytest.raises(ConfigError, match="holds integers, got float64"):
        small(right.astype(float))
    wrong = right.copy()
    wrong[:] = 2**40
    with pytest.raises(ConfigError, match="in a policy array, got"):
        small(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1 << 43}, "size must be at most 960GiB"),
        ({"size": "8TiB"}, "size must be at most 960GiB"),
        ({"size": 10**400}, "a whole number of 1329 bits"),
        ({"size": None}, "size must be an integer, got nothing"),
        ({"size": np.array([1])}, r"size must be an integer, got an array of shape \(1,\)"),
        ({"spb_size": "2TiB"}, "at most 1TiB"),
        ({"start_pfn": 1}, "start_pfn must be a multiple of 1024, got 1"),
        ({"start_pfn": 10**20}, "start_pfn must be"),
        ({"start_pfn": 2**63 - 1024}, "start_pfn must be at most 0x8000000000"),
        ({"start_pfn": -1024}, "start_pfn must be a multiple of 1024, got -1024"),
        ({"cpus": 2**63}, "cpus must be 1..8192"),
        ({"cpus": True}, "cpus must be an integer, got True"),
        ({"pcp": {1: 2, "a": 3}}, "pcp has no"),
        ({"pcp": PcpConf("a", 1, 1)}, "pcp.batch must be an integer, got 'a'"),  # type: ignore[arg-type]
        ({"pcp": {"batch": 2**40, "high": 8}}, "pcp.batch must be at most 16777216 pages"),
    ],
)
def test_what_no_zone_is(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ZoneError, match=message):
        Zone(**{"size": "64MiB", "spb_size": "16MiB", **arguments})


@pytest.mark.parametrize(
    "call",
    [
        lambda z: z.alloc_many(10**13),
        lambda z: z.alloc_many(10**400),
        lambda z: z.alloc_many(2.0),
        lambda z: z.alloc(np.array([1])),
        lambda z: z.alloc(10**400),
        lambda z: z.alloc(0, 10**400),
        lambda z: z.alloc(0, 0, 10**5000),
        lambda z: z.alloc(Unprintable()),
        lambda z: z.free(2**64),
        lambda z: z.free(-(2**63)),
        lambda z: z.free("0x100000"),
        lambda z: z.free_many([[1], [2, 3]]),
        lambda z: z.free_many(None),
        lambda z: z.free_many([True]),
        lambda z: z.compact(0, 10**30),
        lambda z: z.compact(0, -1),
        lambda z: z.defrag(0.0),
        lambda z: z.drain("all"),
        lambda z: z.free_list(0, 0, 1.0),
        lambda z: z.free_list(0, 0, True),
    ],
)
def test_calls_that_make_no_sense_change_nothing(call: Any) -> None:
    zone = small()
    zone.alloc_many(10)
    before = zone.nr_free_pages()
    with pytest.raises(SpbfastError) as caught:
        call(zone)
    assert len(str(caught.value)) < 300
    assert zone.nr_free_pages() == before
    zone.check()


def test_more_requests_than_pages_are_answered() -> None:
    zone = small()
    pfns = zone.alloc_many(20_000)
    assert (pfns >= 0).sum() == 64 * 256
    zone.check()


@pytest.mark.parametrize("text", [5, None, b"UM..", ["UM.."], "", "U" * 3])
def test_what_is_no_picture(text: Any) -> None:
    with pytest.raises(ZoneError):
        Zone.from_picture(text)


# -- copies and threads -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda z: pickle.loads(pickle.dumps(z))])
@pytest.mark.parametrize("policy", ["mainline", "v1@30", {"preset": "v2", "pcp_owned_pageblocks": True}])
def test_a_copy_goes_its_own_way(make: Any, policy: Any) -> None:
    zone = small(policy, pcp={"batch": 4, "high": 16}, cpus=2)
    held = zone.alloc_many(3000, 0, Mt.UNMOVABLE)
    zone.free_many(held[::2])
    other = make(zone)
    assert other.picture() == zone.picture()
    assert np.array_equal(other.nr_free_blocks(), zone.nr_free_blocks())
    assert other.last == zone.last
    other.alloc_many(5000)
    other.free_many(held[1::2])
    other.check()
    zone.check()
    # What follows is what would have followed without the copy.
    again = small(policy, pcp={"batch": 4, "high": 16}, cpus=2)
    again.free_many(again.alloc_many(3000, 0, Mt.UNMOVABLE)[::2])
    assert np.array_equal(zone.alloc_many(500, 2), again.alloc_many(500, 2))
    zone.free_many(held[1::2])
    assert zone.nr_free_pages() + 4 * 500 == zone.nr_pages - len(zone_cpu_pages(zone))
    zone.check()


def zone_cpu_pages(zone: Zone) -> range:
    """As many numbers as there are pages on per-CPU lists."""
    before = zone.nr_free_pages()
    twin = copy.copy(zone)
    twin.drain()
    return range(twin.nr_free_pages() - before)


def test_the_original_of_a_copy_is_unharmed() -> None:
    zone = Zone("1GiB")
    zone.alloc_many(3)
    copy.copy(zone).alloc_many(100)
    zone.alloc_many(3)
    zone.check()


def test_threads_share_a_zone() -> None:
    zone = Zone("256MiB", spb_size="64MiB")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                pfns = zone.alloc_many(300 if INTERPRETED else 3000)
                zone.free_many(pfns[pfns >= 0])
                repr(zone)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert zone.nr_free_pages() == zone.nr_pages
    zone.check()


# -- runs and sweeps --------------------------------------------------------------------------------


def test_simulate_says_what_it_takes(job: Any) -> None:
    for wrong, message in (
        ((job,), "give job.scenario"),
        ((None,), "got nothing"),
        ((job.scenario, 0), "replicates must be 1 to 100000, got 0"),
        ((job.scenario, 1.0), "replicates must be a whole number, got 1.0"),
        ((job.scenario, True), "replicates must be a whole number, got true"),
        ((job.scenario, 1, 1.5), "seed must be a whole number, got 1.5"),
        ((job.scenario, 1, 2**64), "seed must be 0 to 9223372036854775807"),
        ((job.scenario, 1, -1), "seed must be 0 to"),
    ):
        with pytest.raises(ArgumentError, match=message):
            spbfast.simulate(*wrong)
    with pytest.raises(ArgumentError, match="snapshots must be True or False"):
        spbfast.simulate(job.scenario, snapshots=2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="seed must be"):
        run_replicate(job.scenario, 2**64, 0)


def test_a_machine_larger_than_all_memory_is_refused(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.os, "sysconf", lambda name: 1 << 8)
    with pytest.raises(SetupError, match="a run needs .* of memory, this computer has 64 KiB; give less"):
        spbfast.simulate(job.scenario)


def test_load_config_says_what_it_takes(job: Any) -> None:
    with pytest.raises(ConfigError, match=r"set must be a list of texts, e.g. \['duration=1s'\]"):
        load_config(job.path, "duration=1s")
    with pytest.raises(ConfigError, match="set must hold texts"):
        load_config(job.path, [5])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="grid must be a list of texts"):
        load_config(job.path, grid=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be the path of a file"):
        load_config(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one_point must be True or False"):
        load_config(job.path, one_point=np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="stand_ins must be a dict of keys and paths"):
        load_config(job.path, stand_ins=5)  # type: ignore[arg-type]


def test_presets_say_what_they_take() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'v1@3x'"):
        spbfast.presets.difference("v1@3x", "v1")
    with pytest.raises(ConfigError, match="a preset is named by a text"):
        spbfast.presets.difference("v1", np.zeros(2))  # type: ignore[arg-type]


def test_sweep_says_what_it_takes(job: Any, tmp_path: Any) -> None:
    with pytest.raises(ArgumentError, match="needs a job from load_config"):
        spbfast.sweep(5)
    for option in (
        {"quiet": 1},
        {"time_limit_s": float("nan")},
        {"time_limit_s": float("inf")},
        {"time_limit_s": 10**400},
        {"shard_of": 5},
        {"nothing": 1},
        {"engine": 5},
    ):
        with pytest.raises(ArgumentError):
            spbfast.sweep(job, tmp_path / "out", **{"quiet": True, **option})
    assert not (tmp_path / "out").exists()


def test_results_say_what_they_take(tmp_path: Any) -> None:
    job = load_config(Path(__file__).parent.parent / "configs" / "tiny.yaml")
    out = run_sweep(job, tmp_path / "out", engine="tests.fake_engine", quiet=True).directory
    ds = spbfast.open_results(out)
    several = np.array([True, False])
    with pytest.raises(QuestionError, match="a metric is the name of a variable or counter"):
        spbfast.compare(ds, metric=several)  # type: ignore[arg-type]
    with pytest.raises(QuestionError, match="baseline must be True or False"):
        spbfast.cube(ds, baseline=several)  # type: ignore[arg-type]
    with pytest.raises(ZoneError, match="page frame numbers are a flat list of integers"):
        small().free_many(ds)


def test_readers_say_what_they_take(tmp_path: Any) -> None:
    for call in (
        lambda: spbfast.read_dump(5),  # type: ignore[arg-type]
        lambda: spbfast.read_dumps("file"),
        lambda: spbfast.read_dumps(5),  # type: ignore[arg-type]
        lambda: list(spbfast.read_events(None)),  # type: ignore[arg-type]
        lambda: spbfast.cube(5),  # type: ignore[arg-type]
        lambda: spbfast.fragmentation_scores(5),  # type: ignore[arg-type]
        lambda: spbfast.explain(5),  # type: ignore[arg-type]
    ):
        with pytest.raises(SpbfastError):
            call()
