"""Whole runs: states that agree, pages that are all there, equal worlds, equal results however it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.constants import C
from spbfast.errors import InvariantError, SimulationError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model import engine
from spbfast.model.engine import boot, run_replicate, simulate, simulate_ticks, state_bytes, warmup
from spbfast.model.lowering.lower_machine import lower_scenario
from spbfast.model.program import finish
from spbfast.model.state.node import NEVER, Now, Wk
from spbfast.model.state.sample_layout import make_samples
from spbfast.model.state.slab_layout import Sc
from spbfast.outputs.variables import VARIABLES
from tests.demand_tools import CONFIGS, scenario
from tests.machine_tools import booted, held_pages
from tests.passes import cases, cases_of

ROOT = Path(__file__).parent.parent
POLICIES = ("mainline", "v1@15", "v1@30", "v1@45", "v2")
SPAN = "150ms" if INTERPRETED else "3s"
SHORT = "60ms"


def tuple_bytes(part):
    """Bytes of all arrays of a nested tuple."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    return sum(map(tuple_bytes, part)) if isinstance(part, tuple) else 0


@pytest.mark.compiled
@pytest.mark.parametrize("policy", cases_of(POLICIES))
def test_state_agrees_and_no_page_is_lost(policy):
    machine = booted(policy, duration=SPAN)
    world = machine.world
    machine.check()
    assert not world.node.vm.any()
    assert world.node.now[Now.NS] == 0
    busy = [item.name for item in Wk if world.node.due[item] != NEVER]
    assert set(busy) <= {"PCP_DECAY", "KSWAPD"}
    before = held_pages(world)
    samples = (make_samples(64),)
    given = scenario(policy=policy, duration=SPAN)
    assert simulate_ticks(machine.run, samples, given.duration // 10**6, 1)
    finish(machine.run, samples)
    machine.check()
    assert machine.vm("pgalloc_normal") - machine.vm("pgfree") == held_pages(world) - before
    assert machine.vm("page_events") > 1000


@pytest.mark.compiled
@pytest.mark.parametrize("rule", ["slab pages", "area.nr must be the length of its list"])
def test_a_run_that_is_checked_recounts_zone_and_slab(rule, monkeypatch):
    def broken(run, samples):
        finish(run, samples)
        if rule == "slab pages":
            run.world.slab.cache[0, Sc.NR_PAGES] += 1
        else:
            run.world.zone.area.nr[0] += 1

    given = scenario(duration=SHORT)
    run_replicate(given, 1, 0, check=True)
    monkeypatch.setattr(engine, "finish", broken)
    run_replicate(given, 1, 0)
    with pytest.raises(InvariantError) as found:
        run_replicate(given, 1, 0, check=True)
    assert rule in found.value.what


@pytest.mark.compiled
def test_mechanisms_act_in_the_tiny_machine():
    span = "400ms" if INTERPRETED else "4s"
    run = run_replicate(scenario(policy="v1@30", duration=span), 1, 0, check=True)
    last = dict(zip(run.coords["counter"], run.data["vmstat"][:, -1].tolist(), strict=True))
    for ran, queued in (
        ("spb_slab_shrink_ran", "spb_slab_shrink_queued"),
        ("spb_evac_ran", "spb_evac_queued"),
        ("spb_defrag_ran", "spb_defrag_queued"),
    ):
        assert last[ran] <= last[queued]
    assert last["page_cache_added"] > 0
    assert last["spb_slab_shrink_queued"] == sum(
        value for name, value in last.items() if name.startswith("spb_slab_shrink_queued_")
    )
    if not INTERPRETED:
        assert last["thp_fault_alloc"] > 0
        assert last["spb_slab_shrink_ran"] > 0
        assert last["pgsteal_kswapd"] + last["pgsteal_direct"] > 0


@pytest.mark.compiled
def test_shrink_switched_off_queues_nothing():
    run = run_replicate(scenario(policy={"preset": "v1@30", "slab_shrink": False}, duration=SPAN), 1, 0)
    counters = dict(zip(run.coords["counter"], run.data["vmstat"][:, -1].tolist(), strict=True))
    assert not any(value for name, value in counters.items() if name.startswith("spb_slab_shrink"))


@pytest.mark.compiled
def test_demand_is_equal_under_all_policies_and_differs_between_replicates():
    digests = {
        (policy, replicate): run_replicate(scenario(policy=policy, duration=SHORT), 3, replicate)
        for policy in ("mainline", "v1@45", "v2")
        for replicate in (0, 1)
    }
    demand = {key: run.demand_digest for key, run in digests.items()}
    assert len({demand[policy, 0] for policy in ("mainline", "v1@45", "v2")}) == 1
    assert len({demand[policy, 1] for policy in ("mainline", "v1@45", "v2")}) == 1
    assert demand["v2", 0] != demand["v2", 1]
    assert digests["mainline", 0].digest != digests["v2", 0].digest


@pytest.mark.compiled
def test_repeated_run_gives_the_same():
    one, other = (run_replicate(scenario(duration=SHORT), 1, 0) for _ in range(2))
    assert one.digest == other.digest
    assert one.events == other.events
    assert run_replicate(scenario(duration=SHORT), 2, 0).digest != one.digest


@pytest.mark.compiled
@pytest.mark.parametrize("step", cases(1, 1000, 7))
def test_quanta_decide_nothing(step):
    given = scenario(duration="100ms", output__every="10ms")
    whole = run_replicate(given, 1, 0)
    run = lower_scenario(given, 1, 0)
    assert boot(run, given, 1)
    samples = (make_samples(given.duration // given.output_every + 2),)
    last = given.duration // 10**6
    for until in (*range(step, last, step), last):
        assert simulate_ticks(run, samples, until, 1)
    finish(run, samples)
    assert engine.digest_of(engine.collect_samples(run, samples, given)[0]) == whole.digest
    assert len(whole.coords["time"]) == 11


SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
for policy in ("mainline", "v1@30", "v2"):
    run = run_replicate(scenario(policy=policy, duration="400ms"), 1, 0, check=True)
    print(run.digest, run.demand_digest, run.events)
"""


@pytest.mark.skipif(INTERPRETED, reason="compares the compiled kernels with the interpreted ones")
def test_interpreted_kernels_give_the_same():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", SNIPPET]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = [
        run_replicate(scenario(policy=policy, duration="400ms"), 1, 0)
        for policy in ("mainline", "v1@30", "v2")
    ]
    assert done.stdout.split() == [
        str(value) for run in runs for value in (run.digest, run.demand_digest, run.events)
    ]


WARM = """
import sys
from spbfast.model.engine import run_replicate, warmup
from tests.demand_tools import scenario
from tests.passes import cases

def versions():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("spbfast."):
            for kernel in vars(module).values():
                if getattr(kernel, "targetoptions", {}).get("no_cpython_wrapper") is False:
                    found[kernel.py_func.__qualname__] = len(kernel.overloads)
    return found

warmup()
before = versions()
assert set(before) >= {"boot_zone", "end_boot", "run_verb"}, before
run_replicate(scenario(duration="20ms"), 1, 0)
run_replicate(scenario(duration="20ms"), 1, 0, snapshots=True, records=("spb_pb_taint",))
print({k: n for k, n in versions().items() if before.get(k) != n})
"""


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled in the interpreted pass")
def test_warmup_compiles_all_that_a_run_needs():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", WARM]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr


def test_stop_ends_a_run_at_the_next_border():
    asked = []

    def stop():
        asked.append(True)
        return len(asked) > 3

    given = scenario(duration="10s")
    run = run_replicate(given, 1, 0, stop=stop)
    assert run.stopped
    assert len(asked) == 4
    assert run.coords["time"][-1] < 10
    assert run.digest


def test_stop_during_boot_still_gives_a_sample():
    run = run_replicate(scenario(), 1, 0, stop=lambda: True)
    assert run.stopped
    assert run.coords["time"].tolist() == [0.0]


def test_stop_while_the_page_cache_fills():
    answers = iter([False, True])
    given = scenario()
    run = lower_scenario(given, 1, 0)
    assert not boot(run, given, 1, lambda: next(answers))
    assert run.world.node.now[Now.BOOT_DONE] == 0


def test_state_bytes_is_what_is_allocated():
    given = scenario()
    world = lower_scenario(given, 1, 0).world
    # The clock of the records is the node's, not the zone's own.
    trace = world.zone.trace._replace(clock=np.zeros(1, np.int64))
    # Halves of records are views of their words.
    zone = world.zone._replace(trace=trace, page=(world.zone.page.word,))
    parts = (zone, world.slab, world.shrink)
    assert state_bytes(given) == sum(map(tuple_bytes, parts))


def test_kernel_errors_name_tick_and_seed():
    machine = booted()
    short = machine.run._replace(rows=machine.run.rows[:1])
    with pytest.raises(SimulationError, match="more rows") as caught:
        simulate_ticks(short, (make_samples(4),), 50, 77)
    assert caught.value.seed == 77


def test_too_little_room_at_boot_is_an_error_too():
    given = scenario()
    run = lower_scenario(given, 1, 0)
    with pytest.raises(SimulationError, match="more rows"):
        boot(run._replace(rows=run.rows[:0]), given, 1)


def test_samples_stop_where_their_room_ends():
    machine = booted(output__every="1ms")
    samples = (make_samples(3),)
    assert simulate_ticks(machine.run, samples, 10, 1)
    assert machine.world.node.now[Now.NR_SAMPLES] == 3
    assert samples[0].time.tolist() == [0, 10**6, 2 * 10**6]


@pytest.mark.compiled
def test_a_machine_driven_full_fails_requests_and_ends():
    fill = {"kind": "kernel_statics", "total": "124MB"}
    buffers = {
        "kind": "extent_buffers",
        "at_boot": "1MiB",
        "total": "64MiB",
        "growth": "40MiB/s",
        "churn_per_second": 0.0,
    }
    guests = {"kind": "guests", "count": 1, "memory": "60MiB", "touch_rate": "40MB/s", "start": "1ms"}
    for policy in ("mainline", "v1@45", "v2"):
        given = scenario(fill, buffers, guests, policy=policy, duration="80ms", workers__pinned_share=1.0)
        run = run_replicate(given, 1, 0, check=True)
        counters = dict(zip(run.coords["counter"], run.data["vmstat"][:, -1].tolist(), strict=True))
        assert counters["alloc_failed_blocking"] > 0
        assert counters["oom_kill"] > 0
        assert run.coords["time"][-1] == 0.08


@pytest.mark.compiled
def test_dataset_has_the_registered_variables():
    ds = simulate(scenario(duration=SHORT, output__every="20ms"), replicates=2, seed=5)
    assert ds.sizes["replicate"] == 2
    assert ds.sizes["time"] == 4
    assert set(ds.data_vars) <= set(VARIABLES)
    assert "free_pages" in ds
    assert int(ds["free_pages"].isel(time=0, replicate=0).sum()) > 0
    assert ds.attrs["seed"] == 5


def test_warmup_tells_seconds():
    assert warmup() > 0


def test_pcp_may_be_off_and_the_cache_unfilled():
    machine = booted(pcp__enabled=False, boot__fill_page_cache=False)
    assert machine.world.zone.geo.nr_cpus == 0
    assert machine.world.node.cache[:6].tolist() == [0] * 6
    assert simulate_ticks(machine.run, (make_samples(4),), 60, 1)
    machine.check()
    assert machine.world.zone.count[C.PCP_PAGES] == 0


def test_tiny_configuration_is_the_one_under_test():
    assert load_config(CONFIGS / "tiny.yaml").scenario == scenario()
