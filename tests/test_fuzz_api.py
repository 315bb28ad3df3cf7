"""A short run of the fuzz in fuzz_api.py."""

from __future__ import annotations

import pytest

from tests.fuzz_api import CALLS, run

pytestmark = pytest.mark.shell


@pytest.mark.parametrize("group", CALLS)
def test_wrong_arguments_end_in_words(group: str) -> None:
    refused = run(1, 150, [group])
    assert refused > 10
