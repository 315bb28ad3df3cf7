"""The running kernel for tests: whether its events may be recorded here."""

from __future__ import annotations

import os
from pathlib import Path

from spbfast.errors import LiveError
from spbfast.live.tracefs import find_tracefs
from tests.require import need


def needed_tracefs() -> Path:
    """Where tracefs is; skips without it, or fails where SPBFAST_REQUIRE names ``tracefs``."""
    try:
        found, reason = find_tracefs(), ""
    except LiveError as error:
        found, reason = None, str(error)
    need("tracefs", found is not None and os.geteuid() == 0, reason or "recording events needs root")
    assert found is not None
    return found
