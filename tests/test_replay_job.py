"""Jobs that repeat a recording: swept like any other, equal to `replay`, identified by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import spbfast as sf
from spbfast.cli import app
from spbfast.config import load_config
from spbfast.errors import ArgumentError, ConfigError
from spbfast.model.engine import MODEL_VERSION, run_replicate, state_bytes
from spbfast.recordings.replaying import ReplayRequest, replay_file
from spbfast.sweep.points.plan import make_plan
from spbfast.sweep.store.inputs import load_stored

JOB = """
duration: 3s
replay: {trace: a.txt}
machine: {spb_size: 64MiB}
output: {every: 500ms}
executor: {kind: serial}
sweep:
  grid:
    policy: [mainline, v2]
    replay.trace: [a.txt, b.txt]
"""


def trace(seed: int, nr: int = 600) -> str:
    """Random allocations and frees, 5 ms apart."""
    rng = np.random.default_rng(seed)
    held: list[tuple[int, int]] = []
    lines = ["# tracer: nop"]
    page = 0x100000
    for i in range(nr):
        head = f" load-7  [{rng.integers(2):03d}] ..... {100 + i * 0.005:.6f}: "
        if held and rng.random() < 0.4:
            pfn, order = held.pop(int(rng.integers(len(held))))
            lines.append(f"{head}mm_page_free: page=0x1 pfn=0x{pfn:x} order={order}")
            continue
        order = int(rng.choice([0, 0, 0, 2, 9]))
        page = -(-page // (1 << order)) << order
        mt = int(rng.integers(3))
        lines.append(f"{head}mm_page_alloc: page=0x1 pfn=0x{page:x} order={order} migratetype={mt}")
        held.append((page, order))
        page += 1 << order
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(trace(1))
    (tmp_path / "b.txt").write_text(trace(2))
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


@pytest.mark.compiled
def test_policies_and_recordings_are_swept(folder: Path) -> None:
    run = CliRunner().invoke(
        app, ["sweep", str(folder / "job.yaml"), "-o", str(folder / "out"), "--no-report"]
    )
    assert run.exit_code == 0, run.output
    ds = sf.cube(sf.open_results(folder / "out"))
    assert ds.replay_trace.values.tolist() == ["a.txt", "b.txt"]
    assert ds.time.values.tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    for policy in ("mainline", "v2"):
        for name in ("a.txt", "b.txt"):
            one = ds.sel(policy=policy, replay_trace=name, replicate=0)
            alone = replay_file(ReplayRequest(folder / name, policy, spb_size=64 << 20))
            blocks = np.sum(list(alone.free_blocks.values()), axis=0)
            assert one.free_blocks.isel(time=-1).values.tolist() == blocks.tolist()
            assert int(one.replay_allocations) == alone.counts["allocations"] > 300
            assert int(one.replay_frees) == alone.counts["frees"]
            assert int(one.pcp_pages.isel(time=-1)) == alone.per_cpu_pages
            assert float(one.replay_missing_share) == 0
    assert (ds.spb_tainted.isel(time=0) == 0).all()
    assert float(ds.nr_free_pages.isel(time=0).min()) > float(ds.nr_free_pages.isel(time=-1).max())
    again = CliRunner().invoke(app, ["resume", str(folder / "out"), "--no-report"])
    assert again.exit_code == 0
    assert "0 new" in again.output or "finished" in again.output, again.output


@pytest.mark.compiled
def test_a_sample_is_the_machine_at_its_time(folder: Path) -> None:
    """Half of the recording, replayed whole, ends as the whole one is halfway; so does half the duration."""
    lines = (folder / "a.txt").read_text().splitlines(keepends=True)
    (folder / "half.txt").write_text("".join(lines[: 1 + 301]))
    half = replay_file(ReplayRequest(folder / "half.txt", "mainline", pages=1 << 18))
    job = load_config(folder / "job.yaml", ["policy=mainline", "replay.size=1GiB"], one_point=True)
    whole = run_replicate(job.scenario, 0, 0)
    short = run_replicate(job.scenario.model_copy(update={"duration": 1_500_000_000}), 0, 0)
    for found in (whole.data["free_blocks"][:, 3], short.data["free_blocks"][:, -1]):
        assert found.tolist() == np.sum(list(half.free_blocks.values()), axis=0).tolist()
    assert short.events == sum(half.counts[name] for name in ("allocations", "frees")) == 301
    assert run_replicate(job.scenario, 5, 1).digest == whole.digest
    assert state_bytes(job.scenario) == (1 << 18) * 32
    assert run_replicate(job.scenario, 0, 0, stop=lambda: True).stopped
    with pytest.raises(ArgumentError, match="no records, states or frames"):
        run_replicate(job.scenario, 0, 0, records=("mm_page_alloc",))


def ids(path: Path) -> list[int]:
    return sorted(make_plan(load_config(path), MODEL_VERSION).ids.tolist())


def test_points_are_identified_by_content(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = ids(folder / "job.yaml")
    assert len(set(before)) == 4
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "a.txt", other / "x.txt")
    shutil.copy(folder / "b.txt", other / "b.txt")
    (other / "job.yaml").write_text(JOB.replace("a.txt", "x.txt"))
    assert ids(other / "job.yaml") == before
    with open(other / "x.txt", "a") as file:
        file.write(" load-7 [000] ..... 110.0: mm_page_free: page=0x1 pfn=0x100000 order=0\n")
    assert len(set(ids(other / "job.yaml")) & set(before)) == 2


def test_a_stored_job_finds_its_recordings(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from spbfast.sweep.store.inputs import write_inputs

    stored = tmp_path_factory.mktemp("stored")
    write_inputs(stored, load_config(folder / "job.yaml"))
    found = make_plan(load_stored(stored), MODEL_VERSION).ids.tolist()
    assert sorted(found) == ids(folder / "job.yaml")
    (folder / "b.txt").unlink()
    with pytest.raises(ConfigError, match=r"sweep.grid.replay.trace: .*b.txt.* cannot be opened"):
        load_stored(stored)


HEAD = "duration: 1s\nreplay: {trace: a.txt}\n"
MISTAKES = {
    "duration: 1s\nreplay: {trace: none.txt}\n": r":2:17: error: replay.trace: .*none.txt.*No such file",
    "duration: 1s\nreplay: {trace: job.yaml}\n": r":2:17: error: replay.trace: .*holds no page events",
    "duration: 1s\nreplay: {trace: z.gz}\n": r":2:17: error: replay.trace: .*gzip-compressed; unpack it",
    "duration: 1s\nreplay: {level: zone}\n": r":2:1: error: replay.trace: the required key",
    "duration: 1s\nreplay: {trace: a.txt, level: both}\n": r":2:31: error: replay.level: must be one of",
    "duration: 1s\nreplay: {trace: a.txt, trce: 1}\n": r"did you mean 'trace'",
    HEAD + "slab: {memcgs: 3}\n": r":3:1: error: slab: has no effect on a replay",
    HEAD + "machine: {cpus: 2}\n": r":3:11: error: machine.cpus: .*only spb_size",
    HEAD + "pcp: {decay: 2s}\n": r":3:7: error: pcp.decay: .*only enabled, batch",
    HEAD + "sweep: {grid: {replay.trace: [a.txt, z]}}\n": r":3:38: error: sweep.grid.replay.trace: .*z",
    HEAD + "sweep: {branch_at: 500ms, grid: {policy: [v1@30, v2]}}\n": r":3:9: error: sweep.branch_at: a re",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_told_at_their_place(folder: Path, text: str) -> None:
    (folder / "z.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    (folder / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=MISTAKES[text]):
        load_config(folder / "job.yaml")


def test_a_recording_of_an_override_is_found_from_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder)
    (folder / "sub" / "job.yaml").write_text("duration: 1s\nreplay: {trace: none.txt}\n")
    job = load_config("sub/job.yaml", ["replay.trace=b.txt"])
    assert job.scenario.replay is not None
    assert job.scenario.replay.path == folder / "b.txt"
