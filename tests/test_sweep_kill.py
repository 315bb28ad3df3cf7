"""SIGKILL at random times, of the driver, of a worker, of both: the results are those of a quiet night.

Three rounds of each mode here; `python -m tests.kill_tools 100` does a hundred.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.kill_tools import MODES, one_round, reference

pytestmark = [pytest.mark.slow, pytest.mark.shell]
ROUNDS = 1  # `python -m tests.kill_tools` makes as many as wanted


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reference(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize(("kind", "victim"), MODES, ids=str)
def test_killed_at_a_random_time(tmp_path: Path, expected: str, kind: str, victim: str, number: int) -> None:
    rng = random.Random(f"ci {kind} {victim} {number}")
    found = one_round(tmp_path, kind, victim, rng, most_kills=1)
    assert found.digest == expected
