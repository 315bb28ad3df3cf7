"""What a slab shrink brings back: the counting by known answers, the tree, the simulation and the section."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments.slab_measured import caches_of, came_back, look_up, made, make_tree
from experiments.slab_page import at_share, section, shares_of
from experiments.slab_simulated import JOB, simulated

from spbfast.config import load_config

RAW = Path(__file__).resolve().parents[1] / "results" / "studies" / "slab.json"
HEAD = "slabinfo - version: 2.1\n# name            <active_objs> <num_objs> ...\n"
ROW = "{} {} {} {} {} {} : tunables    0    0    0 : slabdata   {} {}      0\n"


def info(inodes: int, slabs: int, dentries: int, pages: int) -> str:
    inode = ROW.format("ext4_inode_cache", inodes, slabs * 14, 1128, 14, 4, slabs, slabs)
    return HEAD + inode + ROW.format("dentry", dentries, pages * 21, 192, 21, 1, pages, pages)


def test_caches_are_rows_of_slabinfo() -> None:
    caches = caches_of(info(1400, 100, 2100, 101))
    assert list(caches) == ["ext4_inode_cache", "dentry"]
    inode = caches["ext4_inode_cache"]
    assert (inode.active, inode.objects, inode.per_slab, inode.slabs, inode.pages) == (
        1400,
        1400,
        14,
        100,
        400,
    )
    assert caches["dentry"].pages == 101


NAMES = ["dentry", "ext4_inode_cache"]


def test_what_came_back_is_the_difference_of_two_looks() -> None:
    empty, full = (caches_of(info(*row)) for row in ((0, 0, 210, 10), (1400, 100, 2310, 110)))
    assert made(empty, full, NAMES) == {
        "dentry": {"objects": 2100, "pages": 100},
        "ext4_inode_cache": {"objects": 1400, "pages": 400},
    }
    found = came_back(full, caches_of(info(350, 50, 2310, 110)), NAMES)
    inode = found["ext4_inode_cache"]
    assert (inode["objects"], inode["pages"]) == (1050, 200)
    assert (inode["kept_objects"], inode["kept_pages"]) == (0.25, 0.5)
    assert inode["pages_packed"] == pytest.approx(4 / 14)
    assert (found["dentry"]["objects"], found["dentry"]["kept_objects"]) == (0, 1.0)
    # 1050 of 3710 objects, 200 of 510 pages
    assert shares_of([found]) == [[1050 / 3710, 200 / 510]]


def test_pages_at_a_share_lie_between_two_looks() -> None:
    rows = [[0.0, 0.0], [0.2, 0.1], [0.4, 0.3]]
    assert at_share(rows, 0.3) == pytest.approx(0.2)
    assert at_share(rows, 0.2) == at_share([[0.2, 0.1]], 0.2) == 0.1
    assert at_share(rows, 0.41) is at_share(rows[1:], 0.1) is None


def test_a_tree_has_as_many_files_as_asked_for(tmp_path: Path) -> None:
    make_tree(tmp_path, 250)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 250
    assert sum(path.is_dir() for path in tmp_path.rglob("*")) == 3
    look_up(tmp_path)


@pytest.mark.shell
def test_the_simulated_tree_has_the_caches_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(correlation=0.9, total=10_000_000))
    slab = load_config(tmp_path / "job.yaml").scenario.slab
    assert [(c.objects(c.order), c.order) for c in slab.caches] == [(14, 2), (21, 0)]


@pytest.mark.compiled
def test_pages_come_back_only_where_age_follows_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.slab_simulated.CORRELATIONS", (1.0, 0.5))
    monkeypatch.setattr("experiments.slab_simulated.REPLICATES", 1)
    found = simulated(150_000)
    most = {name: max(row[0] for row in rows) for name, rows in found.items()}
    assert all(share > 0.1 for share in most.values())
    ordered, mixed = (at_share(found[name], 0.1) for name in ("1.0", "0.5"))
    assert ordered is not None
    assert mixed is not None
    assert 0.0 <= mixed < 0.005 < ordered < 0.1


def test_the_section_is_made_of_the_numbers() -> None:
    raw = json.loads(RAW.read_text(encoding="utf-8"))
    lines = section(raw)
    disk = raw["places"]["disk"]
    freed = disk["dropped"]["ext4_inode_cache"]
    row = next(line for line in lines if line.startswith("| disk | drop_caches | ext4_inode_cache |"))
    assert f"| {freed['objects']:,} | {freed['kept_objects']:.1%} |" in row
    assert sum(line.startswith("| tmpfs |") for line in lines) == 2
    assert RAW.stat().st_size < 200_000
