"""docs/calibration.md: each number of the machine file has its origin, and the page says what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from experiments.calibration_page import METRICS, page
from experiments.inputs import ASSUMED, MEASURED, SOURCE, Input, read_inputs

from spbfast.config import load_config
from tests.sweep_tools import ROOT

RAW = ROOT / "results" / "studies" / "uncertain.json"
MACHINE = ROOT / "configs" / "base" / "devvm.yaml"


def test_inputs_come_from_the_comments_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(
        "name: x\n"
        "machine:\n"
        "  memory: 1GiB # source: a page; it says so\n"
        "  cpus: 8 # assumed, range 2..16; of the host\n"
        "slab:\n"
        "  caches:\n"
        "    # sizes measured\n"
        "    - {name: dentry, object_size: 192B}\n"
        "    - {name: inode, object_size: 1kB}\n"
        "actors:\n"
        "  - kind: guests\n"
        "    burst: {on: 1s} # assumed\n"
    )
    assert read_inputs(path) == [
        Input("machine.memory", "1GiB", SOURCE, "a page; it says so", ""),
        Input("machine.cpus", "8", ASSUMED, "of the host", "2..16"),
        Input("slab.caches[dentry]", "{name: dentry, object_size: 192B}", MEASURED, "sizes measured", ""),
        Input("slab.caches[inode]", "{name: inode, object_size: 1kB}", MEASURED, "sizes measured", ""),
        Input("actors.guests.burst", "{on: 1s}", ASSUMED, "", ""),
    ]


def test_a_number_without_origin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text("machine:\n  memory: 1GiB # assumed\n  cpus: 8\n")
    with pytest.raises(ValueError, match=r"machine\.yaml:3: machine\.cpus has no comment"):
        read_inputs(path)


def test_the_page_is_made_from_the_numbers() -> None:
    text = (ROOT / "docs" / "calibration.md").read_text()
    slab = json.loads(RAW.with_name("slab.json").read_text())
    assert text == page(read_inputs(MACHINE), json.loads(RAW.read_text()), slab)


def test_what_is_screened_is_in_the_job_and_assumed_in_the_machine_file() -> None:
    screening = json.loads(RAW.read_text())
    job = load_config(ROOT / "configs" / "uncertain.yaml")
    keys = {row[0] for row in screening["metrics"]["tainted_end"]["inputs"]}
    assert keys == set(job.ranges)
    assert list(screening["metrics"]) == list(METRICS)
    assert screening["replicates"] == job.replicates
    assumed = {i.key for i in read_inputs(MACHINE) if i.origin != SOURCE}
    # What the large machine does not set stands in the small machine's file, as assumed there.
    own = {"reclaim.barred_free", "slab.refault_share", "actors.daemons.pinned.share"}
    assert keys - own - {"actors.network.order3_share"} <= assumed
