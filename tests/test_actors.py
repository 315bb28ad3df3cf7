"""Demand: the same rows from the same key, known volumes, rates, mixes, and a guest's life."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from spbfast.constants import (
    CLS_BLOCKING,
    CLS_NORETRY,
    MOVABLE,
    NR_ROW,
    PB_PAGES,
    UNMOVABLE,
    Err,
    Op,
    Row,
)
from spbfast.errors import ConfigError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.demand.actor_kinds import ActorKind
from spbfast.model.demand.demand_plan import TICKS_PER_SECOND, per_tick
from spbfast.model.demand.demand_rows import DIGEST0, fold_rows
from spbfast.model.demand.generate import generate_boot, generate_tick
from spbfast.model.lowering.lower_actors import lower_actors
from spbfast.model.primitives.draws import key_of
from spbfast.model.state.demand_layout import MAX_PER_TICK, Ap, As
from tests.demand_tools import (
    FIRST_OWNER,
    KEY,
    SlotBook,
    boot_rows,
    digest_of,
    plan_for,
    scenario,
    tick_rows,
    with_op,
)

TICKS = 2000 if INTERPRETED else 20_000
GUEST = {
    "kind": "guests",
    "count": 1,
    "start": "100ms",
    "memory": "12MiB",
    "touch_rate": "40MB/s",
    "rewrite_per_second": 0.5,
    "balloon_per_second": 0.5,
    "balloon_time": "1s",
    "restart_min": "1s",
    "restart_max": "1500ms",
    "restart_pause": "50ms",
    "buffers": "256KiB",
}


# --- the same world -------------------------------------------------------------------------------


@pytest.mark.compiled
def test_same_key_same_rows():
    runs = [tick_rows(plan_for(), 300)[0] for _ in range(2)]
    assert np.array_equal(*runs)
    assert digest_of(runs[0]) == digest_of(runs[1])


def test_other_replicate_other_rows():
    one, other = (digest_of(tick_rows(plan_for(), 50, key_of(1, r))[0]) for r in (0, 1))
    assert one != other


def test_policy_does_not_reach_the_demand():
    plans = [lower_actors(scenario(policy=name), FIRST_OWNER) for name in ("mainline", "v1@30")]
    assert digest_of(boot_rows(plans[0])) == digest_of(boot_rows(plans[1]))
    assert digest_of(tick_rows(plans[0], 200)[0]) == digest_of(tick_rows(plans[1], 200)[0])


def test_actors_do_not_influence_each_other():
    churn = {"kind": "churn", "rate": 3000}
    network = {"kind": "network", "rate": 500}
    alone = tick_rows(plan_for(network), 300)[0]
    beside = tick_rows(plan_for(churn, network), 300)[0]
    of_network = beside[beside[:, Row.OWNER] == FIRST_OWNER + 2]
    assert np.array_equal(alone[:, Row.SLOT : Row.CPU], of_network[:, Row.SLOT : Row.CPU])


def test_ticks_can_be_generated_in_pieces():
    whole, pieces = plan_for(), plan_for()
    rows = tick_rows(whole, 100)[0]
    parts = [tick_rows(pieces, 40)[0], tick_rows(pieces, 60, first=40)[0]]
    assert np.array_equal(rows, np.concatenate(parts))


@pytest.mark.skipif(INTERPRETED, reason="compares with this process's compiled kernels")
def test_interpreted_demand_is_the_same():
    code = (
        "from tests.demand_tools import *; p = plan_for();"
        "print(digest_of(boot_rows(p)), digest_of(tick_rows(p, 700)[0]))"
    )
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=env, check=True
    )
    plan = plan_for()
    assert run.stdout.split() == [str(digest_of(boot_rows(plan))), str(digest_of(tick_rows(plan, 700)[0]))]


def test_digest_sees_every_column_but_the_derived_ones():
    row = np.arange(1, NR_ROW + 1, dtype=np.int32).reshape(1, -1)
    base = fold_rows(DIGEST0, row, 1)
    for column in (Row.OP, Row.OWNER, Row.SLOT, Row.N, Row.ORDER, Row.CLS, Row.CPU):
        changed = row.copy()
        changed[0, column] ^= 32 if column != Row.ORDER else 8
        assert fold_rows(DIGEST0, changed, 1) != base


# --- slots ----------------------------------------------------------------------------------------


@pytest.mark.compiled
def test_no_slot_is_filled_twice():
    plan = plan_for()
    book = SlotBook(plan)
    book.play(boot_rows(plan))
    book.play(tick_rows(plan, 2000)[0])
    assert sum(book.held(i) for i in range(len(book.pages))) > 0


def test_guests_have_a_slot_per_page():
    plan = plan_for(GUEST)
    pages = (12 << 20) // 4096
    assert plan.owner_slots[0] == pages
    assert plan.owner_names == ("guests[0]", "guests[0].host")
    assert plan.owner_mt == (MOVABLE, UNMOVABLE)
    assert sum(plan.owner_slots) <= 1.05 * pages


def test_actor_number_decides_the_cpu():
    plan = plan_for({"kind": "network", "tasks": 3}, {"kind": "page_cache"}, {**GUEST, "count": 2})
    assert plan.actors.param[:, Ap.CPU].tolist() == [0, 0, 0, 3, 0, 1]
    rows, _ = tick_rows(plan, 60)
    assert set(rows[rows[:, Row.OP] == Op.REPLACE][:, Row.CPU]) == {0, 1, 2}


def test_full_row_buffer_is_an_error():
    plan = plan_for({"kind": "churn", "rate": 100_000})
    assert generate_tick(plan.actors, KEY, 0, np.zeros((3, NR_ROW), np.int32)) == -Err.ROWS_FULL
    assert generate_boot(plan_for().actors, KEY, 0, np.zeros((1, NR_ROW), np.int32)) == -Err.ROWS_FULL


def test_disabled_actor_asks_for_nothing():
    plan = plan_for({"kind": "churn", "enabled": False})
    assert len(plan.actors.kind) == 0
    assert len(tick_rows(plan, 5)[0]) == 0


def test_rate_too_high_for_a_tick():
    with pytest.raises(ConfigError, match=r"page_cache\.rate: must be at most 256GB/s, got 1TB/s"):
        plan_for({"kind": "page_cache", "rate": "1TB/s"})
    (actor,) = scenario({"kind": "page_cache"}).actors
    with pytest.raises(ValueError, match="'page_cache' asks for .* lower its rate"):
        per_tick(actor, MAX_PER_TICK * TICKS_PER_SECOND)


# --- boot -----------------------------------------------------------------------------------------


def test_statics_total_and_orders():
    plan = plan_for({"kind": "kernel_statics", "total": "16MiB", "order_weights": [2, 1, 1]})
    rows = boot_rows(plan)
    pages = rows[:, Row.N] << rows[:, Row.ORDER]
    by_order = [int(pages[rows[:, Row.ORDER] == order].sum()) for order in range(3)]
    assert by_order == [2048, 1024, 1024]
    assert set(rows[:, Row.MT]) == {UNMOVABLE}
    assert plan.owner_slots[0] == rows[:, Row.N].sum()
    book = SlotBook(plan)
    book.play(rows)
    assert book.held(0) == 4096


def test_boot_takes_turns():
    plan = plan_for({"kind": "kernel_statics", "total": "4MiB"}, {"kind": "daemons", "memory": "4MiB"})
    owners = boot_rows(plan)[:4, Row.OWNER] - FIRST_OWNER
    assert owners.tolist() == [0, 1, 0, 1]


def test_daemons_hold_all_their_memory():
    plan = plan_for({"kind": "daemons", "memory": "64MiB", "thp_share": 0.5})
    rows = boot_rows(plan)
    book = SlotBook(plan)
    book.play(rows)
    assert book.held(0) == (64 << 20) // 4096
    assert 6 <= len(with_op(rows, Op.THP)) <= 26  # 32 regions, half: five standard deviations


def test_boot_slab_total():
    actors = scenario({"kind": "reclaimable_statics", "total": "8MiB"})
    rows = boot_rows(lower_actors(actors, FIRST_OWNER))
    inodes = rows[:, Row.N].sum()
    assert inodes == int((8 << 20) / actors.slab.bytes_per_inode)
    assert 0 <= rows[:, Row.SLOT].min()
    assert rows[:, Row.SLOT].max() < actors.slab.nr_instances


def test_extent_buffers_grow_to_their_total():
    plan = plan_for(
        {
            "kind": "extent_buffers",
            "at_boot": "1MiB",
            "total": "2MiB",
            "growth": "2MiB/s",
            "churn_per_second": 1.0,
        }
    )
    book = SlotBook(plan)
    book.play(boot_rows(plan))
    assert book.held(0) == 256
    rows, _ = tick_rows(plan, 1000)
    book.play(rows)
    assert book.held(0) == 512
    replaced = len(with_op(rows, Op.FREE))
    assert 64 < replaced < 140  # 64..128 nodes, each replaced once a second
    assert set(rows[:, Row.N] % 4) == {0}


# --- rates and mixes ------------------------------------------------------------------------------


def test_churn_rate_types_and_lifetimes():
    plan = plan_for(
        {"kind": "churn", "rate": 50_000, "movable": 0.7, "lifetimes": ["5ms", "100ms"], "shares": [3, 1]}
    )
    rows, _ = tick_rows(plan, TICKS // 4)
    expected = 50 * TICKS // 4
    assert abs(len(rows) / expected - 1) < 0.02  # stated tolerance: 2 %
    assert abs((rows[:, Row.MT] == MOVABLE).mean() - 0.7) < 0.02
    # Slots are rate times lifetime, so the mean lifetime is the one asked for.
    assert plan.actors.param[:, Ap.UNITS].tolist() == [131, 875, 56, 375]
    assert (rows[:, Row.N] == 1).all()


@pytest.mark.compiled
def test_replacement_is_uniform():
    plan = plan_for({"kind": "churn", "rate": 50_000, "movable": 1.0, "lifetimes": ["10ms"], "shares": [1]})
    rows, _ = tick_rows(plan, 2000)
    hits = np.bincount(rows[:, Row.SLOT], minlength=500)
    assert len(hits) == 500
    expected = len(rows) / 500
    assert ((hits - expected) ** 2 / expected).sum() < 500 + 5 * np.sqrt(2 * 500)  # chi-square


@pytest.mark.compiled
def test_network_mix_and_class():
    plan = plan_for(
        {"kind": "network", "rate": 3000, "order3_share": 0.39, "order0_factor": 10, "lifetime": "20ms"}
    )
    rows, _ = tick_rows(plan, TICKS)
    nr = [int((rows[:, Row.ORDER] == order).sum()) for order in range(4)]
    assert abs((nr[2] + nr[3]) / (3 * TICKS) - 1) < 0.05  # stated tolerances: 5 %
    assert abs(nr[3] / (nr[2] + nr[3]) - 0.39) < 0.02
    assert abs(nr[0] / (30 * TICKS) - 1) < 0.05
    assert not (rows[:, Row.CLS] & CLS_BLOCKING).any()
    high = rows[rows[:, Row.ORDER] > 0]
    assert (high[:, Row.ALT_ORDER] == 0).all()
    assert ((high[:, Row.CLS] & CLS_NORETRY) > 0).all()
    assert set(rows[:, Row.MT]) == {UNMOVABLE}


def test_page_cache_bytes_by_folio_order():
    plan = plan_for(
        {
            "kind": "page_cache",
            "rate": "400MB/s",
            "folio_weights": [2, 1, 1],
            "read_once": 0.6,
            "dropped": 0.1,
        }
    )
    rows, _ = tick_rows(plan, TICKS // 2)
    added = with_op(rows, Op.CACHE_ADD)
    pages = added[:, Row.N] << added[:, Row.ORDER]
    seconds = TICKS / 2000
    assert abs(pages.sum() * 4096 / (400e6 * seconds) - 1) < 0.05
    shares = [pages[added[:, Row.ORDER] == order].sum() / pages.sum() for order in range(3)]
    assert np.allclose(shares, [0.5, 0.25, 0.25], atol=0.01)
    again = added[added[:, Row.SLOT] == 1][:, Row.N].sum() / added[:, Row.N].sum()
    assert abs(again - 0.4) < 0.02
    dropped = with_op(rows, Op.CACHE_DROP)[:, Row.N].sum()
    assert abs(dropped / added[:, Row.N].sum() - 0.1) < 0.02


def test_slab_growth_rate_spread_and_unlink():
    actors = scenario(
        {"kind": "slab_growth", "rate": "50MB/s", "unlinked": 0.2, "walk_time": "10ms", "memcg_skew": 1.0}
    )
    rows, _ = tick_rows(lower_actors(actors, FIRST_OWNER), TICKS // 2)
    grown, gone = with_op(rows, Op.SLAB_GROW), with_op(rows, Op.SLAB_DROP)
    inodes = grown[:, Row.N].sum()
    assert abs(inodes * actors.slab.bytes_per_inode / (50e6 * TICKS / 2000) - 1) < 0.05
    assert abs(gone[:, Row.N].sum() / inodes - 0.2) < 0.02
    per_instance = np.bincount(grown[:, Row.SLOT], grown[:, Row.N], minlength=6) / inodes
    assert len(per_instance) == actors.slab.nr_instances
    by_memcg = per_instance.reshape(3, 2).sum(axis=1)
    assert np.allclose(by_memcg, np.array([6, 3, 2]) / 11, atol=0.12)


def test_burst_keeps_the_mean():
    plan = plan_for({"kind": "page_cache", "rate": "100MB/s", "burst": {"on": "20ms", "off": "60ms"}})
    rows, when = tick_rows(plan, TICKS)
    added = rows[:, Row.OP] == Op.CACHE_ADD
    pages = (rows[added, Row.N] << rows[added, Row.ORDER]).sum()
    assert abs(pages * 4096 / (100e6 * TICKS / 1000) - 1) < 0.08
    busy = len(np.unique(when))
    assert abs(busy / TICKS - 0.25) < 0.02


# --- a guest --------------------------------------------------------------------------------------


def test_guest_touches_everything_in_order():
    plan = plan_for({**GUEST, "restart": False, "rewrite_per_second": 0.0, "balloon_per_second": 0.0})
    rows, when = tick_rows(plan, 1000)
    assert when[0] >= 100
    touched = rows[rows[:, Row.OWNER] == FIRST_OWNER]
    assert (np.diff(touched[:, Row.SLOT]) > 0).all()
    book = SlotBook(plan)
    book.play(rows)
    assert book.held(0) == 6 * PB_PAGES
    assert book.held(1) == 6 * 2 + 64
    seconds = (when[-1] - 99) / 1000
    assert 0.7 < (12 << 20) / 40e6 / seconds < 1.3


def test_guest_restarts_free_everything():
    plan = plan_for({**GUEST})
    book, ends, start = SlotBook(plan), [], 100
    rows, when = tick_rows(plan, 8000)
    whole = (rows[:, Row.OP] == Op.FREE) & (rows[:, Row.N] == 6 * PB_PAGES)
    ends = when[whole]
    assert 4 <= len(ends) <= 8
    lives = np.diff(np.concatenate([[start - 50], ends]))
    assert lives.min() >= 1000 + 50
    assert lives.max() <= 1500 + 51
    book.play(rows[when <= ends[-1]])
    assert book.held(0) == 0
    assert book.held(1) == 0


def test_guest_steady_rates():
    quiet = {"restart": False, "memory": "96MiB", "touch_rate": "4000MB/s"}
    plan = plan_for({**GUEST, **quiet}, machine__memory="256MiB")
    tick_rows(plan, 300)
    assert plan.actors.state[0, As.PHASE] == 2
    rows, _ = tick_rows(plan, 4000, first=300)
    frees = len(with_op(rows, Op.FREE))
    # 48 regions: half of them rewritten and half given back per second; what was given back comes again.
    assert abs(frees / (4 * (24 + 24 + 24)) - 1) < 0.2
    assert plan.actors.param[0, Ap.BALLOON_LAG] == 24
    book = SlotBook(plan_for({**GUEST, **quiet}, machine__memory="256MiB"))
    again = plan_for({**GUEST, **quiet}, machine__memory="256MiB")
    book.play(tick_rows(again, 3000)[0])
    assert 0.5 < book.held(0) / (48 * PB_PAGES) < 0.9  # 24 draws with return leave 0.6 of 48


def test_guests_start_one_after_the_other():
    plan = plan_for({**GUEST, "count": 3, "spacing_min": "50ms", "spacing_max": "150ms", "restart": False})
    rows, when = tick_rows(plan, 600)
    starts = [when[rows[:, Row.OWNER] == FIRST_OWNER + 2 * guest].min() for guest in range(3)]
    assert starts[0] in range(100, 115)
    assert all(35 <= gap <= 165 for gap in np.diff(starts))  # spacing, and ticks until the first region


def test_kinds_of_the_base_machine():
    kinds = set(plan_for().actors.kind.tolist())
    # Options, without which the flagship has its figures.
    options = {ActorKind.BUFFERS, ActorKind.GIGANTIC, ActorKind.MIXTURE}
    assert kinds == {int(kind) for kind in ActorKind} - {int(kind) for kind in options}
