"""The memory map in a browser: no complaints, it moves, two runs stay in step at 30 frames a second."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from spbfast.results.memorymap.captured import film_of_capture
from spbfast.results.memorymap.mappage import map_page
from tests.film_tools import made_capture, made_film
from tests.test_report_browser import FLAGS, SECONDS, browser, ink

pytestmark = [pytest.mark.shell, pytest.mark.slow]

__all__ = ["browser"]

FRAMES, SPBS, PAGEBLOCKS = 60, 238, 512
# Frames are drawn one after the other; the browser's log says when it began and ended.
PACE = """
<script>
addEventListener("load", async () => {
  const player = window.spbfastMap;
  while (document.documentElement.dataset.ready !== "yes") await new Promise((done) => setTimeout(done, 20));
  const last = player.leader.times.length - 1;
  for (let k = 0; k <= last; k++) await player.seek(k);
  console.log("begin");
  for (let k = 0; k <= last; k++) await player.seek(k);
  console.log("end");
  console.log("steps " + player.sides.map((side) => side.run.times[player.frameOf(side)]).join(" "));
});
</script>
</body>
"""


def shoot_map(
    browser: str, page: Path, place: str = "", size: str = "1200,900"
) -> tuple[np.ndarray, list[str]]:
    """A picture of the page at a place of its address, and the browser's console."""
    picture = page.with_suffix(".png")
    given = [
        *(*FLAGS, f"--user-data-dir={page.parent / 'profile'}", f"--screenshot={picture}"),
        *(f"--window-size={size}", "--virtual-time-budget=20000", f"file://{page}{place}"),
    ]
    done = subprocess.run([browser, *given], capture_output=True, text=True, timeout=SECONDS)
    assert picture.is_file(), done.stderr
    return imread(picture)[:, :, :3], [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def moment(lines: list[str], word: str) -> datetime:
    """When a word was logged."""
    (line,) = [line for line in lines if f'"{word}"' in line]
    found = re.search(r":(\d{4}/\d{6}\.\d+):", line)
    assert found, line
    return datetime.strptime(found[1], "%m%d/%H%M%S.%f")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "map.html"
    films = [made_film(nr, SPBS, PAGEBLOCKS, share=0.01, span=60.0) for nr in (FRAMES, FRAMES // 2)]
    path.write_text(map_page(films), encoding="utf-8")
    return path


@pytest.mark.parametrize("size", ["1200,900", "390,1400"])
def test_time_moves_the_tiles(browser: str, page: Path, size: str) -> None:
    first, console = shoot_map(browser, page, "#t=0", size)
    assert console == []
    assert ink(first) > 0.05
    later, _ = shoot_map(browser, page, "#t=1e9", size)
    assert (np.abs(first - later).max(axis=2) > 0.05).mean() > 0.005


def test_dark_is_dark(browser: str, page: Path) -> None:
    light, _ = shoot_map(browser, page, "#theme=light")
    dark, _ = shoot_map(browser, page, "#theme=dark")
    assert light[0, 0].mean() > 0.9
    assert dark[0, 0].mean() < 0.2


def test_two_runs_are_drawn_in_step_at_30_frames_a_second(browser: str, page: Path) -> None:
    paced = page.with_name("paced.html")
    paced.write_text(page.read_text(encoding="utf-8").replace("</body>", PACE), encoding="utf-8")
    _, console = shoot_map(browser, paced)
    seconds = (moment(console, "end") - moment(console, "begin")).total_seconds()
    assert FRAMES / seconds >= 30, f"{FRAMES / seconds:.0f} frames a second"
    (steps,) = [line for line in console if '"steps ' in line]
    ends = re.search(r'"steps ([\d.]+) ([\d.]+)"', steps)
    assert ends, steps
    assert float(ends[1]) == pytest.approx(float(ends[2]), abs=float(ends[1]) / FRAMES * 2)


def test_a_capture_shows_a_superpageblock_in_detail(browser: str, tmp_path: Path) -> None:
    """It has fewer columns than a run, one moment and so no time to go through."""
    films = [film_of_capture(made_capture(tmp_path / f"{name}.spbcap", name)) for name in ("a", "b")]
    page = tmp_path / "captures.html"
    page.write_text(map_page(films), encoding="utf-8")
    whole, console = shoot_map(browser, page)
    assert console == []
    detail, console = shoot_map(browser, page, "#spb=1")
    assert console == []
    assert (np.abs(whole - detail).max(axis=2) > 0.05).mean() > 0.05
