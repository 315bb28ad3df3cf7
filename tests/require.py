"""Skipping where something is missing, unless it is demanded.

SPBFAST_REQUIRE=slurm,chromium turns the skips of these names into failures, so that a CI which has installed
them cannot lose their tests without noticing.
"""

from __future__ import annotations

import os

import pytest


def need(name: str, present: bool, reason: str) -> None:
    """Go on if `present`, else skip, or fail where `name` is demanded."""
    if present:
        return
    if name in os.environ.get("SPBFAST_REQUIRE", "").split(","):
        pytest.fail(f"SPBFAST_REQUIRE demands {name}: {reason}")
    pytest.skip(reason)
