"""Recordings in which memory is short: counters, memory of the start, page cache that goes, and the page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import measured_vmstat
from experiments.measured_compared import (
    ANY_ORDER,
    COUNTER,
    LISTS,
    RATE,
    TABLE,
    UNLIMITED,
    Compared,
    compared,
    value_of,
)
from experiments.measured_counts import ENDS, TYPES, Span, compaction_ends, older_frees, rates_of
from experiments.measured_page import judge, tables
from experiments.measured_reasons import reason
from experiments.measured_start import (
    RUN,
    WINDOW,
    CacheFit,
    OldBlocks,
    actor_lines,
    cache_fit,
    in_zone,
    lru_mix,
    old_blocks,
)
from experiments.measured_vmstat import (
    counted_between,
    listed_between,
    read_lists,
    read_vmstat,
    sampled_vmstat,
    vmstat_path,
)

from spbfast.config import load_config
from spbfast.constants import PAGE_SIZE, PB_PAGES
from spbfast.fitting.arrivals import ArrivalRate
from spbfast.fitting.fitted_actors import FitReceipt, FittedActor, FittedRecording
from spbfast.fitting.page_requests import PageRequests
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds
from spbfast.observed.page_classes import PageClass
from tests.test_measured import FIRST, SECOND, SPAN, load_of
from tests.test_real_start import TABLE as PAGETYPEINFO
from tests.test_real_start import ZONEINFO

pytestmark = pytest.mark.shell


# -- counters --------------------------------------------------------------------------------------------

LOOKS: dict[str, list] = {
    "names": ["pgsteal_kswapd", "pgfree"],
    "time_ns": [0, 100, 200],
    "values": [[0, 5], [10, 5], [40, 7]],
}


def test_counters_move_evenly_between_two_looks() -> None:
    assert counted_between(LOOKS, 50, 150) == {"pgsteal_kswapd": 20.0, "pgfree": 1.0}
    assert counted_between(LOOKS, 0, 200) == {"pgsteal_kswapd": 40.0, "pgfree": 2.0}
    for moments in ((-1, 100), (100, 201)):
        with pytest.raises(ValueError, match="not looked at during the whole"):
            counted_between(LOOKS, *moments)
    with pytest.raises(ValueError, match="not looked at"):
        counted_between({**LOOKS, "time_ns": [], "values": []}, 0, 1)


def test_this_kernel_is_looked_at_until_the_end(tmp_path: Path) -> None:
    path = vmstat_path(tmp_path / "x.spbcap")
    before = read_vmstat()["pgfree"]
    with sampled_vmstat(path):
        while not (tmp_path / "over").exists():
            (tmp_path / "over").touch()
    data = json.loads(path.read_text())
    assert path.name == "x.vmstat.json"
    assert len(data["time_ns"]) == len(data["values"])
    assert all(row[data["names"].index("pgfree")] >= before for row in data["values"] if data["names"])
    assert {len(row) for row in data["lists"]} <= {0, 12}


TABLES = """Node 0, zone      DMA      0      0      1 {rest}
Node 0, zone   Normal      7      5      2 {rest}
"""


def test_lists_are_those_of_zone_normal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buddyinfo, zoneinfo = tmp_path / "buddyinfo", tmp_path / "zoneinfo"
    buddyinfo.write_text(TABLES.format(rest=" ".join("0" * 8)))
    cpu = "    cpu: {0}\n              count:    {1}\n              high:     99\n"
    zones = [f"Node 0, zone {name:>8}\n  pages free 1\n  pagesets\n" for name in ("DMA", "Normal", "Movable")]
    zoneinfo.write_text(
        zones[0] + cpu.format(0, 1) + zones[1] + cpu.format(0, 20) + cpu.format(1, 22) + zones[2]
    )
    monkeypatch.setattr(measured_vmstat, "BUDDYINFO", buddyinfo)
    monkeypatch.setattr(measured_vmstat, "ZONEINFO", zoneinfo)
    assert read_lists() == [7, 5, 2, *[0] * 8, 42]
    buddyinfo.write_text(TABLES.splitlines()[0].format(rest=""))
    assert read_lists() == []


def test_lists_are_means_of_the_looks_between_two_moments() -> None:
    data = {"time_ns": [0, 10, 20, 30], "lists": [[9, 9], [1, 2], [3, 6], [9, 9]]}
    assert listed_between(data, 10, 30).tolist() == [2.0, 4.0]
    for wrong in ({**data, "time_ns": [50, 60, 70, 80]}, {"time_ns": [10, 20]}):
        with pytest.raises(ValueError, match="not looked at"):
            listed_between(wrong, 10, 30)


def batch(*events: tuple[int, int, int, int]) -> EventBatch:
    rows = np.array(events, np.int64)
    fields = np.zeros((len(rows), MAX_EVENT_FIELDS), np.int64)
    fields[:, :2] = rows[:, 2:]
    return EventBatch(rows[:, 1], np.zeros(len(rows), np.int64), rows[:, 0], fields)


def test_runs_of_compaction_are_those_of_the_zone_by_half() -> None:
    names = ("lost", "mm_compaction_begin", "mm_compaction_end")
    kinds = EventKinds(names, (("events",), ("zone_start", "x"), ("zone_start", "status")))
    events = [batch((1, FIRST, 512, 0), (1, FIRST, 0, 0), (2, FIRST, 512, 8), (2, FIRST, 0, 8))]
    events += [
        batch((2, SECOND, 512, 5), (2, SECOND, 512, 5), (2, SECOND, 512, 1), (2, 2_000_001_000, 512, 8))
    ]
    first, second = compaction_ends(((kinds, one) for one in events), SPAN)
    assert first == {**dict.fromkeys(ENDS.values(), 0), ENDS[8]: 1}
    assert second == {**dict.fromkeys(ENDS.values(), 0), ENDS[5]: 2}
    assert rates_of(((kinds, one) for one in events), SPAN)[0]["compaction runs"] == 1


# -- memory of the start ---------------------------------------------------------------------------------


def requests(*events: tuple[int, int, int, int]) -> PageRequests:
    """Events of time, page frame, order and type, -1 for a free."""
    rows = np.array(sorted(events), np.int64)
    times, pfn, order, mt = rows.T
    flags = np.zeros(len(rows), np.int16)
    moved = np.zeros(len(rows), bool)
    return PageRequests(
        times, pfn, order.astype(np.int8), mt.astype(np.int8), flags, moved, [None], 0, 2_000_000_000
    )


def test_events_of_other_zones_are_left_out() -> None:
    events = in_zone(requests((1, 511, 0, 1), (2, 512, 0, 1), (3, 1535, 0, -1), (4, 1536, 0, -1)), SPAN)
    assert events.pfn.tolist() == [512, 1535]
    assert events.seconds == 2.0


def test_what_is_left_of_the_start_tells_its_lifetime() -> None:
    """Of 200 anonymous pages 40 go in 2 s, of 1 huge page none; a page that came later does not count."""
    classes = np.full(SPAN.pages, PageClass.FREE, np.uint8)
    classes[:200] = PageClass.ANON
    classes[PB_PAGES:] = PageClass.HUGE
    classes[200:300] = PageClass.PAGE_CACHE
    freed = [(10 + i, 512 + i, 0, -1) for i in range(40)]
    cached = [(100 + i, 712 + i, 0, -1) for i in range(30)]
    later = [(200, 900, 0, 1), (300, 900, 0, -1)]
    half = requests(*freed, *cached, *later)
    anon, cache = old_blocks(half, SPAN, classes, True)
    assert (anon.holder, anon.order, anon.blocks, anon.freed) == ("anon", 0, 200, 40)
    assert anon.lifetime == pytest.approx(-2.0 / math.log(0.8))
    assert (cache.holder, cache.blocks, cache.freed) == ("page_cache", 100, 30)
    assert [one.holder for one in old_blocks(half, SPAN, classes, False)] == ["anon"]
    # What such actors free is no longer among what no actor frees.
    span = replace(SPAN, begin_ns=0)
    assert older_frees(half, span) == [[70, 70], [0, 0]]
    left = {(int(PageClass.ANON), 0)}
    assert older_frees(half, span, classes, left) == [[30, 30], [0, 0]]
    assert older_frees(half, span, classes, {*left, (int(PageClass.PAGE_CACHE), None)}) == [[0, 0], [0, 0]]


def in_order(nr: int) -> np.ndarray:
    return np.arange(nr)


def test_reclaim_in_order_comes_to_few_pageblocks_and_from_anywhere_to_many() -> None:
    assert lru_mix(in_order(WINDOW - 1)) is None
    assert lru_mix(in_order(2 * WINDOW)) == 0.0
    rng = np.random.default_rng(3)
    anywhere = rng.permutation(1 << 16)[: 4 * WINDOW // RUN, None] * PB_PAGES + np.arange(RUN)
    runs = in_order(4 * WINDOW).reshape(-1, RUN)
    is_any = np.arange(len(runs)) % 4 == 0
    mixed = np.where(is_any[:, None], anywhere[: len(runs)] + (1 << 30), runs).ravel()
    assert lru_mix(mixed) == pytest.approx(0.25, abs=0.02)
    assert lru_mix(anywhere.ravel()) == pytest.approx(1.0, abs=0.04)
    assert lru_mix(rng.integers(0, 1 << 24, WINDOW)) == 1.0


def fit_of(*kinds: tuple[str, str, int, int, int]) -> FittedRecording:
    """Actors of holder, type, order, blocks and lives that ended."""
    rate = ArrivalRate(1.0, 1.0, 1.0, 1.0)
    actors = tuple(
        FittedActor(f"{holder}-{mt}-{order}", holder, mt, order, blocks, ended, rate, None, None)
        for holder, mt, order, blocks, ended in kinds
    )
    return FittedRecording(Path("x"), actors, FitReceipt(), 2, 0.0)


def test_page_cache_that_reclaim_takes_is_told_by_what_comes_and_goes() -> None:
    """8000 pages come in 2 s, 5 % of them at once; 5600 go, 5000 of them by reclaim, and 400 move."""
    classes = np.full(SPAN.pages, PageClass.FREE, np.uint8)
    classes[:900] = PageClass.PAGE_CACHE
    fit = fit_of(
        ("page_cache", "movable", 0, 7600, 5000),
        ("page_cache", "movable", 2, 100, 0),
        ("page_cache", "unmovable", 0, 50, 0),
        ("anon", "movable", 0, 99, 9),
    )
    half = requests(*((10 + i, 512 + i, 0, -1) for i in range(900)))
    half.moved[:300] = True
    counted = {
        "pgsteal_kswapd": 4900.0,
        "pgsteal_direct": 100.0,
        "pgmigrate_success": 400.0,
        "pgactivate": 80.0,
    }
    found = cache_fit(fit, half, SPAN, classes, counted)
    assert found is not None
    assert found.rate == 4000 * PAGE_SIZE
    assert found.weights == (0.95, 0.0, 0.05)
    assert found.read_once == pytest.approx(0.99)
    assert found.dropped == pytest.approx(600 / 8000)
    assert found.lru_mix is None
    # Where reclaim takes next to nothing, page cache lives and ends like all else.
    idle = {**counted, "pgsteal_kswapd": 600.0}
    assert cache_fit(fit, half, SPAN, classes, idle) is None
    assert cache_fit(fit_of(("anon", "movable", 0, 99, 9)), half, SPAN, classes, counted) is None


def test_its_lines_are_a_job_that_begins_with_them(tmp_path: Path) -> None:
    (tmp_path / "pagetypeinfo").write_bytes(PAGETYPEINFO.read_bytes())
    (tmp_path / "zoneinfo").write_text(ZONEINFO)
    old = [OldBlocks("huge", 9, 12, 3, 7.5), OldBlocks("anon", 0, 40, 20, 0.01)]
    lines = actor_lines(old, CacheFit(4e6, (0.95, 0.0, 0.05), 0.99, 0.075, 0.02), 2)
    head = "duration: 1s\npolicy: mainline\n"
    head += "machine: {from: [pagetypeinfo, zoneinfo], spb_size: 32MiB}\nactors:\n"
    path = tmp_path / "job.yaml"
    path.write_text(head + "\n".join(lines) + "\n")
    scenario = load_config(path).scenario
    huge, anon, cache = scenario.actors
    assert (huge.label, huge.rate, huge.order) == ("start-huge-9", 0.0, 9)
    assert (huge.from_start.blocks, huge.from_start.lifetime) == (12, 7_500_000_000)
    assert (anon.from_start.holder, anon.from_start.lifetime) == ("anon", 10_000_000)
    assert (cache.rate, cache.dropped, cache.read_once) == (4_000_000, 0.075, 0.99)
    assert cache.folio_weights == (0.95, 0.0, 0.05)
    assert (scenario.pagecache.lru_mix, scenario.pagecache.start_order) == (0.02, "pageblocks")
    assert actor_lines([], None, 2) == []


# -- the page --------------------------------------------------------------------------------------------


def short_load(simulated: dict[str, float], recorded: dict[str, float], **others: Any) -> dict[str, Any]:
    """A load of `load_of` with counters, the same in both halves."""
    load = load_of(1000.0, 1000.0)
    for run in load["simulated"]:
        run["counters"] = simulated
    return {**load, "counted": [recorded, recorded], **others}


def row_of(load: dict[str, Any], name: str) -> Compared:
    return next(row for row in compared(load) if row.name == name)


def test_counters_are_compared_beside_rates_and_idle_ones_left_out() -> None:
    load = short_load(
        {"pgsteal_kswapd": 900.0, "compact_stall": 0.0, "thp_split_page": 1.0},
        {"pgsteal_kswapd": 1000.0, "compact_stall": 0.0, "slabs_scanned": 5.0},
    )
    assert [row.name for row in compared(load) if row.group == COUNTER] == ["pgsteal_kswapd", "compact_stall"]
    lines = tables({"loads": {"short": load}})
    assert "| pgsteal_kswapd | 900 | 1,000 | 0.90 | 1,000 | - |" in lines
    assert not any("compact_stall" in line for line in lines)
    assert [f.what for f in judge({"loads": {"short": load}})][:3] == [
        "rates a second, load short",
        "counters a second, load short",
        "lists, means of the half, load short",
    ]


def test_requests_do_not_tell_of_pages_that_moved() -> None:
    still, moving = (short_load({}, {"pgmigrate_success": moved}) for moved in (0.0, 1.0))
    assert row_of(still, "free pages").replayed == 0
    assert row_of(moving, "free pages").replayed is row_of(moving, "fallbacks").replayed is None


def test_reasons_of_compaction_and_reclaim_follow_from_the_numbers() -> None:
    mine = {
        "compact_stall": 20.0,
        "compact_success": 20.0,
        "compact_free_scanned": 500.0,
        "pgmigrate_success": 500.0,
    }
    theirs = {"compact_fail": 9.0, "pgmigrate_success": 600.0, "compact_free_scanned": 6000.0}
    ends = {**dict.fromkeys(ENDS.values(), 0), ENDS[5]: 4}
    load = short_load(mine, theirs, compaction_ends=[ends, ends])
    assert "the kernel looked at 10 pages for each" in reason(row_of(load, "compact_free_scanned"), load)
    stalls = Compared("direct reclaim", RATE, (1.0, 1.0), 400.0, (9000.0, 9000.0))
    assert "left no huge page: 9 such a second, 0 simulated" in reason(stalls, load)
    assert "not explained" in reason(replace(stalls, runs=(4000.0, 4000.0)), load)
    runs = Compared("compact_success", COUNTER, (400.0, 400.0), 200.0, (900.0, 900.0))
    assert reason(runs, load) == f"not explained; of the kernel's runs in this half 4 {ENDS[5]}"


def test_kswapd_that_stops_short_serves_another_zone() -> None:
    """5,000 pages between the marks: 1,000 a time are recorded, as many as that gap simulated."""
    load = short_load({"pgsteal_kswapd": 20_000.0}, {"pgsteal_kswapd": 20_000.0})
    load["before"] = {**load["before"], "marks": {"low": 10_000, "high": 15_000}}
    row = Compared("kswapd woken", RATE, (4.0, 4.0), 20.0, (9.0, 9.0))
    load["half_s"] = 1000.0
    assert "took 1,000 pages each time, simulated 5,000" in reason(row, load)
    load["before"]["marks"]["high"] = 11_000
    assert reason(row, load) == "not explained"


def test_direct_reclaim_of_the_kernel_leaves_room_to_compact() -> None:
    """800 pages a stall are recorded, 32 simulated; beyond 1,229 it is none of compact_gap's."""
    load = short_load({"pgsteal_direct": 64.0, "compact_stall": 0.0, "compact_success": 0.0}, {})
    load["second"] = {**load["second"], "direct reclaim": 2.0}
    for run in load["simulated"]:
        run["rates"]["direct reclaim"] = 2.0
    row = Compared("pgsteal_direct", COUNTER, (64.0, 64.0), 1600.0, (9.0, 9.0))
    assert "the kernel took 800 pages each time, up to the 1,024" in reason(row, load)
    assert reason(replace(row, recorded=2460.0), load).startswith("not explained")


