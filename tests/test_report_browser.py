"""The report as a browser shows it: no complaints on its console, nothing drawn that stays empty."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from spbfast.results.report import build_report
from spbfast.sweep import run_sweep
from tests.require import need
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")
SECONDS = 180


@pytest.fixture(scope="module")
def browser() -> str:
    need("chromium", BROWSER is not None, "there is no Chromium; apt-get install chromium")
    assert BROWSER is not None
    return BROWSER


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    outcome = run_sweep(make_job(folder), folder / "out", engine=ENGINE, quiet=True)
    return build_report(outcome.directory)


def shoot(browser: str, page: Path, size: str) -> tuple[np.ndarray, list[str]]:
    """A picture of a page, and what the browser wrote on its console."""
    picture = page.with_suffix(".png")
    user = page.parent / "profile"
    given = [*FLAGS, f"--user-data-dir={user}", f"--screenshot={picture}", f"--window-size={size}", str(page)]
    done = subprocess.run([browser, *given], capture_output=True, text=True, timeout=SECONDS)
    assert picture.is_file(), done.stderr
    return imread(picture)[:, :, :3], [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ink(picture: np.ndarray) -> float:
    """Share of a picture that is not the colour of its corner."""
    return float((np.abs(picture - picture[0, 0]).max(axis=2) > 0.05).mean())


def test_the_page_shows_without_complaints(browser: str, page: Path) -> None:
    picture, console = shoot(browser, page, "1200,2400")
    assert console == []
    assert ink(picture) > 0.01
    lower = picture[picture.shape[0] // 2 :]
    assert ink(lower) > 0.01, "the page ends too early"


def test_no_figure_stays_empty(browser: str, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    figures = re.findall(r"<figure[^>]*>(.*?)</figure>", text, re.DOTALL)
    assert len(figures) >= 4
    for number, figure in enumerate(figures):
        alone = tmp_path / f"figure{number}.html"
        drawn = figure.partition("<figcaption")[0]
        alone.write_text(f"<!DOCTYPE html><meta charset=utf-8>{drawn}", encoding="utf-8")
        picture, console = shoot(browser, alone, "1200,700")
        assert console == []
        assert ink(picture) > 0.003, f"figure {number} is empty"


def test_an_empty_page_is_told_from_a_full_one(browser: str, tmp_path: Path) -> None:
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><script>console.error('missing thing')</script>")
    picture, console = shoot(browser, blank, "300,200")
    assert ink(picture) == 0
    assert any("missing thing" in line for line in console)
