"""The benchmarks run, report what they promise, and leave a sound zone; their figures are not judged."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spbfast.bench import compared, page_events, suite, work, workload
from spbfast.cli import app
from spbfast.constants import C
from spbfast.errors import ResultsError
from spbfast.model.state.build import PcpConf
from spbfast.model.state.check import check_zone
from spbfast.model.state.slots import blocks_in

pytestmark = pytest.mark.shell

TINY = 1 << 14
# Lines and accesses of a page event, as `spbfast bench --only work` prints them.
WORK = {"churn": (19.17, 63.33), "scattered": (18.84, 62.24), "pcp": (14.53, 58.87)}


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


# -- stored figures, the short bench, counted work ------------------------------------------------------

FIGURES = {"churn_ns": {"4GiB": 30.0}, "range16_mpages_per_s": 100.0, "load": 0.1, "p18_ns": None}


def stored(folder: Path, **changes: object) -> Path:
    path = folder / "figures.json"
    kept = json.loads(compared.stored_text(FIGURES, "0"))
    kept["machine"] |= changes
    path.write_text(json.dumps(kept))
    return path


def test_ratios_are_below_one_where_today_is_better(tmp_path: Path) -> None:
    then = compared.read_stored(stored(tmp_path))
    now = {
        "churn_ns": {"4GiB": 24.0, "32GiB": 1.0},
        "range16_mpages_per_s": 125.0,
        "load": 5.0,
        "p18_ns": 3.0,
    }
    assert compared.ratios_to(then, now) == {
        "churn_ns.4GiB": (30.0, 24.0, pytest.approx(0.8)),
        "range16_mpages_per_s": (100.0, 125.0, pytest.approx(0.8)),
    }


def test_runs_of_other_lengths_are_not_compared_by_their_seconds() -> None:
    then = {"flagship": {"simulated_s": 480, "wall_s": 20.0, "ns_per_event": 60.0}}
    now = {"flagship": {"simulated_s": 120, "wall_s": 5.0, "ns_per_event": 66.0}}
    assert set(compared.ratios_to(then, now)) == {"flagship.ns_per_event"}
    assert set(compared.ratios_to(then, then)) == {"flagship.wall_s", "flagship.ns_per_event"}


def test_figures_of_another_machine_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="another machine .cpus 512 there"):
        compared.read_stored(stored(tmp_path, cpus=512))
    (tmp_path / "other.json").write_text("{}")
    for path in (tmp_path / "other.json", tmp_path / "absent", tmp_path):
        with pytest.raises(ResultsError, match="bench --save FILE"):
            compared.read_stored(path)


def test_the_command_saves_and_compares(tiny_sizes: None, tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    run = CliRunner().invoke
    assert run(app, ["bench", "--only", "pcp", "--save", str(path)]).exit_code == 0
    again = run(app, ["bench", "--only", "pcp", "--against", str(path)])
    assert again.exit_code == 0
    assert re.search(r"pcp_ns +\S+ +\S+ +\d\.\d\d", again.output)
    told = json.loads(run(app, ["bench", "--only", "pcp", "--json", "--against", str(path)]).stdout)
    assert set(told["against"]) == {"pcp_ns"}
    assert run(app, ["bench", "--only", "everything"]).exit_code == 2
    assert run(app, ["bench", "--save", str(tmp_path / "no" / "f.json")]).exit_code == 2


def test_a_short_bench_leaves_out_what_would_not_end_in_time(
    tiny_sizes: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in ("flagship", "start", "work"):
        monkeypatch.setitem(suite.MEASURES, group, lambda effort, say: {})
    monkeypatch.setitem(suite.NEEDED_S, "scattered 247GiB", 1000)
    assert suite.run_bench() == 0
    out, err = capsys.readouterr()
    assert "scattered 247GiB  left out" in out
    assert "churn     247GiB" in out
    assert "p18" not in out
    assert "1 of 6: churn" in err


def test_the_flagship_of_a_short_bench_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(suite, "bench_flagship", lambda *given: asked.append(given) or "no")
    suite.MEASURES["flagship"](suite.Effort(False, False), lambda text: None)
    suite.MEASURES["flagship"](suite.Effort(False, True), lambda text: None)
    assert asked == [(False, suite.SHORT_S), (False,)]


def test_watched_arrays_count_accesses_and_lines() -> None:
    tally, roots = work.LineTally(), {}
    table = work.watched(np.zeros((64, 2), np.int32), tally, roots)
    column = work.watched(np.zeros(64, np.int64)[::2], tally, roots)
    assert table[3, 1] == 0
    table[3, 0] = 5
    assert (tally.accesses, len(tally._touched)) == (2, 1)
    assert table[8][1] == 0  # the next line, through a view
    column[7] = 1  # byte 112 of another array
    table[:16] = 0  # the first two lines again
    assert tally.accesses == 5
    tally.end_event()
    assert tally.lines == 3


def test_work_needs_interpreted_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from spbfast.jit import decorators

    monkeypatch.setattr(decorators, "INTERPRETED", False)
    with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
        work.count_work()


def test_the_work_of_a_page_event_is_what_it_was() -> None:
    """The smoke bench: counts, not times. More than a tenth more work is a change that wants a reason."""
    found = work.work_of_another_process()
    assert not isinstance(found, str), found
    assert set(found) == set(WORK)
    for name, (lines, accesses) in WORK.items():
        assert found[name]["events"] >= 390, name
        assert lines / 1.5 < found[name]["lines"] <= 1.1 * lines, name
        assert accesses / 1.5 < found[name]["accesses"] <= 1.1 * accesses, name
