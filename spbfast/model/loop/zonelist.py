"""Several zones: which of them serves a row of demand, and rows that free in all of them.

A world is one zone with a worker set of its own; a machine is a tuple of them, the zones Normal of its
nodes first, then DMA32. An owner's slot is empty in every world but one. With a single world this module
costs nothing: its rows go to run_rows as they are.

Model: a row (a handful of requests) goes to the first zone of its node's zonelist that stays above its
low watermark and its reserve, as get_page_from_freelist's first pass would choose; if there is none, to
the node's own zone and its slow path. A zone that has pages but not the order asked for is not left for
another one. File metadata and gigantic pages stay with their node.
"""

from __future__ import annotations

import numpy as np

from spbfast.constants import PB_ORDER, C, Err, Op, Row
from spbfast.jit.decorators import inline_kernel, kernel, pick
from spbfast.model.loop.execute import put_page, run_free_row, run_row, run_rows
from spbfast.model.state.node import N, Zl
from spbfast.model.state.world import nr_worlds


@inline_kernel
def home_of(worlds, cpu):
    """World of the zone Normal of a CPU's node; CPUs are spread evenly over nodes, in order."""
    conf = pick(worlds, 0).node.conf
    return np.int64(cpu) * conf[N.NR_NODES] // conf[N.NR_CPUS]


@kernel
def pages_asked(row):
    """Pages that a row asks for, at its preferred order."""
    order = np.int64(PB_ORDER) if row[Row.OP] == Op.THP else np.int64(row[Row.ORDER])
    return np.int64(row[Row.N]) << order


@kernel
def choose_world(worlds, row):
    """Number of the world that serves a row's requests."""
    home = home_of(worlds, row[Row.CPU])
    pages = pages_asked(row)
    zonelist = pick(worlds, home).node.zonelist
    for i in range(zonelist.shape[0]):
        number = zonelist[i, Zl.WORLD]
        w = pick(worlds, number)
        mark = w.node.conf[N.WMARK_LOW] + zonelist[i, Zl.RESERVE]
        if w.zone.count[C.FREE_PAGES] - pages >= mark:
            return number
    return home


@kernel
def put_everywhere(worlds, policy, row):
    """End the lifetime in a slot, in whichever zone it is."""
    for i in range(nr_worlds(worlds)):
        put_page(
            pick(worlds, i), policy, np.int64(row[Row.OWNER]), np.int64(row[Row.SLOT]), np.int64(row[Row.CPU])
        )


@kernel
def run_row_in_zones(worlds, policy, row):
    """Execute one row where its zonelist says; an error code."""
    op = np.int64(row[Row.OP])
    if op == Op.FREE:
        for i in range(nr_worlds(worlds)):
            err = run_free_row(pick(worlds, i), policy, row)
            if err != Err.OK:
                return err
        return Err.OK
    if op == Op.REPLACE:
        # Freed where it is; what is then replaced is an empty slot of the zone that serves.
        put_everywhere(worlds, policy, row)
    if op == Op.REPLACE or op == Op.ALLOC or op == Op.THP or op == Op.CACHE_ADD:
        return run_row(pick(worlds, choose_world(worlds, row)), policy, row)
    return run_row(pick(worlds, home_of(worlds, row[Row.CPU])), policy, row)


@inline_kernel
def run_rows_in_zones(worlds, policy, rows, n):
    """Execute the first n rows in order; the first error code ends it."""
    if len(worlds) == 1:
        return run_rows(pick(worlds, 0), policy, rows, n)
    for i in range(n):
        err = run_row_in_zones(worlds, policy, rows[i])
        if err != Err.OK:
            return err
    return Err.OK
