"""A measured machine against its own recordings: the arithmetic by known answers, page and configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import COMES_OUT, DIFFERS, UNCHECKED, measured_page
from experiments.measured import job_of
from experiments.measured_compared import LISTS, PER_CPU, RATE, TABLE, Compared, compared, lists_by_row
from experiments.measured_counts import (
    RATES,
    TYPES,
    Span,
    drained_from_before,
    most_given_back,
    older_frees,
    rates_of,
    tables_text,
)
from experiments.measured_page import judge, tables
from experiments.measured_reasons import reason

from spbfast.config import load_config
from spbfast.fitting import fit_recording
from spbfast.fitting.page_requests import PageRequests
from spbfast.model.engine import run_replicate
from spbfast.observed import read_dump
from spbfast.observed.event_columns import MAX_EVENT_FIELDS, EventBatch, EventKinds

ROOT = Path(__file__).resolve().parents[1]
RAW = ROOT / "results" / "studies" / "measured.json"
MACHINE = ROOT / "configs" / "base" / "measured-vm.yaml"
KINDS = EventKinds(
    (
        *("lost", "mm_page_alloc", "mm_page_free", "mm_page_pcpu_drain"),
        *("mm_page_alloc_extfrag", "mm_compaction_begin"),
    ),
    (("events",), ("pfn", "order", "flags", "type"), *(("pfn", "order"),) * 3, ("zone",)),
)
LOST, ALLOC, FREE, DRAIN, EXTFRAG, COMPACTION = range(6)
SPAN = Span(512, 1024, 1_000, 2_000_001_000, np.ones(2, bool))  # two halves of a second
FIRST, SECOND = 5_000, 1_500_000_000  # a moment in each


def batch(*events: tuple[int, int, int, int]) -> EventBatch:
    """Events of kind, time in ns, page frame and order."""
    rows = np.array(events, np.int64)
    fields = np.zeros((len(rows), MAX_EVENT_FIELDS), np.int64)
    fields[:, :2] = rows[:, 2:]
    return EventBatch(rows[:, 1], np.zeros(len(rows), np.int64), rows[:, 0], fields)


def test_rates_are_those_of_the_zone_by_half() -> None:
    events = [
        batch((ALLOC, 0, 600, 0), (ALLOC, FIRST, 600, 3), (ALLOC, FIRST, 511, 0), (FREE, FIRST, 600, 3)),
        batch((ALLOC, SECOND, 600, 0), (ALLOC, SECOND, 1535, 1), (ALLOC, SECOND, 1536, 9)),
        batch((EXTFRAG, SECOND, 600, 0), (COMPACTION, SECOND, 0, 0), (FREE, 2_000_001_000, 600, 0)),
    ]
    first, second = rates_of(((KINDS, one) for one in events), SPAN)
    assert {name: n for name, n in first.items() if n} == {
        **{"blocks handed out": 1, "pages handed out": 8, "blocks freed": 1, "pages freed": 8}
    }
    assert {name: n for name, n in second.items() if n} == {
        **{"blocks handed out": 2, "pages handed out": 3, "fallbacks": 1, "compaction runs": 1}
    }
    assert tuple(first) == RATES


def test_rates_are_those_of_any_number_of_equal_parts() -> None:
    events = [batch((ALLOC, 1_000 + i * 100_000_000 + 1, 600, 0)) for i in (0, 0, 3, 19, 20)]
    parts = rates_of(((KINDS, one) for one in events), SPAN, 20)
    assert [part["blocks handed out"] for part in parts] == [20, 0, 0, 10, *[0] * 15, 10]
    assert SPAN.edges(2).tolist() == [SPAN.begin_ns, SPAN.middle_ns, SPAN.end_ns]


def test_what_left_per_cpu_lists_first_lay_there_before() -> None:
    """A drain behind an allocation or a free is of a page that the recording put there."""
    events = [
        batch((FREE, FIRST, 600, 0), (DRAIN, FIRST, 600, 0), (DRAIN, FIRST, 601, 0), (DRAIN, FIRST, 601, 0)),
        batch((ALLOC, SECOND, 601, 0), (DRAIN, SECOND, 704, 3), (DRAIN, SECOND, 1536, 0)),
    ]
    assert drained_from_before(((KINDS, one) for one in events), SPAN) == [1, 0, 0, 1, *[0] * 7]


def test_frees_of_what_was_handed_out_before_are_counted_by_half() -> None:
    def column(*values: int, kind: type = np.int64) -> np.ndarray:
        return np.array(values, kind)

    times = column(0, FIRST, FIRST + 1, SECOND, SECOND + 1, SECOND + 2)
    pages = column(700, 600, 700, 600, 800, 511)
    events = PageRequests(
        times,
        pages,
        column(0, 0, 2, 0, 4, 0, kind=np.int8),
        column(1, 1, -1, -1, -1, -1, kind=np.int8),
        column(*[0] * 6, kind=np.int16),
        column(*[0] * 6, kind=np.bool_),
        [None],
        0,
        SECOND + 2,
    )
    # Of 600 the allocation was seen; that of 700 came before the span; 511 lies in another zone.
    assert older_frees(events, SPAN) == [[1, 4], [1, 16]]


def test_the_busiest_hundredth_of_a_second_is_found() -> None:
    """9 pages come back in the first, 16 less 2 in the second; order 9 has no per-CPU lists."""
    seconds = np.array([0.001, 0.009, 0.0101, 0.011, 0.019, 0.012])
    order = np.array([0, 3, 3, 3, 1, 9])
    is_free = np.array([True, True, True, True, False, True])
    assert most_given_back(seconds, order, is_free) == 14
    assert most_given_back(seconds, order, ~is_free) == 0
    assert most_given_back(seconds[:0], order[:0], is_free[:0]) == 0


def load_of(simulated: float, recorded: float, **others: Any) -> dict[str, Any]:
    """A load's numbers, all 0 but pages handed out in two runs, and what is given."""
    zero = dict.fromkeys(RATES, 0.0)
    table = {
        "free": {mt: [0] * 11 for mt in TYPES},
        "pageblocks": dict.fromkeys(TYPES, 100),
        "per_cpu_pages": 0,
    }
    runs = [
        {
            "rates": {**zero, "pages handed out": simulated + by},
            "given_back": 10,
            "start": table,
            "pageblocks": table["pageblocks"],
            "listed": [0.0] * 12,
        }
        for by in (-1, 1)
    ]
    return {
        "half_s": 10.0,
        "first": {**zero, "pages handed out": 1000.0},
        "second": {**zero, "pages handed out": recorded},
        "before": table,
        "after": table,
        "tenths": {name: [0.0] for name in lists_by_row([0.0] * 12)},
        "older": [[0, 0], [0, 0]],
        "given_back": 10,
        "drained": [0] * 11,
        "simulated": runs,
        "replayed": {
            "rates": {"fallbacks": 0.0},
            "pageblocks": table["pageblocks"],
            "listed": [0.0] * 12,
        },
        "fit": {"actors": 1, "blocks": 1, "lost": 0, "not_identified": []},
        **others,
    }


