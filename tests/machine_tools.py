"""Small machines for tests of the machine layer, and entries to kernels that only kernels call.

A machine here is a `Lowered` run whose arrays tests read and change. `bare` has free memory and one owner
with room for blocks; `booted` is the tiny configuration brought to time 0.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from spbfast.constants import NR_ROW, C, Cls, Ev, Mt, Op
from spbfast.jit.decorators import entry_kernel
from spbfast.model.engine import boot
from spbfast.model.holders.check_slab import check_slab
from spbfast.model.holders.reclaim import reclaim_pages
from spbfast.model.loop.execute import run_rows
from spbfast.model.loop.replay import boot_zone
from spbfast.model.loop.step import end_boot
from spbfast.model.lowering.lower_machine import Lowered, first_demand_owner, lower_scenario
from spbfast.model.requests.direct_compaction import compact_direct
from spbfast.model.state.build import boot_chunks, first_usable
from spbfast.model.state.check import check_zone
from spbfast.model.state.page_state import CODE_CONTIG, ORDER_NIBBLE, states_of
from spbfast.model.state.slots import blocks_in
from spbfast.model.state.vmstat import VM_NAMES
from spbfast.model.state.world import World
from spbfast.model.workers.compact import compact_for_thp, wake_compaction
from spbfast.model.workers.defer import execute_requests
from spbfast.model.workers.due import run_due_work
from spbfast.model.workers.shrink_slab import shrink_memcgs
from tests.demand_tools import scenario

USER = int(Cls.BLOCKING | Cls.KSWAPD)
ATOMIC = int(Cls.HIGH | Cls.KSWAPD | Cls.NOWARN)
OPTIONAL = int(Cls.NORETRY | Cls.NOWARN | Cls.NOMEMALLOC | Cls.KSWAPD)
U, M, R = int(Mt.UNMOVABLE), int(Mt.MOVABLE), int(Mt.RECLAIMABLE)
ROOM = {"kind": "daemons", "memory": "64MiB", "churn_per_second": 0.0}
MS = 1_000_000


class Verb(IntEnum):
    """What `do` does, and what its numbers mean."""

    EXECUTE = 0  # the first a rows of demand; an error code
    WORK = 1  # all work due up to time a
    ASK = 2  # what an event that recorded request bits a leads to, for migratetype b
    RECLAIM = 3  # a pages of page cache; pages freed
    WAKE = 4  # a request of order a failed
    COMPACT_THP = 5  # compaction on behalf of a huge fault; 1 if there is a free pageblock
    COMPACT = 6  # one direct compaction for a movable request of order b (0: 9) at priority a; its result
    SHRINK_SLAB = 7  # shrink_slab of a memcgs at priority b


NO_ROWS = np.zeros((0, NR_ROW), np.int32)


@entry_kernel
def do(verb, w, policy, rows, a, b):
    """One of `Verb`: one program, since each entry kernel compiles the allocator once more."""
    if verb == Verb.EXECUTE:
        return np.int64(run_rows(w, policy, rows, a))
    if verb == Verb.WORK:
        run_due_work(w, policy, a)
    if verb == Verb.ASK:
        w.zone.ev[Ev.REQUESTS] = a
        execute_requests(w, policy, b)
    if verb == Verb.RECLAIM:
        return np.int64(reclaim_pages(w.zone, policy, w.node, a))
    if verb == Verb.WAKE:
        wake_compaction(w.node, a)
    if verb == Verb.COMPACT_THP:
        return np.int64(compact_for_thp(w, policy))
    if verb == Verb.COMPACT:
        return np.int64(compact_direct(w, policy, b if b > 0 else np.int64(9), M, a))
    if verb == Verb.SHRINK_SLAB:
        shrink_memcgs(w, policy, a, b)
    return np.int64(0)


class Machine:
    """A lowered run with short ways to ask it for things."""

    def __init__(self, run: Lowered, owner: int) -> None:
        self.run, self.owner = run, owner
        self.world: World = run.world
        self.policy = run.policy

    def do(self, verb: Verb, a: int = 0, b: int = 0, rows: np.ndarray = NO_ROWS) -> int:
        """One verb of the kernels."""
        return int(do(int(verb), self.world, self.policy, rows, int(a), int(b)))

    def rows(self, *rows: tuple[int, ...]) -> int:
        """Execute rows as they are; the error code."""
        array = np.array(rows, np.int32).reshape(-1, NR_ROW)
        return self.do(Verb.EXECUTE, len(array), rows=array)

    def row(
        self,
        op: Op,
        slot: int = 0,
        n: int = 1,
        *,
        order: int = 0,
        alt: int = -1,
        mt: int = M,
        cls: int = USER,
        cpu: int = 0,
        owner: int | None = None,
    ) -> int:
        """Execute one row; the error code."""
        who = self.owner if owner is None else owner
        return self.rows((int(op), who, slot, n, order, alt, mt, cls, cpu))

    def fill(self, first: int, n: int, **values: Any) -> int:
        """Requests into n slots; how many were served."""
        assert self.row(Op.ALLOC, first, n, **values) == 0
        return int((self.slots(first, n) >= 0).sum())

    def fill_up(self, first: int, most: int, **values: Any) -> int:
        """As `fill`, up to the first hundred that is not served whole: failing is slow when interpreted."""
        nr = 0
        for start in range(first, first + most, 100):
            served = self.fill(start, min(100, first + most - start), **values)
            nr += served
            if served < 100:
                break
        return nr

    def slots(self, first: int = 0, n: int | None = None, owner: int | None = None) -> np.ndarray:
        """An owner's slots."""
        who = self.owner if owner is None else owner
        base, size = int(self.world.zone.slots.base[who]), int(self.world.zone.slots.size[who])
        last = base + size if n is None else base + first + n
        return blocks_in(self.world.zone.slots, slice(base + first, last))

    def vm(self, name: str) -> int:
        """A counter."""
        return int(self.world.node.vm[VM_NAMES.index(name)])

    @property
    def free(self) -> int:
        """Free pages of the zone."""
        return int(self.world.zone.count[C.FREE_PAGES])

    def work(self, until_ns: int) -> None:
        """Run what is due up to a time."""
        self.do(Verb.WORK, until_ns)

    def ask(self, bits: int, mt: int = U) -> None:
        """Let an event record request bits."""
        self.do(Verb.ASK, int(bits), mt)

    def check(self) -> None:
        """Everything must agree with everything, and no page may be lost."""
        check_zone(self.world.zone, self.policy)
        check_slab(self.world.slab, self.world.zone)
        held = held_pages(self.world)
        z = self.world.zone
        usable = z.geo.hi - first_usable(z)
        assert int(z.count[C.FREE_PAGES] + z.count[C.PCP_PAGES]) + held == usable


