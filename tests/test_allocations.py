"""The actor `allocations`: rates, orders, types, and lifetimes that are the mixture asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.constants import CLS_NORETRY, MOVABLE, RECLAIMABLE, Op, Row
from spbfast.errors import ConfigError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.engine import run_replicate
from tests.demand_tools import CONFIGS, digest_of, plan_for, scenario, tick_rows

TICKS = 1000 if INTERPRETED else 20_000
PART = {"kind": "allocations", "rate": 2000.0, "type": "movable", "lifetimes": ["20ms"], "shares": [1]}


def lives(rows: np.ndarray, when: np.ndarray) -> np.ndarray:
    """Ticks from each block to what hits its slot next, of blocks of the first half."""
    found, last = [], {}
    for tick, op, slot in zip(
        when.tolist(), rows[:, Row.OP].tolist(), rows[:, Row.SLOT].tolist(), strict=True
    ):
        if slot in last:
            found.append((last[slot], tick - last[slot]))
        last.pop(slot, None)
        if op == Op.REPLACE:
            last[slot] = tick
    alive = [(tick, TICKS) for tick in last.values()]
    return np.array([life for tick, life in found + alive if tick < TICKS // 2])


@pytest.mark.parametrize(
    ("more", "mean"),
    [
        ({}, 20.0),
        ({"rate": 12.5, "lifetimes": ["30ms"]}, 30.0),
        ({"burst": {"on": "20ms", "off": "60ms"}}, 20.0),
        ({"rate": 300.0, "lifetimes": ["100ms"]}, 100.0),
    ],
    ids=["plain", "rare", "bursts", "longer"],
)
def test_lifetimes_are_exponential(more: dict[str, Any], mean: float) -> None:
    found = lives(*tick_rows(plan_for(PART | more), TICKS))
    rate = (PART | more)["rate"]
    nr = rate * TICKS / 2000
    tolerance = 4 / nr**0.5 + 0.02 + (0.25 if INTERPRETED else 0.0)
    assert len(found) == pytest.approx(nr, rel=tolerance)
    assert found.mean() == pytest.approx(mean, rel=tolerance)
    for times in (0.5, 1.0, 2.0):
        expected = np.exp(-times)
        assert (found > times * mean).mean() == pytest.approx(expected, abs=2.5 / nr**0.5 + 0.02)


def test_parts_have_their_shares_orders_and_types() -> None:
    mixed = PART | {"order": 3, "type": "reclaimable", "lifetimes": ["2ms", "50ms"], "shares": [3, 1]}
    rows, when = tick_rows(plan_for(mixed), TICKS)
    new = rows[rows[:, Row.OP] == Op.REPLACE]
    assert len(new) == pytest.approx(2 * TICKS, rel=0.1)
    assert set(new[:, Row.MT]) == {RECLAIMABLE}
    assert set(new[:, Row.ORDER]) == {3}
    assert set(new[:, Row.ALT_ORDER]) == {0}
    assert (new[:, Row.CLS] & CLS_NORETRY).all()
    found = lives(rows, when)
    assert (found > 15).mean() == pytest.approx(0.25 * np.exp(-15 / 50), abs=0.03 if TICKS > 5000 else 0.08)
    (only,) = {tuple(row) for row in rows[:, [Row.OWNER, Row.N]].tolist()}
    assert only[1] == 1


def test_a_pause_has_frees_and_no_blocks() -> None:
    rows, when = tick_rows(plan_for(PART | {"burst": {"on": "20ms", "off": "180ms"}}), 1000)
    new = np.bincount(when[rows[:, Row.OP] == Op.REPLACE], minlength=1000)
    freed = np.bincount(when[rows[:, Row.OP] == Op.FREE], minlength=1000)
    idle = np.convolve(new, np.ones(21), "same") == 0
    assert idle.mean() > 0.6
    assert freed[idle].mean() > 10
    assert new.sum() == pytest.approx(2000, rel=0.15)


def test_draws_of_others_do_not_change() -> None:
    alone = tick_rows(plan_for(PART | {"name": "a"}), 200)[0]
    both = tick_rows(plan_for(PART | {"name": "a"}, PART | {"name": "b", "rate": 500.0}), 200)[0]
    first = int(alone[0, Row.OWNER])
    mine = both[both[:, Row.OWNER] == first]
    mine[:, Row.CPU] = alone[:, Row.CPU]
    assert digest_of(mine) == digest_of(alone)


@pytest.mark.compiled
def test_a_machine_serves_it_and_its_books_are_right() -> None:
    job = load_config(CONFIGS / "tiny.yaml", one_point=True)
    actors = [
        PART | {"name": "a", "lifetimes": ["1ms", "40ms"], "shares": [1, 1]},
        PART | {"name": "b", "type": "reclaimable", "rate": 100.0, "order": 2},
        PART | {"name": "c", "order": 9, "rate": 20.0},
    ]
    run = run_replicate(job.with_values({"actors": actors, "duration": "300ms"}), 1, 0, check=True)
    counters = run.coords["counter"].tolist()
    assert run.data["vmstat"][counters.index("page_events")][-1] > 600


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lifetimes": ["99us"]}, "lifetimes: must be at least 100us, got 99us"),
        ({"shares": [1, 2]}, "shares: must have one value per lifetime (1), got 2"),
        ({"order": 11}, "order: must be"),
        ({"type": "cma"}, "must be one of unmovable, movable, reclaimable; got 'cma'"),
        ({"rate": 1e7, "burst": {"on": "1ms", "off": "1s"}}, "units a second while active"),
    ],
)
def test_wrong_keys_are_told(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scenario(PART | more)
    assert said in str(caught.value)


def test_movable_is_a_type() -> None:
    assert set(tick_rows(plan_for(PART), 20)[0][:, Row.MT]) == {MOVABLE}
