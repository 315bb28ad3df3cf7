"""The open recordings: small, whole, and their page says what they hold."""

from __future__ import annotations

import re

import numpy as np
import pytest
from experiments.recordings_page import AT_S, FOLDER, _survival, files, page

from spbfast.fitting.page_lives import lives_of
from spbfast.fitting.page_requests import read_page_events

pytestmark = pytest.mark.shell  # nothing of the model is run
BYTES_MAX = 8_000_000


def test_the_page_is_made_from_the_recordings() -> None:
    assert (FOLDER / "README.md").read_text() == page(files())


def test_recordings_are_small_and_lost_nothing() -> None:
    assert sum(path.stat().st_size for path in files()) <= BYTES_MAX
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\.spbcap\].*\| ([\d,]+) \| [\d,]+ \| [\d,]+ \|$", text, re.M)
    assert [name for name, _ in rows] == [path.stem for path in files()]
    assert {lost for _, lost in rows} == {"0"}


def test_survival_is_that_of_the_lives() -> None:
    """Held at 1 s for ever, or freed after 5 ms: a half each, and nobody was seen for 5 s."""
    seconds = np.array([0.005] * 50 + [2.0] * 50)
    told = _survival(seconds, np.array([True] * 50 + [False] * 50))
    assert dict(zip(AT_S, told, strict=True)) == {
        **{0.0001: "1.000", 0.001: "1.000", 0.01: "0.500", 0.1: "0.500", 1.0: "0.500", 5.0: "-"}
    }


def test_every_free_is_of_a_block_or_counted() -> None:
    events = read_page_events(files()[-1])
    lives = lives_of(events)
    frees = int((events.mt < 0).sum())
    assert lives.nr_ended + lives.unknown_frees + lives.part_frees <= frees
    assert lives.nr_ended + lives.nr_alive + lives.nr_gap + lives.nr_overwritten == len(lives)
