"""The benchmarks run, report what they promise, and leave a sound zone; their figures are not judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spbfast.bench import page_events, suite, workload
from spbfast.constants import C
from spbfast.model.state.build import PcpConf
from spbfast.model.state.check import check_zone
from spbfast.model.state.slots import blocks_in

TINY = 1 << 14


@pytest.fixture
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size is 64 MiB, so that the tables are quick and can run interpreted."""
    monkeypatch.setattr(page_events, "SIZES", dict.fromkeys(page_events.SIZES, TINY))
    for module in (page_events, workload):
        monkeypatch.setattr(module, "RANGE_PAGES", (16, 64))
    monkeypatch.setattr(workload.Population.__init__, "__defaults__", (8, None, False))
    monkeypatch.setenv("SPBFAST_GOLDEN_DIR", "")


def test_rows_are_page_events_and_use_each_slot_once() -> None:
    made = workload.Population(TINY, spb_pb=8)
    rows = made.rows(400)
    assert np.unique(rows).size == rows.size
    before = int((blocks_in(made.zone.slots) >= 0).sum())
    assert made.run(rows) == rows.size
    assert int((blocks_in(made.zone.slots) >= 0).sum()) == before
    assert np.all(blocks_in(made.zone.slots, made.live) >= 0)
    assert np.all(blocks_in(made.zone.slots, made.empty) == -1)
    check_zone(made.zone, made.policy)


def test_the_population_fills_its_share() -> None:
    made = workload.Population(TINY, spb_pb=8)
    used = 1 - made.zone.count[C.FREE_PAGES] / TINY
    assert used == pytest.approx(workload.FULL, abs=0.02)


def test_churn_through_per_cpu_lists_leaves_a_sound_zone() -> None:
    made = workload.Population(TINY, spb_pb=8, pcp=PcpConf(batch=8, high_min=16, high_max=64))
    rows = made.rows(200)
    assert made.run(rows) == rows.size
    check_zone(made.zone, made.policy)


def test_the_yardstick_visits_every_line() -> None:
    clocked = workload.measure_yardstick(64 * 50, loads=100)
    assert len(clocked.values) == 5
    assert clocked.best <= clocked.median


def test_json_has_the_promised_keys(tiny_sizes: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.run_bench(as_json=True, quick=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["churn_ns"]["4GiB"] > 0
    assert found["scattered_ns"]["4GiB"] > 0
    assert found["yardstick_ns"]["4GiB"] > 0
    assert found["pcp_ns"] > 0
    assert found["range16_mpages_per_s"] > 0
    assert (found["p18_ns"], found["flagship"], found["compile_s"]) == (None, None, None)


def test_the_table_says_what_the_flagship_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"simulated_s": 480.0, "wall_s": 22.78, "boot_s": 1.15, "page_events": 352_087_739}
    figures |= {"state_bytes": 1_229_523_454, "resident_bytes": 1_060_462_592}
    figures["ns_by_phase"] = {"generation": 2.11, "slab": 6.69}
    monkeypatch.setattr(suite, "bench_flagship", lambda quick: figures)
    assert suite.run_bench(only="flagship") == 0
    out = capsys.readouterr().out
    assert "480 simulated s, 352 million page events in 22.8 s, 1.1 s of it boot" in out
    assert "ns a page event: generation 2.1, slab 6.7" in out
    assert "memory: 0.99 GiB taken, tables of 1.15 GiB asked for" in out


def test_the_table_says_why_something_is_left_out(
    tiny_sizes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite.run_bench(only="p18") == 0
    assert "set SPBFAST_GOLDEN_DIR" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown group"):
        suite.run_bench(only="everything")


def test_clock_divides_by_the_units_done() -> None:
    clocked = workload.clock(lambda: 1000, 3)
    assert len(clocked.values) == 3
    assert 0 <= clocked.best <= clocked.median
