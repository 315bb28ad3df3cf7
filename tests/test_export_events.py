"""A run's page events as traces: written, read and replayed they give what the run ended with.

What a recording lacks is seen in its own contradictions: lines are left out at random, and counted back.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from spbfast.cli import app
from spbfast.config import load_config
from spbfast.errors import DumpError, QuestionError, ResultsError
from spbfast.model.engine import run_replicate
from spbfast.model.state.build import PcpConf
from spbfast.observed.llfree import LlfreeRecord, llfree_batches, read_llfree, write_llfree
from spbfast.observed.zone_comment import commented_zone
from spbfast.recordings.replaying import Replayed, ReplayRequest, missing_share, replay_file
from spbfast.results.tracefiles import export_events, page_events

pytestmark = pytest.mark.compiled

JOB = """
name: out
duration: 1s
seed: 3
policy: mainline
machine: {memory: 128MiB, cpus: 2, spb_size: 16MiB, kernel_image: 2MB, min_free: 1MiB}
boot: {fill_page_cache: false}
actors:
  - {kind: kernel_statics, total: 3MB}
  - {kind: network, rate: 200, lifetime: 5ms, tasks: 2}
  - {kind: churn, rate: 4000, lifetimes: [2ms, 50ms], shares: [0.7, 0.3], tasks: 3}
  - {kind: page_cache, rate: 20MB/s}
output: {records: page_events, records_boot: true}
"""
NO_CACHE = JOB.replace("  - {kind: page_cache, rate: 20MB/s}\n", "")
LIMITS = PcpConf(7, 256, 256)


def command(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def recorded(folder: Path, *changes: str, job: str = JOB) -> Path:
    """The file of a run with its page events."""
    (folder / "job.yaml").write_text(job)
    path = folder / "run.nc"
    command("run", folder / "job.yaml", "-o", path, "-q", *(w for c in changes for w in ("--set", c)))
    return path


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def direct_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without per-CPU lists: every request is the lists'."""
    return recorded(tmp_path_factory.mktemp("direct"), "pcp.enabled=false")


def ended_like(found: Replayed, path: Path, more: int = 0) -> None:
    """The replay ends with the run's free blocks, and `more` free ones of order 10."""
    with xr.open_dataset(path) as ds:
        last = ds.isel(replicate=0, time=-1)
        found.free_blocks["movable"][10] -= more
        assert np.sum(list(found.free_blocks.values()), axis=0).tolist() == last.free_blocks.values.tolist()
        of_type = [sum(n << o for o, n in enumerate(row)) for row in found.free_blocks.values()]
        assert of_type == last.free_pages.values[:3].tolist()
        assert found.per_cpu_pages in (0, int(last.pcp_pages))
    assert found.counts["not served"] == found.missing["missed"] == 0
    assert found.counts["pages handed out while held"] == found.counts["pages freed that were not held"] == 0


def test_what_the_lists_did_comes_back_from_text(run_file: Path, tmp_path: Path) -> None:
    text = Path(command("export", run_file, "--ftrace", "-o", tmp_path / "run.txt").split()[-1])
    found = replay_file(ReplayRequest(text, level="zone"))
    ended_like(found, run_file)
    events = page_events(run_file)
    assert found.counts["allocations"] == int((events.kind == 1).sum()) > 1000
    assert found.rows.strange == found.rows.elsewhere == found.rows.lost == 0


def test_what_callers_asked_comes_back_without_per_cpu_lists(direct_file: Path) -> None:
    text, events = export_events(direct_file, "ftrace", None)
    assert text == direct_file.with_name("run.trace.txt")
    found = replay_file(ReplayRequest(text))
    ended_like(found, direct_file)
    assert found.counts["allocations"] == int((events.kind == 3).sum()) > 5000


