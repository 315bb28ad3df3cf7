"""verify: golden files against the kernels, and one wrong number in each column is found and named."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spbfast.jit.decorators import INTERPRETED
from spbfast.verify.golden import load_golden
from spbfast.verify.verdicts import first_difference, verify_files
from tests.markdown_tools import ROOT
from tests.test_reference import COLUMNS, LARGE_FILES
from tests.zone_tools import GOLDEN


def quick_params() -> list:
    """All committed files; those too long to run interpreted are slow."""
    names = sorted(GOLDEN.glob("*.npz"))
    quick = ("_tiny", "p17_throttle", "p24_no_workqueue", "p13_zero")
    return [
        pytest.param(path, id=path.stem, marks=[] if any(q in path.stem for q in quick) else pytest.mark.slow)
        for path in names
    ]


@pytest.mark.parametrize("path", quick_params())
def test_kernels_agree_with_golden_file(path: Path) -> None:
    assert first_difference(load_golden(path)) is None


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreted pass")
def test_kernels_as_users_have_them_agree_with_every_golden_file() -> None:
    """Without the bounds checks of this pass."""
    folders = [GOLDEN, *filter(None, [os.environ.get("SPBFAST_GOLDEN_DIR")])]
    files = sorted({p.name: str(p) for folder in folders for p in Path(folder).glob("*.npz")}.values())
    environ = {name: value for name, value in os.environ.items() if name != "NUMBA_BOUNDSCHECK"}
    done = subprocess.run(
        [sys.executable, "-m", "spbfast.cli", "verify", *files],
        cwd=ROOT,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  identical  ") == len(files)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_FILES)
def test_kernels_agree_with_large_golden_file(name: str, large_golden: Path) -> None:
    path = large_golden / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"set SPBFAST_GOLDEN_DIR to a folder that has {name}.npz")
    assert first_difference(load_golden(path)) is None


@pytest.fixture
def large_golden() -> Path:
    folder = os.environ.get("SPBFAST_GOLDEN_DIR", "")
    if not folder:
        pytest.skip("set SPBFAST_GOLDEN_DIR to the folder of the large golden files")
    return Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), [(n, c) for n, columns in COLUMNS.items() for c in columns])
def test_one_wrong_number_is_named(name: str, column: str) -> None:
    golden = load_golden(GOLDEN / f"{name}.npz")
    wrong = golden[column].copy()
    wrong.flat[wrong.size // 2] += np.array(1, dtype=wrong.dtype)
    text = first_difference(dataclasses.replace(golden, arrays={**golden.arrays, column: wrong}))
    assert text is not None
    words = {"lst_pfn": "list of order", "lst_pcp_pfn": "pcp lists"}
    short = column.removeprefix("xf_").removeprefix("mv_").removeprefix("run_").removeprefix("call_")
    assert words.get(column, short) in text
    assert "expected" in text


def test_report_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code = verify_files([GOLDEN / "spb_p_v2_gates_tiny.npz", GOLDEN / "shrink_p17_throttle_timing.npz"])
    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split()[:5] for line in lines] == [
        ["spb_p_v2_gates_tiny", "spb", "400", "events", "identical"],
        ["shrink_p17_throttle_timing", "shrink", "68", "events", "identical"],
    ]


def changed(tmp_path: Path, name: str, **change: object) -> Path:
    """A copy of a golden file with columns, or keys of its meta, changed."""
    with np.load(GOLDEN / f"{name}.npz") as npz:
        arrays = {key: npz[key] for key in npz.files}
    meta = json.loads(str(arrays["meta"]))
    for key, value in change.items():
        if key in arrays:
            arrays[key] = np.asarray(value)
        else:
            meta[key] = value
    path = tmp_path / f"changed_{len(list(tmp_path.iterdir()))}.npz"
    np.savez(path, allow_pickle=False, **{**arrays, "meta": np.array(json.dumps(meta))})
    return path


def test_difference_shows_the_whole_event(tmp_path: Path) -> None:
    golden = load_golden(GOLDEN / "spb_p_v2_gates_tiny.npz")
    visited = golden["visited"].copy()
    visited[17] += 3
    lines: list[str] = []
    path = changed(tmp_path, "spb_p_v2_gates_tiny", visited=visited)
    assert verify_files([path, GOLDEN / "spb_p_v2_gates_tiny.npz"], lines.append) == 1
    assert "DIFFERENT" in lines[0]
    assert "event 17: " in lines[0]
    table = lines[0].splitlines()[3:]
    assert [row.split()[0] for row in table][:3] == ["pfn", "outcome", "visited"]
    assert [row for row in table if row.endswith("<--")] == [table[2]]
    assert str(visited[17]) in table[2]
    assert "identical" in lines[1]


def test_unknown_switch_is_unsupported(tmp_path: Path) -> None:
    policy = {**load_golden(GOLDEN / "spb_p_v2_gates_tiny.npz").meta["policy"], "quantum_claim": 1}
    lines: list[str] = []
    assert verify_files([changed(tmp_path, "spb_p_v2_gates_tiny", policy=policy)], lines.append) == 3
    assert lines[0].endswith("unsupported: quantum_claim")


def test_impossible_geometry_is_unsupported(tmp_path: Path) -> None:
    lines: list[str] = []
    path = changed(tmp_path, "spb_p_v2_gates_tiny", pageblocks_per_superpageblock=6)
    assert verify_files([path], lines.append) == 3
    assert "unsupported: pageblocks per superpageblock must be a power of two" in lines[0]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("op", 3, "not an event of this kind"), ("order", 11, "not an event"), ("handle", -1, "not an event")],
)
def test_rows_without_meaning_are_refused(tmp_path: Path, column: str, value: int, words: str) -> None:
    array = load_golden(GOLDEN / "spb_p_v2_gates_tiny.npz")[column].copy()
    array[5] = value
    lines: list[str] = []
    assert verify_files([changed(tmp_path, "spb_p_v2_gates_tiny", **{column: array})], lines.append) == 2
    assert words in lines[0]
    assert "event 5" in lines[0]


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    path.write_text("no archive")
    lines: list[str] = []
    assert verify_files([path, tmp_path / "absent.npz"], lines.append) == 2
    assert "not an npz archive" in lines[0]
    assert "no such file" in lines[1]


def test_free_of_a_failed_request_does_nothing(tmp_path: Path) -> None:
    """A replay that has gone astray frees handles that hold nothing; it must end with a difference."""
    golden = load_golden(GOLDEN / "spb_p_v2_gates_tiny.npz")
    op = golden["op"].copy()
    op[np.flatnonzero(op == 0)[0]] = 1
    text = first_difference(dataclasses.replace(golden, arrays={**golden.arrays, "op": op}))
    assert text is not None
    assert "expected" in text
