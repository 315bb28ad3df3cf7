"""Some examples of the fuzz of damaged files; `python -m tests.fuzz_damage --minutes 10` runs more."""

from __future__ import annotations

from pathlib import Path

import numba
import pytest

from spbfast.jit import decorators
from spbfast.jit.decorators import INTERPRETED
from tests.fuzz_damage import Kernels, Sweeps, run


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    return Sweeps(tmp_path_factory.mktemp("sweeps"))


@pytest.mark.compiled
@pytest.mark.parametrize("seed", range(10))
def test_damaged_results(sweeps: Sweeps, seed: int) -> None:
    assert run(sweeps.check, seed) == ""


@pytest.mark.skipif(INTERPRETED, reason="there is no machine code in the interpreted pass")
def test_damaged_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "CACHE_DIR", decorators.CACHE_DIR)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", numba.core.config.CACHE_DIR)
    check = Kernels(tmp_path).check
    for seed in range(20):
        assert run(check, seed) == "", seed
