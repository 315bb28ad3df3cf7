"""The memory map: packing, pages, images, and films of files."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from spbfast import cli
from spbfast.cli import patience
from spbfast.constants import MOVABLE, PB_PAGES, UNMOVABLE, SpbCategory
from spbfast.errors import ConfigError, DumpError, ResultsError
from spbfast.results.memorymap import films, named
from spbfast.results.memorymap.captured import film_of_capture
from spbfast.results.memorymap.lanes import lanes_of, per_frame
from spbfast.results.memorymap.mappage import map_page, page_data, write_map
from spbfast.results.memorymap.named import Wish, film_of
from spbfast.results.memorymap.packing import CHUNK_FRAMES, packed_chunks, unpack_chunk
from spbfast.results.memorymap.stills import MOST_GIF_FRAMES, WIDTH, draw_frame, write_gif, write_png
from spbfast.results.memorymap.stored import counted_contents, film_of_file, parts_of
from spbfast.sweep import run_sweep
from spbfast.tiles import pageblocks as tiles
from tests.film_tools import made_capture, made_film
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

EVIL = "<script>alert(1)</script> \"quotes\" 'and' \x1b[31mred & </script>"


def test_frames_come_back_as_they_were() -> None:
    film = made_film(CHUNK_FRAMES + 5)
    parts = [unpack_chunk(text, film.what.shape[1]) for text in packed_chunks(film)]
    assert [len(what) for what, _ in parts] == [CHUNK_FRAMES, 5]
    assert (np.concatenate([what for what, _ in parts]) == film.what).all()
    assert (np.concatenate([room for _, room in parts]) == film.room).all()


def test_the_same_film_gives_the_same_page() -> None:
    assert map_page([made_film()]) == map_page([made_film()])


def test_free_shares_are_rounded_but_none_and_all() -> None:
    free = np.array([-1, 0, 1, 17, 256, 495, 511, 512])
    assert tiles.room_level(free).tolist() == [0, 0, 1, 1, 8, 14, 14, 15]


def test_kinds_follow_from_what_is_in_use() -> None:
    names = [tiles.KINDS[tiles.kind_of_what(what)].name for what in (0, 1, 2, 4, 5, 3, 6, 7, 2 | tiles.HELD)]
    assert names == [
        *("free", "unmovable", "movable", "reclaimable", "unmovable + reclaimable"),
        *("mixed", "mixed", "mixed", "gigantic page"),
    ]
    assert tiles.kind_of_what(tiles.NO_MEMORY << tiles.LABEL_SHIFT | 1) == tiles.ABSENT_KIND


@pytest.mark.parametrize(("nr", "shape"), [(1, (1, 1)), (8, (4, 2)), (64, (8, 8)), (512, (32, 16))])
def test_tiles_are_square_or_twice_as_wide(nr: int, shape: tuple[int, int]) -> None:
    assert tiles.tile_shape(nr) == shape


def test_counters_become_events_of_each_frame() -> None:
    assert per_frame(np.array([5.0, 5, 7, 7, 8])).tolist() == [0, 0, 2, 0, 1]


def test_silent_lanes_are_named_and_not_drawn() -> None:
    lanes, silent = lanes_of(made_film())
    assert [lane.title for lane in lanes] == ["superpageblocks", "tainted by"]
    assert silent == ["slab shrink"]
    drawn = {series["name"] for lane in lanes for series in lane.data()["series"]}
    assert drawn == {"tainted", "clean", "empty", "steal fallback"}, "callers are no causes; boot was before"


def test_names_are_text_and_nothing_is_loaded() -> None:
    page = map_page([made_film(title=EVIL), made_film(title=EVIL)])
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
    assert "default-src 'none'" in page
    data = json.loads(re.search(r'id="page">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert data["runs"][0]["title"] == EVIL.replace("\x1b", ".")


def test_the_page_has_every_number_that_the_script_reads() -> None:
    run = page_data([made_film(zones=2)])["runs"][0]
    assert [zone["nrSpb"] for zone in run["zones"]] == [6, 6]
    assert run["spbs"]["names"][0] == "category"
    assert len(run["times"]) == 30


@pytest.mark.parametrize("nr", [0, 3])
def test_a_page_plays_one_run_or_two(nr: int, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="one run or two"):
        write_map([made_film()] * nr, tmp_path / "map.html")
    assert not list(tmp_path.iterdir())


def test_a_page_is_valid_script(tmp_path: Path) -> None:
    """Where there is a node, it parses the script; a browser runs it in test_map_browser.py."""
    script = map_page([made_film()]).rpartition("<script>")[2].partition("</script>")[0]
    (tmp_path / "map.mjs").write_text(script, encoding="utf-8")
    try:
        done = subprocess.run(["node", "--check", tmp_path / "map.mjs"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no node")
    assert done.returncode == 0, done.stderr


# -- images ---------------------------------------------------------------------------------------


def test_an_image_shows_every_kind_in_its_colour(tmp_path: Path) -> None:
    film = made_film(2)
    film.what[:] = 1 << MOVABLE | 1 << tiles.LABEL_SHIFT
    film.room[:] = 0
    film.what[1, 0] = 1 << UNMOVABLE
    write_png([film], tmp_path / "one.png", 1)
    with Image.open(tmp_path / "one.png") as drawn:
        colours = {colour for _, colour in drawn.getcolors(1 << 20)}
    assert tiles.rgb(tiles.KINDS[1].light) in colours
    assert tiles.rgb(tiles.KINDS[2].light) in colours
    assert tiles.rgb(tiles.KINDS[3].light) not in colours


def test_two_runs_stand_side_by_side_at_the_same_time(tmp_path: Path) -> None:
    write_png([made_film(), made_film(15, span=29.0, zones=2)], tmp_path / "two.png", 10)
    alone = draw_frame(made_film(), 10, WIDTH // 2)
    with Image.open(tmp_path / "two.png") as both:
        left = both.crop((0, 0, *alone.size))
        assert left.tobytes() == alone.tobytes()
        assert len(both.crop((alone.width, 0, *both.size)).getcolors(1 << 20)) > 10


@pytest.mark.parametrize("frame", [30, -31])
def test_frames_that_are_not_there_are_refused(frame: int, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="there are 0 to 29"):
        write_png([made_film()], tmp_path / "no.png", frame)


def test_a_moving_image_moves_and_is_thinned(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    write_gif([made_film(2 * MOST_GIF_FRAMES, 2)], tmp_path / "a.gif", lambda *at: said.append(at))
    with Image.open(tmp_path / "a.gif") as moving:
        assert 2 < moving.n_frames <= MOST_GIF_FRAMES  # type: ignore[attr-defined]
    assert said[-1] == (MOST_GIF_FRAMES, MOST_GIF_FRAMES)


# -- files of results -----------------------------------------------------------------------------


def test_tiles_of_counts_have_these_counts() -> None:
    own = {"unmovable": [3], "movable": [4], "reclaimable": [1], "free": [1], "free_pages": [PB_PAGES + 128]}
    columns = {name: np.array([values], np.int32) for name, values in own.items()}
    columns["category"] = np.array([[int(SpbCategory.TAINTED)]], np.int32)
    seen = counted_contents(columns, 0, 8)
    counts = [int((seen.what >> mt & 1).sum()) for mt in range(3)]
    assert counts == [3, 4, 1]
    assert int((seen.what == 0).sum()) == 1
    assert int(seen.room[seen.what == 0][0]) == tiles.ALL_FREE


def test_overlapping_marks_are_mixed_as_few_as_can_be() -> None:
    own = {name: np.array([n]) for name, n in (("unmovable", 3), ("movable", 6), ("reclaimable", 1))}
    assert [int(part[0]) for part in parts_of(own, np.array([8]))] == [1, 1, 2, 0, 4]


def run_file(path: Path, **changes: object) -> Path:
    """A file as `spbfast run -o` writes it, of two superpageblocks."""
    shape = (1, 1, 2, 3)
    full = np.broadcast_to(np.array([[[[2, 2, 2], [1, 1, 0]]]]), shape)
    dims = ("replicate", "zone", "spb", "time")
    data = {name: (dims, full.copy()) for name in ("spb_category", "spb_free", "spb_pinned_pages")}
    data["spb_free_pages"] = (dims, full * PB_PAGES)
    content = np.stack([full, full * 0 + 4, full * 0], axis=1)
    data["spb_content"] = (("replicate", "migratetype", "zone", "spb", "time"), content)
    data["spb_tainted"] = (("replicate", "time"), np.array([[1, 1, 1]]))
    data |= changes  # type: ignore[arg-type]
    coords = {"time": [0.0, 1.0, 2.0], "zone": ["Normal"]}
    xr.Dataset({k: v for k, v in data.items() if v is not None}, coords).to_netcdf(path)
    return path


def test_a_file_with_superpageblocks_is_a_film_of_counts(tmp_path: Path) -> None:
    film = film_of_file(run_file(tmp_path / "run.nc"))
    assert film.zones[0].nr_spb == 2
    assert film.spbs["category"][:, 1].tolist() == [1, 1, 0]
    assert "Made from counts" in film.notes[0]
    assert "label" not in film.views


def test_a_file_without_superpageblocks_says_how_to_get_them(tmp_path: Path) -> None:
    path = run_file(tmp_path / "run.nc", spb_free=None)
    with pytest.raises(ResultsError, match=r"no superpageblocks over time \(spb_free\).*output.level=spb"):
        film_of_file(path)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"replicate": 1}, "there is no replicate 1; there are 0..0"),
        ({"point": "x"}, "points of a file are given by number"),
        ({"overrides": ("a=b",)}, "is a result file; --set and --versus are for configurations"),
        ({"every": 5}, "is a result file; --every is for runs that are simulated"),
    ],
)
def test_options_that_do_not_fit_a_file(wish: dict[str, object], message: str, tmp_path: Path) -> None:
    path = run_file(tmp_path / "run.nc")
    with pytest.raises((ResultsError, ConfigError), match=message):
        film_of(Wish(path, **wish))  # type: ignore[arg-type]


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.nc"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    with pytest.raises(ResultsError, match="cannot read"):
        film_of(Wish(path))


def test_a_title_names_what_counts_of_a_key_given_twice() -> None:
    given = ["policy=v2", "seed=3", "policy=mainline"]
    assert named.effective(given) == ["policy=mainline", "seed=3"]


# -- captures -------------------------------------------------------------------------------------


def test_a_capture_is_a_film_of_two_moments(tmp_path: Path) -> None:
    film = film_of(Wish(made_capture(tmp_path / "m.spbcap", "before", "after")))
    assert film.times.tolist() == [0.0, 1.0]
    assert film.spbs["category"].tolist() == [[SpbCategory.TAINTED, SpbCategory.CLEAN]] * 2
    kinds = tiles.KIND_OF[film.what[0]]
    assert [tiles.KINDS[k].name for k in kinds[[0, 1, 2, 512, 1023]]] == [
        *("reclaimable", "no memory", "free", "movable", "no memory")
    ]
    assert film.room[1, 512] == 8
    assert film.gauges["free_pages"].tolist() == [(510 + 168) * PB_PAGES, (510 + 168) * PB_PAGES + 88 * 256]
    assert "neither" not in film.kind_names
    assert film.views == ("content", "free", "stranded")
    assert "pinned" in film.notes[0]
    assert "6.18.0" in map_page([film, film])


def test_a_capture_without_pageblocks_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="capture as root"):
        film_of_capture(made_capture(tmp_path / "m.spbcap", "before", blocks=False))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"node": None}, "neither node nor place"),
        ({"first_pageblock": 1 << 40}, "neither node nor place"),
        ({"pageblock_pages": 2048}, "its pageblocks have 2048 pages, not 512"),
    ],
)
def test_a_capture_with_other_pageblocks_is_refused(
    about: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DumpError, match=message):
        film_of_capture(made_capture(tmp_path / "m.spbcap", "before", **about))


# -- the command ----------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_the_command_writes_page_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = (
        made_capture(tmp_path / "a.spbcap", "before"),
        made_capture(tmp_path / "b.spbcap", "before", "after"),
    )
    places = [tmp_path / name for name in ("m.html", "m.png", "m.gif")]
    options = zip(("-o", "--png", "--gif"), places, strict=True)
    code, out, err = told(capsys, "map", before, after, *(word for pair in options for word in pair))
    assert (code, err) == (0, "")
    assert all(place.is_file() and str(place) in out for place in places)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.yaml"], 2, "no such file"),
        (["."], 4, "not a results directory"),
        (["x.spbcap", "--point", "3"], 2, "is a capture; --point is for results directories and files"),
        (["x.spbcap", "--replicate", "3"], 2, "is a capture, which has no replicates"),
        (["x.spbcap", "--frame", "3"], 2, "needs --png FILE"),
        (["x.spbcap", "--png", "a.png", "--frame", "9"], 2, "there is no frame 9; there are 0 to 0"),
        (["x.spbcap", "--png", "a.png", "--frame", "-2"], 2, "there is no frame -2; there are 0 to 0"),
        (["x.spbcap", "--png", "a.png", "--frame", "9" * 5000], 2, "number of a frame"),
        (["x.spbcap", "--png", "a.png", "--frame", "noon"], 2, "or the number of a frame"),
        (["x.spbcap", "--png", "a.jpg"], 2, "must end in .png"),
        (["x.spbcap", "--gif", "no/a.gif"], 2, "the directory no does not exist"),
        (["x.spbcap", "-o", "."], 2, "is a directory"),
        (["x.spbcap", "x.spbcap", "--versus", "a=b"], 2, "there are two already"),
        (["x.spbcap", "--every", "3"], 2, "has no unit"),
        (["x.spbcap", "--every", "1us"], 2, "whole number of milliseconds"),
        (["x.spbcap", *["--point", "a"] * 3], 2, "twice at most"),
    ],
)
def test_wrong_inputs_get_an_error_in_words(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    made_capture(tmp_path / "x.spbcap", "before")
    found, out, err = told(capsys, "map", *words)
    assert (found, out) == (code, "")
    assert message in re.sub(r"\s+", " ", err)
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.spbcap"]


def test_a_point_replicate_or_frame_that_is_not_there_is_wrong_usage_and_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job = make_job(tmp_path)
    run_sweep(job, "out", engine=ENGINE, quiet=True)
    monkeypatch.setattr(named, "ENGINE", ENGINE)
    monkeypatch.setattr(films, "run_replicate", lambda *_, **__: pytest.fail("it ran"))
    for words, message in (
        (["out", "--point", "zzz"], "'zzz' is no point id"),
        (["out", "--point", "0123456789abcdef"], "has no point 0123456789abcdef; it has 5"),
        (["out", "--replicate", "3"], "there is no replicate 3; there are 0..2"),
        (["out", "--replicate", "-1"], "there is no replicate -1; there are 0..2"),
        (["out", "--png", "a.png", "--frame", "99999"], "there is no frame 99999; there are 0 to "),
        (["job.yaml", "--replicate", "3"], "there is no replicate 3; there are 0..2"),
        (["job.yaml", "--png", "a.png", "--frame", "-99999"], "there is no frame -99999; there are 0 to "),
    ):
        code, _, err = told(capsys, "map", *words)
        assert code == 2, err
        assert message in re.sub(r"\s+", " ", err)


def test_a_long_wait_is_explained_until_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "SOON_S", 0.05)
    with patience.explained_wait():
        time.sleep(0.3)
    assert "compiles its kernels" in capsys.readouterr().err
    with patience.explained_wait() as no_longer:
        no_longer()
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("managed", "absent"), [(None, 0), (766 * PB_PAGES, 0), (668 * PB_PAGES, 0), (667 * PB_PAGES, 100)]
)
def test_memory_that_nobody_manages_is_absent(tmp_path: Path, managed: int | None, absent: int) -> None:
    """100 pageblocks without flags; zoneinfo decides whether they are kernel pages. One more is reserved."""
    film = film_of_capture(made_capture(tmp_path / "m.spbcap", "before", unplugged=100, managed=managed))
    gone = film.what[0] == tiles.NO_MEMORY << tiles.LABEL_SHIFT
    assert gone[668:768].sum() == absent
    plain = film_of_capture(made_capture(tmp_path / "p.spbcap", "before", managed=managed))
    assert not (plain.what[0, 668:768] == tiles.NO_MEMORY << tiles.LABEL_SHIFT).any()
    tainted = film.spbs["category"][0].tolist()
    assert tainted[1] == (SpbCategory.CLEAN if absent else SpbCategory.TAINTED)
