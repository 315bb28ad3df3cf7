"""Rows of the replay loop: int32, and nothing cut off in silence."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.errors import TraceError
from spbfast.model.loop.replay import NR_EVENT_FIELDS, R_VISITED, ROW_MAX
from spbfast.model.loop.replay_rows import check_results, event_rows, result_rows
from spbfast.verify.golden import Golden, load_golden
from spbfast.verify.replay_zone import Replay
from tests.zone_tools import GOLDEN, TINY


@pytest.mark.parametrize("value", [ROW_MAX + 1, -ROW_MAX - 1, -(1 << 63), (1 << 63) - 1])
def test_events_beyond_int32_are_refused(value: int) -> None:
    values = np.zeros((3, NR_EVENT_FIELDS), np.int64)
    values[1, 2] = value
    with pytest.raises(ValueError, match=rf"event 1, column 2: {value} is beyond"):
        event_rows(values)


def test_events_that_fit_stay_what_they_are() -> None:
    values = np.array([[ROW_MAX, -ROW_MAX, 0, 1, -1, 7]], np.int64)
    assert event_rows(values).tolist() == values.tolist()
    assert event_rows(values[:0]).shape == (0, NR_EVENT_FIELDS)


def test_counts_that_a_row_cannot_hold_are_told() -> None:
    out = result_rows(2)
    check_results(out)
    out[1, R_VISITED] = ROW_MAX
    with pytest.raises(OverflowError, match=f"result 1, column {R_VISITED}"):
        check_results(out)


def test_a_trace_with_too_large_a_handle_is_refused() -> None:
    golden = load_golden(GOLDEN / f"{TINY[0]}.npz")
    flags = golden["flags"].copy()
    flags[5] = 1 << 40
    with pytest.raises(TraceError, match="event 5, column 4"):
        Replay(Golden(golden.path, golden.kind, golden.meta, golden.arrays | {"flags": flags}))
