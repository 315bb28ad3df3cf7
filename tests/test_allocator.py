"""Known answers of the superpageblock ladder: what it is for, seen from outside."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import PB_PAGES, AllocFlag, Mt, Outcome, Req
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.allocator import pick
from spbfast.model.state.build import copy_zone
from spbfast.model.state.walk import spb_lists
from spbfast.zone import Zone
from tests.passes import cases
from tests.zone_tools import TINY, run_to

PRESETS = cases("v1@24", "v1@30", "v1@45", "v1@15", "v2", interpreted=2)
PAGES_PER_SPB = 8 * PB_PAGES


def zone_of(policy, nr_spb: int = 6) -> Zone:
    """Superpageblocks of 16 MiB; reserves fit for 8 pageblocks."""
    return Zone(nr_spb << 24, policy, spb_size="16MiB")


@pytest.mark.compiled
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("nr_pages", [1, PAGES_PER_SPB, PAGES_PER_SPB + 1, 3 * PAGES_PER_SPB - 5])
@pytest.mark.parametrize("order", [0, 3])
def test_slab_pages_pack_into_as_few_superpageblocks_as_can_hold_them(preset, nr_pages, order) -> None:
    zone = zone_of(preset)
    nr = -(-nr_pages // (1 << order))
    assert (zone.alloc_many(nr, order, Mt.RECLAIMABLE) >= 0).all()
    assert zone.tainted() == -(-(nr << order) // PAGES_PER_SPB)
    zone.check()


@pytest.mark.compiled
@pytest.mark.parametrize("preset", PRESETS)
def test_slab_and_unmovable_pages_share_tainted_superpageblocks(preset) -> None:
    zone = zone_of(preset)
    for mt in (0, 2, 0, 2):
        assert (zone.alloc_many(3 * PB_PAGES, 0, mt) >= 0).all()
    assert zone.tainted() == 2


@pytest.mark.compiled
@pytest.mark.parametrize("preset", PRESETS)
def test_movable_memory_taints_nothing(preset) -> None:
    zone = zone_of(preset)
    rng = np.random.default_rng(11)
    held = np.empty(0, np.int64)
    for order in (9, 0, 10, 3, 5, 0, 9):
        pfns = zone.alloc_many(3000 >> order or 1, order, Mt.MOVABLE)
        held = np.concatenate([held, pfns[pfns >= 0]])
        rng.shuffle(held)
        zone.free_many(held[: held.size // 2])
        held = held[held.size // 2 :]
        assert zone.tainted() == 0
    zone.check()


@pytest.mark.compiled
@pytest.mark.parametrize("preset", PRESETS)
def test_full_of_movable_memory_taints_nothing(preset) -> None:
    zone = zone_of(preset)
    assert (zone.alloc_many(6 * PAGES_PER_SPB >> 2, 2, Mt.MOVABLE) >= 0).all()
    assert zone.superpageblocks().category.tolist() == ["clean"] * 6
    assert zone.alloc(2, Mt.MOVABLE) == -1


@pytest.mark.parametrize("preset", PRESETS)
def test_untainting_needs_every_page_back(preset) -> None:
    zone = zone_of(preset)
    pfns = zone.alloc_many(100, 0, Mt.RECLAIMABLE)
    zone.free_many(pfns[1:])
    assert zone.tainted() == 1
    zone.free(int(pfns[0]))
    assert zone.tainted() == 0
    assert zone.pageblock_types().tolist() == [1] * 48
    zone.check()


def test_each_rung_of_the_ladder() -> None:
    """Pictures before a request, and the rung that must serve it."""
    loose = {"preset": "v1@45", "reserve_floor": 0, "reserve_shift": -1, "preferred_hint": False}
    cases = (
        ("u... MMMM ....", 0, Mt.UNMOVABLE, 0, Outcome.TAKE_PREFERRED),
        ("m... U... ....", 0, Mt.MOVABLE, 0, Outcome.TAKE_PREFERRED),
        ("UM.. MMMM ....", 0, Mt.RECLAIMABLE, 0, Outcome.CLAIM_WHOLE_PAGEBLOCK),
        ("UmMM MMMM ....", 0, Mt.RECLAIMABLE, 0, Outcome.CLAIM_PARTIAL_PAGEBLOCK),
        ("uMMM MMMM ....", 0, Mt.RECLAIMABLE, 0, Outcome.BORROW_NONMOVABLE),
        ("UMMM MMMM ....", 0, Mt.RECLAIMABLE, 0, Outcome.TAKE_EMPTY_SUPERPAGEBLOCK),
        ("UM.. MMMM MMMM", 0, Mt.MOVABLE, 0, Outcome.MOVABLE_INTO_TAINTED),
        ("UMMM MM.. MMMM", 0, Mt.UNMOVABLE, 0, Outcome.CLAIM_FALLBACK_OTHER),
        ("UMMM MMmM MMMM", 9, Mt.UNMOVABLE, 0, Outcome.NO_PAGE),
    )
    for text, order, mt, flags, outcome in cases:
        zone = Zone.from_picture(text, loose)
        zone.alloc(order, mt, flags)
        assert zone.last.outcome == outcome, text
        zone.check()


def test_gates_of_flags() -> None:
    """NOFRAGMENT and the flags that soften or sharpen it, in the last posted preset."""
    loose = {"preset": "v2", "reserve_floor": 0, "reserve_shift": -1, "borrow_movable": False}
    strict, soft = AllocFlag.NOFRAGMENT, AllocFlag.NOFRAGMENT | AllocFlag.NOFRAG_TAINTED_OK
    text = "UmMM MMMM MMMM"
    assert Zone.from_picture(text, loose).alloc(0, 0, strict) == -1
    assert Zone.from_picture(text, loose).alloc(0, 0, soft) >= 0
    optional = Zone.from_picture("UX.. MMMM ....", loose)
    assert optional.alloc(10, 0, AllocFlag.HIGHORDER_OPTIONAL) >= 0
    optional = Zone.from_picture("U.M. MMMM ....", loose)
    assert optional.alloc(10, 0, AllocFlag.HIGHORDER_OPTIONAL) == -1
    assert optional.last.outcome == Outcome.REFUSED_OPTIONAL
    assert optional.alloc(10, 0) >= 0
    assert optional.last.outcome == Outcome.TAKE_EMPTY_SUPERPAGEBLOCK


def test_reserve_keeps_movable_pages_out() -> None:
    zone = Zone.from_picture("UM.. MMMM", {"preset": "v1@30", "reserve_floor": 2, "reserve_shift": -1})
    assert zone.alloc(0, Mt.MOVABLE) == -1
    zone = Zone.from_picture("UM.. MMMM", {"preset": "v1@30", "reserve_floor": 1, "reserve_shift": -1})
    assert zone.alloc(0, Mt.MOVABLE) >= 0


def test_requests_for_work_name_their_cause() -> None:
    low = {"preset": "v1@45", "reserve_floor": 2, "reserve_shift": -1}
    zone = Zone.from_picture("UMMM MMMM ....", low)
    zone.alloc(0, Mt.UNMOVABLE)
    assert zone.last.requests & Req.SHRINK_FALLTHROUGH
    assert zone.last.requests & Req.EVACUATE_FALLTHROUGH
    zone = Zone.from_picture("UMMM MM.M MMMM", low)
    zone.alloc(0, Mt.UNMOVABLE)
    assert zone.last.requests & Req.SHRINK_CLAIM
    quiet = Zone.from_picture("UMMM MM.M MMMM", {**low, "slab_shrink": False, "evacuate_requests": False})
    quiet.alloc(0, Mt.UNMOVABLE)
    assert not quiet.last.requests & (Req.SHRINK_CLAIM | Req.SHRINK_FALLTHROUGH | Req.EVACUATE_CLAIM)


def test_hint_saves_the_walk() -> None:
    texts = "UUUU UUU. uMMM MMMM"
    policy = {"preset": "v1@45", "reserve_floor": 0, "reserve_shift": -1}
    with_hint, without = (Zone.from_picture(texts, {**policy, "preferred_hint": h}) for h in (True, False))
    for zone in (with_hint, without):
        zone.alloc(0, Mt.UNMOVABLE)
        zone.alloc(0, Mt.UNMOVABLE)
    assert with_hint.last.visited == 0
    assert without.last.visited > 0


@pytest.mark.skipif(not INTERPRETED, reason="compiled helpers can't be called from here")
@pytest.mark.parametrize("name", TINY)
def test_read_only_choice_really_is(name: str) -> None:
    """The helpers of pick.py run on locked arrays, and their walks agree with the lists."""
    z = copy_zone(run_to(name, 200).z)
    for array in (*z.index, *z.spb, *z.area, *z.page):
        array.flags.writeable = False
    lists = spb_lists(z)
    for mt in range(3):
        for category in range(3):
            first = pick.first_list(category)
            walk = [spb for lst in lists[first : first + pick.nr_lists(category)] for spb in lst]
            able = [spb for spb in walk if z.area.mask[spb * 5 + mt] >> 3]
            spb, visited = pick.walk_first_fit(z.index, category, mt, 3)
            assert spb == (able[0] if able else -1)
            assert visited == (walk.index(able[0]) + 1 if able else len(walk))
