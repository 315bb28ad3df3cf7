"""Files that are no files, places that cannot be written, and texts in other encodings: told at once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from spbfast.config import load_config
from spbfast.errors import ConfigError, ResultsError, SpbfastError, StorageError
from spbfast.places import as_path, check_writable, open_to_read, read_whole
from spbfast.results.export import export_results
from spbfast.results.open import open_results
from spbfast.sweep.run.driver import run_sweep
from spbfast.sweep.store.atomic import is_leftover, temporary_name, write_text
from tests.page_tools import spbfast
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

SECONDS = 20.0  # of processor time and a start of Python; what hangs, hangs for ever
NAME = "n" * 300
GOOD = "duration: 2s\n"
DEVICES = ("/dev/zero", "/dev/full", "/dev/null")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job, its results, a pipe, a dangling link and a link to itself."""
    base = tmp_path_factory.mktemp("files")
    os.mkfifo(base / "pipe")
    (base / "gone").symlink_to("nowhere.yaml")
    (base / "loop").symlink_to("loop")
    (base / "job.yaml").write_text(GOOD)
    run_sweep(make_job(base, replicates=1), base / "out", engine=ENGINE, quiet=True)
    (base / "job.yaml").write_text(GOOD)
    return base


READERS = ["run", "sweep", "validate", "status", "compare", "report", "resume", "records", "read", "verify"]
READERS += ["diagnose", "export", "consolidate", "sensitivity", "doctor", "watch", "knee"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", READERS)
def test_no_verb_waits_for_what_is_no_file(verb: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    more = {"export": ("--csv",)}.get(verb, ())
    for given in ("pipe", "/dev/zero", "gone", "loop", NAME, "."):
        code, said = spbfast([verb, given, *more])
        if verb == "doctor":  # it examines the installation too
            assert "Traceback" not in said
            continue
        assert code in (2, 4, 5), (given, said)
        assert "Traceback" not in said
        assert "internal error" not in said


WRITERS = [
    ("sweep", "job.yaml", "--dry-run", "--no-measure", "-o"),
    ("export", "out", "--csv", "-o"),
    ("export", "out", "--zarr", "-o"),
    ("init",),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_no_verb_writes_where_nothing_can_be(
    command: tuple[str, ...], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    before = sorted(p.name for p in home.iterdir())
    for place in ("pipe", "/dev/full", "gone", "loop", NAME, f"{NAME}/x", "job.yaml/x", "/proc/x"):
        code, said = spbfast([*command, place])
        assert "Traceback" not in said, (place, said)
        assert "internal error" not in said
        if "--dry-run" not in command:
            assert code in (2, 4, 5), (place, said)
    assert sorted(p.name for p in home.iterdir()) == before


def test_places(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file").write_text("12345")
    for path, reason in {
        tmp_path / "pipe": "is a named pipe, not a file",
        tmp_path: "is a directory, not a file",
        Path("/dev/zero"): "is a device, not a file",
        tmp_path / "gone": "is a link to nowhere, which does not exist",
        Path("a\0b"): "is no file name",
    }.items():
        with pytest.raises(OSError, match=reason):
            open_to_read(path)
    with pytest.raises(OSError, match="more than 0 MiB"):
        read_whole(tmp_path / "file", 4)
    assert read_whole(tmp_path / "file", 5) == b"12345"
    for path, reason in {
        tmp_path / "pipe": "is a named pipe; give the name of a file",
        tmp_path: "is a directory; give the name of a file",
        tmp_path / "gone": "is a link to nowhere, which does not exist; remove the link",
        tmp_path / "none" / "x": "none does not exist",
        tmp_path / "file" / "x": "Not a directory|is not a directory",
        tmp_path / NAME: "File name too long",
        Path("/proc/x"): "may not be written|read-only|Permission|cannot",
    }.items():
        if path == Path("/proc/x") and os.geteuid() == 0:
            continue  # root is told by the attempt alone
        with pytest.raises(OSError, match=reason):
            check_writable(path)
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new")
    check_writable(tmp_path, directory=True)
    with pytest.raises(OSError, match="is a file; give the name of a directory"):
        check_writable(tmp_path / "file", directory=True)
    for wrong in (5, None, b"x", [tmp_path]):
        with pytest.raises(OSError, match="must be the path of a file"):
            as_path(wrong)
    assert as_path(tmp_path / "none") == tmp_path / "none"


def test_a_directory_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match="may not be written; choose a directory of your own"):
        check_writable(tmp_path / "x")
    monkeypatch.setattr(os, "statvfs", lambda _: type("Facts", (), {"f_flag": os.ST_RDONLY})())
    with pytest.raises(OSError, match="read-only file system"):
        check_writable(tmp_path / "x")


def test_an_export_that_cannot_be_written_reads_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (home / "none" / "x.csv", home / NAME, home / "pipe", home / "gone"):
        with pytest.raises((StorageError, SpbfastError)):
            export_results(home / "out", "csv", place)
    with pytest.raises(ResultsError, match=f"{NAME}: cannot be written: File name too long"):
        export_results(home / "out", "csv", home / NAME)
    with pytest.raises(StorageError) as caught:
        export_results(home / "out", "csv", "/proc/x.csv")
    assert "no space left" not in str(caught.value)
    with pytest.raises(SpbfastError, match="form must be one of zarr, csv, parquet"):
        export_results(home / "out", "xls")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="may not be written"):
        export_results(home / "out", "csv", home / "x.csv")


def test_long_names_that_file_systems_take(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)
    write_text(target, "x")
    assert target.read_text() == "x"
    assert is_leftover(temporary_name(target))
    assert len(temporary_name(target).name) < 250


def test_results_in_places_that_cannot_be(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    for place in (tmp_path / NAME, tmp_path / "gone", 5, tmp_path / "a\0b"):
        with pytest.raises(StorageError):
            run_sweep(job, place, engine=ENGINE, quiet=True)


def test_wrong_names_of_results_are_suggested(home: Path) -> None:
    with pytest.raises(SpbfastError, match="did you mean 'out'"):
        open_results(home / "outt")
    with pytest.raises(SpbfastError, match="such as results/quickstart"):
        open_results(5)  # type: ignore[arg-type]


# -- texts ------------------------------------------------------------------------------------------


def problems_of(tmp_path: Path, content: bytes) -> list:
    file = tmp_path / "job.yaml"
    file.write_bytes(content)
    begin = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert time.process_time() - begin < SECONDS
    assert len(str(caught.value)) < 5000
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("content", "line", "col", "message"),
    [
        ("duration: 1s\nname: ä".encode("utf-16"), 1, 1, "is UTF-16 text; save it as UTF-8"),
        ("duration: 1s\nname: ä".encode("utf-16-le"), 1, 1, "is UTF-16 text; save it as UTF-8"),
        ("duration: 1s\nname: ä".encode("utf-32"), 1, 1, "is UTF-32 text; save it as UTF-8"),
        (b'duration: 1s\nname: "a\\uD800"\n', 2, 7, "U+D800 cannot be in a configuration; remove it"),
        (b'duration: 1s\n"\\uDFFF": 1\n', 2, 1, "U+DFFF cannot be in a configuration; remove it"),
        (
            "duration: 1s\nname: tinyä".encode("latin-1"),
            2,
            11,
            "byte 0xe4 is not UTF-8; if the file is Latin-1",
        ),
        (b"duration: 1s\nname: ti\0ny\n", 2, 9, "character U+0000 cannot be in a configuration"),
        (b"duration: 1s\nname: ti\x1bny\n", 2, 9, "character U+001B"),
        ("seed: 1\n# a\u2028b\nduration: 2x\n".encode(), 2, 4, "U+2028 cannot be in a configuration; remove"),
        ("seed: 1\r\n# a\x85b\n".encode(), 2, 4, "U+0085 cannot be in a configuration; remove"),
        ("# a\u2029b\n".encode(), 1, 4, "U+2029"),
        (b"duration: 1s\rseed: -1\r", 2, 7, "must be at least 0"),
        (b"duration: 1s\nseed: !!bool abc\n", 2, 7, "'abc' is not a valid bool"),
        (b"duration: 1s\nseed: !!int ''\n", 2, 7, "is not a valid int"),
        (b"duration: 1s\nseed: !!float abc\n", 2, 7, "is not a valid float"),
        (b"duration: 1s\nseed: " + b"9" * 200_000, 2, 7, "is a number of 200000 characters"),
        (b"duration: 1s\nseed: 0x" + b"f" * 200_000, 2, 7, "is a number of 200002 characters"),
        (b"duration: " + b"9" * 200_000 + b"s\n", 1, 11, "is not a duration"),
        (b"duration: 1s\nname: " + b"n" * 200_000, 2, 7, "must be letters, digits"),
        (b"duration: 1s\n" + b"k" * 900 + b": 1\n", 2, 1, "unknown key 'kkk"),
        (b"duration: 1s\n" + b"k" * 200_000 + b": 1\n", 2, 200_001, "not valid YAML"),
        (b"duration: 1s\npolicy: " + b"p" * 200_000, 2, 9, "unknown preset"),
        (b"duration: 1s\nactors: [{kind: " + b"p" * 9_000 + b"}]", 2, 10, "unknown kind"),
    ],
)
def test_texts_that_are_none(content: bytes, line: int, col: int, message: str, tmp_path: Path) -> None:
    problem = problems_of(tmp_path, content)[0]
    assert message in problem.message
    assert (problem.line, problem.col) == (line, col)
    assert len(problem.message) < 400


def test_a_greek_letter_is_a_micro_sign_too(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    for sign in ("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}", "u"):
        file.write_text(f"duration: 1s\nworkers: {{migrate_page_cost: 10{sign}s}}\n", encoding="utf-8")
        assert load_config(file).scenario.workers.migrate_page_cost == 10_000


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_bytes(b"\xef\xbb\xbfduration: 1s\nseed: -1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert (caught.value.problems[0].line, caught.value.problems[0].col) == (2, 7)


def test_a_long_line_is_shown_around_the_place(tmp_path: Path) -> None:
    text = "duration: 1s\nmachine: {" + " " * 5000 + "cpus: 0" + " " * 5000 + "}\n"
    shown = str(problems_of(tmp_path, text.encode())[0]).splitlines()
    assert len(shown[1]) < 300
    assert shown[1][shown[2].index("^")] == "0"


@pytest.mark.parametrize("option", ["seed=" + "9" * 100_000, ".".join("a" * 5000) + "=1", "seed=ti\0ny"])
def test_hostile_overrides(option: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_config(file, [option])
    assert len(str(caught.value)) < 2000


def test_a_table_of_points_with_other_line_ends(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_bytes(
        "policy.slab_shrink_target_objs\r\n512\r\n# \u2028\r\n1024\r\n".encode()
    )
    file = tmp_path / "job.yaml"
    file.write_text(f"{GOOD}sweep: {{points_file: points.csv}}\n")
    assert load_config(file).nr_points == 2


def test_an_error_in_extends_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("extends: nowhere.yaml\nreplicates: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "job.yaml")
    assert len(caught.value.problems) == 1
    (tmp_path / "job.yaml").write_text("extends: ../up.yaml\nreplicates: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "job.yaml")
    assert len(caught.value.problems) == 1


def test_a_name_is_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("name: base\nduration: 1s\n")
    (tmp_path / "my.yaml").write_text("extends: base.yaml\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nname: other\n")
    assert load_config(tmp_path / "my.yaml").name == "my"
    assert load_config(tmp_path / "own.yaml").name == "other"


DEEP = "[" * 100_000
INNER = ("manifest.json", "journal.jsonl", "lock", "results.nc", "points.nc", "config.yaml", "decisions.json")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("kind", ["pipe", "deep", "folder"])
def test_files_of_a_results_directory_that_are_something_else(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "out", tmp_path / "out")
    place = tmp_path / "out" / name
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place.write_text(DEEP)
    for verb in ("status", "ls", "watch", "knee", "doctor", "consolidate"):
        code, said = spbfast([verb, "." if verb == "ls" else "out"])
        assert "Traceback" not in said, (verb, said)
        assert "internal error" not in said, (verb, said)
        assert code in (0, 2, 4, 5), (verb, said)


@pytest.mark.timeout(60)
def test_brackets_without_end_are_refused_at_once(tmp_path: Path) -> None:
    for text in (DEEP, "{a: " * 100_000, f"x: {DEEP}"):
        (tmp_path / "deep.yaml").write_text(text)
        begin = time.process_time()
        with pytest.raises(ConfigError, match="nested too deeply"):
            load_config(tmp_path / "deep.yaml")
        assert time.process_time() - begin < SECONDS


@pytest.mark.timeout(60)
def test_figures_to_compare_with_that_are_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "deep.json").write_text(DEEP)
    for given in ("pipe", "/dev/zero", "gone", "loop", ".", "deep.json", "job.yaml"):
        code, said = spbfast(["bench", "--against", given])
        assert (code, "Traceback" in said) == (4, False), (given, said)


@pytest.mark.timeout(60)
def test_a_capture_takes_the_place_of_files_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    before = {p.name: p.lstat().st_ino for p in home.iterdir()}
    for place in ("pipe", "gone", "loop", ".", "", "none/x", NAME):
        code, said = spbfast(["capture", "-o", place])
        assert code in (2, 5), (place, said)
        assert "Traceback" not in said
    assert {p.name: p.lstat().st_ino for p in home.iterdir()} == before


def test_a_directory_that_may_not_be_read_hides_no_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "aside").mkdir()
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if path.parent.name == "aside":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    code, said = spbfast(["ls", "."])
    assert code == 0, said
    assert "warning: aside: may not be read, so it is left out" in said
    assert "out " in said
