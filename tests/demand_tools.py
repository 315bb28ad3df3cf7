"""Scenarios with chosen actors, and their rows tick by tick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spbfast.config import load_config
from spbfast.config.models import Scenario
from spbfast.constants import NR_ROW, PB_PAGES, Op, Row
from spbfast.model.demand.demand_plan import DemandPlan
from spbfast.model.demand.demand_rows import DIGEST0, fold_rows
from spbfast.model.demand.generate import generate_boot, generate_tick
from spbfast.model.lowering.lower_actors import lower_actors
from spbfast.model.primitives.draws import key_of

CONFIGS = Path(__file__).parent.parent / "configs"
KEY = key_of(1, 0)
FIRST_OWNER = 7


def scenario(*actors: dict[str, Any], **values: Any) -> Scenario:
    """The tiny machine, with these actors if any are given."""
    given: dict[str, Any] = {key.replace("__", "."): value for key, value in values.items()}
    if actors:
        given["actors"] = list(actors)
    return load_config(CONFIGS / "tiny.yaml").with_values(given)


def plan_for(*actors: dict[str, Any], **values: Any) -> DemandPlan:
    """The demand of such a scenario."""
    return lower_actors(scenario(*actors, **values), FIRST_OWNER)


def boot_rows(plan: DemandPlan, key: int = KEY) -> np.ndarray:
    """All rows of the boot phase."""
    buffer, out = np.zeros((plan.rows_cap, NR_ROW), np.int32), []
    n, step = generate_boot(plan.actors, key, 0, buffer), 0
    while n:
        assert n > 0
        out.append(buffer[:n].copy())
        step += 1
        n = generate_boot(plan.actors, key, step, buffer)
    return np.concatenate([np.zeros((0, NR_ROW), np.int32), *out]).astype(np.int64)


def tick_rows(plan: DemandPlan, ticks: int, key: int = KEY, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All rows of some ticks, and the tick of each."""
    buffer, out, when = np.zeros((plan.rows_cap, NR_ROW), np.int32), [], []
    for tick in range(first, first + ticks):
        n = generate_tick(plan.actors, key, tick, buffer)
        assert n >= 0, f"row buffer full in tick {tick}"
        out.append(buffer[:n].copy())
        when.append(np.full(n, tick))
    return np.concatenate(out).astype(np.int64), np.concatenate(when)


def digest_of(rows: np.ndarray) -> int:
    """The demand digest of rows."""
    return int(fold_rows(DIGEST0, rows.astype(np.int32), len(rows)))


def with_op(rows: np.ndarray, op: Op) -> np.ndarray:
    """The rows of one op."""
    return rows[rows[:, Row.OP] == op]


class SlotBook:
    """What every slot would hold if all requests succeeded; refuses to fill a slot twice."""

    def __init__(self, plan: DemandPlan) -> None:
        self.pages = [np.zeros(slots, np.int64) for slots in plan.owner_slots]

    def play(self, rows: np.ndarray) -> None:
        """Carry out the rows that name slots."""
        for row in rows:
            op, n = row[Row.OP], int(row[Row.N])
            if op not in (Op.ALLOC, Op.FREE, Op.THP, Op.REPLACE):
                continue
            pages, slot = self.pages[row[Row.OWNER] - FIRST_OWNER], int(row[Row.SLOT])
            stride = PB_PAGES if op == Op.THP else 1
            assert slot >= 0
            assert slot + (n - 1) * stride < len(pages)
            there = pages[slot : slot + n * stride]
            if op in (Op.FREE, Op.REPLACE):
                there[:] = 0
            if op in (Op.ALLOC, Op.THP):
                assert not there.any(), f"slots {slot}.. are asked for twice"
            if op != Op.FREE:
                there[::stride] = 1 << row[Row.ORDER]

    def held(self, owner: int) -> int:
        """Pages of an owner, counted from the plan's first."""
        return int(self.pages[owner].sum())
