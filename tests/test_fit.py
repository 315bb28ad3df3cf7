"""Fitting actors to recordings: known truth, what is censored or dropped, wrong input, and the job."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.errors import DumpError
from spbfast.fitting import fit_recording, job_text, judge_halves, memory_of, page_requests
from spbfast.fitting.actors_yaml import LONGEST_BEHIND, MOST_SLOTS, limits_of
from spbfast.fitting.arrivals import FoundBurst, arrival_rate, find_burst
from spbfast.fitting.compaction_runs import CompactionRuns
from spbfast.fitting.exponential_mixture import fit_mixture, grouped_lives, kaplan_meier
from spbfast.fitting.fit_judgement import simulated_lives
from spbfast.fitting.holder_flags import Holder, flag_names, holder_of
from spbfast.fitting.page_lives import holders_told, lives_of
from spbfast.fitting.page_requests import read_page_events
from spbfast.observed.event_columns import EventBatch
from spbfast.observed.page_classes import PageClass
from tests import fuzz_observed
from tests.fit_streams import (
    NR_STREAMS,
    TrueKind,
    TrueStream,
    fit_stream,
    recovered,
    stream_events,
    write_recording,
)
from tests.page_tools import spbfast

pytestmark = pytest.mark.shell

OBSERVED = Path(__file__).parent / "observed"
SMALL = TrueStream(
    (
        TrueKind("anon-movable-0", 3000.0, (0.002, 0.05), (0.7, 0.3)),
        TrueKind("slab-reclaimable-2", 400.0, (0.02,), (1.0,)),
        TrueKind("page_cache-movable-0", 500.0, (400.0,), (1.0,)),
    ),
    3.0,
)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit") / "small.spbcap"
    return write_recording(path, stream_events(SMALL, 1))


# --- known truth ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_truth_is_recovered(seed: int, tmp_path: Path) -> None:
    found = fit_stream(seed, tmp_path, length=5.0, rate=2000.0)
    assert found.worst_rate < 0.05
    assert found.right_parts == found.kinds == found.rates_inside
    assert found.means_inside == found.means > found.kinds
    assert found.shares_inside == found.means


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NR_STREAMS))
def test_truth_is_recovered_in_ten_streams(seed: int, tmp_path: Path) -> None:
    found = fit_stream(seed, tmp_path)
    assert found.worst_rate < 0.05
    assert found.right_parts == found.kinds
    assert found.means_inside == found.means


def test_a_wrong_truth_lies_outside(recording: Path) -> None:
    """What `recovered` calls inside is not simply wide."""
    other = TrueStream(
        (
            TrueKind("anon-movable-0", 3300.0, (0.0025, 0.06), (0.6, 0.4)),
            TrueKind("slab-reclaimable-2", 480.0, (0.026,), (1.0,)),
        ),
        3.0,
    )
    found = recovered(other, fit_recording(recording))
    assert found.right_parts == 2
    assert found.rates_inside == found.means_inside == 0
    assert found.shares_inside == 1


def test_a_single_exponential_is_deaths_by_exposure() -> None:
    rng = np.random.default_rng(5)
    life = rng.exponential(0.4, 20_000)
    stop = rng.uniform(0.0, 1.0, len(life))
    ended, seconds = life < stop, np.minimum(life, stop)
    fit = fit_mixture(grouped_lives(seconds, ended, rng.integers(0, 40, len(life))))
    (part,) = fit.parts
    assert part.mean == pytest.approx(seconds.sum() / ended.sum(), rel=2e-3)
    assert part.mean_low < 0.4 < part.mean_high
    reach = 2.7 * part.mean / ended.sum() ** 0.5
    assert part.mean_high - part.mean == pytest.approx(reach, rel=0.35)
    assert fit.distance < fit.distance_by_chance


def test_kaplan_meier_by_hand() -> None:
    seconds = np.array([1.0, 2.0, 2.0, 3.0, 4.0])
    ended = np.array([True, True, False, True, False])
    survival, at_risk = kaplan_meier(grouped_lives(seconds, ended, np.zeros(5, np.int64)))
    steps = sorted({round(float(value), 6) for value in survival}, reverse=True)
    assert steps == [1.0, 0.8, 0.6, 0.3]
    assert at_risk.max() == 5


def test_lives_that_end_together_widen_the_interval() -> None:
    """A hundred pages of one process die at once: there are then a hundredth as many independent lives."""
    rng = np.random.default_rng(6)
    start = np.repeat(np.sort(rng.uniform(0, 40, 200)), 100)
    life = np.repeat(rng.exponential(0.5, 200), 100)
    ended = np.ones(len(life), bool)
    together = fit_mixture(grouped_lives(life, ended, start.astype(np.int64)), most_parts=1).parts[0]
    alone = fit_mixture(
        grouped_lives(rng.exponential(0.5, len(life)), ended, start.astype(np.int64)), most_parts=1
    ).parts[0]
    ratio = np.log(together.mean_high / together.mean_low) / np.log(alone.mean_high / alone.mean_low)
    assert ratio > 5


def test_bursts_are_found_and_steady_arrivals_have_none() -> None:
    rng = np.random.default_rng(7)
    steady = rng.uniform(0, 20, 20_000)
    assert find_burst(steady, 20.0) is None
    assert arrival_rate(steady, 20.0).clumping == pytest.approx(1.0, abs=0.4)
    bursty = steady[(steady % 0.5) < 0.15]
    burst = find_burst(bursty, 20.0)
    assert burst is not None
    assert (burst.on, burst.off) == (pytest.approx(0.15, rel=0.1), pytest.approx(0.35, rel=0.1))
    assert burst.cycles == pytest.approx(40, abs=2)
    assert arrival_rate(bursty, 20.0).clumping > 50


# --- what is known of a life ----------------------------------------------------------------------

LINE = "  x-1 [000] ..... {t:.6f}: {event}: page=0000 pfn={pfn:#x} order={order}{more}\n"
ALLOC = " migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"


def line(t: float, pfn: int, order: int = 0, alloc: bool = True) -> str:
    event = "mm_page_alloc" if alloc else "mm_page_free"
    return LINE.format(t=t, event=event, pfn=pfn, order=order, more=ALLOC if alloc else "")


def test_lives_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(
        line(1.0, 0x100)
        + line(1.1, 0x900, alloc=False)  # from before
        + line(1.2, 0x200, 2)
        + line(1.5, 0x100, alloc=False)  # lives 0.5 s
        + line(1.6, 0x200, 0, alloc=False)  # the head: lives 0.4 s
        + line(1.7, 0x201, 0, alloc=False)  # a part
        + line(1.8, 0x300)
        + line(1.9, 0x300)  # no free in between; then held to the end
        + line(2.0, 0x0)  # a failure
        + line(2.4, 0x100)  # held to the end
    )
    events = read_page_events(path)
    lives = lives_of(events)
    assert (lives.nr_ended, lives.nr_alive, lives.nr_overwritten) == (2, 2, 1)
    assert (lives.unknown_frees, lives.part_frees, events.failed) == (1, 1, 1)
    by_page = {(int(p), int(t)): s for p, t, s in zip(lives.pfn, lives.start_ns, lives.seconds, strict=True)}
    assert by_page[0x100, 10**9] == pytest.approx(0.5)
    assert by_page[0x200, 1_200_000_000] == pytest.approx(0.4)
    assert by_page[0x300, 1_900_000_000] == pytest.approx(0.5)
    assert np.isnan(by_page[0x300, 1_800_000_000])
    assert lives.holder.tolist() == [Holder.ANON] * 5


def compaction(t: float, what: str, cpu: int) -> str:
    return f"  x-1 [{cpu:03}] ..... {t:.6f}: mm_compaction_{what}: zone_start=0x100000 zone_end=0x200000\n"


def test_what_compaction_moves_lives_on(tmp_path: Path) -> None:
    """Frees during a run on the same CPU are moves; those on another one or behind its end are not."""
    path = tmp_path / "trace.txt"
    path.write_text(
        "".join(line(1.0 + i / 100, 0x100 + i) for i in range(4))
        + compaction(1.5, "begin", 0)
        + line(1.6, 0x100, alloc=False)  # moved after 0.6 s
        + line(1.6, 0x101, alloc=False).replace("[000]", "[001]")
        + line(1.7, 0x900, alloc=False)  # moved, from before
        + compaction(1.8, "end", 0)
        + line(1.9, 0x102, alloc=False)
        + line(2.0, 0x901, alloc=False)  # from before
    )
    lives = lives_of(read_page_events(path))
    assert lives.ended.tolist() == [False, True, True, False]
    assert lives.moved.tolist() == [True, False, False, False]
    assert lives.seconds == pytest.approx([0.6, 0.59, 0.88, 0.97])
    assert (lives.nr_ended, lives.nr_moved, lives.nr_alive) == (2, 1, 1)
    assert (lives.unknown_frees, lives.moved_frees) == (1, 2)


def test_runs_of_compaction_go_on_from_batch_to_batch() -> None:
    runs, none = CompactionRuns(), np.zeros(4, bool)
    cpu = np.array([0, 1, 0, 1])
    begins = np.array([True, False, False, False])
    assert runs.during(cpu, begins, none).tolist() == [True, False, True, False]
    assert runs.during(cpu[1::2], none[:2], none[:2]).tolist() == [False, False]
    ends = np.array([False, False, True, False])
    assert runs.during(cpu, none, ends).tolist() == [True, False, False, False]
    assert runs.during(cpu, none, none).tolist() == [False] * 4


def test_text_and_capture_tell_the_same(recording: Path, tmp_path: Path) -> None:
    events = read_page_events(recording)
    text = []
    for t, pfn, order, mt, flag in zip(
        events.time_ns.tolist()[:4000],
        events.pfn.tolist(),
        events.order.tolist(),
        events.mt.tolist(),
        events.flags.tolist(),
        strict=False,
    ):
        more = ""
        if mt >= 0:
            more = f" migratetype={mt} gfp_flags=" + "|".join(
                f"__GFP_{name}" for name in sorted(events.flag_sets[flag] or ())
            )
        event = "mm_page_alloc" if mt >= 0 else "mm_page_free"
        text.append(LINE.format(t=t / 1e9, event=event, pfn=pfn, order=order, more=more))
    path = tmp_path / "trace.txt"
    path.write_text("".join(text))
    ours = lives_of(events.between(events.start_ns, int(events.time_ns[4000])))
    theirs = lives_of(read_page_events(path))
    assert np.array_equal(ours.pfn, theirs.pfn)
    assert np.array_equal(ours.ended, theirs.ended)
    assert np.array_equal(ours.holder, theirs.holder)
    assert theirs.seconds[theirs.ended] == pytest.approx(ours.seconds[ours.ended], abs=2e-6)


def test_long_lives_are_bounds(recording: Path) -> None:
    fit = fit_recording(recording)
    cache = next(actor for actor in fit.actors if actor.name == "page_cache-movable-0")
    assert cache.lifetimes is not None
    assert [part.is_bound for part in cache.lifetimes.parts] == [True]
    assert 20 < cache.lifetimes.parts[0].mean_low < 400
    assert "too short for the longest lifetimes of page_cache-movable-0;" in " ".join(fit.receipt.warnings)
    assert "not identified: at least" in job_text(fit)


def test_losses_are_told_and_lives_are_censored_there(recording: Path, tmp_path: Path) -> None:
    whole = stream_events(SMALL, 1)
    keep = np.ones(len(whole), bool)
    gone = np.flatnonzero((whole.time_ns > 2_000_000_000) & (whole.time_ns < 2_100_000_000))
    keep[gone[1:]] = False
    kind, fields = whole.kind.copy(), whole.fields.copy()
    kind[gone[0]] = 0
    fields[gone[0]] = 0
    fields[gone[0], 0] = len(gone)
    lossy = EventBatch(whole.time_ns[keep], whole.cpu[keep], kind[keep], fields[keep])
    fit = fit_recording(write_recording(tmp_path / "lossy.spbcap", lossy))
    assert fit.receipt.lost == len(gone)
    assert fit.receipt.censored_at_gap > 50
    assert "events were lost: rates are lower bounds" in fit.receipt.warnings[0]
    slab = next(actor for actor in fit.actors if actor.name == "slab-reclaimable-2")
    assert slab.lifetimes is not None
    assert slab.lifetimes.parts[0].mean_low < 0.02 < slab.lifetimes.parts[0].mean_high


def test_what_is_behind_the_most_events_is_left_out(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_page_events(recording)
    monkeypatch.setattr(page_requests, "MOST_EVENTS", 5000)
    fit = fit_recording(recording)
    assert fit.receipt.left_out == len(whole) - 5000
    assert fit.receipt.seconds == pytest.approx((whole.time_ns[4999] - whole.start_ns) / 1e9, abs=0.01)
    assert f"{len(whole) - 5000:,} events behind the first 5,000 are not used" in " ".join(
        fit.receipt.warnings
    )


def test_pages_at_the_end_go_before_the_rule(recording: Path) -> None:
    events = read_page_events(recording)
    first = int(events.pfn.min())
    pages = np.full(int(events.pfn.max()) - first + 1, PageClass.PAGE_TABLE, np.uint8)
    told = holders_told(events, {first: pages})
    lives = lives_of(events, told)
    assert set(lives.holder[~lives.ended].tolist()) == {Holder.PAGE_TABLE}
    assert holders_told(events, {}) == {}


@pytest.mark.parametrize(
    ("flags", "order", "mt", "holder"),
    [
        ("GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO", 0, 1, Holder.ANON),
        (0x140DCA, 0, 1, Holder.ANON),
        (0x141CCA, 0, 1, Holder.PAGE_CACHE),
        (0x152C4A, 0, 1, Holder.PAGE_CACHE),
        (0x148C48, 0, 1, Holder.PAGE_CACHE),
        (0x153CCA, 4, 1, Holder.PAGE_CACHE),
        (0x3D24CA, 9, 1, Holder.HUGE),
        (0x52C50, 0, 2, Holder.SLAB),
        (0x52CC0, 0, 0, Holder.SLAB),
        (0x440DC0, 0, 0, Holder.PAGE_TABLE),
        (0x148C40, 0, 0, Holder.PAGE_CACHE),
        ("GFP_ATOMIC", 0, 0, Holder.OTHER),
        ("0x440dc0", 0, 0, Holder.PAGE_TABLE),
        ("0x", 0, 0, Holder.OTHER),
    ],
)
def test_holders_by_flags(flags: int | str, order: int, mt: int, holder: Holder) -> None:
    assert holder_of(flag_names(flags, "6.18.0"), order, mt) is holder


def test_numbers_of_old_kernels_are_not_read() -> None:
    assert flag_names(0x140DCA, "4.19.2") is None
    assert holder_of(None, 0, 1) is Holder.OTHER


# --- wrong input ----------------------------------------------------------------------------------


def no_allocations(batch: EventBatch) -> EventBatch:
    keep = batch.kind == 2
    return EventBatch(*(column[keep] for column in (batch.time_ns, batch.cpu, batch.kind, batch.fields)))


def everything_lost(batch: EventBatch) -> EventBatch:
    fields = np.zeros_like(batch.fields[:3])
    fields[:, 0] = 1000
    return EventBatch(batch.time_ns[:3], batch.cpu[:3], np.zeros(3, np.int64), fields)


def too_short(batch: EventBatch) -> EventBatch:
    return EventBatch(*(c[:100] for c in (batch.time_ns, batch.cpu, batch.kind, batch.fields)))


def too_rare(batch: EventBatch) -> EventBatch:
    return EventBatch(*(c[::800] for c in (batch.time_ns, batch.cpu, batch.kind, batch.fields)))


def no_machine_has_them(batch: EventBatch) -> EventBatch:
    fields = batch.fields.copy()
    fields[:, 1] = 99
    return EventBatch(batch.time_ns, batch.cpu, batch.kind, fields)


def all_failed(batch: EventBatch) -> EventBatch:
    fields = batch.fields.copy()
    fields[batch.kind == 1, 0] = 0
    return EventBatch(batch.time_ns, batch.cpu, batch.kind, fields)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_allocations, "has no mm_page_alloc; record with --events request, or all"),
        (everything_lost, "has no allocation left to fit: 3,000 events were lost"),
        (too_short, "a fit needs at least 50 ms"),
        (too_rare, "fewer than 20 of every kind: nothing can be fitted"),
        (no_machine_has_them, "are of no machine"),
        (all_failed, "got no page"),
    ],
)
def test_too_little_is_one_sentence(change, said: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one = TrueStream((TrueKind("anon-movable-0", 4000.0, (0.01,), (1.0,)),), 1.0)
    path = write_recording(tmp_path / "x.spbcap", change(stream_events(one, 2)))
    with pytest.raises(DumpError) as caught:
        fit_recording(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello\n" * 5, "holds nothing that is known"),
        ((OBSERVED / "buddyinfo-and-indices.txt").read_bytes(), "has no mm_page_alloc"),
        (b"spbfast capture\n", "capture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, ""),
    ],
)
def test_foreign_files_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    code, output = spbfast(["fit", str(path)])
    assert code == 2
    assert said in output
    assert str(path) in output
    assert "Traceback" not in output


def test_damaged_recordings_are_fitted_or_refused(recording: Path, tmp_path: Path) -> None:
    """What is fitted of them is a valid job; the rest is one error that names the file."""
    rng, path, fitted = random.Random(5), tmp_path / "x", 0
    write_recording(path, stream_events(TrueStream(SMALL.kinds[:2], 0.2), 1))
    capture = path.read_bytes()
    text = "".join(line(1 + k / 200, 0x100 + k // 2 * 4, alloc=k % 2 == 0) for k in range(200)).encode()
    refused = []
    for _ in range(30):
        seed = rng.choice([capture, text])
        mutation = fuzz_observed._chunks if seed is capture else rng.choice(fuzz_observed.MUTATIONS)
        path.write_bytes(mutation(rng, seed, text))
        try:
            (tmp_path / "job.yaml").write_text(job_text(fit_recording(path)))
            load_config(tmp_path / "job.yaml")
            fitted += 1
        except DumpError as error:
            refused.append(str(error))
    assert all(str(path) in said for said in refused)
    assert 5 < fitted < 30


# --- the job --------------------------------------------------------------------------------------


def test_the_job_is_valid_and_says_where_numbers_come_from(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "actors.yaml"
    code, output = spbfast(["fit", str(recording), "-o", str(path)])
    assert code == 0, output
    assert "censored" in output
    assert "truncated" in output
    assert "at least" in output
    assert output.rstrip().endswith(str(path))
    scenario = load_config(path).scenario
    by_name = {actor.label: actor for actor in scenario.actors}
    assert set(by_name) == {kind.name for kind in SMALL.kinds}
    anon = by_name["anon-movable-0"]
    assert anon.rate == pytest.approx(3000, rel=0.05)
    assert [life / 1e9 for life in anon.lifetimes] == pytest.approx([0.002, 0.05], rel=0.15)
    assert (by_name["slab-reclaimable-2"].order, by_name["slab-reclaimable-2"].type) == (2, "reclaimable")
    text = path.read_text()
    rows = [row.strip() for row in text.splitlines() if "kind" not in row]
    numbers = [row for row in rows if row.startswith(("rate:", "- "))]
    assert len(numbers) > 8
    assert all("# fitted" in row or "# not identified" in row for row in numbers)
    assert spbfast(["validate", str(path)])[0] == 0


def test_a_job_never_needs_more_slots_than_there_are(recording: Path) -> None:
    """As if the recording had gone on for days at a hundred times the rate."""
    fit = fit_recording(recording)
    assert limits_of(fit).behind == LONGEST_BEHIND
    fast = [
        dataclasses.replace(
            actor,
            arrivals=dataclasses.replace(actor.arrivals, rate=100 * actor.arrivals.rate),
            burst=FoundBurst(0.01, 0.2, 9, 0.0),
        )
        for actor in fit.actors
    ]
    long = dataclasses.replace(fit.receipt, seconds=2000.0)
    grown = dataclasses.replace(fit, actors=tuple(fast), receipt=long)
    within = limits_of(grown)
    assert within.behind < LONGEST_BEHIND
    assert "page_cache-movable-0" in within.steady
    assert "bursts were found and are left out" in job_text(grown)
    assert sum(map(within.slots, fast)) <= MOST_SLOTS


def test_json_and_an_output_that_cannot_be_written(recording: Path, tmp_path: Path) -> None:
    code, output = spbfast(["fit", str(recording), "--json"])
    assert code == 0
    data = json.loads(output)
    assert data["receipt"]["truncated"] > 0
    assert len(data["actors"]) == 3
    assert None in [part["mean_high"] for actor in data["actors"] for part in actor["lifetimes"]["parts"]]
    code, output = spbfast(["fit", str(recording), "-o", str(tmp_path / "no" / "x.yaml")])
    assert code == 2


def test_memory_is_that_of_the_capture(recording: Path) -> None:
    assert memory_of(recording) is None
    assert memory_of(OBSERVED / "zoneinfo-then-vmstat.txt") is not None


# --- the simulated stream -------------------------------------------------------------------------


@pytest.mark.compiled
def test_what_is_simulated_is_what_was_recorded(recording: Path) -> None:
    fit = fit_recording(recording)
    stream = simulated_lives(fit, 3.0)
    assert set(stream.seconds) == {kind.name for kind in SMALL.kinds}
    judged = judge_halves(recording)
    for distance in (judged.simulated.orders, judged.simulated.types, judged.simulated.holders):
        assert distance < 0.03
    assert judged.simulated.rate == pytest.approx(1.0, abs=0.1)
    assert judged.simulated.lifetimes < 0.06
    assert {kind.name for kind in judged.simulated.kinds if kind.lifetimes is not None} == set(stream.seconds)


@pytest.mark.compiled
def test_a_wrong_fit_is_far_away(recording: Path, tmp_path: Path) -> None:
    """Halves of different loads: other orders, and lifetimes ten times as long."""
    later = TrueStream(
        (
            TrueKind("anon-movable-0", 1000.0, (0.3,), (1.0,)),
            TrueKind("slab-reclaimable-2", 2000.0, (0.02,), (1.0,)),
        ),
        3.0,
    )
    one, two = stream_events(SMALL, 3), stream_events(later, 4)
    two.time_ns[:] += 3 * 10**9
    two.fields[:, 0] += 1 << 30
    both = EventBatch(
        *(
            np.concatenate([getattr(one, name), getattr(two, name)])
            for name in ("time_ns", "cpu", "kind", "fields")
        )
    )
    judged = judge_halves(write_recording(tmp_path / "x.spbcap", both))
    assert judged.simulated.orders > 0.4
    anon = next(kind for kind in judged.simulated.kinds if kind.name == "anon-movable-0")
    assert anon.lifetimes is not None
    assert anon.lifetimes > 0.4
    code, output = spbfast(["fit", str(tmp_path / "x.spbcap"), "--halves"])
    assert code == 0
    assert "the second half, which the fit has not seen" in output
