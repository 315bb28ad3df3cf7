"""Runs of equal requests served from fragments, taken at once.

While requests of one order and type are served from a superpageblock's fragments, the smallest non-empty
order has nothing below it that would do: one by one they would hand out its head block piece by piece,
ascending, before they look at any other. Owns that block's removal and what is left of it; range.py and
refill.py say who gets the pieces. Never chooses a superpageblock.
"""

from __future__ import annotations

from spbfast.constants import MOVABLE, PB_ORDER, Ev, Outcome
from spbfast.jit.decorators import ctz, inline_kernel, kernel
from spbfast.model.allocator.freelist import add_to_free_list, del_from_free_list, first_block
from spbfast.model.allocator.pick import order_mask
from spbfast.model.allocator.rmqueue import queue_high_water
from spbfast.model.allocator.settle import settle
from spbfast.model.allocator.spb import account_pages, set_content

FRAGMENT_ORDERS = (1 << PB_ORDER) - 1


@inline_kernel
def fragments_for(z, set_, order, mt):
    """Bit set of the orders below a pageblock's from which a set can serve a request of this order."""
    return (order_mask(z, set_, mt) & FRAGMENT_ORDERS) >> order << order


@inline_kernel
def is_from_fragments(z, spb, order, mt, whole_first):
    """Whether the superpageblock found for a request serves it from fragments."""
    has_whole = order_mask(z, spb, mt) > FRAGMENT_ORDERS
    return fragments_for(z, spb, order, mt) != 0 and not (whole_first and has_whole)


@inline_kernel
def note_served(z, policy, pfn, mt):
    """A run of requests was served at and around `pfn`: what the last of them leaves in the event.

    Free pages only fall meanwhile: what the last request asks for holds all that others would.
    """
    z.ev[Ev.OUTCOME] = Outcome.TAKE_PREFERRED
    if mt != MOVABLE and z.geo.set_mask != 0:
        queue_high_water(z, policy, pfn)


@inline_kernel
def split_rest(z, pfn, nr_pages, order, mt):
    """Give back all but the first pages of a block of 2**order: largest aligned blocks, ascending."""
    rest = pfn + nr_pages
    end = pfn + (1 << order)
    while rest < end:
        part = ctz(rest)
        add_to_free_list(z, rest, part, mt, False)
        rest += 1 << part


@kernel
def take_fragment(z, policy, set_, order, mt, most):
    """Take up to `most` blocks of 2**order pages from the head of the smallest list that has one.

    Returns (first page, number of blocks); they follow each other and head nothing yet.
    """
    high = ctz(fragments_for(z, set_, order, mt))
    pfn = first_block(z, set_, high, mt)
    nr = min(most, 1 << (high - order))
    pages = nr << order
    del_from_free_list(z, pfn, high, mt)
    split_rest(z, pfn, pages, high, mt)
    account_pages(z, pfn, -pages)
    z.pb.used[pfn >> PB_ORDER, mt] += pages
    set_content(z, pfn >> PB_ORDER, mt)
    settle(z, policy, pfn)
    note_served(z, policy, pfn, mt)
    return pfn, nr
