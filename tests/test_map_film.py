"""Films of simulated runs: the run is the one that everybody gets, the frames are what the machine holds."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import NS_PER_TICK, PB_PAGES
from spbfast.model.engine import run_replicate
from spbfast.model.state.contents import absent_pageblocks, pinned_pageblocks, read_contents
from spbfast.model.state.page_state import CODE_PINNED, CODE_SHIFT, record_words
from spbfast.results.memorymap.films import MOST_FRAMES, film_scenario, frame_ticks, record_film
from spbfast.tiles import pageblocks as tiles
from spbfast.zone import Zone
from tests.demand_tools import scenario


@pytest.mark.compiled
def test_a_film_shows_the_run_that_others_make() -> None:
    given = scenario(policy="v1@30", duration="60ms", output__every="10ms")
    film = record_film(given, 1, title="a run", every=10 * NS_PER_TICK)
    plain = run_replicate(given, 1, 0, snapshots=True)
    assert film.times.tolist() == pytest.approx(np.arange(7) / 100)
    assert (film.gauges["spb_tainted"] == plain.data["spb_tainted"]).all()
    assert (film.spbs["free"].T == plain.data["spb_free"][0]).all()
    assert film.counters["pgalloc_normal"][-1] > 0


@pytest.mark.compiled
def test_looking_changes_nothing() -> None:
    given = scenario(policy="v1@30", duration="40ms")
    seen: list[int] = []
    filmed = run_replicate(given, 1, 0, frames=([0, 7, 40], lambda run: seen.append(1)))
    assert len(seen) == 3
    assert filmed.digest == run_replicate(given, 1, 0).digest


def test_a_run_that_is_stopped_takes_no_more_frames() -> None:
    given = scenario(policy="v1@30", duration="40ms")
    run = run_replicate(given, 1, 0, frames=([20], pytest.fail), stop=lambda: True)
    assert run.stopped


def test_frames_agree_with_the_letters_of_the_picture() -> None:
    zone = Zone.from_picture("MMMM.... UMrX.... TtM.....")
    zone.contig()
    seen = read_contents(zone.state, absent_pageblocks(zone.state))
    letters = "".join(zone.picture().split())
    of_kind = {0: ".", 1: "Mm", 2: "Uu", 3: "Rr", 4: "Xx", 5: "Tt", 6: "#", 7: "-"}
    assert all(
        letter in of_kind[int(tiles.KIND_OF[what])] for what, letter in zip(seen.what, letters, strict=False)
    )
    full = [letter.isupper() for letter in letters]
    assert [bool(level == 0) for level in (seen.room & 15)[: len(letters)]][:8] == full[:8]
    assert (seen.room[4:8] == tiles.ALL_FREE).all()
    marks = seen.room >> tiles.MARK_SHIFT
    assert (marks == zone.state.pb.bits & tiles.TYPES).all()


def test_pins_are_found_where_they_are() -> None:
    zone = Zone("64MiB", spb_size="16MiB")
    pfn = zone.alloc(0)
    index = pfn - zone._base
    zone.state.page.word[index] = record_words(CODE_PINNED << CODE_SHIFT, 0)
    zone.state.spb.pinned[index >> zone.state.geo.spb_shift] = 1
    assert np.flatnonzero(pinned_pageblocks(zone.state)).tolist() == [index // PB_PAGES]


def test_long_runs_are_thinned_and_short_ones_get_more_frames() -> None:
    long = scenario(duration="3000s", output__every="1s")
    ticks = frame_ticks(film_scenario(long))
    assert MOST_FRAMES / 2 < len(ticks) <= MOST_FRAMES + 2
    assert (ticks[0], ticks[-1]) == (0, 3_000_000)
    short = film_scenario(scenario(duration="2s", output__every="100ms"))
    assert len(frame_ticks(short)) == 251
    assert film_scenario(short, 10**9).output_every == 10**9


def test_a_notebook_shows_tiles_with_a_legend() -> None:
    zone = Zone.from_picture("MMMM.... UMrX....")
    shown = zone._repr_html_()
    assert shown.count("<title>") == 2
    assert "superpageblock 1, pfn 0x101000: tainted" in shown
    for text in ("movable 5", "unmovable 1", "reclaimable 1", "free 8"):
        assert text in shown
    assert "<script" not in shown


def test_a_notebook_shows_large_machines_in_little_text() -> None:
    zone = Zone("16GiB")
    zone.alloc_many(1000, 9)
    assert len(zone._repr_html_()) < 60_000
