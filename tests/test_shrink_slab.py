"""Slab under kswapd and direct reclaim: whose walk, at which priority, by the shrink worker's arithmetic."""

from __future__ import annotations

import pytest

from spbfast.constants import DEF_PRIORITY, C, Op
from spbfast.jit.decorators import entry_kernel
from spbfast.model.engine import run_replicate
from spbfast.model.state.node import NEVER, Ca, N, Now, Wk
from spbfast.model.state.shrink_layout import W
from spbfast.model.workers.shrink import begin_shrink, end_shrink
from spbfast.model.workers.shrink_slab import rate_initial_priority
from tests.demand_tools import scenario
from tests.machine_tools import MS, R, Verb, bare
from tests.passes import cases

MEMCGS, SUPERBLOCKS = 3, 2
STILL = {"slab__age_correlation": 1.0, "slab__referenced_again": 0.0}


@entry_kernel
def run_worker(w, target, prio):
    """One run of the slab-shrink worker."""
    w.shrink.work[0, W.PENDING] = 1
    begin_shrink(w.shrink, w.slab, w.standins, 0, target, prio, 0)
    end_shrink(w.shrink, 0)


@entry_kernel
def initial_priority(w):
    """The priority at which MGLRU begins."""
    return rate_initial_priority(w)


def with_slab(inodes=3000, **values):
    """Every (superblock, memcg) has as many inodes, and as many dentries; page cache below."""
    machine = bare(slab__dentries_per_inode=1.0, slab__inodes_held_by_page_cache=0.0, **STILL, **values)
    for inst in range(MEMCGS * SUPERBLOCKS):
        assert machine.row(Op.SLAB_GROW, inst, inodes, mt=R) == 0
    return machine


def with_cache(machine, pages):
    """Page cache of about so many pages, in single ones."""
    assert machine.row(Op.CACHE_ADD, 0, pages, owner=0) == 0
    return machine


def objects(machine):
    """Objects in all slab caches."""
    return int(machine.world.slab.stat[0])


def visits(machine):
    return machine.vm("reclaim_slab_memcgs")


@pytest.mark.compiled
@pytest.mark.parametrize("prio", cases(12, 8, 3))
def test_one_visit_of_each_memcg_is_a_pass_of_the_shrink_worker(prio):
    """Equal arithmetic: what is scanned, freed and put off, and the pages that come back."""
    one, other = with_slab(), with_slab()
    one.do(Verb.SHRINK_SLAB, MEMCGS, prio)
    run_worker(other.world, 1, prio)
    assert one.world.shrink.backlog.tolist() == other.world.shrink.backlog.tolist()
    assert objects(one) == objects(other)
    assert one.world.shrink.run.tolist()[2:6] == other.world.shrink.run.tolist()[2:6]
    assert one.vm("reclaim_slab_freed") == int(other.world.shrink.run[2])
    assert (one.vm("reclaim_slab_pages") > 0) is (prio == 3)
    one.check()


@pytest.mark.compiled
def test_what_is_put_off_is_shared_by_all_who_shrink():
    """Known answer: 3,000 freeable dentries at priority 10 put off 2 * (3000 >> 10) = 4 a visit."""
    machine = with_slab()
    for visit in range(1, 4):
        machine.do(Verb.SHRINK_SLAB, MEMCGS, 10)
        assert set(machine.world.shrink.backlog.tolist()) == {4 * visit}
    run_worker(machine.world, 1, 10)
    assert set(machine.world.shrink.backlog.tolist()) == {16}
    assert machine.vm("reclaim_slab_freed") == 0


@pytest.mark.compiled
def test_memcgs_take_turns():
    machine = with_slab()
    machine.do(Verb.SHRINK_SLAB, 2, 10)
    assert machine.world.shrink.backlog.tolist() == [4, 4, 4, 4, 0, 0]
    machine.do(Verb.SHRINK_SLAB, 2, 10)
    assert machine.world.shrink.backlog.tolist() == [8, 8, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("cold", "high", "prio"),
    [
        # fls(cold) - 1 - fls(high - 1), between 6 and 12; goals below 64 pages begin at 12
        (39_000_000, 141_000, 7),
        (1 << 25, 1 << 17, 8),
        ((1 << 25) - 1, 1 << 17, 7),
        (1 << 25, (1 << 17) + 1, 7),
        (1000, 5000, 6),
        (1 << 30, 64, 12),
        (1000, 63, 12),
    ],
)
def test_mglru_begins_where_a_pass_scans_about_what_is_wanted(cold, high, prio):
    world = bare().world
    world.node.cache[Ca.COLD_PAGES], world.node.conf[N.WMARK_HIGH] = cold, high
    assert initial_priority(world) == prio