def test_compaction_that_fails_only_where_it_is_limited_is_told() -> None:
    load = short_load(
        {"compact_stall": 50.0, "compact_success": 5.0}, {"compact_stall": 40.0, "compact_success": 38.0}
    )
    free = {"compact_stall": 9.0, "compact_success": 9.0, "pgmigrate_success": 1.0, "compact_fail": 0.0}
    other = {"rates": {"fallbacks": 1.0}, "counters": free, "listed": [0.0] * 12}
    load = {**load, "varied": {UNLIMITED: other}}
    row = Compared("pgmigrate_success", COUNTER, (40.0, 40.0), 1500.0, (9.0, 9.0))
    text = (
        "of direct compactions 95% left a huge page, simulated 10%, and 100% where compaction is not limited"
    )
    assert reason(row, load).startswith(text)
    free["compact_success"] = 3.0
    assert reason(row, load) == "not explained"


def test_what_the_order_of_the_page_cache_decides_is_told() -> None:
    load = short_load({}, {}, varied={ANY_ORDER: {"rates": {}, "listed": [0.0] * 3 + [9.0] + [0.0] * 8}})
    row = Compared("free blocks of order 3", LISTS, (2000.0, 2000.0), 700.0, (9.0, 9.0))
    assert "it follows the order of the page cache" in reason(row, load)
    assert reason(replace(row, recorded=3000.0), load) == "not explained"