def test_within_a_fifth_is_near_and_beyond_is_not() -> None:
    for simulated, differs in ((1200.0, False), (1201.0, True), (800.0, False), (799.0, True)):
        row = compared(load_of(simulated, 1000.0))[1]
        assert (row.name, row.simulated, row.ratio) == ("pages handed out", simulated, simulated / 1000)
        assert row.differs is differs
    nothing = Compared("x", "", (0.0, 0.0), 0.0, (0.0, 0.0))
    assert (nothing.ratio, nothing.differs) == (1.0, False)
    assert Compared("x", "", (1.0,), 0.0, (0.0, 0.0)).differs


def reason_of(row: Compared, **others: Any) -> str:
    return reason(row, load_of(1.0, 1.0, **others))


def test_reasons_follow_from_the_numbers() -> None:
    rate, table = RATE, TABLE
    cases = {
        "lies between them": Compared("x", rate, (100.0, 500.0), 200.0, (0.0, 0.0)),
        "too few": Compared("x", table, (3.0, 3.0), 9.0, (0.0, 0.0)),
        "the load changed": Compared("x", rate, (990.0, 990.0), 2000.0, (1000.0, 1000.0)),
        "it is the demand": Compared("x", table, (500.0,), 1000.0, (0.0, 0.0), 990.0),
        "begins with 100 where": Compared("x", table, (110.0,), 305.0, (100.0, 300.0), 110.0),
        "and so differ, too": Compared("x", table, (500.0,), 1000.0, (0.0, 0.0), 200.0),
    }
    for text, row in cases.items():
        assert text in reason_of(row), text
    freed = Compared("pages freed", rate, (500.0,), 1000.0, (3000.0, 3000.0))
    assert "no actor frees" in reason_of(freed, older=[[0, 0], [10, 5000]])
    assert reason_of(freed, older=[[9, 9000], [0, 0]]) == "not explained"
    lists = Compared(PER_CPU, LISTS, (500.0,), 1000.0, (0.0, 0.0), 1000.0)
    assert "simulated 10: lives of actors end one by one" in reason_of(lists, given_back=20)
    assert "it is the demand" in reason_of(lists, given_back=19)
    free = Compared("free blocks of order 0", LISTS, (500.0,), 1000.0, (0.0, 0.0))
    assert "left per-CPU lists" in reason_of(free, drained=[500, *[0] * 10])
    assert reason_of(free, drained=[0, 500, *[0] * 9]) == "not explained"