def balance(machine, short):
    """Wake kswapd with `short` pages wanted, and let it work to the end."""
    conf, node = machine.world.node.conf, machine.world.node
    conf[[N.WMARK_MIN, N.WMARK_LOW]] = 0
    conf[N.WMARK_HIGH] = machine.free + short
    node.due[Wk.KSWAPD] = node.now[Now.NS]
    machine.work(int(node.now[Now.NS]) + 10_000 * MS)
    assert node.due[Wk.KSWAPD] == NEVER
    assert machine.world.zone.count[C.RECLAIM_ACTIVE] == 0


def classic_passes(cache, want, high):
    """Priorities of the passes of balance_pgdat that reclaim `want` of `cache` pages, as a plain loop."""
    prio, out = DEF_PRIORITY, []
    while want > 0:
        out.append(prio)
        scans = max(min(cache >> prio, high), 1)
        cache, want = cache - scans, want - scans
        if scans < high and prio > 1:
            prio -= 1
    return out


@pytest.mark.parametrize("short", [1, 5, 100, 1500])
def test_a_classic_kswapd_visits_every_memcg_once_a_pass(short):
    machine = with_cache(
        with_slab(100, reclaim__shrink_slab="classic", reclaim__kswapd_page_cost="1ms"), 8000
    )
    cache = int(machine.world.node.cache[Ca.COLD_PAGES] + machine.world.node.cache[Ca.HOT_PAGES])
    high = machine.free + short
    balance(machine, short)
    passes = classic_passes(cache, short, high)
    assert machine.world.node.now[Now.KSWAPD_PRIO] == passes[-1]
    assert visits(machine) == MEMCGS * len(passes)
    machine.check()


def test_mglru_visits_memcgs_as_their_page_cache_is_reclaimed():
    """Known answer: a pass at priority 6 scans a 64th; each third of that is one memcg's part."""
    machine = with_cache(with_slab(100, reclaim__shrink_slab="mglru"), 8000)
    node = machine.world.node
    cache = int(node.cache[Ca.COLD_PAGES] + node.cache[Ca.HOT_PAGES])
    part = -(-(cache >> 6) // MEMCGS)
    balance(machine, part)
    assert (visits(machine), node.now[Now.KSWAPD_PRIO]) == (1, 6)
    balance(machine, part - 2)
    assert visits(machine) == 1, "a part that was not reclaimed whole"
    balance(machine, 2 * part)
    assert visits(machine) == 3
    machine.check()


@pytest.mark.parametrize(("key", "least"), cases(("none", 0), ("mglru", 6), ("classic", 12)))
def test_without_page_cache_kswapd_goes_down_to_priority_1(key, least):
    machine = with_slab(reclaim__shrink_slab=key)
    had = objects(machine)
    balance(machine, 10**6)
    assert machine.vm("reclaim_failed") == 1
    assert machine.vm("pgsteal_kswapd") == 0
    assert visits(machine) >= MEMCGS * (least - 1)
    assert (objects(machine) < had) is (key != "none")
    machine.check()


@pytest.mark.parametrize("key", cases("none", "classic", "mglru"))
def test_a_round_of_direct_reclaim_visits_one_memcg(key):
    machine = with_cache(with_slab(reclaim__shrink_slab=key, pagecache__folio_weights=[1.0]), 4000)
    conf = machine.world.node.conf
    conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = machine.free + 16, machine.free + 24, machine.free + 32
    machine.fill(0, 1)
    rounds = machine.vm("direct_reclaim_rounds")
    assert rounds >= 1
    assert visits(machine) == (0 if key == "none" else rounds)
    machine.check()


def test_direct_reclaim_without_page_cache_lives_on_slab():
    """As do_try_to_free_pages: lower and lower priorities over all memcgs until 32 pages came."""
    had = {}
    for key in ("none", "classic"):
        machine = with_slab(reclaim__shrink_slab=key, reclaim__rounds_max=1)
        conf = machine.world.node.conf
        conf[[N.WMARK_MIN, N.WMARK_LOW, N.WMARK_HIGH]] = machine.free + 8, machine.free + 9, machine.free + 10
        had[key] = machine.fill(0, 1)
        if key == "classic":
            assert machine.vm("reclaim_slab_pages") >= 32
            assert visits(machine) % MEMCGS == 0
        machine.check()
    assert had == {"none": 0, "classic": 1}


@pytest.mark.compiled
@pytest.mark.parametrize("key", cases("classic", "mglru"))
def test_a_run_shrinks_slab_and_stays_consistent(key):
    given = scenario(duration="600ms", reclaim__shrink_slab=key, policy="v1@45")
    run = run_replicate(given, 1, 0, check=True)
    vm = dict(zip(run.coords["counter"], run.data["vmstat"][:, -1], strict=True))
    assert vm["reclaim_slab_memcgs"] > 0
    assert vm["slabs_scanned"] >= vm["reclaim_slab_freed"]
    off = run_replicate(scenario(duration="600ms", policy="v1@45"), 1, 0)
    assert off.demand_digest == run.demand_digest