def test_what_was_varied_is_said_only_where_it_changes_the_row() -> None:
    other = {
        "rates": {"kswapd woken": 190.0},
        "pageblocks": dict.fromkeys(TYPES, 7),
        "listed": [*range(11), 3],
    }
    load = short_load({}, {}, varied={"the moon is full": other})
    row = Compared("kswapd woken", RATE, (900.0, 901.0), 200.0, (5000.0, 5000.0))
    assert reason(row, load) == "where the moon is full the simulation gives 190"
    assert reason(replace(row, runs=(190.0, 1601.0), recorded=230.0), load).startswith("runs lie between")
    lines = tables({"loads": {"short": {**load, "second": {**load["second"], "kswapd woken": 200.0}}}})
    assert "| the moon is full | 190 |" in lines
    assert "| recorded | 200 |" in lines
    names = ("free pages", "free blocks of order 3", "pageblocks Movable", "pages on per-CPU lists")
    assert [value_of(other, name) for name in names] == [sum(k << k for k in range(11)), 3.0, 7.0, 3.0]


def test_what_was_fitted_of_the_start_is_told() -> None:
    load = short_load({}, {})
    load["fit"] |= {
        "old": [{"holder": "huge", "order": 9, "blocks": 1332, "freed": 213, "lifetime": 71.2}],
        "cache": {"rate": 8e7, "dropped": 0.1, "read_once": 1.0, "lru_mix": 0.02},
    }
    text = "\n".join(tables({"loads": {"short": load}}))
    assert "Of 1,332 blocks of order 9 in use at the start (huge) the first half freed 213" in text
    assert "80 MB/s come in, 10.0% of it goes without reclaim" in text
    assert "and 2.0% of what goes comes from anywhere" in text


def test_the_groups_have_names_of_their_own() -> None:
    assert len({RATE, COUNTER, LISTS, TABLE}) == 4
    assert isinstance(SPAN, Span)
