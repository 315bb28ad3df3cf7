"""check_zone: silent on every state that the allocator reaches, loud on every planted fault.

The faults are drawn from the field table: every checked array, elements that mean something, one bit.
"""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.constants import NR_REQUEST_MT, NR_STRANDS, C, Pc
from spbfast.errors import InvariantError
from spbfast.jit.decorators import INTERPRETED
from spbfast.model.loop.replay import boot_zone
from spbfast.model.lowering.lower_policy import policy_array
from spbfast.model.state.build import ZoneSpec, boot_chunks, build_zone, copy_zone, first_usable
from spbfast.model.state.check import check_zone, field_of
from spbfast.model.state.layout import FIELDS, ZoneState
from spbfast.model.state.page_state import (
    CODE_PCP,
    HIGH_SHIFT,
    NEXT_SHIFT,
    ORDER_NIBBLE,
    PREV_SHIFT,
    STATE_HOLE,
    links_of,
    record_words,
    states_of,
)
from spbfast.verify.replay_zone import Replay
from spbfast.zone import Zone
from tests.passes import cases_of
from tests.zone_tools import TINY, replay_of, run_to, steps

CHECKED = [field for field in FIELDS if field.checked]
# States that together have everything: superpageblocks of all categories, a grabbed one, full and
# half-used pageblocks; per-CPU lists; one set of lists with CMA; an unaligned zone.
STATES = (
    ("spb_p_v1_45_evac_tiny", 300),
    ("spb_p_v1_42_contig_tiny", 390),
    ("p12_64m_pcp", 1200),
    ("p22_128m_cma_pcp", 1000),
    ("p16_unaligned", 700),
)
if INTERPRETED:
    STATES = STATES[:2]
FAULTS_PER_FIELD = 12
FAULTS = {"page.word": 3 * FAULTS_PER_FIELD}  # a state and two links
# A fault can only be told by what it contradicts; fields that may be named for one another.
PARTNERS = {
    "page.word": {
        "page.next",
        "page.prev",
        "page.state",
        "pb.used",
        "slots.link",
        "area.nr",
        "pb.label",
        "spb.list",
        "spb.pinned",
    },
    "pcp.nr": {"page.next", "page.prev", "page.state", "pcp.cpu"},
    "pcp.first": {"page.next", "page.prev", "page.state"},
    "pb.bits": {"spb.content"},
    "pb.owner": {"pcp.nr_owned"},
    "pb.next": {"pb.prev"},
    "pb.prev": {"pb.next"},
    "slots.link": {"page.prev", "page.next"},
    "spb.slot": {"index.spb", "index.live"},
}


@pytest.mark.compiled
@pytest.mark.parametrize("name", cases_of(TINY))
def test_clean_after_every_event_of_tiny_files(name: str) -> None:
    replay = replay_of(name)
    for _ in steps(replay):
        check_zone(replay.z, replay.policy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("p20_64m_fallback", 1),
        ("p06_64m_bulk", 1),
        ("p12_64m_pcp", 1),
        ("p01_64m_mixed", 1),
        ("p16_unaligned", 37),
        ("p15_256m_pcp_auto", 97),
        ("p22_128m_cma_pcp", 97),
        ("p17_256m_cma", 997),
        ("spb_p_v1_30_storm", 61),
        ("spb_p_v1_45_evac_exact_content", 61),
        ("spb_p_v1_45_storm_short_tail", 61),
        ("spb_p_v1_30_storm_keep_labels_on_empty", 61),
        ("spb_p_v2_contig", 61),
        ("spb_p_v1_15_burst_512pb", 997),
    ],
)
def test_clean_throughout_larger_files(name: str, step: int) -> None:
    replay = replay_of(name)
    for _ in steps(replay, step):
        check_zone(replay.z, replay.policy)


def heads(z: ZoneState) -> np.ndarray:
    """Pages whose links mean something: heads of free, held and per-CPU blocks, and the list heads."""
    state = states_of(z.page, slice(z.geo.nr_pages))
    on_cpu = (state >> 4 == CODE_PCP) & (state & ORDER_NIBBLE != ORDER_NIBBLE)
    head = (state & ORDER_NIBBLE <= 10) | on_cpu
    return np.concatenate([np.flatnonzero(head), np.arange(z.geo.nr_pages, z.page.word.size)])


