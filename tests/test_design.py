"""Designs and plans: which points there are, what identifies them, and what planning costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

import spbfast
from spbfast.config import load_config, messages
from spbfast.config.models import ScenarioFields
from spbfast.config.scalars import FREE, TOGETHER, Scalar, scalar_at
from spbfast.errors import ConfigError
from spbfast.sweep import run_sweep
from spbfast.sweep.points.combinations import validate_combinations
from spbfast.sweep.points.identity import Resolver, point_identity
from spbfast.sweep.points.plan import Plan, make_plan
from tests.sweep_tools import ENGINE

pytestmark = pytest.mark.shell

ACTORS = """\
duration: 10s
machine: {memory: 32GiB}
executor: {kind: serial}
replicates: 2
actors:
  - {kind: guests, memory: 1GiB, count: 3}
  - {kind: extent_buffers, at_boot: 512MB, total: 1GB}
"""


def job_of(directory: Path, sweep: str, *overrides: str) -> Any:
    path = directory / "d.yaml"
    (directory / "base.yaml").write_text(ACTORS, encoding="utf-8")
    path.write_text("extends: base.yaml\n" + sweep, encoding="utf-8")
    return load_config(path, overrides)


def plan_of(directory: Path, sweep: str, *overrides: str) -> Plan:
    return make_plan(job_of(directory, sweep, *overrides), 1)


def values(plan: Plan) -> list[tuple[Any, ...]]:
    return [tuple(p.values.values()) for p in plan.points]


RANGES = """\
    ranges:
      policy.slab_shrink_throttle: {min: 1ms, max: 1s, scale: log}
      policy.slab_shrink_target_objs: {min: 256, max: 65536}
      policy.evacuate: [true, false]
      actors.guests.count: {min: 1, max: 5}
