"""Loading: units, presets, merging, overrides, points of a sweep, canonical form, schema."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from spbfast.config import Policy, load_config, presets
from spbfast.config.explained import explain
from spbfast.config.schema import job_schema, key_docs, schema_text
from spbfast.config.units import format_duration, format_size, parse_duration, parse_rate, parse_size
from spbfast.constants import P
from spbfast.errors import ConfigError, SimulationError, strerror
from spbfast.model.lowering.lower_policy import parameters

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write(tmp_path / "plain.yaml", "duration: 10s\npolicy: v1@30\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("247GiB", 265214230528), ("247 GB", 247 * 10**9), ("4096B", 4096), ("1.5KiB", 1536), ("2TiB", 2**41)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected
    assert parse_size(format_size(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100ms", 10**8), ("2s", 2 * 10**9), ("8 min", 480 * 10**9), ("0s", 0), ("1.5us", 1500), ("7ns", 7)],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected
    assert parse_duration(format_duration(expected)) == expected


def test_rates_need_a_time() -> None:
    assert parse_rate("300MB/s") == 300 * 10**6
    with pytest.raises(ValueError, match="byte rate"):
        parse_rate("300MB")


@pytest.mark.parametrize("value", [5, 0, 0.5, True, None, "5", "-5ms", "5 parsecs", "0.1ns", "1e3ms", [], ""])
def test_wrong_durations(value: object) -> None:
    with pytest.raises(ValueError, match="unit|duration|whole"):
        parse_duration(value)


def test_huge_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_size("99999999TiB")


@pytest.mark.parametrize("name", presets.preset_names())
def test_presets_are_complete(name: str, plain: Path) -> None:
    policy = load_config(plain, [f"policy={name}"]).scenario.policy
    assert set(parameters(policy)) == {p.name for p in P}
    assert all(type(v) is int for v in parameters(policy).values())
    assert policy.preset == presets.canonical_name(name)


def test_preset_names_are_forgiving() -> None:
    assert presets.canonical_name("v1_30") == "v1@30"
    assert presets.canonical_name("v1") == "v1@45"
    with pytest.raises(ValueError, match="last step before that patch is 'v1@32'"):
        presets.canonical_name("v1@40")


def test_presets_state_the_steps_of_the_series() -> None:
    at = {n: presets.preset_values(n) for n in ("mainline", "v1@29", "v1@30", "v1@31", "v1@32", "v2")}
    assert not at["mainline"]["superpageblocks"]
    assert (at["v1@29"]["slab_shrink"], at["v1@30"]["slab_shrink"]) == (False, True)
    assert at["v1@31"]["slab_shrink_throttle"] == "100ms"
    assert at["v1@32"]["slab_shrink_throttle"] == at["v2"]["slab_shrink_throttle"] == "0s"
    assert not at["v1@31"]["slab_shrink_triggers"]["below_high_water"]
    assert at["v1@32"]["slab_shrink_triggers"]["below_high_water"]


def test_reading_a_preset_gives_a_copy() -> None:
    presets.preset_values("v2")["slab_shrink_triggers"]["below_reserve"] = False
    assert presets.preset_values("v2")["slab_shrink_triggers"]["below_reserve"] is True


def test_overrides_of_a_preset_keep_the_rest(plain: Path) -> None:
    job = load_config(
        plain, ["policy.slab_shrink_triggers.would_taint=false", "seed=3", "output.every=100ms"]
    )
    triggers = job.scenario.policy.slab_shrink_triggers
    assert (triggers.would_taint, triggers.below_reserve) == (False, True)
    assert (job.seed, job.scenario.output_every) == (3, 10**8)
    assert job.overrides[1] == "seed=3"


def test_parameters_have_the_names_of_the_specification(plain: Path) -> None:
    policy = load_config(plain, ["policy.slab_shrink=false"]).scenario.policy
    assert parameters(policy)["shrink_requests"] == 0
    policy = load_config(plain, ["policy.slab_shrink_triggers.below_high_water=true"]).scenario.policy
    assert parameters(policy)["shrink_high_water"] == 1
    assert parameters(policy)["slab_shrink_throttle_ns"] == 100_000_000


@pytest.mark.parametrize("name", ["shrink_requests", "shrink_high_water"])
def test_names_of_the_specification_are_no_keys(plain: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"policy.{name}: unknown key"):
        load_config(plain, [f"policy.{name}=true"])


def test_slab_shrink_off_silences_the_high_water_trigger(plain: Path) -> None:
    policy = load_config(plain, ["policy=v1@32", "policy.slab_shrink=false"]).scenario.policy
    assert policy.slab_shrink_triggers.below_high_water
    assert parameters(policy)["shrink_high_water"] == 0


def test_extends_merges_and_the_later_file_wins(tmp_path: Path) -> None:
    write(
        tmp_path / "base" / "b.yaml",
        "duration: 10s\nseed: 4\npolicy: {preset: v1@30, reserve_floor: 8, slab_shrink: false}\n",
    )
    merged = load_config(
        write(tmp_path / "a.yaml", "extends: base/b.yaml\nseed: 5\npolicy: {reserve_floor: 2}\n")
    )
    assert (merged.seed, merged.scenario.duration) == (5, 10**10)
    assert merged.scenario.policy.reserve_floor == 2
    assert not merged.scenario.policy.slab_shrink
    assert merged.base_text.startswith("duration: 10s")
    replaced = load_config(write(tmp_path / "c.yaml", "extends: base/b.yaml\npolicy: v1@30\n"))
    assert replaced.scenario.policy.slab_shrink


ACTORS = """\
duration: 10s
machine: {memory: 32GiB}
actors:
  - {kind: guests, memory: 1GiB, count: 3}
  - {kind: churn, name: small, rate: 1000}
  - {kind: churn, name: big}
