"""The slab section as arrays: owners, sizes, keys, and shrinkers that scan what instances grew."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.config.caches import SlabCache, SlabSpec
from spbfast.constants import RECLAIMABLE, UNMOVABLE
from spbfast.jit.decorators import entry_kernel
from spbfast.model.holders.inodes import DONE, grow_inodes
from spbfast.model.holders.slab import add_slab, next_slab_slot
from spbfast.model.lowering.lower_slab import lower_slab, max_objects, nr_slots
from spbfast.model.state.shrink_layout import KIND_STANDIN, R, make_shrink
from spbfast.model.state.slab_layout import Sc, Si, St
from spbfast.model.state.standin_layout import SCAN_ALL, make_standins, no_standins
from spbfast.model.workers.shrink import begin_shrink, end_shrink, queue_shrink

PAGES = 1 << 18  # 1 GiB


@entry_kernel
def grow(slab, inst, nr):
    code = grow_inodes(slab, inst, nr)
    while code >= 0:
        add_slab(slab, code, next_slab_slot(slab), slab.cache[code, Sc.ORDER])
        code = grow_inodes(slab, inst, 0)
    return code


@entry_kernel
def shrink(s, slab, st, target, prio):
    queue_shrink(s, 0, 0, 0)
    began = begin_shrink(s, slab, st, 0, target, prio, 0)
    end_shrink(s, 0)
    return began


def test_caches_become_owners_in_their_order():
    config = SlabSpec()
    low = lower_slab(config, PAGES, owner0=5)
    assert low.slab.cache[:, Sc.OWNER].tolist() == list(range(5, 5 + len(config.caches)))
    assert low.slab.state.size == nr_slots(config, PAGES)
    types = [RECLAIMABLE if c.reclaimable else UNMOVABLE for c in config.caches]
    assert low.slab.cache[:, Sc.MT].tolist() == types
    inode = low.slab.cache[0]
    assert inode[[Sc.ORDER, Sc.MIN_ORDER, Sc.OBJECTS, Sc.MIN_OBJECTS]].tolist() == [3, 0, 28, 3]
    dentry = low.slab.cache[1]
    assert dentry[[Sc.ORDER, Sc.MIN_ORDER, Sc.OBJECTS, Sc.MIN_OBJECTS]].tolist() == [0, 0, 21, 21]


def test_instances_share_present_bits_with_the_shrinkers():
    config = SlabSpec(superblocks=2, memcgs=3, batch=256, seeks=4)
    low = lower_slab(config, PAGES, owner0=1)
    assert len(low.slab.inst) == 6
    assert low.shrink.present is low.slab.present
    assert low.shrink.table.tolist() == [[1, 1, 256, 4, 0, 0, 2], [1, 1, 256, 4, 0, 1, 2]]
    assert low.shrink.backlog.shape == (6,)
    assert low.shrink.work[0, 0] == 1
    assert low.slab.inst[0, Si.DENTRY_CACHE] == 1
    assert low.slab.inst[0, Si.INODE_CACHE] == 0


def test_keys_depend_on_seed_replicate_and_instance_only():
    config = SlabSpec()
    keys = {
        (seed, replicate): lower_slab(config, PAGES, 1, seed, replicate).slab.inst[:, Si.KEY]
        for seed in (0, 1)
        for replicate in (0, 1)
    }
    everything = np.concatenate(list(keys.values()))
    assert len(np.unique(everything)) == everything.size
    again = lower_slab(SlabSpec(batch=99), PAGES, 7, 1, 1).slab.inst[:, Si.KEY]
    assert (again == keys[1, 1]).all()


def test_pool_holds_what_fits_the_memory_or_the_bound():
    config = SlabSpec()
    assert max_objects(config, PAGES) * config.bytes_per_inode > PAGES * 4096 * config.objects_per_inode
    assert max_objects(SlabSpec(objects_max=1000), PAGES) == 1000
    low = lower_slab(config, PAGES, 1)
    assert low.slab.stat[St.MAX_OBJECTS] == max_objects(config, PAGES)


def test_slabs_have_room_for_half_as_many_again_as_full_ones_take():
    config = SlabSpec(objects_max=64_000_000)
    inodes = 64_000_000 / config.objects_per_inode
    share = {"inode": 1.0, "dentry": config.dentries_per_inode}
    full = sum(inodes * share.get(c.role, c.per_inode) // c.objects(c.order) for c in config.caches)
    assert nr_slots(config, 238 << 18) == pytest.approx(1.5 * full, rel=0.001)
    assert nr_slots(config, 1000) == 1000
    assert nr_slots(SlabSpec(objects_max=1000), 238 << 18) == 1 << 16


def test_objects_take_at_most_three_and_a_half_bytes():
    config = SlabSpec()
    nr_pages = 238 << 18
    low = lower_slab(config, nr_pages, 1)
    assert sum(a.nbytes for a in low.slab.fifo) <= 3.5 * max_objects(config, nr_pages)
    assert sum(a.nbytes for a in low.slab[1:4]) <= 12 * nr_slots(config, nr_pages)


def test_too_many_objects_a_slab_are_refused():
    caches = list(SlabSpec().caches)
    caches[2] = SlabCache(name="tiny", role="attached", object_size="8B", order=5)
    with pytest.raises(ValueError, match="must hold"):
        lower_slab(SlabSpec(caches=tuple(caches)), PAGES, 1)


@pytest.mark.compiled
def test_shrinkers_scan_the_instances_of_their_memcgs():
    config = SlabSpec(superblocks=2, memcgs=3, inodes_held_by_page_cache=0.0, referenced_again=0.0)
    low = lower_slab(config, PAGES, 1, nr_runs=9, nr_calls=99)
    assert grow(low.slab, 5, 5000) == DONE  # superblock 1 of memcg 2
    assert grow(low.slab, 2, 100) == DONE
    assert low.slab.present.tolist() == [0, 0, 1, 0, 0, 1]
    assert shrink(low.shrink, low.slab, no_standins(), 2048, 12)
    assert low.shrink.run[R.FREED] == 0
    assert low.shrink.calls[:2, 2:5].tolist() == [[1, 0, 125], [2, 1, 6250]]
    # A run that starts deep reaches both, and visits nothing that was never used but the root.
    shrink(low.shrink, low.slab, no_standins(), 2048, 0)
    stat = low.slab.stat
    assert low.shrink.run[R.FREED] == stat[St.DENTRIES_FREED] + stat[St.INODES_FREED] > 2048
    assert low.shrink.run[R.COUNTS] == 2 + 2
    assert low.slab.inst[2, Si.NR_INODES] < 100


def test_a_memcg_that_is_empty_loses_its_bit():
    config = SlabSpec(superblocks=1, memcgs=2, inodes_held_by_page_cache=0.0, batch=1)
    low = lower_slab(config, PAGES, 1)
    grow(low.slab, 1, 10)
    for _ in range(4):
        shrink(low.shrink, low.slab, no_standins(), 1 << 40, 0)
    assert low.slab.inst[1, Si.NR_INODES] == 0
    assert low.slab.present.tolist() == [0, 0]
    grow(low.slab, 1, 1)
    assert low.slab.present.tolist() == [0, 1]


def test_a_further_shrinker_leaves_the_superblocks_numbers_alone():
    low = lower_slab(SlabSpec(superblocks=2, memcgs=3), PAGES, 1)
    rows = [*low.shrink.table.tolist(), [0, 0, 128, 2, KIND_STANDIN, 6, 0]]
    s = make_shrink(np.array(rows), np.ones(3), np.ones(1), nr_calls=99)
    assert s.backlog.size == s.present.size == 7
    st = make_standins(np.array([[0] * 5, [0] * 5, [1, 1, 100, 0, SCAN_ALL]]), 7, np.zeros(7, bool), 0)
    st.objects[6] = 4096
    assert shrink(s, low.slab, st, 2048, 0)
    assert st.objects[6] <= 2048
    assert set(s.calls[: s.run[R.NR_CALLS], 3]) == {2}
