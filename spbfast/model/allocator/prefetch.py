"""Two-stage prefetching of page records: the main lever on big machines.

A loop that knows its next events calls `prefetch_slot` some 32 events ahead and `prefetch_page` 16
ahead, a few hints an event: at 247 GiB half of an event is hints waiting for address translation, and
hints for several events at once, or for pageblock counts too, were slower (`spbfast bench`). Never
reads anything that decides a result.
"""

from __future__ import annotations

from spbfast.jit.decorators import inline_kernel, prefetch

SLOT_AHEAD = 32
PAGE_AHEAD = 16


@inline_kernel
def prefetch_slot(slots, owner, slot):
    """Hint that the entry of an owner's slot is needed soon."""
    prefetch(slots.link, slots.base[owner] + slot)


@inline_kernel
def prefetch_page(page, pfn):
    """Hint that the record of page `pfn` is needed soon; any index is safe."""
    prefetch(page.word, pfn)
