"""Snapshots of superpageblocks add up to the gauges, change no result, and fit machines of several sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.constants import SpbCategory
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate
from spbfast.outputs.variables import VARIABLES, at_level, check_run
from spbfast.results.open import open_results
from spbfast.sweep import run_sweep
from tests.demand_tools import CONFIGS, scenario

SPAN = "150ms" if INTERPRETED else "2s"
NAMES = [name for name, var in VARIABLES.items() if "spb" in var.dims]


def test_snapshots_add_up_to_the_gauges() -> None:
    pinned = scenario(policy="v1@30", duration=SPAN, workers__pinned_share=0.01)
    given = pinned.model_copy(update={"output_every": 20_000_000})
    run = run_replicate(given, 1, 0, snapshots=True)
    data = run.data
    assert check_run(data, run.coords) == []
    assert data["n_spb"].tolist() == [len(run.coords["spb"])] == [8]
    assert data["spb_free_pages"][0].sum(axis=0).tolist() == data["nr_free_pages"].tolist()
    assert (512 * data["spb_free"][0].sum(axis=0)).tolist() == data["nr_free_pages_blocks"].tolist()
    assert data["spb_pinned_pages"][0].sum(axis=0).tolist() == data["pinned_pages"].tolist()
    assert data["pinned_pages"].max() > 0
    for name, category in (("spb_tainted", SpbCategory.TAINTED), ("spb_clean", SpbCategory.CLEAN)):
        assert (data["spb_category"][0] == category).sum(axis=0).tolist() == data[name].tolist()
    marked = data["spb_content"][:, 0].sum(axis=1)
    assert marked.tolist() == data["pageblocks_with_content_bit"].tolist()
    assert (data["pageblocks_with_pages_in_use"] <= data["pageblocks_with_content_bit"]).all()


def test_levels_say_what_is_kept() -> None:
    assert len(NAMES) == 5
    every = list(VARIABLES)
    assert set(NAMES) | {"n_spb"} <= set(at_level(every, "spb"))
    assert not (set(NAMES) | {"n_spb"}) & set(at_level(every, "series"))
    assert not (set(NAMES) | {"n_spb"}) & set(at_level(every, "summary"))


@pytest.mark.compiled
def test_machines_of_several_sizes_are_padded(tmp_path: Path) -> None:
    text = (CONFIGS / "tiny.yaml").read_text().replace("memory: 128MiB, ", "")
    head, tail = text[: text.index("sweep:")], text[text.index("output:") :]
    path = tmp_path / "sizes.yaml"
    path.write_text(f"{head}sweep: {{grid: {{machine.memory: [128MiB, 112MiB]}}}}\n{tail}")
    job = load_config(path, ["duration=20ms", "replicates=1", "output.every=10ms"])
    outcome = run_sweep(job, tmp_path / "out", quiet=True)
    ds = open_results(outcome.directory)
    sizes = ds.n_spb.isel(replicate=0, zone=0).values.tolist()
    assert sorted(sizes) == [7, 8]
    assert ds.sizes["spb"] == 8
    small = ds.spb_free.isel(point=sizes.index(7), replicate=0, zone=0)
    assert np.isnan(small.isel(spb=7)).all()
    assert small.isel(spb=slice(0, 7)).notnull().all()
