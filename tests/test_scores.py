"""Fragmentation scores: known values, limits, datasets, wrong input."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import spbfast as sf
from spbfast.results import scores


def blocks(**by_order: int) -> np.ndarray:
    out = np.zeros(11, np.int64)
    for name, nr in by_order.items():
        out[int(name[1:])] = nr
    return out


def test_all_free_memory_is_whole() -> None:
    whole = blocks(o10=3, o9=1)
    assert scores.free_huge_share(whole) == 1.0
    assert scores.unusable_free_index(whole) == 0.0
    assert scores.extfrag_index(whole) == -1.0
    assert scores.proactive_score(whole) == 0


def test_all_free_memory_is_dust() -> None:
    """512 single pages would make one frame: the extfrag index is 1000 - (1000 + 1000) // 512 thousandths."""
    dust = blocks(o0=512)
    assert scores.free_huge_share(dust) == 0.0
    assert scores.unusable_free_index(dust) == 1.0
    assert scores.extfrag_index(dust) == pytest.approx(0.997)
    assert scores.proactive_score(dust) == 100


def test_lack_of_memory_is_not_fragmentation() -> None:
    """One free block of order 8: half of what is asked for is all there is."""
    assert scores.extfrag_index(blocks(o8=1)) == pytest.approx(-0.5)
    assert scores.extfrag_index(blocks(o0=1)) == pytest.approx(-0.001)
    assert scores.extfrag_index(blocks(o0=20000)) > scores.EXTFRAG_THRESHOLD


def test_a_mixture() -> None:
    mixed = blocks(o0=256, o8=1, o9=2, o10=1)
    assert scores.free_huge_share(mixed) == pytest.approx(4 / 5)
    assert scores.unusable_free_index(mixed) == pytest.approx(512 / 2560)
    assert scores.unusable_free_index(mixed, order=8) == pytest.approx(256 / 2560)
    assert scores.unusable_free_index(mixed, order=10) == pytest.approx((2560 - 1024) / 2560)
    assert scores.proactive_score(mixed) == 20


def test_nothing_free() -> None:
    none = blocks()
    assert np.isnan(scores.free_huge_share(none))
    assert np.isnan(scores.unusable_free_index(none))
    assert scores.extfrag_index(none) == 0.0
    assert scores.proactive_score(none) == 0


@given(st.lists(st.integers(0, 1000), min_size=11, max_size=11), st.integers(0, 10))
def test_scores_agree_with_each_other(counts: list[int], order: int) -> None:
    free = sum(n << o for o, n in enumerate(counts))
    usable = sum(n << o for o, n in enumerate(counts) if o >= order)
    if free == 0:
        return
    assert scores.unusable_free_index(counts, order) == pytest.approx(1 - usable / free)
    assert (scores.extfrag_index(counts, order) == -1.0) == (usable > 0)
    assert scores.proactive_score(counts) == int(scores.unusable_free_index(counts) * 100 + 1e-9)
    assert scores.extfrag_index(counts, order) < 1.0


def test_arrays_keep_their_shape() -> None:
    many = np.stack([blocks(o0=512), blocks(o9=1)])[None]
    assert scores.free_huge_share(many).tolist() == [[0.0, 1.0]]
    assert scores.proactive_score(many).shape == (1, 2)


def test_marks_of_proactive_compaction() -> None:
    assert scores.proactive_marks() == (80, 90)
    assert scores.proactive_marks(100) == (5, 15)
    assert scores.proactive_marks(0) == (100, 100)
    with pytest.raises(ValueError, match=r"0\.\.100, got 101"):
        scores.proactive_marks(101)


def test_scores_of_a_dataset() -> None:
    data = np.stack([blocks(o0=512), blocks(o9=1)], axis=-1).astype("f8")
    data = np.concatenate([data, np.full((11, 1), np.nan)], axis=1)
    coords = {"order": np.arange(11), "time": [0.0, 1.0, 2.0]}
    ds = xr.Dataset({"free_blocks": (("order", "time"), data)}, coords)
    out = sf.fragmentation_scores(ds)
    assert out.free_huge_share.dims == ("time",)
    assert out.proactive_score.values[:2].tolist() == [100, 0]
    assert np.isnan(out.proactive_score.values[2])
    assert out.extfrag_index.attrs["request_order"] == 9
    with pytest.raises(ValueError, match="no variable free_blocks"):
        sf.fragmentation_scores(xr.Dataset())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scores.free_huge_share([1, 2, 3]), "11 orders"),
        (lambda: scores.free_huge_share(3), "11 orders"),
        (lambda: scores.proactive_score(-blocks(o0=1)), "negative"),
        (lambda: scores.extfrag_index(blocks(o0=1), 11), r"0\.\.10, got 11"),
    ],
)
def test_wrong_input(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
