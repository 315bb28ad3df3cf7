"""Slabs of CPUs: each fills its own, and keeps some with room on a list before others may use them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from spbfast.config.caches import SlabSpec
from spbfast.config.models import StartSpec
from spbfast.constants import NR_POLICY, RECLAIMABLE
from spbfast.errors import InvariantError
from spbfast.jit.decorators import entry_kernel
from spbfast.model.engine import run_replicate
from spbfast.model.holders.slab import free_emptied
from spbfast.model.lowering.lower_slab import cpu_slabs, lower_slab
from spbfast.model.state.slab_layout import END, LINK0, CacheSpec, Sc, Sp, make_slab
from tests.demand_tools import scenario
from tests.passes import words_by_pass
from tests.test_slab import SLOTS, add, enter, random_run, take_put, zone_of

GROWING = {
    "slab__per_cpu_slabs": True,
    "slab__refault_share": 0.5,
    "slab__refault_delay": "10ms",
    "machine__cpus": 4,
    "reclaim__shrink_slab": "classic",
    "duration": "40ms",
}
SNIPPET = """
from spbfast.model.engine import run_replicate
from tests.demand_tools import scenario
from tests.test_cpu_slabs import GROWING
print(run_replicate(scenario(**{**GROWING, "duration": "8ms"}), 1, 0, check=True).digest)
"""
OBJECTS = 21  # dentries a slab
SIZES = {
    "btrfs_inode": 2,
    "dentry": 12,
    "extent_map": 9,
    "extent_state": 5,
    "radix_tree_node": 8,
    "kmalloc-512": 13,
}


@entry_kernel
def free_away(z, policy, slab):
    return free_emptied(z, policy, slab)


class Cache:
    """One cache of 21 objects a slab, for several CPUs; slabs have no pages."""

    def __init__(self, cpus: int = 2, most: int = 2, min_partial: int = 0) -> None:
        spec = CacheSpec(1, 192, 0, 0, RECLAIMABLE, min_partial, most)
        self.slab = make_slab([spec], [], nr_slots=SLOTS, nr_cpus=cpus)
        self.zone, self.policy = zone_of(2048), np.zeros(NR_POLICY, np.int64)

    def take(self, cpu: int, nr: int = 1) -> list[int]:
        """Slots of the slabs that objects came from."""
        enter(self.slab, cpu)
        slots = []
        for _ in range(nr):
            slot = take_put(self.slab, 0, -1)
            if slot < 0:
                add(self.slab, 0, 0)
                slot = take_put(self.slab, 0, -1)
            slots.append(int(slot))
        return slots

    def put(self, cpu: int, *slots: int) -> None:
        enter(self.slab, cpu)
        for slot in slots:
            take_put(self.slab, 0, slot)
        free_away(self.zone, self.policy, self.slab)

    def current(self, cpu: int) -> int:
        return int(self.slab.cpu[cpu, Sp.CURRENT])

    def on_cpu(self, cpu: int) -> list[int]:
        return self.chain(int(self.slab.cpu[cpu, Sp.HEAD]))

    def partial(self) -> list[int]:
        return self.chain(int(self.slab.cache[0, Sc.HEAD]))

    def chain(self, link: int) -> list[int]:
        slots = []
        while link != END:
            slots.append(link - LINK0)
            link = int(self.slab.next[link - LINK0])
        return slots

    def full(self, cpu: int, nr: int) -> list[int]:
        """Slots of full slabs that a CPU has filled and left for another."""
        slots = self.take(cpu, nr * OBJECTS + 1)
        return sorted(set(slots[:-1]))


def test_each_cpu_fills_a_slab_of_its_own() -> None:
    cache = Cache()
    assert cache.take(0, 3) == [0, 0, 0]
    assert cache.take(1, 2) == [1, 1]
    assert cache.take(0) == [0]
    assert (cache.current(0), cache.current(1)) == (0, 1)
    assert cache.partial() == []
    # Whoever frees: a slab that is being filled stays where it is, even when it is empty.
    cache.put(0, 1, 1)
    assert cache.slab.cache[0, Sc.NR_SLABS] == 2
    assert cache.take(1) == [1]


def test_all_cpus_fill_the_same_slab_without_lists() -> None:
    cache = Cache(cpus=1, most=0)
    assert cache.take(0, 2) + cache.take(5, 2) == [0, 0, 0, 0]


def test_a_full_slab_that_loses_an_object_joins_the_list_of_whoever_frees_it() -> None:
    cache = Cache()
    a, b = cache.full(0, 2)
    cache.put(1, a)
    assert (cache.on_cpu(0), cache.on_cpu(1), cache.partial()) == ([], [a], [])
    cache.put(1, b)
    assert cache.on_cpu(1) == [b, a]
    # Its CPU uses what came last first, the other asks for a new one.
    cache.take(0, OBJECTS - 1)
    assert cache.take(0) not in ([a], [b])
    assert cache.take(1, 3)[0] == b


def test_a_list_that_is_full_goes_to_the_partial_list_as_a_whole() -> None:
    cache = Cache(most=2)
    a, b, c, d = cache.full(0, 4)
    cache.put(1, a, b)
    assert cache.on_cpu(1) == [b, a]
    cache.put(1, c)
    assert (cache.on_cpu(1), cache.partial()) == ([c], [b, a])
    assert cache.slab.cache[0, Sc.CPU_DRAINS] == 1
    cache.put(1, d)
    assert (cache.on_cpu(1), cache.partial()) == ([d, c], [b, a])


def test_what_empties_on_a_list_is_freed_when_the_list_goes() -> None:
    """Of two empty slabs the first fills the partial list up to min_partial; the second is freed."""
    cache = Cache(most=2, min_partial=1)
    a, b, c = cache.full(0, 3)
    cache.put(1, *[a] * OBJECTS, *[b] * OBJECTS)
    assert (cache.on_cpu(1), cache.slab.cache[0, Sc.NR_SLABS]) == ([b, a], 4)
    cache.put(1, c)
    assert (cache.on_cpu(1), cache.partial()) == ([c], [b])
    assert cache.slab.cache[0, [Sc.NR_SLABS, Sc.SLABS_FREED, Sc.KEPT]].tolist() == [3, 1, 1]


@pytest.mark.parametrize(("most", "taken"), [(1, 1), (2, 2), (5, 3)])
def test_a_cpu_without_slabs_takes_half_of_its_bound_and_one_more(most: int, taken: int) -> None:
    cache = Cache(cpus=3, most=most)
    cache.put(2, *cache.full(0, 9))
    first, *others = cache.partial()
    assert len(others) > taken
    assert cache.take(1) == [first]
    assert cache.on_cpu(1) == others[:taken][::-1]
    assert cache.partial() == others[taken:]


MIXED = {"dentries_per_inode": 1.25, "age_correlation": 0.6, "referenced": 0.45, "held_share": 0.3}


@pytest.mark.parametrize(("cpus", "most"), [(1, 3), (2, 1), (4, 2), (7, 12)])
def test_random_operations_keep_every_count(cpus: int, most: int) -> None:
    m = random_run(7, 60, cpus, cpu_slabs=most, **MIXED)
    assert m.slab.cache[:2, Sc.FREED].min() > 0
    assert m.slab.cache[:, Sc.CPU_DRAINS].sum() > 0 or most == 12


def test_compiled_and_interpreted_runs_agree() -> None:
    m = random_run(11, 40, 3, cpu_slabs=2, **MIXED)
    h = hashlib.blake2b(digest_size=8)
    for array in (m.slab.cache, m.slab.cpu, m.slab.state, m.slab.next, m.slab.prev, m.slab.inst, m.slab.stat):
        h.update(np.ascontiguousarray(array).astype(np.int64).tobytes())
    assert h.hexdigest() == "bb3d40fe484460c3"


@pytest.mark.parametrize("what", ["length", "longest", "current", "shared", "left"])
def test_recount_finds_planted_faults(what: str) -> None:
    m = random_run(7, 60, 4, cpu_slabs=2, **MIXED)
    c, row = next((c, r) for c in range(3) for r in range(4) if m.slab.cpu[3 * r + c, Sp.NR] == 2)
    own = m.slab.cpu[3 * row + c]
    if what == "length":
        own[Sp.NR] -= 1
    elif what == "longest":
        m.slab.cache[c, Sc.CPU_SLABS] = 1
    elif what == "current":
        own[Sp.CURRENT] = -1
    elif what == "shared":
        m.slab.cpu[3 * ((row + 1) % 4) + c, Sp.CURRENT] = own[Sp.CURRENT]
    else:
        m.slab.prev[own[Sp.HEAD] - LINK0] = 0
    with pytest.raises(InvariantError):
        m.check()


def test_lists_are_as_long_as_slub_makes_them() -> None:
    spec = SlabSpec(per_cpu_slabs=True)
    assert {cache.name: cpu_slabs(cache) for cache in spec.caches} == SIZES
    low = lower_slab(spec, 1 << 16, 1, cpus=4).slab
    assert low.cache[:, Sc.CPU_SLABS].tolist() == list(SIZES.values())
    assert len(low.cpu) == 4 * len(SIZES)
    plain = lower_slab(SlabSpec(), 1 << 16, 1, cpus=4).slab
    assert not plain.cache[:, Sc.CPU_SLABS].any()
    assert len(plain.cpu) == len(SIZES)


def test_a_machine_with_slabs_of_cpus_is_saved_and_continued(tmp_path: Path) -> None:
    given = scenario(**GROWING)
    whole = run_replicate(given, 1, 0, check=True)
    path = tmp_path / "state"
    run_replicate(given, 1, 0, save=(20, lambda state: state.write(path)))
    later = given.model_copy(update={"start": StartSpec(state=str(path))})
    assert run_replicate(later, 1, 0, check=True).digest == whole.digest
    assert whole.digest != run_replicate(scenario(**{**GROWING, "slab__per_cpu_slabs": False}), 1, 0).digest


@pytest.mark.compiled
def test_interpreted_equals_compiled() -> None:
    compiled, interpreted = words_by_pass(SNIPPET)
    assert compiled == interpreted
