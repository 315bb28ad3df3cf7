"""Saved states: continued to the same bits, refused by name where they do not belong, never half a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from spbfast import statefile
from spbfast.cli import app
from spbfast.config import load_config
from spbfast.config.models import Scenario, StartSpec
from spbfast.errors import ConfigError, ResultsError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model import engine, saved
from spbfast.model.engine import run_replicate
from spbfast.sweep.points.identity import point_identity
from spbfast.sweep.points.plan import make_plan
from spbfast.sweep.store.inputs import load_stored, write_inputs
from tests.demand_tools import scenario
from tests.passes import cases

CONFIGS = Path(__file__).parent.parent / "configs"
DOCS = Path(__file__).parent.parent / "docs"
SPAN = "60ms" if INTERPRETED else "1500ms"
AT = 37 if INTERPRETED else 733
# What continues does not ask the policy.
PRESETS = cases("mainline", "v1@15", "v1@30", "v2", "v1@45")
TWO_NODES = {"machine__nodes": 2, "machine__dma32": "32MiB"}
SMALL = {"duration": "20ms", "actors": [{"kind": "daemons", "memory": "8MiB"}]}


def scenario_of(values: dict[str, Any]) -> Scenario:
    """The small machine with other values."""
    return scenario(**{"policy": "v1@30", **SMALL, **values})


def started(given: Scenario, path: Path, **values: object) -> Scenario:
    """A scenario that continues a file."""
    return given.model_copy(update={"start": StartSpec(state=str(path)), **values})


def save(given: Scenario, path: Path, at: int = AT, **values: object) -> engine.ReplicateResult:
    """Run a scenario to its end and save its state on the way."""
    return run_replicate(given, 1, 0, save=(at, lambda state: state.write(path)), **values)


def facts(run: engine.ReplicateResult) -> tuple[object, ...]:
    return run.digest, run.demand_digest, run.events


@pytest.mark.compiled
@pytest.mark.parametrize("machine", cases({}, TWO_NODES), ids=cases("one-node", "two-nodes"))
@pytest.mark.parametrize("preset", PRESETS)
def test_a_continued_run_is_the_uninterrupted_one(preset: str, machine: Any, tmp_path: Path) -> None:
    given = scenario(policy=preset, duration=SPAN, output__every="10ms", **machine)
    whole = run_replicate(given, 1, 0)
    assert facts(save(given, tmp_path / "a")) == facts(whole)
    again = run_replicate(started(given, tmp_path / "a"), 1, 0, check=True)
    assert facts(again) == facts(whole)
    for name, values in whole.data.items():
        np.testing.assert_array_equal(values, again.data[name], name)


CORRECTED = {
    "reclaim__kswapd_wake": "high",
    "reclaim__barred_free": "subtracted",
    "reclaim__shrink_slab": "mglru",
    "workers__split_folios": True,
    "workers__pinned_share": 0.0,
    "slab__dentries_per_directory": 10,
    "actors__daemons__pinned": {"share": 0.2},
}


@pytest.mark.shell
def test_a_corrected_machine_is_continued_to_the_same_bits(tmp_path: Path) -> None:
    given = scenario(policy="v1@45", duration=SPAN, output__every="10ms", **CORRECTED)
    whole = run_replicate(given, 1, 0)
    assert facts(save(given, tmp_path / "a")) == facts(whole)
    assert facts(run_replicate(started(given, tmp_path / "a"), 1, 0, check=True)) == facts(whole)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path, engine.ReplicateResult]:
    """A small machine, its state at 10 ms, and its whole run."""
    path = tmp_path_factory.mktemp("state") / "small.state"
    given = scenario_of({})
    return given, path, save(given, path, 10)


@pytest.mark.shell
def test_a_state_is_saved_at_the_first_and_at_the_last_tick(small, tmp_path):
    given, _, whole = small
    for at in (0, 20):
        save(given, tmp_path / f"{at}", at)
        assert facts(run_replicate(started(given, tmp_path / f"{at}"), 1, 0)) == facts(whole)


@pytest.mark.shell
def test_a_continued_run_can_be_saved_again_and_go_on_longer(small, tmp_path):
    given, path, _ = small
    longer = given.model_copy(update={"duration": 40_000_000})
    save(started(longer, path), tmp_path / "later", 30)
    again = run_replicate(started(longer, tmp_path / "later"), 1, 0)
    assert facts(again) == facts(run_replicate(longer, 1, 0))


@pytest.mark.shell
def test_the_same_state_has_the_same_digest(small, tmp_path):
    given, path, _ = small
    save(given, tmp_path / "b", 10)
    head = statefile.read_state_head(path)
    assert statefile.read_state_head(tmp_path / "b").digest == head.digest
    save(given, tmp_path / "c", 11)
    assert statefile.read_state_head(tmp_path / "c").digest != head.digest


@pytest.mark.shell
def test_snapshots_come_along_and_are_asked_for(small, tmp_path):
    given, path, whole = small
    save(given, tmp_path / "spb", 10, snapshots=True)
    again = run_replicate(started(given, tmp_path / "spb"), 1, 0, snapshots=True)
    full = run_replicate(given, 1, 0, snapshots=True)
    np.testing.assert_array_equal(again.data["spb_free_pages"], full.data["spb_free_pages"])
    assert facts(run_replicate(started(given, tmp_path / "spb"), 1, 0)) == facts(whole)
    with pytest.raises(ResultsError, match=r"output\.level"):
        run_replicate(started(given, path), 1, 0, snapshots=True)


def test_a_stopped_run_saves_nothing(small):
    given, _, _ = small
    run = run_replicate(given, 1, 0, save=(10, pytest.fail), stop=lambda: True)
    assert run.stopped


# -- other policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", cases("v2", "v1@45", "v1@15"))
def test_another_policy_takes_over_at_the_moment_of_the_state(preset, small):
    """Equal to a run whose policy is exchanged in memory at that tick."""
    given, path, _ = small
    other = scenario_of({"policy": preset})
    run = engine.lower_scenario(given, 1, 0)
    engine.boot(run, given, 1)
    samples = engine.room_for_samples(run, given)
    engine.simulate_ticks(run, samples, 10, 1)
    run.policy[:] = engine.lower_scenario(other, 1, 0).policy
    engine.simulate_ticks(run, samples, 20, 1)
    engine.finish(run, samples)
    data, _ = engine.collect_samples(run, samples, other)
    again = run_replicate(started(other, path), 1, 0, check=True)
    assert again.digest == engine.digest_of(data)


@pytest.mark.parametrize("switch", saved.SHAPING_SWITCHES)
def test_a_switch_that_shapes_the_state_is_refused_by_name(switch, small):
    given, path, _ = small
    value = not getattr(given.policy, switch)
    policy = given.policy.model_copy(update={switch: value})
    with pytest.raises(
        ResultsError, match=f"policy.{switch} is {int(not value)} in the file and {int(value)}"
    ):
        run_replicate(started(given, path, policy=policy), 1, 0)


def test_the_page_lists_the_switches_that_are_refused():
    page = (DOCS / "states.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `policy.")]
    assert rows == [f"| `policy.{name}` | {why} |" for name, why in saved.SHAPING_SWITCHES.items()]


# -- what does not belong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"machine__cpus": 2}, "machine.cpus is 4 in the file and 2 in the job"),
        ({"machine__memory": "256MiB"}, "machine.memory is 134217728 in the file and 268435456"),
        ({"actors": [{"kind": "daemons", "memory": "9MiB"}]}, "actors.0.memory"),
        ({"output__every": "10ms"}, "output_every"),
        ({"boot__fill_page_cache": False}, "boot.fill_page_cache"),
        ({"duration": "9ms"}, "duration is 9ms"),
    ],
)
def test_another_machine_is_refused_by_name(values, named, small):
    _, path, _ = small
    given = scenario_of(values)
    with pytest.raises(ResultsError) as error:
        run_replicate(started(given, path), 1, 0)
    assert named in str(error.value)
    assert str(path) in str(error.value)


def test_another_seed_replicate_or_version_is_refused_by_name(small, monkeypatch):
    given, path, _ = small
    with pytest.raises(ResultsError, match="seed is 1 in the file and 2 in the job"):
        run_replicate(started(given, path), 2, 0)
    with pytest.raises(ResultsError, match="replicate is 0 in the file and 1 in the job"):
        run_replicate(started(given, path), 1, 1)
    monkeypatch.setattr(engine, "MODEL_VERSION", engine.MODEL_VERSION + 1)
    with pytest.raises(ResultsError, match="model version"):
        run_replicate(started(given, path), 1, 0)


def test_a_file_cut_short_anywhere_is_refused(small, tmp_path):
    given, path, _ = small
    whole = path.read_bytes()
    cuts = {0, 1, 10, 16, 20, 40, 55, 56, 57, len(whole) - 1, *range(0, len(whole), len(whole) // 40)}
    for cut in sorted(cuts):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(ResultsError, match="cut short|not a state file") as error:
            run_replicate(started(given, tmp_path / "cut"), 1, 0)
        assert "--save-state" in str(error.value)


def test_a_damaged_file_is_refused(small, tmp_path):
    given, path, _ = small
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in [*range(0, statefile.PROLOG.size, 5), *rng.integers(0, len(whole), 40).tolist()]:
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ResultsError):
            run_replicate(started(given, tmp_path / "damaged"), 1, 0)
    (tmp_path / "damaged").write_bytes(whole + b"x")
    with pytest.raises(ResultsError, match="too long"):
        statefile.read_state_head(tmp_path / "damaged")


def test_foreign_files_are_refused(small, tmp_path):
    given, _, _ = small
    (tmp_path / "text").write_text("hello, this is a text that is longer than a prolog, and no state at all")
    for path in (tmp_path / "text", tmp_path, tmp_path / "absent", CONFIGS / "tiny.yaml"):
        with pytest.raises(ResultsError, match="--save-state"):
            run_replicate(started(given, path), 1, 0)


def test_another_format_is_refused(small, tmp_path):
    _, path, _ = small
    whole = bytearray(path.read_bytes())
    whole[16] = 99
    (tmp_path / "new").write_bytes(whole)
    with pytest.raises(
        ResultsError, match=f"format 99, this version of spbfast reads format {statefile.FORMAT}"
    ):
        statefile.read_state_head(tmp_path / "new")


@pytest.mark.shell
def test_a_state_that_contradicts_itself_is_refused(small, tmp_path):
    given, _, _ = small

    def spoil(state: saved.SavedState) -> None:
        state.run.world.zone.spb.nr_free_pages[3] += 1
        state.write(tmp_path / "bad")
        state.run.world.zone.spb.nr_free_pages[3] -= 1

    run_replicate(given, 1, 0, save=(10, spoil))
    with pytest.raises(ResultsError, match="not consistent"):
        run_replicate(started(given, tmp_path / "bad"), 1, 0)


# -- arrays and files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_arrays_come_back(dtype, tmp_path):
    rng = np.random.default_rng(3)
    shape = (statefile.PART + 77, 2)
    links = rng.integers(-100, 100, shape).astype(dtype)
    arrays = {
        "strided": links[:, 0],
        "zeros": np.zeros(statefile.PART * 2 + 5, dtype),
        "empty": np.zeros((0, 4), dtype),
        "table": rng.integers(0, 5, (3, 4, 5)).astype(dtype),
    }
    statefile.write_state_file(tmp_path / "a", {"x": 1}, arrays)
    head = statefile.read_state_head(tmp_path / "a")
    into = {name: np.full(array.shape, 9, dtype) for name, array in arrays.items()}
    statefile.read_state_arrays(tmp_path / "a", head, into)
    assert head.about == {"x": 1}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, into[name])


def test_arrays_of_another_shape_are_refused(tmp_path):
    statefile.write_state_file(tmp_path / "a", {}, {"x": np.zeros(3)})
    head = statefile.read_state_head(tmp_path / "a")
    for into in ({"x": np.zeros(4)}, {"x": np.zeros(3, np.int8)}, {}, {"x": np.zeros(3), "y": np.zeros(3)}):
        with pytest.raises(ResultsError, match="save the state again"):
            statefile.read_state_arrays(tmp_path / "a", head, into)


# -- jobs ----------------------------------------------------------------------------------------------


def job_text(more: str) -> str:
    return f"extends: tiny.yaml\nreplicates: 1\nduration: 20ms\n{more}\n"


@pytest.fixture
def job_dir(small, tmp_path):
    """A directory with the tiny job and a state; only its place matters."""
    (tmp_path / "tiny.yaml").write_text((CONFIGS / "tiny.yaml").read_text(encoding="utf-8"))
    (tmp_path / "a.state").write_bytes(small[1].read_bytes())
    return tmp_path


def test_identities_without_a_start_do_not_know_of_it():
    job = load_config(CONFIGS / "tiny.yaml")
    assert "start" not in job.scenario.canonical()


def test_the_identity_follows_the_content_of_the_state(job_dir):
    (job_dir / "job.yaml").write_text(job_text("start: {state: a.state}"))
    job = load_config(job_dir / "job.yaml", one_point=True)
    digest = statefile.read_state_head(job_dir / "a.state").digest
    assert job.scenario.start == StartSpec(state=str(job_dir / "a.state"), digest=digest)
    assert job.scenario.canonical()["start"] == {"state": digest}
    (job_dir / "b.state").write_bytes((job_dir / "a.state").read_bytes())
    moved = load_config(job_dir / "job.yaml", [f"start.state={job_dir}/b.state"], one_point=True)
    plain = load_config(job_dir / "tiny.yaml", ["duration=20ms"], one_point=True)
    one, other, none = (point_identity(j.scenario.canonical(), 3) for j in (job, moved, plain))
    assert one == other != none


@pytest.mark.shell
def test_points_of_a_sweep_start_from_the_state_and_are_continued_from_their_directory(job_dir):
    (job_dir / "job.yaml").write_text(
        job_text("start: {state: a.state}\nsweep: {baseline: {}, grid: {policy: [v1@45, v2]}}")
    )
    job = load_config(job_dir / "job.yaml")
    plan = make_plan(job, 3)
    assert {plan.scenario(i).start.state for i in range(len(plan.points))} == {str(job_dir / "a.state")}
    (job_dir / "results").mkdir()
    write_inputs(job_dir / "results", job)
    assert (make_plan(load_stored(job_dir / "results"), 3).ids == plan.ids).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("start: {state: absent.state}", "start.state"),
        ("start: {state: tiny.yaml}", "not a state file"),
        ("start: {state: a.state, digest: '00'}", "start.digest"),
        ("start: {state: a.state}\nreplicates: 2", "replicates must be 1"),
        ("start: {state: a.state}\nsweep: {seeding: independent, grid: {policy: [v2]}}", "seeding"),
        ("sweep: {grid: {start.state: [a.state]}}", "cannot be swept"),
        ("start: {}", "start.state"),
        ("start: a.state", "start"),
    ],
)
def test_a_wrong_start_is_told_with_its_place(more, message, job_dir):
    text = job_text(more)
    if "replicates: 2" in more:
        text = text.replace("replicates: 1\n", "")
    (job_dir / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(job_dir / "job.yaml")
    assert "job.yaml:" in str(error.value)


# -- the command ---------------------------------------------------------------------------------------


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.shell
def test_the_command_saves_and_continues(job_dir):
    (job_dir / "one.yaml").write_text(job_text("policy: v1@30\nactors: {churn: {rate: 10}}"))
    one, state = job_dir / "one.yaml", job_dir / "new.state"
    done = call("run", one, "--save-state", state, "--at", "12ms", "-o", job_dir / "whole.nc")
    assert done.exit_code == 0, done.output
    assert "state saved" in done.stderr
    assert statefile.read_state_head(state).digest in done.stderr
    assert statefile.read_state_head(state).about["tick"] == 12
    done = call("run", one, "--set", f"start.state={state}", "-o", job_dir / "rest.nc")
    assert done.exit_code == 0, done.output
    whole, rest = (xr.load_dataset(job_dir / name) for name in ("whole.nc", "rest.nc"))
    assert set(whole.data_vars) == set(rest.data_vars)
    for name in set(whole.data_vars) - {"wall_time", "boot_time"}:
        np.testing.assert_array_equal(whole[name].values, rest[name].values, str(name))
    before = call("run", one, "--set", f"start.state={state}", "--save-state", job_dir / "x", "--at", "11ms")
    assert before.exit_code == 2
    assert "before start.state" in before.stderr
    assert not (job_dir / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--save-state", "x", "--at", "21ms"], "after the end of the run, duration 20ms"),
        (["--save-state", "x", "--at", "1500us"], "whole number of milliseconds"),
        (["--save-state", "x", "--at", "5"], "--at"),
        (["--save-state", "x", "--at", "-5ms"], "--at"),
        (["--at", "5ms"], "needs --save-state"),
        (["--save-state", "."], "is a directory"),
        (["--save-state", "absent/x"], "does not exist"),
        (["--save-state", "x", "--set", "replicates=2"], "one replicate"),
    ],
)
def test_wrong_options_are_told_before_the_run(words, message, job_dir, monkeypatch):
    monkeypatch.chdir(job_dir)
    (job_dir / "one.yaml").write_text(job_text(""))
    monkeypatch.setattr(engine, "run_replicate", lambda *_, **__: pytest.fail("it ran"))
    done = call("run", "one.yaml", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (job_dir / "x").exists()