def held_pages(world: World) -> int:
    """Pages of all blocks that are in owners' slots."""
    pfn = blocks_in(world.zone.slots)
    heads = pfn[pfn >= 0]
    assert len(np.unique(heads)) == len(heads)
    state = states_of(world.zone.page, heads)
    whole = int((state >> 4 == CODE_CONTIG).sum())
    blocks = state[state >> 4 != CODE_CONTIG]
    return (whole << world.zone.geo.spb_shift) + int((1 << (blocks & ORDER_NIBBLE)).sum())


def bare(policy: Any = "v1@30", pinned: Any = None, **values: Any) -> Machine:
    """The tiny machine with all memory free, at time 0, and one owner of 16,384 slots; `pinned`: its pins."""
    given = scenario(ROOM | ({"pinned": pinned} if pinned else {}), policy=policy, **values)
    run = lower_scenario(given, 1, 0)
    z = run.world.zone
    boot_zone(z, run.policy, boot_chunks(z, first_usable(z), z.geo.hi))
    end_boot(run.world)
    return Machine(run, first_demand_owner(given))


def booted(policy: Any = "v1@30", seed: int = 1, replicate: int = 0, **values: Any) -> Machine:
    """The tiny configuration at time 0."""
    given = scenario(policy=policy, **values)
    run = lower_scenario(given, seed, replicate)
    assert boot(run, given, seed)
    return Machine(run, first_demand_owner(given))


def compile_all() -> None:
    """Compile the kernel of this module: one process does before several would at once."""
    bare().do(Verb.WAKE)
