"""`spbfast plot`: figures in files, and what it says to questions that have no answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from spbfast.results.open import open_results
from spbfast.results.plots import draw_response
from spbfast.results.report.drawing import draw_figure, save_figure
from spbfast.results.response import Line, Response
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


def figure_of(directory: Path, *given: str) -> Figure:
    return draw_figure(open_results(directory), *given)


def test_equal_figures_make_equal_files(directory: Path, tmp_path: Path) -> None:
    for form in ("png", "svg", "pdf"):
        first, second = (
            save_figure(figure_of(directory, "spb_tainted"), tmp_path / f"{k}.{form}").read_bytes()
            for k in (1, 2)
        )
        assert first == second, form


def test_a_line_below_others_is_wider(directory: Path) -> None:
    ds = open_results(directory).load()
    same = [1, 3]  # points that are given equal courses
    ds["spb_tainted"].loc[{"point": same}] = ds["spb_tainted"].isel(point=same[0], drop=True)
    lines = draw_figure(ds, "spb_tainted", "time").axes[0].get_lines()
    widths = [line.get_linewidth() for line in lines]
    assert widths[1] > widths[3]
    assert len({w for k, w in enumerate(widths) if k != 1}) == 1


def test_values_that_are_good_enough_have_full_dots() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    curve = Response("k", "policy.k", "", x, (Line("", x, x, x),), float("nan"))
    ax = Figure().subplots()
    draw_response(ax, curve, good={"": np.array([True, True, False, False])})
    line, hollow = ax.get_lines()
    assert line.get_xdata().tolist() == x.tolist()
    assert hollow.get_xdata().tolist() == [3.0, 4.0]
    draw_response(ax, curve)
    assert ax.get_lines()[-1].get_xdata().tolist() == []


@pytest.mark.parametrize("values", [(0.01, 0.05, 0.1, 1.0), (1.0, 2.0, 3.0), tuple(np.geomspace(0.01, 1, 9))])
def test_a_logarithmic_axis_names_few_values_with_their_units(values: tuple[float, ...]) -> None:
    x = np.array(values)
    ax = Figure().subplots()
    draw_response(ax, Response("k", "policy.k", "s", x, (Line("", x, x, x),), float("nan")))
    labels = [text.get_text() for text in ax.get_xticklabels()]
    named = values[0] == 0.01 and len(values) == 4
    assert (labels == ["10 ms", "50 ms", "100 ms", "1 s"]) == named
    assert ax.get_xlabel() == ("policy.k" if named else "policy.k (s)")


def test_points_without_a_result_are_named(directory: Path) -> None:
    ds = open_results(directory).load()
    ds["tainted_end"] = ds["tainted_end"].astype("f8").where(ds["is_baseline"] ^ True)
    words = draw_figure(ds, "tainted_end", "points").get_supxlabel()
    assert words.startswith("No run has a result: ")
    assert "baseline: " not in words
    assert draw_figure(open_results(directory), "tainted_end", "points").get_supxlabel() == ""


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
