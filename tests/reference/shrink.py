"""Slab shrink: the queue, the worker run and the shrinker arithmetic, slow and obvious.

Owns the caches (deterministic stand-ins for real ones), their backlogs and present bits, and the
per-node work items.  Pages play no part: the unit is the object.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

TARGET_OBJS = 2048
START_PRIORITY = 12
DEFAULT_BATCH = 128

QUEUE_THROTTLED, QUEUE_QUEUED, QUEUE_PENDING, QUEUE_NO_WORKQUEUE = range(4)
EMPTY = "empty"
STOP = "stop"


@dataclass(frozen=True)
class Shrinker:
    """Set-up of one registered shrinker; `crule` and `srule` choose the behaviour of its caches."""

    aware: bool
    numa: bool
    batch: int
    seeks: int
    crule: int
    srule: int
    num: int
    den: int
    pct: int


@dataclass
class Cache:
    """One (shrinker, memcg, node): objects, the backlog of deferred scans, and rule state."""

    shrinker: Shrinker
    objects: int = 0
    backlog: int = 0
    carry: int = 0
    scan_calls: int = 0
    referenced: deque[bool] = field(default_factory=deque)

    def count_objects(self) -> int | str:
        """What the cache says it could free: a number, or EMPTY (rule 1 only)."""
        if self.shrinker.crule == 1 and self.objects == 0:
            return EMPTY
        if self.shrinker.crule == 2:
            return self.objects * self.shrinker.pct // 100
        return self.objects

    def scan(self, k: int) -> tuple[int, int] | str:
        """Scan `k` objects: (scanned, freed), or STOP."""
        rule = self.shrinker.srule
        self.scan_calls += 1
        if rule == 3 or (rule == 4 and self.scan_calls % self.shrinker.den == 0):
            return STOP
        if rule == 6:
            return k, self._scan_second_chance(k)
        scanned = -(-k // 2) if rule == 5 else k
        freed = scanned
        if rule == 1:
            self.carry += k * self.shrinker.num
            freed = self.carry // self.shrinker.den
            self.carry %= self.shrinker.den
        elif rule == 2:
            freed = 0
        freed = min(freed, self.objects)
        self.objects -= freed
        return scanned, freed

    def _scan_second_chance(self, k: int) -> int:
        """Rule 6: a referenced front entry goes to the end unreferenced, another one is freed."""
        freed = 0
        for _ in range(min(k, self.objects)):
            if self.referenced.popleft():
                self.referenced.append(False)
            else:
                freed += 1
        self.objects -= freed
        return freed

    def add_objects(self, count: int, ref_num: int, ref_den: int) -> None:
        """Grow by `count` objects, or shrink (from the front) if it's negative."""
        if count < 0:
            count = max(count, -self.objects)
        if self.shrinker.srule == 6:
            for i in range(count):
                self.referenced.append(ref_den > 0 and i % ref_den < ref_num)
            for _ in range(-count):
                self.referenced.popleft()
        self.objects += count


@dataclass(frozen=True)
class Call:
    """One shrinker call that got past its count: a row of the call_* columns."""

    prio: int
    memcg: int
    shr: int
    freeable: int
    backlog: int
    delta: int
    target: int
    scanned: int
    freed: int
    backlog_after: int
    left: int


@dataclass
class Run:
    """One worker run: a row of the run_* columns, with its calls."""

    node: int
    passes: int = 0
    last_prio: int = START_PRIORITY
    freed: int = 0
    scanned: int = 0
    counts: int = 0
    calls: list[Call] = field(default_factory=list)


@dataclass
class Work:
    """The work item of a node."""

    has_wq: bool
    stamp: int | None = None
    pending: bool = False
    running: bool = False
    nr_queued: int = 0
    nr_ran: int = 0


