"""Memory in use at the start of a real machine that actors free, and the page cache's rings there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spbfast.config import load_config
from spbfast.config.models import StartSpec
from spbfast.constants import PB_PAGES, Mt
from spbfast.errors import ConfigError
from spbfast.model import engine
from spbfast.model.lowering.lower_machine import lower_scenario
from spbfast.model.state.check import check_zone
from spbfast.model.state.demand_layout import StartSlots
from spbfast.model.state.node import OWNER_COLD, OWNER_HOT, Ca
from spbfast.model.state.page_state import ORDER_NIBBLE
from spbfast.model.state.slots import blocks_in
from spbfast.model.state.vmstat import V
from spbfast.observed.page_classes import ON_ACTIVE, ON_LRU, PageClass
from spbfast.recordings.drawn_start import Draws
from spbfast.recordings.start_blocks import UNKNOWN, blocks_of_actors, in_pageblocks
from tests.test_real_start import TABLE, ZONEINFO, write_capture
from tests.test_replay_judge import ALLOC, START, Kernel

pytestmark = pytest.mark.shell

OLD = """\
name: old
duration: 300ms
policy: mainline
machine: {{from: {files}, spb_size: 32MiB}}
slab: {{objects_max: 4096}}
pcp: {{enabled: false}}
output: {{every: 100ms}}
actors:
  - {{kind: allocations, name: old, rate: 0.0, order: {order}, type: movable, lifetimes: [1s], shares: [1],
     from_start: {{blocks: {blocks}, lifetime: {life}{holder}}}}}
{more}
"""


def job(
    folder: Path, files: str, order: int = 0, blocks: int = 500, life: str = "100ms", **more: str
) -> Path:
    path = folder / "old.yaml"
    holder = f", holder: {more['holder']}" if "holder" in more else ""
    text = OLD.format(
        files=files, order=order, blocks=blocks, life=life, holder=holder, more=more.get("more", "")
    )
    path.write_text(text)
    return path


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "pagetypeinfo").write_bytes(TABLE.read_bytes())
    (tmp_path / "zoneinfo").write_text(ZONEINFO)
    return tmp_path


FILES = "[pagetypeinfo, zoneinfo]"


def begun(path: Path):
    """A run at its start, checked, with the slots that its actor frees."""
    scenario = load_config(path).scenario
    run = lower_scenario(scenario, 1, 0)
    assert engine.boot(run, scenario, 1)
    check_zone(run.world.zone, run.policy)
    (slots,) = run.starts
    first = run.world.zone.slots.base[slots.owner] + slots.base
    return run, slots, blocks_in(run.world.zone.slots, slice(first, first + slots.blocks))


@pytest.mark.parametrize("order", [0, 3])
def test_an_actor_begins_with_blocks_of_the_machine(tables: Path, order: int) -> None:
    run, slots, blocks = begun(job(tables, FILES, order))
    z = run.world.zone
    assert (slots.order, slots.mt, slots.holder) == (order, Mt.MOVABLE, None)
    assert len(np.unique(blocks)) == 500
    assert (blocks % (1 << order) == 0).all()
    assert set(np.array(z.page.low)[blocks] & ORDER_NIBBLE) == {order}
    # What an actor has is no page cache, and the rest is as it was.
    plain, _, _ = begun(job(tables, FILES, 0, 1))
    assert (z.area.nr == plain.world.zone.area.nr).all()
    assert run.world.node.cache[Ca.COLD_PAGES] == 10_000


def test_they_are_freed_at_their_rate_and_nothing_else_is(tables: Path) -> None:
    """Lives are exponential: of 2000 blocks, 100 ms more in the mean, 5 % are left after 300 ms."""
    result = engine.run_replicate(
        load_config(job(tables, FILES, 0, 2000)).scenario, 1, 0, check=True, records=("mm_page_free",)
    )
    freed = result.records["mm_page_free"].columns
    assert len(freed["pfn"]) == pytest.approx(2000 * (1 - np.exp(-3.0)), rel=0.03)
    assert (freed["time"] < 0.1).sum() == pytest.approx(2000 * (1 - np.exp(-1.0)), rel=0.08)
    assert len(np.unique(freed["pfn"])) == len(freed["pfn"])
    assert (freed["order"] == 0).all()


def test_as_many_as_there_are_and_none_twice() -> None:
    held = np.full(64, Mt.MOVABLE, np.int8)
    held[:8] = -1
    held[8:16] = Mt.UNMOVABLE
    bytes_of = np.full(64, UNKNOWN, np.uint8)
    starts = [StartSlots(3, 0, 2, 3, Mt.MOVABLE, None), StartSlots(4, 0, 99, 0, Mt.MOVABLE, None)]
    (_, eights), (_, ones) = blocks_of_actors(starts, held, bytes_of, np.array([16, 63]), Draws(7))
    assert len(eights) == 2
    assert set(eights) <= {24, 32, 40, 48}  # 16 and 63 are page cache
    left = set(range(17, 63)) - {int(h) + i for h in eights for i in range(8)}
    assert sorted(ones) == sorted(left)
    none = blocks_of_actors([starts[0]._replace(order=6)], held, bytes_of, np.zeros(0, np.int64), Draws(7))
    assert [len(heads) for _, heads in none] == [0]


def test_a_holder_is_what_page_flags_say() -> None:
    held = np.full(4, Mt.MOVABLE, np.int8)
    bytes_of = np.array([PageClass.ANON | ON_LRU, PageClass.HUGE, PageClass.PAGE_CACHE | ON_LRU, 7], np.uint8)
    for holder, page in (("anon", 0), ("huge", 1), ("page_cache", 2), ("other", 3)):
        start = StartSlots(3, 0, 9, 0, Mt.MOVABLE, holder)
        ((_, heads),) = blocks_of_actors([start], held, bytes_of, np.array([2]), Draws(1))
        assert heads.tolist() == [page]


def flags_of(kernel: Kernel) -> np.ndarray:
    """Movable pages in use are page cache, every third of them active; others are slab."""
    classes = np.full(kernel.zone.nr_pages, PageClass.FREE, np.uint8)
    for number, pfn in enumerate(sorted(kernel.held)):
        asked = next(r[4] for r in reversed(kernel.rows) if r[0] == ALLOC and r[1] == pfn)
        kind = PageClass.PAGE_CACHE | ON_LRU | (0 if number % 3 else ON_ACTIVE)
        if asked != Mt.MOVABLE:
            kind = int(PageClass.SLAB)
        classes[pfn - START : pfn - START + (1 << kernel.held[pfn])] = kind
    return classes


@pytest.fixture
def capture(tmp_path: Path) -> tuple[Path, np.ndarray]:
    kernel = Kernel()
    kernel.churn(1500, seed=8)
    classes = flags_of(kernel)
    write_capture(tmp_path / "own.spbcap", kernel, classes)
    return tmp_path, classes


CACHE = "pagecache: {start_order: pageblocks, lru_mix: 0.0}"


def ring(run, owner: int) -> np.ndarray:
    """Pages of a ring, the oldest first."""
    first = run.world.zone.slots.base[owner]
    return blocks_in(
        run.world.zone.slots, slice(first, first + int(run.world.node.cache[Ca.COLD_PAGES + owner]))
    )


def test_active_pages_begin_on_the_hot_ring(capture: tuple[Path, np.ndarray]) -> None:
    folder, classes = capture
    run, _, blocks = begun(job(folder, "own.spbcap", 0, 40, holder="page_cache", more=CACHE))
    cold, hot = (ring(run, owner) for owner in (OWNER_COLD, OWNER_HOT))
    of = classes[np.concatenate([cold, hot, blocks]) - run.world.zone.geo.lo]
    is_cache = (classes & 0x0F) == PageClass.PAGE_CACHE
    assert len(of) == is_cache.sum()  # all of it is on a ring, or the actor's
    assert ((of & 0x0F) == PageClass.PAGE_CACHE).all()
    assert (of[: len(cold)] & ON_ACTIVE == 0).all()
    assert (of[len(cold) : len(cold) + len(hot)] & ON_ACTIVE > 0).all()
    assert len(hot) > 100


def test_page_cache_may_be_read_pageblock_by_pageblock(capture: tuple[Path, np.ndarray]) -> None:
    folder, _ = capture
    run, _, _ = begun(job(folder, "own.spbcap", 0, 1, more=CACHE))
    cold = ring(run, OWNER_COLD)
    blocks = cold // PB_PAGES
    assert (np.diff(blocks) != 0).sum() == len(np.unique(blocks)) - 1  # each pageblock in one piece
    assert (np.diff(cold)[np.diff(blocks) == 0] > 0).all()
    mixed, _, _ = begun(job(folder, "own.spbcap", 0, 1))
    assert (np.diff(ring(mixed, OWNER_COLD) // PB_PAGES) != 0).mean() > 0.5


def test_reclaim_takes_what_was_there_at_the_start(capture: tuple[Path, np.ndarray]) -> None:
    folder, _ = capture
    more = CACHE + "\nreclaim: {kswapd_wake: high}"
    path = job(folder, "own.spbcap", 0, 1, more=more)
    path.write_text(path.read_text().replace("actors:", "actors:\n  - {kind: page_cache, rate: 400MB/s}"))
    scenario = load_config(path).scenario
    result = engine.run_replicate(scenario, 1, 0, check=True)
    counters = result.coords["counter"].tolist()
    assert result.data["vmstat"][counters.index(V.PGSTEAL_KSWAPD.name.lower())][-1] > 0


def test_a_run_that_is_saved_on_the_way_goes_on_as_if_it_were_not(
    capture: tuple[Path, np.ndarray],
) -> None:
    folder, _ = capture
    path = job(folder, "own.spbcap", 0, 200, more=CACHE)
    path.write_text(path.read_text().replace("actors:", "actors:\n  - {kind: page_cache, rate: 100MB/s}"))
    given = load_config(path).scenario
    whole = engine.run_replicate(given, 1, 0)
    engine.run_replicate(given, 1, 0, save=(130, lambda state: state.write(folder / "state")))
    start = StartSpec(state=str(folder / "state"))
    again = engine.run_replicate(given.model_copy(update={"start": start}), 1, 0, check=True)
    assert again.digest == whole.digest
    assert again.events == whole.events


def test_pageblocks_keep_the_order_in_which_they_come() -> None:
    pages = np.array([1030, 3, 1029, 600, 1, 513])
    assert in_pageblocks(pages).tolist() == [1029, 1030, 1, 3, 513, 600]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lifetime: 100ms", "lifetime: 99us", "lifetime: must be at least 100us, got 99us"),
        ("blocks: 500", "blocks: 0", "blocks: must be"),
        ("lifetime: 100ms", "lifetime: 100ms, holder: mine", "holder: must be one of anon, huge, page_cache"),
        ("blocks: 500, lifetime: 100ms", "blocks: 100000000, lifetime: 100us", "units a second while active"),
        ("machine: {from: [pagetypeinfo, zoneinfo], spb_size: 32MiB}", "machine: {memory: 1GiB}",
         "frees what machine.from has in use at the start, and there is no machine.from"),
        ("output", "pagecache: {start_order: oldest}\noutput", "must be one of random, pageblocks"),
    ],
)  # fmt: skip
def test_wrong_keys_are_told(tables: Path, old: str, new: str, said: str) -> None:
    path = job(tables, FILES)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert said in " ".join(str(caught.value).split())
