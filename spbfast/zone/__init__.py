"""The allocator of one zone by hand."""

from spbfast.zone.eventrows import Event
from spbfast.zone.interactive import Zone

__all__ = ["Event", "Zone"]
