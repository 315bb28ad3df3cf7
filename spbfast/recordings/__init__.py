"""Recorded page events on a simulated machine: repeated under any policy, or compared page by page.

`replay_file` repeats the demand of a recording; `judge_file` follows a capture event by event and says how
often mainline's rules name the page that the kernel handed out. See docs/replay.md.
"""

from __future__ import annotations

from spbfast.recordings.judging import judge_file
from spbfast.recordings.replaying import replay_file

__all__ = ["judge_file", "replay_file"]
