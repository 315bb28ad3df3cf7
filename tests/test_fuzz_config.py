"""A short run of the fuzz in fuzz_config.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import seed

from tests.fuzz_config import properties

pytestmark = pytest.mark.shell


@pytest.mark.parametrize("test", properties(60), ids=lambda t: t.__name__)
def test_no_configuration_ends_in_a_traceback(test: Callable[[], None]) -> None:
    seed(1)(test)()
