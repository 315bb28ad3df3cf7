"""A preload of Dask's workers: one start takes longer than Dask waits for a worker that has died."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

DEFAULT_TIMEOUT_S = 15  # of distributed.deploy.lost-worker-timeout


def dask_setup(worker: Any) -> None:
    """Note the start; sleep if it is the second."""
    starts = Path(os.environ["SPBFAST_SLOW_START"])
    with starts.open("a") as file:
        file.write("x")
    if len(starts.read_text()) == 2:
        time.sleep(DEFAULT_TIMEOUT_S + 3)
