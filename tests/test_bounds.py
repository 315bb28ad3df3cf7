"""Every number of the configuration has bounds, which errors name, and which the simulator bears."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from spbfast import cli
from spbfast.config import load_config, messages
from spbfast.config.actors import MOST_PER_SECOND
from spbfast.config.explained import explain
from spbfast.config.keybounds import bounds_of, bounds_text
from spbfast.config.machine import MAX_ZONE_BYTES
from spbfast.config.models import JobFile, ScenarioFields
from spbfast.config.schema import job_schema
from spbfast.config.units import MAX_DURATION, formatter_of
from spbfast.errors import ConfigError, Problem
from spbfast.model.engine import run_replicate
from spbfast.model.lowering.lower_machine import state_nbytes
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import MAX_ZONE_PAGES
from spbfast.model.state.demand_layout import MAX_PER_TICK

pytestmark = pytest.mark.shell

DRAWS = ["2147483648", "9223372036854775808", "18446744073709551616", "1e400", ".nan", ".inf", "-1", "true"]
# Keys whose type is a word or a quantity; what they may be at most is in its own words.
AUTO_TEXTS = {"machine.min_free", "executor.lifetime"}
BASE: dict[str, Any] = {
    "duration": "4ms",
    "machine": {
        "memory": "64MiB",
        "spb_size": "16MiB",
        "cpus": 2,
        "kernel_image": "1MiB",
        "min_free": "1MiB",
    },
    "slab": {"superblocks": 1, "memcgs": 1, "objects_max": 20000},
    "output": {"every": "1ms"},
    "executor": {"kind": "slurm", "memory": "4GiB"},
}
ACTORS: dict[str, dict[str, Any]] = {
    "kernel_statics": {"total": "1MiB"},
    "reclaimable_statics": {"total": "1MiB"},
    "daemons": {"memory": "4MiB"},
    "guests": {"memory": "4MiB", "count": 1, "start": "1ms", "buffers": "1MiB"},
    "page_cache": {"burst": {"on": "2ms", "off": "2ms"}},
    "slab_growth": {"burst": {"on": "2ms", "off": "2ms"}},
    "network": {"rate": 100},
    "churn": {"rate": 1000, "lifetimes": ["5ms"], "shares": [1.0]},
    "extent_buffers": {"at_boot": "1MiB", "total": "2MiB"},
    "gigantic_pages": {"count": 1, "start": "1ms"},
    "allocations": {"rate": 100, "lifetimes": ["5ms"], "shares": [1.0], "burst": {"on": "2ms", "off": "2ms"}},
    "kvmalloc": {"rate": 10, "lifetime": "10ms"},
}


def is_number(annotation: Any) -> bool:
    here = messages.strip(annotation)
    return here in (int, float) or any(is_number(inner) for inner in get_args(here))


def numbers_below(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key that holds a number, with its field; members of unions by their kind."""
    for name, info in model.model_fields.items():
        if is_number(info.annotation):
            yield (*path, name), info
        below = messages.models_in(info.annotation)
        for inner in below:
            tags = messages.tags_of(inner) if len(below) > 1 else []
            yield from numbers_below(inner, (*path, name, *tags[:1]))


NUMBERS = dict(numbers_below(JobFile, ()))


def names(path: tuple[str, ...]) -> str:
    return ".".join(path)