def open_ends(z: ZoneState) -> tuple[set[int], set[int]]:
    """Entries whose next link means nothing, and those whose previous link does not: ends of strands."""
    after, _ = links_of(z.page)
    no_next, no_prev = set(), set()
    for i, nr in enumerate(z.pcp.nr.tolist()):
        for turn in range(NR_STRANDS):
            head = z.geo.pcp0 + i * NR_STRANDS + (int(z.pcp.first[i]) + turn) % NR_STRANDS
            at = head
            for k in range((nr - turn + NR_STRANDS - 1) // NR_STRANDS):
                at = int(after[at])
                if k == 0:
                    no_prev.add(at)
            no_next.add(at)
            if at == head:
                no_prev.add(head)
    return no_next, no_prev


def is_meaningful(z: ZoneState, i: int, bit: int) -> bool:
    """Whether a bit of a record says anything: states of pages, links of heads (page_state.py)."""
    if not NEXT_SHIFT <= bit < HIGH_SHIFT:
        return i < z.geo.nr_pages
    return i in heads(z) and i not in open_ends(z)[bit >= PREV_SHIFT]


def candidates(z: ZoneState, path: str) -> np.ndarray:
    """Flat indices of elements of a field that some other state contradicts when they are wrong."""
    array = field_of(z, path)
    if path == "pb.label":  # the label of a pageblock without a free block can be anything
        free = np.flatnonzero(states_of(z.page, slice(z.geo.nr_pages)) < 0)
        return np.unique(free >> 9)
    if path == "index.spb":
        bits = np.unpackbits(z.index.live.view(np.uint8), axis=-1, bitorder="little")
        return np.flatnonzero(bits.reshape(-1))
    if path == "spb.slot":
        return np.flatnonzero(z.spb.list >= 0)
    if path == "pcp.first":  # where all strands are equally long, a list may begin on any
        return np.flatnonzero(z.pcp.nr % NR_STRANDS)
    if path == "pcp.cpu":
        return np.arange(len(array)) * array.shape[1] + Pc.COUNT
    if path == "count":  # the others count what happened, not what is
        gauges = (C.FREE_PAGES, C.FREE_CMA, C.PCP_PAGES, C.PCP_OWNED_PAGEBLOCKS)
        return np.array([*gauges, *range(C.TAINTED_SPBS, C.TAINTS)])
    return np.arange(array.size)


def is_visible(z: ZoneState, path: str, flat: int, bit: int) -> bool:
    """Whether the flip makes a state that the allocator could not have reached."""
    if path == "page.word":
        return is_meaningful(z, flat, bit)
    if path == "index.tail":  # gaps at the end are allowed
        live = np.unpackbits(z.index.live[flat].view(np.uint8), bitorder="little")
        last = int(np.flatnonzero(live).max(initial=-1)) + 1
        new = int(np.int32(z.index.tail[flat] ^ np.int32(np.uint32(1 << bit).view(np.int32))))
        return not last <= new <= z.index.spb.shape[1]
    return True


def draw_faults(z: ZoneState, path: str, rng: np.random.Generator) -> list[tuple[int, int]]:
    array, among = field_of(z, path), candidates(z, path)
    faults: list[tuple[int, int]] = []
    wanted = FAULTS.get(path, FAULTS_PER_FIELD)
    for _ in range(60 * wanted if among.size else 0):
        fault = int(rng.choice(among)), int(rng.integers(8 * array.itemsize))
        if is_visible(z, path, *fault):
            faults.append(fault)
        if len(faults) == wanted:
            break
    return faults


def flip(array: np.ndarray, flat: int, bit: int) -> None:
    """Flip one bit of one element in place."""
    raw = array.reshape(-1)[flat : flat + 1].view(np.uint8)
    raw[bit // 8] ^= 1 << (bit % 8)


def complaint_of(replay: Replay) -> InvariantError | None:
    try:
        check_zone(replay.z, replay.policy)
    except InvariantError as error:
        return error
    return None


@pytest.mark.parametrize("field", CHECKED, ids=lambda field: field.path)
def test_every_planted_fault_is_named(field) -> None:
    rng = np.random.default_rng(7)
    planted = 0
    for name, events in STATES:
        replay = prepared(name, events)
        z = replay.z
        array = field_of(z, field.path)
        for flat, bit in draw_faults(z, field.path, rng):
            flip(array, flat, bit)
            where = f"{name}: bit {bit} of element {flat}"
            complaint = complaint_of(replay)
            flip(array, flat, bit)
            planted += 1
            assert complaint is not None, f"{where} was not noticed"
            named = complaint.where.split("[")[0]
            assert named in {field.path, *PARTNERS.get(field.path, ())}, f"{where}: {complaint}"
        check_zone(z, replay.policy)
    assert planted >= FAULTS_PER_FIELD // 2 or (INTERPRETED and "pcp" in field.path)


_PREPARED: dict[str, Replay] = {}


def prepared(name: str, events: int) -> Replay:
    if name not in _PREPARED:
        _PREPARED[name] = run_to(name, events)
    return _PREPARED[name]


def test_states_cover_what_there_is() -> None:
    """The faults above are planted in superpageblocks of all categories and in pages of all codes."""
    lists, codes = set(), set()
    for name, events in STATES:
        z = prepared(name, events).z
        lists |= set((z.spb.list.astype(int) // 5).tolist())
        state = states_of(z.page, slice(z.geo.nr_pages))
        codes |= set((state[state >= 0] >> 4).tolist())
    assert {0, 1, 2} <= lists
    assert {0, 1, 2, 4} <= codes
    assert INTERPRETED or {6, 7} <= codes


def test_fields_that_are_not_checked_are_scratch_or_history() -> None:
    assert {field.path for field in FIELDS if not field.checked} == {
        *(
            "pb.mark",
            "spb.defrag_mark",
            "index.hint",
            "pcp.conf",
            "slots.base",
            "slots.size",
            "slots.paged",
            "slots.anon",
            "slots.rings",
        ),
        *("ev", "noise", "scratch", "records", "walks", "tally"),
        *("trace.head", "trace.nr", "trace.where", "trace.rows", "trace.clock", "trace.zone"),
    }


def test_sticky_bits_depend_on_the_policy() -> None:
    zone = Zone.from_picture("M.M. ....", {"sticky_content": False})
    pb = int(np.flatnonzero(zone.state.pb.bits)[0])
    zone.state.pb.bits[pb] |= 1 << 2
    zone.state.spb.content[0, 2] += 1
    zone.state.spb.list[0] += 5  # a content bit that nothing explains taints
    with pytest.raises(InvariantError, match=r"pb.bits must be exactly the types in use at pb.bits\[0\]"):
        zone.check()


def test_message_names_rule_place_and_values() -> None:
    zone = Zone.from_picture("MM.. ....")
    zone.state.spb.nr_free_pages[0] += 5
    with pytest.raises(InvariantError) as caught:
        zone.check()
    assert str(caught.value) == (
        "spb.nr_free_pages must be the pages on its lists at spb.nr_free_pages[0]: expected 1024, found 1029"
    )


def test_check_writes_nothing() -> None:
    replay = prepared(*STATES[0])
    before = copy_zone(replay.z)
    check_zone(replay.z, replay.policy)
    for field in FIELDS:
        assert np.array_equal(field_of(replay.z, field.path), field_of(before, field.path)), field.path


def test_check_needs_no_policy() -> None:
    replay = prepared(*STATES[1])
    check_zone(replay.z)
    assert replay.z.pb.used[:, :NR_REQUEST_MT].sum() > 0


def test_reserved_memory_is_a_hole() -> None:
    spec = ZoneSpec(zone_pages=32 * 512, spb_pb=8, superpageblocks=True, reserved_pages=700)
    z, _ = build_zone(spec)
    policy = policy_array("v1@30")
    boot_zone(z, policy, boot_chunks(z, first_usable(z), z.geo.hi))
    check_zone(z, policy)
    assert z.spb.total.tolist() == [6, 8, 8, 8]
    z.page.word[5000] = record_words(STATE_HOLE, 0)
    with pytest.raises(InvariantError, match=r"page.state\[5000\]"):
        check_zone(z, policy)
