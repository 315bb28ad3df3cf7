"""Damaged files in a results directory: noticed, set aside, their runs done again; never a wrong number."""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spbfast.cli.repair import check_directory, repair_directory
from spbfast.errors import ResultsError
from spbfast.results.open import open_results
from spbfast.sweep import consolidate, results_digest, run_sweep
from spbfast.sweep.run.progress import Progress
from spbfast.sweep.store.directory import Store
from spbfast.sweep.store.inputs import load_stored
from spbfast.sweep.store.receipts import receipt_in, summed_line
from spbfast.sweep.store.seal import SEAL_BYTES, has_good_seal
from spbfast.sweep.store.shards import fault_of, read_shard
from spbfast.sweep.store.view import look
from tests.damage_tools import DAMAGES, cut, flip, make_old, zero
from tests.sweep_tools import ENGINE, make_job

pytestmark = pytest.mark.shell

Damage = Callable[[Path], None]


class Heard(Progress):
    """Keeps what a sweep says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


def again(directory: Path) -> tuple[Any, str]:
    """The same sweep once more, and what it said."""
    heard = Heard()
    return run_sweep(load_stored(directory), directory, engine=ENGINE, progress=heard), "\n".join(heard.lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep of 15 runs in four shards."""
    folder = tmp_path_factory.mktemp("damage")
    run_sweep(make_job(folder, "executor.batch=4"), folder / "out", engine=ENGINE, quiet=True)
    return folder / "out"


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "out"))


def shards(out: Path) -> list[Path]:
    return Store(out).shard_paths()