def file_with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A small job in which one key has a value."""
    job = json.loads(json.dumps(BASE))
    if path[0] == "actors":
        kind, rest = path[1], list(path[2:])
        actor: Any = {"kind": kind, **json.loads(json.dumps(ACTORS[kind]))}
        job["actors"] = [actor]
        place = actor
    elif path[:2] == ("slab", "caches"):
        cache: Any = {"name": "more", "role": "attached", "object_size": "128B"}
        dentry = {"name": "dentry", "role": "dentry", "object_size": "192B"}
        inode = {"name": "inode", "role": "inode", "object_size": "1KiB", "order": 3}
        job["slab"]["caches"] = [inode, dentry, cache]
        place, rest = cache, list(path[2:])
    elif path[:2] == ("sweep", "design"):
        design = {"kind": "lhs", "samples": 2, "ranges": {"policy.reserve_floor": {"min": 0, "max": 9}}}
        job["sweep"] = {"design": design}
        place, rest = design, list(path[2:])
    elif path[0] == "replicates":
        job["replicates"] = {"min": 2, "max": 4, "until": {"metric": "tainted_end", "half_width": 1.0}}
        place, rest = job, list(path)
    else:
        place, rest = job, list(path)
    for step in rest[:-1]:
        place = place.setdefault(step, {})
    place[rest[-1]] = value
    if path == ("executor", "adapt", "min"):
        job["executor"]["adapt"]["max"] = 100_000
    return job


def loaded(file: Path) -> tuple[Any, tuple[Problem, ...]]:
    """A job, or what is wrong with it."""
    try:
        return load_config(file), ()
    except ConfigError as error:
        return None, error.problems


def load(tmp_path: Path, content: dict[str, Any], *overrides: str) -> Any:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_config(file, overrides)


@pytest.mark.parametrize("path", NUMBERS, ids=names)
def test_every_number_has_a_least_and_a_greatest_value(path: tuple[str, ...]) -> None:
    if names(path) in AUTO_TEXTS:
        return
    info = NUMBERS[path]
    bounds = bounds_of(info)
    is_quantity = formatter_of(info.metadata, info.annotation) is not None
    assert bounds.high is not None
    assert bounds.low is not None or is_quantity  # quantities have no sign


@pytest.mark.parametrize("path", NUMBERS, ids=names)
def test_what_is_beyond_a_bound_is_refused_at_its_place(path: tuple[str, ...], tmp_path: Path) -> None:
    list_keys = {"lifetimes", "shares"}
    for draw in DRAWS:
        marker = "@@"
        value = [marker] if path[-1] in list_keys or path[-1].endswith("_weights") else marker
        text = json.dumps(file_with(path, value)).replace(f'"{marker}"', draw)
        file = tmp_path / "job.yaml"
        file.write_text(text)
        job, problems = loaded(file)
        if job is None:
            assert any(path[-1] in p.path and p.line == 1 and p.col > 1 for p in problems), draw
            continue
        bounds = bounds_of(NUMBERS[path])
        assert draw not in (".nan", ".inf", "1e400", "true")
        assert bounds.low <= float(draw) <= bounds.high  # type: ignore[operator]
        state_nbytes(job.scenario)


def ends(path: tuple[str, ...]) -> list[Any]:
    """The least and the greatest value of a key as a file writes them."""
    info = NUMBERS[path]
    write = formatter_of(info.metadata, info.annotation) or (lambda value: value)
    found = [write(bound) for bound in bounds_of(info) if bound is not None]
    several = path[-1] in ("lifetimes", "shares") or path[-1].endswith("_weights")
    return [[value] for value in found] if several else found


SCENARIO_NUMBERS = [p for p in NUMBERS if p[0] in ScenarioFields.model_fields and names(p) not in AUTO_TEXTS]


@pytest.mark.parametrize("path", SCENARIO_NUMBERS, ids=names)
def test_the_simulator_takes_what_the_bounds_allow(path: tuple[str, ...], tmp_path: Path) -> None:
    for value in ends(path):
        (tmp_path / "job.yaml").write_text(json.dumps(file_with(path, value)))
        job, problems = loaded(tmp_path / "job.yaml")
        if job is None:
            assert problems[0].line
            continue
        policy_array(job.scenario.policy)
        assert sum(state_nbytes(job.scenario).values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("path", SCENARIO_NUMBERS, ids=names)
def test_a_machine_at_its_bounds_runs(path: tuple[str, ...], tmp_path: Path) -> None:
    for value in ends(path):
        try:
            job = load(tmp_path, file_with(path, value))
        except ConfigError:
            continue
        small = sum(state_nbytes(job.scenario).values()) < 300 << 20
        if small and job.scenario.duration <= 10**8:
            run_replicate(job.scenario, 2**63 - 1, 0, check=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "policy.reserve_floor=100000000000000000000",
            "must be at most 2147483647, got 100000000000000000000",
        ),
        ("policy.slab_shrink_target_objs=9223372036854775808", "must be at most 2147483647"),
        ("machine.memory=100TiB", "must be at most 16TiB, got 100TiB"),
        ("machine.memory=8TiB", "one zone holds at most 960GiB, got 8TiB for 1 node; give less, or more"),
        ("machine.start_pfn=1", "must be a multiple of 1024, got 1"),
        ("machine.start_pfn=9223372036854774784", "must be at most 549755813888"),
        ("workers.migrate_page_cost=1000000h", "must be at most 1s, got 1000000h"),
        ("workers.migrate_page_cost=2s", "must be at most 1s, got 2s"),
        ("boot.chunk=1B", "must be at least 4KiB, got 1B"),
        ("reclaim.kswapd_page_cost=0s", "must be greater than 0s, got 0s"),
        ("duration=2000h", "must be at most 1000h, got 2000h"),
        ("duration=1000h", "write at least 3600ms"),
        ("machine.min_free=60MiB", "its high watermark keeps"),
    ],
)
def test_the_reason_is_in_units_and_says_what_would_be_right(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, BASE, override)
    problem = caught.value.problems[0]
    assert message in problem.message
    assert not any(word.isdigit() and len(word) > 12 for word in message.split("got")[0].split())


def test_an_interval_beyond_the_duration_is_remarked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(tmp_path, BASE).remarks == []
    (remark,) = load(tmp_path, BASE, "output.every=10s").remarks
    assert "output.every, 10s, is longer than the duration, 4ms" in remark
    with pytest.raises(SystemExit):
        cli.main(["validate", str(tmp_path / "job.yaml"), "--set", "output.every=10s"])
    assert remark in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sweep", "place"),
    [
        ({"grid": {"duration": ["4ms", "10ms"]}}, "sweep.grid.duration"),
        ({"zip": {"duration": ["4ms", "10ms"], "policy.reserve_floor": [1, 2]}}, "sweep.zip.duration"),
        ({"points": [{"duration": "4ms"}, {"duration": "10ms"}]}, "sweep.points.duration"),
        (
            {"baseline": {"duration": "4ms"}, "grid": {"policy.reserve_floor": [1, 2]}},
            "sweep.baseline.duration",
        ),
        (
            {"design": {"kind": "lhs", "samples": 2, "ranges": {"duration": {"min": "4ms", "max": "9ms"}}}},
            "sweep.design.ranges.duration.min",
        ),
    ],
)
def test_a_swept_duration_below_the_interval_is_an_error(sweep: Any, place: str, tmp_path: Path) -> None:
    job = {**BASE, "duration": "20ms", "sweep": sweep}
    assert load(tmp_path, job).nr_points >= 2  # beside the file's own duration, which swept ones replace
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {**job, "output": {"every": "5ms"}})
    (problem,) = caught.value.problems
    assert problem.path == place
    assert problem.line == 1
    assert "4ms is shorter than output.every, 5ms" in problem.message
    assert load(tmp_path, {**job, "output": {"every": "5ms"}}, "output.every=4ms").remarks == []


def test_swept_and_ranged_values_have_the_same_bounds(tmp_path: Path) -> None:
    sweep = {"grid": {"workers.migrate_page_cost": ["1us", "2h"]}}
    with pytest.raises(ConfigError, match="must be at most 1s, got 7200s"):
        load(tmp_path, {**BASE, "sweep": sweep})
    design = {
        "kind": "lhs",
        "samples": 4,
        "ranges": {"workers.migrate_page_cost": {"min": "1us", "max": "9s"}},
    }
    with pytest.raises(ConfigError, match="must be at most 1s, got 9s"):
        load(tmp_path, {**BASE, "sweep": {"design": design}})


def test_what_actors_ask_for_together_is_bounded(tmp_path: Path) -> None:
    guests = {"kind": "guests", "memory": "4TiB", "count": 1024}
    with pytest.raises(ConfigError, match="'guests' has 1.1e\\+12 of them"):
        load(tmp_path, {**BASE, "actors": [guests]})
    fast = {"kind": "page_cache", "rate": "1GB/s", "burst": {"on": "1ms", "off": "10s"}}
    with pytest.raises(ConfigError, match="actors.page_cache.rate: asks for 2.44e\\+09 units a second"):
        load(tmp_path, {**BASE, "actors": [fast]})
    slab = {"kind": "slab_growth", "rate": "200GB/s"}
    with pytest.raises(ConfigError, match="'slab_growth': rate asks for"):
        load(tmp_path, {**BASE, "actors": [slab]})


def test_bounds_are_those_of_the_kernels() -> None:
    assert MOST_PER_SECOND == MAX_PER_TICK * 1000
    assert MAX_ZONE_PAGES * 4096 == MAX_ZONE_BYTES


def test_schema_and_explanations_tell_bounds() -> None:
    assert "at most 1s" in explain("workers.migrate_page_cost")
    assert "0 to 2147483647" in explain("policy.reserve_floor")
    schema = job_schema()["$defs"]
    assert schema["Policy"]["properties"]["reserve_floor"]["maximum"] == 2**31 - 1
    assert "at most 1s" in schema["WorkersSpec"]["properties"]["migrate_page_cost"]["description"]
    assert bounds_text(JobFile.model_fields["duration"]) == "at most 1000h"
    assert bounds_of(JobFile.model_fields["duration"]).high == MAX_DURATION
