"""An engine whose runs are next to nothing, so that what a sweep costs is the sweep's own.

SPBFAST_FAKE_BURN is the CPU time in seconds that a run spends in C code without the interpreter's lock, as a
compiled kernel does.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import numpy as np

from tests.fake_engine import MODEL_VERSION, ReplicateResult, state_bytes, warmup

__all__ = ["MODEL_VERSION", "run_replicate", "state_bytes", "warmup"]

_SAMPLES = 13
_DATA = {
    name: np.arange(_SAMPLES)
    for name in ("spb_tainted", "spb_clean", "spb_empty", "slab_pages", "pagecache_pages", "pcp_pages")
}
_COORDS = {"time": np.arange(_SAMPLES, dtype=np.float64)}


def run_replicate(
    scenario: Any, seed: int, replicate: int, *, stop: Any = None, **unused: Any
) -> ReplicateResult:
    begin, burnt = time.perf_counter(), time.thread_time()
    burn = float(os.environ.get("SPBFAST_FAKE_BURN", "0"))
    stopped = False
    while time.thread_time() - burnt < burn and not stopped:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000)
        stopped = stop is not None and stop()
    wall = time.perf_counter() - begin
    return ReplicateResult(dict(_DATA), dict(_COORDS), wall, 0.0, 1000, "0" * 16, "0" * 16, stopped)