def everywhere(path: Path) -> list[Damage]:
    """Damage of many kinds at many places, the seal included."""
    size = path.stat().st_size
    rng = random.Random(3)
    places = [0, 8, 512, size // 2, size - SEAL_BYTES - 1, size - SEAL_BYTES, size - 16, size - 1]
    places += [rng.randrange(size) for _ in range(40)]
    found: list[Damage] = [lambda p, at=at: flip(p, at) for at in places]
    found += [lambda p, at=at: cut(p, at) for at in [*places[1:], size - SEAL_BYTES - 7, size - 7]]
    found += [lambda p, at=at: zero(p, at) for at in places[:12]]
    return found


def test_damage_anywhere_in_a_shard_is_noticed(out: Path) -> None:
    path = shards(out)[0]
    content = path.read_bytes()
    assert fault_of(path) == ""
    for damage in everywhere(path):
        damage(path)
        assert path.read_bytes() != content
        assert "damaged" in fault_of(path) or "not a readable shard" in fault_of(path)
        with pytest.raises(ResultsError):
            read_shard(path)
        path.write_bytes(content)


def test_a_shard_in_place_of_another_is_noticed(out: Path) -> None:
    first, second = shards(out)[:2]
    shutil.copyfile(second, first)
    assert "does not match its digest" in fault_of(first)


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_same_command_makes_up_for_a_damaged_shard(whole: Path, out: Path, kind: str) -> None:
    victim = shards(out)[1]
    cells = len(read_shard(victim).cells)
    DAMAGES[kind](victim, random.Random(5))
    outcome, said = again(out)
    assert (outcome.exit_code, outcome.n_new, outcome.n_ok) == (0, cells, 15)
    assert f"set aside {victim.name}" in said
    assert results_digest(out) == results_digest(whole)
    assert victim.with_suffix(".unreadable").exists()
    assert again(out)[0].n_new == 0


def test_a_second_damage_of_the_same_shard_is_set_aside_beside_the_first(out: Path) -> None:
    victim = shards(out)[0]
    content = victim.read_bytes()
    for _ in range(2):
        victim.write_bytes(b"rubbish")
        Store(out).scan()
        victim.write_bytes(content)
    assert len(list(victim.parent.glob(f"{victim.stem}.unreadable*"))) == 2


def test_status_and_doctor_find_a_damaged_shard_and_repair_sets_it_right(whole: Path, out: Path) -> None:
    victim = shards(out)[2]
    cells = len(read_shard(victim).cells)
    flip(victim, victim.stat().st_size // 2)
    found = look(out)
    assert (found.state, found.missing) == ("stopped", cells)
    bad = [f for f in check_directory(out) if f.level == "problem"]
    assert [f.what for f in bad] == ["shards"]
    assert victim.name in bad[0].text
    done = "\n".join(repair_directory(out))
    assert f"set {victim.name} aside" in done
    assert not [f for f in check_directory(out) if f.level == "problem"]
    assert again(out)[0].n_new == cells
    assert results_digest(out) == results_digest(whole)


def test_consolidation_leaves_a_damaged_shard_out_and_says_so(out: Path) -> None:
    victim = shards(out)[0]
    flip(victim, 3000)
    (out / "results.nc").unlink()
    with pytest.warns(UserWarning, match=f"1 shards are damaged and left out, such as .*{victim.name}"):
        consolidate(out)
    with pytest.warns(UserWarning, match="are missing"):
        ds = open_results(out)
    assert int((ds.status == 5).sum()) > 0
    assert not victim.exists()


def test_reading_results_leaves_a_damaged_shard_where_it_is(out: Path) -> None:
    victim = shards(out)[0]
    flip(victim, 3000)
    (out / "results.nc").unlink()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        open_results(out)
    assert ["damaged" in str(w.message) for w in said] == [True, False]
    assert victim.exists()


@pytest.mark.parametrize("kind", sorted(set(DAMAGES) - {"another's"}))
def test_a_damaged_results_file_is_refused_alone_and_replaced_from_the_shards(out: Path, kind: str) -> None:
    good = open_results(out)
    path = out / "results.nc"
    DAMAGES[kind](path, random.Random(11))
    with pytest.raises(ResultsError):
        open_results(path)
    with pytest.raises(ResultsError):
        results_digest(out)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = open_results(out)
    assert ds.drop_attrs().identical(good.drop_attrs())
    if path.is_dir():
        shutil.rmtree(path)
    assert again(out)[0].exit_code == 0
    assert open_results(path).drop_attrs().identical(good.drop_attrs())


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_a_damaged_table_of_points_is_named_and_repaired(whole: Path, out: Path, kind: str) -> None:
    path = out / "points.nc"
    if kind == "another's":
        shutil.copyfile(out / "results.nc", path)
    else:
        DAMAGES[kind](path, random.Random(2))
    with pytest.raises(ResultsError, match=r"points\.nc.*doctor DIR --repair"):
        consolidate(out)
    if path.is_dir():
        shutil.rmtree(path)
    assert any("points.nc" in line for line in repair_directory(out))
    assert results_digest(out) == results_digest(whole)


def test_a_line_of_the_journal_with_any_byte_changed_is_not_believed() -> None:
    line = summed_line({"batch": "0123456789abcdef", "statuses": "01", "cells": ["a:0", "b:1"]})
    assert receipt_in(line) == {"batch": "0123456789abcdef", "statuses": "01", "cells": ["a:0", "b:1"]}
    for at in range(len(line)):
        for bit in (1, 4, 16):
            other = line[:at] + chr(ord(line[at]) ^ bit) + line[at + 1 :]
            found = receipt_in(other)
            same = found is not None and {k: found[k] for k in ("batch", "statuses", "cells")}
            assert found is None or same == receipt_in(line)


def test_a_damaged_journal_costs_nothing(whole: Path, out: Path) -> None:
    journal = out / "journal.jsonl"
    content = journal.read_bytes()
    rng = random.Random(1)
    for _ in range(30):
        spoilt = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        journal.write_bytes(spoilt)
        status, _ = Store(out).scan()
        assert len(status) == 15
        assert set(status.values()) == {0}
    assert again(out)[0].n_new == 0
    assert results_digest(out) == results_digest(whole)


def test_an_old_directory_without_seals_opens_and_continues(whole: Path, out: Path) -> None:
    for path in [*shards(out), out / "points.nc", out / "results.nc"]:
        make_old(path)
    lines = [receipt_in(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    import json

    (out / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    good = open_results(whole)
    os.utime(out / "results.nc")
    assert open_results(out).drop_attrs().identical(good.drop_attrs())
    assert not [f for f in check_directory(out) if f.level == "problem"]
    outcome, said = again(out)
    assert (outcome.n_new, outcome.exit_code) == (0, 0)
    assert "set aside" not in said
    assert results_digest(out) == results_digest(whole)
    assert has_good_seal(out / "results.nc", "results")


def test_an_old_shard_that_is_damaged_does_not_lock_the_directory(whole: Path, out: Path) -> None:
    """Also where only its data are, which nothing reads before results.nc is written."""
    victim = shards(out)[0]
    make_old(victim)
    content = victim.read_bytes()
    for at in range(0, len(content), len(content) // 25):
        victim.write_bytes(content)
        flip(victim, at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            consolidate(out, out / "elsewhere.nc")
    victim.write_bytes(content)
    assert again(out)[0].exit_code == 0
    assert results_digest(out) == results_digest(whole)
