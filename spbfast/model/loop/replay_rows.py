"""Rows that go into and come out of the replay loop: int32, so that a trace needs half the memory traffic.

Owns the check that values fit, on both sides: no value is cut off in silence.
"""

from __future__ import annotations

import numpy as np

from spbfast.model.loop.replay import NR_BRIEF_FIELDS, NR_RESULT_FIELDS, ROW_MAX


def event_rows(values: np.ndarray) -> np.ndarray:
    """Event rows (columns E_* of replay.py) as the loop takes them.

    Parameters
    ----------
    values : int64 array, (events, NR_EVENT_FIELDS)

    Returns
    -------
    ndarray
        The same as int32.

    Raises
    ------
    ValueError
        A value that an int32 can't hold.
    """
    beyond = (values < -ROW_MAX) | (values > ROW_MAX)
    if beyond.any():
        row, column = np.argwhere(beyond)[0].tolist()
        raise ValueError(f"event {row}, column {column}: {values[row, column]} is beyond +-{ROW_MAX}")
    return values.astype(np.int32)


def result_rows(nr: int, brief: bool = False) -> np.ndarray:
    """Room for the results of `nr` events: int32 (nr, NR_RESULT_FIELDS), columns R_* of replay.py.

    With `brief` only the first NR_BRIEF_FIELDS of them, page and outcome.
    """
    return np.zeros((nr, NR_BRIEF_FIELDS if brief else NR_RESULT_FIELDS), np.int32)


def check_results(out: np.ndarray) -> None:
    """Raise OverflowError if the loop met a count that its row can't hold."""
    if out.size and out.max() == ROW_MAX:
        row, column = np.argwhere(out == ROW_MAX)[0].tolist()
        raise OverflowError(f"result {row}, column {column}: {ROW_MAX} or more, beyond what a row can hold")