def test_what_callers_asked_comes_back_from_llfree(tmp_path: Path) -> None:
    """A trace of LLFree does not say what its zone is: 1 GiB without holes, and limits that stand still.

    No page cache, because what it drops goes past the per-CPU lists.
    """
    machine = ("memory=1GiB", "kernel_image=0MiB", "spb_size=1GiB")
    limits = ("pcp.batch=7", "pcp.high_min=256", "pcp.high_max=256")
    path = recorded(tmp_path, *(f"machine.{word}" for word in machine), *limits, job=NO_CACHE)
    trace, events = export_events(path, "llfree", None)
    found = replay_file(ReplayRequest(trace, pcp=LIMITS))
    hole = events.shape["first_pfn"] - events.shape["start_pfn"]
    ended_like(found, path, hole // 1024)
    assert found.counts["allocations"] == int((events.kind == 3).sum()) > 5000


def without(text: Path, share: float, seed: int) -> Path:
    """The same trace with a share of its lines left out."""
    lines = text.read_text().splitlines(keepends=True)
    keep = np.random.default_rng(seed).random(len(lines)) >= share
    keep[:2] = True
    out = text.with_name(f"lossy-{seed}.txt")
    out.write_text("".join(line for line, kept in zip(lines, keep, strict=True) if kept))
    return out


@pytest.mark.parametrize("level", ["request", "zone"])
def test_lines_that_are_missing_are_counted_within_the_error(
    direct_file: Path, tmp_path: Path, level: str
) -> None:
    text, _ = export_events(direct_file, "ftrace", tmp_path / "run.txt")
    within = []
    for seed in range(6):
        found = replay_file(ReplayRequest(without(text, 0.01, seed), level=level)).missing
        within.append(abs(found["share"] - 0.01) / found["share_error"])
    # In standard errors the mean square is 1, and that of six has itself an error of 0.6.
    assert np.mean(np.square(within)) < 2.8, within
    assert max(within) < 4


def test_the_share_of_missing_events_is_the_one_that_explains_the_pairs() -> None:
    rng = np.random.default_rng(1)
    kind = np.arange(400_000) & 1
    kept = kind[rng.random(len(kind)) >= 0.2]
    found = missing_share(len(kept) - 1, int((kept[1:] == kept[:-1]).sum()))
    assert abs(found["share"] - 0.2) < 4 * found["share_error"] < 0.01
    assert "share" not in missing_share(10, 6)
    assert "share" not in missing_share(0, 0)
    assert missing_share(1000, 0)["share_error"] > 0


def test_a_full_buffer_ends_the_trace_where_it_becomes_incomplete(tmp_path: Path) -> None:
    path = recorded(tmp_path, "output.records_max=3000")
    text, events = export_events(path, "ftrace", None)
    assert 3000 <= len(events) < 15_000
    assert text.read_text().splitlines()[-1] == f"CPU:0 [LOST {events.dropped} EVENTS]"
    assert (events.kind == 3).sum() <= 3000
    output = command("replay", text)
    assert f"{events.dropped}" in output.replace(",", "")


def test_recording_boot_changes_nothing() -> None:
    scenario = load_config("tiny").scenario.model_copy(update={"duration": 200_000_000})
    plain = run_replicate(scenario, 1, 0)
    found = run_replicate(scenario, 1, 0, records=("mm_page_alloc", "mm_page_free"), records_boot=True)
    later = run_replicate(scenario, 1, 0, records=("mm_page_alloc", "mm_page_free"))
    assert plain.digest == found.digest == later.digest
    assert len(found.records["mm_page_alloc"].columns["seq"]) > len(
        later.records["mm_page_alloc"].columns["seq"]
    )


def test_every_page_is_handed_out_and_given_back_in_turn(tmp_path: Path) -> None:
    """All mechanisms together: moves, slab, page cache and evacuation leave no event out."""
    runner = CliRunner().invoke(
        app,
        ["run", "tiny", "-o", str(tmp_path / "tiny.nc"), "-q", "--set", "duration=300ms", "--records"]
        + ["page_events", "--set", "output.records_boot=true", "--set", "replicates=1"],
    )
    assert runner.exit_code == 0, runner.output
    text, events = export_events(tmp_path / "tiny.nc", "ftrace", None)
    assert events.dropped == 0
    held = np.zeros(1 << 15, bool)
    first = events.shape["start_pfn"]
    for kind, pfn, order in zip(events.kind, events.pfn - first, events.order, strict=True):
        if kind in (3, 4):
            page = slice(pfn, pfn + (1 << order))
            assert held[page].all() if kind == 4 else not held[page].any()
            held[page] = kind == 3
    found = replay_file(ReplayRequest(text, policy="v1@30"))
    assert found.missing["missed"] == found.counts["pages freed that were not held"] == 0


def test_mistakes_are_told(run_file: Path, tmp_path: Path) -> None:
    with pytest.raises(QuestionError, match="has no zone DMA; its zones are Normal"):
        page_events(run_file, "DMA")
    with pytest.raises(QuestionError, match="1 replicates, numbered from 0; got 1"):
        page_events(run_file, replicate=1)
    (tmp_path / "job.yaml").write_text(JOB)
    command("run", tmp_path / "job.yaml", "-o", tmp_path / "x.nc", "-q", "--records", "mm_page_alloc")
    with pytest.raises(ResultsError, match="no records of mm_page_free; record them with"):
        page_events(tmp_path / "x.nc")
    bad = tmp_path / "bad.txt"
    bad.write_text("# spbfast zone Normal: start_pfn=0 pages=64 first_pfn=70\n")
    with pytest.raises(DumpError, match="must have start_pfn, pages, first_pfn"):
        commented_zone(bad)
    high = recorded(tmp_path, "machine.start_pfn=16777216")
    with pytest.raises(ResultsError, match="the first 64 GiB: give a smaller machine, or write --ftrace"):
        export_events(high, "llfree", None)


def test_records_of_llfree_come_in_the_order_of_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    times = np.sort(rng.integers(0, 4000, 40_000))
    cpus = rng.choice([0, 1, 5], 40_000, p=[0.9, 0.09, 0.01])
    records = [
        LlfreeRecord(int(cpu), int(time), i + 1, bool(i & 1), i % 11, i % 7, 0)
        for i, (cpu, time) in enumerate(zip(cpus, times, strict=True))
    ]
    path = tmp_path / "x.llfree"
    write_llfree(path, records)
    found = np.concatenate(list(llfree_batches(path)))
    expected = sorted(read_llfree(path), key=lambda r: (r.time_us, r.cpu))
    assert len(found) == 40_000
    for name in ("cpu", "time_us", "pfn", "is_alloc", "order", "flags"):
        assert found[name].tolist() == [int(getattr(r, name)) for r in expected]
