"""`spbfast watch`: what it shows of a sweep under way, that it ends with the sweep and touches nothing."""

from __future__ import annotations

import io
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spbfast.cli.watching import _telling_apart, frame_lines, watch_command
from spbfast.errors import QuestionError
from spbfast.results.analysis import outcomes
from spbfast.results.open import open_results
from spbfast.results.unfinished import Unfinished
from spbfast.sweep import run_sweep
from spbfast.sweep.store.view import DirectoryState, look
from spbfast.text import BLOCKS, printable, sparkline
from tests.page_tools import spbfast
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

SWEEP = """\
sweep:
  baseline: {policy.slab_shrink: false}
  grid: {policy.slab_shrink_target_objs: [512, 4096, 666]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of four points, of which one always fails; a shard for each run."""
    folder = tmp_path_factory.mktemp("watch")
    job = make_job(folder, "executor.batch=1", sweep=SWEEP)
    return Path(run_sweep(job, folder / "out", engine=ENGINE, quiet=True).directory)


def traces(directory: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_one_frame_says_where_every_point_stands_and_touches_nothing(finished: Path) -> None:
    before = traces(finished)
    code, output = spbfast(["watch", str(finished)])
    assert code == 0
    head, what, header, *points = output.splitlines()[:7]
    assert head == "demo: finished, 12 of 12 runs done (100 %), 3 failed"
    assert "spb_tainted (lower is better): mean of the runs done, from 0 to 12 s" in what
    assert header.split() == ["point", "done", "failed", "course", "end", "least..most"]
    assert sum(BLOCKS[0] in line for line in points) == 3
    assert next(line for line in points if " 666 " in line).split()[-2:] == ["3/3", "3"]
    assert output.count("no page left for <kernel> & co") == 3
    assert f"spbfast rerun {finished} " in output
    assert traces(finished) == before


@pytest.mark.parametrize("metric", ["spb_tainted", "spb_slab_shrink_ran"])
def test_the_last_values_are_those_of_the_results(finished: Path, metric: str) -> None:
    unfinished = Unfinished(finished, metric)
    assert unfinished.read() == 12
    with pytest.warns(UserWarning, match="3 runs failed"):
        expected = outcomes(open_results(finished), metric)
    for point, row in zip(unfinished.points, expected, strict=True):
        assert [point.ends.get(k, np.nan) for k in range(3)] == pytest.approx(row.tolist(), nan_ok=True)
        assert point.failed == set(np.flatnonzero(np.isnan(row)).tolist())


def test_only_new_shards_are_read(finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    shards = sorted(out.glob("shards/??/*.nc"))
    for path in shards[:5]:
        path.rename(tmp_path / path.name)
    shards[6].write_bytes(shards[6].read_bytes()[:1000])
    unfinished = Unfinished(out, "spb_tainted")
    assert [unfinished.read(), unfinished.read()] == [6, 0]
    done = {point.label: len(point.ends) + len(point.failed) for point in unfinished.points}
    for path in shards[:5]:
        (tmp_path / path.name).rename(path)
    assert unfinished.read() == 5
    now = {point.label: len(point.ends) + len(point.failed) for point in unfinished.points}
    assert (sum(done.values()), sum(now.values())) == (6, 11)
    assert {point.changed for point in unfinished.points if now[point.label] > done[point.label]} <= set(
        range(7, 12)
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("spb_tanted", "did you mean 'spb_tainted'"),
        ("vmstat", "has values by counter"),
        ("free_pages", "has values by migratetype"),
    ],
)
def test_metrics_without_a_course(finished: Path, metric: str, said: str) -> None:
    code, output = spbfast(["watch", str(finished), "--metric", metric])
    assert code == QuestionError.exit_code
    assert said in output


@pytest.mark.parametrize("given", ["5x", "0", "-1s", "2h", "nan"])
def test_intervals_have_bounds(finished: Path, given: str) -> None:
    code, output = spbfast(["watch", str(finished), "--interval", given])
    assert code == 2
    assert "0.2s to 3600s" in output


@pytest.mark.parametrize(("width", "height"), [(40, 8), (79, 10), (100, 12), (200, 60)])
def test_a_frame_fits_the_terminal(finished: Path, width: int, height: int) -> None:
    found, unfinished = look(finished), Unfinished(finished, "spb_tainted")
    unfinished.read()
    lines = frame_lines(found, unfinished, 0, width, height)
    assert len(lines) <= height
    table = [text for text, _ in lines if "/3 " in text]
    assert table
    assert all(len(text) <= max(width, 60) for text in table)
    assert any(BLOCKS[0] in text for text in table) == (width >= 80)


def test_labels_that_do_not_fit_leave_out_what_most_share(finished: Path) -> None:
    found, unfinished = look(finished), Unfinished(finished, "spb_tainted")
    unfinished.read()
    given = [
        ("baseline: policy mainline", "0"),
        ("policy v2", "0"),
        ("policy v2", "0.01"),
        ("policy v1", "0"),
    ]
    for point, (policy, share) in zip(unfinished.points, given, strict=True):
        point.label = f"{policy}, share of pages that are pinned one by one {share}"
    wide = "\n".join(line for line, _ in frame_lines(found, unfinished, 0, 200, 20))
    assert wide.count("share of pages that are pinned one by one 0") == 4
    lines = [line for line, _ in frame_lines(found, unfinished, 0, 100, 20)]
    table = [" ".join(line.split("  ")[1:2]) for line in lines if "/3 " in line]
    assert table[:2] == ["baseline: policy mainline", "policy v2"]
    assert len(set(table)) == 4
    assert [line.startswith("policy v2") for line in table] == [False, True, True, False]


def test_labels_stay_whole_where_leaving_out_makes_two_alike() -> None:
    assert _telling_apart(["a 1, b 1", "a 1", "a 1, c 2"]) == ["b 1", "a 1", "c 2"]
    alike = ["a 1, b 1", "a 1, c 1", "a 1, b 1, c 1"]
    assert _telling_apart(alike) == alike


def test_terminals_without_blocks_and_names_with_escapes(finished: Path) -> None:
    found, unfinished = look(finished), Unfinished(finished, "spb_tainted")
    unfinished.read()
    unfinished.points[0].label = "a\x1b[2Jb\nc"
    text = "\n".join(line for line, _ in frame_lines(found, unfinished, 1, None, None, "latin-1"))
    text.encode("latin-1")
    assert r"a\x1b[2Jb\nc" in text
    assert "___" in text


def test_sparklines() -> None:
    assert sparkline([0, 1, 7, 8, float("nan")], 0, 8) == "▁▂██ "
    assert sparkline([3, 3], 3, 3) == "▁▁"
    assert sparkline([-5, 50], 0, 8) == "▁█"
    assert printable("plain ÄÖ ▁") == "plain ÄÖ ▁"


class Terminal(io.StringIO):
    """Standard output as a terminal of 100 columns."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_it_ends_with_the_sweep(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    aside = sorted(out.glob("shards/??/*.nc"))[:4]
    for path in aside:
        path.rename(tmp_path / path.name)
    states = iter(["running", "silent", "running", "finished"])

    def looked(directory: Path) -> DirectoryState:
        path = aside.pop()
        (tmp_path / path.name).rename(path)
        return replace(look(directory), state=next(states), driver="process 1 on vm")

    monkeypatch.setattr("spbfast.sweep.store.view.look", looked)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    watch_command(out, interval="200ms")
    heads = re.findall(r"demo: (\w+), (\d+) of 12 runs done", screen.getvalue())
    assert list(dict.fromkeys(heads)) == [
        ("running", "9"),
        ("silent", "10"),
        ("running", "11"),
        ("finished", "12"),
    ]
    assert screen.getvalue().count("process 1 on vm has not been heard of") == 1
    assert screen.getvalue().endswith("\x1b[?25h")  # the cursor is back