class ShrinkWorld:
    """All nodes, memcgs (0 is the root) and shrinkers of a machine."""

    def __init__(
        self,
        shrinkers: list[Shrinker],
        memcg_online: list[bool],
        has_wq: list[bool],
        throttle_ms: int,
    ) -> None:
        self.shrinkers = shrinkers
        self.memcg_online = memcg_online
        self.works = [Work(has) for has in has_wq]
        self.throttle_ms = throttle_ms
        self.caches = {
            (shr, memcg, node): Cache(shrinker)
            for shr, shrinker in enumerate(shrinkers)
            for memcg in (range(len(memcg_online)) if shrinker.aware else (0,))
            for node in (range(len(has_wq)) if shrinker.numa else (0,))
        }
        self.present: set[tuple[int, int, int]] = set()

    # -- events ---------------------------------------------------------------------------------

    def queue(self, node: int, now: int) -> int:
        """Ask for a run: nothing without a workqueue or within the throttle time of the last stamp.

        The stamp moves even if the work is already pending.  Running is not pending.
        """
        work = self.works[node]
        if not work.has_wq:
            return QUEUE_NO_WORKQUEUE
        if self.throttle_ms and work.stamp is not None and now < work.stamp + self.throttle_ms:
            return QUEUE_THROTTLED
        work.stamp = now
        if work.pending:
            return QUEUE_PENDING
        work.pending = True
        work.nr_queued += 1
        return QUEUE_QUEUED

    def begin(self, node: int) -> Run | None:
        """Start the pending run, if none is running, and do all of its computation now."""
        work = self.works[node]
        if not work.pending or work.running:
            return None
        work.pending, work.running = False, True
        work.nr_ran += 1
        return self.run(node)

    def end(self, node: int) -> bool:
        """End the run; says whether there was one."""
        was_running = self.works[node].running
        self.works[node].running = False
        return was_running

    def change_objects(
        self, shr: int, memcg: int, node: int, count: int, ref_num: int = 0, ref_den: int = 0
    ) -> None:
        """Add objects (or remove, if negative); a non-root cache that was empty sets its bit."""
        cache = self.caches[shr, memcg, node]
        was_empty = cache.objects == 0
        cache.add_objects(count, ref_num, ref_den)
        if count > 0 and was_empty and self.shrinkers[shr].aware and memcg > 0:
            self.present.add((shr, memcg, node))

    # -- the worker run -------------------------------------------------------------------------

    def run(self, node: int) -> Run:
        """Passes over all memcgs from priority 12 down, until 2048 objects are freed or none."""
        run = Run(node)
        prio = START_PRIORITY
        while run.freed < TARGET_OBJS and prio >= 0:
            run.passes += 1
            run.last_prio = prio
            freed = sum(self.shrink(run, memcg, prio) for memcg in range(len(self.memcg_online)))
            if freed == 0:
                break
            run.freed += freed
            prio -= 1
        return run

    def shrink(self, run: Run, memcg: int, prio: int) -> int:
        """All shrinkers of one memcg; below the root only those whose present bit is set."""
        if memcg == 0:
            return sum(as_number(self.one(run, shr, 0, prio)) for shr in range(len(self.shrinkers)))
        if not self.memcg_online[memcg]:
            return 0
        freed = 0
        for shr in range(len(self.shrinkers)):
            bit = (shr, memcg, run.node)
            if bit not in self.present:
                continue
            result = self.one(run, shr, memcg, prio)
            if result == EMPTY:
                self.present.discard(bit)
                result = self.one(run, shr, memcg, prio)
                if result != EMPTY:
                    self.present.add(bit)
            freed += as_number(result)
        return freed

    def cache_of(self, shr: int, memcg: int, node: int) -> Cache:
        """The cache that stands for (shrinker, memcg, node) asked."""
        shrinker = self.shrinkers[shr]
        return self.caches[shr, memcg if shrinker.aware else 0, node if shrinker.numa else 0]

    def one(self, run: Run, shr: int, memcg: int, prio: int) -> int | str:
        """One shrinker call: scan in batches what priority and backlog ask for; objects freed.

        The backlog afterwards is the full old one plus the new share minus what was scanned,
        between 0 and twice the count.
        """
        cache = self.cache_of(shr, memcg, run.node)
        run.counts += 1
        n = cache.count_objects()
        if n == 0 or isinstance(n, str):
            return n
        old, cache.backlog = cache.backlog, 0
        seeks = cache.shrinker.seeks
        delta = ((n >> prio) * 4) // seeks if seeks else n // 2
        left = target = min((old >> prio) + delta, 2 * n)
        batch = cache.shrinker.batch or DEFAULT_BATCH
        freed = scanned = 0
        while left >= batch or left >= n:
            result = cache.scan(min(batch, left))
            if isinstance(result, str):
                break
            left -= result[0]
            scanned += result[0]
            freed += result[1]
        cache.backlog = min(max(old + delta - scanned, 0), 2 * n)
        run.scanned += scanned
        run.calls.append(Call(prio, memcg, shr, n, old, delta, target, scanned, freed, cache.backlog, left))
        return freed

    # -- what a test looks at -------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Objects and backlog per existing cache, present bits, work items."""
        return {
            "objects": {key: cache.objects for key, cache in self.caches.items()},
            "backlog": {key: cache.backlog for key, cache in self.caches.items()},
            "present": sorted(self.present),
            "works": [(work.stamp, work.pending, work.running) for work in self.works],
        }


def as_number(result: int | str) -> int:
    """Objects freed by a call; EMPTY counts as none."""
    return 0 if isinstance(result, str) else result
