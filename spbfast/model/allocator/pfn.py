"""Conversions between pages, pageblocks, superpageblocks and list indices; nothing else converts.

Page indices count from the zone's aligned base (state/layout.py), so none of this needs the start pfn.
"""

from __future__ import annotations

from spbfast.constants import NR_MT, NR_ORDERS, PB_ORDER
from spbfast.jit.decorators import inline_kernel


@inline_kernel
def pb_of(pfn):
    """Pageblock of a page."""
    return pfn >> PB_ORDER


@inline_kernel
def spb_of(geo, pfn):
    """Superpageblock of a page."""
    return pfn >> geo.spb_shift


@inline_kernel
def set_of(geo, pfn):
    """List set of a page: its superpageblock, or the zone's only set in mainline mode."""
    return (pfn >> geo.spb_shift) & geo.set_mask


@inline_kernel
def list_of(set_, order, mt):
    """Index of a free list in `area.nr`."""
    return (set_ * NR_ORDERS + order) * NR_MT + mt


@inline_kernel
def first_page(geo, spb):
    """First page of a superpageblock."""
    return spb << geo.spb_shift