def test_few_pages_may_have_lain_on_the_lists_of_cpus() -> None:
    load = load_of(1.0, 1.0)
    load["before"] = {**load["before"], "per_cpu_pages": 4000}
    row = Compared("free blocks of order 3", LISTS, (500.0,), 1000.0, (0.0, 0.0))
    assert "4,000 pages; 4,000 lay on per-CPU lists" in reason(row, load)
    assert reason(replace(row, runs=(499.0,)), load) == "not explained"


def test_moved_pages_are_those_since_the_start() -> None:
    load = load_of(1.0, 1.0)
    row = Compared("x", LISTS, (500.0,), 1000.0, (0.0, 0.0), 1000.0)
    tenths = {**load["tenths"], "free pages": [2.0, 4.0]}
    assert "free pages moved by +3, simulated by +0" in reason(row, {**load, "tenths": tenths})


def test_a_mean_is_as_certain_as_its_tenths_say() -> None:
    """Ten values of 900 and 1100: a standard error of 33.3, and 58 with that of three runs."""
    load = load_of(1.0, 1.0, tenths={"x": [900.0, 1100.0] * 5})
    row = Compared("x", RATE, (740.0, 850.0, 920.0), 1000.0, (5000.0, 5000.0))
    assert "tenths of the recorded half have 900 to 1,100" in reason(row, load)
    far = Compared("x", RATE, (740.0, 840.0, 770.0), 1000.0, (5000.0, 5000.0))
    assert reason(far, load) == "not explained"
    assert reason(row, {**load, "tenths": {"x": [900.0, 1100.0]}}) == "not explained"


def test_findings_count_what_is_near_and_what_never_happened() -> None:
    loads = {"loads": {"tree": load_of(1000.0, 1000.0), "huge": load_of(300.0, 1000.0)}}
    found = judge(loads)
    assert [f.verdict for f in found] == [*[COMES_OUT] * 3, DIFFERS, *[COMES_OUT] * 2, UNCHECKED]
    assert found[3].ours == "0 of 1 within 20 %"
    assert found[3].remark == "pages handed out 0.30; not explained: pages handed out"
    assert found[6].what == "fallbacks, compaction runs, kswapd woken, direct reclaim"
    assert "| pages handed out | 300 | 1,000 | 0.30 | 1,000 | - |" in tables(loads)
    assert "- pages handed out, 0.30: not explained." in tables(loads)
    assert [f.verdict for f in judge({})] == [UNCHECKED]


def test_every_difference_has_its_sentence() -> None:
    numbers = json.loads(RAW.read_text(encoding="utf-8"))
    assert set(numbers["loads"]) == set(measured_page.LOADS)
    assert all(load["fit"]["lost"] == 0 for load in numbers["loads"].values())
    differ = sum(row.differs for load in numbers["loads"].values() for row in compared(load))
    lines = tables(numbers)
    assert sum(line.startswith("- ") for line in lines) == differ
    assert RAW.stat().st_size < 150_000


def test_a_fit_becomes_a_job_of_the_measured_machine() -> None:
    path = ROOT / "results" / "studies" / "recordings" / "huge.spbcap"
    text = job_of(fit_recording(path), "x.txt", "y", "measured: here")
    assert "\nname: y\n" in text
    assert "\nmachine: {from: x.txt}\n" in text
    assert text.count("- kind: allocations # measured: here\n") == text.count("- kind: ") > 3
    assert tables_text(path).count("==> /proc/") == 3


@pytest.mark.compiled
def test_the_measured_machine_begins_as_its_tables_and_runs() -> None:
    scenario = load_config(MACHINE, ["duration=1s"], one_point=True).scenario
    result = run_replicate(scenario, 1, 0)
    zone = next(
        z
        for s in read_dump(MACHINE.with_name("measured-vm.txt")).of_kind("pagetypeinfo")
        for z in s.zones
        if z.zone == "Normal"
    )
    assert result.data["free_blocks"][:, 0].tolist() == list(zone.blocks())
    assert result.events > 1_000