"""
SWEEPS = {
    "grid": "sweep:\n  baseline: {policy.slab_shrink: false}\n  grid:\n"
    "    policy.slab_shrink_throttle: [1ms, 100ms]\n"
    "    policy.slab_shrink_triggers.below_high_water: [true, false]\n",
    "presets": "sweep:\n  baseline: {policy: mainline}\n  grid:\n    policy.preset: [v1@29, v1_30, v2]\n"
    "    policy.slab_shrink: [true, false]\n    policy.reserve_floor: [4, 8]\n",
    "coupled": "sweep:\n  grid:\n    machine.memory: [16GiB, 32GiB]\n    actors.guests.memory: [1GiB, 2GiB]\n"
    "    duration: [1s, 2s]\n",
    "lists": "sweep: {grid: {pagecache.folio_weights: [[0.5, 0.5], [1.0]], boot.chunk: [4MiB, 8MiB]}}\n",
    "triggers": "sweep:\n  baseline: {policy.slab_shrink_triggers: {would_taint: false}}\n"
    "  grid: {policy.slab_shrink_triggers.below_reserve: [true, false]}\n",
    "zip": "sweep:\n  zip: {policy.reserve_floor: [1, 2, 3], duration: [1s, 2s, 3s]}\n"
    "  grid: {policy.evacuate: [true, false]}\n",
    "points": "sweep:\n  points: [{policy.reserve_floor: 9}, {duration: 1s, policy: v2}, {}]\n",
    "lhs": f"sweep:\n  design:\n    kind: lhs\n    samples: 100\n{RANGES}",
    "sobol": f"sweep:\n  design:\n    kind: sobol\n    samples: 100\n{RANGES}",
    "random": f"sweep:\n  design:\n    kind: random\n    samples: 100\n{RANGES}",
    "saltelli": f"sweep:\n  baseline: {{policy.slab_shrink: false}}\n"
    f"  design:\n    kind: saltelli\n    samples: 16\n{RANGES}",
    "morris": f"sweep:\n  design:\n    kind: morris\n    samples: 8\n{RANGES}",
}


@pytest.mark.parametrize("kind", SWEEPS)
def test_identities_and_scenarios_are_those_of_the_point_resolved_in_full(tmp_path: Path, kind: str) -> None:
    job = job_of(tmp_path, SWEEPS[kind])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*are equal to another point")
        plan = make_plan(job, 1)
    assert plan.merged or len(plan.points) == job.nr_points
    for i in range(0, len(plan.points), max(1, len(plan.points) // 25)):
        point = plan.points[i]
        scenario = job.with_values(point.values)
        assert plan.scenario(i) == scenario
        assert point.point_id == point_identity(scenario.canonical(), 1)
        assert plan.index_of(point.point_id) == i
    assert len(np.unique(plan.ids)) == len(plan.ids)


def models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    annotation = messages.strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from models_of(info.annotation)
        return
    for inner in get_args(annotation):
        yield from models_of(inner)


def test_a_section_whose_keys_are_judged_alone_has_no_check_across_keys() -> None:
    def has_checks(model: type[BaseModel]) -> bool:
        found = model.__pydantic_decorators__
        return bool(found.model_validators or found.field_validators or found.root_validators)

    without = {
        name
        for name, info in ScenarioFields.model_fields.items()
        if not any(has_checks(model) for model in models_of(info.annotation))
    }
    assert without - TOGETHER == FREE


def other_values(value: Any, scalar: Scalar) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    numbers = (
        [value / 2] if isinstance(value, float) else [value + 1, 2 * value, max(1, value // 2), 1_000_000]
    )
    return [t for n in numbers if scalar.problem(t := scalar.text(n)) is None and n != value]


def test_a_scalar_of_such_a_section_changes_its_own_leaf_alone(tmp_path: Path) -> None:
    job = job_of(tmp_path, "")
    resolver = Resolver(job)
    base_id = point_identity(job.scenario.canonical(), 1)
    tried = 0
    for path, value in resolver.base.items():
        scalar = scalar_at(job.tree, path) if path.split(".")[0] in FREE else None
        for other in other_values(value, scalar)[:1] if scalar is not None else ():
            change = resolver.change({path: other})
            full = job.with_values({path: other}).canonical()
            assert list(change.leaves) == [path]
            assert (base_id + change.delta) % 2**64 == point_identity(full, 1), path
            tried += 1
    assert tried > 60


def test_a_second_way_to_write_a_value_is_the_same_point(tmp_path: Path) -> None:
    plans = [
        plan_of(tmp_path, f"sweep: {{points: [{{policy.slab_shrink_throttle: {text}}}]}}\n")
        for text in ("1s", "1000ms", "1 s")
    ]
    assert len({int(p.ids[0]) for p in plans}) == 1
    grid = plan_of(tmp_path, "sweep: {grid: {policy.slab_shrink_throttle: [1s, 2s]}}\n")
    assert grid.ids[0] == plans[0].ids[0]


def test_rows_come_with_every_combination_of_the_grid(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SWEEPS["zip"])
    assert values(plan) == [(i, f"{i}s", e) for i in (1, 2, 3) for e in (True, False)]
    coords = {p.path: p for p in plan.params}
    assert coords["duration"].values == (1.0, 1.0, 2.0, 2.0, 3.0, 3.0)
    assert coords["duration"].units == "s"


def test_points_may_leave_keys_as_they_are(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SWEEPS["points"])
    coords = {p.path: p.values for p in plan.params}
    assert coords["policy.reserve_floor"] == (9, 4, 4)
    assert coords["duration"] == (10.0, 1.0, 10.0)
    assert coords["policy"] == ("v1@30", "v2", "v1@30")


@pytest.mark.parametrize("kind", ["sobol", "random"])
def test_more_samples_keep_the_old_ones(tmp_path: Path, kind: str) -> None:
    few = plan_of(tmp_path, SWEEPS[kind])
    many = plan_of(tmp_path, SWEEPS[kind], "sweep.design.samples=150")
    assert many.ids[:100].tolist() == few.ids.tolist()
    other = plan_of(tmp_path, SWEEPS[kind], "sweep.design.seed=1")
    assert set(other.ids.tolist()).isdisjoint(few.ids.tolist())


def test_a_latin_hypercube_has_one_value_in_each_slice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, SWEEPS["lhs"])
    coords = {p.path: np.array(p.values) for p in plan.params}
    slices = np.floor(100 * np.log(coords["policy.slab_shrink_throttle"] / 1e-3) / np.log(1e3) + 1e-6)
    assert sorted(np.minimum(slices, 99)) == list(range(100))
    assert np.bincount(coords["policy.evacuate"].astype(int)).tolist() == [50, 50]
    assert plan_of(tmp_path, SWEEPS["lhs"]).ids.tolist() == plan.ids.tolist()


def test_steps_are_kept(tmp_path: Path) -> None:
    sweep = (
        "sweep:\n  design: {kind: random, samples: 50, ranges: {policy.slab_shrink_target_objs: "
        "{min: 100, max: 1000, step: 250}, duration: {min: 1s, max: 2s}}}\n"
    )
    plan = plan_of(tmp_path, sweep)
    coords = {p.path: np.array(p.values) for p in plan.params}
    assert set(coords["policy.slab_shrink_target_objs"].tolist()) <= {100, 350, 600, 850, 1000}
    milliseconds = coords["duration"] * 1000
    np.testing.assert_allclose(milliseconds, np.round(milliseconds), atol=1e-6)


def test_seeding(tmp_path: Path) -> None:
    common = plan_of(tmp_path, SWEEPS["grid"], "seed=5")
    apart = plan_of(tmp_path, SWEEPS["grid"], "seed=5", "sweep.seeding=independent")
    assert {common.task(c).seed for c in common.cells()} == {5}
    seeds = {c.point_id: apart.task(c).seed for c in apart.cells()}
    assert len(set(seeds.values())) == len(apart.points)
    assert set(apart.ids.tolist()).isdisjoint(common.ids.tolist())
    grown = plan_of(
        tmp_path, SWEEPS["grid"].replace("[1ms,", "[1ms, 7ms,"), "seed=5", "sweep.seeding=independent"
    )
    assert {c.point_id: grown.task(c).seed for c in grown.cells()}.items() >= seeds.items()


CSV = """\
# from the spring campaign
policy.slab_shrink_throttle, policy.slab_shrink, duration
10ms, true, 3s

