"""What running kernels tell: dumps and traces as plain values, with a receipt for every reading.

This room knows the forms in which Linux and its tools print memory, and those in which people post them. It
never simulates. `read_dump` reads one file, `read_dumps` several of one machine, `read_events` streams a
trace, `diagnose` says whether a request would have succeeded. See docs/formats.md and docs/diagnose.md.
"""

from __future__ import annotations

from spbfast.observed.diagnosis import Diagnosis, diagnose
from spbfast.observed.loading import Observation, read_dump, read_dumps, read_events

__all__ = ["Diagnosis", "Observation", "diagnose", "read_dump", "read_dumps", "read_events"]
