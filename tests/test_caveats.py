"""Runs that left something out say so: on the console, and first of all on the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spbfast.results.caveats import caveats
from tests.demand_tools import CONFIGS
from tests.test_cli import run

TINY = str(CONFIGS / "tiny.yaml")
SHORT = ("--set", "duration=200ms", "--set", "replicates=2")


def test_nothing_is_said_of_most_results() -> None:
    values = np.zeros((2, 3, 1), np.int64)
    ds = xr.Dataset(
        {"vmstat": (("replicate", "time", "counter"), values)}, {"counter": ["slab_objects_full"]}
    )
    assert caveats(ds) == []
    assert caveats(ds.drop_vars("vmstat")) == []
    assert caveats(ds.assign_coords(counter=["pgfree"])) == []
    ds["vmstat"][1, :, 0] = [0, 1200, 1500]
    (text,) = caveats(ds)
    assert text.startswith("in 1 of 2 runs the slab caches had no room")
    assert "up to 1,500 inodes" in text
    not_done = ds["vmstat"].where(ds["replicate"] == 1)
    assert caveats(ds.assign(vmstat=not_done))[0].startswith("in 1 of 1 runs")


@pytest.mark.compiled
def test_a_run_with_a_full_pool_warns() -> None:
    done = run("run", TINY, *SHORT, "--quiet", "--set", "slab.objects_max=1000")
    assert done.returncode == 0, done.stderr
    assert re.search(r"warning: in 2 of 2 runs .* raise slab\.objects_max", done.stderr)
    assert "warning" not in run("run", TINY, *SHORT, "--quiet").stderr


@pytest.mark.compiled
def test_a_sweep_and_its_page_warn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    full = ("--set", "slab.objects_max=1000", "--set", "executor.kind=serial")
    done = run("sweep", TINY, *SHORT, *full, "-o", str(tmp_path / "out"), "--quiet")
    assert done.returncode == 0, done.stderr
    (said,) = re.findall(r"warning: in (\d+) of (\d+) runs", done.stderr)
    assert int(said[0]) == int(said[1]) > 2
    page = (tmp_path / "out" / "report.html").read_text()
    assert "To know before the numbers" in page
    assert page.index(f"In {said[0]} of {said[0]} runs") < page.index("<figure")