"""


def test_actors_are_changed_and_swept_by_name(tmp_path: Path) -> None:
    write(tmp_path / "base" / "vm.yaml", ACTORS)
    job = load_config(
        write(
            tmp_path / "a.yaml",
            "extends: base/vm.yaml\nactors: {guests: {restart: false}, big: {rate: 5}}\n"
            "sweep: {grid: {actors.guests.memory: [1GiB, 2GiB], actors.small.movable: [0.1]}}\n",
        )
    )
    guests, small, big = job.scenario.actors
    assert (guests.restart, guests.count, small.rate, big.rate) == (False, 3, 1000, 5)
    point = job.with_values({"actors.guests.memory": "2GiB", "actors.2.rate": 7})
    assert (point.actors[0].memory, point.actors[2].rate) == (2 << 30, 7)
    assert point.canonical()["actors"][0]["kind"] == "guests"


def test_extends_may_climb_to_the_configs_folder(tmp_path: Path) -> None:
    write(tmp_path / "configs" / "base" / "b.yaml", "duration: 10s\n")
    below = write(tmp_path / "configs" / "studies" / "deep" / "s.yaml", "extends: ../../base/b.yaml\n")
    assert load_config(below).scenario.duration == 10**10


def test_sweep_points(tmp_path: Path) -> None:
    path = write(
        tmp_path / "s.yaml",
        "duration: 10s\nsweep:\n  baseline: {policy: mainline}\n"
        "  grid: {policy.slab_shrink_throttle: [10ms, 0s], policy.reserve_floor: [1, 4]}\n",
    )
    job = load_config(path)
    assert job.sweep is not None
    assert job.nr_points == 5
    assert job.sweep.grid["policy.slab_shrink_throttle"] == ["10ms", "0s"]
    point = job.with_values({"policy.slab_shrink_throttle": "10ms", "policy.reserve_floor": 4})
    assert (point.policy.slab_shrink_throttle, point.policy.reserve_floor) == (10**7, 4)
    assert not job.with_values(job.sweep.baseline or {}).policy.superpageblocks
    assert job.with_values({}) == job.scenario
    assert load_config(path, one_point=True).sweep is None


def test_shorter_paths_are_applied_first(plain: Path) -> None:
    scenario = load_config(plain).with_values({"policy.slab_shrink": True, "policy": "v1@29"})
    assert scenario.policy.slab_shrink
    assert not scenario.policy.borrow_nonmovable


def test_grid_on_the_command_line(plain: Path) -> None:
    job = load_config(plain, grid=["policy.slab_shrink_throttle=10ms,50ms"])
    assert job.sweep is not None
    assert job.sweep.grid == {"policy.slab_shrink_throttle": ["10ms", "50ms"]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.slab_shrink", "must be KEY=VALUE"),
        ("policy.slab_shrnk=true", "did you mean 'slab_shrink'"),
        ("policy.slab_shrink_throttle=100", "write e.g. 100ms or 100s"),
        ("policy=v9", "unknown preset 'v9'"),
        ("seed.x=1", "seed: must be a whole number, got a mapping"),
        ("output.every=1s: 2", "got a mapping"),
    ],
)
def test_wrong_overrides_name_themselves(override: str, message: str, plain: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(plain, [override])
    assert f"--set {override}: error: " in str(caught.value)
    assert message in str(caught.value)


def test_wrong_points_are_config_errors(plain: Path) -> None:
    job = load_config(plain)
    with pytest.raises(ConfigError, match=r"policy\.nope: unknown key"):
        job.with_values({"policy.nope": 1})
    with pytest.raises(ConfigError, match="sweep.grid.policy.evacuate: must be true or false"):
        load_config(plain, grid=["policy.evacuate=1,true"])


def test_swept_and_overridden_is_a_conflict_only_for_a_sweep(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", "duration: 10s\nsweep: {grid: {policy.slab_shrink: [true, false]}}\n")
    with pytest.raises(ConfigError, match="also fixed by --set policy.slab_shrink=true"):
        load_config(path, ["policy.slab_shrink=true"])
    assert (
        load_config(path, ["policy.slab_shrink=false"], one_point=True).scenario.policy.slab_shrink is False
    )


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / "quickstart.yaml", "duration: 1s\n")
    with pytest.raises(ConfigError, match="no such file; did you mean 'quickstart.yaml'"):
        load_config(tmp_path / "quickstrat.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="the byte 0xe9 is not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_canonical_form_is_plain_complete_and_without_names(plain: Path) -> None:
    canonical = load_config(plain).scenario.canonical()
    assert json.loads(json.dumps(canonical)) == canonical
    assert canonical["duration"] == 10**10
    assert "preset" not in canonical["policy"]
    same = load_config(plain, ["policy=v1_30", "seed=9", "executor.workers=3", "name=other"])
    assert same.scenario.canonical() == canonical
    assert load_config(plain, ["policy.reserve_floor=5"]).scenario.canonical() != canonical


def test_jobs_are_frozen_and_travel(plain: Path) -> None:
    job = load_config(plain)
    with pytest.raises(Exception, match=r"frozen|cannot assign"):
        job.scenario.duration = 3  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(job)).with_values({"policy": "v2"}).policy.preset == "v2"
    assert job.name == "plain"


def test_errors_travel_between_processes(plain: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(plain, ["foo=1"])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    error = pickle.loads(pickle.dumps(SimulationError(5, strerror(5), step=7, seed=3)))
    assert (error.code, error.step, error.seed) == (5, 7, 3)
    assert "unknown" in strerror(999)


def test_schema_is_committed_as_it_is() -> None:
    path = ROOT / "configs" / "spbfast.schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(), (
        "run: spbfast schema > configs/spbfast.schema.json"
    )


def test_schema_allows_what_the_loader_allows() -> None:
    policy = job_schema()["properties"]["policy"]["anyOf"]
    assert "v1_30" in policy[0]["enum"]
    assert set(job_schema()["$defs"]["Policy"]["properties"]) == set(Policy.model_fields)
    assert job_schema()["$schema"].startswith("http://json-schema.org/draft-07")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_committed_configurations_load(path: Path) -> None:
    job = load_config(path)
    assert job.scenario.canonical()
    assert "$schema=./spbfast.schema.json" in path.read_text(encoding="utf-8").splitlines()[0]


def test_every_key_is_explained() -> None:
    assert [d.path for d in key_docs() if not d.text and d.kind != "section"] == []
    assert "memory per guest" in explain("actors.guests.memory")
    assert "preferred order" in explain("slab.caches.dentry.order")
    assert "actors.guests.restart" in explain("guests")
    text = explain("slab_shrink_throttle")
    assert "a duration" in text
    assert "100ms" in text
    assert "v1@32" in text
    with pytest.raises(ConfigError, match="did you mean 'policy.slab_shrink'"):
        explain("policy.slab_shrik")
