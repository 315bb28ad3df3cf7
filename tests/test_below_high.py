"""Lists of CPUs below the high watermark: from which request to which free they are kept short."""

from __future__ import annotations

from pathlib import Path

import pytest

from spbfast.config.models import StartSpec
from spbfast.constants import C, Op, Pc, Tune
from spbfast.errors import InvariantError
from spbfast.model.engine import run_replicate
from spbfast.model.state.check import check_zone
from spbfast.model.state.node import N
from tests.demand_tools import scenario
from tests.machine_tools import Machine, bare
from tests.passes import words_by_pass

KEPT_SHORT = {"pcp__shrink_below_high": True}


def is_short(machine: Machine) -> bool:
    return bool(machine.world.zone.count[C.BELOW_HIGH])


def at_mark(mark: int, **values: object) -> Machine:
    """A machine whose high watermark is so many pages below what is free."""
    machine = bare(**{**KEPT_SHORT, **values})
    machine.world.zone.pcp.conf[Tune.MARK_HIGH] = machine.free - mark
    return machine


def test_the_mark_is_the_high_watermark_and_none_by_default() -> None:
    with_key, without = bare(**KEPT_SHORT), bare()
    assert with_key.world.zone.pcp.conf[Tune.MARK_HIGH] == with_key.world.node.conf[N.WMARK_HIGH] > 0
    assert without.world.zone.pcp.conf[Tune.MARK_HIGH] == 0


@pytest.mark.parametrize("order", [0, 3])
def test_a_request_below_the_mark_says_so(order: int) -> None:
    """A request of 2**order pages must leave the mark; no page is missing, and then one is."""
    for mark, short in ((1 << order, False), ((1 << order) - 1, True)):
        machine = at_mark(mark)
        machine.fill(0, 1, order=order)
        assert is_short(machine) is short


def test_a_huge_fault_says_so_too() -> None:
    machine = at_mark(511)
    machine.row(Op.THP, 0, 1, order=9, alt=0)
    assert is_short(machine)


def test_without_a_mark_nobody_does() -> None:
    machine = bare()
    machine.fill_up(0, 16_000)
    assert not is_short(machine)


@pytest.mark.parametrize("short", [False, True])
def test_lists_are_kept_short_below_it(short: bool) -> None:
    """1000 pages are taken and freed. Below the mark the limit sinks to its least, and refills raise none."""
    machine = at_mark(2_000_000 if not short else -1)
    z = machine.world.zone
    batch, least = int(z.pcp.conf[Tune.BATCH]), int(z.pcp.conf[Tune.HIGH_MIN])
    before = z.pcp.cpu[0, Pc.HIGH]
    assert machine.fill(0, 1000) == 1000
    assert bool(z.pcp.cpu[0, Pc.HIGH] > before) is not short
    machine.row(Op.FREE, 0, 1000)
    assert is_short(machine) is short
    assert bool(z.pcp.cpu[0, Pc.COUNT] <= least + batch) is short
    assert bool(z.pcp.cpu[0, Pc.HIGH] == least) is short
    machine.check()


def test_a_free_above_the_mark_lets_them_grow_again() -> None:
    """Not any free: one that makes a list give pages back, and finds more than the mark free."""
    machine = at_mark(500)
    z = machine.world.zone
    assert machine.fill(0, 1000) == 1000
    assert is_short(machine)
    mark = int(z.pcp.conf[Tune.MARK_HIGH])
    for slot in range(1000):
        before = machine.free
        machine.row(Op.FREE, slot)
        if not is_short(machine):
            break
        assert machine.free == before or machine.free <= mark
    assert not is_short(machine)
    assert machine.free > mark
    machine.check()


def test_recount_finds_a_sign_without_a_mark() -> None:
    machine = bare()
    machine.world.zone.count[C.BELOW_HIGH] = 1
    with pytest.raises(InvariantError, match="kept short below a mark"):
        check_zone(machine.world.zone, machine.policy)


SHORT_OF_MEMORY = {
    **KEPT_SHORT,
    **{"pcp__high_min": 16, "pcp__high_max": 4000, "machine__min_free": "24MiB", "duration": "60ms"},
}


def test_saved_and_continued_it_is_where_it_was(tmp_path: Path) -> None:
    given = scenario(**SHORT_OF_MEMORY)
    whole = run_replicate(given, 1, 0, check=True)
    path = tmp_path / "state"
    run_replicate(given, 1, 0, save=(30, lambda state: state.write(path)))
    later = given.model_copy(update={"start": StartSpec(state=str(path))})
    assert run_replicate(later, 1, 0, check=True).digest == whole.digest
    assert (
        run_replicate(scenario(**{**SHORT_OF_MEMORY, "pcp__shrink_below_high": False}), 1, 0).digest
        != whole.digest
    )


SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
from tests.test_below_high import SHORT_OF_MEMORY
print(run_replicate(scenario(**{**SHORT_OF_MEMORY, "duration": "8ms"}), 1, 0, check=True).digest)
"""


@pytest.mark.compiled
def test_interpreted_equals_compiled() -> None:
    compiled, interpreted = words_by_pass(SNIPPET)
    assert compiled == interpreted
