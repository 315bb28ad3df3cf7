"""Machine and actor models: mainline formulas, checks between keys, and the configurations that ship."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from spbfast.config import load_config
from spbfast.config.actors import ActorList
from spbfast.config.caches import SlabCache, SlabSpec
from spbfast.config.machine import MachineSpec, PcpSpec
from spbfast.config.schema import key_docs
from spbfast.errors import ConfigError
from spbfast.fitting.actors_yaml import MOST_SLOTS
from spbfast.model.lowering.lower_actors import lower_actors
from tests.demand_tools import CONFIGS, scenario

FILES = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.rglob("*.yaml"))
ACTORS = TypeAdapter(ActorList)


def test_flagship_machine_by_mainline_formulas():
    machine = MachineSpec()
    assert machine.nr_pages == 62_390_272
    assert machine.nr_reserved == -(-(62_390_272 * 64 + 60_000_000) // 4096)
    low_gap = machine.nr_managed * 10 // 10_000
    floor = machine.min_pages()
    assert floor == 15_671  # isqrt(managed kB * 16) / 4
    assert machine.watermarks(10) == (floor, floor + low_gap, floor + 2 * low_gap)
    batch, high_min, high_max = PcpSpec().sizes(machine.nr_managed, machine.cpus, floor + low_gap)
    assert batch == 63
    assert high_min == (floor + low_gap) // 32
    assert high_max == machine.nr_managed // 8 // 32


def test_memory_in_decimal_units_is_rounded_down_to_whole_blocks():
    machine = MachineSpec(memory="247GB")
    assert machine.nr_pages % 1024 == 0
    assert 0 <= 247 * 10**9 - machine.nr_pages * 4096 < 4 << 20


def test_given_values_replace_the_formulas():
    machine = MachineSpec(min_free="64MiB")
    assert machine.min_pages() == 16_384
    pcp = PcpSpec(batch=7, high_min=20, high_max=10)
    assert pcp.sizes(machine.nr_managed, machine.cpus, 1000) == (7, 20, 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory": "512MiB"}, "memory: must hold at least one superpageblock of 1GiB, got 512MiB"),
        ({"spb_size": "3MiB"}, "spb_size: must be a power of two of at least 4MiB"),
        ({"memory": "1GiB", "kernel_image": "2GiB"}, "no more than the 2064MiB that boot reserves there"),
        ({"min_free": "lots"}, "or 'auto': the mainline formula"),
    ],
)
def test_machine_errors_say_what_would_be_right(values, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        MachineSpec(**values)


def test_slab_roles_and_orders():
    slab = SlabSpec()
    inode = slab.cache("inode")
    assert (inode.objects(3), inode.objects(0), inode.min_order) == (28, 3, 0)
    assert slab.cache("dentry").objects(0) == 21
    assert SlabCache(name="big", role="attached", object_size="5888B", order=3).min_order == 1
    attached = sum(c.object_size * c.per_inode for c in slab.caches if c.role == "attached")
    assert 0.1 <= attached / inode.object_size <= 0.2  # a tenth to a fifth of the inode bytes
    with pytest.raises(ValidationError, match="exactly one cache must have the role dentry, found none"):
        SlabSpec(caches=[inode])
    with pytest.raises(ValidationError, match="object_size: must be 8B..4KiB"):
        SlabCache(name="x", role="attached", object_size="8KiB", order=0)


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ({"kind": "guests", "memory": "3MiB"}, "memory: must be a multiple of 2MiB, e.g. 2MiB; got 3MiB"),
        (
            {"kind": "guests", "spacing_min": "9s", "spacing_max": "1s"},
            "must be at most spacing_max (1s), got 9s",
        ),
        ({"kind": "guests", "restart_min": "1ms"}, "to have no restarts write restart: false"),
        ({"kind": "churn", "lifetimes": ["5ms"]}, "shares: must have one value per lifetime (1), got 3"),
        ({"kind": "churn", "shares": [0, 0, 0]}, "with at least one above 0"),
        ({"kind": "extent_buffers", "at_boot": "3GB"}, "at_boot: must be at most total (2GB), got 3GB"),
        ({"kind": "page_cache", "burst": {"on": "1us", "off": "1s"}}, "on: must be at least 1ms, got 1us"),
    ],
)
def test_actor_errors_say_what_would_be_right(actor, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        ACTORS.validate_python([actor])


def test_names_of_actors_differ():
    twice = [{"kind": "guests"}, {"kind": "guests"}]
    with pytest.raises(ValidationError, match="two actors are called 'guests'"):
        ACTORS.validate_python(twice)
    assert len(ACTORS.validate_python([twice[0], {"kind": "guests", "name": "more"}])) == 2


def test_boot_must_fit_the_machine():
    with pytest.raises(ConfigError, match="lower 'daemons'"):
        scenario({"kind": "daemons", "memory": "1GiB"})


def test_every_key_is_described_with_its_source():
    sections = ("machine.", "boot.", "pcp.", "reclaim.", "workers.", "slab.", "pagecache.", "actors")
    docs = [d for d in key_docs() if d.path.startswith(sections)]
    assert len(docs) > 100
    assert [d.path for d in docs if not d.text and not d.path.endswith(".kind")] == []


@pytest.mark.parametrize("file", FILES)
def test_shipped_configurations_validate_and_lower(file):
    job = load_config(CONFIGS / file)
    plan = lower_actors(job.scenario, 1)
    assert len(plan.actors.kind) == len(plan.actors.param) > 0
    assert len(plan.owner_names) == len(set(plan.owner_names)) == len(plan.owner_slots)
    # Slots, 4 bytes each, next to 9 bytes of state per page; a fit has its own limit.
    most = MOST_SLOTS if file == "base/measured-vm.yaml" else job.scenario.machine.nr_pages / 2
    assert sum(plan.owner_slots) < most


def test_flagship_values_say_where_they_come_from():
    lines = (CONFIGS / "base/devvm.yaml").read_text(encoding="utf-8").splitlines()
    told = re.compile(r"# (source: |assumed[,;]|assumed$|calibrated on: )")
    values = [
        s
        for s in lines
        if re.search(r":\s*[^\s#]", s) and not s.lstrip().startswith(("#", "- kind:", "name:"))
    ]
    lone = [s for s in values if not told.search(s) and "role:" not in s]
    assert len(values) > 80
    assert lone == []
