"""The running kernel of this machine: its tables in /proc and its events through tracefs.

This room only looks: it writes to a tracefs instance of its own and takes that away again. `capture` records
a machine into one file, which spbfast.observed reads. See docs/capture.md.
"""

from __future__ import annotations

from spbfast.live.capture import CaptureRequest, capture

__all__ = ["CaptureRequest", "capture"]