50ms, false,
"""


def test_points_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "pts.csv").write_text(CSV)
    job = job_of(tmp_path, "sweep: {points_file: pts.csv, grid: {policy.evacuate: [true, false]}}\n")
    assert job.nr_points == 4
    assert job.points_file.content == CSV.encode()
    plan = make_plan(job, 1)
    assert values(plan) == [
        ("10ms", True, "3s", True),
        ("10ms", True, "3s", False),
        ("50ms", False, True),
        ("50ms", False, False),
    ]
    listed = (
        "sweep:\n  points: [{policy.slab_shrink_throttle: 10ms, policy.slab_shrink: true, duration: 3s}]\n"
    )
    assert plan_of(tmp_path, listed).ids[0] != plan.ids[1]
    assert make_plan(job_of(tmp_path, listed), 1).ids[0] == plan.ids[0]


def test_points_from_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"policy.reserve_floor": [3, 5], "policy.slab_shrink_throttle": ["1s", None]})
    parquet.write_table(table, tmp_path / "pts.parquet")
    plan = plan_of(tmp_path, "sweep: {points_file: pts.parquet}\n")
    assert values(plan) == [(3, "1s"), (5,)]
    (tmp_path / "pts.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not a readable Parquet file"):
        job_of(tmp_path, "sweep: {points_file: pts.parquet}\n")


@pytest.mark.parametrize(
    "name", ["../outside.csv", "/etc/passwd", "link.csv", "sub/../../outside.csv", "dir"]
)
def test_files_of_points_stay_inside(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    (home / "dir").mkdir(parents=True)
    (tmp_path / "outside.csv").write_text(CSV)
    (home / "link.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(ConfigError, match="stays inside home/|not a regular file"):
        job_of(home, f"sweep: {{points_file: {name}}}\n")


def test_extending_through_a_symbolic_link_stays_inside(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "base.yaml").write_text("duration: 1s\n")
    (home / "base.yaml").symlink_to(tmp_path / "base.yaml")
    (home / "a.yaml").write_text("extends: base.yaml\n")
    with pytest.raises(ConfigError, match="stays inside home/"):
        load_config(home / "a.yaml")


def test_values_that_do_not_go_together_have_a_place(tmp_path: Path) -> None:
    sweep = (
        "sweep:\n  grid:\n    actors.extent_buffers.at_boot: [1MB, 3GB]\n"
        "    actors.extent_buffers.total: [2GB, 4GB]\n"
    )
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, sweep)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (5, "sweep.grid.actors.extent_buffers.total")
    assert problem.message.startswith("'2GB' together with actors.extent_buffers.at_boot='3GB' gives")
    with pytest.raises(ConfigError, match="together with"):
        validate_combinations(job_of(tmp_path, sweep))
    together = sweep.replace("grid", "zip").replace("[1MB, 3GB]", "[1MB, 3GB]")
    assert len(plan_of(tmp_path, together).points) == 2
    wrong = together.replace("[2GB, 4GB]", "[2GB, 1GB]")
    with pytest.raises(ConfigError) as caught:
        plan_of(tmp_path, wrong)
    assert "d.yaml:4:" in str(caught.value)
    assert "actors.extent_buffers.at_boot='3GB', actors.extent_buffers.total='1GB' gives" in str(caught.value)


def test_drawn_values_that_do_not_go_together_have_the_place_of_their_range(tmp_path: Path) -> None:
    sweep = (
        "sweep:\n  design:\n    kind: random\n    samples: 20\n    ranges:\n"
        "      actors.extent_buffers.at_boot: {min: 1MB, max: 2GB}\n"
        "      actors.extent_buffers.total: {min: 1GB, max: 2GB}\n"
    )
    job = job_of(tmp_path, sweep)
    with pytest.raises(ConfigError) as caught:
        validate_combinations(job)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (8, "sweep.design.ranges.actors.extent_buffers.total")
    assert "of 20 combinations are invalid" in problem.message


def test_a_lone_key_of_many_rows_has_the_place_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "pts.csv").write_text("machine.memory\n32GiB\n16GiB\n4GiB\n")
    job = job_of(tmp_path, "sweep: {points_file: pts.csv}\n", "actors.extent_buffers.at_boot=1GB")
    assert len(make_plan(job, 1).points) == 3
    job = job_of(
        tmp_path,
        "sweep: {points_file: pts.csv}\n",
        "actors.extent_buffers.at_boot=20GB",
        "actors.extent_buffers.total=20GB",
    )
    with pytest.raises(ConfigError) as caught:
        make_plan(job, 1)
    assert [p.line for p in caught.value.problems] == [3, 4]
    assert all("machine.memory=" in p.message for p in caught.value.problems)


def test_one_old_value_is_byte_equal_in_a_grown_design(tmp_path: Path) -> None:
    before: dict[int, bytes] = {}
    for n, new in ((16, 16), (48, 32)):
        sweep = (
            f"sweep:\n  design:\n    kind: sobol\n    samples: {n}\n    ranges:\n"
            "      policy.slab_shrink_throttle: {min: 1ms, max: 1s, scale: log}\n"
            "      policy.slab_shrink_target_objs: {min: 700, max: 60000}\n"
        )
        job = job_of(tmp_path, sweep)
        assert run_sweep(job, tmp_path / "out", engine=ENGINE, quiet=True).n_new == 2 * new
        ds = spbfast.open_results(tmp_path / "out")
        now = {int(i, 16): ds.spb_tainted.values[k].tobytes() for k, i in enumerate(ds.point_id.values)}
        assert {i: now[i] for i in before} == before
        before = now
    assert len(before) == 48


def test_memory_is_judged_by_points_that_differ_in_the_machine(tmp_path: Path) -> None:
    assert len(plan_of(tmp_path, SWEEPS["grid"]).sizing_scenarios()) == 1
    sizes = {s.machine.memory for s in plan_of(tmp_path, SWEEPS["coupled"]).sizing_scenarios()}
    assert sizes == {16 << 30, 32 << 30}
    sweep = (
        "sweep: {design: {kind: random, samples: 600, ranges: {machine.memory: {min: 20GiB, max: 60GiB}}}}\n"
    )
    plan = plan_of(tmp_path, sweep)
    sizes = {s.machine.memory for s in plan.sizing_scenarios()}
    assert max(sizes) == max(int(v) for v in plan.params[0].values)
    assert len(sizes) < 300


@pytest.mark.parametrize("kind", ["grid", "lhs"])
def test_a_hundred_thousand_points_are_planned_in_seconds(tmp_path: Path, kind: str) -> None:
    numbers = ", ".join(str(256 + i) for i in range(500))
    times = ", ".join(f"{i + 1}ms" for i in range(200))
    ranges = RANGES.replace("      actors.guests.count: {min: 1, max: 5}\n", "")
    sweep = {
        "grid": f"sweep:\n  grid:\n    policy.slab_shrink_target_objs: [{numbers}]\n"
        f"    policy.slab_shrink_throttle: [{times}]\n",
        "lhs": f"sweep:\n  design:\n    kind: lhs\n    samples: 100000\n{ranges}",
    }[kind]
    job = job_of(tmp_path, sweep)
    begin = time.process_time()  # a machine that is busy with something else must not fail this
    plan = make_plan(job, 1)
    first = [plan.task(cell) for cell in plan.cells()[:100]]
    seconds = time.process_time() - begin
    assert len(plan.points) == 100_000
    assert len(first) == 100
    # About 2 s and 4 s on an idle core.
    assert seconds < 10
