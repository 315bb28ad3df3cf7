"""`spbfast plot`: figures in files, and what it says to questions that have no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from spbfast.sweep import run_sweep
from tests.page_tools import spbfast
from tests.sweep_tools import ENGINE, make_job
from tests.test_report_metrics import CURVE

pytestmark = pytest.mark.shell


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plot")
    return Path(run_sweep(make_job(folder, sweep=CURVE), folder / "out", engine=ENGINE, quiet=True).directory)


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--metric", "tainted_end"],
        ["--kind", "points"],
        ["--kind", "differences"],
        ["--kind", "response"],
        ["--over", "policy.slab_shrink_throttle", "--metric", "spb_slab_shrink_ran"],
    ],
)
def test_a_figure_is_drawn(directory: Path, tmp_path: Path, given: list[str]) -> None:
    target = tmp_path / "figure.png"
    code, output = spbfast(["plot", str(directory), "-o", str(target), *given])
    assert code == 0, output
    assert output.strip() == str(target)
    picture = imread(target)[:, :, :3]
    assert (abs(picture - picture[0, 0]).max(axis=2) > 0.05).mean() > 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize(("form", "begins"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_other_forms(directory: Path, tmp_path: Path, form: str, begins: bytes) -> None:
    code, output = spbfast(["plot", str(directory), "-o", str(tmp_path / f"x.{form}")])
    assert code == 0, output
    assert (tmp_path / f"x.{form}").read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-o", "x.jpeg"], "x.jpeg: a figure's name must end with one of .png, .svg, .pdf"),
        (["--metric", "spb_taintd"], "did you mean 'spb_tainted'"),
        (["--kind", "respnse"], "there is no kind 'respnse'; did you mean 'response'"),
        (["--over", "policy.slab_shrink_throtle"], "did you mean 'policy.slab_shrink_throttle'"),
        (["--over", "policy.slab_shrink_target_objs"], "there is no swept number"),
        (["--metric", "tainted_peak", "--kind", "time", "--over", "x"], None),
    ],
)
def test_questions_without_an_answer(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output = spbfast(["plot", str(directory), *given])
    if said is None:
        assert code == 0, output
        return
    assert code == 2 or code == 4, output
    assert said in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())
