"""The word of a page's record: every state and link comes back, and neither half touches the other."""

from __future__ import annotations

import numpy as np
import pytest

from spbfast.config.machine import MachineSpec
from spbfast.constants import COSTLY_ORDER, MAX_ORDER, MAX_ZONE_PAGES, NR_MT, NR_REQUEST_MT
from spbfast.jit.decorators import entry_kernel
from spbfast.model.state.build import ZoneSpec, build_zone
from spbfast.model.state.layout import Page
from spbfast.model.state.page_state import (
    CODE_PCP,
    CODE_SHIFT,
    MAX_LINKS,
    STATE_FREE,
    STATE_HOLE,
    STATE_TAIL,
    links_of,
    make_page,
    next_of,
    prev_of,
    put_next,
    put_prev,
    record_words,
    set_next,
    set_prev,
    set_record,
    set_state,
    state_at,
    states_of,
)

MOST = MAX_LINKS - 1
LINKS = (0, 1, 15, 16, 1 << 27, MOST)
RECORD, STATE, NEXT, PREV, NEXT_BLIND, PREV_BLIND = range(6)


@entry_kernel
def write(page, what, state, after, before):
    """Write a part of record 1, or all of it."""
    if what == RECORD:
        set_record(page, 1, state, after, before)
    elif what == STATE:
        set_state(page, 1, state)
    elif what == NEXT:
        set_next(page, 1, after)
    elif what == PREV:
        set_prev(page, 1, before)
    elif what == NEXT_BLIND:
        put_next(page, 1, after, state)
    else:
        put_prev(page, 1, before, state)


@entry_kernel
def read(page, out):
    """State and links of record 1."""
    out[0] = state_at(page, 1)
    out[1] = next_of(page, 1)
    out[2] = prev_of(page, 1)


def record(page: Page) -> tuple[int, ...]:
    out = np.zeros(3, np.int64)
    read(page, out)
    after, before = links_of(page, [1])
    assert out.tolist() == [int(states_of(page, [1])[0]), int(after[0]), int(before[0])]
    assert page.word[[0, 2]].tolist() == [-1, -1]  # the neighbours' records
    return tuple(out.tolist())


def blank() -> Page:
    return make_page(np.array([-1, STATE_TAIL, -1], np.int64))


def state_of(code: int, order: int, free: bool = False) -> int:
    return (STATE_FREE if free else 0) | code << CODE_SHIFT | order


def all_states() -> list[int]:
    free = [state_of(mt, order, True) for order in range(MAX_ORDER + 1) for mt in range(NR_MT)]
    used = [state_of(code, order) for code in range(CODE_PCP) for order in range(MAX_ORDER + 1)]
    pcp = [state_of(CODE_PCP, nibble) for nibble in range((COSTLY_ORDER + 2) * NR_REQUEST_MT)]
    return [*free, *used, *pcp, STATE_TAIL, STATE_HOLE]


def test_every_state_comes_back_beside_every_link() -> None:
    page = blank()
    for state in all_states():
        for after in LINKS:
            write(page, RECORD, state, after, MOST - after)
            assert record(page) == (state, after, MOST - after)


@pytest.mark.parametrize(
    "old", [state_of(1, 0, True), state_of(4, 10, True), state_of(3, 9), state_of(CODE_PCP, 14)]
)
def test_parts_are_written_apart(old: int) -> None:
    page = blank()
    write(page, RECORD, old, 12345, MOST)
    for what, expected in (
        (NEXT, (old, MOST, MOST)),
        (PREV, (old, MOST, 7)),
        (NEXT_BLIND, (old, 3, 7)),
        (PREV_BLIND, (old, 3, MOST)),
    ):
        write(page, what, old, expected[1], expected[2])
        assert record(page) == expected
    for state in all_states():
        write(page, STATE, state, 0, 0)
        assert record(page) == (state, 3, MOST)


def test_words_made_at_once_are_those_made_one_by_one() -> None:
    page = blank()
    for state in all_states():
        write(page, RECORD, state, MOST, MOST)
        assert page.word[1] == record_words(state, MOST)


def test_memory_beyond_the_links_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zone_pages must be 1\.\.251658240 \(960 GiB\), got 251658241"):
        build_zone(ZoneSpec(MAX_ZONE_PAGES + 1))
    with pytest.raises(ValueError, match="an owner has at most 268435456 slots"):
        build_zone(ZoneSpec(1 << 12, owner_slots=(1, MAX_LINKS + 1)))
    with pytest.raises(ValueError, match="one zone holds at most 960GiB, got 1TiB for 1 node; give less"):
        MachineSpec(memory="1TiB")
    assert MachineSpec(memory="1TiB", nodes=2).nodes == 2
