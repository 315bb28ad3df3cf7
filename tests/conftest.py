"""The order of test files: those with slow tests begin first, so that no process waits at the end."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whole and in their order, but those first that have most slow tests."""
    slow: dict[str, int] = {}
    for item in items:
        is_slow = item.get_closest_marker("slow") is not None
        slow[item.path.name] = slow.get(item.path.name, 0) + is_slow
    items.sort(key=lambda item: -slow[item.path.name])
