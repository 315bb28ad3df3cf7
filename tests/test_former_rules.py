"""The rules that models up to version 3 had by default give that version's numbers, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.corrected import FORMER, FORMER_MACHINE

from spbfast.config import load_config
from spbfast.model.engine import MODEL_VERSION, run_replicate

CONFIGS = Path(__file__).parents[1] / "configs"
VERSION_3 = {  # digests of replicate 0, as version 3 gave them
    "v1@30": "3768b95dab037891",
    "mainline": "d0006207c6b6f27a",
    "v2": "aaddf97dc736e70f",
}


def digest(name: str, *overrides: str) -> str:
    """Digest of a ready-made job's replicate 0."""
    job = load_config(CONFIGS / f"{name}.yaml", list(overrides), one_point=True)
    return str(run_replicate(job.scenario, job.seed, 0).digest)


@pytest.mark.compiled
@pytest.mark.parametrize("policy", VERSION_3)
def test_former_rules_give_former_numbers(policy: str) -> None:
    former = [f"{key}={value}" for key, value in FORMER.items()]
    assert digest("tiny", f"policy.preset={policy}", *former) == VERSION_3[policy]
    assert digest("tiny", f"policy.preset={policy}") != VERSION_3[policy]


@pytest.mark.compiled
def test_the_former_machine_gives_the_former_quickstart() -> None:
    former = [f"{key}={value}" for key, value in FORMER_MACHINE.items()]
    assert MODEL_VERSION > 3
    assert digest("quickstart", "duration=5s", *former) == "ed0ede404d949c2c"
